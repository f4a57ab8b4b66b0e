"""Class centers: initialization and updates.

Every function takes and returns a `jaxcrnn.types.CenterState` instead of changing one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
from jax import Array

from jaxcrnn import assign, decode, losses
from jaxcrnn._arguments import assigned, labelled
from jaxcrnn.errors import UserError
from jaxcrnn.kernels.center_ops import DENSE, CenterOps
from jaxcrnn.kernels.dtypes import at_least_float32
from jaxcrnn.kernels.logits import Logits, as_logits
from jaxcrnn.types import Assignment, CenterState


class CenterRule(NamedTuple):
    """The initialization and the update of centers.

    Where a rule replaces that of a config (`jaxcrnn.objective.flow`), a part that is None is taken from the config.

    Attributes:
      init: ``(key, kernel) -> CenterState``, the centers before the first step; ``kernel`` is that of the linear head,
        ``[D,C]``.
      update: ``(state, features, assignment) -> CenterState``, the centers after a step; ``features`` is ``[B,T,D]``.
    """

    init: Callable[[Array, Array], CenterState] | None = None
    update: Callable[[CenterState, Array, Assignment], CenterState] | None = None


def zeros(C: int, D: int) -> CenterState:
    """Initialize all centers at the origin.

    Args:
      C: number of classes, including the blank.
      D: size of the features.

    Examples:
      >>> from jaxcrnn import centers
      >>> centers.zeros(3, 2).centers.tolist()
      [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]

    References:
      The TensorFlow original of CRNN with center loss.
    """
    return CenterState(jnp.zeros((C, D)), jnp.zeros(C))


def normal(key: Array, C: int, D: int) -> CenterState:
    """Draw centers from the standard normal distribution.

    Args:
      key: PRNG key.
      C: number of classes, including the blank.
      D: size of the features.

    Examples:
      >>> import jax
      >>> from jaxcrnn import centers
      >>> state = centers.normal(jax.random.key(0), 3, 2)
      >>> state.centers.shape, state.counts.tolist()
      ((3, 2), [0.0, 0.0, 0.0])

    References:
      The PyTorch port, and PaddleOCR without a file of centers.
    """
    return CenterState(jax.random.normal(key, (C, D)), jnp.zeros(C))


def from_head(kernel: Array) -> CenterState:
    """Initialize centers with the columns of the linear head, one for each class.

    Args:
      kernel: ``[D,C]``, weights of the linear head.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxcrnn import centers
      >>> centers.from_head(jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])).centers.tolist()
      [[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]]
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
    """Update the running mean features of each class with a batch, using samples that are read exactly.

    Folding it over a data set from `zeros` gives the initialization ``estimate``. Every valid frame of an exactly read
    sample counts for its best class, including the blank. A class without frames keeps its center and its count.

    Args:
      state: means and counts so far; here ``counts`` are numbers of frames.
      features: ``[B,T,D]``.
      logits: ``[B,T,C]``; frames at ``t >= lengths[b]`` are padding and ignored.
      lengths: ``[B]`` int32, valid frames.
      labels: ``[B,L]`` int32; slots at ``l >= label_lengths[b]`` are padding and ignored.
      label_lengths: ``[B]`` int32, characters of each label.
      blank: class id of the blank; a negative one counts from the end.

    Returns:
      The updated state.

    Raises:
      ValueError: If the centers do not match the size of the features or the number of classes.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxcrnn import centers
      >>> logits = jax.nn.one_hot(jnp.array([[1, 1, 0, 2]]), 3)
      >>> features = jnp.array([[[2.0, 0.0], [4.0, 0.0], [0.0, 0.0], [0.0, 6.0]]])
      >>> state = centers.zeros(3, 2)
      >>> state = centers.accumulate(state, features, logits, jnp.array([4]), jnp.array([[1, 2]]), jnp.array([2]))
      >>> state.centers.tolist(), state.counts.tolist()
      ([[0.0, 0.0], [3.0, 0.0], [0.0, 6.0]], [1.0, 2.0, 1.0])

    References:
      PaddleOCR, ``export_center``.
    """
    logits = as_logits(logits)
    _check(state, features, logits.num_classes)
    lengths, labels, label_lengths, blank = labelled(logits, lengths, labels, label_lengths, blank, may_be_blank=True)
    ids, counts = decode.greedy(logits, lengths, blank=blank)
    exact = decode.exact(ids, counts, labels, label_lengths)
    classes, weights = assign.predicted(logits, lengths, blank=blank)
    used = Assignment(classes, jnp.where(exact[:, None], weights, 0.0))
    away, weight = _sums(state.centers, features, used, DENSE)
    total = state.counts + weight
    return CenterState(state.centers - away / jnp.maximum(total, 1.0)[:, None], total)


