"""The bidirectional LSTM."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from jaxcrnn.kernels.dtypes import wide
from jaxcrnn.parallel import mesh

Directions = tuple[Array, ...]


@jax.custom_vjp
def lstm_scan(projected: Directions, kernel: Array, valid: Directions) -> Directions:
    """Runs several LSTM directions side by side over time (Hochreiter and Schmidhuber, 1997, with forget gates).

    Gates are packed i, f, g, o. The cell state is float32 whatever the inputs are. A frame that is not valid leaves
    the state as it is and outputs zero, so a reversed line that begins with padding starts from the zero state.

    The gradient is written out: the derivative loop makes the gates' gradients only, and the kernel's gradient is
    one matrix product over all frames after it instead of a sum kept through the loop. Directions share the product
    with the state and nothing else, so that each one's arrays are matrices as they are.

    Args:
      projected: for each of K directions ``[T,B,4H]``, the input's share of the gates with the bias.
      kernel: ``[K,H,4H]``, the state's share.
      valid: for each direction ``[T,B]`` bool.

    Returns:
      For each direction ``[T,B,H]`` in the dtype of ``projected``.
    """
    return _visible(_scan(projected, kernel, valid, keep=False), valid)


def _scan(projected: Directions, kernel: Array, valid: Directions, *, keep: bool) -> Any:
    dtype, shape = projected[0].dtype, (projected[0].shape[1], kernel.shape[1])

    def step(carry: Any, inputs: Any) -> tuple[Any, Any]:
        through = jnp.einsum("kbh,khg->kbg", jnp.stack(carry[0]), kernel)
        rows = []
        for k, (h, c, share, ok) in enumerate(zip(*carry, *inputs, strict=True)):
            gates = share + through[k]
            i, f, g, o = _activated(wide(gates))
            new_c = f * c + i * g
            new_h = (o * jnp.tanh(new_c)).astype(dtype)
            ok = ok[:, None]
            rows.append((jnp.where(ok, new_h, h), jnp.where(ok, new_c, c), gates))
        states, cells, every = zip(*rows, strict=True)
        return (states, cells), (states, cells, every) if keep else states

    start = jnp.zeros(shape, dtype), wide(jnp.zeros(shape, dtype))
    begin = tuple((value,) * len(projected) for value in start)
    return jax.lax.scan(step, begin, (projected, valid))[1]


def _activated(gates: Array) -> tuple[Array, Array, Array, Array]:
    i, f, g, o = jnp.split(gates, 4, axis=-1)
    return jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)


def _visible(states: Directions, valid: Directions) -> Directions:
    return tuple(jnp.where(ok[..., None], h, jnp.zeros((), h.dtype)) for h, ok in zip(states, valid, strict=True))


def _lstm_forward(projected: Directions, kernel: Array, valid: Directions) -> tuple[Directions, Any]:
    h, c, gates = _scan(projected, kernel, valid, keep=True)
    return _visible(h, valid), (h, c, gates, kernel, valid)


def _lstm_backward(saved: Any, d_out: Directions) -> tuple[Directions, Array, None]:
    h, c, gates, kernel, valid = saved
    dtype, turned = gates[0].dtype, kernel.transpose(0, 2, 1)

    def step(carry: Any, inputs: Any) -> tuple[Any, Directions]:
        rows = []
        for d_h, d_c, d_here, gate, c, c_before, ok in zip(*carry, *inputs, strict=True):
            i, f, g, o = _activated(wide(gate))
            ok, tanh_c, d = ok[:, None], jnp.tanh(c), d_h + wide(d_here)
            d_cell = d_c + d * o * (1 - tanh_c * tanh_c)
            parts = [d_cell * g * i * (1 - i), d_cell * c_before * f * (1 - f), d_cell * i * (1 - g * g)]
            d_gates = jnp.concatenate([*parts, d * tanh_c * o * (1 - o)], -1)
            rows.append((jnp.where(ok, d_gates, 0.0).astype(dtype), jnp.where(ok, d_cell * f, d_c)))
        every, d_cells = zip(*rows, strict=True)
        through = wide(jnp.einsum("kbg,kgh->kbh", jnp.stack(every), turned))
        d_h = tuple(jnp.where(ok[:, None], through[k], carry[0][k]) for k, ok in enumerate(inputs[-1]))
        return (d_h, d_cells), every

    zero = tuple(jnp.zeros(state.shape[1:], state.dtype) for state in c)
    inputs = d_out, gates, c, tuple(map(_before, c)), valid
    _, d_projected = jax.lax.scan(step, (zero, zero), inputs, reverse=True)
    d_kernel = [_kernel_gradient(_before(state), d) for state, d in zip(h, d_projected, strict=True)]
    return d_projected, jnp.stack(d_kernel), None


def _before(states: Array) -> Array:
    return jnp.concatenate([jnp.zeros_like(states[:1]), states[:-1]])


def _projected(rows: Array, kernel: Array) -> Array:
    """``[T,B,D] @ [D,G]``."""
    if _is_split(rows):
        return jnp.einsum("tbd,dg->tbg", rows, kernel)
    return (_flat(rows) @ kernel).reshape(*rows.shape[:2], -1)


def _kernel_gradient(rows: Array, d: Array) -> Array:
    """``[T,B,H]`` and ``[T,B,G]`` summed over all frames: ``[H,G]``."""
    return jnp.einsum("tbh,tbg->hg", rows, d) if _is_split(rows) else _flat(rows).T @ _flat(d)


def _is_split(rows: Array) -> bool:
    return mesh.axes_of(rows.shape[1])[0] is not None


def _flat(x: Array) -> Array:
    """All frames as rows of one matrix: a product over two axes costs XLA a transposed copy on CPU.

    Where devices share the batch it would bring all of it to each of them, the frames of a line being far apart.
    """
    return x.reshape(-1, x.shape[-1])


lstm_scan.defvjp(_lstm_forward, _lstm_backward)


class BiLSTM(nn.Module):
    """One layer of both directions: ``__call__(x [B,T,D], lengths [B]) -> [B,T,2H]``, forward half first.

    Padded frames influence nothing and come back as zero. The input of all frames is projected outside the loop, one
    matrix product a direction; the loop holds one batched product with the state.

    Attributes:
      hidden: H.
      dtype: of the products; the cell state stays float32.
      directions: 1 for the forward direction alone.
      two_biases: whether there is a second bias that is only ever added to the first, as in torch.
      kind: ``"cudnn"`` takes `jaxcrnn.kernels.lstm_cudnn` where an NVIDIA GPU is compiled for; the loop here everywhere else.
    """

    hidden: int
    dtype: Any = jnp.float32
    directions: int = 2
    two_biases: bool = False
    kind: str = "scan"

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
        if self.kind == "cudnn" and mesh.is_nvidia():
            from jaxcrnn.kernels import lstm_cudnn

            return lstm_cudnn.lstm(x, lengths, kernel_x, kernel_h, bias)
        frames = x.transpose(1, 0, 2)
        valid = jnp.arange(x.shape[1])[:, None] < lengths[None, :]
        # The backward direction is a flip, a forward scan and a flip back: exporters know that form.
        ways, valids = (frames, frames[::-1])[:both], (valid, valid[::-1])[:both]
        projected = tuple(_projected(rows, kernel_x[k]) + bias[k][None, None] for k, rows in enumerate(ways))
        ahead, *back = lstm_scan(projected, kernel_h, valids)
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
