"""Files of look-alike groups: one group per line, its characters side by side; ``#`` starts a comment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from jaxcrnn._files import written_whole
from jaxcrnn._text import read_text
from jaxcrnn.errors import UserError


def read_groups(path: str | Path) -> list[str]:
    """Read the groups of a file, in order. Spaces between characters are ignored.

    Args:
      path: file of groups.

    Returns:
      The groups, each a text of its characters.

    Raises:
      UserError: If the file cannot be read or has no groups, a group has only one character, or a character is
        duplicated.

    Examples:
      >>> import tempfile
      >>> from jaxcrnn.lookalikes.groups import read_groups
      >>> with tempfile.NamedTemporaryFile("w", encoding="utf-8") as file:
      ...     print("未 末  # similar strokes", file=file)
      ...     print("土士", file=file, flush=True)
      ...     read_groups(file.name)
      ['未末', '土士']
    """
    groups: list[str] = []
    lines: dict[str, int] = {}
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        group = "".join(line.split("#")[0].split())
        if not group:
            continue
        if len(group) == 1:
            raise UserError(f"{path}, line {number}: only one character, {group!r}; expected a group of two or more")
        for character in group:
            if character in lines:
                raise UserError(
                    f"{path}, line {number}: duplicate {character!r} (first on line {lines[character]}); expected each "
                    "character once"
                )
            lines[character] = number
        groups.append(group)
    if not groups:
        raise UserError(f"{path}: no groups; expected one group per line, its characters side by side")
    return groups


def write_groups(path: str | Path, groups: Iterable[str], comments: Sequence[str] = ()) -> None:
    """Write groups to a file, one per line, after comment lines.

    Args:
      path: file to write.
      groups: groups, each a text of its characters.
      comments: lines of text for the head of the file.

    Raises:
      UserError: If the file cannot be written.

    Examples:
      >>> import pathlib, tempfile
      >>> from jaxcrnn.lookalikes.groups import read_groups, write_groups
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     write_groups(pathlib.Path(folder, "groups.txt"), ["未末", "土士"], comments=["mined"])
      ...     read_groups(pathlib.Path(folder, "groups.txt"))
      ['未末', '土士']
    """
    rows = [f"# {line}\n" for line in comments] + [f"{group}\n" for group in groups]
    with written_whole(path) as part:
        part.write_text("".join(rows), encoding="utf-8")


def read_table(path: str | Path) -> set[frozenset[str]]:
    """Read the pairs of a published table of look-alikes in either of two formats.

    A row of tab-separated characters is a group: every two of them are a pair. A row of a character, a space and
    further characters lists candidates: the first character forms a pair with each of the others; there may be none.

    Args:
      path: file of the table.

    Returns:
      The pairs.

    Raises:
      UserError: If the file cannot be read or has no pairs, or a row has neither format; names the line.

    Examples:
      >>> import tempfile
      >>> from jaxcrnn.lookalikes.groups import read_table
      >>> with tempfile.NamedTemporaryFile("w", encoding="utf-8") as file:
      ...     print("未 末", file=file)
      ...     print("土 士王", file=file, flush=True)
      ...     pairs = read_table(file.name)
      >>> pairs == {frozenset("未末"), frozenset("土士"), frozenset("土王")}
      True
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
            raise UserError(
                f"{path}, line {number}: {line[:20]!r}; expected tab-separated characters, or a character, a space and "
                "its look-alikes"
            )
    if not pairs:
        raise UserError(f"{path}: no pairs; expected a table of look-alikes")
    return pairs
