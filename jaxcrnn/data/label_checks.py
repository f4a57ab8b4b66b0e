"""Remarks on the characters of labels: what cannot be seen, or cannot be read from an image, without being a fault."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable

from jaxcrnn.charset import Charset, name_of
from jaxcrnn.data.normalize import OPERATIONS, normalize, other_width

MOST = 8  # kinds of remarks that are listed
EVERYTHING = "nfc,width,space"
# Visible categories have no glyph in these: Hangul fillers, the Braille blank, variation selectors.
_BLANK = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0\ufe00-\ufe0f\U000e0100-\U000e01ef]")

# Categories of characters without a name, apart from control characters, which labels may well contain.
_UNNAMED = {"Co": "private-use character", "Cn": "unassigned character", "Cs": "half of a surrogate pair"}


def is_invisible(character: str) -> bool:
    """Return whether a character other than the space leaves no mark of its own.

    Examples:
      >>> from jaxcrnn.data.label_checks import is_invisible
      >>> [is_invisible(c) for c in "a \\u3000\\u200b\\u200d"]
      [False, False, True, True, True]
    """
    return character != " " and (unicodedata.category(character)[0] in "CZ" or bool(_BLANK.match(character)))


class LabelChecks:
    """Collects remarks on labels, one after another.

    Args:
      charset: characters of the recogniser.
    """

    def __init__(self, charset: Charset) -> None:
        self.charset = charset
        self.counts: Counter[str] = Counter()
        self.first: dict[str, str] = {}
        self.fitting: Counter[str] = Counter()  # labels that an operation brings into the charset
        self.changeable = 0  # labels with remarks that normalization changes
        self.reversed = 0  # labels with right-to-left text
        self._plain = set(" ")
        self._right_to_left: set[str] = set()
        self._seen: set[str] = set()

    def add(self, text: str, where: Callable[[], str]) -> None:
        """Check a label; ``where`` returns its place and is called for the first of each kind only."""
        if not text:
            return
        characters = set(text)
        kinds = self._kinds(text, characters)
        self.changeable += bool(kinds) and normalize(text, EVERYTHING) != text
        for kind in kinds:
            self.counts[kind] += 1
            if kind not in self.first:
                self.first[kind] = where()
        self.reversed += not self._right_to_left.isdisjoint(characters)
        self._seen |= characters

    def _kinds(self, text: str, characters: set[str]) -> list[str]:
        kinds = [
            f"{place} with {self._described(c)}"
            for place, c in (("begin", text[0]), ("end", text[-1]))
            if c == " " or (c not in self._plain and is_invisible(c))
        ]
        inner = set(text[1:-1])
        for c in characters - self._plain:
            if is_invisible(c):
                kinds += [f"contain {self._described(c)}"] if c in inner else []
            else:
                self._plain.add(c)
                if unicodedata.bidirectional(c) in ("R", "AL"):
                    self._right_to_left.add(c)
        if "  " in text.strip(" "):
            kinds.append("contain several spaces in a row")
        if not unicodedata.is_normalized("NFC", text):
            kinds.append("are not in composed form (NFC)")
        return kinds

    def _described(self, character: str) -> str:
        """Name a character that cannot be shown."""
        if character == " ":
            return "a space"
        own = " (a class of its own)" if character in self.charset else ""
        unnamed = _UNNAMED.get(unicodedata.category(character), "control character")
        return f"U+{ord(character):04X} {unicodedata.name(character, unnamed)}{own}"

    def outside(self, text: str) -> None:
        """Check how a label with characters outside the charset could be brought into it."""
        for names in (*sorted(OPERATIONS), EVERYTHING):
            if (changed := normalize(text, names)) and not self.charset.missing(changed):
                self.fitting[names] += 1
                return

    def notes(self) -> list[str]:
        """Return the remarks, one a line."""
        ordered = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        lines = [f"labels that {kind}: {count} (first: {self.first[kind]})" for kind, count in ordered[:MOST]]
        if len(self.counts) > MOST:
            lines.append(f"... and {len(self.counts) - MOST} more kinds of labels to check")
        both = sorted(c for c in self._seen if other_width(c) != c and other_width(c) in self._seen)
        if both:
            shown = ", ".join(f"{name_of(c)} and {name_of(other_width(c))}" for c in both[:3])
            lines.append(f"characters in two widths, which are two classes: {len(both)} ({shown})")
        if self.changeable or both:
            lines.append(f"  to see what normalization changes, use --normalize {EVERYTHING} (data.normalize)")
        if self.reversed:
            lines.append(
                f"labels with right-to-left text: {self.reversed}; lines are read from left to right, so labels must "
                "be in visual order (docs/data.md)"
            )
        lines += [
            f"labels outside the charset that --normalize {names} brings into it: {count} (in training: "
            f"data.normalize={names})"
            for names, count in self.fitting.most_common()
        ]
        return lines
