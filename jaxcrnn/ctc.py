"""Connectionist temporal classification (Graves et al., 2006)."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxcrnn.kernels import ctc_lattice
from jaxcrnn.kernels.ctc_lattice import Lattice, Posteriors
from jaxcrnn.kernels.dtypes import at_least_float32
from jaxcrnn.kernels.logits import DenseLogits, Logits, as_logits, constant, factored


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
      logits: ``[B,T,C]`` float32, before the softmax; frames at ``t >= lengths[b]`` are ignored. Or any other type of
        `jaxcrnn.kernels.logits`, whose features have to be finite there too, for the gradient's sake.
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
    logits = as_logits(logits)
    if isinstance(logits, DenseLogits):
        return _dense_loss(logits.values, lengths, labels, label_lengths, blank)
    classes = ctc_lattice.state_classes(labels, label_lengths, blank)
    chosen = _state_logits(logits, classes, blank)
    return _factored_loss(logits.log_norm(), chosen, classes, lengths, labels, label_lengths)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _dense_loss(logits: Array, lengths: Array, labels: Array, label_lengths: Array, blank: int) -> Array:
    return _loss_alone(_lattice(logits, lengths, labels, label_lengths, blank), lengths, labels, label_lengths)


def _loss_alone(paths: Lattice, lengths: Array, labels: Array, label_lengths: Array) -> Array:
    _, last = ctc_lattice.arrive(paths, lengths, ways=1)
    return ctc_lattice.losses(paths, last[0], lengths, is_feasible(lengths, labels, label_lengths))[0]


def _dense_forward(logits: Array, lengths: Array, labels: Array, label_lengths: Array, blank: int) -> tuple[Array, Any]:
    paths = _lattice(logits, lengths, labels, label_lengths, blank)
    losses, posteriors = ctc_lattice.posteriors(paths, lengths, is_feasible(lengths, labels, label_lengths))
    return losses, (logits, paths.norm, paths.classes, posteriors)


def _dense_backward(blank: int, saved: Any, d_losses: Array) -> tuple[Array, None, None, None]:
    """Softmax minus posteriors (Graves et al., 2006, eq. 16); no path, no gradient."""
    logits, norm, classes, posteriors = saved
    weight, shares = ctc_lattice.shares(posteriors, d_losses)
    there = posteriors.there[:, :, None]
    softmax = jnp.exp(jnp.where(there, at_least_float32(logits), 0.0) - jnp.where(there, norm[:, :, None], 0.0))
    d_logits = (softmax * weight[:, :, None]).at[:, :, blank].add(-shares[:, :, ::2].sum(2))
    # Line by line: devices that share the batch then see that a line's shares go to that line alone.
    d_logits = jax.vmap(lambda row, c, share: row.at[:, c].add(-share))(d_logits, classes[:, 1::2], shares[:, :, 1::2])
    return d_logits.astype(logits.dtype), None, None, None


_dense_loss.defvjp(_dense_forward, _dense_backward)


@jax.custom_vjp
def _factored_loss(norm: Array, chosen: Array, classes: Array, lengths: Array, labels: Array, sizes: Array) -> Array:
    return _loss_alone(ctc_lattice.lattice(chosen, norm, classes, sizes), lengths, labels, sizes)


def _factored_forward(
    norm: Array, chosen: Array, classes: Array, lengths: Array, labels: Array, sizes: Array
) -> tuple[Array, Posteriors]:
    paths = ctc_lattice.lattice(chosen, norm, classes, sizes)
    return ctc_lattice.posteriors(paths, lengths, is_feasible(lengths, labels, sizes))


def _factored_backward(posteriors: Posteriors, d_losses: Array) -> tuple[Array, Array, None, None, None, None]:
    weight, shares = ctc_lattice.shares(posteriors, d_losses)
    return weight, -shares, None, None, None, None


_factored_loss.defvjp(_factored_forward, _factored_backward)


def fused_ctc_loss(
    features: Array, kernel: Array, bias: Array, lengths: Array, labels: Array, label_lengths: Array, *, blank: int = 0
) -> Array:
    """`ctc_loss` of ``features @ kernel + bias``, without an array of logits.

    Forward and backward pass make the logits of `jaxcrnn.kernels.chunked_head.CHUNK` classes at a time. The gradient
    costs four matrix products with the kernel instead of three.

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
    return ctc_loss(factored(clean, kernel, bias), lengths, labels, label_lengths, blank=blank)


def _state_logits(logits: Any, classes: Array, blank: int) -> Array:
    """The logits ``[B,T,S]`` of the states' classes."""
    # The blank's column once, not once for each blank of the label.
    columns = logits.of_classes(jnp.concatenate([jnp.full_like(classes[:, :1], blank), classes[:, 1::2]], 1))
    blanks, own = columns[:, :, :1], columns[:, :, 1:]
    pairs = jnp.stack([jnp.broadcast_to(blanks, own.shape), own], 3).reshape(*own.shape[:2], 2 * own.shape[2])
    return jnp.concatenate([pairs, blanks], 2)


def _lattice(logits: Logits, lengths: Array, labels: Array, label_lengths: Array, blank: int) -> Lattice:
    logits, classes = as_logits(logits), ctc_lattice.state_classes(labels, label_lengths, blank)
    if not isinstance(logits, DenseLogits):
        chosen = _state_logits(logits, classes, blank)
        return ctc_lattice.lattice(chosen, logits.log_norm(), classes, label_lengths)
    # Masked after the reductions: XLA would write masked logits down, as many bytes as the loss reads.
    frames = jnp.arange(logits.num_frames)[None, :] < lengths[:, None]
    norm = jnp.where(frames, logits.log_norm(), 0.0)
    chosen = jnp.where(frames[:, :, None], logits.of_classes(classes), 0.0)
    return ctc_lattice.lattice(chosen, norm, classes, label_lengths)


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
    paths = _lattice(constant(logits), lengths, labels, label_lengths, blank)
    return ctc_lattice.posteriors(paths, lengths, is_feasible(lengths, labels, label_lengths))[1].states[:, :, 1::2]


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
    paths = _lattice(logits, lengths, labels, label_lengths, blank)
    frames = jnp.arange(len(paths.scores))

    def forward(best: Array, frame: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        score, first, inside = frame
        one, two = ctc_lattice.shifted(best, paths.enter)
        ways = jnp.stack([best, one, two])
        came = jnp.where(first, 0, jnp.argmax(ways, 0)).astype(jnp.int32)
        moved = score + jnp.where(first, best, ways.max(0))
        return jnp.where(inside[:, None], moved, best), came

    def back(state: Array, frame: tuple[Array, Array]) -> tuple[Array, Array]:
        came, inside = frame
        step = jnp.take_along_axis(came, state[:, None], 1)[:, 0]
        return jnp.where(inside, state - step, state), state

    inside = frames[:, None] < lengths[None, :]
    best, came = jax.lax.scan(forward, ctc_lattice.start(paths), (paths.scores, frames == 0, inside))
    final = jnp.argmax(jnp.where(paths.ends, best, -jnp.inf), 1).astype(jnp.int32)
    _, states = jax.lax.scan(back, final, (came, inside), reverse=True)
    fine = inside & is_feasible(lengths, labels, label_lengths)[None, :]
    return jnp.where(fine & (states % 2 == 1), states // 2, -1).T
