"""Look-alike groups as text: one group a line, its characters side by side, ``#`` starts a comment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from jaxcrnn.charset import read_text
from jaxcrnn.errors import UserError


def read_groups(path: str | Path) -> list[str]:
    """The groups of a file, in its order. Spaces between characters mean nothing.

    Raises:
      UserError: the file cannot be read, holds no group, or has a group of one character or a character twice.
    """
    groups: list[str] = []
    lines: dict[str, int] = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        # A number sign that begins a line of several characters may itself be a look-alike, but never is one alone.
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
    try:
        Path(path).write_text("".join(rows), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; expected a file that can be written") from None
