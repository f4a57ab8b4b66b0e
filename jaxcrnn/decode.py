"""Greedy decoding: from logits to class ids, with confidences."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxcrnn import ctc
from jaxcrnn._arguments import class_id, frame_lengths, integers, labelled, readable, texts
from jaxcrnn.kernels.logits import Logits, as_logits

_NAMES = ("ids", "counts")


class Reading(NamedTuple):
    """A greedy reading and its confidence.

    Attributes:
      ids: ``[B,T]`` int32, the emitted class ids, packed to the left; 0 from ``counts[b]`` on.
      counts: ``[B]`` int32, number of emitted characters.
      confidence: ``[B]`` float32 in [0, 1]. The mean over the characters of each one's probability at its most probable
        frame; for an empty reading, the mean probability of the blank.
    """

    ids: Array
    counts: Array
    confidence: Array


def emitting(best: Array, lengths: Array, blank: int) -> tuple[Array, Array]:
    """Mark the frames that start a run of a character, and the valid frames.

    Args:
      best: ``[B,T]`` int32, best class of each frame.
      lengths: ``[B]`` int32, valid frames.
      blank: class id of the blank, 0 or more: the number of classes is not known here.

    Returns:
      Two ``[B,T]`` bool arrays: the frames that start a run, and the valid frames.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxcrnn import decode
      >>> starts, valid = decode.emitting(jnp.array([[0, 1, 1, 2]]), jnp.array([3]), blank=0)
      >>> starts.tolist(), valid.tolist()
      ([[False, True, False, False]], [[True, True, True, False]])
    """
    if not isinstance(blank, jax.core.Tracer) and blank < 0:
        raise ValueError(f"blank is {blank}; expected 0 or more, because the number of classes is not known here")
    best, lengths = integers("best", best), frame_lengths(lengths, best.shape[1])
    valid = jnp.arange(best.shape[1])[None, :] < lengths[:, None]
    before = jnp.pad(best[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
    return valid & (best != blank) & (best != before), valid


def pack(best: Array, starts: Array) -> tuple[Array, Array]:
    """Pack the selected entries of each row to the left.

    Args:
      best: ``[B,T]`` int32.
      starts: ``[B,T]`` bool, the entries to keep.

    Returns:
      The kept entries ``[B,T]``, followed by zeros, and their number ``[B]`` int32.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxcrnn import decode
      >>> ids, counts = decode.pack(jnp.array([[5, 6, 7, 8]]), jnp.array([[True, False, True, False]]))
      >>> ids.tolist(), counts.tolist()
      ([[5, 7, 0, 0]], [2])
    """
    best, starts = integers("best", best), jnp.asarray(starts, bool)
    counts = starts.sum(1, dtype=jnp.int32)
    # Scatter kept frames to the index given by their running count; the others write past the end and are dropped.
    place = jnp.where(starts, jnp.cumsum(starts, 1) - 1, best.shape[1])
    ids = jax.vmap(lambda row, at: jnp.zeros_like(row).at[at].set(row, mode="drop"))(best, place)
    return ids, counts


def greedy(logits: Logits, lengths: Array, *, blank: int = 0) -> tuple[Array, Array]:
    """Decode greedily: take the best class of each frame, merge repeats and remove blanks.

    Args:
      logits: ``[B,T,C]``; frames at ``t >= lengths[b]`` are padding and ignored.
      lengths: ``[B]`` int32, valid frames.
      blank: class id of the blank; a negative one counts from the end.

    Returns:
      ``ids [B,T]`` int32, packed to the left and 0 from ``counts[b]`` on, and ``counts [B]`` int32.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxcrnn import decode
      >>> logits = jax.nn.one_hot(jnp.array([[1, 1, 0, 1]]), 3)
      >>> ids, counts = decode.greedy(logits, jnp.array([4]))
      >>> ids.tolist(), counts.tolist()
      ([[1, 1, 0, 0]], [2])

    References:
      Best path decoding: Graves et al., 2006.
    """
    logits = as_logits(logits)
    blank = class_id("blank", blank, logits.num_classes)
    best, _ = logits.best()
    starts, _ = emitting(best, lengths, blank)
    return pack(best, starts)


def read(logits: Logits, lengths: Array, *, blank: int = 0) -> Reading:
    """Decode as `greedy` does, with a confidence for each line.

    Args:
      logits: ``[B,T,C]``; frames at ``t >= lengths[b]`` are padding and ignored.
      lengths: ``[B]`` int32, valid frames.
      blank: class id of the blank; a negative one counts from the end.

    Returns:
      A `Reading`.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxcrnn import decode
      >>> frames = [[0.2, 0.6, 0.2], [0.05, 0.9, 0.05], [0.8, 0.1, 0.1], [0.2, 0.1, 0.7]]
      >>> reading = decode.read(jnp.log(jnp.array([frames])), jnp.array([4]))
      >>> reading.ids.tolist(), reading.counts.tolist(), round(float(reading.confidence[0]), 3)  # 0.9 and 0.7
      ([[1, 2, 0, 0]], [2], 0.8)
    """
    logits = as_logits(logits)
    blank, lengths = class_id("blank", blank, logits.num_classes), frame_lengths(lengths, logits.num_frames)
    best, value = logits.best()
    starts, valid = emitting(best, lengths, blank)
    ids, counts = pack(best, starts)
    probability = jnp.exp(value - logits.log_norm())
    # run[b,t] counts the characters started so far, so all frames of a character share one number.
    run = jnp.cumsum(starts, 1)
    of_character = valid & (best != blank)
    slots = jnp.arange(1, best.shape[1] + 1)
    highest = jax.vmap(lambda p, r, m: jax.ops.segment_max(jnp.where(m, p, 0.0), r, len(slots) + 1)[1:])(
        probability, run, of_character
    )
    listed = slots[None, :] <= counts[:, None]
    mean_character = jnp.where(listed, highest, 0.0).sum(1) / jnp.maximum(counts, 1).astype(probability.dtype)
    mean_blank = jnp.where(valid, probability, 0.0).sum(1) / jnp.maximum(lengths, 1).astype(probability.dtype)
    return Reading(ids, counts, jnp.where(counts > 0, mean_character, mean_blank))


class Characters(NamedTuple):
    """The confidence and the frames of each character of a text.

    Attributes:
      confidence: ``[B,L]`` float32 in [0, 1], the character's probability at its most probable frame; 0 from
        ``counts[b]`` on, and where there are too few frames for the text.
      first: ``[B,L]`` int32, index of its first frame.
      last: ``[B,L]`` int32, index of its last frame.
    """

    confidence: Array
    first: Array
    last: Array


def characters(logits: Logits, lengths: Array, ids: Array, counts: Array, *, blank: int = 0) -> Characters:
    """Locate each character of a text on the most probable path that spells it (`jaxcrnn.ctc.best_path`).

    Args:
      logits: ``[B,T,C]``; frames at ``t >= lengths[b]`` are padding and ignored.
      lengths: ``[B]`` int32, valid frames.
      ids: ``[B,L]`` int32, class ids of the texts, from any decoder; entries from ``counts[b]`` on are padding.
      counts: ``[B]`` int32, number of characters.
      blank: class id of the blank; a negative one counts from the end.

    Returns:
      `Characters`.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxcrnn import decode
      >>> logits = 20 * jax.nn.one_hot(jnp.array([[0, 1, 1, 2]]), 3)
      >>> found = decode.characters(logits, jnp.array([4]), jnp.array([[1, 2]]), jnp.array([2]))
      >>> found.first.tolist(), found.last.tolist()
      ([[1, 3]], [[2, 3]])
    """
    logits = as_logits(logits)
    lengths, ids, counts, blank = labelled(logits, lengths, ids, counts, blank, names=_NAMES)
    if not ids.shape[1]:
        return Characters(jnp.zeros(ids.shape, logits.dtype), ids, ids)
    size = ids.shape[1]
    slots = ctc.best_path(logits, lengths, ids, counts, blank=blank)
    visible = slots >= 0
    segments = jnp.where(visible, slots, size)
    classes = jnp.take_along_axis(ids, jnp.maximum(slots, 0), 1)
    probability = jnp.where(visible, jnp.exp(logits.of_frames(classes) - logits.log_norm()), 0.0)
    frames = jnp.broadcast_to(jnp.arange(slots.shape[1], dtype=jnp.int32), slots.shape)
    highest, first, last = (
        jax.vmap(lambda v, s, reduce=reduce: reduce(v, s, size + 1)[:size])(values, segments)
        for reduce, values in (
            (jax.ops.segment_max, probability),
            (jax.ops.segment_min, frames),
            (jax.ops.segment_max, frames),
        )
    )
    listed = (jnp.arange(size)[None, :] < counts[:, None]) & (highest > 0)
    return Characters(*(jnp.where(listed, a, jnp.zeros((), a.dtype)) for a in (highest, first, last)))


def blankness(logits: Logits, lengths: Array, *, blank: int = 0) -> Array:
    """Compute the mean probability of the blank over the valid frames of each line.

    Args:
      logits: ``[B,T,C]``; frames at ``t >= lengths[b]`` are padding and ignored.
      lengths: ``[B]`` int32, valid frames.
      blank: class id of the blank; a negative one counts from the end.

    Returns:
      ``[B]`` float32 in [0, 1]; 0 for lines without frames.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxcrnn import decode
      >>> frames = [[0.2, 0.6, 0.2], [0.05, 0.9, 0.05], [0.8, 0.1, 0.1], [0.2, 0.1, 0.7]]
      >>> round(float(decode.blankness(jnp.log(jnp.array([frames])), jnp.array([4]))[0]), 4)
      0.3125
    """
    logits = as_logits(logits)
    blank, lengths = class_id("blank", blank, logits.num_classes), frame_lengths(lengths, logits.num_frames)
    norm = logits.log_norm()
    valid = jnp.arange(norm.shape[1])[None, :] < lengths[:, None]
    classes = jnp.full(norm.shape, blank, jnp.int32)
    probability = jnp.where(valid, jnp.exp(logits.of_frames(classes) - norm), 0.0)
    return probability.sum(1) / jnp.maximum(lengths, 1).astype(probability.dtype)


def exact(ids: Array, counts: Array, labels: Array, label_lengths: Array) -> Array:
    """Check whether each reading equals its label.

    Args:
      ids: ``[B,T]`` int32 from `greedy`.
      counts: ``[B]`` int32 from `greedy`.
      labels: ``[B,L]`` int32; slots at ``l >= label_lengths[b]`` are padding and ignored.
      label_lengths: ``[B]`` int32, characters of each label.

    Returns:
      ``[B]`` bool.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxcrnn import decode
      >>> ids, counts = jnp.array([[1, 2, 0], [1, 0, 0]]), jnp.array([2, 1])
      >>> decode.exact(ids, counts, jnp.array([[1, 2], [2, 0]]), jnp.array([2, 1])).tolist()
      [True, False]
    """
    (ids, counts), (labels, label_lengths) = texts(ids, counts, names=_NAMES), texts(labels, label_lengths)
    width = max(ids.shape[1], labels.shape[1])
    inside = jnp.arange(width)[None, :] < label_lengths[:, None]
    ids = jnp.pad(ids, ((0, 0), (0, width - ids.shape[1])))
    labels = jnp.pad(labels, ((0, 0), (0, width - labels.shape[1])))
    return (counts == label_lengths) & readable(labels, label_lengths) & jnp.all((ids == labels) | ~inside, 1)
