"""Weights for lines of twice the height, from those of a recogniser that reads the height itself."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxcrnn.architecture import ModelConfig
from jaxcrnn.nn.layers import finer, layers_of


def is_finer(model: ModelConfig, other: ModelConfig) -> bool:
    """Return whether a model is another one for lines of twice the height, as `jaxcrnn.nn.layers.finer` makes it."""
    layers = layers_of(other.backbone)
    return model.height == 2 * other.height and layers_of(model.backbone) == finer(layers) != layers


def enlarged(variables: Any, before: ModelConfig, model: ModelConfig) -> Any:
    """Return variables for a model that may be finer than the one they belong to.

    Each value of the first kernel is spread over 2x2 pixels, so that the finer model computes of a line what the other
    one computes of the means of its 2x2 pixels; with ``model.standardize``, except that the contrast of a line is that
    of its finer pixels. The variables of any other model are returned unchanged.

    Args:
      variables: ``params`` and ``batch_stats`` of ``before``.
      before: model that they belong to.
      model: model to start.

    Returns:
      Variables of ``model``, in new dictionaries.

    Examples:
      >>> import numpy as np
      >>> from jaxcrnn.model import ModelConfig
      >>> from jaxcrnn.runs.finer_lines import enlarged
      >>> variables = {"params": {"backbone": {"conv0": {"kernel": np.full((3, 3, 1, 2), 8.0)}}}}
      >>> models = ModelConfig("vgg"), ModelConfig("vgg-fine", height=64)
      >>> kernel = enlarged(variables, *models)["params"]["backbone"]["conv0"]["kernel"]
      >>> kernel.shape, float(kernel[0, 0, 0, 0])
      ((6, 6, 1, 2), 2.0)
    """
    if not is_finer(model, before):
        return variables
    params, backbone = variables["params"], variables["params"]["backbone"]
    kernel = np.repeat(np.repeat(np.asarray(backbone["conv0"]["kernel"]), 2, 0), 2, 1) / 4
    first = {**backbone["conv0"], "kernel": kernel}
    return {**variables, "params": {**params, "backbone": {**backbone, "conv0": first}}}
