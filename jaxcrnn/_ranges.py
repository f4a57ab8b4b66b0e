"""Ranges of the numeric keys of a configuration: annotations of dataclass fields, and the one check of them."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import numpy as np

from jaxcrnn.errors import UserError

LARGEST = 2**31 - 1  # of whole numbers without another limit: counters and shapes are int32


@dataclass(frozen=True)
class Range:
    """Values that a number may have.

    Attributes:
      least: lower bound, or None.
      most: upper bound, or None.
      above: whether ``least`` itself is excluded.
      below: whether ``most`` itself is excluded.
      largest: limit of whole numbers that have no other upper bound.
      text: description, by default that of the bounds.

    >>> print(Range(1), Range(0, above=True), Range(0, 1), Range(0, 1, below=True), Range(), sep="; ")
    1 or more; more than 0; 0 to 1; 0 or more, less than 1; a finite number
    """

    least: float | None = None
    most: float | None = None
    above: bool = False
    below: bool = False
    largest: int = LARGEST
    text: str = ""

    def __str__(self) -> str:
        if self.text:
            return self.text
        if self.least is None and self.most is None:
            return "a finite number"
        if None not in (self.least, self.most) and not (self.above or self.below):
            return f"{self.least} to {self.most}"
        low = f"more than {self.least}" if self.above else f"{self.least} or more"
        high = f"less than {self.most}" if self.below else f"at most {self.most}"
        return ", ".join(text for text, bound in ((low, self.least), (high, self.most)) if bound is not None)

    def has(self, value: float) -> bool:
        """Return whether a finite value is in the range."""
        low = self.least is None or (value > self.least if self.above else value >= self.least)
        return low and (self.most is None or (value < self.most if self.below else value <= self.most))


Count = Annotated[int, Range(1)]
Natural = Annotated[int, Range(0)]
Bytes = Annotated[int, Range(1, largest=2**63 - 1)]
Finite = Annotated[float, Range()]
Positive = Annotated[float, Range(0, above=True)]
NonNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
Decay = Annotated[float, Range(0, 1, below=True)]


@functools.cache
def ranges(section: Any) -> dict[str, tuple[Range, type]]:
    """Return the range and the type (int or float) of every field of a dataclass that is annotated with a range."""
    fields = {}
    for name, hint in get_type_hints(section, include_extras=True).items():
        if (annotated := _annotated(hint)) is not None:
            kind, *rest = get_args(annotated)
            fields[name] = next(extra for extra in rest if isinstance(extra, Range)), kind
    return fields


def _annotated(hint: Any) -> Any:
    """Return the annotated type in a hint such as ``Share``, ``Share | None`` or ``tuple[Share, ...]``."""
    if get_origin(hint) is Annotated:
        return hint if any(isinstance(extra, Range) for extra in get_args(hint)[1:]) else None
    return next((inner for part in get_args(hint) if (inner := _annotated(part)) is not None), None)


def check_value(value: Any, where: str, allowed: Range, kind: type) -> None:
    """Check one number.

    Args:
      value: the value.
      where: place of the value, with which the message begins.
      allowed: range of the value.
      kind: int or float.

    Raises:
      UserError: it is not a number of this type, not finite (as float32, in which it is used), or out of range.
    """
    if not _is_number(value, kind):
        raise UserError(f"{where} is {value!r}; expected {'a whole number' if kind is int else 'a number'}")
    if kind is int:
        if not allowed.has(int(value)):
            raise UserError(f"{where} is {value}; expected {allowed}")
        if int(value) > allowed.largest:
            raise UserError(f"{where} is {value}; expected {allowed}, at most {allowed.largest}")
        return
    try:
        number = float(value)
        with np.errstate(over="ignore", under="ignore"):
            single = float(np.float32(number))
    except OverflowError:  # a whole number of hundreds of digits
        number = single = math.inf
    if not (allowed.has(number) and allowed.has(single) and math.isfinite(single)):
        rounded = f", which is {single} in float32" if math.isfinite(number) and allowed.has(number) else ""
        finite = ", and finite" if math.isinf(number) and allowed.most is None and allowed.least is not None else ""
        raise UserError(f"{where} is {value}{rounded}; expected {allowed}{finite}")


def _is_number(value: Any, kind: type) -> bool:
    """Return whether a value, also one of NumPy's, is a number that a field of type int or float may have."""
    return isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)


def check(config: Any, section: str) -> None:
    """Check every field of a dataclass that is annotated with a range; for ``__post_init__``.

    Args:
      config: instance of a dataclass; a value of None and empty tuples are valid.
      section: name of the section in messages.

    Raises:
      UserError: a value is not a number or out of range.
    """
    own: Any = type(config)
    for name, (allowed, kind) in ranges(own).items():
        value = getattr(config, name)
        for one in value if isinstance(value, tuple | list) else [value]:
            if one is not None or not _has_none(own, name):
                check_value(one, f"{section}.{name}", allowed, kind)


@functools.cache
def _has_none(section: Any, name: str) -> bool:
    return any(part is type(None) for part in get_args(get_type_hints(section)[name]))
