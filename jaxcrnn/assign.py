"""Assignment of frames to classes: four alignments that return a `jaxcrnn.types.Assignment`.

Assignments are constants of the loss: no gradient flows through an argmax, an alignment or a weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import jax.numpy as jnp
from jax import Array

from jaxcrnn import ctc
from jaxcrnn._arguments import class_id, frame_lengths, labelled, readable
from jaxcrnn.kernels.logits import Logits, as_logits
from jaxcrnn.types import Assignment

FRAMES = ("last", "first", "best", "all")


def _valid(logits: Logits, lengths: Array) -> Array:
    return jnp.arange(as_logits(logits).num_frames)[None, :] < lengths[:, None]


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
    """Assign the label's characters to the frames where greedy decoding emits, if their number is right (flow one).

    A frame emits if its best class is neither the blank nor ignored, and differs from the best class of the next valid
    frame; it is the last frame of its run. A sample takes part only if it emits as many characters as its label has.
    Its i-th emitting frame then gets the i-th character of the label, whatever was decoded there.

    Args:
      logits: ``[B,T,C]``; frames at ``t >= lengths[b]`` are padding and ignored.
      lengths: ``[B]`` int32, valid frames.
      labels: ``[B,L]`` int32; slots at ``l >= label_lengths[b]`` are padding and ignored.
      label_lengths: ``[B]`` int32, characters of each label.
      blank: class id of the blank; a negative one counts from the end.
      ignored: class ids that never emit; negative ones count from the end.

    Returns:
      Classes and weights ``[B,T]``: weight 1 on the emitting frames of the samples that take part, 0 elsewhere.

    Raises:
      ValueError: If ``blank`` or an ignored class is not a class, or a known length or class id is out of range.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxcrnn import assign
      >>> logits = jax.nn.one_hot(jnp.array([[1, 1, 0, 2]]), 3)
      >>> frames = assign.counted(logits, jnp.array([4]), jnp.array([[1, 1]]), jnp.array([2]))
      >>> frames.classes.tolist(), frames.weights.tolist()  # "11" is read as "12": the number is right
      ([[0, 1, 0, 1]], [[0.0, 1.0, 0.0, 1.0]])

    References:
      The TensorFlow original of CRNN with center loss; its PyTorch port also ignores class 1.
    """
    logits = as_logits(logits)
    lengths, labels, label_lengths, blank = labelled(logits, lengths, labels, label_lengths, blank, may_be_blank=True)
    ignored = [class_id(f"ignored[{i}]", c, logits.num_classes) for i, c in enumerate(ignored)]
    valid = _valid(logits, lengths)
    best, _ = as_logits(logits).best()
    following = jnp.where(valid[:, 1:], best[:, 1:], -1)
    following = jnp.pad(following, ((0, 0), (0, 1)), constant_values=-1)
    emits = valid & (best != blank) & (best != following)
    for other in ignored:
        emits &= best != other
    passed = (emits.sum(1, dtype=jnp.int32) == label_lengths) & readable(labels, label_lengths)
    if not labels.shape[1]:  # all labels are empty: use one slot of padding
        labels = jnp.full((len(labels), 1), blank, jnp.int32)
    slots = jnp.clip(jnp.cumsum(emits, 1) - 1, 0, labels.shape[1] - 1)
    chosen = emits & passed[:, None]
    classes = jnp.where(chosen, jnp.take_along_axis(labels, slots, 1), blank)
    return Assignment(classes.astype(jnp.int32), _as_weights(chosen, logits))


def predicted(logits: Logits, lengths: Array, *, blank: int = 0, skip_blank: bool = False) -> Assignment:
    """Assign each valid frame to its best class, including the blank (flow two).

    Args:
      logits: ``[B,T,C]``; frames at ``t >= lengths[b]`` are padding and ignored.
      lengths: ``[B]`` int32, valid frames.
      blank: class id of the blank; a negative one counts from the end.
      skip_blank: whether to drop the frames whose best class is the blank, which are most of them.

    Returns:
      Classes and weights ``[B,T]``: weight 1 on the valid frames, 0 elsewhere.

    Raises:
      ValueError: If ``blank`` is not a class, or a known length or class id is out of range.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxcrnn import assign
      >>> logits = jax.nn.one_hot(jnp.array([[1, 1, 0, 2]]), 3)
      >>> frames = assign.predicted(logits, jnp.array([4]), skip_blank=True)
      >>> frames.classes.tolist(), frames.weights.tolist()
      ([[1, 1, 0, 2]], [[1.0, 1.0, 0.0, 1.0]])

    References:
      PaddleOCR, ``CenterLoss``.
    """
    logits = as_logits(logits)
    blank, lengths = class_id("blank", blank, logits.num_classes), frame_lengths(lengths, logits.num_frames)
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
    """Assign frames by the best CTC path of the label (`jaxcrnn.ctc.best_path`).

    Every feasible sample takes part, and the assigned classes are always those of the label.

    Args:
      logits: ``[B,T,C]``; frames at ``t >= lengths[b]`` are padding and ignored.
      lengths: ``[B]`` int32, valid frames.
      labels: ``[B,L]`` int32, never ``blank``; slots at ``l >= label_lengths[b]`` are padding and ignored.
      label_lengths: ``[B]`` int32, characters of each label.
      blank: class id of the blank; a negative one counts from the end.
      frames: which frames of a character's run are assigned: ``"last"`` (as in flow one), ``"first"``, ``"best"``
        (where the character is most probable; the first one on a tie) or ``"all"``.

    Returns:
      Classes and weights ``[B,T]``: weight 1 on the assigned frames, one for each character or, with ``"all"``, its
      whole run; 0 elsewhere.

    Raises:
      ValueError: If ``frames`` is unknown, ``blank`` is not a class, or a known length or class id is out of range.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxcrnn import assign
      >>> logits = 5 * jax.nn.one_hot(jnp.array([[1, 1, 0, 2]]), 3)
      >>> frames = assign.aligned(logits, jnp.array([4]), jnp.array([[1, 2]]), jnp.array([2]), frames="all")
      >>> frames.classes.tolist(), frames.weights.tolist()
      ([[1, 1, 0, 2]], [[1.0, 1.0, 0.0, 1.0]])
    """
    logits = as_logits(logits)
    if frames not in FRAMES:
        raise ValueError(f"frames is {frames!r}; expected one of {', '.join(FRAMES)}")
    lengths, labels, label_lengths, blank = labelled(logits, lengths, labels, label_lengths, blank)
    slots = ctc.best_path(logits, lengths, labels, label_lengths, blank=blank)
    if not slots.shape[1] or not labels.shape[1]:
        return Assignment(jnp.full_like(slots, blank), _as_weights(slots >= 0, logits))
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
    """Mark the first frame of each slot where its class has the highest probability: ``[B,T]`` bool."""
    logits = as_logits(logits)
    scores = logits.of_frames(classes) - logits.log_norm()
    of_slot = slots[:, :, None] == jnp.arange(count)[None, None, :]
    peak = jnp.argmax(jnp.where(of_slot, scores[:, :, None], -jnp.inf), 1)
    return jnp.take_along_axis(peak, jnp.maximum(slots, 0), 1) == jnp.arange(slots.shape[1])[None, :]


def posterior(logits: Logits, lengths: Array, labels: Array, label_lengths: Array, *, blank: int = 0) -> Assignment:
    """Assign frames softly: distribute a weight of 1 for each character over the frames by its CTC posteriors.

    Args:
      logits: ``[B,T,C]``; frames at ``t >= lengths[b]`` are padding and ignored.
      lengths: ``[B]`` int32, valid frames.
      labels: ``[B,L]`` int32, never ``blank``; slots at ``l >= label_lengths[b]`` are padding and ignored.
      label_lengths: ``[B]`` int32, characters of each label.
      blank: class id of the blank; a negative one counts from the end.

    Returns:
      Classes and weights ``[B,T,L]``. For feasible samples the weights of a slot sum to 1 over the frames. They are 0
      for infeasible samples, in padded frames and in padded slots.

    Raises:
      ValueError: If ``blank`` is not a class, or a known length or class id is out of range.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxcrnn import assign
      >>> frames = assign.posterior(jnp.zeros((1, 4, 3)), jnp.array([4]), jnp.array([[1, 2]]), jnp.array([2]))
      >>> frames.classes[0].tolist()
      [[1, 2], [1, 2], [1, 2], [1, 2]]
      >>> [round(w, 3) for w in frames.weights[0, :, 0].tolist()]
      [0.476, 0.381, 0.143, 0.0]

    References:
      The posteriors: Graves et al., 2006; see `jaxcrnn.ctc.slot_posteriors`.
    """
    logits = as_logits(logits)
    lengths, labels, label_lengths, blank = labelled(logits, lengths, labels, label_lengths, blank)
    posteriors = ctc.slot_posteriors(logits, lengths, labels, label_lengths, blank=blank)
    total = posteriors.sum(1, keepdims=True)  # expected frames of a slot, at least 1 if feasible
    weights = posteriors / jnp.maximum(total, 0.5)
    listed = jnp.arange(labels.shape[1])[None, :] < label_lengths[:, None]
    classes = jnp.where(listed & (labels >= 0), labels, blank)
    return Assignment(jnp.broadcast_to(classes[:, None, :], weights.shape), weights)


# Values of ``loss.assignment``: functions ``(logits, lengths, labels, label_lengths, *, blank, **options)``.
ASSIGNMENTS: Mapping[str, Callable[..., Assignment]] = MappingProxyType(
    {
        "counted": counted,
        "predicted": lambda logits, lengths, labels, label_lengths, **options: predicted(logits, lengths, **options),
        "aligned": aligned,
        "posterior": posterior,
    }
)
