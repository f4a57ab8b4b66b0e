"""Readers of data set formats, which are detected from the path."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from jaxcrnn._text import read_text
from jaxcrnn.data.images import Limits, read_gray
from jaxcrnn.data.labels import LabelFile, identity, leaves, leaving
from jaxcrnn.data.lmdb import LmdbLines
from jaxcrnn.data.normalize import normalizing
from jaxcrnn.data.source import MALFORMED, Fault, Source
from jaxcrnn.errors import UserError


class Row(NamedTuple):
    """One image file and its text."""

    where: str
    file: Path
    name: str
    text: str


class Rows:
    """Labelled image files as a `Source`."""

    def __init__(self, rows: list[Row], faults: list[Fault], limits: Limits) -> None:
        self.rows, self.faults, self.limits = rows, faults, limits

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[np.ndarray, str]:
        row = self.rows[index]
        return read_gray(row.file, self.limits, row.name), row.text

    def text(self, index: int) -> str:
        return self.rows[index].text

    def name(self, index: int) -> str:
        return self.rows[index].name

    def where(self, index: int) -> str:
        return self.rows[index].where

    def identity(self, index: int) -> Hashable:
        return identity(self.rows[index].file)


class Joined:
    """Concatenation of several sources, or the rows of it that ``indices`` lists.

    Attributes:
      ends: row at which each part ends, cumulated over the parts.
    """

    def __init__(self, parts: Sequence[Source], indices: np.ndarray | None = None) -> None:
        self.parts, self.indices = parts, indices
        self.faults = [fault for part in parts for fault in part.faults]
        self.ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self.ends[-1]) if self.indices is None else len(self.indices)

    def _at(self, index: int) -> tuple[Source, int]:
        index = index if self.indices is None else int(self.indices[index])
        part = int(np.searchsorted(self.ends, index, side="right"))
        return self.parts[part], index - int(self.ends[part] - len(self.parts[part]))

    def __getitem__(self, index: int) -> tuple[np.ndarray, str]:
        part, at = self._at(index)
        return part[at]

    def text(self, index: int) -> str:
        part, at = self._at(index)
        return part.text(at)

    def name(self, index: int) -> str:
        part, at = self._at(index)
        return part.name(at)

    def where(self, index: int) -> str:
        part, at = self._at(index)
        return part.where(at)

    def identity(self, index: int) -> Hashable:
        part, at = self._at(index)
        return part.identity(at)


@normalizing
def open_source(path: str | Path, limits: Limits | None = None) -> Source:
    """Open a data set.

    Supported are a folder with LMDBs at any depth, a folder with EasyOCR's ``labels.csv``, a folder of images whose
    names are their labels (``text.png``, or ``text_7.png`` if a text occurs several times), a ``.csv`` of EasyOCR and
    a ``.json`` of mmocr or docTR. Anything else is read as a label file. Labels are normalized as ``limits.normalize``
    says.

    Raises:
      UserError: the data set cannot be read (naming the file and, if there is one, the line).
    """
    path, limits = Path(path), limits or Limits()
    if shard := _array_record(path):
        raise UserError(
            f"{shard}: ArrayRecord is not supported since jaxcrnn 0.2; expected LMDB, as written by "
            "'jaxcrnn data convert'"
        )
    if path.is_dir():
        bases = sorted(file.parent for file in path.rglob("data.mdb"))
        parts: list[Source] = [LmdbLines(base, limits) for base in bases]
        if parts:
            return parts[0] if len(parts) == 1 else Joined(parts)
        if (path / "labels.csv").is_file():
            return _easyocr(path / "labels.csv", limits)
        return _named(path, limits)
    if path.suffix.lower() == ".csv":
        return _easyocr(path, limits)
    if path.suffix.lower() == ".json":
        return _json(path, limits)
    return LabelFile(path, limits)


def _array_record(path: Path) -> Path | None:
    """Find an ArrayRecord file, a format that version 0.1 read, at or below the path."""
    if path.is_dir():
        return min(path.rglob("*.array_record"), default=None)
    return path if path.suffix == ".array_record" else None


def open_sources(paths: Sequence[str | Path], limits: Limits | None = None) -> Source:
    """Open several data sets as one."""
    parts = [open_source(path, limits) for path in paths]
    return parts[0] if len(parts) == 1 else Joined(parts)


def _filled(path: Path, rows: list[Row], faults: list[Fault], limits: Limits, expected: str) -> Rows:
    if not rows and not faults:
        raise UserError(f"{path}: no lines; expected {expected}")
    inside = rows if limits.outside else [row for row in rows if not leaves(row.name)]
    if len(inside) < len(rows):
        faults = [*faults, *(leaving(row.where, row.name) for row in rows if leaves(row.name))]
    return Rows(inside, faults, limits)


def _named(folder: Path, limits: Limits) -> Rows:
    endings = Image.registered_extensions()
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in endings)
    rows = []
    for file in files:
        text, line, number = file.stem.rpartition("_")
        text = text if line and number.isdigit() else file.stem
        rows.append(Row(str(file), file, str(file.relative_to(folder)), text))
    return _filled(folder, rows, [], limits, "LMDBs, a labels.csv, or images whose names are their labels")


def _easyocr(path: Path, limits: Limits) -> Rows:
    """Read EasyOCR's table: a header ``filename,words``, then one row per image, split at the first comma."""
    lines = [line.removesuffix("\r") for line in read_text(path).split("\n")]
    if lines[0].replace(" ", "").replace('"', "") != "filename,words":
        raise UserError(f"{path}, line 1: {lines[0][:40]!r}; expected the header filename,words")
    rows, faults = [], []
    for number, line in enumerate(lines[1:], start=2):
        if not line:
            continue
        where = f"{path}, line {number}"
        try:
            name, text = _two(line)
            rows.append(Row(where, path.parent / name, name, text))
        except ValueError as error:
            faults.append(Fault(MALFORMED, where, f"{line[:40]!r}; {error}"))
    return _filled(path, rows, faults, limits, "lines of filename,words")


