"""A linear head over many classes without its logits: what a loss needs of them, made class chunk by class chunk.

After Cut Cross-Entropy (Wijmans et al., 2024) and Pruned CTC (2026): CTC needs the log of the softmax's denominator and
the logits of the label's own classes, so no array with one entry for each frame and class has to exist; the backward
pass makes each chunk once more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from jaxcrnn.precision import wide

CHUNK = 1024  # classes at a time: 32 MB of float32 logits for 8192 frames
_Three = tuple[Array, Array, Array]


class Scan(NamedTuple):
    """What the head says of each of N frames.

    Attributes:
      norm: ``[N]`` log of the softmax's denominator.
      best: ``[N]`` int32, the most probable class, the lowest of equals.
      best_logit: ``[N]`` its logit.
    """

    norm: Array
    best: Array
    best_logit: Array


def scan_head(features: Array, kernel: Array, bias: Array) -> Scan:
    """One pass over the classes.

    Args:
      features: ``[N,D]``.
      kernel: ``[D,C]``.
      bias: ``[C]``.

    Returns:
      Float32 whatever the inputs are. Not differentiable; see `jaxcrnn.ctc.fused_ctc_loss`.
    """
    features, kernel, bias = (lax.stop_gradient(a) for a in (features, kernel, bias))

    def chunk(start: Array, logits: Array, carry: _Three) -> _Three:
        most, total, best = carry
        top, here = logits.max(1), start + jnp.argmax(logits, 1).astype(jnp.int32)
        higher = jnp.maximum(most, top)
        total = total * jnp.exp(most - higher) + jnp.exp(logits - higher[:, None]).sum(1)
        return higher, total, jnp.where(top > most, here, best)

    dtype, n = wide(bias).dtype, len(features)
    empty = jnp.full(n, -jnp.inf, dtype), jnp.zeros(n, dtype), jnp.zeros(n, jnp.int32)
    most, total, best = _over_chunks(features, kernel, bias, chunk, empty)
    return Scan(most + jnp.log(total), best, most)


def scan_gradient(
    features: Array, kernel: Array, bias: Array, norm: Array, weight: Array
) -> tuple[Array, Array, Array]:
    """The gradient of ``sum(weight * norm)`` by the features, the kernel and the bias, in float32.

    Args:
      features: ``[N,D]``.
      kernel: ``[D,C]``.
      bias: ``[C]``.
      norm: ``[N]``, of `scan_head`.
      weight: ``[N]``.
    """

    def chunk(start: Array, logits: Array, carry: _Three) -> _Three:
        d_features, d_kernel, d_bias = carry
        shares = jnp.exp(logits - norm[:, None]) * weight[:, None]
        narrow = shares.astype(features.dtype)
        columns = lax.dynamic_slice_in_dim(kernel, start, logits.shape[1], 1)
        d_features += product("nc,dc->nd", narrow, columns)
        moved = product("nd,nc->dc", features, narrow)
        # Added, not set: the last chunk begins among classes that had their turn, and its shares of those are 0.
        d_kernel = _added(d_kernel, moved, start, 1)
        return d_features, d_kernel, _added(d_bias, shares.sum(0), start, 0)

    dtype = wide(bias).dtype
    empty = jnp.zeros(features.shape, dtype), jnp.zeros(kernel.shape, dtype), jnp.zeros(bias.shape, dtype)
    return _over_chunks(features, kernel, bias, chunk, empty)


def _over_chunks(
    features: Array, kernel: Array, bias: Array, chunk: Callable[[Array, Array, _Three], _Three], carry: _Three
) -> _Three:
    """Folds ``chunk(start, logits [N,size], carry)``; classes that an earlier chunk had are -inf."""
    classes = kernel.shape[1]
    size = min(CHUNK, classes)

    def body(i: Array, carry: _Three) -> _Three:
        # The last chunk is moved back to fit, instead of a kernel padded to whole chunks: that would be a copy of it.
        start = jnp.minimum(i * size, classes - size)
        columns = lax.dynamic_slice_in_dim(kernel, start, size, 1)
        logits = product("nd,dc->nc", features, columns) + wide(lax.dynamic_slice_in_dim(bias, start, size, 0))[None]
        fresh = start + jnp.arange(size, dtype=jnp.int32) >= i * size
        return chunk(start, jnp.where(fresh[None, :], logits, -jnp.inf), carry)

    return lax.fori_loop(0, -(-classes // size), body, carry)


def product(spelled: str, one: Array, two: Array) -> Array:
    """`jax.numpy.einsum` with sums in float32 at least."""
    kind: Any = wide(jnp.zeros((), one.dtype)).dtype
    return jnp.einsum(spelled, one, two, preferred_element_type=kind, precision=lax.Precision.HIGHEST)


def _added(whole: Array, part: Array, start: Array, axis: int) -> Array:
    old = lax.dynamic_slice_in_dim(whole, start, part.shape[axis], axis)
    return lax.dynamic_update_slice_in_dim(whole, old + part, start, axis)
