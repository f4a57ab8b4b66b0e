"""A linear head over many classes that never materializes its logits: queries on one chunk of classes at a time.

CTC needs only the log of the softmax's denominator and the logits of the label's classes, so no array with an entry for
each frame and class is needed. The backward pass recomputes each chunk. After Cut Cross-Entropy (Wijmans et al., 2024)
and Pruned CTC (2026).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxcrnn.kernels.derivatives import finite_base
from jaxcrnn.kernels.dtypes import at_least_float32

CHUNK = 1024  # classes per chunk: 32 MB of float32 logits for 8192 frames
TOP = 3  # the most probable class, its look-alike, and a spare in case one of them is excluded
_Carry = tuple[Array, ...]


class Scan(NamedTuple):
    """The result of one pass over the classes, for each of N frames.

    Attributes:
      norm: ``[N]``, log of the softmax's denominator.
      top: ``[N,3]`` int32, the most probable classes in descending order, the lowest first on a tie; undefined beyond
        the number of classes.
      top_logits: ``[N,3]``, their logits; ``-inf`` beyond the number of classes.
    """

    norm: Array
    top: Array
    top_logits: Array


@jax.custom_vjp
def scan_head(features: Array, kernel: Array, bias: Array) -> Scan:
    """Scan the classes of a linear head once.

    Args:
      features: ``[N,D]``.
      kernel: ``[D,C]``.
      bias: ``[C]``.

    Returns:
      A `Scan` in float32 for any dtype of the inputs (float64 for float64). Differentiable in ``norm`` only; the
      gradient costs one more pass.
    """
    return scan_chunks(features, kernel, bias)


def scan_chunks(features: Array, kernel: Array, bias: Array) -> Scan:
    """Compute `scan_head` without its custom gradient."""

    def chunk(start: Array, logits: Array, carry: _Carry) -> _Carry:
        most, total, top, top_logits = carry
        columns, values = _top(lax.stop_gradient(logits))
        higher = jnp.maximum(most, values[:, 0])
        base = finite_base(higher)  # a chunk of padding classes
        total = total * jnp.exp(most - base) + jnp.exp(logits - base[:, None]).sum(1)
        # Earlier chunks first: on a tie the lower class wins.
        both = jnp.concatenate([top, start + columns], 1), jnp.concatenate([top_logits, values], 1)
        return higher, total, *best_of(*both)

    dtype, n = at_least_float32(bias).dtype, len(features)
    nothing = jnp.full((n, TOP), -jnp.inf, dtype)
    empty = nothing[:, 0], jnp.zeros(n, dtype), jnp.zeros((n, TOP), jnp.int32), nothing
    most, total, top, top_logits = _over_chunks(features, kernel, bias, chunk, empty)
    return Scan(most + jnp.log(total), top, top_logits)


def argmax(logits: Array) -> tuple[Array, Array]:
    """Return the index of the last axis's largest entry as int32, the leftmost on a tie, and its value.

    Two plain reductions: XLA's argmax, which carries pairs, takes three times as long on CPU.
    """
    most, last = logits.max(-1), logits.shape[-1] - 1
    numbers = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
    return jnp.where(logits == most[..., None], numbers, last).min(-1), most


def _top(logits: Array) -> tuple[Array, Array]:
    """Return the columns of the `TOP` largest entries of ``[N,K]``, in descending order, and the entries."""
    columns, values = [], []
    numbers = jnp.arange(logits.shape[1], dtype=jnp.int32)[None, :]
    for _ in range(TOP):
        column, value = argmax(logits)
        columns.append(column)
        values.append(value)
        logits = jnp.where(numbers == column[:, None], -jnp.inf, logits)
    return jnp.stack(columns, 1), jnp.stack(values, 1)


def best_of(classes: Array, logits: Array) -> tuple[Array, Array]:
    """Select the `TOP` best of ``[N,K]`` candidate classes, in descending order, and their logits."""
    at, values = _top(logits)
    return jnp.take_along_axis(classes, at, 1), values


def _scan_forward(features: Array, kernel: Array, bias: Array) -> tuple[Scan, Any]:
    scan = scan_chunks(features, kernel, bias)  # not `scan_head`, which has no forward derivative
    return scan, (features, kernel, bias, scan.norm)


def _scan_backward(saved: Any, d_scan: Scan) -> tuple[Array, Array, Array]:
    features, kernel, bias, norm = saved
    gradients = gradient(features, kernel, bias, norm, d_scan.norm)
    return tuple(d.astype(a.dtype) for d, a in zip(gradients, saved, strict=False))  # type: ignore[return-value]


scan_head.defvjp(_scan_forward, _scan_backward)


def gradient(features: Array, kernel: Array, bias: Array, norm: Array, weight: Array) -> tuple[Array, Array, Array]:
    """Compute the gradient of ``sum(weight * norm)`` with respect to features, kernel and bias, in float32."""

    def chunk(start: Array, logits: Array, carry: _Carry) -> _Carry:
        d_features, d_kernel, d_bias = carry
        shares = jnp.exp(logits - norm[:, None]) * weight[:, None]
        narrow = shares.astype(features.dtype)
        columns = lax.dynamic_slice_in_dim(kernel, start, logits.shape[1], 1)
        d_features += product("nc,dc->nd", narrow, columns)
        moved = product("nd,nc->dc", features, narrow)
        # Add instead of assigning: the last chunk overlaps the one before, with shares of 0 in the overlap.
        d_kernel = _added(d_kernel, moved, start, 1)
        return d_features, d_kernel, _added(d_bias, shares.sum(0), start, 0)

    dtype = at_least_float32(bias).dtype
    empty = jnp.zeros(features.shape, dtype), jnp.zeros(kernel.shape, dtype), jnp.zeros(bias.shape, dtype)
    d_features, d_kernel, d_bias = _over_chunks(features, kernel, bias, chunk, empty)
    return d_features, d_kernel, d_bias


def _over_chunks(
    features: Array, kernel: Array, bias: Array, chunk: Callable[[Array, Array, _Carry], _Carry], carry: _Carry
) -> _Carry:
    """Fold ``chunk(start, logits [N,size], carry)`` over the classes; logits in an overlap of chunks are -inf."""
    classes = kernel.shape[1]
    size = min(CHUNK, classes)

    def body(i: Array, carry: _Carry) -> _Carry:
        # Shift the last chunk back to fit; padding the kernel to whole chunks would copy it.
        start = jnp.minimum(i * size, classes - size)
        columns = lax.dynamic_slice_in_dim(kernel, start, size, 1)
        logits = (
            product("nd,dc->nc", features, columns)
            + at_least_float32(lax.dynamic_slice_in_dim(bias, start, size, 0))[None]
        )
        fresh = start + jnp.arange(size, dtype=jnp.int32) >= i * size
        return chunk(start, jnp.where(fresh[None, :], logits, -jnp.inf), carry)

    # Second derivatives recompute each chunk too, instead of keeping the logits of all.
    return lax.fori_loop(0, -(-classes // size), jax.checkpoint(body), carry)


def product(spelled: str, one: Array, two: Array) -> Array:
    """Compute `jax.numpy.einsum` with sums in float32 at least."""
    kind: Any = at_least_float32(jnp.zeros((), one.dtype)).dtype
    return jnp.einsum(spelled, one, two, preferred_element_type=kind, precision=lax.Precision.HIGHEST)


def _added(whole: Array, part: Array, start: Array, axis: int) -> Array:
    """Add ``part`` to a slice of ``whole`` that begins at ``start``."""
    old = lax.dynamic_slice_in_dim(whole, start, part.shape[axis], axis)
    return lax.dynamic_update_slice_in_dim(whole, old + part, start, axis)
