"""Convolution that is fast on CPUs."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

_LAYOUT = ("NHWC", "HWIO", "NHWC")
# Below these numbers of channels and pixels, transforming tiles costs more than the products that it saves.
_THIN, _FEW = 32, 4096


def convolve(
    x: Array,
    kernel: Array,
    window_strides: Any,
    padding: Any,
    lhs_dilation: Any = None,
    rhs_dilation: Any = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    precision: Any = None,
    *,
    any_size: bool = True,
) -> Array:
    """Convolve, with the signature of ``lax.conv_general_dilated``, for ``flax.linen.Conv``.

    3x3 kernels use Winograd's minimal filtering F(2x2,3x3), with 16 products instead of 36. The gradient of other
    kernels is a sum of shifted matrix products: XLA's own takes up to six times as long on CPUs (docs/speed.md).

    Args:
      x: ``[B,H,W,I]``.
      kernel: ``[rows,columns,I,O]``.
      window_strides: row and column stride.
      padding: ``"SAME"``, ``"VALID"``, or the numbers of zero rows and columns on each side.
      lhs_dilation: not supported; None or ones.
      rhs_dilation: not supported; None or ones.
      dimension_numbers: ignored; the layout is NHWC, HWIO, NHWC.
      feature_group_count: not supported; 1.
      precision: precision of the products.
      any_size: use Winograd tiles for any number of pixels, so that the batch size does not choose the algorithm.

    Raises:
      ValueError: If there is dilation, or more than one group.

    References:
      Lavin and Gray, 2016.
    """
    if any(n != 1 for n in (feature_group_count, *(lhs_dilation or ()), *(rhs_dilation or ()))):
        raise ValueError(
            f"dilation and groups are not supported; got lhs_dilation={lhs_dilation}, rhs_dilation={rhs_dilation}, "
            f"feature_group_count={feature_group_count}"
        )
    rows, columns = kernel.shape[:2]
    strides = tuple(window_strides)
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], (rows, columns), strides, padding)
    pads = tuple((int(low), int(high)) for low, high in padding)
    if strides != (1, 1) and x.shape[3] > 1:
        return _plain(x, kernel, pads, precision, strides)
    tiled = (rows, columns) == (3, 3) and min(kernel.shape[2:]) >= _THIN and x.dtype != jnp.bfloat16
    tiled &= any_size or x.size // x.shape[3] >= _FEW
    return _winograd(x, kernel, pads, precision) if tiled else _shifted_gradient(x, kernel, pads, precision, strides)


def _plain(x: Array, kernel: Array, pads: Any, precision: Any, strides: tuple[int, int] = (1, 1)) -> Array:
    return lax.conv_general_dilated(x, kernel, strides, pads, dimension_numbers=_LAYOUT, precision=precision)


def _turned(kernel: Array, pads: Any) -> tuple[Array, Any]:
    """Return kernel and padding of the convolution that maps the output's gradient to the input's."""
    back = tuple((k - 1 - low, k - 1 - high) for k, (low, high) in zip(kernel.shape[:2], pads, strict=True))
    return jnp.flip(kernel, (0, 1)).swapaxes(2, 3), back


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _shifted_gradient(x: Array, kernel: Array, pads: Any, precision: Any, strides: tuple[int, int]) -> Array:
    return _plain(x, kernel, pads, precision, strides)


def _forward(
    x: Array, kernel: Array, pads: Any, precision: Any, strides: tuple[int, int]
) -> tuple[Array, tuple[Array, Array]]:
    return _plain(x, kernel, pads, precision, strides), (x, kernel)


def _backward(
    pads: Any, precision: Any, strides: tuple[int, int], saved: tuple[Array, Array], d_out: Array
) -> tuple[Array, Array]:
    x, kernel = saved
    rows, columns, size_in, size_out = kernel.shape
    (d_x,) = jax.linear_transpose(lambda x: _plain(x, kernel, pads, precision, strides), x)(d_out)
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    height, width = d_out.shape[1:3]
    flat = d_out.reshape(-1, size_out)
    if size_in == 1:  # one product of patches is cheaper than nine products with a single row
        down, along = strides
        last, end = down * (height - 1) + 1, along * (width - 1) + 1
        patches = [padded[:, r : r + last : down, c : c + end : along, 0] for r in range(rows) for c in range(columns)]
        products = jnp.stack(patches, -1).reshape(-1, rows * columns).T @ flat
    else:
        products = jnp.stack(
            [
                padded[:, r : r + height, c : c + width].reshape(-1, size_in).T @ flat
                for r in range(rows)
                for c in range(columns)
            ]
        )
    return d_x, products.reshape(kernel.shape)


_shifted_gradient.defvjp(_forward, _backward)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _winograd(x: Array, kernel: Array, pads: Any, precision: Any) -> Array:
    return _by_tiles(x, kernel, pads, precision)


def _winograd_forward(x: Array, kernel: Array, pads: Any, precision: Any) -> tuple[Array, tuple[Array, Array]]:
    return _by_tiles(x, kernel, pads, precision), (x, kernel)


def _winograd_backward(pads: Any, precision: Any, saved: tuple[Array, Array], d_out: Array) -> tuple[Array, Array]:
    x, kernel = saved
    d_x = _by_tiles(d_out, *_turned(kernel, pads), precision)
    height, width = d_out.shape[1:3]
    whole = jnp.pad(d_out, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
    spread = [part for rows in _halves(whole, 1) for part in _halves(rows, 2)]
    shares = [
        jnp.matmul(_flat(t).T, _flat(d), precision=precision) for t, d in zip(_tiles(x, pads), spread, strict=True)
    ]
    rows = [_gathered(shares[k : k + 4]) for k in range(0, 16, 4)]
    columns = [jnp.stack(_gathered([row[c] for row in rows])) for c in range(3)]
    return d_x, jnp.stack(columns, 1)


_winograd.defvjp(_winograd_forward, _winograd_backward)


def _by_tiles(x: Array, kernel: Array, pads: Any, precision: Any) -> Array:
    """Compute each 2x2 block of the output from a 4x4 tile of the input: 16 products per block instead of 36."""
    batch, size_out = len(x), kernel.shape[3]
    height, width = (n + sum(pad) - 2 for n, pad in zip(x.shape[1:3], pads, strict=True))
    over = [part for row in _spread(kernel, 0) for part in _spread(row, 0)]
    shape = batch, -(-height // 2), -(-width // 2), size_out
    products = [
        jnp.matmul(_flat(tile), over[k], precision=precision).reshape(shape) for k, tile in enumerate(_tiles(x, pads))
    ]
    rows = [_joined(products[k : k + 4]) for k in range(0, 16, 4)]
    blocks = [_joined([row[c] for row in rows]) for c in range(2)]
    out = jnp.stack([jnp.stack([blocks[c][r] for c in range(2)], 3) for r in range(2)], 2)
    return out.reshape(batch, 2 * shape[1], 2 * shape[2], size_out)[:, :height, :width]


def _tiles(x: Array, pads: Any) -> list[Array]:
    """Compute Lavin and Gray's ``B^T d B`` of all tiles, entry by entry: 16 of ``[B,ceil(H/2),ceil(W/2),I]``."""
    sizes = [n + sum(pad) - 2 for n, pad in zip(x.shape[1:3], pads, strict=True)]
    padded = jnp.pad(x, ((0, 0), *((low, high + n % 2) for (low, high), n in zip(pads, sizes, strict=True)), (0, 0)))
    return [tile for rows in _quarters(padded, 1) for tile in _quarters(rows, 2)]


