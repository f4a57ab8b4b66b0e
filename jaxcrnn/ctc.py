"""Connectionist temporal classification (Graves et al., 2006)."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxcrnn.kernels import logits as head
from jaxcrnn.kernels.dtypes import wide
from jaxcrnn.kernels.logits import Head, Logits


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


def ctc_loss(logits: Logits, lengths: Array, labels: Array, label_lengths: Array, *, blank: int = 0) -> Array:
    """Negative log probability of the label, per sample: ``-log p(label | logits)``.

    The sum runs over all paths of ``lengths[b]`` frames that collapse to the label (Graves et al., 2006, eq. 3).

    Args:
      logits: ``[B,T,C]`` float32, before the softmax; frames at ``t >= lengths[b]`` are ignored. Or a
        `jaxcrnn.kernels.logits.Head`, whose features have to be finite there too, for the gradient's sake.
      lengths: ``[B]`` int32, valid frames.
      labels: ``[B,L]`` int32 class ids, never ``blank``; slots at ``l >= label_lengths[b]`` are ignored.
      label_lengths: ``[B]`` int32.
      blank: class of the blank.

    Returns:
      ``[B]`` float32 in nats. An infeasible sample (see `is_feasible`), or one whose label has no probability at all,
      gives 0 and a gradient of zero, as torch's ``zero_infinity=True`` does; count them with `is_feasible`.
    """
    if not labels.shape[1]:  # no slots, so all labels are empty: as one slot that none of them uses
        labels = jnp.zeros((len(labels), 1), labels.dtype)
    if isinstance(logits, Head):
        classes = _classes(labels, label_lengths, blank)
        return _of_states(logits.norm, _states_of(logits, classes, blank), classes, lengths, labels, label_lengths)
    return _negative_log(logits, lengths, labels, label_lengths, blank)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _negative_log(logits: Array, lengths: Array, labels: Array, label_lengths: Array, blank: int) -> Array:
    return _loss_alone(_lattice(logits, lengths, labels, label_lengths, blank), lengths, labels, label_lengths)


def _loss_alone(lattice: Lattice, lengths: Array, labels: Array, label_lengths: Array) -> Array:
    _, last = _arrive(lattice, lengths, ways=1)
    return _losses(lattice, last[0], lengths, is_feasible(lengths, labels, label_lengths))[0]


def _losses(lattice: Lattice, last: Array, lengths: Array, feasible: Array) -> tuple[Array, Array]:
    """``[B]`` losses, and ``[B]`` bool, whether there is a path at all; where there is none the loss is 0."""
    inside = jnp.arange(len(lattice.base))[:, None] < lengths[None, :]
    log_p = jax.nn.logsumexp(jnp.where(lattice.ends, last, -jnp.inf), 1) + jnp.where(inside, lattice.base, 0.0).sum(0)
    possible = feasible & ~jnp.isneginf(log_p)
    # A log probability is never positive; float32 lets confident samples slip by a few 1e-6.
    return jnp.maximum(-jnp.where(possible, log_p, 0.0), 0.0), possible


def _forward(logits: Array, lengths: Array, labels: Array, label_lengths: Array, blank: int) -> tuple[Array, Any]:
    lattice = _lattice(logits, lengths, labels, label_lengths, blank)
    losses, found = _posteriors(lattice, lengths, labels, label_lengths)
    return losses, (logits, lattice.norm, lattice.classes, found)


def _backward(blank: int, saved: Any, d_losses: Array) -> tuple[Array, None, None, None]:
    """Softmax minus posteriors (Graves et al., 2006, eq. 16); no path, no gradient."""
    logits, norm, classes, found = saved
    weight, shares = _shares(found, d_losses)
    there = found.there[:, :, None]
    softmax = jnp.exp(jnp.where(there, wide(logits), 0.0) - jnp.where(there, norm[:, :, None], 0.0))
    d_logits = (softmax * weight[:, :, None]).at[:, :, blank].add(-shares[:, :, ::2].sum(2))
    # Line by line: devices that share the batch then see that a line's shares go to that line alone.
    d_logits = jax.vmap(lambda row, c, share: row.at[:, c].add(-share))(d_logits, classes[:, 1::2], shares[:, :, 1::2])
    return d_logits.astype(logits.dtype), None, None, None


_negative_log.defvjp(_forward, _backward)


def fused_ctc_loss(
    features: Array, kernel: Array, bias: Array, lengths: Array, labels: Array, label_lengths: Array, *, blank: int = 0
) -> Array:
    """`ctc_loss` of ``features @ kernel + bias``, without an array of logits.

    Forward and backward pass make the logits of `CHUNK` classes at a time (`jaxcrnn.kernels.chunked_head`). The gradient costs four matrix
    products with the kernel instead of three.

    Args:
      features: ``[B,T,D]`` float32 or bfloat16; frames at ``t >= lengths[b]`` are ignored. Sums are float32.
      kernel: ``[D,C]`` of the head.
      bias: ``[C]``.
      lengths: ``[B]`` int32, valid frames.
      labels: ``[B,L]`` int32 class ids, never ``blank``; slots at ``l >= label_lengths[b]`` are ignored.
      label_lengths: ``[B]`` int32.
      blank: class of the blank.

    Returns:
      ``[B]`` float32 in nats; infeasible samples give 0 and a gradient of zero.
    """
    inside = jnp.arange(features.shape[1])[None, :] < lengths[:, None]
    clean = jnp.where(inside[:, :, None], features, jnp.zeros((), features.dtype))
    return ctc_loss(head.make(clean, kernel, bias), lengths, labels, label_lengths, blank=blank)


def _states_of(logits: Head, classes: Array, blank: int) -> Array:
    """The logits ``[B,T,S]`` of the states' classes."""
    # The blank's column once, not once for each blank of the label.
    own, blanks = head.of_classes(logits, classes[:, 1::2]), head.of_class(logits, blank)
    spread = jnp.broadcast_to(blanks[:, :, None], own.shape)
    pairs = jnp.stack([spread, own], 3).reshape(*blanks.shape, 2 * own.shape[2])
    return jnp.concatenate([pairs, blanks[:, :, None]], 2)


