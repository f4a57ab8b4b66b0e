"""Batch normalisation over the unpadded columns of lines of different widths."""

from __future__ import annotations

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from jaxcrnn.kernels.dtypes import at_least_float32


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def normalize(
    x: Array, scale: Array, bias: Array, inside: Array, epsilon: float, products: bool
) -> tuple[Array, Array, Array]:
    """Normalise each channel over the unmasked pixels to mean 0 and variance 1, then scale and shift it.

    ``(x - mean) / sqrt(variance + epsilon) * scale + bias``. The gradient is written by hand: that of flax's layer
    takes two fifths of a step on CPU (docs/speed.md). Pixels are read and written in their own dtype, and all between
    is float32.

    Args:
      x: ``[N,C]``, one row per pixel.
      scale: ``[C]`` float32.
      bias: ``[C]`` float32.
      inside: ``[N]`` float32, 1 for valid pixels and 0 for padding.
      epsilon: added to the variance.
      products: sum by matrix products with the mask, which CPUs compute fastest. Elsewhere, a product would first write
        its operands to memory in float32, which a reduction does not.

    Returns:
      The result ``[N,C]`` in the dtype of ``x`` (any value in padding), the mean ``[C]`` and the biased variance
      ``[C]``. No gradient flows through the latter two.

    References:
      Ioffe and Szegedy, 2015.
    """
    return _forward(x, scale, bias, inside, epsilon, products)[0]


def _sum(inside: Array, x: Array, products: bool) -> Array:
    """Sum the valid rows: ``[C]``. Full precision, because an accelerator's default keeps 10 bits of float32."""
    if products:
        return jnp.matmul(inside, x, precision=jax.lax.Precision.HIGHEST)
    return jnp.where(inside[:, None] > 0, x, 0.0).sum(0)


def _forward(x: Array, scale: Array, bias: Array, inside: Array, epsilon: float, products: bool) -> tuple[Any, Any]:
    wide = at_least_float32(x)
    count = jnp.maximum(inside.sum(), 1.0)
    mean = _sum(inside, wide, products) / count
    # E[x^2] - E[x]^2 would lose half of the digits.
    variance = _sum(inside, jnp.square(wide - mean[None]), products) / count
    inverse = jax.lax.rsqrt(variance + epsilon)
    out = (wide - mean[None]) * (inverse * scale)[None] + bias[None]
    constants = jax.lax.stop_gradient((mean, variance))
    return (out.astype(x.dtype), *constants), (x, scale, inside, mean, inverse, count)


def _backward(epsilon: float, products: bool, saved: Any, d_outs: tuple[Array, Array, Array]) -> Any:
    del epsilon
    x, scale, inside, mean, inverse, count = saved
    centered = at_least_float32(x) - mean[None]
    d = at_least_float32(d_outs[0]) * inside[:, None]
    d_bias = _sum(inside, d, products)
    d_scale = _sum(inside, d * centered, products) * inverse
    # The gradient through the mean and the variance, distributed over the valid pixels.
    through_statistics = d_bias[None] / count + centered * (inverse * d_scale / count)[None]
    d_x = (d - through_statistics * inside[:, None]) * (inverse * scale)[None]
    return d_x.astype(x.dtype), d_scale, d_bias, None


normalize.defvjp(_forward, _backward)


class BatchNorm(nn.Module):
    """Masked batch normalisation with the variables of flax's layer.

    ``__call__(x [B,H,W,C], inside [B,1,W,1] bool, train) -> [B,H,W,C]`` in the dtype of ``x``. Training uses the
    statistics of the batch and updates the running ones, which inference uses. The running variance is the biased one.

    Attributes:
      momentum: decay rate of the running statistics.
      epsilon: added to the variance.
      products: sum by matrix products; see `normalize`.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    products: bool = False

    @nn.compact
    def __call__(self, x: Array, inside: Array, train: bool) -> Array:
        size = x.shape[-1:]
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, size)
        running_var = self.variable("batch_stats", "var", jnp.ones, size)
        scale = self.param("scale", nn.initializers.ones, size)
        bias = self.param("bias", nn.initializers.zeros, size)
        if not train:
            factor = scale * jax.lax.rsqrt(running_var.value + self.epsilon)
            mean, factor, shift = (a[None, None, None] for a in (running_mean.value, factor, bias))
            return ((at_least_float32(x) - mean) * factor + shift).astype(x.dtype)
        rows = jnp.broadcast_to(inside, (*x.shape[:3], 1)).reshape(-1).astype(scale.dtype)
        out, mean, variance = normalize(x.reshape(-1, *size), scale, bias, rows, self.epsilon, self.products)
        if not self.is_initializing():
            for running, new in ((running_mean, mean), (running_var, variance)):
                running.value = self.momentum * running.value + (1 - self.momentum) * new
        return out.reshape(x.shape)
