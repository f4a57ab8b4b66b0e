"""Orders of classes and features that differ between other programs and jaxcrnn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxcrnn.interop.checkpoint_layouts import OURS, Layout
from jaxcrnn.nn.layers import rows


def classes_moved(variables: Mapping[str, Any], by: int) -> dict[str, Any]:
    """Rotate the classes of the head: 1 moves the last class to the front, -1 moves it back."""
    params = variables["params"]
    head = {name: np.roll(np.asarray(a), by, -1) for name, a in params["head"].items()}
    return {**variables, "params": {**params, "head": head}}


def rows_moved(layout: Layout, variables: Mapping[str, Any], back: bool = False) -> dict[str, Any]:
    """Reorder the features that the first recurrent layer takes, if the convolutions leave several rows.

    PyTorch flattens ``[C,H]`` channel by channel; `jaxcrnn.nn.backbones.Backbone` flattens row by row.

    Args:
      layout: layout that `recognise` returned.
      variables: ``{"params": ..., "batch_stats": ...}``.
      back: reorder from jaxcrnn to PyTorch.
    """
    model = layout.model
    height = rows(model["backbone"], model["height"])
    if layout.name == OURS or model["imported"].rows != "flat" or height < 2:
        return dict(variables)
    first = "linear0" if model["recurrent"].startswith("linear") else "lstm0"
    name = "kernel" if first == "linear0" else "kernel_x"
    kernel = np.asarray(variables["params"][first][name])
    features = kernel.shape[-2] // height
    split = kernel.reshape(*kernel.shape[:-2], *((height, features) if back else (features, height)), kernel.shape[-1])
    moved = {**variables["params"][first], name: np.ascontiguousarray(split.swapaxes(-3, -2)).reshape(kernel.shape)}
    return {**variables, "params": {**variables["params"], first: moved}}