def fixed(state: CenterState, features: Array, assignment: Assignment, *, ops: CenterOps = DENSE) -> CenterState:
    """Keep the centers unchanged.

    Args:
      state: the centers.
      features: unused.
      assignment: unused.
      ops: unused.

    Returns:
      ``state``.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxcrnn import centers
      >>> from jaxcrnn.types import Assignment
      >>> state, frames = centers.zeros(2, 2), Assignment(jnp.array([[1]]), jnp.array([[1.0]]))
      >>> centers.fixed(state, jnp.ones((1, 1, 2)), frames) is state
      True

    References:
      PaddleOCR, whose centers never move.
    """
    del features, assignment, ops
    return state


def delta(
    state: CenterState, features: Array, assignment: Assignment, *, alpha: float = 0.05, ops: CenterOps = DENSE
) -> CenterState:
    """Move each center towards the features of its class.

    ``c_k -= alpha * sum w (c_k - f) / (1 + sum w)``, with both sums over the frames of class k.

    Args:
      state: centers before the update.
      features: ``[B,T,D]``, treated as constants; frames of weight 0 may hold any value.
      assignment: class and weight of each frame.
      alpha: step size, 0 or more; 0 leaves the centers unchanged.
      ops: implementation of the sums over the frames of a class; see `jaxcrnn.kernels.center_ops`.

    Returns:
      The updated centers, with the weights added to ``counts``.

    Raises:
      ValueError: If features and centers differ in size.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxcrnn import centers
      >>> from jaxcrnn.types import Assignment
      >>> frames = Assignment(jnp.array([[1, 1]]), jnp.ones((1, 2)))
      >>> state = centers.delta(centers.zeros(3, 2), jnp.array([[[2.0, 0.0], [4.0, 0.0]]]), frames, alpha=0.5)
      >>> state.centers.tolist(), state.counts.tolist()  # 0.5 * (2 + 4) / (1 + 2)
      ([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]], [0.0, 2.0, 0.0])

    References:
      Wen et al., 2016, eq. 4; the TensorFlow original of CRNN with center loss.
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
    """Move the centers by gradient descent on the center loss: ``c_k -= learning_rate * d loss / d c_k``.

    The weight of the center loss does not scale the step.

    Args:
      state: centers before the update.
      features: ``[B,T,D]``, treated as constants; frames of weight 0 may hold any value.
      assignment: class and weight of each frame.
      learning_rate: learning rate of the centers, independent of that of the parameters.
      reduction: reduction of the center loss, ``"mean"`` or ``"half_sum"``; see `jaxcrnn.losses.center`.
      ops: implementation of the sums over the frames of a class; see `jaxcrnn.kernels.center_ops`.

    Returns:
      The updated centers, with the weights added to ``counts``.

    Raises:
      ValueError: If ``reduction`` is unknown, or features and centers differ in size.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxcrnn import centers
      >>> from jaxcrnn.types import Assignment
      >>> frames = Assignment(jnp.array([[1, 1]]), jnp.ones((1, 2)))
      >>> features = jnp.array([[[2.0, 0.0], [4.0, 0.0]]])
      >>> centers.gradient(centers.zeros(3, 2), features, frames, learning_rate=0.5).centers.tolist()
      [[0.0, 0.0], [3.0, 0.0], [0.0, 0.0]]

    References:
      The PyTorch port, whose centers are a parameter.
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
    """Compute ``sum w (c_k - f)`` as ``[C,D]`` and ``sum w`` as ``[C]``, over the frames of each class."""
    assignment = assigned(assignment, len(centers))
    return ops.class_sums(centers, jax.tree.map(jax.lax.stop_gradient, features), *assignment)


