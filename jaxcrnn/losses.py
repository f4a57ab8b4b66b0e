"""The losses that stand beside CTC. Every one is float32 at least, and finite at finite inputs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from jaxcrnn import ctc
from jaxcrnn.kernels.center_ops import DENSE, CenterOps
from jaxcrnn.kernels.dtypes import at_least_float32
from jaxcrnn.kernels.logits import DenseLogits, Logits, as_logits
from jaxcrnn.types import Assignment

REDUCTIONS = ("mean", "half_sum")
VARIANTS = ("paper", "paddle")
NEAREST, FARTHEST = 1e-12, 1e12


def focal_ctc(
    logits: Logits,
    lengths: Array,
    labels: Array,
    label_lengths: Array,
    *,
    alpha: float = 1.0,
    gamma: float = 2.0,
    blank: int = 0,
) -> Array:
    """CTC that looks away from lines it reads already: ``alpha * (1 - exp(-ctc))**gamma * ctc``.

    Args:
      logits: ``[B,T,C]`` before the softmax; frames at ``t >= lengths[b]`` are ignored.
      lengths: ``[B]`` int32, valid frames.
      labels: ``[B,L]`` int32, never ``blank``; slots at ``l >= label_lengths[b]`` are ignored.
      label_lengths: ``[B]`` int32.
      alpha: factor of the whole.
      gamma: how far lines of high probability are turned down, not negative; 0 is plain CTC.
      blank: class of the blank.

    Returns:
      ``[B]`` float32; 0 with zero gradient for infeasible samples.

    Source: focal loss (Lin et al., 2017) on CTC, as PaddleOCR's enhanced CTC has it.
    """
    return focal(ctc.ctc_loss(logits, lengths, labels, label_lengths, blank=blank), alpha=alpha, gamma=gamma)


def focal(ctc_loss: Array, *, alpha: float = 1.0, gamma: float = 2.0) -> Array:
    """`focal_ctc` of CTC losses that are known already.

    Args:
      ctc_loss: ``[B]``, not negative.
      alpha: factor of the whole.
      gamma: how far lines of high probability are turned down, not negative.
    """
    if gamma == 0:  # 0**0 would be right, its derivative is not
        return alpha * ctc_loss
    miss = -jnp.expm1(-ctc_loss)
    # At a loss of 0 the root of a gamma below 1 has no slope: such samples are held out of it.
    return jnp.where(miss > 0, alpha * jnp.where(miss > 0, miss, 1.0) ** gamma * ctc_loss, 0.0)


def ace(
    logits: Logits, lengths: Array, labels: Array, label_lengths: Array, *, blank: int = 0, variant: str = "paper"
) -> Array:
    """Aggregation cross-entropy: how often each class is read, against how often it is written.

    ``-sum_k (N_k / T) log(ybar_k)`` with ``ybar`` the mean softmax over the frames, ``N_k`` the number of class k in
    the label and ``N_blank = T - label_length``.

    Args:
      logits: ``[B,T,C]`` before the softmax; frames at ``t >= lengths[b]`` are ignored.
      lengths: ``[B]`` int32, valid frames.
      labels: ``[B,L]`` int32; slots at ``l >= label_lengths[b]`` are ignored.
      label_lengths: ``[B]`` int32.
      blank: class of the blank.
      variant: ``"paper"``, or ``"paddle"``, where ``ybar`` goes through a softmax once more.

    Returns:
      ``[B]`` float32; 0 with zero gradient for samples with fewer frames than characters, or none.

    Raises:
      ValueError: an unknown variant, or ``"paddle"``, which needs the logits of every class, of logits that are not
        dense.

    Source: Xie et al., 2019, eq. 7; PaddleOCR, ``ACELoss``.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant is {variant!r}; expected one of {', '.join(VARIANTS)}")
    logits = as_logits(logits)
    valid = jnp.arange(logits.num_frames)[None, :] < lengths[:, None]
    if isinstance(logits, DenseLogits):
        masked = jnp.where(valid[:, :, None], logits.values, jnp.zeros((), logits.values.dtype))
        logits = DenseLogits(at_least_float32(masked))
    norm = logits.log_norm()
    frames = jnp.maximum(lengths, 1).astype(norm.dtype)
    # Only classes of the label and the blank have a count: [B,1+L] columns are gathered, never [B,C] counts built.
    listed = jnp.arange(labels.shape[1])[None, :] < label_lengths[:, None]
    labels = jnp.where(listed, labels, blank)  # whatever stands in a padded slot may be no class at all
    classes = jnp.concatenate([jnp.full_like(labels[:, :1], blank), labels], 1)
    enough = (label_lengths <= lengths) & (lengths > 0)
    counts = jnp.concatenate([(lengths - label_lengths)[:, None], listed.astype(lengths.dtype)], 1)
    counts = jnp.where(enough[:, None], counts, 0).astype(norm.dtype)
    if variant == "paper":
        columns = logits.of_classes(classes) - norm[:, :, None]
        # In logarithms: a class that no frame believes in would underflow to log(0).
        inside = jnp.where(valid[:, :, None], columns, -jnp.inf)
        inside = jnp.where((valid.any(1))[:, None, None], inside, 0.0)
        log_mean = jax.nn.logsumexp(inside, 1) - jnp.log(frames)[:, None]
    elif not isinstance(logits, DenseLogits):
        raise ValueError("variant 'paddle' reads every class; expected an array of logits, or variant 'paper'")
    else:
        mean = jnp.where(valid[:, :, None], jax.nn.softmax(logits.values), 0.0).sum(1) / frames[:, None]
        log_mean = jnp.take_along_axis(jax.nn.log_softmax(mean), classes, 1)
    return -(counts * log_mean).sum(1) / frames


