"""How a data set is laid out: the format and encoding of its list, and the folder that paths are relative to."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

import numpy as np

from jaxcrnn._console import notice
from jaxcrnn._files import printable
from jaxcrnn._text import read_text, same_encoding, split_lines
from jaxcrnn.data.images import MISSING, ImageError, Limits, read_gray
from jaxcrnn.errors import UserError

# Formats of label files, of other lists, and of folders.
LABEL_FILES = ("labels", "tsv", "space", "icdar")
FORMATS = ("auto", *LABEL_FILES, "csv", "json", "lmdb", "names")
ADVICE = "; save it as UTF-8, or name its encoding, such as gbk or utf-16, with --encoding (data.encoding)"
ANCESTORS = 4  # folders above the root in which a missing image is looked for


@dataclass(frozen=True)
class Layout:
    """Layout of a data set.

    Attributes:
      format: one of ``FORMATS``; ``"auto"`` detects it.
      encoding: text encoding of the list, and of file names that are not UTF-8.
      root: folder that the paths of a list are relative to; empty for the folder of the list.

    Raises:
      UserError: an unknown format or encoding.
    """

    format: str = "auto"
    encoding: str = "utf-8"
    root: str = ""

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise UserError(f"format is {self.format!r}; expected one of {', '.join(FORMATS)}")
        try:
            "a".encode(self.encoding)
            b"\xff\xff".decode(self.encoding, "replace")  # which codecs that are not for files lack
        except (LookupError, ValueError, UnicodeError):
            raise UserError(
                f"encoding is {self.encoding!r}; expected the name of a text encoding, such as utf-8, gbk, big5, "
                "shift_jis, utf-16"
            ) from None

    @property
    def is_utf8(self) -> bool:
        """Whether the encoding is UTF-8."""
        return same_encoding(self.encoding, "utf-8", "utf-8-sig")

    def text_of(self, path: Path) -> str:
        """Read the text of a list.

        Raises:
          UserError: the file cannot be read or is in another encoding.
        """
        text = read_text(path, encoding=self.encoding, advice=ADVICE)
        zeros = text[:4096].count("\0")
        if self.is_utf8 and zeros > 3 and 4 * zeros >= len(text[:4096]):
            raise UserError(f"{path}: {zeros} zero bytes, as in UTF-16 text; expected UTF-8 text{ADVICE}")
        if not self.is_utf8 and not text.isascii() and _is_utf8(text.encode(self.encoding)):
            notice(f"{path}: valid UTF-8, but read as {self.encoding} (data.encoding)")
        return text

    def lines_of(self, path: Path) -> list[str]:
        """Read the lines of a list."""
        return split_lines(path, self.text_of(path))

    def root_of(self, path: Path) -> Root:
        """Return the folder that the paths of a list are relative to.

        Raises:
          UserError: it does not exist.
        """
        if self.root and not Path(self.root).is_dir():
            raise UserError(f"{self.root}: no such folder; expected the folder of the images (--root, data.root)")
        return Root(Path(self.root) if self.root else path.parent, "utf-8" if self.is_utf8 else self.encoding)


class Root:
    """A folder that paths are relative to.

    Args:
      folder: the folder.
      encoding: encoding of file names that are not UTF-8.
    """

    def __init__(self, folder: Path, encoding: str = "utf-8") -> None:
        self.folder, self.encoding = folder, encoding
        self.own = tuple(os.path.join(of(folder), "") for of in (os.path.abspath, os.path.realpath))

    def leaves(self, name: str) -> bool:
        """Return whether a path, with ``/`` or ``\\``, leaves the folder.

        Links inside the folder may point elsewhere. Absolute paths are inside if they begin with the folder, or if
        their target is inside.
        """
        return self._leaves(name) or ("\\" in name and self._leaves(name.replace("\\", "/")))

    def _leaves(self, name: str) -> bool:
        path = os.path.normpath(name)
        if not os.path.isabs(name):
            return path.split(os.sep)[0] == os.pardir
        return not path.startswith(self.own) and not _resolved(path).startswith(self.own[1])

    def file(self, name: str) -> Path:
        """Return the file of a path of the list.

        A path that does not exist is also tried with ``/`` for ``\\``, and with its name in the encoding of the list,
        as unzip leaves it.
        """
        file = self.folder / name
        if ("\\" not in name and (self.encoding == "utf-8" or name.isascii())) or exists(file):
            return file
        slashed = name.replace("\\", "/")
        for other in (slashed, _as_bytes(slashed, self.encoding)):
            if other != name and exists(self.folder / other) and (self._leaves(name) or not self._leaves(other)):
                return self.folder / other
        return file

    def read(self, name: str, limits: Limits, file: Path | None = None) -> np.ndarray:
        """Read the image of a path of the list.

        Args:
          name: path in the list.
          limits: bounds on the size of the image.
          file: file to read; that of ``name`` by default.

        Raises:
          ImageError: as in `read_gray`; where to find a missing image, if it is in a folder above.
        """
        try:
            return read_gray(file or self.file(name), limits, name)
        except ImageError as error:
            if error.kind != MISSING:
                raise
            raise ImageError(MISSING, f"{name}: no such file{self._hint(name)}") from None

    def _hint(self, name: str) -> str:
        if PureWindowsPath(name).drive:
            return "; expected a path relative to the list instead of one with a drive"
        if os.path.isabs(name):
            return ""
        slashed, here = name.replace("\\", "/"), printable(self.folder)
        for folder in Path(os.path.abspath(self.folder)).parents[:ANCESTORS]:
            if exists(folder / slashed) and not self._leaves(slashed):
                above = printable(folder)
                return f" in {here}; it exists in {above}: --root {above} (data.root) reads it there"
        return f" in {here}"


def exists(file: Path) -> bool:
    """Return whether a file exists; False for names that no file can have."""
    try:
        return file.exists()
    except (OSError, ValueError):
        return False


def is_unicode(text: str) -> bool:
    """Return whether a text can be encoded; JSON may contain half of a surrogate pair."""
    try:
        return bool(text.encode())
    except UnicodeEncodeError:
        return False


def decoded(path: str | Path, layout: Layout) -> str:
    """Decode a file name that is not UTF-8 with the encoding of the layout.

    Raises:
      ValueError: it is in another encoding.
    """
    text = str(path)
    try:
        text.encode()
        return text
    except UnicodeEncodeError:
        if layout.is_utf8:
            advice = "rename it, or name its encoding with --encoding (data.encoding), such as gbk"
            raise ValueError(f"the file name '{printable(path)}' is not UTF-8; {advice}") from None
    try:
        text = os.fsencode(path).decode(layout.encoding)
        text.encode()
        return text
    except UnicodeError:
        raise ValueError(f"the file name '{printable(path)}' is not {layout.encoding.upper()}; rename it") from None


def _resolved(path: str) -> str:
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):
        return path


def _as_bytes(name: str, encoding: str) -> str:
    try:
        return os.fsdecode(name.encode(encoding))
    except UnicodeError:
        return name


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
