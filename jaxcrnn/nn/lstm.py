"""The bidirectional LSTM."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from jaxcrnn.kernels.lstm_scan import frame_product, lstm_scan
from jaxcrnn.kernels.mesh_ops import LOCAL, Ops


class BiLSTM(nn.Module):
    """One layer of both directions: ``__call__(x [B,T,D], lengths [B]) -> [B,T,2H]``, forward half first.

    Padded frames influence nothing and come back as zero. The input of all frames is projected outside the loop, one
    matrix product a direction; the loop holds one batched product with the state.

    Attributes:
      hidden: H.
      dtype: of the products; the cell state stays float32.
      directions: 1 for the forward direction alone.
      two_biases: whether there is a second bias that is only ever added to the first, as in torch.
      kind: ``"cudnn"`` for `jaxcrnn.kernels.lstm_cudnn`, which needs an NVIDIA GPU; otherwise
        `jaxcrnn.kernels.lstm_scan`.
      ops: how a mesh of devices computes it (`jaxcrnn.kernels.mesh_ops`).
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
        # He's scale for the input: with Glorot's the second layer hears so little of the first that CTC takes a third
        # longer to leave its plateau (docs/real-lines.md).
        kernel_x = self.param("kernel_x", _gates(jax.nn.initializers.he_uniform()), (both, size, 4 * hidden))
        kernel_h = self.param("kernel_h", _gates(jax.nn.initializers.glorot_uniform()), (both, hidden, 4 * hidden))
        bias = self.param("bias", _forget_one, (both, 4 * hidden))
        if self.two_biases:
            # Not +=, which would change a caller's numpy array.
            bias = bias + self.param("bias_h", jax.nn.initializers.zeros, bias.shape)
        x, kernel_x, kernel_h, bias = (a.astype(self.dtype) for a in (x, kernel_x, kernel_h, bias))
        if self.kind == "cudnn":
            from jaxcrnn.kernels import lstm_cudnn

            return lstm_cudnn.lstm(x, lengths, kernel_x, kernel_h, bias, map_lines=self.ops.map_lines)
        flat = not self.ops.shared_batch
        frames = x.transpose(1, 0, 2)
        valid = jnp.arange(x.shape[1])[:, None] < lengths[None, :]
        # The backward direction is a flip, a forward scan and a flip back: exporters know that form.
        ways, valids = (frames, frames[::-1])[:both], (valid, valid[::-1])[:both]
        projected = tuple(frame_product(rows, kernel_x[k], flat) + bias[k][None, None] for k, rows in enumerate(ways))
        ahead, *back = lstm_scan(projected, kernel_h, valids, flat)
        return jnp.concatenate([ahead, *(rows[::-1] for rows in back)], -1).transpose(1, 0, 2)


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
