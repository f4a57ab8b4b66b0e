"""Functions whose derivatives stay finite where plain differentiation would make NaN.

The rules of `jax.custom_vjp` functions are themselves differentiated for second derivatives (gradient penalties,
Hessians). These functions cost nothing where they are not differentiated.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


def finite_base(x: Array) -> Array:
    """Replace ``-inf`` by 0, because ``-inf - -inf`` is NaN."""
    return jnp.where(jnp.isneginf(x), 0.0, x)


@jax.custom_jvp
def log_sum(a: Array, b: Array, c: Array) -> Array:
    """Compute ``log(exp(a) + exp(b) + exp(c))``; all may be ``-inf``, where every derivative is 0."""
    base = finite_base(jnp.maximum(jnp.maximum(a, b), c))
    return base + jnp.log(jnp.exp(a - base) + jnp.exp(b - base) + jnp.exp(c - base))


@log_sum.defjvp
def _log_sum_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    out = log_sum(*primals)
    a, b, c = (jnp.exp(x - finite_base(out)) * d for x, d in zip(primals, tangents, strict=True))
    return out, a + b + c


@jax.custom_jvp
def log_sum_rows(x: Array) -> Array:
    """Compute ``log(sum(exp(x)))`` over the second axis; it may be ``-inf``, where every derivative is 0."""
    return jax.nn.logsumexp(x, 1)


@log_sum_rows.defjvp
def _log_sum_rows_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (x,), (d,) = primals, tangents
    out = log_sum_rows(x)
    return out, (jnp.exp(x - finite_base(out)[:, None]) * d).sum(1)


@jax.custom_jvp
def constant_unless(x: Array, mask: Array) -> Array:
    """Return ``x``, whose derivative is 0 where ``mask`` is False, even if the cotangent there is NaN."""
    del mask
    return x


@constant_unless.defjvp
def _constant_unless_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (x, mask), (d, _) = primals, tangents
    return constant_unless(x, mask), jnp.where(mask, d, jnp.zeros((), d.dtype))
