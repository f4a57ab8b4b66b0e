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
from jaxcrnn.kernels.center_ops import DENSE, CenterOps
from jaxcrnn.kernels.dtypes import at_least_float32
from jaxcrnn.kernels.logits import Logits, as_logits
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
    rows, size = state.centers.shape
    if features.shape[-1] != size:
        raise ValueError(f"features have size {features.shape[-1]}, centers {size}; expected the same")
    if classes is not None and rows != classes:
        raise ValueError(f"{rows} centers for {classes} classes; expected one for each")


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
