"""Class centers: how they start and how they move. A state in, a state out (`jaxcrnn.types.CenterState`)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from jaxcrnn import assign, decode, losses
from jaxcrnn.kernels.center_ops import DENSE, CenterOps
from jaxcrnn.kernels.dtypes import at_least_float32
from jaxcrnn.kernels.logits import Logits, as_logits
from jaxcrnn.types import Assignment, CenterState


def zeros(C: int, D: int) -> CenterState:
    """All centers at the origin. Source: the TensorFlow original.

    Args:
      C: classes, the blank among them.
      D: size of the features.
    """
    return CenterState(jnp.zeros((C, D)), jnp.zeros(C))


def normal(key: Array, C: int, D: int) -> CenterState:
    """Centers drawn from N(0, 1). Source: the PyTorch seed, and PaddleOCR without a file.

    Args:
      key: PRNG key.
      C: classes, the blank among them.
      D: size of the features.
    """
    return CenterState(jax.random.normal(key, (C, D)), jnp.zeros(C))


def from_head(kernel: Array) -> CenterState:
    """The columns of the linear head, one a class.

    Args:
      kernel: ``[D,C]``.
    """
    return CenterState(at_least_float32(kernel.T), jnp.zeros(kernel.shape[1], at_least_float32(kernel).dtype))


def accumulate(
    state: CenterState,
    features: Array,
    logits: Logits,
    lengths: Array,
    labels: Array,
    label_lengths: Array,
    *,
    blank: int = 0,
) -> CenterState:
    """Running means of the features by best class, over the samples that are recognised exactly.

    Folded over a data set from `zeros`, it is the ``estimate`` start: every frame of such a sample counts for its
    best class, the blank too. A class with no frame keeps its center and its count.

    Args:
      state: means and counts so far; ``counts`` are numbers of frames here.
      features: ``[B,T,D]``.
      logits: ``[B,T,C]``; frames at ``t >= lengths[b]`` are ignored.
      lengths: ``[B]`` int32, valid frames.
      labels: ``[B,L]`` int32; slots at ``l >= label_lengths[b]`` are ignored.
      label_lengths: ``[B]`` int32.
      blank: class of the blank.

    Returns:
      The state with the batch in it.

    Source: PaddleOCR, ``export_center``.
    """
    _check(state, features, as_logits(logits).num_classes)
    ids, counts = decode.greedy(logits, lengths, blank=blank)
    exact = decode.exact(ids, counts, labels, label_lengths)
    classes, weights = assign.predicted(logits, lengths, blank=blank)
    counted = Assignment(classes, jnp.where(exact[:, None], weights, 0.0))
    away, weight = _sums(state.centers, features, counted, DENSE)
    total = state.counts + weight
    return CenterState(state.centers - away / jnp.maximum(total, 1.0)[:, None], total)


def fixed(state: CenterState, features: Array, assignment: Assignment, *, ops: CenterOps = DENSE) -> CenterState:
    """Centers that never move. Source: PaddleOCR.

    Args:
      state: the centers.
      features: unused.
      assignment: unused.
      ops: unused.
    """
    del features, assignment, ops
    return state


def delta(
    state: CenterState, features: Array, assignment: Assignment, *, alpha: float = 0.05, ops: CenterOps = DENSE
) -> CenterState:
    """Moves each center towards the features of its class.

    ``c_k -= alpha * sum w (c_k - f) / (1 + sum w)``, both sums over the frames of class k.

    Args:
      state: the old centers.
      features: ``[B,T,D]``, constants here; frames of weight 0 may hold anything.
      assignment: which frame belongs to which class.
      alpha: share of the way; 0 leaves the centers where they are.
      ops: how sums over the frames of a class are computed; see `jaxcrnn.kernels.center_ops`.

    Returns:
      The state moved, its ``counts`` grown by the weights.

    Raises:
      ValueError: features and centers of different size.

    Source: Wen et al., 2016, eq. 4; the TensorFlow original.
    """
    _check(state, features)
    away, weight = _sums(state.centers, features, assignment, ops)
    return CenterState(state.centers - alpha * away / (1 + weight)[:, None], state.counts + weight)


def gradient(
    state: CenterState,
    features: Array,
    assignment: Assignment,
    *,
    learning_rate: float,
    reduction: str = "mean",
    ops: CenterOps = DENSE,
) -> CenterState:
    """Gradient descent on the center loss, not scaled by the loss's weight: ``c_k -= learning_rate * d loss / d c_k``.

    Args:
      state: the old centers.
      features: ``[B,T,D]``, constants here; frames of weight 0 may hold anything.
      assignment: which frame belongs to which class.
      learning_rate: of the centers alone.
      reduction: that of the loss, ``"mean"`` or ``"half_sum"``; see `jaxcrnn.losses.center`.
      ops: as for `delta`.

    Returns:
      The state moved, its ``counts`` grown by the weights.

    Raises:
      ValueError: an unknown reduction, or features and centers of different size.

    Source: the PyTorch seed, whose centers are a parameter.
    """
    _check(state, features)
    away, weight = _sums(state.centers, features, assignment, ops)
    total = weight.sum()
    if reduction == "mean":
        scale = jnp.where(total > 0, 2 / jnp.where(total > 0, total, 1.0), 0.0)
    elif reduction == "half_sum":
        scale = jnp.ones((), total.dtype)
    else:
        raise ValueError(f"reduction is {reduction!r}; expected one of {', '.join(losses.REDUCTIONS)}")
    return CenterState(state.centers - learning_rate * scale * away, state.counts + weight)


def _sums(centers: Array, features: Array, assignment: Assignment, ops: CenterOps) -> tuple[Array, Array]:
    """``sum w (c_k - f)`` as ``[C,D]`` and ``sum w`` as ``[C]``, over the frames of each class."""
    return ops.class_sums(centers, jax.tree.map(jax.lax.stop_gradient, features), *assignment)


def _check(state: CenterState, features: Array, classes: int | None = None) -> None:
    sharded_centers, size = state.centers.shape
    if features.shape[-1] != size:
        raise ValueError(f"features have size {features.shape[-1]}, centers {size}; expected the same")
    if classes is not None and sharded_centers != classes:
        raise ValueError(f"{sharded_centers} centers for {classes} classes; expected one for each")
