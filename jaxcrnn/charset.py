"""The mapping between characters and class ids."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jaxcrnn._text import SMALL, read_text
from jaxcrnn.errors import UserError


def name_of(character: str) -> str:
    """Format a character for a message: itself and its code points, so look-alikes are distinguishable.

    Examples:
      >>> from jaxcrnn.charset import name_of
      >>> name_of("未")
      "'未' (U+672A)"
    """
    return f"{character!r} ({' '.join(f'U+{ord(c):04X}' for c in character)})"


@dataclass(frozen=True)
class Charset:
    """The characters that a recogniser can read, in the order of their class ids.

    Args:
      characters: unique characters, each a single code point.
      blank: class of the CTC blank, ``"first"`` (class 0, characters start at 1) or ``"last"`` (class C-1).

    Raises:
      UserError: If there are no characters, a character is duplicated or not a single code point, or ``blank`` is
        invalid.

    Examples:
      >>> from jaxcrnn.charset import Charset
      >>> charset = Charset("土士")
      >>> charset.encode("士土"), charset.num_classes, charset.blank
      ([2, 1], 3, 0)
    """

    characters: Sequence[str]
    blank: int = field(init=False)
    _ids: dict[str, int] = field(init=False, repr=False, compare=False)

    def __init__(self, characters: Iterable[str], blank: str = "first") -> None:
        self._build(list(characters), blank, "the charset", "character")

    def _build(self, items: list[str], blank: str, source: str, unit: str) -> None:
        if blank not in ("first", "last"):
            raise UserError(f"blank is {blank!r}; expected 'first' or 'last'")
        if not items:
            raise UserError(f"{source} is empty; expected at least one character")
        seen: dict[str, int] = {}
        for number, item in enumerate(items, start=1):
            if len(item) != 1:
                shown = name_of(item) if item else "empty"
                raise UserError(f"{source}, {unit} {number}: {shown}; expected a single code point")
            if item in "\r\n":
                raise UserError(
                    f"{source}, {unit} {number}: {name_of(item)} is a line break; expected a printable character"
                )
            if item in seen:
                raise UserError(f"{source}, {unit} {number}: duplicate {name_of(item)} (first at {unit} {seen[item]})")
            seen[item] = number
        first = 1 if blank == "first" else 0
        object.__setattr__(self, "characters", tuple(items))
        object.__setattr__(self, "blank", 0 if blank == "first" else len(items))
        object.__setattr__(self, "_ids", {c: i + first for i, c in enumerate(items)})

    @classmethod
    def from_file(cls, path: str | Path, blank: str = "first") -> Charset:
        """Read a charset from a UTF-8 file with one character per line; a line with a single space is the space.

        A byte order mark and Windows line ends are accepted.

        Args:
          path: file to read.
          blank: ``"first"`` or ``"last"``.

        Raises:
          UserError: If the file cannot be read or holds an invalid or duplicate character; names file, line and
            character.
        """
        lines = read_text(path, SMALL).split("\n")
        if lines[-1] == "":
            lines.pop()
        charset = cls.__new__(cls)
        charset._build([line.removesuffix("\r") for line in lines], blank, str(path), "line")
        return charset

    @classmethod
    def from_labels(cls, texts: Iterable[str], blank: str = "first") -> Charset:
        """Collect the characters that occur in texts, ordered by code point.

        Line breaks cannot be part of a charset and are skipped; the data audit reports the labels that contain them.

        Args:
          texts: labels.
          blank: ``"first"`` or ``"last"``.
        """
        return cls(sorted(set().union(*texts) - {"\r", "\n"}), blank)

    def save(self, path: str | Path) -> None:
        """Write the file that `from_file` reads. The position of the blank is not stored."""
        Path(path).write_text("".join(f"{c}\n" for c in self.characters), encoding="utf-8", newline="\n")

    @property
    def num_classes(self) -> int:
        """Number of classes C, including the blank."""
        return len(self.characters) + 1

    @property
    def blank_place(self) -> str:
        """Position of the blank, ``"first"`` or ``"last"``."""
        return "first" if self.blank == 0 else "last"

    @property
    def hash(self) -> str:
        """Hash of the characters, their order and the position of the blank: 16 hexadecimal digits."""
        return hashlib.sha256("\n".join([self.blank_place, *self.characters]).encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.characters)

    def __contains__(self, character: object) -> bool:
        return character in self._ids

    def missing(self, text: str) -> list[str]:
        """List the characters of a text that are not in the charset, each once, in order of appearance."""
        return list(dict.fromkeys(c for c in text if c not in self._ids))

    def encode(self, text: str) -> list[int]:
        """Convert a text to class ids.

        Raises:
          UserError: If a character is not in the charset; names the first such character and its position.
        """
        try:
            return [self._ids[c] for c in text]
        except KeyError:
            position = next(i for i, c in enumerate(text) if c not in self._ids)
            raise UserError(
                f"{name_of(text[position])} at position {position + 1} of {text!r} "
                f"is not one of the {len(self)} characters of the charset"
            ) from None

    def name(self, class_id: int) -> str:
        """Return the character of a class, or ``"(blank)"``.

        Raises:
          UserError: If the class id is out of range.
        """
        return "(blank)" if class_id == self.blank else self.decode([class_id])

    def decode(self, ids: Iterable[int]) -> str:
        """Convert collapsed class ids (without blanks and merged repeats) to a text.

        Raises:
          UserError: If an id is the blank or out of range.
        """
        first = 1 if self.blank == 0 else 0
        text = []
        for i in ids:
            if not 0 <= i < self.num_classes or i == self.blank:
                reason = "the blank" if i == self.blank else f"out of range for {self.num_classes} classes"
                raise UserError(f"class id {int(i)} is {reason}; expected the id of a character")
            text.append(self.characters[int(i) - first])
        return "".join(text)


def difference(charset: Charset, other: Charset) -> str:
    """Describe how a charset differs from another, for an error: ``has unexpected characters 'c', lacks 'a' 'b'``."""
    extra = [c for c in charset.characters if c not in other]
    lacking = [c for c in other.characters if c not in charset]
    parts = [
        f"{label} {' '.join(map(repr, cs[:5]))}{' ...' if len(cs) > 5 else ''}"
        for label, cs in (("has unexpected characters", extra), ("lacks", lacking))
        if cs
    ]
    if not parts and charset.characters != other.characters:
        parts = ["has the same characters in a different order"]
    if not parts:
        parts = [f"has the blank {charset.blank_place} instead of {other.blank_place}"]
    return ", ".join(parts)
