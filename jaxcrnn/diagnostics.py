"""Training diagnostics: sample counts, and the distances of frames to their own and to a rival's center."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxcrnn import ctc, decode
from jaxcrnn._arguments import assigned, class_id, integers, labelled
from jaxcrnn.kernels.center_ops import DENSE, CenterOps
from jaxcrnn.kernels.dtypes import at_least_float32
from jaxcrnn.kernels.logits import Logits, as_logits, constant
from jaxcrnn.types import Assignment, Batch, CenterState, Outputs

METRICS = ("samples", "correct", "infeasible", "assigned_samples", "assigned_frames", "centers_moved", "watch")


def top_rival(logits: Logits, classes: Array, *, excluded: Sequence[int] = ()) -> Array:
    """Find the rival of each frame's class: the most probable other class in the frame.

    Args:
      logits: ``[B,T,C]``, or any type of `jaxcrnn.kernels.logits`.
      classes: ``[B,T]`` or ``[B,T,K]`` int32, the assigned classes.
      excluded: class ids that are never rivals, such as the blank; at most one unless the logits are dense. Negative
        ids count from the end.

    Returns:
      int32 with the shape of ``classes``; the class itself where no other class is left.

    Raises:
      ValueError: If too many classes are excluded, or a known class id is out of range.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxcrnn import diagnostics
      >>> logits = jnp.array([[[0.0, 3.0, 2.0], [0.0, 3.0, 2.0]]])
      >>> diagnostics.top_rival(logits, jnp.array([[1, 2]]), excluded=(0,)).tolist()
      [[2, 1]]

    References:
      The TensorFlow original of CRNN with center loss.
    """
    logits = as_logits(constant(logits))
    excluded = [class_id(f"excluded[{i}]", c, logits.num_classes) for i, c in enumerate(excluded)]
    classes = assigned((classes, np.ones(np.shape(classes), bool)), logits.num_classes, "classes").classes
    first, second, has_second = (a[..., None] for a in logits.ranked(excluded))
    own = classes if classes.ndim == 3 else classes[..., None]
    rival = jnp.where(own == first, jnp.where(has_second, second, own), first)
    return rival.reshape(classes.shape)


lookalikes = top_rival  # name in version 0.1


class Watch(NamedTuple):
    """Weighted sums of distances over the assigned frames, and the frames with extreme margins.

    A frame that belongs to several classes counts for the one with the largest weight. The margin of a frame is
    ``||f - look-alike's center|| - ||f - own center||``.

    Attributes:
      weight: total weight of the frames; dividing a sum below by it gives a mean.
      between: sum of ``||own center - look-alike's center||``.
      to_lookalike: sum of ``||f - look-alike's center||``.
      to_own: sum of ``||f - own center||``.
      hardest: ``[3]``, the frames with the smallest margins.
      easiest: ``[3]``, the frames with the largest margins.
    """

    weight: Array
    between: Array
    to_lookalike: Array
    to_own: Array
    hardest: Frames
    easiest: Frames


class Frames(NamedTuple):
    """The classes and margins of a few frames.

    Attributes:
      classes: ``[3]`` int32, the assigned class; -1 where there are fewer frames.
      rivals: ``[3]`` int32, the look-alike.
      probabilities: ``[3]`` float32 in [0, 1], probability of the assigned class.
      margins: ``[3]`` float32.
    """

    classes: Array
    rivals: Array
    probabilities: Array
    margins: Array


def watch(
    logits: Logits,
    features: Array,
    centers: Array,
    assignment: Assignment,
    *,
    count: int = 3,
    ops: CenterOps = DENSE,
) -> Watch:
    """Measure the distances of a batch's frames to their own and to their look-alikes' centers.

    Args:
      logits: ``[B,T,C]``.
      features: ``[B,T,D]``; frames of weight 0 may hold any value.
      centers: ``[C,D]``.
      assignment: class and weight of each frame.
      count: number of frames to return at each extreme.
      ops: implementation of the distances to the centers; see `jaxcrnn.kernels.center_ops`.

    Returns:
      A `Watch`.

    References:
      The TensorFlow original of CRNN with center loss.
    """
    classes, weights = assigned(assignment, len(centers))
    if not classes.size:  # no frames, or no classes for them
        classes, weights = jnp.zeros(classes.shape[:2], jnp.int32), jnp.zeros(weights.shape[:2], weights.dtype)
    elif classes.ndim == 3:
        most = jnp.argmax(weights, -1, keepdims=True)
        classes, weights = (jnp.take_along_axis(a, most, -1)[..., 0] for a in (classes, weights))
    logits, centers = as_logits(logits), at_least_float32(centers)
    rivals = top_rival(logits, classes)
    inside = weights > 0

    def length(features: Array, classes: Array) -> Array:
        far = ops.squared_distance(features, centers, classes, inside)
        return jnp.where(inside, jnp.sqrt(jnp.where(inside, far, 1.0)), 0.0)

    between = length(centers[classes], rivals)
    shared = logits.center_features(at_least_float32(features))
    other, own = length(shared, rivals), length(shared, classes)
    margin = other - own
    probability = jnp.exp(logits.of_frames(classes) - logits.log_norm())

    def extremes(order: Array) -> Frames:
        # Take the top of each line first: a sharded batch then exchanges a few numbers per line, not per frame.
        of_line, at = jax.lax.top_k(jnp.where(inside, order, -jnp.inf), min(count, order.shape[1]))
        value, index = jax.lax.top_k(of_line.reshape(-1), min(count, of_line.size))
        valid = jnp.isfinite(value)
        nothing = Frames(-1, -1, 0.0, 0.0)  # type: ignore[arg-type]
        fields = [jnp.take_along_axis(a, at, 1).reshape(-1)[index] for a in (classes, rivals, probability, margin)]
        return Frames(*(jnp.where(valid, a, empty) for a, empty in zip(fields, nothing, strict=True)))

    total = weights.astype(own.dtype)
    between, other, own = (total * between).sum(), (total * other).sum(), (total * own).sum()
    return Watch(total.sum(), between, other, own, extremes(-margin), extremes(margin))


def train_metrics(
    outputs: Outputs,
    batch: Batch,
    assignment: Assignment | None = None,
    before: CenterState | None = None,
    after: CenterState | None = None,
    *,
    blank: int = 0,
    ops: CenterOps = DENSE,
) -> dict[str, Any]:
    """Compute the counts that a training step reports. Samples of width 0 are padding; nothing is differentiated.

    Args:
      outputs: output of the model for the batch.
      batch: lines and labels.
      assignment: assignment of the loss; None for a loss without centers.
      before: centers before the step; None for a loss without centers.
      after: centers after the step; None for a loss without centers.
      blank: class id of the blank; a negative one counts from the end.
      ops: implementation of the distances to the centers; see `jaxcrnn.kernels.center_ops`.

    Returns:
      The numbers of ``samples``, of ``correct`` ones (read exactly) and of ``infeasible`` ones; with an assignment,
      ``assigned_samples`` and ``assigned_frames``; with centers, ``centers_moved`` and ``watch`` (a `Watch`).
    """
    logits = as_logits(outputs.logits)
    *labels, blank = labelled(logits, outputs.lengths, batch.labels, batch.label_lengths, blank, may_be_blank=True)
    real = integers("widths", batch.widths) > 0
    ids, counts = decode.greedy(logits, labels[0], blank=blank)
    info: dict[str, Any] = {
        "samples": real.sum(dtype=jnp.int32),
        "correct": (real & decode.exact(ids, counts, *labels[1:])).sum(dtype=jnp.int32),
        "infeasible": (real & ~ctc.is_feasible(*labels)).sum(dtype=jnp.int32),
    }
    if assignment is not None:
        assignment = assigned(assignment, logits.num_classes)
        used = assignment.weights > 0
        info["assigned_samples"] = used.any(tuple(range(1, used.ndim))).sum(dtype=jnp.int32)
        info["assigned_frames"] = used.any(tuple(range(2, used.ndim))).sum(dtype=jnp.int32)
    if assignment is not None and before is not None and after is not None:
        info["centers_moved"] = (after.centers != before.centers).any(1).sum(dtype=jnp.int32)
        info["watch"] = watch(outputs.logits, outputs.features, before.centers, assignment, ops=ops)
    return info