def _check(state: CenterState, features: Array, classes: int | None = None) -> None:
    rows, size = state.centers.shape
    if features.shape[-1] != size:
        raise ValueError(f"features have size {features.shape[-1]} but centers have size {size}")
    if classes is not None and rows != classes:
        raise ValueError(f"{rows} centers for {classes} classes; expected one center per class")


def estimated(key: Array, kernel: Array, *, preset: str = "flow2") -> NoReturn:
    """Raise an error: centers of this initialization come from a file, and none was given.

    Args:
      key: unused.
      kernel: unused.
      preset: name of the preset, for the message.

    Raises:
      UserError: Always. The message explains how to estimate centers.

    Examples:
      >>> from jaxcrnn import centers
      >>> centers.estimated(None, None)
      Traceback (most recent call last):
        ...
      jaxcrnn.errors.UserError: loss.start is 'estimate' (preset 'flow2'), which needs a file of centers; ...
    """
    del key, kernel
    raise UserError(
        f"loss.start is 'estimate' (preset {preset!r}), which needs a file of centers; create one with "
        "'jaxcrnn centers estimate' and pass it with --centers FILE, or set loss.start to zeros, normal or head"
    )


def is_estimated(rule: CenterRule | None) -> bool:
    """Check whether a rule starts from centers in a file (`estimated`).

    Examples:
      >>> from jaxcrnn import centers, objective
      >>> rule = objective.flow(objective.LossConfig("flow2")).rule
      >>> centers.is_estimated(rule), centers.is_estimated(None)
      (True, False)
    """
    return rule is not None and isinstance(rule.init, partial) and rule.init.func is estimated


def check_start(rule: CenterRule | None) -> None:
    """Raise an error if a rule starts from centers in a file (`estimated`); call it where there is no file.

    Raises:
      UserError: If it does; the message explains how to estimate centers.

    Examples:
      >>> from jaxcrnn import centers, objective
      >>> centers.check_start(objective.flow(objective.LossConfig("flow1")).rule)
    """
    if is_estimated(rule):
        init: Any = rule and rule.init
        init(None, None)


def start(rule: CenterRule | None, key: Array, kernel: Array, ready: CenterState | None = None) -> CenterState | None:
    """Initialize the centers before the first step.

    Args:
      rule: initialization of the centers, or None for a loss without centers.
      key: PRNG key.
      kernel: ``[D,C]``, weights of the linear head.
      ready: centers that replace those of the rule, for example from a file.

    Returns:
      The centers, or None without a rule.

    Raises:
      UserError: If the centers have the wrong shape, or the rule needs ``ready`` centers (`estimated`) and there are
        none.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxcrnn import centers
      >>> rule = centers.CenterRule(init=lambda key, kernel: centers.from_head(kernel))
      >>> centers.start(rule, jax.random.key(0), jnp.ones((2, 3))).centers.shape
      (3, 2)
    """
    if rule is None:
        return None
    size, classes = kernel.shape
    if ready is None and rule.init is not None:
        state = rule.init(key, kernel)
        if state.centers.shape != (classes, size) or state.counts.shape != (classes,):
            raise UserError(
                f"the center rule returned centers of shape {state.centers.shape} and counts of shape "
                f"{state.counts.shape}; expected {(classes, size)} and {(classes,)}"
            )
        return state
    if ready is None or ready.centers.shape != (classes, size):
        rows, columns = (0, 0) if ready is None else ready.centers.shape
        raise UserError(
            f"got {rows} centers of size {columns}; expected {classes} (one per class, including the blank) "
            f"of size {size} (the size of the model's features)"
        )
    return ready


# Values of ``loss.start``: functions ``(key, kernel [D,C]) -> CenterState``.
STARTS: Mapping[str, Callable[[Array, Array], CenterState]] = MappingProxyType(
    {
        "zeros": lambda key, kernel: zeros(*kernel.shape[::-1]),
        "normal": lambda key, kernel: normal(key, *kernel.shape[::-1]),
        "head": lambda key, kernel: from_head(kernel),
    }
)
# Values of ``loss.update``: functions ``(state, features, assignment, **options) -> CenterState``.
UPDATES: Mapping[str, Callable[..., CenterState]] = MappingProxyType(
    {"fixed": fixed, "delta": delta, "gradient": gradient}
)
