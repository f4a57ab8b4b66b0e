"""Reading: from logits to class ids."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxcrnn import ctc
from jaxcrnn.kernels.logits import Logits, as_logits


class Reading(NamedTuple):
    """A greedy reading with its confidence.

    Attributes:
      ids: ``[B,T]`` int32, the emitted classes side by side; 0 from ``counts[b]`` on.
      counts: ``[B]`` int32, emitted characters.
      confidence: ``[B]`` float32 in [0, 1]: the mean over the characters of the probability at their surest frame;
        for an empty reading the mean probability of the blank.
    """

    ids: Array
    counts: Array
    confidence: Array


def emitting(best: Array, lengths: Array, blank: int) -> tuple[Array, Array]:
    """Frames that start a run of a character, and frames that are valid; both ``[B,T]``."""
    valid = jnp.arange(best.shape[1])[None, :] < lengths[:, None]
    before = jnp.pad(best[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
    return valid & (best != blank) & (best != before), valid


def pack(best: Array, starts: Array) -> tuple[Array, Array]:
    """The entries of ``[B,T]`` where ``starts`` is true, side by side from the left, 0 after them; and how many."""
    counts = starts.sum(1, dtype=jnp.int32)
    # Kept frames move left to the place their running count gives; the others write beyond the end and are dropped.
    place = jnp.where(starts, jnp.cumsum(starts, 1) - 1, best.shape[1])
    ids = jax.vmap(lambda row, at: jnp.zeros_like(row).at[at].set(row, mode="drop"))(best, place)
    return ids, counts


def greedy(logits: Logits, lengths: Array, *, blank: int = 0) -> tuple[Array, Array]:
    """The best class of each frame, repeats merged, blanks removed (Graves et al., 2006, best path decoding).

    Args:
      logits: ``[B,T,C]``; frames at ``t >= lengths[b]`` are ignored.
      lengths: ``[B]`` int32.
      blank: class of the blank.

    Returns:
      ``ids [B,T]`` int32, the reading from the left, 0 from ``counts[b]`` on; ``counts [B]`` int32.
    """
    best, _ = as_logits(logits).best()
    starts, _ = emitting(best, lengths, blank)
    return pack(best, starts)


def read(logits: Logits, lengths: Array, *, blank: int = 0) -> Reading:
    """`greedy` with a confidence for each line."""
    logits = as_logits(logits)
    best, value = logits.best()
    starts, valid = emitting(best, lengths, blank)
    ids, counts = pack(best, starts)
    sure = jnp.exp(value - logits.log_norm())
    # run[b,t] counts the characters started so far, so a character's frames share one number.
    run = jnp.cumsum(starts, 1)
    of_character = valid & (best != blank)
    slots = jnp.arange(1, best.shape[1] + 1)
    surest = jax.vmap(lambda s, r, m: jax.ops.segment_max(jnp.where(m, s, 0.0), r, len(slots) + 1)[1:])(
        sure, run, of_character
    )
    listed = slots[None, :] <= counts[:, None]
    mean_character = jnp.where(listed, surest, 0.0).sum(1) / jnp.maximum(counts, 1).astype(sure.dtype)
    mean_blank = jnp.where(valid, sure, 0.0).sum(1) / jnp.maximum(lengths, 1).astype(sure.dtype)
    return Reading(ids, counts, jnp.where(counts > 0, mean_character, mean_blank))


class Characters(NamedTuple):
    """What stands behind each character of a text.

    Attributes:
      confidence: ``[B,L]`` float32, its probability at its surest frame; 0 from ``counts[b]`` on, and where the frames
        are too few for the text.
      first: ``[B,L]`` int32, its first frame.
      last: ``[B,L]`` int32, its last frame.
    """

    confidence: Array
    first: Array
    last: Array


def characters(logits: Logits, lengths: Array, ids: Array, counts: Array, *, blank: int = 0) -> Characters:
    """The frames of each character on the most probable path that spells a text (`jaxcrnn.ctc.best_path`).

    Args:
      logits: ``[B,T,C]``; frames at ``t >= lengths[b]`` are ignored.
      lengths: ``[B]`` int32.
      ids: ``[B,L]`` int32, of any decoder.
      counts: ``[B]`` int32, characters.
      blank: class of the blank.
    """
    logits, size = as_logits(logits), ids.shape[1]
    slots = ctc.best_path(logits, lengths, ids, counts, blank=blank)
    there = slots >= 0
    at = jnp.where(there, slots, size)
    shown = jnp.take_along_axis(ids, jnp.maximum(slots, 0), 1)
    sure = jnp.where(there, jnp.exp(logits.of_frames(shown) - logits.log_norm()), 0.0)
    frames = jnp.broadcast_to(jnp.arange(slots.shape[1], dtype=jnp.int32), slots.shape)
    most, first, last = (
        jax.vmap(lambda v, s, how=how: how(v, s, size + 1)[:size])(values, at)
        for how, values in ((jax.ops.segment_max, sure), (jax.ops.segment_min, frames), (jax.ops.segment_max, frames))
    )
    listed = (jnp.arange(size)[None, :] < counts[:, None]) & (most > 0)
    return Characters(*(jnp.where(listed, a, jnp.zeros((), a.dtype)) for a in (most, first, last)))


def blankness(logits: Logits, lengths: Array, *, blank: int = 0) -> Array:
    """Mean probability of the blank over the frames ``[B,T,C]`` of each line, ``[B]``; 0 where there is none."""
    logits = as_logits(logits)
    norm = logits.log_norm()
    valid = jnp.arange(norm.shape[1])[None, :] < lengths[:, None]
    shown = jnp.full(norm.shape, blank, jnp.int32)
    sure = jnp.where(valid, jnp.exp(logits.of_frames(shown) - norm), 0.0)
    return sure.sum(1) / jnp.maximum(lengths, 1).astype(sure.dtype)


def exact(ids: Array, counts: Array, labels: Array, label_lengths: Array) -> Array:
    """Whether each reading equals its label: ``[B]`` bool.

    Args:
      ids: ``[B,T]`` from `greedy`.
      counts: ``[B]`` from `greedy`.
      labels: ``[B,L]`` int32, padded.
      label_lengths: ``[B]`` int32.
    """
    width = max(ids.shape[1], labels.shape[1])
    inside = jnp.arange(width)[None, :] < label_lengths[:, None]
    ids = jnp.pad(ids, ((0, 0), (0, width - ids.shape[1])))
    labels = jnp.pad(labels, ((0, 0), (0, width - labels.shape[1])))
    return (counts == label_lengths) & jnp.all((ids == labels) | ~inside, 1)
