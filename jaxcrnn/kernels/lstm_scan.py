"""One scan over time for several LSTM directions, with a hand-written gradient."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxcrnn.kernels.derivatives import constant_unless
from jaxcrnn.kernels.dtypes import at_least_float32

Directions = tuple[Array, ...]


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def lstm_scan(
    projected: Directions, kernel: Array, valid: Directions, flat: bool = True, unroll: int = 1
) -> Directions:
    """Run several LSTM directions side by side over time.

    Gates are packed as i, f, g, o. The cell state is float32 for any dtype of the inputs. A frame that is not valid
    leaves the state unchanged and outputs zero, so a reversed line that begins with padding starts from the zero state.

    The gradient is written by hand: the backward loop computes only the gates' gradients, and the kernel's gradient is
    one matrix product over all frames after it, instead of a sum carried through the loop. Directions share only the
    product with the state, so each one's arrays stay matrices, which is fastest on CPUs; or all are in one array. On a
    GPU, that and four frames in each iteration need a third of the operations (docs/speed.md).

    Args:
      projected: for each of K directions ``[T,B,4H]``, the input's contribution to the gates, including the bias; or
        one array ``[T,K,B,4H]``.
      kernel: ``[K,H,4H]``, the weights of the state.
      valid: for each direction ``[T,B]`` bool; or one array ``[T,K,B]``.
      flat: whether the kernel's gradient flattens all frames into one axis (`frame_product`).
      unroll: number of frames in one iteration of the loop.

    Returns:
      For each direction ``[T,B,H]`` in the dtype of ``projected``; or one array ``[T,K,B,H]``.

    References:
      Hochreiter and Schmidhuber, 1997, with forget gates.
    """
    return _visible(_scan(projected, kernel, valid, unroll, keep=False), valid)


def _scan(projected: Directions, kernel: Array, valid: Directions, unroll: int, *, keep: bool) -> Any:
    dtype, shape = projected[0].dtype, (*projected[0].shape[1:-1], kernel.shape[1])

    def step(carry: Any, inputs: Any) -> tuple[Any, Any]:
        through = _parts(jnp.einsum("kbh,khg->kbg", _joined(carry[0]), kernel), carry[0])
        rows = []
        for h, c, share, ok, product in zip(*carry, *inputs, through, strict=True):
            gates = constant_unless(share + product, ok[..., None])
            i, f, g, o = _activated(at_least_float32(gates))
            new_c = f * c + i * g
            new_h = (o * jnp.tanh(new_c)).astype(dtype)
            ok = ok[..., None]
            rows.append((jnp.where(ok, new_h, h), jnp.where(ok, new_c, c), gates))
        states, cells, every = zip(*rows, strict=True)
        return (states, cells), (states, carry[1], every) if keep else states

    start = jnp.zeros(shape, dtype), at_least_float32(jnp.zeros(shape, dtype))
    begin = tuple((value,) * len(projected) for value in start)
    return jax.lax.scan(step, begin, (projected, valid), unroll=unroll)[1]


def _joined(parts: Directions) -> Array:
    """The matrices of all directions as one array ``[K,...]``."""
    return parts[0] if parts[0].ndim == 3 else jnp.stack(parts)


def _parts(whole: Array, like: Directions) -> Directions:
    """An array ``[K,B,...]`` in the form of ``like``: itself, or the arrays of the directions."""
    return (whole,) if like[0].ndim == 3 else tuple(whole)


def _activated(gates: Array) -> tuple[Array, Array, Array, Array]:
    i, f, g, o = jnp.split(gates, 4, axis=-1)
    return jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)


def _visible(states: Directions, valid: Directions) -> Directions:
    return tuple(jnp.where(ok[..., None], h, jnp.zeros((), h.dtype)) for h, ok in zip(states, valid, strict=True))


def _lstm_forward(
    projected: Directions, kernel: Array, valid: Directions, flat: bool, unroll: int
) -> tuple[Directions, Any]:
    del flat
    h, c_before, gates = _scan(projected, kernel, valid, unroll, keep=True)
    return _visible(h, valid), (h, c_before, gates, kernel, valid)


def _lstm_backward(flat: bool, unroll: int, saved: Any, d_out: Directions) -> tuple[Directions, Array, None]:
    h, cells, gates, kernel, valid = saved
    dtype, turned = gates[0].dtype, kernel.transpose(0, 2, 1)

    def step(carry: Any, inputs: Any) -> tuple[Any, Directions]:
        rows = []
        for d_h, d_c, d_here, gate, c_before, ok in zip(*carry, *inputs, strict=True):
            i, f, g, o = _activated(at_least_float32(gate))
            ok, tanh_c, d = ok[..., None], jnp.tanh(f * c_before + i * g), d_h + at_least_float32(d_here)
            d_cell = d_c + d * o * (1 - tanh_c * tanh_c)
            parts = [d_cell * g * i * (1 - i), d_cell * c_before * f * (1 - f), d_cell * i * (1 - g * g)]
            d_gates = jnp.concatenate([*parts, d * tanh_c * o * (1 - o)], -1)
            rows.append((jnp.where(ok, d_gates, 0.0).astype(dtype), jnp.where(ok, d_cell * f, d_c)))
        every, d_cells = zip(*rows, strict=True)
        through = at_least_float32(jnp.einsum("kbg,kgh->kbh", _joined(every), turned))
        pairs = zip(_parts(through, every), carry[0], inputs[-1], strict=True)
        d_h = tuple(jnp.where(ok[..., None], new, old) for new, old, ok in pairs)
        return (d_h, d_cells), every

    zero = tuple(jnp.zeros(state.shape[1:], state.dtype) for state in cells)
    inputs = d_out, gates, cells, valid
    _, d_projected = jax.lax.scan(step, (zero, zero), inputs, reverse=True, unroll=unroll)
    d_kernel = tuple(_kernel_gradient(state[:-1], d[1:], flat) for state, d in zip(h, d_projected, strict=True))
    return d_projected, _joined(d_kernel), None


lstm_scan.defvjp(_lstm_forward, _lstm_backward)


def frame_product(rows: Array, kernel: Array, flat: bool) -> Array:
    """Compute ``[T,B,D] @ [D,G]``.

    Args:
      rows: ``[T,B,D]``.
      kernel: ``[D,G]``.
      flat: flatten all frames into the rows of one matrix, because a product over two axes costs XLA a transposed copy
        on CPU. False where the batch is sharded: the frames of a line are not contiguous, so flattening would gather
        the whole batch on each device.
    """
    if not flat:
        return jnp.einsum("tbd,dg->tbg", rows, kernel)
    return (_flat(rows) @ kernel).reshape(*rows.shape[:2], -1)


def _kernel_gradient(rows: Array, d: Array, flat: bool) -> Array:
    """Multiply ``[T,B,H]`` by ``[T,B,G]`` and sum over all frames: ``[H,G]``, or ``[K,H,G]`` of all directions."""
    if rows.ndim == 4:
        return jnp.einsum("tkbh,tkbg->khg", rows, d)
    return _flat(rows).T @ _flat(d) if flat else jnp.einsum("tbh,tbg->hg", rows, d)


def _flat(x: Array) -> Array:
    return x.reshape(-1, x.shape[-1])
