"""Tables of the convolutional backbones, and sizes that follow from them; imports neither jax nor flax."""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

import numpy as np

from jaxcrnn.errors import UserError


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
      step: row and column stride of the convolution.
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
    step: tuple[int, int] = (1, 1)
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


def finer(layers: Layers) -> Layers:
    """Return the layers for lines of twice the height: kernels and strides of the first one are twice as large.

    They cover the same part of a line, and all other layers compute as much as before. A first layer that is a block or
    ``valid`` is returned unchanged.

    Examples:
      >>> from jaxcrnn.nn.layers import BACKBONES, finer
      >>> first = finer(BACKBONES["vgg"])[0]
      >>> first.kernel, first.step
      ((6, 6), (2, 2))
    """
    first = layers[0]
    if isinstance(first, Block) or first.valid:
        return layers
    rows, columns = first.kernel
    down, along = first.step
    return (first._replace(kernel=(2 * rows, 2 * columns), step=(2 * down, 2 * along)), *layers[1:])


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
        Layer(512, norm=True, kernel=(2, 2), valid=True, step=(2, 1), around=1),
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
# For 64 rows, of which only the first layer sees more than `vgg` does: W/8 + 1 frames.
BACKBONES["vgg-fine"] = finer(BACKBONES["vgg"])
HEIGHT = 32
_N = r"([1-9]\d*)"
_SPELLED = re.compile(rf"{_N}(n?)(b?)(?:k{_N}x{_N})?(?:/{_N})?(v?)(?:p{_N}x{_N}(?:s{_N})?(?:a(\d+))?)?")


def layers_of(name: str, channels: int = 0) -> Layers:
    """Return the layers of a backbone.

    Args:
      name: one of `BACKBONES`, or layers separated by spaces. Each layer is its number of output channels, followed by
        ``n`` for normalisation, ``b`` for a bias despite normalisation, ``kRxC`` for a kernel other than 3x3, ``/N``
        for a stride of N in both directions, ``v`` for no padding, and ``pRxC`` for max pooling, optionally with
        ``sN``, its column stride if it is not C, and ``aN``, columns of padding on each side.
      channels: output channels of the last layer; the other layers are scaled in proportion. 0 keeps those of the
        backbone.

    Raises:
      UserError: If the name is neither.

    Examples:
      >>> from jaxcrnn.nn.layers import layers_of
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
    apart: str,
    valid: str,
    pool_rows: str,
    pool_columns: str,
    stride: str,
    pad: str,
) -> Layer:
    kernel = (int(rows), int(columns)) if rows else (3, 3)
    pool = (int(pool_rows), int(pool_columns)) if pool_rows else None
    along = int(stride or pool_columns or 2)
    step = (int(apart or 1), int(apart or 1))
    return Layer(int(features), bool(norm), pool, along, int(pad or 0), kernel, bool(valid), bool(bias), step)


def frames(name: str, width: Any) -> Any:
    """Return the number of frames for an image width in pixels, or for each width of a numpy array.

    Examples:
      >>> from jaxcrnn.nn.layers import frames
      >>> int(frames("vgg", 100)), int(frames("small", 100))
      (26, 25)
    """
    for layer in layers_of(name):
        width = width_after(layer, width, np.where)
    return width


class Grid(NamedTuple):
    """Places of the frames in an image: frame t begins at ``left + t * step``.

    Attributes:
      left: left end of the first frame in pixels; negative if the poolings are padded.
      step: width of a frame in pixels.
      width: width of the image in pixels.
    """

    left: float
    step: float
    width: int

    def span(self, first: int, last: int) -> tuple[float, float]:
        """Return the left and the right end of a range of frames, within the image."""
        ends = self.left + first * self.step, self.left + (last + 1) * self.step
        return min(max(ends[0], 0.0), float(self.width)), min(max(ends[1], 0.0), float(self.width))


def grid(name: str, width: int) -> Grid:
    """Return where the frames of an image of this width lie; frames are centered on what they see most of.

    Examples:
      >>> from jaxcrnn.nn.layers import grid
      >>> grid("small", 100).span(0, 1), grid("vgg", 100).span(0, 1)
      ((0.0, 8.0), (0.0, 6.0))
    """
    plain = [layer for layer in layers_of(name) if isinstance(layer, Layer)]
    step = math.prod(layer.step[1] * (layer.stride if layer.pool else 1) for layer in plain)
    whole = -(-width // step) * step
    return Grid((whole // step - int(frames(name, whole))) * step / 2, float(step), width)


def padding(layer: Layer) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the rows above and below and the columns on both sides that a convolution pads, whatever the size.

    The output has one value for each stride of the input, and one for an incomplete stride at the end.

    Examples:
      >>> from jaxcrnn.nn.layers import Layer, padding
      >>> padding(Layer(8)), padding(Layer(8, kernel=(6, 7), step=(2, 2)))
      (((1, 1), (1, 1)), ((2, 3), (2, 4)))
    """
    if layer.valid:
        return (0, 0), (layer.around, layer.around)

    def along(size: int, step: int) -> tuple[int, int]:
        before = max(size - step, 0) // 2
        return before, size - 1 - before

    return along(layer.kernel[0], layer.step[0]), along(layer.kernel[1], layer.step[1])


def rows(name: str, height: int) -> int:
    """Return the number of rows that a backbone leaves of an image height in pixels; below 1 if it is too small.

    Examples:
      >>> from jaxcrnn.nn.layers import rows
      >>> rows("vgg", 32), rows("vgg", 64)
      (1, 3)
    """
    for layer in layers_of(name):
        height = rows_after(layer, height)
    return height


def rows_after(layer: Layer | Block, height: int) -> int:
    """Return the number of rows of the output of a layer for an input of this height."""
    if isinstance(layer, Block):
        return height
    convolved = height - (layer.kernel[0] - 1) if layer.valid else height
    convolved = (convolved - 1) // layer.step[0] + 1
    return convolved // layer.pool[0] if layer.pool else convolved


def width_after(layer: Layer | Block, width: Any, where: Any) -> Any:
    """Return the width of the output of a layer for an input of this width; ``where`` is numpy's or jax.numpy's."""
    if isinstance(layer, Block):
        return width
    after = width + 2 * layer.around - (layer.kernel[1] - 1) if layer.valid else width
    if layer.step[1] > 1:
        after = -(-after // layer.step[1])
    if layer.pool:
        # Shift instead of dividing where the stride is a power of two: signed // takes ten operations, which XLA
        # repeats in every masked loop.
        room, stride = after + 2 * layer.pad - layer.pool[1], layer.stride
        after = (room // stride if stride & (stride - 1) else room >> (stride.bit_length() - 1)) + 1
    # Padding alone makes no frame.
    return where((width > 0) & (after > 0), after, 0)
