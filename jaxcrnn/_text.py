"""Reading text files, and shortening texts for messages."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from pathlib import Path

from jaxcrnn.errors import UserError

_BOM = "\ufeff"
_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # at the start of UTF-16 and UTF-32
# Limits on the bytes of a text file: lists of millions of lines, and files that are never that long.
MOST, SMALL = 1 << 30, 1 << 24


def read_text(path: str | Path, most: int = MOST, encoding: str = "utf-8", advice: str = "") -> str:
    """Read a text file without its byte order mark; line ends are not converted.

    Args:
      path: path of the file, which may be a pipe.
      most: maximum size in bytes.
      encoding: name of the text encoding.
      advice: added to the error of a file in another encoding, such as the option that selects it.

    Raises:
      UserError: the file is missing, a folder, not readable, too large, or in another encoding (naming the line).
    """
    name = encoding.upper()
    try:
        with Path(path).open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; expected a readable {name} text file") from None
    if len(data) > most:
        raise UserError(f"{path}: larger than the limit of {most:,} bytes; expected a {name} text file")
    is_utf8 = same_encoding(encoding, "utf-8", "utf-8-sig")
    if mark := next((mark for mark in _MARKS if data.startswith(mark)), None) if is_utf8 else None:
        raise UserError(f"{path}: UTF-16 text (starts with the bytes {mark.hex(' ')}); expected UTF-8 text{advice}")
    if not is_utf8 and data.startswith(codecs.BOM_UTF8):
        raise UserError(
            f"{path}: UTF-8 text (starts with its byte order mark), not {name}; expected {name} text, or utf-8 as its "
            f"encoding"
        )
    try:
        text = data.decode(encoding).removeprefix(_BOM)
        if not is_utf8:
            text.encode()  # some encodings can spell half of a surrogate pair
        return text
    except UnicodeEncodeError as error:
        line = error.object[: error.start].count("\n") + 1
        raise UserError(f"{path}, line {line}: half of a surrogate pair; expected {name} text{advice}") from None
    except UnicodeError as error:
        start = getattr(error, "start", 0)
        line = data[:start].decode(encoding, "replace").count("\n") + 1
        raise UserError(
            f"{path}, line {line}: byte 0x{data[start]:02x} is not {name}; expected {name} text{advice}"
        ) from None


def same_encoding(name: str, *others: str) -> bool:
    """Return whether two names, such as ``utf8`` and ``UTF-8``, are of the same encoding."""
    return codecs.lookup(name).name in others


def split_lines(path: str | Path, text: str) -> list[str]:
    """Split the text of a file into lines, without LF or CRLF.

    Args:
      path: path of the file, for messages.
      text: content of the file.

    Raises:
      UserError: the lines end in CR only.
    """
    if "\n" not in text and "\r" in text.rstrip("\r"):
        raise UserError(
            f"{path}: {text.count(chr(13))} line ends are CR alone (old Mac); expected LF or CRLF, as "
            f"\"tr '\\r' '\\n' < {Path(path).name} > NEW\" makes them"
        )
    return [line.rstrip("\r") for line in text.split("\n")]


def quoted(text: str, most: int = 40) -> str:
    """Quote a text for a message, without what follows its first characters.

    >>> quoted("a.png\\t01"), quoted("0123456789", 4)
    ("'a.png\\\\t01'", "'0123...'")
    """
    return repr(text if len(text) <= most else text[:most] + "...")


def listed(items: Sequence[object], most: int) -> str:
    """List the first items for a message.

    >>> listed("abc", 3), listed([1, 2, 3, 4], 3)
    ('a, b, c', '1, 2, 3, ...')
    """
    return ", ".join(map(str, items[:most])) + (", ..." if len(items) > most else "")


def counted(count: int, noun: str) -> str:
    """Format a number of things.

    >>> counted(1, "file"), counted(2_000, "file")
    ('1 file', '2,000 files')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, or the name of its type if there is none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
