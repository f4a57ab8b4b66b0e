"""Bounds on images of a model that may come from a stranger, and options that override them."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

from jaxcrnn.data.images import Limits
from jaxcrnn.errors import UserError


def bounded(
    own: Limits,
    place: str,
    *,
    outside: bool = False,
    max_pixels: int | None = None,
    max_bytes: int | None = None,
    max_width: int | None = None,
    vertical: bool | None = None,
    reread: float | None = None,
) -> Limits:
    """Return how a model reads images, with bounds that are safe even if its configuration is not trusted.

    Args:
      own: limits of the model; its bounds apply if they are tighter than the defaults.
      place: where they are configured, for messages: a file, and the section of the keys, such as
        ``run/config.yaml: data``.
      outside: whether label files may name images outside their folder.
      max_pixels: maximum pixels of an image; None for the bound of the model, or the default if that is tighter.
      max_bytes: maximum bytes of an image; None likewise.
      max_width: maximum width of a line in pixels at the model's height; None for the model's.
      vertical: whether to rotate lines taller than wide; None for as the model was trained.
      reread: confidence below which lines are read again, 0 to 1; None for the model's.

    Raises:
      UserError: a bound below 1, or ``reread`` out of range.
    """
    if reread is not None and not 0 <= reread <= 1:
        raise UserError(f"--reread {reread:g}: expected 0 to 1")
    limits = dataclasses.replace(
        own.of_stranger(),
        outside=outside,
        max_width=own.max_width if max_width is None else max_width,
        vertical=own.vertical if vertical is None else vertical,
        reread=own.reread if reread is None else reread,
    )
    file, _, section = place.rpartition(": ")
    for name, option in (("max_width", limits.max_width), ("max_pixels", max_pixels), ("max_bytes", max_bytes)):
        configured, capped, flag = getattr(own, name), getattr(limits, name), f"--{name.replace('_', '-')}"
        if option is not None and option < 1:
            raise UserError(f"{flag} {option}: expected 1 or more")
        if option is None and configured > capped:
            print(
                f"{file}: ignoring {section}.{name}={configured:,}; using {capped:,} (override with {flag})",
                file=sys.stderr,
            )
        bound: dict[str, Any] = {name: option or capped}
        limits = dataclasses.replace(limits, **bound)
    return limits
