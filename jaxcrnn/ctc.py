"""Connectionist temporal classification (Graves et al., 2006)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jaxcrnn.precision import wide


def is_feasible(lengths: Array, labels: Array, label_lengths: Array) -> Array:
    """Whether each label fits its frames: one frame a character and one blank between repeats.

    Args:
      lengths: ``[B]`` int32, valid frames.
      labels: ``[B,L]`` int32; slots at ``l >= label_lengths[b]`` are ignored.
      label_lengths: ``[B]`` int32.

    Returns:
      ``[B]`` bool. The empty label is feasible at any length, 0 included.
    """
    slots = jnp.arange(1, labels.shape[1])
    repeats = (labels[:, 1:] == labels[:, :-1]) & (slots[None, :] < label_lengths[:, None])
    return label_lengths + repeats.sum(1, dtype=label_lengths.dtype) <= lengths


def ctc_loss(logits: Array, lengths: Array, labels: Array, label_lengths: Array, *, blank: int = 0) -> Array:
    """Negative log probability of the label, per sample: ``-log p(label | logits)``.

    The sum runs over all paths of ``lengths[b]`` frames that collapse to the label (Graves et al., 2006, eq. 3).

    Args:
      logits: ``[B,T,C]`` float32, before the softmax; frames at ``t >= lengths[b]`` are ignored.
      lengths: ``[B]`` int32, valid frames.
      labels: ``[B,L]`` int32 class ids, never ``blank``; slots at ``l >= label_lengths[b]`` are ignored.
      label_lengths: ``[B]`` int32.
      blank: class of the blank.

    Returns:
      ``[B]`` float32 in nats. An infeasible sample (see `is_feasible`) gives 0 and a gradient of zero, as
      torch's ``zero_infinity=True`` does; count them with `is_feasible`.
    """
    feasible = is_feasible(lengths, labels, label_lengths)
    # optax gives an infeasible label about 1e5 and a misleading gradient, so it never sees one: these samples are
    # computed with an empty label, which is finite, and masked after.
    shown = jnp.where(feasible, label_lengths, 0)
    frame_padding = jnp.arange(logits.shape[1])[None, :] >= lengths[:, None]
    slot_padding = jnp.arange(labels.shape[1])[None, :] >= shown[:, None]
    clean = jnp.where(frame_padding[:, :, None], 0.0, wide(logits))
    losses = optax.ctc_loss(
        clean, frame_padding.astype(clean.dtype), labels, slot_padding.astype(clean.dtype), blank_id=blank
    )
    # A log probability is never positive; float32 lets confident samples slip by a few 1e-6.
    return jnp.where(feasible, jnp.maximum(losses, 0.0), 0.0)


class Lattice(NamedTuple):
    """The paths of CTC that spell the label, seen through the logits.

    States are ``S = 2L + 1``: blank, first character, blank, second character, ..., blank.

    Attributes:
      scores: ``[T,B,S]`` log probability of each frame's class in each state.
      enter: ``[B,S]`` bool, states that may be entered from two states before: characters unlike the one before.
      ends: ``[B,S]`` bool, the states a path may end in.
    """

    scores: Array
    enter: Array
    ends: Array


def _lattice(logits: Array, lengths: Array, labels: Array, label_lengths: Array, blank: int) -> Lattice:
    frames = jnp.arange(logits.shape[1])[None, :] < lengths[:, None]
    clean = wide(jnp.where(frames[:, :, None], logits, jnp.zeros((), logits.dtype)))
    # Whatever stands in a padded slot may be no class at all.
    labels = jnp.where(jnp.arange(labels.shape[1])[None, :] < label_lengths[:, None], labels, blank)
    states = jnp.arange(2 * labels.shape[1] + 1)[None, :]
    slots = jnp.minimum(states // 2, labels.shape[1] - 1)
    classes = jnp.where(states % 2 == 1, jnp.take_along_axis(labels, slots, 1), blank)
    before = jnp.pad(classes[:, :-2], ((0, 0), (2, 0)), constant_values=-1)
    scores = jnp.take_along_axis(clean, classes[:, None, :], 2) - jax.nn.logsumexp(clean, 2, keepdims=True)
    last = 2 * label_lengths[:, None]
    ends = (states == last) | (states == last - 1)
    return Lattice(scores.transpose(1, 0, 2), (states % 2 == 1) & (states > 1) & (classes != before), ends)


def _shifted(values: Array, enter: Array) -> tuple[Array, Array]:
    """Values of the state before, and of two states before where that way is open; ``-inf`` elsewhere."""
    one = jnp.pad(values[:, :-1], ((0, 0), (1, 0)), constant_values=-jnp.inf)
    two = jnp.pad(values[:, :-2], ((0, 0), (2, 0)), constant_values=-jnp.inf)
    return one, jnp.where(enter, two, -jnp.inf)


def _start(lattice: Lattice) -> Array:
    """Before the first frame: a path is about to be in one of the first two states."""
    shape = lattice.scores.shape[1:]
    first = jnp.broadcast_to(jnp.arange(shape[1])[None, :] < 2, shape)
    return jnp.where(first & _reachable(lattice), 0.0, -jnp.inf).astype(lattice.scores.dtype)


def _reachable(lattice: Lattice) -> Array:
    """States not beyond the label's end."""
    return jnp.flip(jnp.cumsum(jnp.flip(lattice.ends, 1), 1), 1) > 0


