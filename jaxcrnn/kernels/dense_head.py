"""A linear head that materializes its logits."""

from __future__ import annotations

import jax
from jax import Array

from jaxcrnn.kernels.chunked_head import product
from jaxcrnn.kernels.dtypes import at_least_float32

_Saved = tuple[Array, Array, Array]


@jax.custom_vjp
def dense_logits(features: Array, kernel: Array, bias: Array) -> Array:
    """Compute ``features @ kernel + bias``, with sums in float32 at least.

    The gradient of the logits is rounded to the dtype of the features before it is multiplied, as that of the fused
    head is. Products of float32 numbers would round less, but do not run on a GPU's tensor cores.

    Args:
      features: ``[N,D]``.
      kernel: ``[D,C]`` in the dtype of the features.
      bias: ``[C]``.

    Returns:
      ``[N,C]`` in float32 for any dtype of the features (float64 for float64).
    """
    return _forward(features, kernel, bias)[0]


def _forward(features: Array, kernel: Array, bias: Array) -> tuple[Array, _Saved]:
    return product("nd,dc->nc", features, kernel) + at_least_float32(bias)[None], (features, kernel, bias)


def _backward(saved: _Saved, d: Array) -> _Saved:
    features, kernel, bias = saved
    narrow = d.astype(features.dtype)
    d_features = product("nc,dc->nd", narrow, kernel).astype(features.dtype)
    return d_features, product("nd,nc->dc", features, narrow).astype(kernel.dtype), d.sum(0).astype(bias.dtype)


dense_logits.defvjp(_forward, _backward)
