"""cuDNN's LSTM for NVIDIA GPUs: the parameters and results of `jaxcrnn.kernels.lstm_scan` in one call."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
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


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _outputs(x: Array, start: Array, weights: Array, lengths: Array, sizes: Any) -> Array:
    return rnn.lstm(x, start, start, weights, lengths, *sizes)[0]


def _outputs_forward(x: Array, start: Array, weights: Array, lengths: Array, sizes: Any) -> tuple[Array, Any]:
    x, weights = _differentiable_once(x), _differentiable_once(weights)
    return jax.vjp(lambda x, weights: rnn.lstm(x, start, start, weights, lengths, *sizes)[0], x, weights)


def _outputs_backward(sizes: Any, backward: Any, d_out: Array) -> tuple[Array, None, Array, None]:
    d_x, d_weights = backward(_differentiable_once(d_out))
    return d_x, None, d_weights, None


_outputs.defvjp(_outputs_forward, _outputs_backward)


@jax.custom_jvp
def _differentiable_once(x: Array) -> Array:
    """Return ``x``, within the rules of a `jax.custom_vjp` function."""
    return x


@_differentiable_once.defjvp
def _refuse(primals: Any, tangents: Any) -> Any:
    raise NotImplementedError("cuDNN's LSTM has no second derivatives; use the scan instead (model.lstm=scan)")


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

    Raises:
      NotImplementedError: If a second derivative is taken.
    """
    exact = (lax.Precision.HIGHEST, lax.Precision.HIGHEST) if x.dtype == jnp.float32 else None

    def part(x: Array, lengths: Array, weights: Array) -> Array:
        directions, hidden = kernel_h.shape[:2]
        start = jnp.zeros((directions, len(x), hidden), jnp.float32)
        # cuDNN requires at least one frame; the output of an empty line is masked below.
        at_least_one = jnp.maximum(lengths, 1).astype(jnp.int32)
        size = x.shape[-1]
        sizes = size, hidden, 1, 0.0, directions == 2, exact
        out = _outputs(x.astype(jnp.float32), start, weights, at_least_one, sizes)
        inside = jnp.arange(x.shape[1])[None, :] < lengths[:, None]
        return jnp.where(inside[:, :, None], out, 0.0).astype(x.dtype)

    weights = packed(*(a.astype(jnp.float32) for a in (kernel_x, kernel_h, bias)))
    return map_lines(part, (x, lengths), (weights,))
