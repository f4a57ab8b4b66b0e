"""The convolutions: from an image to one feature vector a frame."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxcrnn.convolution import convolve
from jaxcrnn.normalization import BatchNorm
from jaxcrnn.precision import wide


class Layer(NamedTuple):
    """A convolution with ReLU, and what surrounds it.

    Attributes:
      features: output channels.
      norm: batch normalisation between convolution and ReLU.
      pool: size of the max pooling after it (rows, columns), or None.
      stride: column stride of that pooling; the row stride is its row size.
      pad: columns of padding left and right of that pooling.
      kernel: rows and columns of the convolution.
      valid: whether the convolution goes without padding.
    """

    features: int
    norm: bool = False
    pool: tuple[int, int] | None = None
    stride: int = 2
    pad: int = 0
    kernel: tuple[int, int] = (3, 3)
    valid: bool = False


BACKBONES: dict[str, tuple[Layer, ...]] = {
    # Shi, Bai and Yao 2015, table 1, with the pooling of its public implementations: W/4 + 1 frames from 32 rows.
    "vgg": (
        Layer(64, pool=(2, 2)),
        Layer(128, pool=(2, 2)),
        Layer(256, norm=True),
        Layer(256, pool=(2, 2), stride=1, pad=1),
        Layer(512, norm=True),
        Layer(512, pool=(2, 2), stride=1, pad=1),
        Layer(512, norm=True, kernel=(2, 2), valid=True),
    ),
    # A quarter of the channels and of the depth, for CPUs: W/4 frames from 32 rows.
    "small": (
        Layer(32, norm=True, pool=(2, 2)),
        Layer(64, norm=True, pool=(2, 2)),
        Layer(128, norm=True, pool=(2, 1), stride=1),
        Layer(128, norm=True, pool=(2, 1), stride=1),
        Layer(256, norm=True, kernel=(2, 1), valid=True),
    ),
    # To try a data set or a setting on: it compiles in half the time and learns little.
    "tiny": (
        Layer(8, norm=True, pool=(2, 2)),
        Layer(16, norm=True, pool=(2, 2)),
        Layer(32, norm=True, kernel=(8, 1), valid=True),
    ),
}
HEIGHT = 32


def frames(name: str, width: Any) -> Any:
    """Frames that a backbone makes of a width in pixels, or of each width of a numpy array.

    >>> int(frames("vgg", 100)), int(frames("small", 100))
    (26, 25)
    """
    for layer in BACKBONES[name]:
        width = _width_after(layer, width, np.where)
    return width


def _width_after(layer: Layer, width: Any, where: Any) -> Any:
    after = width - (layer.kernel[1] - 1) if layer.valid else width
    if layer.pool:
        # Strides are powers of two: a shift does, and // of signed integers is ten operations that XLA repeats in every
        # loop that masks.
        after = ((after + 2 * layer.pad - layer.pool[1]) >> (layer.stride.bit_length() - 1)) + 1
    # Without a true column there is no frame from the padding either.
    return where((width > 0) & (after > 0), after, 0)


class Backbone(nn.Module):
    """The layers of ``BACKBONES[name]``, padded columns kept at zero after each.

    ``__call__(images [B,32,W,1], widths [B], train) -> (features [B,T,D], lengths [B])``.

    Zero is what a convolution's own padding is, so a line gives the same numbers whatever it is padded to; batch
    statistics are taken over true columns only.
    """

    name_of_layers: str
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: Array, widths: Array, train: bool) -> tuple[Array, Array]:
        x = _mask(images.astype(self.dtype), widths)
        for i, layer in enumerate(BACKBONES[self.name_of_layers]):
            padding = "VALID" if layer.valid else "SAME"
            # A bias before batch normalisation would be subtracted again with the mean.
            x = nn.Conv(
                layer.features,
                layer.kernel,
                padding=padding,
                use_bias=not layer.norm,
                dtype=self.dtype,
                # Nobody reads what a fresh state is made with: it need not be traced tile by tile.
                conv_general_dilated=functools.partial(convolve, whatever_size=not (train or self.is_initializing())),
                name=f"conv{i}",
            )(x)
            convolved = _width_after(layer._replace(pool=None), widths, jnp.where)
            if layer.norm:
                norm = BatchNorm(name=f"norm{i}")
                x = norm(wide(x), _inside(x, convolved), train).astype(self.dtype)
            x = _mask(nn.relu(x), convolved)
            widths = _width_after(layer, widths, jnp.where)
            if layer.pool:
                x = _mask(_max_pool(x, layer), widths)
        b, h, t, c = x.shape
        return jnp.transpose(x, (0, 2, 1, 3)).reshape(b, t, h * c), widths


def _max_pool(x: Array, layer: Layer) -> Array:
    """Max pooling of what ReLU left (zero padding is neutral) as the maximum of shifted slices.

    On CPU the gradient of XLA's windowed maximum takes 17 times as long (docs/speed.md).
    """
    rows, columns = layer.pool or (1, 1)
    x = jnp.pad(x, ((0, 0), (0, 0), (layer.pad, layer.pad), (0, 0)))
    bottom = x.shape[1] - rows + 1
    right = x.shape[2] - columns + 1
    slices = [x[:, r : r + bottom : rows, c : c + right : layer.stride] for r in range(rows) for c in range(columns)]
    return functools.reduce(jnp.maximum, slices)


def _inside(x: Array, widths: Array) -> Array:
    return (jnp.arange(x.shape[2])[None, :] < widths[:, None])[:, None, :, None]


def _mask(x: Array, widths: Array) -> Array:
    return jnp.where(_inside(x, widths), x, jnp.zeros((), x.dtype))
