"""Class centers: how they start and how they move. A state in, a state out (`jaxcrnn.types.CenterState`)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from jaxcrnn import assign, decode, losses
from jaxcrnn.kernels.dtypes import wide
from jaxcrnn.kernels.logits import Logits, num_classes
from jaxcrnn.parallel import sharded_centers
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
    return CenterState(wide(kernel.T), jnp.zeros(kernel.shape[1], wide(kernel).dtype))


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
    _check(state, features, num_classes(logits))
    ids, counts = decode.greedy(logits, lengths, blank=blank)
    exact = decode.exact(ids, counts, labels, label_lengths)
    classes, weights = assign.predicted(logits, lengths, blank=blank)
    away, weight = _sums(state.centers, features, Assignment(classes, jnp.where(exact[:, None], weights, 0.0)))
    total = state.counts + weight
    return CenterState(state.centers - away / jnp.maximum(total, 1.0)[:, None], total)


def fixed(state: CenterState, features: Array, assignment: Assignment) -> CenterState:
    """Centers that never move. Source: PaddleOCR.

    Args:
      state: the centers.
      features: not looked at.
      assignment: not looked at.
    """
    del features, assignment
    return state


def delta(state: CenterState, features: Array, assignment: Assignment, *, alpha: float = 0.05) -> CenterState:
    """Moves each center towards the features of its class.

    ``c_k -= alpha * sum w (c_k - f) / (1 + sum w)``, both sums over the frames of class k.

    Args:
      state: the old centers.
      features: ``[B,T,D]``, constants here; frames of weight 0 may hold anything.
      assignment: which frame belongs to which class.
      alpha: share of the way; 0 leaves the centers where they are.

    Returns:
      The state moved, its ``counts`` grown by the weights.

    Raises:
      ValueError: features and centers of different size.

    Source: Wen et al., 2016, eq. 4; the TensorFlow original.
    """
    _check(state, features)
    away, weight = _sums(state.centers, features, assignment)
    return CenterState(state.centers - alpha * away / (1 + weight)[:, None], state.counts + weight)


def gradient(
    state: CenterState,
    features: Array,
    assignment: Assignment,
    *,
    learning_rate: float,
    reduction: str = "mean",
) -> CenterState:
    """Gradient descent on the center loss, not scaled by the loss's weight: ``c_k -= learning_rate * d loss / d c_k``.

    Args:
      state: the old centers.
      features: ``[B,T,D]``, constants here; frames of weight 0 may hold anything.
      assignment: which frame belongs to which class.
      learning_rate: of the centers alone.
      reduction: that of the loss, ``"mean"`` or ``"half_sum"``; see `jaxcrnn.losses.center`.

    Returns:
      The state moved, its ``counts`` grown by the weights.

    Raises:
      ValueError: an unknown reduction, or features and centers of different size.

    Source: the PyTorch seed, whose centers are a parameter.
    """
    _check(state, features)
    away, weight = _sums(state.centers, features, assignment)
    total = weight.sum()
    if reduction == "mean":
        scale = jnp.where(total > 0, 2 / jnp.where(total > 0, total, 1.0), 0.0)
    elif reduction == "half_sum":
        scale = jnp.ones((), total.dtype)
    else:
        raise ValueError(f"reduction is {reduction!r}; expected one of {', '.join(losses.REDUCTIONS)}")
    return CenterState(state.centers - learning_rate * scale * away, state.counts + weight)


def _sums(centers: Array, features: Array, assignment: Assignment) -> tuple[Array, Array]:
    """``sum w (c_k - f)`` as ``[C,D]`` and ``sum w`` as ``[C]``, over the frames of each class."""
    features = jax.lax.stop_gradient(features)
    split = sharded_centers.are_split(len(centers))
    if not split:
        features = features.reshape(-1, features.shape[-1])

    def add(sums: tuple[Array, Array], pair: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
        classes, weights = pair
        if split:
            more = sharded_centers.sums(centers, features, classes, weights.astype(centers.dtype))
            return (sums[0] + more[0], sums[1] + more[1]), None
        weights = weights.reshape(-1).astype(centers.dtype)
        return sharded_centers.add(*sums, centers, features, classes.reshape(-1), weights), None

    start = jnp.zeros_like(centers), jnp.zeros(len(centers), centers.dtype)
    classes, weights = assignment
    if classes.ndim == 2:
        return add(start, (classes, weights))[0]
    by_class = (jnp.moveaxis(classes, -1, 0), jnp.moveaxis(weights, -1, 0))
    return jax.lax.scan(add, start, by_class)[0]


def _check(state: CenterState, features: Array, classes: int | None = None) -> None:
    sharded_centers, size = state.centers.shape
    if features.shape[-1] != size:
        raise ValueError(f"features have size {features.shape[-1]}, centers {size}; expected the same")
    if classes is not None and sharded_centers != classes:
        raise ValueError(f"{sharded_centers} centers for {classes} classes; expected one for each")
