"""Readers of data set formats, which are detected from the path and the content of a folder."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxcrnn._files import printable
from jaxcrnn.data import folders
from jaxcrnn.data.images import Limits
from jaxcrnn.data.labels import LabelFile, identity, leaving
from jaxcrnn.data.layout import LABEL_FILES, Layout, Root, decoded, exists, is_unicode
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

    def __init__(self, rows: list[Row], faults: list[Fault], limits: Limits, root: Root) -> None:
        self.rows, self.faults, self.limits, self.root = rows, faults, limits, root

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[np.ndarray, str]:
        row = self.rows[index]
        return self.root.read(row.name, self.limits, row.file), row.text

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
def open_source(path: str | Path, limits: Limits | None = None, layout: Layout | None = None) -> Source:
    """Open a data set.

    Supported are LMDBs, also at any depth of a folder, a folder with one label file, a folder of images whose names are
    their labels (``text.png``, or ``text_7.png`` if a text occurs several times), a ``.csv`` of EasyOCR and a ``.json``
    of mmocr or docTR. Anything else is read as a label file. Links to folders are followed, and hidden files and
    folders are skipped and counted. Labels are normalized as ``limits.normalize`` says.

    Args:
      path: file or folder.
      limits: bounds on images, and whether lists may name images outside their root folder.
      layout: format, encoding and root folder; detected by default.

    Raises:
      UserError: the data set cannot be read (naming the file and, if there is one, the line), or has several readings.
    """
    path, limits, layout = Path(path), limits or Limits(), layout or Layout()
    if path.is_dir():
        return _open_folder(path, limits, layout)
    if path.suffix == ".array_record":
        raise _array_record(path)
    if layout.format == "names":
        raise UserError(f"{printable(path)}: not a folder; the format 'names' expects a folder of images")
    if path.name == "lock.mdb":
        raise UserError(f"{printable(path)}: the lock file of an LMDB; expected the folder or its data.mdb")
    if folders.is_lmdb(path) or layout.format == "lmdb":
        return LmdbLines(path, limits)
    if layout.format == "csv" or (layout.format == "auto" and path.suffix.lower() == ".csv"):
        return _easyocr(path, limits, layout)
    if layout.format == "json" or (layout.format == "auto" and path.suffix.lower() == ".json"):
        return _json(path, limits, layout)
    if path.suffix.lower() in folders.image_endings():
        raise UserError(f"{printable(path)}: an image; expected a label file of path<TAB>text, an LMDB or a folder")
    return LabelFile(path, limits, layout)


def _open_folder(path: Path, limits: Limits, layout: Layout) -> Source:
    folder = folders.survey(path)
    if shard := next((file for file in folder.walk.files if file.suffix == ".array_record"), None):
        raise _array_record(shard)
    if layout.format not in ("lmdb", "names") and (
        file := folders.chosen(folder, forced=layout.format in (*LABEL_FILES, "csv", "json"))
    ):
        return open_source(file, limits, layout)
    if layout.format == "names" or (layout.format == "auto" and not folder.lmdbs):
        folders.notice_skipped(folder, "images")
        return _named(folder, limits, layout)
    if not folder.lmdbs:
        raise UserError(f"{printable(path)}: contains no LMDB; expected a data.mdb at any depth")
    folders.notice_skipped(folder, "LMDBs")
    parts: list[Source] = [LmdbLines(base, limits) for base in folder.lmdbs]
    return parts[0] if len(parts) == 1 else Joined(parts)


def _array_record(file: Path) -> UserError:
    """Create the error of a format that version 0.1 read."""
    return UserError(
        f"{printable(file)}: ArrayRecord is not supported since jaxcrnn 0.2; expected LMDB, as written by "
        "'jaxcrnn data convert'"
    )


def open_sources(paths: Sequence[str | Path], limits: Limits | None = None, layout: Layout | None = None) -> Source:
    """Open several data sets as one."""
    parts = [open_source(path, limits, layout) for path in paths]
    return parts[0] if len(parts) == 1 else Joined(parts)


def _filled(path: Path, rows: list[Row], faults: list[Fault], limits: Limits, root: Root, expected: str) -> Rows:
    if not rows and not faults:
        raise UserError(f"{printable(path)}: no lines; expected {expected}")
    inside = rows if limits.outside else [row for row in rows if not root.leaves(row.name)]
    if len(inside) < len(rows):
        faults = [*faults, *(leaving(row.where, row.name) for row in rows if root.leaves(row.name))]
    return Rows(inside, faults, limits, root)


def _named(folder: folders.Folder, limits: Limits, layout: Layout) -> Rows:
    """Read images whose names are their texts."""
    rows, faults = [], []
    for file in folder.images:
        where = printable(file)
        try:
            name = decoded(file.relative_to(folder.path), layout)
            stem = Path(name).stem
        except ValueError as error:
            faults.append(Fault(MALFORMED, where, str(error)))
            continue
        text, line, number = stem.rpartition("_")
        rows.append(Row(where, file, name, text if line and number.isdigit() else stem))
    if not rows and not faults:
        raise UserError(
            f"{printable(folder.path)}: no lines; expected LMDBs, a labels.csv, or images whose names are their labels"
        )
    return Rows(rows, faults, limits, Root(folder.path))


def _easyocr(path: Path, limits: Limits, layout: Layout) -> Rows:
    """Read EasyOCR's table: a header ``filename,words``, then one row per image, split at the first comma."""
    lines, root = layout.lines_of(path), layout.root_of(path)
    if lines[0].replace(" ", "").replace('"', "") != "filename,words":
        raise UserError(f"{path}, line 1: {lines[0][:40]!r}; expected the header filename,words")
    rows, faults = [], []
    for number, line in enumerate(lines[1:], start=2):
        if not line:
            continue
        where = f"{printable(path)}, line {number}"
        try:
            name, text = _two(line)
            rows.append(Row(where, root.file(name), name, text))
        except ValueError as error:
            faults.append(Fault(MALFORMED, where, f"{line[:40]!r}; {error}"))
    return _filled(path, rows, faults, limits, root, "lines of filename,words")


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


def _json(path: Path, limits: Limits, layout: Layout) -> Rows:
    """Read docTR's ``{"image": "text"}``, next to the images or to a folder ``images``, or mmocr's ``data_list``."""
    try:
        content = json.loads(layout.text_of(path), object_pairs_hook=_Entries)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}: invalid JSON ({error.msg})") from None
    except (RecursionError, ValueError):
        expected = "expected mmocr's or docTR's labels"
        raise UserError(f"{path}: JSON nested too deeply, or a number with too many digits; {expected}") from None
    rows, faults, root = [], [], layout.root_of(path)
    for where, name, text in _pairs(path, content):
        if isinstance(name, str) and name and isinstance(text, str) and is_unicode(name + text):
            file = root.file(name)
            if not exists(file) and not root.leaves(name) and exists(root.folder / "images" / name):
                file = root.folder / "images" / name
            rows.append(Row(where, file, name, text))
        else:
            faults.append(Fault(MALFORMED, where, f"{ascii((name, text))[:60]}; expected a path and a text"))
    return _filled(path, rows, faults, limits, root, 'mmocr\'s "data_list" or docTR\'s {"image": "text"}')


class _Entries(dict[str, Any]):
    """A JSON object that keeps all its pairs, including those with duplicate names."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.pairs = pairs


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
