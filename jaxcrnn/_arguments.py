"""Integer arguments of the numerics: dtypes, class ids, lengths and labels, checked and widened by one rule.

Every public function that takes integers passes them through this module before it computes anything:

- Integers of any dtype become int32; other dtypes are a TypeError.
- A negative class id of an option (``blank``, ``ignored``, ``excluded``) counts from the end; beyond the classes it is
  a ValueError.
- Lengths, labels and assigned classes whose values are known are checked: a ValueError names the entry. Under jit they
  are not known. Then a length beyond the axis counts as the whole axis, a label with an invalid class id is infeasible,
  and a frame with an invalid class has weight 0: nothing becomes NaN.

Only arguments are read, never results, so a jitted step waits for nothing.
"""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxcrnn.types import Assignment

LABELS = ("labels", "label_lengths")


class Labels(NamedTuple):
    """The arguments that describe labels, as int32.

    Attributes:
      lengths: ``[B]``, valid frames, from 0 to T.
      labels: ``[B,L]``; -1 replaces an invalid class id in a slot that is not padding.
      label_lengths: ``[B]``, characters of each label.
      blank: class id of the blank, from 0 to C - 1.
    """

    lengths: Array
    labels: Array
    label_lengths: Array
    blank: int


def integers(name: str, value: Any) -> Array:
    """Convert integers of any dtype, or bools, to an int32 array.

    Raises:
      TypeError: If the value has another dtype.
    """
    if not hasattr(value, "dtype"):
        value = np.asarray(value)
    if not (jnp.issubdtype(value.dtype, jnp.integer) or value.dtype == bool or not value.size):
        raise TypeError(f"{name} has dtype {value.dtype}; expected integers")
    if value.dtype != jnp.int32:
        value = value.astype(np.int32)  # before jax sees it, which would truncate 64 bits
    return jnp.asarray(value)


def class_id(name: str, value: Any, classes: int) -> int:
    """Return the class id of an option; a negative one counts from the end.

    Raises:
      ValueError: If there is no such class.
    """
    if isinstance(value, jax.core.Tracer):
        return jnp.where(value < 0, value + classes, value)  # type: ignore[return-value]
    index = operator.index(value)
    if not -classes <= index < classes:
        raise ValueError(f"{name} is {index}; expected a class id from 0 to {classes - 1}, or from -{classes} to -1")
    return index % classes


def frame_lengths(lengths: Any, frames: int) -> Array:
    """Convert the valid frames ``[B]`` of lines of ``frames`` frames.

    Raises:
      ValueError: If a known length is negative or beyond the frames.
    """
    if _check("lengths", lengths, lambda values: (values < 0) | (values > frames), f"0 to {frames} frames"):
        return integers("lengths", lengths)
    return jnp.clip(integers("lengths", lengths), 0, frames)


def texts(
    labels: Any,
    label_lengths: Any,
    classes: int | None = None,
    blank: int | None = None,
    names: tuple[str, str] = LABELS,
) -> tuple[Array, Array]:
    """Convert labels ``[B,L]`` and their lengths ``[B]``.

    Args:
      labels: class ids; slots at ``l >= label_lengths[b]`` may hold any value.
      label_lengths: characters of each label.
      classes: number of classes; None to accept any class id that is not negative.
      blank: a class id that labels must not contain.
      names: the names of the arguments, for messages.

    Returns:
      Both as int32; -1 replaces an invalid class id in a slot that is not padding.

    Raises:
      ValueError: If the shapes do not match, or a known length or class id is out of range.
    """
    ids, counts = names
    shape, lines = np.shape(labels), np.shape(label_lengths)
    if len(shape) != 2 or lines != shape[:1]:
        raise ValueError(f"{ids} have shape {shape} and {counts} {lines}; expected [B,L] and [B]")
    slots = shape[1]
    _check(counts, label_lengths, lambda values: (values < 0) | (values > slots), f"0 to {slots} characters")
    sizes = _concrete(label_lengths)

    def wrong(values: np.ndarray) -> np.ndarray:
        outside = (values < 0) | (values >= (np.inf if classes is None else classes))
        if blank is not None:
            outside |= values == blank
        return outside & (np.arange(slots)[None] < sizes[:, None])

    expected = "a class id, 0 or more" if classes is None else f"a class id from 0 to {classes - 1}"
    if blank is not None:
        expected += f" other than the blank, {blank}"
    checked = sizes is not None and _check(ids, labels, wrong, expected)
    labels, label_lengths = integers(ids, labels), integers(counts, label_lengths)
    if checked:
        return labels, label_lengths
    label_lengths = jnp.clip(label_lengths, 0, slots)
    listed = jnp.arange(slots)[None, :] < label_lengths[:, None]
    invalid = labels < 0 if classes is None else (labels < 0) | (labels >= classes)
    return jnp.where(listed & invalid, -1, labels), label_lengths


