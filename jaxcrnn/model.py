"""The recogniser: convolutions, recurrent layers and a linear head (CRNN; Shi, Bai and Yao, 2015)."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from jaxcrnn._arguments import integers
from jaxcrnn.architecture import ModelConfig
from jaxcrnn.kernels.dtypes import at_least_float32
from jaxcrnn.kernels.mesh_ops import LOCAL, Ops
from jaxcrnn.nn.backbones import Backbone
from jaxcrnn.nn.linear_head import LinearHead
from jaxcrnn.nn.lstm import BiLSTM
from jaxcrnn.types import Outputs

__all__ = ["CRNN", "DTYPES", "ModelConfig", "standardized"]

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16, "float64": jnp.float64}
jax.tree_util.register_static(ModelConfig)  # not in its module, which does not import jax


class CRNN(nn.Module):
    """A CRNN: ``apply(variables, images [B,H,W,1], widths [B], train=...) -> Outputs``.

    With ``train=True`` batch normalisation uses the statistics of the batch: pass ``mutable=["batch_stats"]``, and
    ``rngs={"dropout": key}`` if the config has dropout. The first ``frozen`` layers of the backbone have no gradient
    and keep the statistics of their batch normalisation. Columns at ``x >= widths[b]`` are padding and ignored.

    Attributes:
      config: the architecture; ``num_classes`` must be set.
      ops: implementation of sharded operations (`jaxcrnn.kernels.mesh_ops`).

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxcrnn.model import CRNN, ModelConfig
      >>> model = CRNN(ModelConfig("tiny", hidden=4, num_classes=3))
      >>> images, widths = jnp.ones((2, 32, 40, 1)), jnp.array([40, 24])
      >>> variables = jax.eval_shape(model.init, jax.random.key(0), images, widths)  # shapes only
      >>> jax.eval_shape(model.apply, variables, images, widths).logits.shape
      (2, 10, 3)
    """

    config: ModelConfig
    ops: Ops = LOCAL

    @nn.compact
    def __call__(self, images: Array, widths: Array, *, train: bool = False, frozen: int = 0) -> Outputs:
        config, imported, dtype = self.config, self.config.imported, DTYPES[self.config.dtype]
        widths = integers("widths", widths)
        if config.standardize:
            images = standardized(images, widths)
        if (imported.black, imported.white) != (-1.0, 1.0):
            images = imported.black + (images + 1) * ((imported.white - imported.black) / 2)
        if images.shape[3] != imported.colors:
            images = jnp.broadcast_to(images, (*images.shape[:3], imported.colors))
        winograd = config.conv == "winograd"
        backbone = Backbone(config.backbone, dtype, imported.channels, imported.rows, winograd, name="backbone")
        x, lengths = backbone(images, widths, train, frozen)
        lstms = linears = 0
        for kind, size in config.layers():
            if kind == "linear":
                x = _linear(x, lengths, size, dtype, f"linear{linears}")
                linears += 1
                continue
            x = nn.Dropout(config.dropout, deterministic=not train)(x)
            directions = 2 if kind == "bilstm" else 1
            layer = BiLSTM(size, dtype, directions, imported.two_biases, config.lstm, self.ops, name=f"lstm{lstms}")
            x = layer(x, lengths)
            lstms += 1
        logits = LinearHead(config.num_classes, config.head == "fused", self.ops, name="head")(x)
        return Outputs(logits, at_least_float32(x), lengths)


def _linear(x: Array, lengths: Array, size: int, dtype: Any, name: str) -> Array:
    """Apply a linear layer to every frame; padded frames stay 0."""
    flat = nn.Dense(size, dtype=dtype, name=name)(x.reshape(-1, x.shape[2]))
    inside = jnp.arange(x.shape[1])[None, :] < lengths[:, None]
    return jnp.where(inside[:, :, None], flat.reshape(*x.shape[:2], size), jnp.zeros((), dtype))


def standardized(images: Array, widths: Array) -> Array:
    """Shift and scale each line to mean 0 and variance 1 over its unpadded columns.

    Args:
      images: ``[B,H,W,1]``.
      widths: ``[B]`` int32, widths in pixels without padding.

    Returns:
      Images of the same shape; padding is 0.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxcrnn.model import standardized
      >>> images = jnp.array([0.0, 1.0, 7.0]).reshape(1, 1, 3, 1)
      >>> [round(x, 2) for x in standardized(images, jnp.array([2])).ravel().tolist()]
      [-1.0, 1.0, 0.0]
    """
    widths = integers("widths", widths)
    true = (jnp.arange(images.shape[2])[None, :] < widths[:, None])[:, None, :, None]
    pixels = jnp.maximum(widths * images.shape[1], 1).astype(images.dtype)[:, None, None, None]
    mean = jnp.where(true, images, 0.0).sum((1, 2, 3), keepdims=True) / pixels
    centered = jnp.where(true, images - mean, 0.0)
    variance = jnp.square(centered).sum((1, 2, 3), keepdims=True) / pixels
    return centered * jax.lax.rsqrt(variance + 1e-4)
