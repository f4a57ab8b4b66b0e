"""Label files: one image per line, as ``path<TAB>text`` or in the lists of other programs."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Hashable
from pathlib import Path

import numpy as np
from PIL import Image

from jaxcrnn._console import notice
from jaxcrnn._files import printable
from jaxcrnn._text import quoted
from jaxcrnn.data.images import Limits
from jaxcrnn.data.layout import Layout, is_unicode
from jaxcrnn.data.source import MALFORMED, Fault, Source
from jaxcrnn.errors import UserError

OUTSIDE = "path outside its folder"
ALLOW = "--set data.allow_outside=true (with a trained run: --allow-outside)"


class LabelFile:
    """A label file as a `Source`.

    Windows line ends, a byte order mark and empty lines are accepted. The text starts after the first tab and is kept
    unchanged, including leading and trailing spaces. A JSON list of paths, as PaddleOCR writes it, gives one row for
    each. Lines without a tab are added to ``faults``, as are paths outside the root folder unless ``limits.outside``.

    Args:
      path: path of the file.
      limits: bounds on images, and whether paths may leave the root folder.
      layout: encoding of the file, root folder of its paths, and format: ``"labels"`` (also for ``"auto"``), ``"tsv"``
        with texts quoted as in CSV, ``"space"`` with a space for the tab, or ``"icdar"`` (``path, "text"``).

    Raises:
      UserError: the file cannot be read, is in another encoding, or has no lines.
    """

    def __init__(self, path: str | Path, limits: Limits | None = None, layout: Layout | None = None) -> None:
        self.path = Path(path)
        self.limits, layout = limits or Limits(), layout or Layout()
        self.root = layout.root_of(self.path)
        self.faults: list[Fault] = []
        self.rows: list[tuple[int, str, str]] = []
        self.shown = printable(self.path)  # in messages
        split, expected = _SPLITS.get(layout.format, _SPLITS["labels"])
        for number, line in enumerate(layout.lines_of(self.path), start=1):
            if line:
                self._add(number, line, split, expected)
        if not self.rows and not self.faults:
            raise UserError(f"{self.path}: no lines; expected {expected}")
        if split is _tab and (marked := [row for row in self.rows if _QUOTED.fullmatch(row[2])]):
            number, _, text = marked[0]
            notice(
                f"{self.shown}, line {number}: {quoted(text)} is quoted as in CSV ({len(marked)} lines); the quotes "
                "are kept as part of the text, --format tsv (data.format) removes them"
            )

    def _add(self, number: int, line: str, split: _Split, expected: str) -> None:
        """Add a line to the rows or the faults."""
        where, pair = f"{self.shown}, line {number}", split(line)
        if "\r" in line:
            detail = f"{quoted(line)}; carriage return inside the line, expected LF or CRLF line ends"
            self.faults.append(Fault(MALFORMED, where, detail))
        elif not pair:
            detail = f"{quoted(line)}; expected {expected}{_advice(line) if split is _tab else ''}"
            self.faults.append(Fault(MALFORMED, where, detail))
        else:
            for name in _names(pair[0]):
                if self.limits.outside or not self.root.leaves(name):
                    self.rows.append((number, name, pair[1]))
                else:
                    self.faults.append(leaving(where, name))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[np.ndarray, str]:
        _, name, text = self.rows[index]
        return self.root.read(name, self.limits), text

    def text(self, index: int) -> str:
        return self.rows[index][2]

    def name(self, index: int) -> str:
        return self.rows[index][1]

    def where(self, index: int) -> str:
        return f"{self.shown}, line {self.rows[index][0]}"

    def identity(self, index: int) -> Hashable:
        return identity(self.root.file(self.rows[index][1]))


def leaving(where: str, name: str) -> Fault:
    """Create the fault of a row whose path leaves its folder."""
    return Fault(OUTSIDE, where, f"{name[:80]!r}; expected a path inside the folder, or {ALLOW}")


def identity(file: Path) -> Hashable:
    """Return a value that is equal for two names of the same file; the name itself if it cannot be resolved."""
    try:
        return file.resolve()
    except (OSError, RuntimeError, ValueError):
        return str(file)


_Split = Callable[[str], tuple[str, str] | None]  # a line into path and text; None if it is in another format


def _tab(line: str) -> tuple[str, str] | None:
    name, tab, text = line.partition("\t")
    return (name, text) if name and tab else None


def _tsv(line: str) -> tuple[str, str] | None:
    try:
        (fields,) = csv.reader([line], delimiter="\t", strict=True)
    except (csv.Error, ValueError):
        return None
    return (fields[0], fields[1]) if len(fields) == 2 and fields[0] else None


def _space(line: str) -> tuple[str, str] | None:
    match = re.fullmatch(r"([^ \t]+)[ \t]+(.*)", line, re.DOTALL)
    return (match[1], match[2]) if match else None


def _icdar(line: str) -> tuple[str, str] | None:
    match = re.fullmatch(r'([^,]+),\s*(?:"(.*)"|([^"].*))\s*', line, re.DOTALL)
    if not match:
        return None
    return match[1], re.sub(r'\\(["\\])', r"\1", match[2]) if match[2] is not None else match[3]


_SPLITS: dict[str, tuple[_Split, str]] = {
    "labels": (_tab, "path<TAB>text"),
    "tsv": (_tsv, "path<TAB>text with CSV quotes"),
    "space": (_space, "path, a space, text"),
    "icdar": (_icdar, 'path, "text"'),
}
_QUOTED = re.compile(r'"[^"]*(?:""[^"]*)+"')  # CSV doubles quotes inside a quoted field
_ICDAR = re.compile(r'[^,"]+\.\w{2,5},\s*".*"\s*')
_SPACE = re.compile(r"\S+\.\w{2,5} +\S.*")


def _advice(line: str) -> str:
    """Name the format of a line without a tab, if it is that of another program."""
    for pattern, what, name in ((_ICDAR, "an ICDAR list", "icdar"), (_SPACE, "separated by a space", "space")):
        if pattern.fullmatch(line):
            return f" ({what}? --format {name}, data.format={name})"
    return ""


def _names(name: str) -> list[str]:
    """Return the paths of one line: one, or several from PaddleOCR's JSON list of images with the same text."""
    if name.startswith("["):
        try:
            paths = json.loads(name)
        except (ValueError, RecursionError):  # a file name that starts with a bracket
            return [name]
        if isinstance(paths, list) and paths and all(isinstance(each, str) and is_unicode(each) for each in paths):
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
