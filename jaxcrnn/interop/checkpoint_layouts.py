"""Key layouts of other programs' CRNN checkpoints: detection, and the mapping between their arrays and ours.

A layout is a table of names, so the same table imports and exports weights. Arrays are numpy's; neither torch nor jax
is imported.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from jaxcrnn._text import listed
from jaxcrnn.errors import UserError
from jaxcrnn.interop import spelled
from jaxcrnn.nn.imported import Imported
from jaxcrnn.nn.layers import Block, Layer, layers_of

Path = tuple[str, ...]
Arrays = Mapping[str, np.ndarray]
Convolutions = tuple[tuple[str, str] | str, ...]

CRNN, GITYCC, DTRB, SEQUENTIAL, OURS = "crnn.pytorch", "GitYCC", "deep-text-recognition", "sequential", "torch_ref"
_VGG_DTRB: Convolutions = (("0", ""), ("3", ""), ("6", ""), ("8", ""), ("11", "12"), ("14", "15"), ("18", ""))
# One stage of the network per row.
_RESNET: Convolutions = (
    ("conv0_1", "bn0_1"), ("conv0_2", "bn0_2"),
    "layer1.0", ("conv1", "bn1"),
    "layer2.0", "layer2.1", ("conv2", "bn2"),
    *(f"layer3.{i}" for i in range(5)), ("conv3", "bn3"),
    *(f"layer4.{i}" for i in range(3)), ("conv4_1", "bn4_1"), ("conv4_2", "bn4_2"),
)  # fmt: skip
_IN_BLOCK = (("conv1", "bn1"), ("conv2", "bn2"), ("downsample.0", "downsample.1"))
EXPECTED = (
    "crnn.pytorch (cnn.conv0, rnn.0.rnn, rnn.0.embedding), deep-text-recognition-benchmark or EasyOCR "
    "(FeatureExtraction.ConvNet, SequenceModeling, Prediction), GitYCC (cnn.conv0, map_to_seq, rnn1), a sequential "
    "CRNN (cnn.0, rnn.0, embedding), or torch_ref (backbone.conv0, lstm0, head)"
)


class UnknownLayout(UserError):
    """A state dict with names of its own, which a map of names may explain (`jaxcrnn.interop.name_maps`)."""


class Names(NamedTuple):
    """Key prefixes of the parts of a model in a layout.

    Attributes:
      convolutions: for each layer of the backbone, the prefixes of its convolution and normalization, or one prefix
        for a residual block.
      recurrent: prefix of each recurrent layer.
      head: prefix of the head.
    """

    convolutions: Convolutions
    recurrent: tuple[str, ...]
    head: str


class Layout(NamedTuple):
    """Layout of a state dict.

    Attributes:
      name: name of the layout.
      model: arguments of `jaxcrnn.model.ModelConfig` that follow from the state dict.
      names: key prefixes.
      assumed: assumptions that the state dict cannot confirm, one line each.
    """

    name: str
    model: dict[str, Any]
    names: Names
    assumed: list[str]


def recognise(state: Arrays, *, height: int = 32, pools: str = "") -> Layout:
    """Detect the layout of a state dict from its keys and shapes.

    Args:
      state: names and arrays, without a prefix such as ``module.``.
      height: height of the model's images in pixels.
      pools: poolings of a sequential model, such as ``2x2,2x2,-,2x1,4x1``; empty to infer them.

    Raises:
      UserError: the layout is unknown or not supported (naming keys and what was expected).
    """
    if pools and any(key.startswith(("cnn.conv0.", "FeatureExtraction.", "backbone.conv0.")) for key in state):
        raise UserError(f"--pools {pools} applies to sequential checkpoints only; drop it for this one")
    if any(key.startswith("Transformation.") for key in state):
        raise UserError("the checkpoint has a spatial transformer (Transformation.*, TPS); expected one without")
    if any(re.match(r"Prediction\.attention_cell|decoder\..*att(en|n)", key) for key in state):
        raise UserError("the checkpoint uses an attention decoder; expected one trained with CTC")
    if "cnn.conv0.weight" in state and "map_to_seq.weight" in state:
        names = Names(numbered("cnn.conv{}", "cnn.batchnorm{}", 7), ("map_to_seq", "rnn1", "rnn2"), "dense")
        return layout_of(GITYCC, state, {"backbone": "vgg-gitycc"}, names, ("linear", "lstm", "lstm"))
    if "cnn.conv0.weight" in state and "rnn.0.rnn.weight_ih_l0" in state:
        return layout_of(CRNN, state, {"backbone": "vgg-crnn"}, _crnn_names(), ("lstm", "linear", "lstm"))
    if any(key.startswith("FeatureExtraction.ConvNet.") for key in state):
        return _dtrb(state)
    if "backbone.conv0.weight" in state and "head.weight" in state:
        return _ours(state)
    if "cnn.0.weight" in state:
        return _sequential(state, height, pools)
    raise UnknownLayout(f"unknown layout with keys {listed(sorted(state), 6) or '(none)'}")


def numbered(conv: str, norm: str, count: int) -> tuple[tuple[str, str], ...]:
    """Return the prefixes of numbered convolutions and of their normalization."""
    return tuple((conv.format(i), norm.format(i)) for i in range(count))


def _crnn_names() -> Names:
    recurrent = ("rnn.0.rnn", "rnn.0.embedding", "rnn.1.rnn")
    return Names(numbered("cnn.conv{}", "cnn.batchnorm{}", 7), recurrent, "rnn.1.embedding")


def _get(state: Arrays, key: str) -> np.ndarray:
    if key not in state:
        raise UnknownLayout(f"missing key {key}; the checkpoint has {', '.join(sorted(state)[:6])} ...")
    return state[key]


def layout_of(name: str, state: Arrays, model: dict[str, Any], names: Names, kinds: tuple[str, ...]) -> Layout:
    """Build a layout whose sizes, directions, colors and classes follow from the shapes."""
    words, hidden = [], 0
    for kind, prefix in zip(kinds, names.recurrent, strict=True):
        if kind == "linear":
            words.append(("linear", int(_get(state, f"{prefix}.weight").shape[0])))
            continue
        size = int(_get(state, _lstm_key(prefix, "weight_hh", "")).shape[1])
        words.append(("bilstm" if _lstm_key(prefix, "weight_hh", "_reverse") in state else "lstm", size))
        hidden = hidden or size
    first = _get(state, _conv_name(names.convolutions[0]) + ".weight")
    last = int(_get(state, _conv_name(names.convolutions[-1]) + ".weight").shape[0])
    own = layers_of(model["backbone"])[-1].features
    imported = Imported(
        two_biases=True,
        channels=0 if last == own else last,
        rows="mean" if name == DTRB else "flat",
        colors=int(first.shape[1]),
    )
    recurrent = " ".join(kind if size == hidden else f"{kind}:{size}" for kind, size in words)
    classes = int(_get(state, f"{names.head}.weight").shape[0])
    sizes = {"hidden": hidden, "recurrent": recurrent, "num_classes": classes, "dropout": 0.0}
    return Layout(name, {**model, **sizes, "imported": imported}, names, [])


def _conv_name(names: tuple[str, str] | str) -> str:
    return names[0] if isinstance(names, tuple) else f"{names}.conv1"


def _dtrb(state: Arrays) -> Layout:
    base = "FeatureExtraction.ConvNet."
    if base + "conv0_1.weight" in state:
        backbone, prefixes = "resnet", _RESNET
    else:
        backbone, prefixes = "vgg-dtrb", _VGG_DTRB
    convolutions = tuple(base + one if isinstance(one, str) else (base + one[0], base + one[1]) for one in prefixes)
    count = len({key.split(".")[1] for key in state if key.startswith("SequenceModeling.")})
    if not count:
        raise UserError("missing keys SequenceModeling.*; expected a checkpoint with two LSTMs")
    recurrent = tuple(f"SequenceModeling.{i}.{part}" for i in range(count) for part in ("rnn", "linear"))
    names = Names(convolutions, recurrent, "Prediction")
    return layout_of(DTRB, state, {"backbone": backbone}, names, ("lstm", "linear") * count)


def _ours(state: Arrays) -> Layout:
    count = len({key.split(".")[1] for key in state if key.startswith("backbone.conv")})
    names = Names(numbered("backbone.conv{}", "backbone.norm{}", count), ("lstm0", "lstm1"), "head")
    backbones = {7: "vgg", 5: "small", 3: "tiny"}
    if count not in backbones:
        raise UserError(f"the checkpoint has {count} convolutions; expected 7 (vgg), 5 (small) or 3 (tiny)")
    return layout_of(OURS, state, {"backbone": backbones[count]}, names, ("lstm", "lstm"))


def _sequential(state: Arrays, height: int, pools: str) -> Layout:
    """Detect layers by their index in ``nn.Sequential``, where layers without weights leave gaps."""
    places = sorted({int(key.split(".")[1]) for key in state if re.fullmatch(r"cnn\.\d+\.weight", key)})
    convs = [n for n in places if state[f"cnn.{n}.weight"].ndim == 4]
    matches = (re.fullmatch(r"rnn\.(\d+)\.weight_hh_l(\d)", key) for key in state)
    lstms = sorted((int(match[1]), int(match[2])) for match in matches if match)
    heads = [
        key.removesuffix(".weight")
        for key in state
        if key.endswith(".weight") and state[key].ndim == 2 and not key.startswith(("cnn.", "rnn."))
    ]
    if len(heads) != 1 or not lstms or not convs:
        raise UnknownLayout(
            f"a sequential checkpoint with {len(convs)} convolutions, {len(lstms)} LSTMs (rnn.0) and "
            f"{len(heads)} linear heads; expected at least one of each and only one head"
        )
    norms = {n for n in places if f"cnn.{n}.running_mean" in state}
    names = tuple((f"cnn.{n}", f"cnn.{n + 1}") for n in convs)
    gaps = [m - n - 1 - (n + 1 in norms) > 1 for n, m in pairwise(convs)]  # more than an activation
    backbone, poolings = spelled.backbone(state, names, [*gaps, True], height, pools)
    recurrent = tuple(f"rnn.{place}._l{layer}" for place, layer in lstms)
    kinds = ("lstm",) * len(recurrent)
    layout = layout_of(SEQUENTIAL, state, {"backbone": backbone}, Names(names, recurrent, heads[0]), kinds)
    layout.model["height"] = height
    layout.assumed.append(f"{poolings}, stride-1 convolutions with size-preserving padding, and ReLU after each")
    return layout


def _lstm_key(prefix: str, part: str, end: str) -> str:
    """Return the key of an LSTM parameter; ``rnn.0`` is the first layer, ``rnn.0._l1`` the second."""
    stem, _, layer = prefix.rpartition("._l")
    return f"{stem}.{part}_l{layer}{end}" if stem else f"{prefix}.{part}_l0{end}"


def table(layout: Layout, state: Arrays) -> Iterator[tuple[str, Path, int | None]]:
    """Map the keys of a checkpoint to the arrays of the variables.

    Yields:
      The key, the path of the array, and the index along a new first axis if several keys are stacked to one array
      (the directions of an LSTM), else None.
    """
    names, model = layout.names, layout.model
    layers = layers_of(model["backbone"], model["imported"].channels)
    for i, (layer, name) in enumerate(zip(layers, names.convolutions, strict=True)):
        if isinstance(layer, Block):
            assert isinstance(name, str)
            for k, (conv, norm) in enumerate(_IN_BLOCK):
                if k < 2 or f"{name}.{conv}.weight" in state:
                    one = Layer(layer.features, norm=True)
                    yield from _conv(one, (f"{name}.{conv}", f"{name}.{norm}"), ("backbone", f"block{i}"), k)
        else:
            assert isinstance(name, tuple)
            yield from _conv(layer, name, ("backbone",), i)
    counts = {"lstm": 0, "linear": 0}
    for word, name in zip(model["recurrent"].split(), names.recurrent, strict=True):
        kind = word.partition(":")[0]
        if kind == "linear":
            yield from _linear(name, f"linear{counts['linear']}")
            counts["linear"] += 1
            continue
        ours = {"kernel_x": "weight_ih", "kernel_h": "weight_hh", "bias": "bias_ih", "bias_h": "bias_hh"}
        for k, end in enumerate(("", "_reverse") if kind == "bilstm" else ("",)):
            for part, theirs in ours.items():
                if part != "bias_h" or model["imported"].two_biases:
                    yield _lstm_key(name, theirs, end), ("params", f"lstm{counts['lstm']}", part), k
        counts["lstm"] += 1
    yield from _linear(names.head, "head")


def _linear(name: str, ours: str) -> Iterator[tuple[str, Path, None]]:
    yield f"{name}.weight", ("params", ours, "kernel"), None
    yield f"{name}.bias", ("params", ours, "bias"), None


def _conv(layer: Layer, names: tuple[str, str], at: Path, i: int) -> Iterator[tuple[str, Path, None]]:
    conv, norm = names
    yield f"{conv}.weight", ("params", *at, f"conv{i}", "kernel"), None
    if layer.biased or not layer.norm:
        yield f"{conv}.bias", ("params", *at, f"conv{i}", "bias"), None
    if layer.norm:
        yield f"{norm}.weight", ("params", *at, f"norm{i}", "scale"), None
        yield f"{norm}.bias", ("params", *at, f"norm{i}", "bias"), None
        yield f"{norm}.running_mean", ("batch_stats", *at, f"norm{i}", "mean"), None
        yield f"{norm}.running_var", ("batch_stats", *at, f"norm{i}", "var"), None


def fields_of(model: Any) -> dict[str, Any]:
    """Return the fields of a `jaxcrnn.model.ModelConfig`, as in `Layout.model`."""
    return {field.name: getattr(model, field.name) for field in fields(model)}


def turned(array: np.ndarray, back: bool = False) -> np.ndarray:
    """Transpose from torch to flax, or ``back``: convolutions ``[O,I,H,W]`` to ``[H,W,I,O]``, and matrices."""
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1) if back else array.transpose(2, 3, 1, 0)
    return array.T


def variables_of(layout: Layout, state: Arrays) -> tuple[dict[str, Any], dict[str, int]]:
    """Convert a state dict to variables.

    Every key is used exactly once. Batch counters (``num_batches_tracked``) are returned separately.

    Returns:
      ``{"params": ..., "batch_stats": ...}``, and the counters.

    Raises:
      UserError: a key is missing or unexpected.
    """
    left, parts = dict(state), defaultdict[Path, dict[int | None, np.ndarray]](dict)
    for key, path, place in table(layout, state):
        parts[path][place] = turned(_get(state, key))
        left.pop(key, None)
    counters = {key: int(left.pop(key)) for key in list(left) if key.endswith(".num_batches_tracked")}
    if left:
        shown = ", ".join(f"{key} {list(left[key].shape)}" for key in sorted(left)[:5])
        raise UserError(f"{layout.name}: {len(left)} unexpected keys: {shown}")
    out: dict[str, Any] = {"params": {}, "batch_stats": {}}
    for path, arrays in parts.items():
        value = arrays[None] if None in arrays else np.stack([arrays[k] for k in range(len(arrays))])
        inner = out
        for name in path[:-1]:
            inner = inner.setdefault(name, {})
        inner[path[-1]] = np.ascontiguousarray(value)
    return out, counters


def state_of(layout: Layout, variables: Mapping[str, Any], counters: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Convert variables to a state dict, the exact inverse of `variables_of`.

    Args:
      layout: layout that `recognise` returned.
      variables: ``{"params": ..., "batch_stats": ...}``.
      counters: batch counters that `variables_of` returned.
    """
    blocks = _blocks_around(layout, variables)
    out: dict[str, np.ndarray] = {}
    for key, path, place in table(layout, blocks):
        value: Any = variables
        for name in path:
            value = value[name]
        out[key] = np.ascontiguousarray(turned(np.asarray(value if place is None else value[place]), back=True))
    return out | {key: np.asarray(value, np.int64) for key, value in counters.items()}


