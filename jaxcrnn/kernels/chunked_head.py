"""A linear head over many classes that never materializes its logits: queries on them, one chunk of classes at a time.

After Cut Cross-Entropy (Wijmans et al., 2024) and Pruned CTC (2026): CTC needs the log of the softmax's denominator and
the logits of the label's own classes, so no array with one entry for each frame and class has to exist; the backward
pass makes each chunk once more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxcrnn.kernels.dtypes import at_least_float32

CHUNK = 1024  # classes at a time: 32 MB of float32 logits for 8192 frames
TOP = 3  # the most probable class, its look-alike, and one more in case one of them is excluded
_Carry = tuple[Array, ...]


class Scan(NamedTuple):
    """What the head says of each of N frames.

    Attributes:
      norm: ``[N]`` log of the softmax's denominator.
      top: ``[N,3]`` int32, the most probable classes, the lowest of equals first; with fewer classes the rest is
        anything.
      top_logits: ``[N,3]`` their logits, ``-inf`` where there are fewer classes.
    """

    norm: Array
    top: Array
    top_logits: Array


@jax.custom_vjp
def scan_head(features: Array, kernel: Array, bias: Array) -> Scan:
    """One pass over the classes.

    Args:
      features: ``[N,D]``.
      kernel: ``[D,C]``.
      bias: ``[C]``.

    Returns:
      Float32 whatever the inputs are. Differentiable in ``norm`` alone; the gradient costs one more pass.
    """
    return scan_chunks(features, kernel, bias)


def scan_chunks(features: Array, kernel: Array, bias: Array) -> Scan:
    def chunk(start: Array, logits: Array, carry: _Carry) -> _Carry:
        most, total, top, top_logits = carry
        here, found = _top(logits)
        higher = jnp.maximum(most, found[:, 0])
        base = jnp.where(jnp.isneginf(higher), 0.0, higher)  # a chunk of classes that are not there
        total = total * jnp.exp(most - base) + jnp.exp(logits - base[:, None]).sum(1)
        # The classes of earlier chunks first: they are the lower ones.
        both = jnp.concatenate([top, start + here], 1), jnp.concatenate([top_logits, found], 1)
        return higher, total, *best_of(*both)

    dtype, n = at_least_float32(bias).dtype, len(features)
    nothing = jnp.full((n, TOP), -jnp.inf, dtype)
    empty = nothing[:, 0], jnp.zeros(n, dtype), jnp.zeros((n, TOP), jnp.int32), nothing
    most, total, top, top_logits = _over_chunks(features, kernel, bias, chunk, empty)
    return Scan(most + jnp.log(total), top, top_logits)


def argmax(logits: Array) -> tuple[Array, Array]:
    """The last axis's largest entry, the leftmost of equals, as int32, and its value.

    Two plain reductions: XLA's argmax, which carries pairs, takes three times as long on CPU.
    """
    most, last = logits.max(-1), logits.shape[-1] - 1
    numbers = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
    return jnp.where(logits == most[..., None], numbers, last).min(-1), most


def _top(logits: Array) -> tuple[Array, Array]:
    """The columns of the largest entries of ``[N,K]`` and these, in order."""
    columns, values = [], []
    numbers = jnp.arange(logits.shape[1], dtype=jnp.int32)[None, :]
    for _ in range(TOP):
        here, most = argmax(logits)
        columns.append(here)
        values.append(most)
        logits = jnp.where(numbers == here[:, None], -jnp.inf, logits)
    return jnp.stack(columns, 1), jnp.stack(values, 1)


def best_of(classes: Array, logits: Array) -> tuple[Array, Array]:
    """The first of ``[N,K]`` candidates, in order."""
    at, values = _top(logits)
    return jnp.take_along_axis(classes, at, 1), values


def _scan_forward(features: Array, kernel: Array, bias: Array) -> tuple[Scan, Any]:
    scan = scan_head(features, kernel, bias)
    return scan, (features, kernel, bias, scan.norm)


def _scan_backward(saved: Any, d_scan: Scan) -> tuple[Array, Array, Array]:
    features, kernel, bias, norm = saved
    grown = gradient(features, kernel, bias, norm, d_scan.norm)
    return tuple(d.astype(a.dtype) for d, a in zip(grown, saved, strict=False))  # type: ignore[return-value]


scan_head.defvjp(_scan_forward, _scan_backward)


def gradient(features: Array, kernel: Array, bias: Array, norm: Array, weight: Array) -> tuple[Array, Array, Array]:
    """The gradient of ``sum(weight * norm)`` by the features, the kernel and the bias, in float32."""

    def chunk(start: Array, logits: Array, carry: _Carry) -> _Carry:
        d_features, d_kernel, d_bias = carry
        shares = jnp.exp(logits - norm[:, None]) * weight[:, None]
        narrow = shares.astype(features.dtype)
        columns = lax.dynamic_slice_in_dim(kernel, start, logits.shape[1], 1)
        d_features += product("nc,dc->nd", narrow, columns)
        moved = product("nd,nc->dc", features, narrow)
        # Added, not set: the last chunk begins among classes that had their turn, and its shares of those are 0.
        d_kernel = _added(d_kernel, moved, start, 1)
        return d_features, d_kernel, _added(d_bias, shares.sum(0), start, 0)

    dtype = at_least_float32(bias).dtype
    empty = jnp.zeros(features.shape, dtype), jnp.zeros(kernel.shape, dtype), jnp.zeros(bias.shape, dtype)
    d_features, d_kernel, d_bias = _over_chunks(features, kernel, bias, chunk, empty)
    return d_features, d_kernel, d_bias


def _over_chunks(
    features: Array, kernel: Array, bias: Array, chunk: Callable[[Array, Array, _Carry], _Carry], carry: _Carry
) -> _Carry:
    """Folds ``chunk(start, logits [N,size], carry)``; classes that an earlier chunk had are -inf."""
    classes = kernel.shape[1]
    size = min(CHUNK, classes)

    def body(i: Array, carry: _Carry) -> _Carry:
        # The last chunk is moved back to fit, instead of a kernel padded to whole chunks: that would be a copy of it.
        start = jnp.minimum(i * size, classes - size)
        columns = lax.dynamic_slice_in_dim(kernel, start, size, 1)
        logits = (
            product("nd,dc->nc", features, columns)
            + at_least_float32(lax.dynamic_slice_in_dim(bias, start, size, 0))[None]
        )
        fresh = start + jnp.arange(size, dtype=jnp.int32) >= i * size
        return chunk(start, jnp.where(fresh[None, :], logits, -jnp.inf), carry)

    return lax.fori_loop(0, -(-classes // size), body, carry)


def product(spelled: str, one: Array, two: Array) -> Array:
    """`jax.numpy.einsum` with sums in float32 at least."""
    kind: Any = at_least_float32(jnp.zeros((), one.dtype)).dtype
    return jnp.einsum(spelled, one, two, preferred_element_type=kind, precision=lax.Precision.HIGHEST)


def _added(whole: Array, part: Array, start: Array, axis: int) -> Array:
    old = lax.dynamic_slice_in_dim(whole, start, part.shape[axis], axis)
    return lax.dynamic_update_slice_in_dim(whole, old + part, start, axis)
