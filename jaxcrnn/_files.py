"""Atomic file writes and the cache folder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxcrnn._text import first_line
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