def slot_posteriors(logits: Array, lengths: Array, labels: Array, label_lengths: Array, *, blank: int = 0) -> Array:
    """How probable it is that a frame shows a character of the label, given that the line reads so.

    The forward and backward variables of Graves et al. (2006), eq. 7 and 11: their product at a frame and a character,
    over the probability of the label.

    Args:
      logits: ``[B,T,C]`` before the softmax; frames at ``t >= lengths[b]`` are ignored.
      lengths: ``[B]`` int32, valid frames.
      labels: ``[B,L]`` int32 class ids, never ``blank``; slots at ``l >= label_lengths[b]`` are ignored.
      label_lengths: ``[B]`` int32.
      blank: class of the blank.

    Returns:
      ``[B,T,L]`` float32 in [0, 1]; 0 in padded frames and slots and for infeasible samples. What a frame lacks to 1 is
      the blank's. No gradient flows through it.
    """
    lattice = _lattice(jax.lax.stop_gradient(logits), lengths, labels, label_lengths, blank)
    inside = jnp.arange(logits.shape[1])[:, None] < lengths[None, :]

    def forward(alpha: Array, frame: tuple[Array, Array]) -> tuple[Array, Array]:
        score, first = frame
        one, two = _shifted(alpha, lattice.enter)
        arrived = jnp.logaddexp(jnp.logaddexp(alpha, one), two)
        alpha = score + jnp.where(first, alpha, arrived)
        return alpha, alpha

    def backward(beta: Array, frame: tuple[Array, Array]) -> tuple[Array, Array]:
        """Beta without the frame's own score; ``beta`` comes with the score of the frame after."""
        score, last = frame
        two = jnp.pad(jnp.where(lattice.enter, beta, -jnp.inf)[:, 2:], ((0, 0), (0, 2)), constant_values=-jnp.inf)
        one = jnp.pad(beta[:, 1:], ((0, 0), (0, 1)), constant_values=-jnp.inf)
        here = jnp.where(last[:, None], end, jnp.logaddexp(jnp.logaddexp(beta, one), two))
        return here + score, here

    frames = jnp.arange(logits.shape[1])
    end = jnp.where(lattice.ends, 0.0, -jnp.inf).astype(lattice.scores.dtype)
    _, alphas = jax.lax.scan(forward, _start(lattice), (lattice.scores, frames == 0))
    last = frames[:, None] == lengths[None, :] - 1
    _, betas = jax.lax.scan(backward, jnp.full_like(end, -jnp.inf), (lattice.scores, last), reverse=True)
    both = (alphas + betas)[:, :, 1::2]
    everything = jax.nn.logsumexp(alphas + betas, 2, keepdims=True)
    listed = jnp.arange(labels.shape[1])[None, :] < label_lengths[:, None]
    feasible = is_feasible(lengths, labels, label_lengths)
    shown = inside[:, :, None] & (listed & feasible[:, None])[None]
    posteriors = jnp.where(shown, jnp.exp(both - jnp.where(shown, everything, 0.0)), 0.0)
    return posteriors.transpose(1, 0, 2)


def best_path(logits: Array, lengths: Array, labels: Array, label_lengths: Array, *, blank: int = 0) -> Array:
    """The most probable path that spells the label (Viterbi over the same states as the loss).

    Args:
      logits: ``[B,T,C]`` before the softmax; frames at ``t >= lengths[b]`` are ignored.
      lengths: ``[B]`` int32, valid frames.
      labels: ``[B,L]`` int32 class ids, never ``blank``; slots at ``l >= label_lengths[b]`` are ignored.
      label_lengths: ``[B]`` int32.
      blank: class of the blank.

    Returns:
      ``[B,T]`` int32: the label slot a frame shows, -1 where it shows the blank, in padded frames and for infeasible
      samples.
    """
    lattice = _lattice(logits, lengths, labels, label_lengths, blank)
    frames = jnp.arange(logits.shape[1])

    def forward(best: Array, frame: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        score, first, inside = frame
        one, two = _shifted(best, lattice.enter)
        ways = jnp.stack([best, one, two])
        came = jnp.where(first, 0, jnp.argmax(ways, 0)).astype(jnp.int32)
        moved = score + jnp.where(first, best, ways.max(0))
        return jnp.where(inside[:, None], moved, best), came

    def back(state: Array, frame: tuple[Array, Array]) -> tuple[Array, Array]:
        came, inside = frame
        step = jnp.take_along_axis(came, state[:, None], 1)[:, 0]
        return jnp.where(inside, state - step, state), state

    inside = frames[:, None] < lengths[None, :]
    best, came = jax.lax.scan(forward, _start(lattice), (lattice.scores, frames == 0, inside))
    final = jnp.argmax(jnp.where(lattice.ends, best, -jnp.inf), 1).astype(jnp.int32)
    _, states = jax.lax.scan(back, final, (came, inside), reverse=True)
    fine = inside & is_feasible(lengths, labels, label_lengths)[None, :]
    return jnp.where(fine & (states % 2 == 1), states // 2, -1).T