def _reduced(values: Array, weights: Array, reduction: str) -> Array:
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction is {reduction!r}; expected one of {', '.join(REDUCTIONS)}")
    weights = jax.lax.stop_gradient(weights).astype(values.dtype)
    total = (weights * values).sum()
    if reduction == "half_sum":
        return total / 2
    weight = weights.sum()
    return jnp.where(weight > 0, total / jnp.where(weight > 0, weight, 1.0), 0.0)


def center(
    features: Array, centers: Array, assignment: Assignment, *, reduction: str = "mean", ops: CenterOps = DENSE
) -> Array:
    """How far frames are from the centers of their classes.

    ``d = ||feature - center of its class||^2``, clamped to [1e-12, 1e12]; then ``sum(w d) / sum(w)`` (``"mean"``) or
    ``sum(w d) / 2`` (``"half_sum"``).

    Args:
      features: ``[B,T,D]``; frames of weight 0 may hold anything.
      centers: ``[C,D]``. Differentiable as well; a training step holds them constant.
      assignment: which frame belongs to which class; see `jaxcrnn.assign`.
      reduction: ``"mean"`` (0 where no frame has weight) or ``"half_sum"``.
      ops: how distances to the centers are computed; see `jaxcrnn.kernels.center_ops`.

    Returns:
      A float32 scalar.

    Raises:
      ValueError: an unknown reduction, or features and centers of different size.

    Source: Wen et al., 2016, eq. 2. ``"half_sum"``: the TensorFlow original; ``"mean"``: PyTorch, PaddleOCR.
    """
    _check_sizes(features, centers)
    classes, weights = assignment
    distance = ops.squared_distance(features, centers, classes, weights > 0)
    return _reduced(jnp.where(weights > 0, jnp.clip(distance, NEAREST, FARTHEST), 0.0), weights, reduction)


def push(
    features: Array,
    centers: Array,
    assignment: Assignment,
    rivals: Array,
    *,
    margin: float = 1.0,
    reduction: str = "mean",
    ops: CenterOps = DENSE,
) -> Array:
    """A hinge that keeps frames farther from a look-alike's center than from their own.

    ``max(0, margin + ||f - own||^2 - ||f - rival||^2)``, reduced like `center`.

    Args:
      features: ``[B,T,D]``; frames of weight 0 may hold anything.
      centers: ``[C,D]``.
      assignment: which frame belongs to which class.
      rivals: classes of the look-alikes, of the shape of ``assignment.classes``; see
        `jaxcrnn.diagnostics.top_rival`. Where it equals the class itself the frame has no part.
      margin: by how much, in squared distance.
      reduction: ``"mean"`` or ``"half_sum"``.
      ops: as for `center`.

    Returns:
      A float32 scalar.

    Raises:
      ValueError: an unknown reduction, or features and centers of different size.

    Source: triplet-center loss (He et al., 2018, eq. 5), with the most probable other class instead of the nearest
    center, which would take a ``[B*T,C]`` matrix of distances to find.
    """
    _check_sizes(features, centers)
    classes, weights = assignment
    weights = jnp.where(rivals == classes, jnp.zeros((), weights.dtype), weights)
    own = ops.squared_distance(features, centers, classes, weights > 0)
    other = ops.squared_distance(features, centers, rivals, weights > 0)
    return _reduced(jnp.where(weights > 0, jnp.maximum(margin + own - other, 0.0), 0.0), weights, reduction)


def _check_sizes(features: Array, centers: Array) -> None:
    if features.shape[-1] != centers.shape[-1]:
        raise ValueError(f"features have size {features.shape[-1]}, centers {centers.shape[-1]}; expected the same")
