"""Losses that complement CTC. Each is computed in float32 at least and is finite for finite inputs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from jaxcrnn import ctc
from jaxcrnn._arguments import assigned, integers, labelled, readable
from jaxcrnn.kernels.center_ops import DENSE, CenterOps
from jaxcrnn.kernels.derivatives import log_sum_rows
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
    """Compute the focal CTC loss, which down-weights lines that are already read with confidence.

    ``alpha * (1 - exp(-ctc))**gamma * ctc``, where ``ctc`` is `jaxcrnn.ctc.ctc_loss`.

    Args:
      logits: ``[B,T,C]`` before the softmax; frames at ``t >= lengths[b]`` are padding and ignored.
      lengths: ``[B]`` int32, valid frames.
      labels: ``[B,L]`` int32, never ``blank``; slots at ``l >= label_lengths[b]`` are padding and ignored.
      label_lengths: ``[B]`` int32, characters of each label.
      alpha: factor of the loss.
      gamma: focusing exponent, 0 or more; higher values down-weight probable lines more, 0 is plain CTC.
      blank: class id of the blank; a negative one counts from the end.

    Returns:
      ``[B]`` float32; infeasible samples have loss 0 and a zero gradient.

    Raises:
      ValueError: If ``blank`` is not a class, or a known length or class id is out of range.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxcrnn import losses
      >>> loss = losses.focal_ctc(jnp.zeros((1, 4, 3)), jnp.array([4]), jnp.array([[1, 2]]), jnp.array([2]))
      >>> round(float(loss[0]), 4)  # p = 15 / 81: the CTC loss of 1.6864 times (1 - p)^2
      1.1196

    References:
      Focal loss: Lin et al., 2017. Applied to CTC as in PaddleOCR's enhanced CTC.
    """
    return focal(ctc.ctc_loss(logits, lengths, labels, label_lengths, blank=blank), alpha=alpha, gamma=gamma)


def focal(ctc_loss: Array, *, alpha: float = 1.0, gamma: float = 2.0) -> Array:
    """Compute `focal_ctc` from CTC losses: ``alpha * (1 - exp(-ctc))**gamma * ctc``.

    Args:
      ctc_loss: ``[B]``, 0 or more, in nats.
      alpha: factor of the loss.
      gamma: focusing exponent, 0 or more.

    Returns:
      ``[B]``.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxcrnn import losses
      >>> [round(x, 4) for x in losses.focal(jnp.log(jnp.array([1.0, 2.0]))).tolist()]  # p = 1 and p = 1/2
      [0.0, 0.1733]
    """
    if gamma == 0:  # the value of 0**0 is right, but its derivative is not
        return alpha * ctc_loss
    miss = -jnp.expm1(-ctc_loss)
    # For gamma below 1 the derivative of the power is infinite at a loss of 0, so such samples are masked.
    return jnp.where(miss > 0, alpha * jnp.where(miss > 0, miss, 1.0) ** gamma * ctc_loss, 0.0)


def ace(
    logits: Logits, lengths: Array, labels: Array, label_lengths: Array, *, blank: int = 0, variant: str = "paper"
) -> Array:
    """Compute the aggregation cross-entropy between predicted and true class counts.

    ``-sum_k (N_k / T) log(ybar_k)``, where ``ybar`` is the mean softmax over the frames, ``N_k`` the number of times
    class k occurs in the label, and ``N_blank = T - label_length``.

    Args:
      logits: ``[B,T,C]`` before the softmax; frames at ``t >= lengths[b]`` are padding and ignored.
      lengths: ``[B]`` int32, valid frames.
      labels: ``[B,L]`` int32; slots at ``l >= label_lengths[b]`` are padding and ignored.
      label_lengths: ``[B]`` int32, characters of each label.
      blank: class id of the blank; a negative one counts from the end.
      variant: ``"paper"``, or ``"paddle"``, which applies a second softmax to ``ybar``.

    Returns:
      ``[B]`` float32; samples with no frames, or fewer frames than characters, have loss 0 and a zero gradient, also
      where T is 0. With L = 0 all labels are empty: every frame counts as the blank.

    Raises:
      ValueError: If ``variant`` is unknown, or is ``"paddle"``, which needs the logits of every class, and the logits
        are not dense. If ``blank`` is not a class, or a known length or class id is out of range.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxcrnn import losses
      >>> loss = losses.ace(jnp.zeros((1, 4, 3)), jnp.array([4]), jnp.array([[1, 2]]), jnp.array([2]))
      >>> round(float(loss[0]), 4)  # log 3
      1.0986

    References:
      Xie et al., 2019, eq. 7; ``"paddle"``: PaddleOCR, ``ACELoss``.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant is {variant!r}; expected one of {', '.join(VARIANTS)}")
    logits = as_logits(logits)
    arguments = labelled(logits, lengths, labels, label_lengths, blank, may_be_blank=True)
    if not logits.num_frames:
        return jnp.zeros(len(arguments.lengths), logits.dtype)
    lengths, labels, label_lengths, blank = arguments
    valid = jnp.arange(logits.num_frames)[None, :] < lengths[:, None]
    if isinstance(logits, DenseLogits):
        masked = jnp.where(valid[:, :, None], logits.values, jnp.zeros((), logits.values.dtype))
        logits = DenseLogits(at_least_float32(masked))
    norm = logits.log_norm()
    frames = jnp.maximum(lengths, 1).astype(norm.dtype)
    # Only the blank and the label's classes have a count: gather [B,1+L] columns instead of building [B,C] counts.
    listed = jnp.arange(labels.shape[1])[None, :] < label_lengths[:, None]
    enough = (label_lengths <= lengths) & (lengths > 0) & readable(labels, label_lengths)
    labels = jnp.where(listed & (labels >= 0), labels, blank)  # a padded slot may hold an invalid class id
    classes = jnp.concatenate([jnp.full((len(labels), 1), blank, jnp.int32), labels], 1)
    counts = jnp.concatenate([(lengths - label_lengths)[:, None], listed.astype(lengths.dtype)], 1)
    counts = jnp.where(enough[:, None], counts, 0).astype(norm.dtype)
    if variant == "paper":
        columns = logits.of_classes(classes) - norm[:, :, None]
        # In log space: a class that is improbable in every frame would underflow to log(0).
        inside = jnp.where(valid[:, :, None], columns, -jnp.inf)
        inside = jnp.where((valid.any(1))[:, None, None], inside, 0.0)
        log_mean = jax.nn.logsumexp(inside, 1) - jnp.log(frames)[:, None]
    elif not isinstance(logits, DenseLogits):
        raise ValueError("variant 'paddle' needs the logits of every class; pass a dense array or use variant 'paper'")
    else:
        mean = jnp.where(valid[:, :, None], jax.nn.softmax(logits.values), 0.0).sum(1) / frames[:, None]
        log_mean = jnp.take_along_axis(jax.nn.log_softmax(mean), classes, 1)
    return -(counts * log_mean).sum(1) / frames


