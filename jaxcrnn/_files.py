"""Writing files so that they are there whole or not at all."""

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
    """A place beside a file to write to, which becomes the file when all went well; what was there stays until then.

    Args:
      path: of the file.
      errors: what the writer raises, besides OSError, where a file cannot be written.

    Raises:
      UserError: it could not be written.
    """
    path = Path(path)
    part = path.with_name(path.name + ".part")
    expected: tuple[type[Exception], ...] = (OSError, *errors)
    try:
        yield part
        part.replace(path)
    except expected as error:
        reason = (isinstance(error, OSError) and error.strerror) or first_line(error)
        raise UserError(f"{path}: {reason}; expected a file that can be written") from None
    finally:
        part.unlink(missing_ok=True)


def write_json(path: str | Path, value: Any) -> None:
    """Writes a file of JSON for people and programs, whole or not at all."""
    with written_whole(path) as part:
        part.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def can_be_written(path: str | Path) -> None:
    """A look before the work instead of a failure after it.

    Raises:
      UserError: it is a folder, or would be in none.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path}: Is a directory; expected a file in a folder that exists")
    if not path.parent.is_dir():
        raise UserError(f"{path}: No such file or directory; expected a file in a folder that exists")


def cache_folder() -> Path:
    """Where this package keeps what it can make again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "jaxcrnn"
