"""Weights of a recogniser as numpy arrays by name; imports neither jax nor flax."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxcrnn.architecture import ModelConfig
from jaxcrnn.errors import UserError
from jaxcrnn.nn.layers import Block, Layer, layers_of, rows

GROUPS = ("params", "batch_stats")


def shapes(model: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of every array of a model by its name, as in `flattened`.

    Examples:
      >>> from jaxcrnn.architecture import ModelConfig
      >>> from jaxcrnn.interop.weights import shapes
      >>> shapes(ModelConfig("tiny", hidden=4, num_classes=3))["params.head.kernel"]
      (8, 3)
    """
    out: dict[str, tuple[int, ...]] = {}
    channels = model.imported.colors
    for i, layer in enumerate(layers_of(model.backbone, model.imported.channels)):
        if isinstance(layer, Block):
            out |= _block(f"block{i}", layer, channels)
        else:
            out |= _convolution("", i, layer, channels)
        channels = layer.features
    size = channels * (rows(model.backbone, model.height) if model.imported.rows == "flat" else 1)
    counts = {"lstm": 0, "linear": 0}
    for kind, hidden in model.layers():
        group = "linear" if kind == "linear" else "lstm"
        name = f"params.{group}{counts[group]}"
        counts[group] += 1
        if group == "linear":
            out |= {f"{name}.kernel": (size, hidden), f"{name}.bias": (hidden,)}
            size = hidden
            continue
        both = 2 if kind == "bilstm" else 1
        out |= {f"{name}.kernel_x": (both, size, 4 * hidden), f"{name}.kernel_h": (both, hidden, 4 * hidden)}
        out |= {f"{name}.bias{end}": (both, 4 * hidden) for end in ("", "_h")[: 1 + model.imported.two_biases]}
        size = both * hidden
    return out | {"params.head.kernel": (size, model.num_classes), "params.head.bias": (model.num_classes,)}


def _convolution(place: str, i: int, layer: Layer, channels: int) -> dict[str, tuple[int, ...]]:
    name, norm, features = f"params.backbone.{place}conv{i}", f"backbone.{place}norm{i}", (layer.features,)
    out: dict[str, tuple[int, ...]] = {f"{name}.kernel": (*layer.kernel, channels, layer.features)}
    if layer.biased or not layer.norm:
        out[f"{name}.bias"] = features
    if layer.norm:
        out |= {f"params.{norm}.{leaf}": features for leaf in ("scale", "bias")}
        out |= {f"batch_stats.{norm}.{leaf}": features for leaf in ("mean", "var")}
    return out


def _block(name: str, block: Block, channels: int) -> dict[str, tuple[int, ...]]:
    layer = Layer(block.features, norm=True)
    out: dict[str, tuple[int, ...]] = {}
    for i, inside in enumerate((channels, block.features)):
        out |= _convolution(f"{name}.", i, layer, inside)
    if channels != block.features:
        out |= _convolution(f"{name}.", 2, layer._replace(kernel=(1, 1)), channels)
    return out


def flattened(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Flatten variables to a dict with names such as ``params.backbone.conv0.kernel``, in alphabetical order."""
    return {name: np.ascontiguousarray(value) for name, value in sorted(_leaves(variables))}


def _leaves(variables: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in variables.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{place}{name}.")
        else:
            yield place + name, value


def unflattened(arrays: Mapping[str, np.ndarray], model: ModelConfig, path: Path) -> dict[str, Any]:
    """Restore the variables of a model from `flattened` arrays; float16 is converted to float32.

    Args:
      arrays: arrays by name.
      model: model that they belong to.
      path: file of the arrays, for messages.

    Raises:
      UserError: a name is missing or unexpected, or a shape is wrong.
    """
    expected = shapes(model)
    out: dict[str, Any] = {group: {} for group in GROUPS}
    for name, shape in sorted(expected.items()):
        if name not in arrays:
            raise UserError(f"{path}: missing {name}, which the model of config.json has")
        value = arrays[name]
        if value.dtype == np.float16:  # a storage format; computations use float32
            value = value.astype(np.float32)
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise UserError(f"{path}: {name} has non-finite values")
        if value.shape != shape or value.dtype != np.float32:
            raise UserError(f"{path}: {name} is {value.dtype} {list(value.shape)}; expected float32 {list(shape)}")
        *place, leaf = name.split(".")
        inside = out
        for part in place:
            inside = inside.setdefault(part, {})
        inside[leaf] = value
    if unexpected := sorted(arrays.keys() - expected.keys()):
        raise UserError(f"{path}: unexpected {', '.join(unexpected[:5])}, which the model of config.json does not have")
    return out
