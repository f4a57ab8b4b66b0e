"""The CTC lattice: states, forward and backward variables, posteriors. Pure functions of arrays."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxcrnn.kernels.derivatives import finite_base, log_sum, log_sum_rows

RECURSIONS = ("scan", "unrolled", "pallas", "pallas-interpreted")  # those of `arrive`
UNROLL = 8  # frames in one iteration of the unrolled loop


class Lattice(NamedTuple):
    """The CTC paths that spell a label, scored by the logits.

    The states are ``S = 2L + 1``: blank, first character, blank, second character, ..., blank.

    Attributes:
      norm: ``[B,T]``, log of the softmax's denominator.
      scores: ``[T,B,S]``, log probability of each state's class in each frame, minus the frame's ``base``.
      base: ``[T,B]``, highest log probability in the frame. Without it, sums over many frames would be large, and so
        would their rounding errors; only differences between paths matter.
      classes: ``[B,S]``, class of each state; the blank beyond the label.
      enter: ``[B,S]`` bool, whether a state can be entered from two states before: characters unlike the previous one.
      ends: ``[B,S]`` bool, whether a path may end in a state.
    """

    norm: Array
    scores: Array
    base: Array
    classes: Array
    enter: Array
    ends: Array


class Posteriors(NamedTuple):
    """The probability of each state in each frame, given the label.

    Attributes:
      states: ``[B,T,S]``, which sum to 1 over the states of a frame or are all 0.
      there: ``[B,T]`` bool, whether they sum to 1: valid frames of samples that can spell their label.
    """

    states: Array
    there: Array


def state_classes(labels: Array, label_lengths: Array, blank: int) -> Array:
    """Return the class of each state: ``[B,2L+1]``.

    Args:
      labels: ``[B,L]`` int32; slots at ``l >= label_lengths[b]`` may hold any value.
      label_lengths: ``[B]`` int32, characters of each label.
      blank: class id of the blank.
    """
    # A padded slot may hold an invalid class id.
    labels = jnp.where(jnp.arange(labels.shape[1])[None, :] < label_lengths[:, None], labels, blank)
    between = jnp.stack([jnp.full_like(labels, blank), labels], 2).reshape(len(labels), 2 * labels.shape[1])
    return jnp.pad(between, ((0, 0), (0, 1)), constant_values=blank)


def lattice(chosen: Array, norm: Array, classes: Array, label_lengths: Array) -> Lattice:
    """Build the lattice of a batch.

    Args:
      chosen: ``[B,T,S]``, logits of the states' classes.
      norm: ``[B,T]``, log of the softmax's denominator.
      classes: ``[B,S]`` from `state_classes`.
      label_lengths: ``[B]`` int32, characters of each label.
    """
    states = jnp.arange(classes.shape[1])[None, :]
    before = jnp.pad(classes[:, :-2], ((0, 0), (2, 0)), constant_values=-1)
    last = 2 * label_lengths[:, None]
    ends = (states == last) | (states == last - 1)
    enter = (states % 2 == 1) & (states > 1) & (classes != before)
    scores = (chosen - norm[:, :, None]).transpose(1, 0, 2)
    base = finite_base(jax.lax.stop_gradient(scores.max(2)))  # it cancels, so derivatives need not see it
    return Lattice(norm, scores - base[:, :, None], base, classes, enter, ends)


def shifted(values: Array, enter: Array) -> tuple[Array, Array]:
    """Shift values by one state, and by two where a state can be entered from there; ``-inf`` elsewhere."""
    lead = [(0, 0)] * (values.ndim - 1)
    one = jnp.pad(values[..., :-1], (*lead, (1, 0)), constant_values=-jnp.inf)
    two = jnp.pad(values[..., :-2], (*lead, (2, 0)), constant_values=-jnp.inf)
    return one, jnp.where(enter, two, -jnp.inf)


def start(paths: Lattice) -> Array:
    """Return the log variables before the first frame ``[B,S]``: a path starts in one of the first two states."""
    shape = paths.scores.shape[1:]
    first = jnp.broadcast_to(jnp.arange(shape[1])[None, :] < 2, shape)
    reachable = jnp.flip(jnp.cumsum(jnp.flip(paths.ends, 1), 1), 1) > 0  # not beyond the label's end
    return jnp.where(first & reachable, 0.0, -jnp.inf).astype(paths.scores.dtype)


def arrive(paths: Lattice, lengths: Array, ways: int, recursion: str = "scan") -> tuple[Array, Array]:
    """Compute the forward and, optionally, the backward variables in one loop.

    Read from the end, the backward variables are forward variables of the reversed frames and states, and a state can
    be entered from two states away under the same condition.

    Args:
      paths: lattice of the labels.
      lengths: ``[B]`` int32, valid frames.
      ways: 1 for the forward variables only, 2 for both.
      recursion: ``"scan"``, a loop over the frames; ``"unrolled"``, the same with eight frames in each iteration,
        which executes fewer kernels on a GPU; ``"pallas"``, one kernel (`jaxcrnn.kernels.ctc_pallas`) that needs an
        NVIDIA GPU and has no second derivatives; or ``"pallas-interpreted"``, the kernel's operations one by one.

    Returns:
      ``[T,ways,B,S]``, log of the summed probability of all partial paths to a state, excluding the frame's own class,
      with the backward variables still reversed, and of any value in padded frames; and ``[ways,B,S]``, the variables
      after the last frame.

    References:
      Graves et al., 2006, eq. 6 to 11.
    """
    scores, enter, begin = paths.scores[:, None], paths.enter[None], start(paths)[None]
    starts = jnp.zeros_like(lengths)[None]
    if ways == 2:
        back = jnp.pad(paths.enter[:, ::-1], ((0, 0), (2, 0)))[:, :-2]
        end = jnp.where(paths.ends, 0.0, -jnp.inf).astype(begin.dtype)
        scores = jnp.concatenate([scores, scores[::-1, :, :, ::-1]], 1)
        enter, begin = jnp.stack([paths.enter, back]), jnp.stack([begin[0], end[:, ::-1]])
        starts = jnp.stack([starts[0], len(scores) - lengths])
    if recursion.startswith("pallas"):
        from jaxcrnn.kernels import ctc_pallas  # takes a quarter of a second to import

        interpret = recursion == "pallas-interpreted"
        valid = jnp.broadcast_to(lengths, starts.shape)
        return ctc_pallas.recursion(begin, scores, enter, starts, valid, interpret)
    frames = jnp.arange(len(scores))[:, None, None]
    first, inside = frames == starts[None], (frames >= starts[None]) & (frames < (starts + lengths[None])[None])

    def step(carry: Array, frame: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        score, is_first, is_inside = frame
        one, two = shifted(carry, enter)
        arrived = jnp.where(is_first[..., None], carry, log_sum(carry, one, two))
        return jnp.where(is_inside[..., None], arrived + score, carry), arrived

    final, arrived = jax.lax.scan(step, begin, (scores, first, inside), unroll=UNROLL if recursion == "unrolled" else 1)
    return arrived, final


def losses(paths: Lattice, last: Array, lengths: Array, feasible: Array) -> tuple[Array, Array]:
    """Compute the losses ``[B]`` and whether each label has a path, ``[B]`` bool; the loss is 0 where it has none.

    Args:
      paths: lattice of the labels.
      last: ``[B,S]``, forward variables after the last frame (`arrive`).
      lengths: ``[B]`` int32, valid frames.
      feasible: ``[B]`` bool from `jaxcrnn.ctc.is_feasible`.
    """
    inside = jnp.arange(len(paths.base))[:, None] < lengths[None, :]
    log_p = log_sum_rows(jnp.where(paths.ends, last, -jnp.inf)) + jnp.where(inside, paths.base, 0.0).sum(0)
    possible = feasible & ~jnp.isneginf(log_p)
    # A log probability is never positive, but rounding makes it positive by a few 1e-6 for confident samples.
    return jnp.maximum(-jnp.where(possible, log_p, 0.0), 0.0), possible


def posteriors(paths: Lattice, lengths: Array, feasible: Array, recursion: str = "scan") -> tuple[Array, Posteriors]:
    """Compute the losses ``[B]`` and the posteriors that their gradient needs."""
    arrived, final = arrive(paths, lengths, 2, recursion)
    values, possible = losses(paths, final[0], lengths, feasible)
    both = arrived[:, 0] + paths.scores + arrived[::-1, 1, :, ::-1]
    valid = (jnp.arange(len(both))[None, :] < lengths[:, None]) & possible[:, None]
    # The sum over a frame's states is the label's probability; dividing by it cancels rounding errors in both.
    states = jax.nn.softmax(jnp.where(valid.T[:, :, None], both, 0.0), 2)
    states = jnp.where(valid[:, :, None], states.transpose(1, 0, 2), 0.0)
    return values, Posteriors(states, valid)


def shares(of: Posteriors, d_losses: Array) -> tuple[Array, Array]:
    """Compute the weight of each frame's softmax in the gradient, ``[B,T]``, and of its states, ``[B,T,S]``."""
    weight = jnp.where(of.there, d_losses[:, None], 0.0)
    return weight, of.states * weight[:, :, None]
