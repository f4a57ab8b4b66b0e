"""A linear head over many classes without its logits: what is asked of them, made class chunk by class chunk.

After Cut Cross-Entropy (Wijmans et al., 2024) and Pruned CTC (2026): CTC needs the log of the softmax's denominator and
the logits of the label's own classes, so no array with one entry for each frame and class has to exist; the backward
pass makes each chunk once more.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import PartitionSpec as P

from jaxcrnn.kernels.dtypes import wide
from jaxcrnn.parallel import sharded_centers
from jaxcrnn.parallel.mesh import axes_of

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


class Copies(NamedTuple):
    """A head and its input where a mesh splits the classes: one copy for each device that would otherwise share one.

    The gradients of the copies are added up once, at the end, for all that was made from them. Added where they
    arise, the softmax's part of the kernel's gradient and the label's would each go over the network.

    Attributes:
      features: ``[model,B,T,D]``, over both axes.
      kernel: ``[data,D,C]``, over both axes; with as many classes more as make their number a multiple of ``model``.
      bias: ``[data,C]``, -inf for those.
    """

    features: Array
    kernel: Array
    bias: Array


def copies(features: Array, kernel: Array, bias: Array) -> Copies | None:
    """The copies for the mesh in use; None where it does not split the classes.

    Args:
      features: ``[B,T,D]``.
      kernel: ``[D,C]``.
      bias: ``[C]``.
    """
    data, model = axes_of(len(features))
    if model is None:
        return None
    sizes = jax.sharding.get_abstract_mesh().shape
    lacking = -kernel.shape[1] % sizes[model]
    if lacking:
        kernel = jnp.pad(kernel, ((0, 0), (0, lacking)))
        bias = jnp.pad(bias, (0, lacking), constant_values=-jnp.inf)

    def copied(array: Array, over: str | None, *rest: str | None) -> Array:
        many = jnp.broadcast_to(array[None], (sizes[over] if over else 1, *array.shape))
        return lax.with_sharding_constraint(many, P(over, *rest))

    return Copies(copied(features, model, data), copied(kernel, data, None, model), copied(bias, data, model))


def _specs(data: str | None, model: str) -> Copies:
    return Copies(P(model, data), P(data, None, model), P(data, model))  # type: ignore[arg-type]


def _mapped(
    part: Callable[..., Any], lines: int, more: int, out: Callable[[str | None, str], Any]
) -> Callable[..., Any]:
    """``part(copies, *more)`` on each device, with its own copy and its rows of ``more`` arrays."""
    data, model = axes_of(lines)
    assert model is not None
    # What is gathered and merged alike on every device of an axis no type says.
    return jax.shard_map(
        partial(part, model),
        in_specs=(_specs(data, model), *(P(data),) * more), out_specs=out(data, model), check_vma=False,
    )  # fmt: skip


def _own(each: Copies) -> tuple[Array, Array, Array]:
    """Of one device: features ``[N,D]``, kernel and bias."""
    return each.features.reshape(-1, each.features.shape[-1]), each.kernel[0], each.bias[0]


@jax.custom_vjp
def scan_copies(head: Copies) -> Scan:
    """`scan_head` where a mesh splits the classes: each device passes over its own.

    Args:
      head: of `copies`.
    """

    def part(model: str, each: Copies) -> Scan:
        norm, top, logits = _scan(*_own(each))
        most = lax.pmax(norm, model)
        norm = most + jnp.log(lax.psum(jnp.exp(norm - most), model))
        top += lax.axis_index(model) * each.kernel.shape[2]
        every = (lax.all_gather(a, model, axis=1, tiled=True) for a in (top, logits))
        return Scan(norm, *_best_of(*every))

    return _mapped(part, head.features.shape[1], 0, lambda data, _: P(data))(head)


def _copies_forward(head: Copies) -> tuple[Scan, Any]:
    scan = scan_copies(head)
    return scan, (head, scan.norm)


def _copies_backward(saved: tuple[Copies, Array], d_scan: Scan) -> tuple[Copies]:
    head, norm = saved

    def part(_: str, each: Copies, norm: Array, weight: Array) -> Copies:
        d_features, d_kernel, d_bias = _gradient(*_own(each), norm, weight)
        grown = Copies(d_features.reshape(each.features.shape), d_kernel[None], d_bias[None])
        return Copies(*(d.astype(a.dtype) for d, a in zip(grown, each, strict=True)))

    return (_mapped(part, head.features.shape[1], 2, _specs)(head, norm, d_scan.norm),)


scan_copies.defvjp(_copies_forward, _copies_backward)


def columns_of_copies(head: Copies, classes: Array) -> Array:
    """The logits of a few classes of each line, where a mesh splits the classes.

    Args:
      head: of `copies`.
      classes: ``[B,K]`` int32.

    Returns:
      ``[B,T,K]`` in float32 at least.
    """

    def part(model: str, each: Copies, classes: Array) -> Array:
        mine, at = sharded_centers.mine(classes, each.kernel.shape[2], model)
        logits = product("btd,dbk->btk", each.features[0], each.kernel[0][:, at]) + wide(each.bias[0])[at][:, None, :]
        return jnp.where(mine[:, None, :], logits, 0.0)[None]

    return _mapped(part, len(classes), 1, lambda data, model: P(model, data))(head, classes).sum(0)


def frames_of_copies(head: Copies, classes: Array) -> Array:
    """The logit of one class of each frame, where a mesh splits the classes.

    Args:
      head: of `copies`.
      classes: ``[B,T]`` int32.

    Returns:
      ``[B,T]`` in float32 at least.
    """

    def part(model: str, each: Copies, classes: Array) -> Array:
        mine, at = sharded_centers.mine(classes, each.kernel.shape[2], model)
        logits = product("btd,btd->bt", each.features[0], each.kernel[0].T[at]) + wide(each.bias[0])[at]
        return jnp.where(mine, logits, 0.0)[None]

    return _mapped(part, len(classes), 1, lambda data, model: P(model, data))(head, classes).sum(0)


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
    return _scan(features, kernel, bias)


def _scan(features: Array, kernel: Array, bias: Array) -> Scan:
    def chunk(start: Array, logits: Array, carry: _Carry) -> _Carry:
        most, total, top, top_logits = carry
        here, found = _top(logits)
        higher = jnp.maximum(most, found[:, 0])
        base = jnp.where(jnp.isneginf(higher), 0.0, higher)  # a chunk of classes that are not there
        total = total * jnp.exp(most - base) + jnp.exp(logits - base[:, None]).sum(1)
        # The classes of earlier chunks first: they are the lower ones.
        both = jnp.concatenate([top, start + here], 1), jnp.concatenate([top_logits, found], 1)
        return higher, total, *_best_of(*both)

    dtype, n = wide(bias).dtype, len(features)
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


def _best_of(classes: Array, logits: Array) -> tuple[Array, Array]:
    """The first of ``[N,K]`` candidates, in order."""
    at, values = _top(logits)
    return jnp.take_along_axis(classes, at, 1), values


def _scan_forward(features: Array, kernel: Array, bias: Array) -> tuple[Scan, Any]:
    scan = scan_head(features, kernel, bias)
    return scan, (features, kernel, bias, scan.norm)


def _scan_backward(saved: Any, d_scan: Scan) -> tuple[Array, Array, Array]:
    features, kernel, bias, norm = saved
    grown = _gradient(features, kernel, bias, norm, d_scan.norm)
    return tuple(d.astype(a.dtype) for d, a in zip(grown, saved, strict=False))  # type: ignore[return-value]


scan_head.defvjp(_scan_forward, _scan_backward)


def _gradient(features: Array, kernel: Array, bias: Array, norm: Array, weight: Array) -> tuple[Array, Array, Array]:
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

    dtype = wide(bias).dtype
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
