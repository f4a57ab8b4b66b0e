"""The bidirectional LSTM."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from jaxcrnn.precision import wide


@jax.custom_vjp
def lstm_scan(projected: Array, kernel: Array, valid: Array) -> Array:
    """Runs several LSTM directions side by side over time (Hochreiter and Schmidhuber, 1997, with forget gates).

    Gates are packed i, f, g, o. The cell state is float32 whatever the inputs are. A frame that is not valid leaves
    the state as it is and outputs zero, so a reversed line that begins with padding starts from the zero state.

    The gradient is written out: the derivative loop makes the gates' gradients only, and the kernel's gradient is
    one matrix product over all frames after it instead of a sum kept through the loop.

    Args:
      projected: ``[T,K,B,4H]``, the input's share of the gates with the bias, for K directions.
      kernel: ``[K,H,4H]``, the state's share.
      valid: ``[T,K,B]`` bool.

    Returns:
      ``[T,K,B,H]`` in the dtype of ``projected``.
    """
    states = _scan(projected, kernel, valid, keep_gates=False)
    return _zero_invalid(states, valid)


def _scan(projected: Array, kernel: Array, valid: Array, *, keep_gates: bool) -> Any:
    dtype = projected.dtype
    shape = (*projected.shape[1:3], kernel.shape[1])

    def step(carry: tuple[Array, Array], inputs: tuple[Array, Array]) -> tuple[tuple[Array, Array], Any]:
        h, c = carry
        share, ok = inputs
        gates = wide(share + jnp.einsum("kbh,khg->kbg", h, kernel))
        i, f, g, o = jnp.split(gates, 4, axis=-1)
        new_c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        new_h = (jax.nn.sigmoid(o) * jnp.tanh(new_c)).astype(dtype)
        h, c = jnp.where(ok[..., None], new_h, h), jnp.where(ok[..., None], new_c, c)
        return (h, c), (h, c, gates.astype(dtype)) if keep_gates else h

    start = jnp.zeros(shape, dtype), wide(jnp.zeros(shape, dtype))
    return jax.lax.scan(step, start, (projected, valid))[1]


def _zero_invalid(states: Array, valid: Array) -> Array:
    return jnp.where(valid[..., None], states, jnp.zeros((), states.dtype))


def _lstm_forward(projected: Array, kernel: Array, valid: Array) -> tuple[Array, Any]:
    h, c, gates = _scan(projected, kernel, valid, keep_gates=True)
    return _zero_invalid(h, valid), (h, c, gates, kernel, valid)


def _lstm_backward(saved: Any, d_out: Array) -> tuple[Array, Array, None]:
    h, c, gates, kernel, valid = saved
    dtype, wide = gates.dtype, c.dtype
    h_before = jnp.concatenate([jnp.zeros_like(h[:1]), h[:-1]])
    c_before = jnp.concatenate([jnp.zeros_like(c[:1]), c[:-1]])
    turned = kernel.transpose(0, 2, 1)

    def step(carry: tuple[Array, Array], inputs: Any) -> tuple[tuple[Array, Array], Array]:
        d_h, d_c = carry
        d_here, gate, c, c_before, ok = inputs
        ok = ok[..., None]
        i, f, g, o = jnp.split(gate.astype(wide), 4, axis=-1)
        i, f, g, o, tanh_c = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o), jnp.tanh(c)
        d = d_h + d_here.astype(wide)
        d_cell = d_c + d * o * (1 - tanh_c * tanh_c)
        d_gates = jnp.concatenate(
            [
                d_cell * g * i * (1 - i),
                d_cell * c_before * f * (1 - f),
                d_cell * i * (1 - g * g),
                d * tanh_c * o * (1 - o),
            ],
            -1,
        )
        d_gates = jnp.where(ok, d_gates, 0.0).astype(dtype)
        through = jnp.einsum("kbg,kgh->kbh", d_gates, turned).astype(wide)
        return (jnp.where(ok, through, d_h), jnp.where(ok, d_cell * f, d_c)), d_gates

    zero = jnp.zeros(c.shape[1:], wide)
    _, d_projected = jax.lax.scan(step, (zero, zero), (d_out, gates, c, c_before, valid), reverse=True)
    d_kernel = jnp.einsum("tkbh,tkbg->khg", h_before, d_projected)
    return d_projected, d_kernel, None


lstm_scan.defvjp(_lstm_forward, _lstm_backward)


class BiLSTM(nn.Module):
    """One bidirectional layer: ``__call__(x [B,T,D], lengths [B]) -> [B,T,2H]``, forward half first.

    Padded frames influence nothing and come back as zero. One matrix product outside the loop projects the input for
    all frames and both directions; the loop holds one batched product with the state.

    Attributes:
      hidden: H.
      dtype: of the products; the cell state stays float32.
    """

    hidden: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, lengths: Array) -> Array:
        size, hidden = x.shape[-1], self.hidden
        # He's scale for the input: with Glorot's the second layer hears so little of the first that CTC takes a third
        # longer to leave its plateau (docs/real-lines.md).
        kernel_x = self.param("kernel_x", _gates(jax.nn.initializers.he_uniform()), (2, size, 4 * hidden))
        kernel_h = self.param("kernel_h", _gates(jax.nn.initializers.glorot_uniform()), (2, hidden, 4 * hidden))
        bias = self.param("bias", _forget_one, (2, 4 * hidden))
        x, kernel_x, kernel_h, bias = (a.astype(self.dtype) for a in (x, kernel_x, kernel_h, bias))
        projected = jnp.einsum("btd,kdg->tkbg", x, kernel_x) + bias[None, :, None, :]
        valid = (jnp.arange(x.shape[1])[:, None] < lengths[None, :])[:, None, :]
        # The backward direction is a flip, a forward scan and a flip back: exporters know that form.
        both = jnp.concatenate([projected[:, :1], projected[::-1, 1:]], 1)
        out = lstm_scan(both, kernel_h, jnp.concatenate([valid, valid[::-1]], 1))
        return jnp.concatenate([out[:, 0], out[::-1, 1]], -1).transpose(1, 0, 2)


def _gates(initializer: Any) -> Any:
    """Initialises each direction and each gate by itself: their number is no fan-out."""

    def init(key: Array, shape: tuple[int, int, int], dtype: Any = jnp.float32) -> Array:
        directions, size, gates = shape
        make = jax.vmap(lambda k: initializer(k, (size, gates // 4), dtype))
        return (
            make(jax.random.split(key, directions * 4))
            .reshape(directions, 4, size, -1)
            .transpose(0, 2, 1, 3)
            .reshape(shape)
        )

    return init


def _forget_one(key: Array, shape: tuple[int, int]) -> Array:
    """Zero, but one for the forget gates: the state is remembered before anything is learnt (Jozefowicz 2015)."""
    hidden = shape[1] // 4
    return jnp.zeros(shape).at[:, hidden : 2 * hidden].set(1.0)
