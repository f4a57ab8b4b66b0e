"""The recursion of the CTC lattice as one kernel for NVIDIA GPUs, where a loop over frames is bound by its launches.

It is written for Pallas's Triton backend, which jax deprecates from 0.11 on: measured slower than the scan, it goes;
measured faster, it moves to the backend that follows.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton


@partial(jax.custom_jvp, nondiff_argnums=(5,))
def recursion(
    begin: Array, scores: Array, enter: Array, starts: Array, lengths: Array, interpret: bool = False
) -> tuple[Array, Array]:
    """Compute the log variables of all frames, with one program for each sample and direction.

    ::

        arrived_t[s] = log(exp(v_(t-1)[s]) + exp(v_(t-1)[s-1]) + enter[s] exp(v_(t-1)[s-2]))
        v_t          = arrived_t + scores_t

    One block of threads keeps the variables of its states; the neighbours' come through the results in memory, after a
    barrier. The scan of `jaxcrnn.kernels.ctc_lattice.arrive` launches several kernels for every frame instead.

    Args:
      begin: ``[W,B,S]``, variables before the first frame, which are those that arrive there.
      scores: ``[T,W,B,S]``, score of each state in each frame.
      enter: ``[W,B,S]`` bool, whether a state can be entered from two states before.
      starts: ``[W,B]`` int32, first valid frame.
      lengths: ``[W,B]`` int32, number of valid frames.
      interpret: run as plain JAX on any device, for tests.

    Returns:
      ``[T,W,B,S]``, the variables that arrive in each frame, without the frame's own score, ``-inf`` in invalid frames;
      and ``[W,B,S]``, those after the last valid frame.
    """
    frames, ways, batch, states = scores.shape
    if not frames:
        return scores, begin
    # Triton loads powers of two; below 16 states, half of a warp would idle anyway.
    padding = [(0, 0), (0, 0), (0, max(16, 1 << (states - 1).bit_length()) - states)]
    begin = jnp.pad(begin, padding, constant_values=-jnp.inf)
    scores = jnp.pad(scores, [(0, 0), *padding], constant_values=-jnp.inf)
    enter = jnp.pad(jnp.where(enter, 0.0, -jnp.inf).astype(scores.dtype), padding, constant_values=-jnp.inf)
    size = begin.shape[2]
    row = pl.BlockSpec((None, None, size), lambda w, b: (w, b, 0))
    table = pl.BlockSpec((frames, None, None, size), lambda w, b: (0, w, b, 0))
    one = pl.BlockSpec((None, None), lambda w, b: (w, b))
    arrived, final = pl.pallas_call(
        partial(_frames, interpret),
        out_shape=(jax.ShapeDtypeStruct(scores.shape, scores.dtype), jax.ShapeDtypeStruct(begin.shape, begin.dtype)),
        grid=(ways, batch),
        in_specs=(row, table, row, one, one),
        out_specs=(table, row),
        compiler_params=triton.CompilerParams(num_warps=1 if size <= 64 else 4, num_stages=1),
        interpret=interpret,
        name="ctc_recursion",
    )(begin, scores, enter, starts, lengths)
    return arrived[..., :states], final[..., :states]


def _frames(
    interpret: bool, begin: Any, scores: Any, enter: Any, start: Any, length: Any, out: Any, final: Any
) -> None:
    """The program of one sample and direction."""
    states = jnp.arange(begin.shape[0])
    first, enter = start[...], enter[...]
    end = first + length[...]

    def before(frame: Array, away: int) -> Array:
        """The variables of the states ``away`` states before, after a frame."""
        place, exists = jnp.maximum(states - away, 0), (states >= away) & (frame >= first)
        there = jnp.maximum(frame, 0), place
        arrived = triton.load(out.at[there], mask=exists, other=-jnp.inf)
        return arrived + triton.load(scores.at[there], mask=exists, other=-jnp.inf)

    def step(frame: Array, own: Array) -> Array:
        one, two = before(frame - 1, 1), before(frame - 1, 2) + enter
        base = jnp.maximum(jnp.maximum(own, one), two)
        base = jnp.where(base == -jnp.inf, 0.0, base)
        arrived = base + jnp.log(jnp.exp(own - base) + jnp.exp(one - base) + jnp.exp(two - base))
        inside = (frame >= first) & (frame < end)
        arrived = jnp.where(inside, jnp.where(frame == first, own, arrived), -jnp.inf)
        out[frame, :] = arrived
        if not interpret:  # a sequential interpreter needs none
            triton.debug_barrier()
        return jnp.where(inside, arrived + scores[frame, :], own)

    final[...] = jax.lax.fori_loop(0, scores.shape[0], step, begin[...])


@recursion.defjvp
def _refuse(interpret: bool, primals: Any, tangents: Any) -> Any:
    raise NotImplementedError("the CTC kernel has no second derivatives; use the scan instead (model.ctc=scan)")
