"""Label files: UTF-8, one line of ``path<TAB>text`` per image, with paths relative to the file."""

from __future__ import annotations

import json
import os
from collections.abc import Hashable
from pathlib import Path

import numpy as np
from PIL import Image

from jaxcrnn._text import read_text
from jaxcrnn.data.images import Limits, read_gray
from jaxcrnn.data.source import MALFORMED, Fault, Source
from jaxcrnn.errors import UserError

OUTSIDE = "path outside its folder"
ALLOW = "--set data.allow_outside=true (with a trained run: --allow-outside)"


class LabelFile:
    """A label file as a `Source`.

    Windows line ends, a byte order mark and empty lines are accepted. The text starts after the first tab and is kept
    unchanged, including leading and trailing spaces. A JSON list of paths, as PaddleOCR writes it, gives one row for
    each. Lines without a tab are added to ``faults``, as are paths outside the file's folder unless
    ``limits.outside``.

    Raises:
      UserError: the file cannot be read, is not UTF-8, or has no lines.
    """

    def __init__(self, path: str | Path, limits: Limits | None = None) -> None:
        self.path = Path(path)
        self.limits = limits or Limits()
        self.faults: list[Fault] = []
        self.rows: list[tuple[int, str, str]] = []
        outside = self.limits.outside
        for number, line in enumerate(read_text(self.path).split("\n"), start=1):
            line = line.removesuffix("\r")
            if not line:
                continue
            name, tab, text = line.partition("\t")
            if tab and name:
                names = _names(name)
                self.rows += [(number, each, text) for each in names if outside or not leaves(each)]
                where = f"{self.path}, line {number}"
                self.faults += [leaving(where, each) for each in names if not outside and leaves(each)]
            else:
                shown = line if len(line) <= 40 else line[:40] + "..."
                self.faults.append(
                    Fault(MALFORMED, f"{self.path}, line {number}", f"{shown!r}; expected path<TAB>text")
                )
        if not self.rows and not self.faults:
            raise UserError(f"{self.path}: no lines; expected path<TAB>text")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[np.ndarray, str]:
        _, name, text = self.rows[index]
        return read_gray(self.path.parent / name, self.limits, name), text

    def text(self, index: int) -> str:
        return self.rows[index][2]

    def name(self, index: int) -> str:
        return self.rows[index][1]

    def where(self, index: int) -> str:
        return f"{self.path}, line {self.rows[index][0]}"

    def identity(self, index: int) -> Hashable:
        return identity(self.path.parent / self.rows[index][1])


def leaves(name: str) -> bool:
    """Return whether a path leaves the folder that it is relative to; symbolic links are not followed."""
    return os.path.isabs(name) or os.path.normpath(name).split(os.sep)[0] == os.pardir


def leaving(where: str, name: str) -> Fault:
    """Create the fault of a row whose path leaves its folder."""
    return Fault(OUTSIDE, where, f"{name[:80]!r}; expected a path inside the folder, or {ALLOW}")


def identity(file: Path) -> Hashable:
    """Return a value that is equal for two names of the same file; the name itself if it cannot be resolved."""
    try:
        return file.resolve()
    except (OSError, RuntimeError, ValueError):
        return str(file)


def _names(name: str) -> list[str]:
    """Return the paths of one line: one, or several from PaddleOCR's JSON list of images with the same text."""
    if name.startswith("["):
        try:
            paths = json.loads(name)
        except (ValueError, RecursionError):  # a file name that starts with a bracket
            return [name]
        if isinstance(paths, list) and paths and all(isinstance(each, str) for each in paths):
            return paths
    return [name]


def write_lines(folder: Path, source: Source) -> Path:
    """Write a data set as images ``0.png, 1.png ...`` with a ``labels.txt``, and return the label file."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for i in range(len(source)):
        gray, text = source[i]
        Image.fromarray(gray).save(folder / f"{i}.png")
        rows.append(f"{i}.png\t{text}\n")
    path = folder / "labels.txt"
    path.write_text("".join(rows), encoding="utf-8")
    return path
