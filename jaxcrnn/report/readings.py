"""Section of the report page that shows lines as pictures, each with its true text and what was read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxcrnn.lookalikes import confusions
from jaxcrnn.report import html
from jaxcrnn.report.html import Section


class Shown(NamedTuple):
    """A line that was read.

    Attributes:
      image: ``[h,w]`` uint8.
      truth: true text.
      text: text that was read.
      note: where the line comes from.
    """

    image: np.ndarray
    truth: str
    text: str
    note: str


class Marked(NamedTuple):
    """A character of the true text and the one that was read.

    Attributes:
      written: true character; empty if the one that was read is unexpected.
      read: character that was read; empty if it is missing.
      kind: ``"same"``, ``"alike"`` (read as another character of its group) or ``"wrong"``.
    """

    written: str
    read: str
    kind: str


def marked(truth: str, text: str, groups: Sequence[str]) -> list[Marked]:
    """Align a reading with the true text and classify each character.

    >>> [pair.kind for pair in marked("未土日", "末土目", ["未末"])]
    ['alike', 'same', 'wrong']
    """
    group = confusions.members(groups)

    def kind(written: str, read: str) -> str:
        if written == read:
            return "same"
        return "alike" if written and read and group.get(written, -1) == group.get(read) else "wrong"

    return [Marked(written, read, kind(written, read)) for written, read in confusions.align(truth, text, group)]


def summary(lines: Sequence[Shown], groups: Sequence[str]) -> str:
    """Count the characters that were read correctly, as a look-alike, and otherwise.

    >>> summary([Shown(np.zeros((1, 1), np.uint8), "未土", "末土", "")], ["未末"])
    '1 of 2 characters read correctly, 1 as a look-alike, 0 otherwise wrong'
    """
    kinds = [pair.kind for line in lines for pair in marked(line.truth, line.text, groups)]
    total = sum(len(line.truth) for line in lines)
    return (
        f"{kinds.count('same')} of {total} characters read correctly, {kinds.count('alike')} as a look-alike, "
        f"{kinds.count('wrong')} otherwise wrong"
    )


def section(heading: str, explained: str, lines: Sequence[Shown], groups: Sequence[str], after: str = "") -> Section:
    """Build the section.

    Args:
      heading: heading of the section.
      explained: text before the lines.
      lines: lines to show, in this order.
      groups: look-alike groups.
      after: HTML after the lines.
    """
    cards = [
        html.reading_card(
            html.picture(line.image, f"image of the line {line.truth}", "line"),
            marked(line.truth, line.text, groups),
            line.note,
        )
        for line in lines
    ]
    return Section("readings", heading, html.text(explained) + html.cards(cards, compact=True) + after)
