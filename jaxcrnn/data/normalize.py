"""Explicit normalization of labels: composed characters, half-width forms, and spaces."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np

from jaxcrnn.data.images import Limits
from jaxcrnn.data.source import Fault, Source
from jaxcrnn.errors import UserError

# Format characters that a picture of the text does not show: zero-width space, word joiner, byte order mark, soft
# hyphen, marks of direction. The joiners U+200C and U+200D and variation selectors change glyphs and are kept.
INVISIBLE = "\u00ad\u061c\u180e\u200b\u200e\u200f\u2060-\u2064\u202a-\u202e\u2066-\u2069\ufeff"
_DROPPED = re.compile(f"[{INVISIBLE}]")
_SPACES = re.compile(r"[^\S\t\r\n]+")
EXAMPLES = 3
Opener = TypeVar("Opener", bound=Callable[..., Source])


@functools.cache
def other_width(character: str) -> str:
    """Return the common form of a full-width or half-width character, else the character itself."""
    kind, _, codes = unicodedata.decomposition(character).partition(" ")
    return "".join(chr(int(code, 16)) for code in codes.split()) if kind in ("<wide>", "<narrow>") else character


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _width(text: str) -> str:
    """Replace full-width ASCII and the ideographic space by ASCII, and half-width kana by kana."""
    if text.isascii():
        return text
    changed = "".join(map(other_width, text))
    # The voicing marks of half-width kana become combining marks, which belong to the kana before.
    return re.sub("[\u3041-\u30fe][\u3099\u309a]", lambda pair: _nfc(pair[0]), changed)


def _space(text: str) -> str:
    """Drop invisible characters and outer whitespace, and make one space of other whitespace; inner tabs stay."""
    return _SPACES.sub(" ", _DROPPED.sub("", text)).strip()


OPERATIONS: dict[str, Callable[[str], str]] = {"width": _width, "space": _space, "nfc": _nfc}
"""Operations in the order in which they are applied, until none of them changes the text.

- ``width`` replaces full-width ASCII and the ideographic space (U+3000) by ASCII, and half-width kana by kana.
- ``space`` drops spaces at both ends and invisible characters such as U+200B, and makes one space of other whitespace.
- ``nfc`` composes letters and their accents (Unicode normalization form C).
"""


def operations(names: str) -> tuple[str, ...]:
    """Parse a comma-separated list of operations, in the order in which they are applied.

    Raises:
      UserError: an unknown operation.

    Examples:
      >>> from jaxcrnn.data.normalize import operations
      >>> operations("space, width")
      ('width', 'space')
    """
    chosen = [name.strip() for name in names.split(",") if name.strip()]
    for name in chosen:
        if name not in OPERATIONS:
            raise UserError(f"unknown normalization {name!r}; expected some of {', '.join(sorted(OPERATIONS))}")
    return tuple(name for name in OPERATIONS if name in chosen)


def normalize(text: str, names: str) -> str:
    """Normalize a text.

    Args:
      text: label.
      names: comma-separated operations; see `OPERATIONS`.

    Raises:
      UserError: an unknown operation.

    Examples:
      >>> from jaxcrnn.data.normalize import normalize
      >>> normalize("\\u3000１２ ", "nfc,width,space")
      '12'
    """
    return _applied(text, operations(names))[0]


def _applied(text: str, names: tuple[str, ...]) -> tuple[str, set[str]]:
    """Apply operations until none changes the text; return it and the names of those that changed it."""
    changed_by: set[str] = set()
    while True:
        before = text
        for name in names:
            changed = OPERATIONS[name](text)
            if changed != text:
                changed_by.add(name)
                text = changed
        # Dropping a character may put a letter and its mark side by side, which another operation then composes.
        if text == before:
            return text, changed_by


class Normalized:
    """A `Source` with normalized labels; what was changed is counted.

    Args:
      source: source of the rows.
      names: comma-separated operations; see `OPERATIONS`.

    Attributes:
      texts: normalized labels of the changed rows.
      counts: number of labels that each operation changed.
      examples: descriptions of the first changes.

    Raises:
      UserError: an unknown operation.
    """

    def __init__(self, source: Source, names: str) -> None:
        self.source, self.names = source, ",".join(operations(names))
        self.faults: list[Fault] = source.faults
        self.texts: dict[int, str] = {}
        self.counts: Counter[str] = Counter()
        self.examples: list[str] = []
        chosen = operations(names)
        for index in range(len(source)):
            before = source.text(index)
            text, changed_by = _applied(before, chosen)
            self.counts.update(changed_by)
            if text != before:
                self.texts[index] = text
                if len(self.examples) < EXAMPLES:
                    shown = repr if _nfc(before) == before else ascii  # composed or not, letters look the same
                    self.examples.append(f"{source.where(index)}: {shown(before)} becomes {shown(text)}")

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[np.ndarray, str]:
        return self.source[index][0], self.text(index)

    def text(self, index: int) -> str:
        return self.texts[index] if index in self.texts else self.source.text(index)

    def name(self, index: int) -> str:
        return self.source.name(index)

    def where(self, index: int) -> str:
        return self.source.where(index)

    def identity(self, index: int) -> Hashable:
        return self.source.identity(index)


def normalized(source: Source, names: str) -> Source:
    """Return a source with normalized labels; the same source if there is nothing to do."""
    chosen = ",".join(operations(names))
    done = isinstance(source, Normalized) and source.names == chosen
    return source if done or not chosen else Normalized(source, chosen)


def normalizing(opener: Opener) -> Opener:
    """Decorate a function of a path and limits that opens a data set: its labels are normalized as the limits say."""

    @functools.wraps(opener)
    def opened(path: str | Path, limits: Limits | None = None, *args: Any, **options: Any) -> Source:
        return normalized(opener(path, limits, *args, **options), limits.normalize if limits else "")

    return cast(Opener, opened)


def report(source: Source) -> list[str]:
    """Describe what was normalized in a source and its parts, one line for the counts and each of the first changes."""
    lines: list[str] = []
    if isinstance(source, Normalized):
        counts = ", ".join(f"{name} {source.counts[name]}" for name in source.names.split(","))
        lines = [f"normalized {len(source.texts)} labels ({counts})", *(f"  {line}" for line in source.examples)]
        if len(source.texts) > EXAMPLES:
            lines.append(f"  ... and {len(source.texts) - EXAMPLES} more")
        return lines + report(source.source)
    for part in getattr(source, "parts", ()):
        lines += report(part)
    return lines