def _quarters(x: Array, axis: int) -> list[Array]:
    size = x.shape[axis]
    a, b, c, d = (lax.slice_in_dim(x, k, size - 3 + k, 2, axis) for k in range(4))
    return [a - c, b + c, c - b, b - d]


def _joined(m: list[Array]) -> list[Array]:
    """Compute ``A^T m``: two outputs from four products."""
    return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]


def _halves(x: Array, axis: int) -> list[Array]:
    """Compute ``A d``, the transpose of `_joined`."""
    even, odd = (lax.slice_in_dim(x, k, None, 2, axis) for k in range(2))
    return [even, even + odd, even - odd, -odd]


def _spread(kernel: Array, axis: int) -> list[Array]:
    """Compute ``G g``: four values from a kernel of three taps."""
    a, b, c = (lax.index_in_dim(kernel, k, axis, keepdims=False) for k in range(3))
    return [a, (a + b + c) / 2, (a - b + c) / 2, c]


def _gathered(m: list[Array]) -> list[Array]:
    """Compute ``G^T m``, the transpose of `_spread`."""
    return [m[0] + (m[1] + m[2]) / 2, (m[1] - m[2]) / 2, (m[1] + m[2]) / 2 + m[3]]


def _flat(x: Array) -> Array:
    return x.reshape(-1, x.shape[-1])
