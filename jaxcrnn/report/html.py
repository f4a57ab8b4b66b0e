"""Building blocks of the report page, a self-contained HTML file.

The page has no scripts, loads nothing, supports light and dark mode, and works on phones and with screen readers. The
template escapes every text that comes from data; the functions return HTML (`Markup`).
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from jaxcrnn.data.images import to_png

TEMPLATE = "report.html.j2"


@cache
def _macros() -> Any:
    """Load the macros of the template, which return `Markup` and escape all arguments that are not `Markup`."""
    environment = Environment(
        loader=PackageLoader("jaxcrnn", "resources"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE).module


class Section(NamedTuple):
    """A part of the page."""

    name: str
    heading: str
    body: str


def page(title: str, lead: str, sections: Sequence[Section]) -> Markup:
    """Build the whole page.

    Args:
      title: title as plain text.
      lead: HTML before the sections.
      sections: sections with HTML bodies.
    """
    return Markup(_macros().page(title, lead, sections))


def text(*paragraphs: str) -> Markup:
    """Build paragraphs from plain texts."""
    return Markup(_macros().text(paragraphs))


def subheading(words: str) -> Markup:
    """Build a heading inside a section."""
    return Markup(_macros().subheading(words))


def bullets(items: Sequence[str]) -> Markup:
    """Build a list from plain texts."""
    return Markup(_macros().bullets(items))


def details(summary: str, body: str) -> Markup:
    """Build a collapsed block of HTML."""
    return Markup(_macros().details(summary, body))


def table(head: Sequence[str], rows: Sequence[Sequence[object]], label: str) -> Markup:
    """Build a table that scrolls on narrow screens, also by keyboard."""
    numeric = [all(_is_number(row[i]) for row in rows) for i in range(len(head))]
    return Markup(_macros().table(head, rows, numeric, label))


def _is_number(cell: object) -> bool:
    return isinstance(cell, int | float) or str(cell).strip("%+-").replace(".", "", 1).isdigit() or cell == ""


def charts(figures: Sequence[tuple[str, str]]) -> Markup:
    """Build a grid of charts with captions."""
    return Markup(_macros().charts(figures))


def cards(items: Sequence[str], *, compact: bool = False) -> Markup:
    """Build a grid of boxes with HTML; compact ones are narrower."""
    return Markup(_macros().cards(items, compact))


def picture(gray: np.ndarray, alt: str, kind: str) -> Markup:
    """Build an embedded gray image ``[h,w]``."""
    data = base64.b64encode(to_png(gray)).decode()
    return Markup(_macros().picture(data, alt, kind, gray.shape[1], gray.shape[0]))


def span(words: str) -> Markup:
    """Build an inline text."""
    return Markup(_macros().span(words))


def confusion_card(written: str, read: str, picture: str, truth: str, text: str, note: str) -> Markup:
    """Build a card for a confusion, with an example line.

    Args:
      written: HTML that shows the true character.
      read: HTML that shows the character that was read.
      picture: HTML of the line's image.
      truth: true text of the line.
      text: text that was read.
      note: frequency of the confusion.
    """
    return Markup(_macros().confusion_card(written, read, picture, truth, text, note))


def line_card(picture: str, truth: str, text: str | None, note: str) -> Markup:
    """Build a card for a line.

    Args:
      picture: HTML of the line's image.
      truth: true text of the line.
      text: text that was read, None if it is correct.
      note: reason for showing the line.
    """
    return Markup(_macros().line_card(picture, truth, text, note))


def reading_card(picture: str, pairs: Sequence[tuple[str, str, str]], note: str) -> Markup:
    """Build a card for a line, with its true text above what was read and every error marked.

    Args:
      picture: HTML of the line's image.
      pairs: true character, character that was read, and ``"same"``, ``"alike"`` or ``"wrong"``.
      note: where the line comes from.
    """
    return Markup(_macros().reading_card(picture, pairs, note))


def group_keys(groups: Sequence[str]) -> Markup:
    """Build the legend of a map, one color per group."""
    return Markup(_macros().group_keys(groups))