def as_crnn_pytorch(model: Mapping[str, Any], variables: Mapping[str, Any]) -> tuple[Layout, dict[str, Any]]:
    """Convert a model with the architecture of crnn.pytorch to its layout; missing biases are 0.

    Args:
      model: fields of a `jaxcrnn.model.ModelConfig`.
      variables: ``{"params": ..., "batch_stats": ...}``.

    Raises:
      UserError: the model has another architecture.
    """
    kinds, imported = [word.partition(":")[0] for word in model["recurrent"].split()], model["imported"]
    if model["backbone"] not in ("vgg", "vgg-crnn") or kinds != ["bilstm", "linear", "bilstm"] or imported.channels:
        raise UserError(
            f"the model is {model['backbone']}, {model['recurrent']}; expected crnn.pytorch's vgg or "
            "vgg-crnn, bilstm linear bilstm"
        )
    for name, value, expected in (
        ("model.standardize", model["standardize"], False),
        ("model.height", model["height"], 32),
        ("imported.black", imported.black, -1.0),
        ("imported.white", imported.white, 1.0),
    ):
        if value != expected:
            raise UserError(f"{name} is {value}, which crnn.pytorch does not support; expected {expected}")
    params = {name: dict(part) for name, part in variables["params"].items()}
    params["backbone"] = {
        name: {"bias": np.zeros(part["kernel"].shape[-1], np.float32), **part} if "kernel" in part else part
        for name, part in params["backbone"].items()
    }
    for name in ("lstm0", "lstm1"):
        params[name].setdefault("bias_h", np.zeros_like(params[name]["bias"]))
    model = {**model, "backbone": "vgg-crnn", "imported": replace(imported, two_biases=True)}
    return Layout(CRNN, model, _crnn_names(), []), {**variables, "params": params}


def _blocks_around(layout: Layout, variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the keys of the shortcut convolutions, for residual blocks that have one."""
    parts = variables["params"]["backbone"]
    return {
        f"{name}.{_IN_BLOCK[2][0]}.weight": np.zeros(0)
        for i, name in enumerate(layout.names.convolutions)
        if isinstance(name, str) and "conv2" in parts[f"block{i}"]
    }
