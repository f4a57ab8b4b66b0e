"""The mapping between characters and class ids."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jaxcrnn import _console
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


def breaks(text: str) -> bool:
    """Return whether a text contains a tab or a line break, which end a column or a line of every text format here."""
    return "\t" in text or "\n" in text or "\r" in text


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
        self._build(list(enumerate(characters, start=1)), blank, "the charset", "character")

    def _build(self, items: list[tuple[int, str]], blank: str, source: str, unit: str) -> None:
        if blank not in ("first", "last"):
            raise UserError(f"blank is {blank!r}; expected 'first' or 'last'")
        if not items:
            raise UserError(f"{source} is empty; expected at least one character")
        seen: dict[str, int] = {}
        for number, item in items:
            if len(item) != 1:
                raise UserError(f"{source}, {unit} {number}: {_not_one(item)}")
            if item in "\r\n":
                raise UserError(
                    f"{source}, {unit} {number}: {name_of(item)} is a line break; expected a printable character"
                )
            if item in seen:
                raise UserError(f"{source}, {unit} {number}: duplicate {name_of(item)} (first at {unit} {seen[item]})")
            seen[item] = number
        first = 1 if blank == "first" else 0
        object.__setattr__(self, "characters", tuple(seen))
        object.__setattr__(self, "blank", 0 if blank == "first" else len(items))
        object.__setattr__(self, "_ids", {c: i + first for i, c in enumerate(seen)})

    @classmethod
    def from_file(
        cls, path: str | Path, blank: str = "first", notice: Callable[[str], None] = _console.notice
    ) -> Charset:
        """Read a charset from a UTF-8 file with one character per line; a line with a single space is the space.

        A byte order mark and line ends of Windows or old Macs are accepted. These dictionaries of other programs are
        accepted too, with a notice: whitespace after a character, empty lines at the end (or anywhere if the space has
        a line of its own), letters and accents that compose to a single code point, and a whole alphabet on one line.

        Args:
          path: file to read.
          blank: ``"first"`` or ``"last"``.
          notice: called with a line of text that describes what was corrected; prints to stderr by default.

        Raises:
          UserError: If the file cannot be read or holds an invalid or duplicate character; names file, line and
            character.

        Examples:
          >>> import tempfile
          >>> from jaxcrnn.charset import Charset
          >>> with tempfile.NamedTemporaryFile("w", encoding="utf-8") as file:
          ...     print("0123456789", file=file, flush=True)
          ...     Charset.from_file(file.name, notice=lambda text: None).num_classes
          11
        """
        items, corrections = _corrected(_lines(read_text(path, SMALL)))
        charset, source, unit = cls.__new__(cls), str(path), "line"
        if len(items) == 1 and len(alphabet := _alphabet(items[0][1])) > 1:
            space = ", the space too" if " " in alphabet else ""
            corrections.append(f"one line of {len(alphabet)} characters, each read as a class, in this order{space}")
            items, source, unit = list(enumerate(alphabet, start=1)), f"{path}, line 1", "character"
        charset._build(items, blank, source, unit)
        if corrections:
            notice(f"{path}: {'; '.join(corrections)}")
        return charset

    @classmethod
    def from_labels(cls, texts: Iterable[str], blank: str = "first") -> Charset:
        """Collect the characters that occur in texts, ordered by code point.

        Labels with a tab or a line break are skipped; the data audit reports them as faults, because a tab begins
        another column, such as a score.

        Args:
          texts: labels.
          blank: ``"first"`` or ``"last"``.
        """
        return cls(sorted(set().union(*(text for text in texts if not breaks(text)))), blank)

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


def _lines(text: str) -> list[str]:
    """Split a file into lines, without the empty one after the last line end."""
    lines = text.split("\r") if "\n" not in text else [line.removesuffix("\r") for line in text.split("\n")]
    return lines[:-1] if lines[-1] == "" else lines


def _corrected(lines: list[str]) -> tuple[list[tuple[int, str]], list[str]]:
    """Return the numbered characters of a charset file, and descriptions of what was unambiguously corrected."""
    items = [_single(line) for line in lines]
    last = max((number for number, item in enumerate(items, start=1) if item), default=0)
    # An empty line before the last character may be a space that an editor has trimmed, unless the space is elsewhere.
    skipped = [n for n, item in enumerate(items, start=1) if not item and last and (n > last or " " in items)]
    dropped = set(skipped)
    changed = [(n, lines[n - 1], item) for n, item in enumerate(items, start=1) if lines[n - 1] != item]
    trimmed = [n for n, line, item in changed if item in line]
    composed = [(n, name_of(line.strip()), name_of(item)) for n, line, item in changed if item not in line]
    shown = [f"line {n}, {before}, to {after}" for n, before, after in composed[:3]]
    corrections = [
        (trimmed, "dropped whitespace beside the character on " + _numbers(trimmed)),
        (skipped, "skipped empty " + _numbers(skipped)),
        (composed, f"composed {', '.join(shown)}{', ...' if len(composed) > 3 else ''}"),
    ]
    pairs = [pair for pair in enumerate(items, start=1) if pair[0] not in dropped]
    return pairs, [text for which, text in corrections if which]


def _single(line: str) -> str:
    """Return the one character that a line of a charset file stands for, or the line itself if it is unclear."""
    bare = line.strip(" \t") or line[:1]  # of several blanks the first
    composed = unicodedata.normalize("NFC", bare)
    return bare if len(bare) == 1 else composed if len(composed) == 1 else line


def _numbers(lines: list[int]) -> str:
    shown = ", ".join(map(str, lines[:3])) + (f", ... ({len(lines)} lines)" if len(lines) > 3 else "")
    return f"line{'s' if len(lines) > 1 else ''} {shown}"


def _alphabet(line: str) -> list[str]:
    """Return the characters of an alphabet on a single line, side by side or separated; none if that is unclear."""
    for separator in (", ", ",", "\t", " "):
        parts = line.split(separator)
        if len(parts) > 2 and all(len(part) == 1 for part in parts):
            return parts
    special = line.startswith(("<", "[", "{")) and line.endswith((">", "]", "}"))
    return [] if special or line != line.strip() or breaks(line) else list(line)


def _not_one(item: str) -> str:
    """Explain why an entry of a charset is not one character, and how to correct it."""
    if not item:
        return "empty; expected a single code point (a line with one space is the space; otherwise delete the line)"
    shown = name_of(item) if len(item) <= 8 else f"{item[:8]!r}... ({len(item)} code points)"
    first, *others = item.split()[:2] or [""]
    if item.startswith(("<", "[")) and item.endswith((">", "]")):
        fix = "delete special tokens; the blank is added automatically"
    elif len(first) == 1 and others:
        fix = "delete what follows the character"
    elif "\t" in item:
        fix = "this looks like a label file; a charset lists characters, one per line"
    else:
        fix = "a class is one code point, and labels are split into code points; give each a line of its own"
    return f"{shown}; expected a single code point ({fix})"
