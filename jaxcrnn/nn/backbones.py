"""Convolutional backbones: from an image to one feature vector per frame (`jaxcrnn.nn.layers` has their tables)."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array, lax

from jaxcrnn.kernels import conv_cpu
from jaxcrnn.kernels.dtypes import at_least_float32
from jaxcrnn.kernels.pooling import max_pool
from jaxcrnn.nn.batch_norm import BatchNorm
from jaxcrnn.nn.layers import BACKBONES, HEIGHT, Block, Layer, frames, layers_of, padding, rows, width_after

__all__ = ["BACKBONES", "HEIGHT", "Backbone", "Block", "Layer", "frames", "layers_of", "rows"]


class Backbone(nn.Module):
    """The layers of `layers_of`, with padded columns reset to zero after each one.

    ``__call__(images [B,H,W,K], widths [B], train, frozen=0) -> (features [B,T,D], lengths [B])``; the first ``frozen``
    layers behave as in inference, and have no gradient.

    Convolutions pad with zeros as well, so a line gives the same result whatever width it is padded to. Batch
    statistics are taken over unpadded columns only.

    Attributes:
      name_of_layers: name of the backbone for `layers_of`.
      dtype: dtype of the products.
      channels: output channels of the last layer; 0 for those of the backbone.
      rows: how remaining rows become features: ``"flat"`` concatenates them, ``"mean"`` averages them.
      winograd: use `jaxcrnn.kernels.conv_cpu.convolve` for convolutions instead of XLA's, and matrix products for the
        sums of batch normalization: what is fastest on CPUs.
    """

    name_of_layers: str
    dtype: Any = jnp.float32
    channels: int = 0
    rows: str = "flat"
    winograd: bool = False

    @nn.compact
    def __call__(self, images: Array, widths: Array, train: bool, frozen: int = 0) -> tuple[Array, Array]:
        x = _mask(images.astype(self.dtype), widths)
        convolve = None
        if self.winograd and not self.is_initializing():
            # Evaluation results must not depend on the batch size, so it must not choose the algorithm either.
            convolve = functools.partial(conv_cpu.convolve, any_size=not train)
        for i, layer in enumerate(layers_of(self.name_of_layers, self.channels)):
            training = train and i >= frozen
            if train and i == frozen:
                x = lax.stop_gradient(x)
            if isinstance(layer, Block):
                x = _Block(layer.features, self.dtype, convolve, name=f"block{i}")(x, widths, training)
                continue
            x = _conv(layer, self.dtype, convolve, f"conv{i}")(x)
            convolved = width_after(layer._replace(pool=None), widths, jnp.where)
            if layer.norm:
                x = BatchNorm(products=self.winograd, name=f"norm{i}")(x, _inside(x, convolved), training)
            x = _mask(x, convolved)
            widths = width_after(layer, widths, jnp.where)
            if layer.pool:
                # ReLU afterwards gives the same values, from fewer pixels.
                x = _mask(max_pool(x, layer.pool, layer.stride, layer.pad), widths)
            x = nn.relu(x)
        if self.rows == "mean":
            x = at_least_float32(x).mean(1, keepdims=True).astype(self.dtype)
        if train and frozen > i:  # all layers
            x = lax.stop_gradient(x)
        b, h, t, c = x.shape
        return jnp.transpose(x, (0, 2, 1, 3)).reshape(b, t, h * c), widths


class _Block(nn.Module):
    features: int
    dtype: Any
    convolve: Any

    @nn.compact
    def __call__(self, x: Array, widths: Array, train: bool) -> Array:
        inside, layer = _inside(x, widths), Layer(self.features, norm=True)

        def normed(x: Array, layer: Layer, i: int) -> Array:
            x = _conv(layer, self.dtype, self.convolve, f"conv{i}")(x)
            return BatchNorm(products=self.convolve is not None, name=f"norm{i}")(x, inside, train)

        through = normed(_mask(nn.relu(normed(x, layer, 0)), widths), layer, 1)
        around = normed(x, layer._replace(kernel=(1, 1)), 2) if x.shape[3] != self.features else x
        return _mask(nn.relu(through + around), widths)


def _conv(layer: Layer, dtype: Any, convolve: Any, name: str) -> nn.Conv:
    return nn.Conv(
        layer.features,
        layer.kernel,
        layer.step,
        padding=padding(layer),
        use_bias=layer.biased or not layer.norm,
        dtype=dtype,
        conv_general_dilated=convolve,
        name=name,
    )


def _inside(x: Array, widths: Array) -> Array:
    return (jnp.arange(x.shape[2])[None, :] < widths[:, None])[:, None, :, None]


def _mask(x: Array, widths: Array) -> Array:
    return jnp.where(_inside(x, widths), x, jnp.zeros((), x.dtype))