@jax.custom_vjp
def _of_states(norm: Array, chosen: Array, classes: Array, lengths: Array, labels: Array, sizes: Array) -> Array:
    return _loss_alone(_lattice_of(chosen, norm, classes, sizes), lengths, labels, sizes)


def _of_states_forward(
    norm: Array, chosen: Array, classes: Array, lengths: Array, labels: Array, sizes: Array
) -> tuple[Array, Posteriors]:
    return _posteriors(_lattice_of(chosen, norm, classes, sizes), lengths, labels, sizes)


def _of_states_backward(found: Posteriors, d_losses: Array) -> tuple[Array, Array, None, None, None, None]:
    weight, shares = _shares(found, d_losses)
    return weight, -shares, None, None, None, None


_of_states.defvjp(_of_states_forward, _of_states_backward)


class Lattice(NamedTuple):
    """The paths of CTC that spell the label, seen through the logits.

    States are ``S = 2L + 1``: blank, first character, blank, second character, ..., blank.

    Attributes:
      norm: ``[B,T]`` log of the softmax's denominator.
      scores: ``[T,B,S]`` log probability of each frame's class in each state, less the frame's ``base``.
      base: ``[T,B]`` the highest log probability in the frame. Without it sums over many frames stay small, and with
        that their rounding: paths are compared with each other, not with 0.
      classes: ``[B,S]`` the class of each state, the blank's beyond the label.
      enter: ``[B,S]`` bool, states that may be entered from two states before: characters unlike the one before.
      ends: ``[B,S]`` bool, the states a path may end in.
    """

    norm: Array
    scores: Array
    base: Array
    classes: Array
    enter: Array
    ends: Array


def _lattice(logits: Logits, lengths: Array, labels: Array, label_lengths: Array, blank: int) -> Lattice:
    classes = _classes(labels, label_lengths, blank)
    if isinstance(logits, Head):
        return _lattice_of(_states_of(logits, classes, blank), logits.norm, classes, label_lengths)
    # Masked after the reductions: XLA would write masked logits down, as many bytes as the loss reads.
    frames = jnp.arange(logits.shape[1])[None, :] < lengths[:, None]
    norm = jnp.where(frames, head.norm(logits), 0.0)
    chosen = jnp.where(frames[:, :, None], head.of_classes(logits, classes), 0.0)
    return _lattice_of(chosen, norm, classes, label_lengths)


def _classes(labels: Array, label_lengths: Array, blank: int) -> Array:
    # Whatever stands in a padded slot may be no class at all.
    labels = jnp.where(jnp.arange(labels.shape[1])[None, :] < label_lengths[:, None], labels, blank)
    between = jnp.stack([jnp.full_like(labels, blank), labels], 2).reshape(len(labels), 2 * labels.shape[1])
    return jnp.pad(between, ((0, 0), (0, 1)), constant_values=blank)


def _lattice_of(chosen: Array, norm: Array, classes: Array, label_lengths: Array) -> Lattice:
    states = jnp.arange(classes.shape[1])[None, :]
    before = jnp.pad(classes[:, :-2], ((0, 0), (2, 0)), constant_values=-1)
    last = 2 * label_lengths[:, None]
    ends = (states == last) | (states == last - 1)
    enter = (states % 2 == 1) & (states > 1) & (classes != before)
    scores = (chosen - norm[:, :, None]).transpose(1, 0, 2)
    base = scores.max(2)
    base = jnp.where(jnp.isneginf(base), 0.0, base)  # -inf minus itself is no number
    return Lattice(norm, scores - base[:, :, None], base, classes, enter, ends)


def _shifted(values: Array, enter: Array) -> tuple[Array, Array]:
    """Values of the state before, and of two states before where that way is open; ``-inf`` elsewhere."""
    lead = [(0, 0)] * (values.ndim - 1)
    one = jnp.pad(values[..., :-1], (*lead, (1, 0)), constant_values=-jnp.inf)
    two = jnp.pad(values[..., :-2], (*lead, (2, 0)), constant_values=-jnp.inf)
    return one, jnp.where(enter, two, -jnp.inf)


