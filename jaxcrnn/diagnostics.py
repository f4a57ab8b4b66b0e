"""What the TensorFlow original watches while it trains: how far frames are from their own and from a rival center."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxcrnn import ctc, decode
from jaxcrnn.kernels.center_ops import DENSE, CenterOps
from jaxcrnn.kernels.dtypes import at_least_float32
from jaxcrnn.kernels.logits import Logits, as_logits, constant
from jaxcrnn.types import Assignment, Batch, CenterState, Outputs

METRICS = ("samples", "correct", "infeasible", "assigned_samples", "assigned_frames", "centers_moved", "watch")


def top_rival(logits: Logits, classes: Array, *, excluded: Sequence[int] = ()) -> Array:
    """The rival of each class of a frame: the most probable other class there.

    Args:
      logits: ``[B,T,C]``, or any type of `jaxcrnn.kernels.logits`.
      classes: ``[B,T]`` or ``[B,T,K]`` int32, the classes the frames belong to.
      excluded: classes that are no rivals, such as the blank; at most one unless the logits are dense.

    Returns:
      int32 of the shape of ``classes``. Where no other class is left, the class itself.

    Source: the TensorFlow original of CRNN with center loss.
    """
    first, second, there = (a[..., None] for a in as_logits(constant(logits)).ranked(excluded))
    own = classes if classes.ndim == 3 else classes[..., None]
    rival = jnp.where(own == first, jnp.where(there, second, own), first).astype(classes.dtype)
    return rival.reshape(classes.shape)


lookalikes = top_rival  # its name in version 0.1


class Watch(NamedTuple):
    """Sums over the assigned frames, by weight, and the extremes among them.

    A frame that belongs to several classes is watched for the one it belongs to most. The margin of a frame is
    ``||f - look-alike's center|| - ||f - own center||``.

    Attributes:
      weight: of all frames watched; the sums below divided by it are means.
      between: sum of ``||own center - look-alike's center||``.
      to_lookalike: sum of ``||f - look-alike's center||``.
      to_own: sum of ``||f - own center||``.
      hardest: ``[3]`` the frames of smallest margin.
      easiest: ``[3]`` the frames of largest margin.
    """

    weight: Array
    between: Array
    to_lookalike: Array
    to_own: Array
    hardest: Frames
    easiest: Frames


class Frames(NamedTuple):
    """A few frames.

    Attributes:
      classes: ``[3]`` int32, the own class; -1 where there are fewer frames.
      rivals: ``[3]`` int32, the look-alike.
      probabilities: ``[3]`` float32, that of the own class.
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
    """Distances of a batch's frames.

    Args:
      logits: ``[B,T,C]``.
      features: ``[B,T,D]``.
      centers: ``[C,D]``.
      assignment: which frame belongs to which class.
      count: how many of the extremes.
      ops: how distances to the centers are computed; see `jaxcrnn.kernels.center_ops`.

    Source: the TensorFlow original of CRNN with center loss.
    """
    classes, weights = assignment
    if classes.ndim == 3:
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
        # Of each line first: devices that share the batch then send each other a few numbers a line, not every frame's.
        of_line, at = jax.lax.top_k(jnp.where(inside, order, -jnp.inf), min(count, order.shape[1]))
        value, index = jax.lax.top_k(of_line.reshape(-1), min(count, of_line.size))
        there = jnp.isfinite(value)
        nothing = Frames(-1, -1, 0.0, 0.0)  # type: ignore[arg-type]
        found = [jnp.take_along_axis(a, at, 1).reshape(-1)[index] for a in (classes, rivals, probability, margin)]
        return Frames(*(jnp.where(there, a, no) for a, no in zip(found, nothing, strict=True)))

    total = weights.astype(own.dtype)
    return Watch(
        total.sum(), (total * between).sum(), (total * other).sum(), (total * own).sum(),
        extremes(-margin), extremes(margin),
    )  # fmt: skip


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
    """What a training step counts; none of it is differentiated. Samples of width 0 are padding.

    Args:
      outputs: the model's, for the batch.
      batch: lines and labels.
      assignment: the loss's, None in a flow without.
      before: the centers of the loss, None in a flow without.
      after: the centers after the step.
      blank: class of the blank.
      ops: how distances to the centers are computed; see `jaxcrnn.kernels.center_ops`.

    Returns:
      Numbers of ``samples``, ``correct`` (read exactly) and ``infeasible`` ones; with an assignment
      ``assigned_samples`` and ``assigned_frames``; with centers ``centers_moved`` and ``watch`` (`Watch`).
    """
    labels = (outputs.lengths, batch.labels, batch.label_lengths)
    real = batch.widths > 0
    ids, counts = decode.greedy(outputs.logits, outputs.lengths, blank=blank)
    info: dict[str, Any] = {
        "samples": real.sum(dtype=jnp.int32),
        "correct": (real & decode.exact(ids, counts, *labels[1:])).sum(dtype=jnp.int32),
        "infeasible": (real & ~ctc.is_feasible(*labels)).sum(dtype=jnp.int32),
    }
    if assignment is not None:
        used = assignment.weights > 0
        info["assigned_samples"] = used.reshape(len(real), -1).any(1).sum(dtype=jnp.int32)
        info["assigned_frames"] = used.reshape(*used.shape[:2], -1).any(2).sum(dtype=jnp.int32)
    if assignment is not None and before is not None and after is not None:
        info["centers_moved"] = (after.centers != before.centers).any(1).sum(dtype=jnp.int32)
        info["watch"] = watch(outputs.logits, outputs.features, before.centers, assignment, ops=ops)
    return info
