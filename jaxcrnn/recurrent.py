"""The bidirectional LSTM."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

Initializer = jax.nn.initializers.Initializer


def lstm_scan(projected: Array, kernel: Array, valid: Array) -> Array:
    """Runs several LSTM directions side by side over time.

    Gates are packed i, f, g, o. The cell state is float32 whatever the inputs are. A frame that is not valid leaves
    the state as it is and outputs zero, so a reversed line that begins with padding starts from the zero state.

    Args:
      projected: ``[T,K,B,4H]``, the input's share of the gates with the bias, for K directions.
      kernel: ``[K,H,4H]``, the state's share.
      valid: ``[T,K,B]`` bool.

    Returns:
      ``[T,K,B,H]`` in the dtype of ``projected``.
    """
    dtype = projected.dtype
    _, k, b, _ = projected.shape
    hidden = kernel.shape[1]

    def step(carry: tuple[Array, Array], inputs: tuple[Array, Array]) -> tuple[tuple[Array, Array], Array]:
        h, c = carry
        gates, ok = inputs
        gates = (gates + jnp.einsum("kbh,khg->kbg", h, kernel)).astype(jnp.float32)
        i, f, g, o = jnp.split(gates, 4, axis=-1)
        new_c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        new_h = (jax.nn.sigmoid(o) * jnp.tanh(new_c)).astype(dtype)
        keep = ok[..., None]
        return (jnp.where(keep, new_h, h), jnp.where(keep, new_c, c)), jnp.where(keep, new_h, jnp.zeros((), dtype))

    start = jnp.zeros((k, b, hidden), dtype), jnp.zeros((k, b, hidden), jnp.float32)
    _, outputs = jax.lax.scan(step, start, (projected, valid))
    return outputs


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
        kernel_x = self.param("kernel_x", _stacked(jax.nn.initializers.glorot_uniform()), (2, size, 4 * hidden))
        kernel_h = self.param("kernel_h", _stacked(jax.nn.initializers.glorot_uniform()), (2, hidden, 4 * hidden))
        bias = self.param("bias", _forget_one, (2, 4 * hidden))
        x, kernel_x, kernel_h, bias = (a.astype(self.dtype) for a in (x, kernel_x, kernel_h, bias))
        projected = jnp.einsum("btd,kdg->tkbg", x, kernel_x) + bias[None, :, None, :]
        valid = (jnp.arange(x.shape[1])[:, None] < lengths[None, :])[:, None, :]
        # The backward direction is a flip, a forward scan and a flip back: exporters know that form.
        both = jnp.concatenate([projected[:, :1], projected[::-1, 1:]], 1)
        out = lstm_scan(both, kernel_h, jnp.concatenate([valid, valid[::-1]], 1))
        return jnp.concatenate([out[:, 0], out[::-1, 1]], -1).transpose(1, 0, 2)


def _stacked(initializer: Initializer) -> Initializer:
    """Initialises each direction by itself, so that their number does not count as a fan."""

    def init(key: Array, shape: Any, dtype: Any = jnp.float32, **kwargs: Any) -> Array:
        keys = jax.random.split(key, shape[0])
        return jnp.stack([initializer(k, shape[1:], dtype) for k in keys])

    return init


def _forget_one(key: Array, shape: tuple[int, int]) -> Array:
    """Zero, but one for the forget gates: the state is remembered before anything is learnt (Jozefowicz 2015)."""
    hidden = shape[1] // 4
    return jnp.zeros(shape).at[:, hidden : 2 * hidden].set(1.0)
