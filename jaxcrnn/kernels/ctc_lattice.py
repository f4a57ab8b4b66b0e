"""The lattice of CTC: states, forward and backward variables, posteriors. Arrays in, arrays out."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array


class Lattice(NamedTuple):
    """The CTC paths that spell a label, scored by the logits.

    States are ``S = 2L + 1``: blank, first character, blank, second character, ..., blank.

    Attributes:
      norm: ``[B,T]`` log of the softmax's denominator.
      scores: ``[T,B,S]`` log probability of each frame's class in each state, less the frame's ``base``.
      base: ``[T,B]`` the highest log probability in the frame. Without it sums over many frames would be large, and
        with them their rounding: paths are compared with each other, not with 0.
      classes: ``[B,S]`` the class of each state, the blank's beyond the label.
      enter: ``[B,S]`` bool, states that may be entered from two states before: characters unlike the previous one.
      ends: ``[B,S]`` bool, the states a path may end in.
    """

    norm: Array
    scores: Array
    base: Array
    classes: Array
    enter: Array
    ends: Array


class Posteriors(NamedTuple):
    """How probable each state is in each frame, given the label.

    Attributes:
      states: ``[B,T,S]``, summing to 1 over the states of a frame, or all 0.
      there: ``[B,T]`` bool, where they are not 0: inside lines that can spell their label.
    """

    states: Array
    there: Array


def state_classes(labels: Array, label_lengths: Array, blank: int) -> Array:
    """The class of each state: ``[B,2L+1]``.

    Args:
      labels: ``[B,L]`` int32; slots at ``l >= label_lengths[b]`` may hold anything.
      label_lengths: ``[B]`` int32.
      blank: class of the blank.
    """
    # Whatever is in a padded slot may be no class at all.
    labels = jnp.where(jnp.arange(labels.shape[1])[None, :] < label_lengths[:, None], labels, blank)
    between = jnp.stack([jnp.full_like(labels, blank), labels], 2).reshape(len(labels), 2 * labels.shape[1])
    return jnp.pad(between, ((0, 0), (0, 1)), constant_values=blank)


def lattice(chosen: Array, norm: Array, classes: Array, label_lengths: Array) -> Lattice:
    """The lattice of a batch.

    Args:
      chosen: ``[B,T,S]`` logits of the states' classes.
      norm: ``[B,T]`` log of the softmax's denominator.
      classes: ``[B,S]`` of `state_classes`.
      label_lengths: ``[B]`` int32.
    """
    states = jnp.arange(classes.shape[1])[None, :]
    before = jnp.pad(classes[:, :-2], ((0, 0), (2, 0)), constant_values=-1)
    last = 2 * label_lengths[:, None]
    ends = (states == last) | (states == last - 1)
    enter = (states % 2 == 1) & (states > 1) & (classes != before)
    scores = (chosen - norm[:, :, None]).transpose(1, 0, 2)
    base = scores.max(2)
    base = jnp.where(jnp.isneginf(base), 0.0, base)  # -inf minus itself is not a number
    return Lattice(norm, scores - base[:, :, None], base, classes, enter, ends)


def shifted(values: Array, enter: Array) -> tuple[Array, Array]:
    """Values of the state before, and of two states before where that way is open; ``-inf`` elsewhere."""
    lead = [(0, 0)] * (values.ndim - 1)
    one = jnp.pad(values[..., :-1], (*lead, (1, 0)), constant_values=-jnp.inf)
    two = jnp.pad(values[..., :-2], (*lead, (2, 0)), constant_values=-jnp.inf)
    return one, jnp.where(enter, two, -jnp.inf)


def start(paths: Lattice) -> Array:
    """Before the first frame ``[B,S]``: a path is about to be in one of the first two states."""
    shape = paths.scores.shape[1:]
    first = jnp.broadcast_to(jnp.arange(shape[1])[None, :] < 2, shape)
    reachable = jnp.flip(jnp.cumsum(jnp.flip(paths.ends, 1), 1), 1) > 0  # not beyond the label's end
    return jnp.where(first & reachable, 0.0, -jnp.inf).astype(paths.scores.dtype)


def arrive(paths: Lattice, lengths: Array, ways: int) -> tuple[Array, Array]:
    """The sums over paths of Graves et al. (2006), eq. 6 to 11, forward and backward in one loop.

    Seen from the end of the line and of the label, the backward variables are forward variables: frames and states are
    reversed, and a state may be entered over another one where the other may be from it.

    Args:
      paths: of the labels.
      lengths: ``[B]`` valid frames.
      ways: 1 for the forward variables alone, 2 for both.

    Returns:
      ``[T,ways,B,S]`` log of the summed probability of all ways to a state before the frame's own class is counted, the
      backward one still reversed; and ``[ways,B,S]`` after the last frame.
    """
    frames = jnp.arange(paths.scores.shape[0])[:, None]
    scores, enter, begin = paths.scores[:, None], paths.enter[None], start(paths)[None]
    inside, first = (frames < lengths[None, :])[:, None], (frames == 0)[:, None]
    if ways == 2:
        back = jnp.pad(paths.enter[:, ::-1], ((0, 0), (2, 0)))[:, :-2]
        end = jnp.where(paths.ends, 0.0, -jnp.inf).astype(begin.dtype)
        scores = jnp.concatenate([scores, scores[::-1, :, :, ::-1]], 1)
        enter, begin = jnp.stack([paths.enter, back]), jnp.stack([begin[0], end[:, ::-1]])
        last = (frames == lengths[None, :] - 1)[::-1, None]
        first = jnp.concatenate([jnp.broadcast_to(first, last.shape), last], 1)
        inside = jnp.concatenate([inside, inside[::-1]], 1)

    def step(carry: Array, frame: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        score, is_first, is_inside = frame
        one, two = shifted(carry, enter)
        most = jnp.maximum(jnp.maximum(carry, one), two)
        base = jnp.where(jnp.isneginf(most), 0.0, most)  # -inf minus itself is not a number
        summed = base + jnp.log(jnp.exp(carry - base) + jnp.exp(one - base) + jnp.exp(two - base))
        arrived = jnp.where(is_first[..., None], carry, summed)
        return jnp.where(is_inside[..., None], arrived + score, carry), arrived

    final, arrived = jax.lax.scan(step, begin, (scores, first, inside))
    return arrived, final


def losses(paths: Lattice, last: Array, lengths: Array, feasible: Array) -> tuple[Array, Array]:
    """``[B]`` losses, and ``[B]`` bool, whether there is a path at all; where there is none the loss is 0.

    Args:
      paths: of the labels.
      last: ``[B,S]`` forward variables after the last frame (`arrive`).
      lengths: ``[B]`` valid frames.
      feasible: ``[B]`` bool, `jaxcrnn.ctc.is_feasible`.
    """
    inside = jnp.arange(len(paths.base))[:, None] < lengths[None, :]
    log_p = jax.nn.logsumexp(jnp.where(paths.ends, last, -jnp.inf), 1) + jnp.where(inside, paths.base, 0.0).sum(0)
    possible = feasible & ~jnp.isneginf(log_p)
    # A log probability is never positive; float32 lets confident samples slip by a few 1e-6.
    return jnp.maximum(-jnp.where(possible, log_p, 0.0), 0.0), possible


def posteriors(paths: Lattice, lengths: Array, feasible: Array) -> tuple[Array, Posteriors]:
    """Losses ``[B]``, and the posteriors that make their gradient."""
    arrived, final = arrive(paths, lengths, ways=2)
    values, possible = losses(paths, final[0], lengths, feasible)
    both = arrived[:, 0] + paths.scores + arrived[::-1, 1, :, ::-1]
    there = (jnp.arange(len(both))[None, :] < lengths[:, None]) & possible[:, None]
    # Every frame's sum is the label's probability; over its own sum, what rounding did to both divides out.
    states = jax.nn.softmax(jnp.where(there.T[:, :, None], both, 0.0), 2)
    states = jnp.where(there[:, :, None], states.transpose(1, 0, 2), 0.0)
    return values, Posteriors(states, there)


def shares(of: Posteriors, d_losses: Array) -> tuple[Array, Array]:
    """How much a frame's softmax weighs in the gradient, ``[B,T]``, and what is taken off its states, ``[B,T,S]``."""
    weight = jnp.where(of.there, d_losses[:, None], 0.0)
    return weight, of.states * weight[:, :, None]
