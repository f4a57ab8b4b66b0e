"""Convolution with a kernel gradient that is fast on CPUs."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

_LAYOUT = ("NHWC", "HWIO", "NHWC")


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
) -> Array:
    """Stride-1 convolution with the signature of ``lax.conv_general_dilated``, for ``flax.linen.Conv``.

    On CPU the kernel's gradient is a sum of shifted matrix products: XLA's own takes up to six times as long there
    (docs/speed.md). Elsewhere it is XLA's.

    Args:
      x: ``[B,H,W,I]``.
      kernel: ``[rows,columns,I,O]``.
      window_strides: all 1.
      padding: ``"SAME"`` or ``"VALID"``.
      lhs_dilation: none, as all that follow it.
      rhs_dilation: none.
      dimension_numbers: NHWC, HWIO, NHWC.
      feature_group_count: 1.
      precision: passed on.
    """
    rows, columns = kernel.shape[:2]
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], (rows, columns), (1, 1), padding)
    pads = tuple((int(low), int(high)) for low, high in padding)
    if jax.default_backend() == "cpu":
        return _shifted_gradient(x, kernel, pads, precision)
    return _plain(x, kernel, pads, precision)


def _plain(x: Array, kernel: Array, pads: Any, precision: Any) -> Array:
    return lax.conv_general_dilated(x, kernel, (1, 1), pads, dimension_numbers=_LAYOUT, precision=precision)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _shifted_gradient(x: Array, kernel: Array, pads: Any, precision: Any) -> Array:
    return _plain(x, kernel, pads, precision)


def _forward(x: Array, kernel: Array, pads: Any, precision: Any) -> tuple[Array, tuple[Array, Array]]:
    return _plain(x, kernel, pads, precision), (x, kernel)


def _backward(pads: Any, precision: Any, saved: tuple[Array, Array], d_out: Array) -> tuple[Array, Array]:
    x, kernel = saved
    rows, columns, size_in, size_out = kernel.shape
    turned = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    back = tuple((k - 1 - low, k - 1 - high) for k, (low, high) in zip((rows, columns), pads, strict=True))
    d_x = _plain(d_out, turned, back, precision)
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    height, width = d_out.shape[1:3]
    flat = d_out.reshape(-1, size_out)
    if size_in == 1:  # one column of patches is cheaper than nine products with a single row
        patches = [padded[:, r : r + height, c : c + width, 0] for r in range(rows) for c in range(columns)]
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