def swap(
    logits: Logits,
    lengths: Array,
    labels: Array,
    label_lengths: Array,
    candidates: Array,
    *,
    margin: float = 2.0,
    blank: int = 0,
) -> Array:
    """Compute a loss that keeps each text more probable than the texts with one look-alike swapped in.

    ``mean_l softplus(margin + log sum_c exp(r_lc))``, where ``r_lc`` is the log ratio of the probabilities of the text
    with candidate c in place of its character l and of the text itself (`jaxcrnn.ctc.single_swaps`). Unlike CTC, it
    still has a gradient where a line is read correctly but a look-alike is close.

    Args:
      logits: ``[B,T,C]`` before the softmax; frames at ``t >= lengths[b]`` are padding and ignored.
      lengths: ``[B]`` int32, valid frames.
      labels: ``[B,L]`` int32, never ``blank``; slots at ``l >= label_lengths[b]`` are padding and ignored.
      label_lengths: ``[B]`` int32, characters of each label.
      candidates: ``[B,L,K]`` int32, the look-alikes of each character; ``blank``, ids out of range and the character
        itself are ignored, which pads a list.
      margin: nats by which the text should be more probable than all of its candidates together.
      blank: class id of the blank; a negative one counts from the end.

    Returns:
      ``[B]`` float32. A character without candidates adds 0; infeasible samples and empty labels have loss 0 and a zero
      gradient.

    Raises:
      ValueError: If ``blank`` is not a class, a known length or class id is out of range, or the shapes do not match.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxcrnn import losses
      >>> logits = jnp.array([[[0.0, 3.0, 2.0]]])  # one frame: "1" is e times as probable as "2"
      >>> labels = jnp.array([[1]]), jnp.array([1])
      >>> loss = losses.swap(logits, jnp.array([1]), *labels, jnp.array([[[2]]]), margin=1.0)
      >>> round(float(loss[0]), 4)  # softplus(1 - 1)
      0.6931

    References:
      Large margin training with a log-sum over the competing texts: Sha and Saul, 2007. Here these are the single
      substitutions.
    """
    candidates = integers("candidates", candidates)
    ratios = ctc.single_swaps(logits, lengths, labels, label_lengths, candidates, blank=blank)
    ratios = jnp.where(candidates == integers("labels", labels)[:, :, None], -jnp.inf, ratios)
    if not ratios.size:
        return jnp.zeros(len(ratios), ratios.dtype)
    together = log_sum_rows(ratios.reshape(-1, ratios.shape[2])).reshape(ratios.shape[:2])
    sizes = jnp.maximum(integers("label_lengths", label_lengths), 1)
    return jax.nn.softplus(margin + together).sum(1) / sizes.astype(ratios.dtype)


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
    """Compute the center loss: the squared distances of frames to the centers of their classes.

    ``d = ||feature - center of its class||^2``, clamped to [1e-12, 1e12]; then ``sum(w d) / sum(w)`` (``"mean"``) or
    ``sum(w d) / 2`` (``"half_sum"``).

    Args:
      features: ``[B,T,D]``; frames of weight 0 may hold any value.
      centers: ``[C,D]``. The loss is differentiable in them, but a training step treats them as constants.
      assignment: class and weight of each frame; see `jaxcrnn.assign`.
      reduction: ``"mean"`` (0 if no frame has weight) or ``"half_sum"``.
      ops: implementation of the distances to the centers; see `jaxcrnn.kernels.center_ops`.

    Returns:
      A float32 scalar.

    Raises:
      ValueError: If ``reduction`` is unknown, features and centers differ in size, or a known class id of a frame with
        weight is out of range; under jit such a frame has weight 0.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxcrnn import losses
      >>> from jaxcrnn.types import Assignment
      >>> features = jnp.array([[[3.0, 4.0], [9.0, 9.0]]])
      >>> frames = Assignment(jnp.array([[1, 0]]), jnp.array([[1.0, 0.0]]))  # the second frame has no weight
      >>> float(losses.center(features, jnp.zeros((3, 2)), frames))
      25.0
      >>> float(losses.center(features, jnp.zeros((3, 2)), frames, reduction="half_sum"))
      12.5

    References:
      Wen et al., 2016, eq. 2. ``"half_sum"``: the TensorFlow original; ``"mean"``: the PyTorch port and PaddleOCR.
    """
    _check_sizes(features, centers)
    classes, weights = assigned(assignment, len(centers))
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
    """Compute a hinge loss that keeps frames farther from the center of a look-alike than from their own.

    ``max(0, margin + ||f - own||^2 - ||f - rival||^2)``, reduced as in `center`.

    Args:
      features: ``[B,T,D]``; frames of weight 0 may hold any value.
      centers: ``[C,D]``.
      assignment: class and weight of each frame.
      rivals: int32 class ids of the look-alikes, with the shape of ``assignment.classes``; see
        `jaxcrnn.diagnostics.top_rival`. A frame whose rival is its own class is ignored.
      margin: margin in squared distance.
      reduction: ``"mean"`` or ``"half_sum"``.
      ops: implementation of the distances to the centers; see `jaxcrnn.kernels.center_ops`.

    Returns:
      A float32 scalar.

    Raises:
      ValueError: If ``reduction`` is unknown, features and centers differ in size, or a known class id of a frame with
        weight is out of range; under jit such a frame has weight 0.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxcrnn import losses
      >>> from jaxcrnn.types import Assignment
      >>> features, centers = jnp.zeros((1, 2, 2)), jnp.array([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
      >>> frames = Assignment(jnp.array([[1, 0]]), jnp.array([[1.0, 0.0]]))
      >>> float(losses.push(features, centers, frames, jnp.array([[2, 0]]), margin=3.0))  # 3 + 0 - 1
      2.0

    References:
      Triplet-center loss: He et al., 2018, eq. 5. The rival is the most probable other class instead of the class of
      the nearest center, which would need a ``[B*T,C]`` matrix of distances.
    """
    _check_sizes(features, centers)
    classes, weights = assigned(assignment, len(centers))
    rivals, weights = assigned((rivals, weights), len(centers), "rivals")
    weights = jnp.where(rivals == classes, jnp.zeros((), weights.dtype), weights)
    own = ops.squared_distance(features, centers, classes, weights > 0)
    other = ops.squared_distance(features, centers, rivals, weights > 0)
    return _reduced(jnp.where(weights > 0, jnp.maximum(margin + own - other, 0.0), 0.0), weights, reduction)


def _check_sizes(features: Array, centers: Array) -> None:
    if features.shape[-1] != centers.shape[-1]:
        raise ValueError(f"features have size {features.shape[-1]} but centers have size {centers.shape[-1]}")
