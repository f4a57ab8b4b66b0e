"""Look-alike groups as text: one group a line, its characters side by side, ``#`` starts a comment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from jaxcrnn._files import written_whole
from jaxcrnn._text import read_text
from jaxcrnn.errors import UserError


def read_groups(path: str | Path) -> list[str]:
    """The groups of a file, in its order. Spaces between characters mean nothing.

    Raises:
      UserError: the file cannot be read, holds no group, or has a group of one character or a character twice.
    """
    groups: list[str] = []
    lines: dict[str, int] = {}
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        group = "".join(line.split("#")[0].split())
        if not group:
            continue
        if len(group) == 1:
            raise UserError(f"{path}, line {number}: {group!r} stands alone; expected a group of two or more")
        for character in group:
            if character in lines:
                raise UserError(
                    f"{path}, line {number}: {character!r} is in the group of line {lines[character]} already; "
                    "expected each character once"
                )
            lines[character] = number
        groups.append(group)
    if not groups:
        raise UserError(f"{path}: no group in it; expected one group a line, its characters side by side")
    return groups


def write_groups(path: str | Path, groups: Iterable[str], comments: Sequence[str] = ()) -> None:
    """Writes groups, one a line, after comment lines.

    Raises:
      UserError: the file cannot be written.
    """
    rows = [f"# {line}\n" for line in comments] + [f"{group}\n" for group in groups]
    with written_whole(path) as part:
        part.write_text("".join(rows), encoding="utf-8")


def read_table(path: str | Path) -> set[frozenset[str]]:
    """The pairs of a published table of look-alikes, in either of its two formats.

    Rows of characters with tabs between them are groups: every two of a row are a pair. Rows of a character, a space
    and further characters are candidates: the first with each of the others is a pair; a row may have none.

    Raises:
      UserError: the file cannot be read, or a row is neither, naming its line.
    """
    pairs: set[frozenset[str]] = set()
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        line = line.removesuffix("\r")
        if not line.strip():
            continue
        group = line.split("\t")
        if len(group) > 1 and all(len(c) <= 1 for c in map(str.strip, group)):
            members = [c for c in map(str.strip, group) if c]
            pairs |= {frozenset((a, b)) for a in members for b in members if a != b}
        elif len(line) > 1 and line[1] == " " and " " not in line[2:].rstrip():
            pairs |= {frozenset((line[0], c)) for c in line[2:].rstrip() if c != line[0]}
        else:
            raise UserError(f"{path}, line {number}: {line[:20]!r}; expected characters with tabs between them, or a "
                            "character, a space and its look-alikes")  # fmt: skip
    if not pairs:
        raise UserError(f"{path}: no pair in it; expected a table of look-alikes")
    return pairs
