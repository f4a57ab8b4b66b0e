"""Reading text files and exception messages."""

from __future__ import annotations

from pathlib import Path

from jaxcrnn.errors import UserError

_BOM = "\ufeff"
# Limits on the bytes of a text file: lists of millions of lines, and files that are never that long.
MOST, SMALL = 1 << 30, 1 << 24


def read_text(path: str | Path, most: int = MOST) -> str:
    """Read a UTF-8 file without its byte order mark; line ends are not converted.

    Args:
      path: path of the file, which may be a pipe.
      most: maximum size in bytes.

    Raises:
      UserError: the file is missing, a folder, not readable, too large, or not UTF-8 (naming the line).
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; expected a readable UTF-8 text file") from None
    if len(data) > most:
        raise UserError(f"{path}: larger than the limit of {most:,} bytes; expected a UTF-8 text file")
    try:
        return data.decode("utf-8").removeprefix(_BOM)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserError(
            f"{path}, line {line}: byte 0x{data[error.start]:02x} is not UTF-8; expected UTF-8 text"
        ) from None


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, or the name of its type if there is none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