def labelled(
    logits: Any,
    lengths: Any,
    labels: Any,
    label_lengths: Any,
    blank: Any,
    *,
    may_be_blank: bool = False,
    names: tuple[str, str] = LABELS,
) -> Labels:
    """Convert the arguments of a function of logits and labels.

    Args:
      logits: any type of `jaxcrnn.kernels.logits`.
      lengths: ``[B]``, valid frames.
      labels: ``[B,L]``; slots at ``l >= label_lengths[b]`` may hold any value.
      label_lengths: ``[B]``, characters of each label.
      blank: class id of the blank; negative to count from the end.
      may_be_blank: whether labels may contain the blank.
      names: the names of ``labels`` and ``label_lengths``, for messages.

    Raises:
      ValueError: If a known value is out of range, or the shapes do not match.
    """
    classes = logits.num_classes
    blank = class_id("blank", blank, classes)
    forbidden = None if may_be_blank or isinstance(blank, jax.core.Tracer) else blank
    if np.shape(lengths) != np.shape(label_lengths):
        raise ValueError(
            f"lengths have shape {np.shape(lengths)} and {names[1]} {np.shape(label_lengths)}; expected [B]"
        )
    return Labels(
        frame_lengths(lengths, logits.num_frames), *texts(labels, label_lengths, classes, forbidden, names), blank
    )


def readable(labels: Array, label_lengths: Array) -> Array:
    """Check whether labels from `texts` have valid class ids only: ``[B]`` bool."""
    listed = jnp.arange(labels.shape[1])[None, :] < label_lengths[:, None]
    return ~(listed & (labels < 0)).any(1)


def assigned(assignment: Any, classes: int, name: str = "assignment.classes") -> Assignment:
    """Convert an assignment of frames to ``classes`` classes.

    Returns:
      The assignment with int32 classes; weight 0 where the class is invalid.

    Raises:
      ValueError: If a known class id of a frame with weight is out of range, or the shapes do not match.
    """
    ids, weights = assignment
    if np.shape(ids) != np.shape(weights):
        raise ValueError(f"{name} have shape {np.shape(ids)} and weights {np.shape(weights)}; expected equal shapes")
    used = _concrete(weights)

    def wrong(ids: np.ndarray) -> np.ndarray:
        return ((ids < 0) | (ids >= classes)) & (used > 0)

    expected = f"a class id from 0 to {classes - 1}"
    checked = used is not None and _check(name, ids, wrong, expected)
    ids, weights = integers(name, ids), jnp.asarray(weights)
    if not checked:
        weights = jnp.where((ids >= 0) & (ids < classes), weights, jnp.zeros((), weights.dtype))
    return Assignment(ids, weights)


def _concrete(value: Any) -> Any:
    """Return the values of an array, or None for a tracer and for an array of several processes."""
    if isinstance(value, jax.core.Tracer) or not getattr(value, "is_fully_addressable", True):
        return None
    return np.asarray(value)


def _check(name: str, value: Any, wrong: Any, expected: str) -> bool:
    """Raise an error that names the first wrong entry; return whether the values are known."""
    values = _concrete(value)
    if values is None or values.dtype.kind not in "iub":
        return False
    if (entries := np.argwhere(wrong(values))).size:
        first = tuple(entries[0])
        raise ValueError(f"{name}[{', '.join(map(str, first))}] is {values[first]}; expected {expected}")
    return True
