"""Which center a frame belongs to: four alignments, one type (`jaxcrnn.types.Assignment`).

Assignments are constants of the loss: nothing is differentiated through an argmax, an alignment or a weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import jax.numpy as jnp
from jax import Array

from jaxcrnn import ctc
from jaxcrnn.kernels.logits import Logits, as_logits
from jaxcrnn.types import Assignment

FRAMES = ("last", "first", "best", "all")


def _valid(logits: Logits, lengths: Array) -> Array:
    return jnp.arange(as_logits(logits).num_frames)[None, :] < lengths[:, None]


def _check_classes(classes: int, **named: int) -> None:
    for name, value in named.items():
        if not 0 <= value < classes:
            raise ValueError(f"{name} is class {value}; expected one of the {classes} classes, 0 to {classes - 1}")


def _as_weights(chosen: Array, logits: Logits) -> Array:
    return chosen.astype(as_logits(logits).dtype)


def counted(
    logits: Logits,
    lengths: Array,
    labels: Array,
    label_lengths: Array,
    *,
    blank: int = 0,
    ignored: Sequence[int] = (),
) -> Assignment:
    """Flow one: the frames where greedy decoding emits, labelled with the true characters if their number is right.

    A frame emits when its best class is not the blank, not ignored, and not the best class of the next valid frame:
    the last frame of each run. Only a sample that emits as many characters as its label has takes part; its i-th
    emitting frame then gets the i-th true character, whatever was read there.

    Args:
      logits: ``[B,T,C]``; frames at ``t >= lengths[b]`` are ignored.
      lengths: ``[B]`` int32, valid frames.
      labels: ``[B,L]`` int32; slots at ``l >= label_lengths[b]`` are ignored.
      label_lengths: ``[B]`` int32.
      blank: class of the blank.
      ignored: classes that never emit.

    Returns:
      Weight 1 on the emitting frames of the samples that take part, 0 elsewhere.

    Raises:
      ValueError: ``blank`` or an ignored class is not among the classes.

    Source: the TensorFlow original of CRNN with center loss; its PyTorch sibling ignores class 1 besides.
    """
    _check_classes(as_logits(logits).num_classes, blank=blank, **{f"ignored[{i}]": c for i, c in enumerate(ignored)})
    valid = _valid(logits, lengths)
    best, _ = as_logits(logits).best()
    following = jnp.where(valid[:, 1:], best[:, 1:], -1)
    following = jnp.pad(following, ((0, 0), (0, 1)), constant_values=-1)
    emits = valid & (best != blank) & (best != following)
    for other in ignored:
        emits &= best != other
    passed = emits.sum(1, dtype=jnp.int32) == label_lengths
    slots = jnp.clip(jnp.cumsum(emits, 1) - 1, 0, labels.shape[1] - 1)
    chosen = emits & passed[:, None]
    classes = jnp.where(chosen, jnp.take_along_axis(labels, slots, 1), blank)
    return Assignment(classes.astype(jnp.int32), _as_weights(chosen, logits))


def predicted(logits: Logits, lengths: Array, *, blank: int = 0, skip_blank: bool = False) -> Assignment:
    """Flow two: every valid frame belongs to its best class, the blank among them.

    Args:
      logits: ``[B,T,C]``; frames at ``t >= lengths[b]`` are ignored.
      lengths: ``[B]`` int32, valid frames.
      blank: class of the blank.
      skip_blank: leave out the frames that show the blank, which are most of them.

    Returns:
      Weight 1 on the valid frames, 0 elsewhere.

    Raises:
      ValueError: ``blank`` is not among the classes.

    Source: PaddleOCR, ``CenterLoss``.
    """
    _check_classes(as_logits(logits).num_classes, blank=blank)
    chosen = _valid(logits, lengths)
    best, _ = as_logits(logits).best()
    if skip_blank:
        chosen &= best != blank
    return Assignment(jnp.where(chosen, best, blank), _as_weights(chosen, logits))


def aligned(
    logits: Logits,
    lengths: Array,
    labels: Array,
    label_lengths: Array,
    *,
    blank: int = 0,
    frames: str = "last",
) -> Assignment:
    """The best CTC path of the true label: every feasible sample takes part, and its classes are always right.

    Args:
      logits: ``[B,T,C]``; frames at ``t >= lengths[b]`` are ignored.
      lengths: ``[B]`` int32, valid frames.
      labels: ``[B,L]`` int32, never ``blank``; slots at ``l >= label_lengths[b]`` are ignored.
      label_lengths: ``[B]`` int32.
      blank: class of the blank.
      frames: which frames of a character's run count: ``"last"`` (as in flow one), ``"first"``, ``"best"`` (where the
        character is most probable; the first of equals) or ``"all"``.

    Returns:
      Weight 1 on the chosen frames, 0 elsewhere: one frame a character, or with ``"all"`` its whole run.

    Raises:
      ValueError: an unknown choice of frames, or ``blank`` is not among the classes.
    """
    _check_classes(as_logits(logits).num_classes, blank=blank)
    if frames not in FRAMES:
        raise ValueError(f"frames is {frames!r}; expected one of {', '.join(FRAMES)}")
    slots = ctc.best_path(logits, lengths, labels, label_lengths, blank=blank)
    classes = jnp.where(slots >= 0, jnp.take_along_axis(labels, jnp.maximum(slots, 0), 1), blank).astype(jnp.int32)
    chosen = slots >= 0
    if frames == "last":
        chosen &= slots != jnp.pad(slots[:, 1:], ((0, 0), (0, 1)), constant_values=-1)
    elif frames == "first":
        chosen &= slots != jnp.pad(slots[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
    elif frames == "best":
        chosen &= _most_probable(logits, classes, slots, labels.shape[1])
    return Assignment(jnp.where(chosen, classes, blank), _as_weights(chosen, logits))


def _most_probable(logits: Logits, classes: Array, slots: Array, count: int) -> Array:
    """For each slot the first of its frames where its class has the highest probability: ``[B,T]`` bool."""
    logits = as_logits(logits)
    scores = logits.of_frames(classes) - logits.log_norm()
    of_slot = slots[:, :, None] == jnp.arange(count)[None, None, :]
    peak = jnp.argmax(jnp.where(of_slot, scores[:, :, None], -jnp.inf), 1)
    return jnp.take_along_axis(peak, jnp.maximum(slots, 0), 1) == jnp.arange(slots.shape[1])[None, :]


def posterior(logits: Logits, lengths: Array, labels: Array, label_lengths: Array, *, blank: int = 0) -> Assignment:
    """The soft alignment: each character's weight of 1 is shared out over the frames by its posteriors.

    Args:
      logits: ``[B,T,C]``; frames at ``t >= lengths[b]`` are ignored.
      lengths: ``[B]`` int32, valid frames.
      labels: ``[B,L]`` int32, never ``blank``; slots at ``l >= label_lengths[b]`` are ignored.
      label_lengths: ``[B]`` int32.
      blank: class of the blank.

    Returns:
      ``classes`` and ``weights`` of shape ``[B,T,L]``. Over the frames the weights of a slot sum to 1 for feasible
      samples; they are 0 for others, in padded frames and in padded slots.

    Raises:
      ValueError: ``blank`` is not among the classes.
    """
    _check_classes(as_logits(logits).num_classes, blank=blank)
    posteriors = ctc.slot_posteriors(logits, lengths, labels, label_lengths, blank=blank)
    total = posteriors.sum(1, keepdims=True)  # frames the slot is expected to take, at least 1 where it is feasible
    weights = posteriors / jnp.maximum(total, 0.5)
    listed = jnp.arange(labels.shape[1])[None, :] < label_lengths[:, None]
    classes = jnp.where(listed, labels, blank).astype(jnp.int32)
    return Assignment(jnp.broadcast_to(classes[:, None, :], weights.shape), weights)


# What ``loss.assignment`` may name: each ``(logits, lengths, labels, label_lengths, *, blank)``, and its own options.
ASSIGNMENTS: Mapping[str, Callable[..., Assignment]] = MappingProxyType(
    {
        "counted": counted,
        "predicted": lambda logits, lengths, labels, label_lengths, **options: predicted(logits, lengths, **options),
        "aligned": aligned,
        "posterior": posterior,
    }
)