def _start(lattice: Lattice) -> Array:
    """Before the first frame: a path is about to be in one of the first two states."""
    shape = lattice.scores.shape[1:]
    first = jnp.broadcast_to(jnp.arange(shape[1])[None, :] < 2, shape)
    return jnp.where(first & _reachable(lattice), 0.0, -jnp.inf).astype(lattice.scores.dtype)


def _reachable(lattice: Lattice) -> Array:
    """States not beyond the label's end."""
    return jnp.flip(jnp.cumsum(jnp.flip(lattice.ends, 1), 1), 1) > 0


def _arrive(lattice: Lattice, lengths: Array, ways: int) -> tuple[Array, Array]:
    """The sums over paths of Graves et al. (2006), eq. 6 to 11, both of them in one loop.

    Seen from the end of the line and of the label, the backward variables are forward variables: frames and states are
    reversed, and a state may be entered over another one where the other may be from it.

    Args:
      lattice: of the labels.
      lengths: ``[B]`` valid frames.
      ways: 1 for the forward variables alone, 2 for both.

    Returns:
      ``[T,ways,B,S]`` log of the summed probability of all ways to a state before the frame's own class is counted, the
      backward one still reversed; and ``[ways,B,S]`` after the last frame.
    """
    frames = jnp.arange(lattice.scores.shape[0])[:, None]
    scores, enter, start = lattice.scores[:, None], lattice.enter[None], _start(lattice)[None]
    inside, first = (frames < lengths[None, :])[:, None], (frames == 0)[:, None]
    if ways == 2:
        back = jnp.pad(lattice.enter[:, ::-1], ((0, 0), (2, 0)))[:, :-2]
        end = jnp.where(lattice.ends, 0.0, -jnp.inf).astype(start.dtype)
        scores = jnp.concatenate([scores, scores[::-1, :, :, ::-1]], 1)
        enter, start = jnp.stack([lattice.enter, back]), jnp.stack([start[0], end[:, ::-1]])
        last = (frames == lengths[None, :] - 1)[::-1, None]
        first = jnp.concatenate([jnp.broadcast_to(first, last.shape), last], 1)
        inside = jnp.concatenate([inside, inside[::-1]], 1)

    def step(carry: Array, frame: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        score, is_first, is_inside = frame
        one, two = _shifted(carry, enter)
        most = jnp.maximum(jnp.maximum(carry, one), two)
        base = jnp.where(jnp.isneginf(most), 0.0, most)  # -inf minus itself is no number
        summed = base + jnp.log(jnp.exp(carry - base) + jnp.exp(one - base) + jnp.exp(two - base))
        arrived = jnp.where(is_first[..., None], carry, summed)
        return jnp.where(is_inside[..., None], arrived + score, carry), arrived

    final, arrived = jax.lax.scan(step, start, (scores, first, inside))
    return arrived, final


class Posteriors(NamedTuple):
    """How probable each state is in each frame, given the label.

    Attributes:
      states: ``[B,T,S]``, summing to 1 over the states of a frame, or all 0.
      there: ``[B,T]`` bool, where they are not 0: inside lines that can spell their label.
    """

    states: Array
    there: Array


def _posteriors(lattice: Lattice, lengths: Array, labels: Array, label_lengths: Array) -> tuple[Array, Posteriors]:
    """Losses, and the posteriors that make their gradient."""
    arrived, final = _arrive(lattice, lengths, ways=2)
    losses, possible = _losses(lattice, final[0], lengths, is_feasible(lengths, labels, label_lengths))
    both = arrived[:, 0] + lattice.scores + arrived[::-1, 1, :, ::-1]
    there = (jnp.arange(len(both))[None, :] < lengths[:, None]) & possible[:, None]
    # Every frame's sum is the label's probability; over its own sum, what rounding did to both divides out.
    states = jax.nn.softmax(jnp.where(there.T[:, :, None], both, 0.0), 2)
    states = jnp.where(there[:, :, None], states.transpose(1, 0, 2), 0.0)
    return losses, Posteriors(states, there)


def _shares(found: Posteriors, d_losses: Array) -> tuple[Array, Array]:
    """What a frame's softmax weighs in the gradient, ``[B,T]``, and what is taken off its states, ``[B,T,S]``."""
    weight = jnp.where(found.there, d_losses[:, None], 0.0)
    return weight, found.states * weight[:, :, None]


def slot_posteriors(logits: Logits, lengths: Array, labels: Array, label_lengths: Array, *, blank: int = 0) -> Array:
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
    lattice = _lattice(head.constant(logits), lengths, labels, label_lengths, blank)
    return _posteriors(lattice, lengths, labels, label_lengths)[1].states[:, :, 1::2]


def best_path(logits: Logits, lengths: Array, labels: Array, label_lengths: Array, *, blank: int = 0) -> Array:
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
    frames = jnp.arange(head.num_frames(logits))

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
