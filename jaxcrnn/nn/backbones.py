"""The convolutions: from an image to one feature vector a frame."""

from __future__ import annotations

import functools
import re
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxcrnn.errors import UserError
from jaxcrnn.kernels import conv_cpu
from jaxcrnn.kernels.dtypes import at_least_float32
from jaxcrnn.nn.batch_norm import BatchNorm


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
      biased: whether the convolution has a bias even before normalisation, which subtracts it again with the mean.
      step: row stride of the convolution.
      around: columns of padding left and right of a ``valid`` convolution.
    """

    features: int
    norm: bool = False
    pool: tuple[int, int] | None = None
    stride: int = 2
    pad: int = 0
    kernel: tuple[int, int] = (3, 3)
    valid: bool = False
    biased: bool = False
    step: int = 1
    around: int = 0


class Block(NamedTuple):
    """Two normalised 3x3 convolutions and a way around them (He et al., 2015), a 1x1 convolution where channels change.

    Attributes:
      features: output channels.
    """

    features: int


Layers = tuple[Layer | Block, ...]
BACKBONES: dict[str, Layers] = {
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
    # As deep-text-recognition-benchmark and EasyOCR have it: W/4 - 1 frames from 32 rows.
    "vgg-dtrb": (
        Layer(64, pool=(2, 2)),
        Layer(128, pool=(2, 2)),
        Layer(256),
        Layer(256, pool=(2, 1), stride=1),
        Layer(512, norm=True),
        Layer(512, norm=True, pool=(2, 1), stride=1),
        Layer(512, kernel=(2, 2), valid=True),
    ),
    # GitYCC's: as the one before, but for the biases.
    "vgg-gitycc": (
        Layer(64, pool=(2, 2)),
        Layer(128, pool=(2, 2)),
        Layer(256),
        Layer(256, pool=(2, 1), stride=1),
        Layer(512, norm=True, biased=True),
        Layer(512, norm=True, biased=True, pool=(2, 1), stride=1),
        Layer(512, kernel=(2, 2), valid=True),
    ),
    # The first one with biases everywhere, as crnn.pytorch and its children have it.
    "vgg-crnn": (
        Layer(64, pool=(2, 2)),
        Layer(128, pool=(2, 2)),
        Layer(256, norm=True, biased=True),
        Layer(256, pool=(2, 2), stride=1, pad=1),
        Layer(512, norm=True, biased=True),
        Layer(512, pool=(2, 2), stride=1, pad=1),
        Layer(512, norm=True, kernel=(2, 2), valid=True, biased=True),
    ),
    # The residual network of Cheng et al. (2017), table 1, as deep-text-recognition-benchmark and EasyOCR have it:
    # W/4 + 1 frames from 32 rows.
    "resnet": (
        Layer(32, norm=True),
        Layer(64, norm=True, pool=(2, 2)),
        Block(128),
        Layer(128, norm=True, pool=(2, 2)),
        *(Block(256),) * 2,
        Layer(256, norm=True, pool=(2, 2), stride=1, pad=1),
        *(Block(512),) * 5,
        Layer(512, norm=True),
        *(Block(512),) * 3,
        Layer(512, norm=True, kernel=(2, 2), valid=True, step=2, around=1),
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
_SPELLED = re.compile(r"(\d+)(n?)(b?)(?:k(\d+)x(\d+))?(v?)(?:p(\d+)x(\d+))?")


def layers_of(name: str, channels: int = 0) -> Layers:
    """The layers of a backbone.

    Args:
      name: one of ``BACKBONES``, or layers spelled out, parted by spaces: output channels, ``n`` for normalisation,
        ``b`` for a bias in spite of it, ``kRxC`` for a kernel that is not 3x3, ``v`` for no padding, ``pRxC`` for a
        pooling.
      channels: of the last layer, where they are not the table's: all others in proportion.

    Raises:
      UserError: neither.

    >>> layers_of("32p2x2 64nv")[1]
    Layer(features=64, norm=True, pool=None, stride=2, pad=0, kernel=(3, 3), valid=True, biased=False, step=1, around=0)
    """
    layers = BACKBONES.get(name)
    if layers is None:
        found = [_SPELLED.fullmatch(word) for word in name.split()]
        if not found or None in found:
            raise UserError(f"model.backbone is {name!r}; expected one of {', '.join(sorted(BACKBONES))}, or layers "
                            "such as '32p2x2 64np2x1 128k2x2v'")  # fmt: skip
        layers = tuple(_spelled(*match.groups()) for match in found if match)
    if not channels:
        return layers
    last = layers[-1].features
    return tuple(layer._replace(features=max(1, layer.features * channels // last)) for layer in layers)


def _spelled(
    features: str, norm: str, bias: str, rows: str, columns: str, valid: str, pool_rows: str, pool_columns: str
) -> Layer:
    kernel = (int(rows), int(columns)) if rows else (3, 3)
    pool = (int(pool_rows), int(pool_columns)) if pool_rows else None
    return Layer(int(features), bool(norm), pool, int(pool_columns or 2), 0, kernel, bool(valid), bool(bias))


def frames(name: str, width: Any) -> Any:
    """Frames that a backbone makes of a width in pixels, or of each width of a numpy array.

    >>> int(frames("vgg", 100)), int(frames("small", 100))
    (26, 25)
    """
    for layer in layers_of(name):
        width = _width_after(layer, width, np.where)
    return width


def rows(name: str, height: int) -> int:
    """Rows that a backbone leaves of a height in pixels, below 1 where the image is not high enough."""
    for layer in layers_of(name):
        if isinstance(layer, Layer):
            left = height - (layer.kernel[0] - 1) if layer.valid else height
            left = (left - 1) // layer.step + 1
            height = left // layer.pool[0] if layer.pool else left
    return height


def _width_after(layer: Layer | Block, width: Any, where: Any) -> Any:
    if isinstance(layer, Block):
        return width
    after = width + 2 * layer.around - (layer.kernel[1] - 1) if layer.valid else width
    if layer.pool:
        # Where the stride is a power of two a shift does: // of signed integers is ten operations that XLA repeats in
        # every loop that masks.
        room, stride = after + 2 * layer.pad - layer.pool[1], layer.stride
        after = (room // stride if stride & (stride - 1) else room >> (stride.bit_length() - 1)) + 1
    # Without a true column there is no frame from the padding either.
    return where((width > 0) & (after > 0), after, 0)


class Backbone(nn.Module):
    """The layers of `layers_of`, padded columns kept at zero after each.

    ``__call__(images [B,H,W,K], widths [B], train) -> (features [B,T,D], lengths [B])``.

    Zero is what a convolution's own padding is, so a line gives the same numbers whatever it is padded to; batch
    statistics are taken over true columns only.

    Attributes:
      name_of_layers: of `layers_of`.
      dtype: of the products.
      channels: of the last layer; 0 for the table's.
      rows: ``"flat"`` puts the rows that are left side by side, ``"mean"`` takes their mean.
      winograd: whether convolutions are `jaxcrnn.kernels.conv_cpu.convolve` instead of XLA's.
    """

    name_of_layers: str
    dtype: Any = jnp.float32
    channels: int = 0
    rows: str = "flat"
    winograd: bool = False

    @nn.compact
    def __call__(self, images: Array, widths: Array, train: bool) -> tuple[Array, Array]:
        x = _mask(images.astype(self.dtype), widths)
        convolve = None
        if self.winograd and not self.is_initializing():
            # Where the batch size may change no digit of a result, as in evaluation, it may not choose the way either.
            convolve = functools.partial(conv_cpu.convolve, any_size=not train)
        for i, layer in enumerate(layers_of(self.name_of_layers, self.channels)):
            if isinstance(layer, Block):
                x = _Block(layer.features, self.dtype, convolve, name=f"block{i}")(x, widths, train)
                continue
            x = _conv(layer, self.dtype, convolve, f"conv{i}")(x)
            convolved = _width_after(layer._replace(pool=None), widths, jnp.where)
            if layer.norm:
                x = BatchNorm(name=f"norm{i}")(at_least_float32(x), _inside(x, convolved), train).astype(self.dtype)
            x = _mask(nn.relu(x), convolved)
            widths = _width_after(layer, widths, jnp.where)
            if layer.pool:
                x = _mask(_max_pool(x, layer), widths)
        if self.rows == "mean":
            x = at_least_float32(x).mean(1, keepdims=True).astype(self.dtype)
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
            return BatchNorm(name=f"norm{i}")(at_least_float32(x), inside, train).astype(self.dtype)

        through = normed(_mask(nn.relu(normed(x, layer, 0)), widths), layer, 1)
        around = normed(x, layer._replace(kernel=(1, 1)), 2) if x.shape[3] != self.features else x
        return _mask(nn.relu(through + around), widths)


def _conv(layer: Layer, dtype: Any, convolve: Any, name: str) -> nn.Conv:
    padding = ((0, 0), (layer.around, layer.around)) if layer.valid else "SAME"
    return nn.Conv(
        layer.features,
        layer.kernel,
        (layer.step, 1),
        padding=padding,
        use_bias=layer.biased or not layer.norm,
        dtype=dtype,
        conv_general_dilated=convolve,
        name=name,
    )


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
