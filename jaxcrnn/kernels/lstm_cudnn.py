"""cuDNN's LSTM for NVIDIA GPUs: the parameters and results of `jaxcrnn.kernels.lstm_scan` in one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import rnn

from jaxcrnn.kernels.mesh_ops import LOCAL


def packed(kernel_x: Array, kernel_h: Array, bias: Array) -> Array:
    """Pack the parameters for cuDNN, in torch's order: the matrices of each direction, then the biases of each.

    Args:
      kernel_x: ``[K,D,4H]`` for K directions; gates are packed as i, f, g, o on both sides.
      kernel_h: ``[K,H,4H]``.
      bias: ``[K,4H]``. cuDNN has a second bias, which is zero here.

    Returns:
      One array of ``K (4HD + 4HH + 8H)`` numbers.
    """
    matrices = [each[k].T.reshape(-1) for k in range(len(bias)) for each in (kernel_x, kernel_h)]
    biases = [each[k] for k in range(len(bias)) for each in (bias, jnp.zeros_like(bias))]
    return jnp.concatenate([*matrices, *biases])


def lstm(
    x: Array,
    lengths: Array,
    kernel_x: Array,
    kernel_h: Array,
    bias: Array,
    *,
    map_lines: Callable[..., Any] = LOCAL.map_lines,
) -> Array:
    """Run one LSTM layer in one or both directions. Tracing it requires CUDA.

    Args:
      x: ``[B,T,D]``. cuDNN computes in float32 for any dtype; with bfloat16, its products are rounded to TF32.
      lengths: ``[B]`` int32, valid frames; padded ones influence nothing and are zero in the output.
      kernel_x: ``[K,D,4H]``.
      kernel_h: ``[K,H,4H]``.
      bias: ``[K,4H]``.
      map_lines: runs a function on each device's lines where the batch is sharded (`jaxcrnn.kernels.mesh_ops.Ops`).

    Returns:
      ``[B,T,KH]`` in the dtype of ``x``, forward half first.
    """
    exact = (lax.Precision.HIGHEST, lax.Precision.HIGHEST) if x.dtype == jnp.float32 else None

    def part(x: Array, lengths: Array, weights: Array) -> Array:
        directions, hidden = kernel_h.shape[:2]
        start = jnp.zeros((directions, len(x), hidden), jnp.float32)
        # cuDNN requires at least one frame; the output of an empty line is masked below.
        at_least_one = jnp.maximum(lengths, 1).astype(jnp.int32)
        size = x.shape[-1]
        out, _, _ = rnn.lstm(
            x.astype(jnp.float32), start, start, weights, at_least_one, size, hidden, 1, 0.0, directions == 2, exact
        )
        inside = jnp.arange(x.shape[1])[None, :] < lengths[:, None]
        return jnp.where(inside[:, :, None], out, 0.0).astype(x.dtype)

    weights = packed(*(a.astype(jnp.float32) for a in (kernel_x, kernel_h, bias)))
    return map_lines(part, (x, lengths), (weights,))
