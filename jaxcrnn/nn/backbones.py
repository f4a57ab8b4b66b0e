"""Convolutional backbones: from an image to one feature vector per frame."""

from __future__ import annotations

import functools
import re
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxcrnn.errors import UserError
from jaxcrnn.kernels import conv_cpu
from jaxcrnn.kernels.dtypes import at_least_float32
from jaxcrnn.nn.batch_norm import BatchNorm


class Layer(NamedTuple):
    """A convolution with ReLU, optionally with batch normalisation and max pooling.

    Attributes:
      features: output channels.
      norm: whether batch normalisation follows the convolution, before ReLU.
      pool: window of the max pooling that follows (rows, columns), or None.
      stride: column stride of the pooling; its row stride equals its rows.
      pad: columns of padding on each side for the pooling.
      kernel: rows and columns of the convolution.
      valid: whether the convolution is unpadded.
      biased: whether the convolution has a bias although normalisation follows, which makes it redundant.
      step: row stride of the convolution.
      around: columns of padding on each side of a ``valid`` convolution.
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
    """A residual block: two normalised 3x3 convolutions and a shortcut, a 1x1 convolution where channels change.

    Attributes:
      features: output channels.

    References:
      He et al., 2015.
    """

    features: int


Layers = tuple[Layer | Block, ...]
BACKBONES: dict[str, Layers] = {
    # Shi, Bai and Yao, 2015, table 1, with the pooling of public implementations: W/4 + 1 frames for 32 rows.
    "vgg": (
        Layer(64, pool=(2, 2)),
        Layer(128, pool=(2, 2)),
        Layer(256, norm=True),
        Layer(256, pool=(2, 2), stride=1, pad=1),
        Layer(512, norm=True),
        Layer(512, pool=(2, 2), stride=1, pad=1),
        Layer(512, norm=True, kernel=(2, 2), valid=True),
    ),
    # As in deep-text-recognition-benchmark and EasyOCR: W/4 - 1 frames for 32 rows.
    "vgg-dtrb": (
        Layer(64, pool=(2, 2)),
        Layer(128, pool=(2, 2)),
        Layer(256),
        Layer(256, pool=(2, 1), stride=1),
        Layer(512, norm=True),
        Layer(512, norm=True, pool=(2, 1), stride=1),
        Layer(512, kernel=(2, 2), valid=True),
    ),
    # As in GitYCC's code: ``vgg-dtrb`` with other biases.
    "vgg-gitycc": (
        Layer(64, pool=(2, 2)),
        Layer(128, pool=(2, 2)),
        Layer(256),
        Layer(256, pool=(2, 1), stride=1),
        Layer(512, norm=True, biased=True),
        Layer(512, norm=True, biased=True, pool=(2, 1), stride=1),
        Layer(512, kernel=(2, 2), valid=True),
    ),
    # ``vgg`` with biases everywhere, as in crnn.pytorch and its forks.
    "vgg-crnn": (
        Layer(64, pool=(2, 2)),
        Layer(128, pool=(2, 2)),
        Layer(256, norm=True, biased=True),
        Layer(256, pool=(2, 2), stride=1, pad=1),
        Layer(512, norm=True, biased=True),
        Layer(512, pool=(2, 2), stride=1, pad=1),
        Layer(512, norm=True, kernel=(2, 2), valid=True, biased=True),
    ),
    # The residual network of Cheng et al., 2017, table 1, as in deep-text-recognition-benchmark and EasyOCR:
    # W/4 + 1 frames for 32 rows.
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
    # A quarter of the channels and of the depth, for CPUs: W/4 frames for 32 rows.
    "small": (
        Layer(32, norm=True, pool=(2, 2)),
        Layer(64, norm=True, pool=(2, 2)),
        Layer(128, norm=True, pool=(2, 1), stride=1),
        Layer(128, norm=True, pool=(2, 1), stride=1),
        Layer(256, norm=True, kernel=(2, 1), valid=True),
    ),
    # For trying out a data set or a setting: compiles in half the time, but learns little.
    "tiny": (
        Layer(8, norm=True, pool=(2, 2)),
        Layer(16, norm=True, pool=(2, 2)),
        Layer(32, norm=True, kernel=(8, 1), valid=True),
    ),
}
HEIGHT = 32
_SPELLED = re.compile(r"(\d+)(n?)(b?)(?:k(\d+)x(\d+))?(v?)(?:p(\d+)x(\d+)(?:s(\d+))?(?:a(\d+))?)?")


def layers_of(name: str, channels: int = 0) -> Layers:
    """Return the layers of a backbone.

    Args:
      name: one of `BACKBONES`, or layers separated by spaces. Each layer is its number of output channels, followed by
        ``n`` for normalisation, ``b`` for a bias despite normalisation, ``kRxC`` for a kernel other than 3x3, ``v`` for
        no padding, and ``pRxC`` for max pooling, optionally with ``sN``, its column stride if it is not C, and ``aN``,
        columns of padding on each side.
      channels: output channels of the last layer; the other layers are scaled in proportion. 0 keeps those of the
        backbone.

    Raises:
      UserError: If the name is neither.

    Examples:
      >>> from jaxcrnn.nn.backbones import layers_of
      >>> layers_of("32p2x2 64nv")[1].valid
      True
      >>> [layer.features for layer in layers_of("small", channels=64)]
      [8, 16, 32, 32, 64]
    """
    layers = BACKBONES.get(name)
    if layers is None:
        matches = [_SPELLED.fullmatch(word) for word in name.split()]
        if not matches or None in matches:
            raise UserError(
                f"model.backbone is {name!r}; expected one of {', '.join(sorted(BACKBONES))}, or layers such as "
                "'32p2x2 64np2x1 128k2x2v'"
            )
        layers = tuple(_spelled(*match.groups()) for match in matches if match)
    if not channels:
        return layers
    last = layers[-1].features
    return tuple(layer._replace(features=max(1, layer.features * channels // last)) for layer in layers)


def _spelled(
    features: str,
    norm: str,
    bias: str,
    rows: str,
    columns: str,
    valid: str,
    pool_rows: str,
    pool_columns: str,
    stride: str,
    pad: str,
) -> Layer:
    kernel = (int(rows), int(columns)) if rows else (3, 3)
    pool = (int(pool_rows), int(pool_columns)) if pool_rows else None
    step = int(stride or pool_columns or 2)
    return Layer(int(features), bool(norm), pool, step, int(pad or 0), kernel, bool(valid), bool(bias))


def frames(name: str, width: Any) -> Any:
    """Return the number of frames for an image width in pixels, or for each width of a numpy array.

    Examples:
      >>> from jaxcrnn.nn.backbones import frames
      >>> int(frames("vgg", 100)), int(frames("small", 100))
      (26, 25)
    """
    for layer in layers_of(name):
        width = _width_after(layer, width, np.where)
    return width


def rows(name: str, height: int) -> int:
    """Return the number of rows that a backbone leaves of an image height in pixels; below 1 if it is too small.

    Examples:
      >>> from jaxcrnn.nn.backbones import rows
      >>> rows("vgg", 32), rows("vgg", 64)
      (1, 3)
    """
    for layer in layers_of(name):
        if isinstance(layer, Layer):
            convolved = height - (layer.kernel[0] - 1) if layer.valid else height
            convolved = (convolved - 1) // layer.step + 1
            height = convolved // layer.pool[0] if layer.pool else convolved
    return height


def _width_after(layer: Layer | Block, width: Any, where: Any) -> Any:
    if isinstance(layer, Block):
        return width
    after = width + 2 * layer.around - (layer.kernel[1] - 1) if layer.valid else width
    if layer.pool:
        # Shift instead of dividing where the stride is a power of two: signed // takes ten operations, which XLA
        # repeats in every masked loop.
        room, stride = after + 2 * layer.pad - layer.pool[1], layer.stride
        after = (room // stride if stride & (stride - 1) else room >> (stride.bit_length() - 1)) + 1
    # Padding alone makes no frame.
    return where((width > 0) & (after > 0), after, 0)


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
      winograd: use `jaxcrnn.kernels.conv_cpu.convolve` for convolutions instead of XLA's.
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
            convolved = _width_after(layer._replace(pool=None), widths, jnp.where)
            if layer.norm:
                x = BatchNorm(name=f"norm{i}")(at_least_float32(x), _inside(x, convolved), training).astype(self.dtype)
            x = _mask(nn.relu(x), convolved)
            widths = _width_after(layer, widths, jnp.where)
            if layer.pool:
                x = _mask(_max_pool(x, layer), widths)
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
    """Max-pool the output of ReLU, for which zero padding is neutral, as a maximum of shifted slices.

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
