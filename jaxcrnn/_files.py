"""Atomic file writes, walking folders, and the cache folder."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from jaxcrnn._text import counted, first_line
from jaxcrnn.errors import UserError


@contextmanager
def written_whole(path: str | Path, *errors: type[Exception]) -> Iterator[Path]:
    """Yield a temporary path next to a file, and rename it to the file on success; an old file is kept until then.

    Args:
      path: path of the file.
      errors: exceptions, in addition to OSError, that the writer raises if the file cannot be written.

    Raises:
      UserError: the file could not be written.
    """
    path = Path(path)
    part = path.with_name(path.name + ".part")
    expected: tuple[type[Exception], ...] = (OSError, *errors)
    try:
        yield part
        part.replace(path)
    except expected as error:
        reason = (isinstance(error, OSError) and error.strerror) or first_line(error)
        raise UserError(f"{path}: {reason}; expected a writable file") from None
    finally:
        part.unlink(missing_ok=True)


# What file managers and archives leave behind, in addition to names that begin with a dot.
_HIDDEN = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir"})


class Walk(NamedTuple):
    """Files at any depth of a folder.

    Attributes:
      files: paths that begin with the folder, sorted; broken links count as files.
      hidden: number of hidden files and folders that were skipped.
      repeated: linked folders that were skipped because their content was already listed, as in a loop.
      unreadable: subfolders that could not be opened, with the reason.
    """

    files: list[Path]
    hidden: int
    repeated: list[Path]
    unreadable: list[tuple[Path, str]]

    def skipped(self, folder: Path, *others: str) -> str:
        """Describe what was skipped, for a notice; empty if nothing was.

        Args:
          folder: folder that names are relative to.
          *others: what the caller skipped, such as ``"2 non-image files"``.
        """
        parts = [other for other in others if other]
        if self.hidden:
            parts.append(f"{self.hidden} hidden {'file or folder' if self.hidden == 1 else 'files or folders'}")
        if self.repeated:
            first = printable(self.repeated[0].relative_to(folder))
            parts.append(f"{counted(len(self.repeated), 'linked folder')} with files that are already listed ({first})")
        if self.unreadable:
            path, reason = self.unreadable[0]
            count = counted(len(self.unreadable), "unreadable folder")
            parts.append(f"{count} ({printable(path.relative_to(folder))}: {reason})")
        return f"{printable(folder)}: skipped {', '.join(parts)}" if parts else ""


def walk(folder: str | Path) -> Walk:
    """List the files of a folder and its subfolders, following links to folders.

    Each folder is listed once, under its own path rather than that of a link, so loops end. Hidden files and folders
    are skipped: names that begin with a dot, and files that file managers create (``Thumbs.db``).

    Raises:
      UserError: the folder itself cannot be opened.
    """
    top = Path(folder)
    result = Walk([], 0, [], [])
    hidden = 0
    seen: set[tuple[int, int]] = set()
    queue = deque([top])
    while queue:
        here = queue.popleft()
        try:
            status = here.stat()
            if (status.st_dev, status.st_ino) in seen:
                result.repeated.append(here)
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(here) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            if here == top:
                raise UserError(f"{folder}: {error.strerror or error}; expected a readable folder") from None
            result.unreadable.append((here, error.strerror or str(error)))
            continue
        for entry in listed:
            if entry.name.startswith(".") or entry.name.lower() in _HIDDEN:
                hidden += 1
            elif not _is_folder(entry):
                result.files.append(here / entry.name)
            elif entry.is_symlink():
                queue.append(here / entry.name)
            else:  # before all links, so that files are listed under their own paths
                queue.appendleft(here / entry.name)
    result.files.sort()
    return result._replace(hidden=hidden)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def printable(path: str | Path) -> str:
    """Return a path for messages, with bytes that are not UTF-8 as ``\\xd6``.

    >>> printable("a\\udcd6.png")
    'a\\\\xd6.png'
    """
    try:
        return os.fsencode(path).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half of a surrogate pair, as YAML may contain
        return str(path).encode("utf-8", "backslashreplace").decode()


def write_json(path: str | Path, value: Any) -> None:
    """Write an indented JSON file atomically."""
    with written_whole(path) as part:
        part.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def can_be_written(path: str | Path) -> None:
    """Check that a path can be written, to fail before the work rather than after it.

    Raises:
      UserError: it is a folder, or its parent folder does not exist.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path}: Is a directory; expected a file in an existing folder")
    if not path.parent.is_dir():
        raise UserError(f"{path}: No such file or directory; expected a file in an existing folder")


def cache_folder() -> Path:
    """Return the folder of files that the package can recreate."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "jaxcrnn"