def _two(line: str) -> tuple[str, str]:
    """Split a row into file name and text, either of which may be quoted as in CSV."""
    if line.startswith('"'):
        fields = next(csv.reader(io.StringIO(line), strict=True), [])
        if len(fields) != 2:
            raise ValueError("expected filename,words")
        return fields[0], fields[1]
    name, comma, text = line.partition(",")
    if not name or not comma:
        raise ValueError("expected filename,words")
    if text.startswith('"'):
        try:
            fields = next(csv.reader(io.StringIO(text), strict=True))
        except csv.Error:
            fields = []
        if len(fields) != 1:
            raise ValueError("expected a quoted text to be a single field")
        text = fields[0]
    return name, text


def _json(path: Path, limits: Limits) -> Rows:
    """Read docTR's ``{"image": "text"}``, next to the images or to a folder ``images``, or mmocr's ``data_list``."""
    try:
        content = json.loads(read_text(path), object_pairs_hook=_Entries)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}: invalid JSON ({error.msg})") from None
    except (RecursionError, ValueError):
        expected = "expected mmocr's or docTR's labels"
        raise UserError(f"{path}: JSON nested too deeply, or a number with too many digits; {expected}") from None
    rows, faults = [], []
    for where, name, text in _pairs(path, content):
        if isinstance(name, str) and name and isinstance(text, str) and _is_unicode(name + text):
            file = path.parent / name
            if not _exists(file) and not leaves(name) and _exists(path.parent / "images" / name):
                file = path.parent / "images" / name
            rows.append(Row(where, file, name, text))
        else:
            faults.append(Fault(MALFORMED, where, f"{ascii((name, text))[:60]}; expected a path and a text"))
    return _filled(path, rows, faults, limits, 'mmocr\'s "data_list" or docTR\'s {"image": "text"}')


class _Entries(dict[str, Any]):
    """A JSON object that keeps all its pairs, including those with duplicate names."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.pairs = pairs


def _is_unicode(text: str) -> bool:
    """Return whether a text can be encoded; JSON may contain half of a surrogate pair."""
    try:
        return bool(text.encode())
    except UnicodeEncodeError:
        return False


def _exists(file: Path) -> bool:
    try:
        return file.exists()
    except (OSError, ValueError):
        return False


def _pairs(path: Path, content: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(content, dict) and isinstance(content.get("data_list"), list):
        for number, entry in enumerate(content["data_list"], start=1):
            entry = entry if isinstance(entry, dict) else {}
            instances = entry.get("instances")
            inside = instances if isinstance(instances, list) else []
            texts = [i.get("text") if isinstance(i, dict) else None for i in inside]
            for text in texts or [None]:
                yield f"{path}, entry {number} of data_list", entry.get("img_path"), text
    elif isinstance(content, dict):
        for name, text in getattr(content, "pairs", content.items()):
            yield f"{path}, {name!r}", name, text
    else:
        raise UserError(
            f'{path}: a JSON {type(content).__name__}; expected mmocr\'s "data_list" or docTR\'s {{"image": "text"}}'
        )
