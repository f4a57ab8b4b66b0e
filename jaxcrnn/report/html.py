"""The report as one HTML file that needs nothing else: no script, no address outside, light and dark, phone and screen
reader. The template escapes every text that comes from data; what these functions return is HTML (`Markup`)."""

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
    """The template's macros; each returns `Markup`, with every argument escaped that is not."""
    environment = Environment(
        loader=PackageLoader("jaxcrnn", "resources"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template(TEMPLATE).module


class Section(NamedTuple):
    """A part of the page."""

    name: str
    heading: str
    body: str


def page(title: str, lead: str, sections: Sequence[Section]) -> Markup:
    """The whole file.

    Args:
      title: as text.
      lead: HTML before the sections.
      sections: with HTML bodies.
    """
    return Markup(_macros().page(title, lead, sections))


def text(*paragraphs: str) -> Markup:
    """Paragraphs of plain text."""
    return Markup(_macros().text(paragraphs))


def subheading(words: str) -> Markup:
    """A heading inside a section."""
    return Markup(_macros().subheading(words))


def bullets(items: Sequence[str]) -> Markup:
    """A list of plain texts."""
    return Markup(_macros().bullets(items))


def details(summary: str, body: str) -> Markup:
    """HTML that is folded away until it is asked for."""
    return Markup(_macros().details(summary, body))


def table(head: Sequence[str], rows: Sequence[Sequence[object]], label: str) -> Markup:
    """A table that scrolls by itself where the screen is narrow, by keyboard, too."""
    numeric = [all(_is_number(row[i]) for row in rows) for i in range(len(head))]
    return Markup(_macros().table(head, rows, numeric, label))


def _is_number(cell: object) -> bool:
    return isinstance(cell, int | float) or str(cell).strip("%+-").replace(".", "", 1).isdigit() or cell == ""


def charts(figures: Sequence[tuple[str, str]]) -> Markup:
    """Charts with captions, side by side where there is room."""
    return Markup(_macros().charts(figures))


def cards(items: Sequence[str]) -> Markup:
    """Boxes of HTML, side by side where there is room."""
    return Markup(_macros().cards(items))


def picture(gray: np.ndarray, alt: str, kind: str) -> Markup:
    """A gray image ``[h,w]`` inside the page."""
    data = base64.b64encode(to_png(gray)).decode()
    return Markup(_macros().picture(data, alt, kind, gray.shape[1], gray.shape[0]))


def span(words: str) -> Markup:
    """A text in a line."""
    return Markup(_macros().span(words))


def confusion_card(written: str, read: str, picture: str, truth: str, text: str, note: str) -> Markup:
    """A confusion with a line in which it happens.

    Args:
      written: HTML that shows the character written.
      read: HTML that shows what was read for it.
      picture: HTML of the line.
      truth: of the line.
      text: what was read there.
      note: how often it happens.
    """
    return Markup(_macros().confusion_card(written, read, picture, truth, text, note))


def line_card(picture: str, truth: str, text: str | None, note: str) -> Markup:
    """A line.

    Args:
      picture: HTML of the line.
      truth: of the line.
      text: what was read there, None where that is the truth.
      note: why the line is shown.
    """
    return Markup(_macros().line_card(picture, truth, text, note))


def group_keys(groups: Sequence[str]) -> Markup:
    """What the colors of a map stand for."""
    return Markup(_macros().group_keys(groups))
