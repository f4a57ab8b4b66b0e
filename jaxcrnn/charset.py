"""Text <-> class ids."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jaxcrnn._text import SMALL, read_text
from jaxcrnn.errors import UserError


def name_of(character: str) -> str:
    """A character as messages show it: itself and its code points, so that look-alikes differ on screen.

    >>> name_of("未")
    "'未' (U+672A)"
    """
    return f"{character!r} ({' '.join(f'U+{ord(c):04X}' for c in character)})"


@dataclass(frozen=True)
class Charset:
    """The characters a recogniser knows, in the order of their class ids.

    Args:
      characters: the characters, each one code point, none twice.
      blank: where the CTC blank stands: ``"first"`` (class 0, characters from 1) or ``"last"`` (class C-1).

    Raises:
      UserError: no character, a duplicate, an item that is not one code point, an unknown ``blank``.

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
            raise UserError(f"{source} has no character; expected at least one")
        seen: dict[str, int] = {}
        for number, item in enumerate(items, start=1):
            if len(item) != 1:
                shown = name_of(item) if item else "nothing"
                raise UserError(f"{source}, {unit} {number}: {shown}; expected one code point")
            if item in "\r\n":
                raise UserError(
                    f"{source}, {unit} {number}: {name_of(item)} ends a line; expected a printable character"
                )
            if item in seen:
                raise UserError(f"{source}, {unit} {number}: {name_of(item)} stands already at {unit} {seen[item]}")
            seen[item] = number
        first = 1 if blank == "first" else 0
        object.__setattr__(self, "characters", tuple(items))
        object.__setattr__(self, "blank", 0 if blank == "first" else len(items))
        object.__setattr__(self, "_ids", {c: i + first for i, c in enumerate(items)})

    @classmethod
    def from_file(cls, path: str | Path, blank: str = "first") -> Charset:
        """Reads one character a line, UTF-8; a line that holds a space is the space.

        A byte order mark and Windows line ends are accepted.

        Raises:
          UserError: naming the file, the line and the character; also when the file cannot be read.
        """
        lines = read_text(path, SMALL).split("\n")
        if lines[-1] == "":
            lines.pop()
        charset = cls.__new__(cls)
        charset._build([line.removesuffix("\r") for line in lines], blank, str(path), "line")
        return charset

    @classmethod
    def from_labels(cls, texts: Iterable[str], blank: str = "first") -> Charset:
        """The characters that occur in ``texts``, in the order of their code points.

        Line ends can be in no charset and are left out: the audit names the labels that have them.
        """
        return cls(sorted(set().union(*texts) - {"\r", "\n"}), blank)

    def save(self, path: str | Path) -> None:
        """Writes the file that ``from_file`` reads. The place of the blank is not in it."""
        Path(path).write_text("".join(f"{c}\n" for c in self.characters), encoding="utf-8", newline="\n")

    @property
    def num_classes(self) -> int:
        """Classes with the blank: C."""
        return len(self.characters) + 1

    @property
    def blank_place(self) -> str:
        """``"first"`` or ``"last"``."""
        return "first" if self.blank == 0 else "last"

    @property
    def hash(self) -> str:
        """A fingerprint of characters, their order and the blank's place."""
        return hashlib.sha256("\n".join([self.blank_place, *self.characters]).encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.characters)

    def __contains__(self, character: object) -> bool:
        return character in self._ids

    def missing(self, text: str) -> list[str]:
        """The characters of ``text`` that the charset lacks, each once, in order."""
        return list(dict.fromkeys(c for c in text if c not in self._ids))

    def encode(self, text: str) -> list[int]:
        """Class ids of a text.

        Raises:
          UserError: naming the first character that the charset lacks and its position.
        """
        try:
            return [self._ids[c] for c in text]
        except KeyError:
            position = next(i for i, c in enumerate(text) if c not in self._ids)
            raise UserError(
                f"{name_of(text[position])} at position {position + 1} of {text!r} "
                f"is not among the {len(self)} characters of the charset"
            ) from None

    def name(self, class_id: int) -> str:
        """The character of a class, or ``"(blank)"``.

        Raises:
          UserError: the id is outside the classes.
        """
        return "(blank)" if class_id == self.blank else self.decode([class_id])

    def decode(self, ids: Iterable[int]) -> str:
        """The text of class ids that are already collapsed: no blank among them.

        Raises:
          UserError: an id that is the blank or outside the classes.
        """
        first = 1 if self.blank == 0 else 0
        text = []
        for i in ids:
            if not 0 <= i < self.num_classes or i == self.blank:
                what = "the blank" if i == self.blank else f"outside the {self.num_classes} classes"
                raise UserError(f"class id {int(i)} is {what}; expected the id of a character")
            text.append(self.characters[int(i) - first])
        return "".join(text)


def difference(charset: Charset, other: Charset) -> str:
    """What sets a charset apart from another, for an error: ``lacks 'a' 'b', has besides 'c'``."""
    extra = [c for c in charset.characters if c not in other]
    lacking = [c for c in other.characters if c not in charset]
    parts = [
        f"{label} {' '.join(map(repr, cs[:5]))}{' ...' if len(cs) > 5 else ''}"
        for label, cs in (("has besides", extra), ("lacks", lacking))
        if cs
    ]
    if not parts and charset.characters != other.characters:
        parts = ["has the same characters in another order"]
    if not parts:
        parts = [f"has the blank {charset.blank_place} instead of {other.blank_place}"]
    return ", ".join(parts)
