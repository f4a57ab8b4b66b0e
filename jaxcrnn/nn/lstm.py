"""The bidirectional LSTM layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from jaxcrnn.kernels.lstm_scan import frame_product, lstm_scan
from jaxcrnn.kernels.mesh_ops import LOCAL, Ops

UNROLL = 4  # frames in one iteration of the loop for GPUs, where each kernel takes a microsecond or more


class BiLSTM(nn.Module):
    """An LSTM layer: ``__call__(x [B,T,D], lengths [B])`` returns ``[B,T,2H]``, forward half first, or ``[B,T,H]``.

    Padded frames influence nothing and are zero in the output. The input projections of all frames are computed before
    the loop, one matrix product per direction; the loop holds one batched product with the state.

    Attributes:
      hidden: size H of each direction.
      dtype: dtype of the products; the cell state stays float32.
      directions: 2, or 1 for the forward direction only.
      two_biases: add a second bias to the first one, as torch does.
      kind: ``"cudnn"`` for `jaxcrnn.kernels.lstm_cudnn`, which needs an NVIDIA GPU; ``"unrolled"`` for the form of
        `jaxcrnn.kernels.lstm_scan` that executes the fewest operations; any other value for its plain form.
      ops: implementation of sharded operations (`jaxcrnn.kernels.mesh_ops`).
    """

    hidden: int
    dtype: Any = jnp.float32
    directions: int = 2
    two_biases: bool = False
    kind: str = "scan"
    ops: Ops = LOCAL

    @nn.compact
    def __call__(self, x: Array, lengths: Array) -> Array:
        size, hidden, both = x.shape[-1], self.hidden, self.directions
        # He initialization for the input: with Glorot's, the second layer's input is so small that CTC takes a third
        # longer to leave its plateau (docs/real-lines.md).
        kernel_x = self.param("kernel_x", _gates(jax.nn.initializers.he_uniform()), (both, size, 4 * hidden))
        kernel_h = self.param("kernel_h", _gates(jax.nn.initializers.glorot_uniform()), (both, hidden, 4 * hidden))
        bias = self.param("bias", _forget_one, (both, 4 * hidden))
        if self.two_biases:
            # Not +=, which would modify a caller's numpy array in place.
            bias = bias + self.param("bias_h", jax.nn.initializers.zeros, bias.shape)
        x, kernel_x, kernel_h, bias = (a.astype(self.dtype) for a in (x, kernel_x, kernel_h, bias))
        if self.kind == "cudnn":
            from jaxcrnn.kernels import lstm_cudnn

            return lstm_cudnn.lstm(x, lengths, kernel_x, kernel_h, bias, map_lines=self.ops.map_lines)
        flat = not self.ops.shared_batch
        frames = x.transpose(1, 0, 2)
        valid = jnp.arange(x.shape[1])[:, None] < lengths[None, :]
        if self.kind == "unrolled":
            return _unrolled(frames, valid, kernel_x, kernel_h, bias, flat)
        # The backward direction is a flip, a forward scan and a flip back: exporters recognize that form.
        ways, valids = (frames, frames[::-1])[:both], (valid, valid[::-1])[:both]
        projected = tuple(frame_product(rows, kernel_x[k], flat) + bias[k][None, None] for k, rows in enumerate(ways))
        ahead, *back = lstm_scan(projected, kernel_h, valids, flat)
        return jnp.concatenate([ahead, *(rows[::-1] for rows in back)], -1).transpose(1, 0, 2)


def _unrolled(frames: Array, valid: Array, kernel_x: Array, kernel_h: Array, bias: Array, flat: bool) -> Array:
    """Run all directions in one array, several frames in each iteration of the loop.

    Args:
      frames: ``[T,B,D]``.
      valid: ``[T,B]`` bool.
      kernel_x: ``[K,D,4H]``.
      kernel_h: ``[K,H,4H]``.
      bias: ``[K,4H]``.
      flat: as in `jaxcrnn.kernels.lstm_scan.frame_product`.

    Returns:
      ``[B,T,K*H]``.
    """
    both = frame_product(frames, jnp.concatenate(tuple(kernel_x), -1), flat) + bias.reshape(1, 1, -1)
    projected = _turned(jnp.split(both, len(kernel_x), -1))
    states = lstm_scan((projected,), kernel_h, (_turned([valid] * len(kernel_x)),), flat, UNROLL)[0]
    ahead, *back = jnp.unstack(states[: len(frames)], axis=1)
    return jnp.concatenate([ahead, *(rows[::-1] for rows in back)], -1).transpose(1, 0, 2)


def _turned(ways: Sequence[Array]) -> Array:
    """Stack directions ``[T,...]`` as ``[T,K,...]``, the second one reversed in time, padded to whole iterations."""
    ahead, *back = ways
    stacked = jnp.stack([ahead, *(rows[::-1] for rows in back)], 1)
    return jnp.pad(stacked, [(0, -len(ahead) % UNROLL), *[(0, 0)] * ahead.ndim])


def _gates(initializer: Any) -> Any:
    """Initialize each direction and each gate separately, so that their number does not count as fan-out."""

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
    """Initialize biases with zero, and with one for the forget gates, so that the state is kept at first.

    References:
      Jozefowicz et al., 2015.
    """
    hidden = shape[1] // 4
    return jnp.zeros(shape).at[:, hidden : 2 * hidden].set(1.0)
