"""What the TensorFlow original watches while it trains: how far frames are from their own and from a rival center."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxcrnn import ctc, decode, losses
from jaxcrnn.kernels import logits as head
from jaxcrnn.kernels.dtypes import wide
from jaxcrnn.kernels.logits import Logits
from jaxcrnn.types import Assignment, Batch, CenterState, Outputs

METRICS = ("samples", "correct", "infeasible", "assigned_samples", "assigned_frames", "centers_moved", "watch")


def lookalikes(logits: Logits, classes: Array, *, excluded: Sequence[int] = ()) -> Array:
    """For each class of a frame its look-alike: the most probable other class there.

    Args:
      logits: ``[B,T,C]``, or a `jaxcrnn.kernels.logits.Head`.
      classes: ``[B,T]`` or ``[B,T,K]`` int32, the classes the frames belong to.
      excluded: classes that are nobody's look-alike, such as the blank; with a `jaxcrnn.kernels.logits.Head` at most one.

    Returns:
      int32 of the shape of ``classes``. Where no other class is left, the class itself.

    Source: the TensorFlow original of CRNN with center loss.
    """
    first, second, there = (a[..., None] for a in head.ranked(head.constant(logits), excluded))
    own = classes if classes.ndim == 3 else classes[..., None]
    rival = jnp.where(own == first, jnp.where(there, second, own), first).astype(classes.dtype)
    return rival.reshape(classes.shape)


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


def watch(logits: Logits, features: Array, centers: Array, assignment: Assignment, *, count: int = 3) -> Watch:
    """Distances of a batch's frames.

    Args:
      logits: ``[B,T,C]``.
      features: ``[B,T,D]``.
      centers: ``[C,D]``.
      assignment: which frame belongs to which class.
      count: how many of the extremes.

    Source: the TensorFlow original of CRNN with center loss.
    """
    classes, weights = assignment
    if classes.ndim == 3:
        most = jnp.argmax(weights, -1, keepdims=True)
        classes, weights = (jnp.take_along_axis(a, most, -1)[..., 0] for a in (classes, weights))
    features, centers = wide(features), wide(centers)
    rivals = lookalikes(logits, classes)
    inside = weights > 0

    def length(features: Array, classes: Array, copies: Array | None = None) -> Array:
        far = losses.squared(features, centers, classes, weights, copies)
        return jnp.where(inside, jnp.sqrt(jnp.where(inside, far, 1.0)), 0.0)

    copies = head.copies(logits, len(centers))
    between = length(centers[classes], rivals)
    other, own = length(features, rivals, copies), length(features, classes, copies)
    margin = other - own
    probability = jnp.exp(head.of_frames(logits, classes) - head.norm(logits))

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
) -> dict[str, Any]:
    """What a training step counts; none of it is differentiated. Samples of width 0 are padding.

    Args:
      outputs: the model's, for the batch.
      batch: lines and labels.
      assignment: the loss's, None in a flow without.
      before: the centers of the loss, None in a flow without.
      after: the centers after the step.
      blank: class of the blank.

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
        info["watch"] = watch(outputs.logits, outputs.features, before.centers, assignment)
    return info
