"""Class centers: how they start and how they move. A state in, a state out (`jaxcrnn.types.CenterState`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
from jax import Array

from jaxcrnn import assign, decode, losses
from jaxcrnn.errors import UserError
from jaxcrnn.kernels.dtypes import wide
from jaxcrnn.kernels.logits import Logits, num_classes
from jaxcrnn.parallel import sharded_centers
from jaxcrnn.types import Assignment, CenterState


class CenterRule(NamedTuple):
    """How centers start and how they move.

    Attributes:
      init: ``(key, kernel) -> CenterState``, the centers before the first step; ``kernel`` is the linear head's,
        ``[D,C]``.
      update: ``(state, features, assignment) -> CenterState``, the centers after a step; ``features`` is ``[B,T,D]``.

    Where a rule replaces that of a config (`jaxcrnn.objective.flow`), a part that is None stays the config's.
    """

    init: Callable[[Array, Array], CenterState] | None = None
    update: Callable[[CenterState, Array, Assignment], CenterState] | None = None


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


def estimated(key: Array, kernel: Array, *, preset: str = "flow2") -> NoReturn:
    """The start of centers that come from a file: there is nothing to start from without it.

    Raises:
      UserError: always, saying how to make them.
    """
    del key, kernel
    raise UserError(
        f"loss.start is 'estimate' (preset {preset!r}): make centers with 'jaxcrnn centers estimate' "
        "and give them with --centers FILE, or choose another loss.start: zeros, normal or head"
    )


def is_estimated(rule: CenterRule | None) -> bool:
    """Whether a rule has no centers of its own to start from (`estimated`)."""
    return rule is not None and isinstance(rule.init, partial) and rule.init.func is estimated


def check_start(rule: CenterRule | None) -> None:
    """Stops a rule that needs centers from elsewhere, where there are none.

    Raises:
      UserError: as `estimated`.
    """
    if is_estimated(rule):
        init: Any = rule and rule.init
        init(None, None)


def start(rule: CenterRule | None, key: Array, kernel: Array, ready: CenterState | None = None) -> CenterState | None:
    """The centers before the first step; None without a rule.

    Args:
      rule: how they start.
      key: PRNG key.
      kernel: ``[D,C]`` of the linear head.
      ready: centers from elsewhere, taken instead.

    Raises:
      UserError: centers of other sizes, or a rule that needs ``ready`` ones (`estimated`).
    """
    if rule is None:
        return None
    size, classes = kernel.shape
    if ready is None and rule.init is not None:
        made = rule.init(key, kernel)
        if made.centers.shape != (classes, size) or made.counts.shape != (classes,):
            raise UserError(f"the center rule starts with centers {made.centers.shape} and counts {made.counts.shape}; "
                            f"expected {(classes, size)} and {(classes,)}")  # fmt: skip
        return made
    if ready is None or ready.centers.shape != (classes, size):
        rows, columns = (0, 0) if ready is None else ready.centers.shape
        raise UserError(
            f"{rows} centers of size {columns} were given; expected {classes} (one a class, the blank among them) "
            f"of size {size} (the model's features)"
        )
    return ready


# What ``loss.start`` may name: each ``(key, kernel [D,C]) -> CenterState``.
STARTS: Mapping[str, Callable[[Array, Array], CenterState]] = MappingProxyType(
    {
        "zeros": lambda key, kernel: zeros(*kernel.shape[::-1]),
        "normal": lambda key, kernel: normal(key, *kernel.shape[::-1]),
        "head": lambda key, kernel: from_head(kernel),
    }
)
# What ``loss.update`` may name: each ``(state, features, assignment) -> CenterState``, and its own options.
UPDATES: Mapping[str, Callable[..., CenterState]] = MappingProxyType(
    {"fixed": fixed, "delta": delta, "gradient": gradient}
)
