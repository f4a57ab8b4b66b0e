"""What a folder of images contains: LMDBs, label files, images, or texts beside the images."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from jaxcrnn._console import notice
from jaxcrnn._files import Walk, printable, walk
from jaxcrnn._text import counted
from jaxcrnn.data.lmdb_check import data_file
from jaxcrnn.errors import UserError

# Names of label files without their ending, and the endings of files that may be lists.
_PART = r"(train(ing)?|val(id|idation)?|test|eval|dev|all|list|rec|lines?|words?|imgs?|images?|\d+)"
_NAMES = re.compile(
    rf"({_PART}[-_. ])*(labels?|gt|ground[-_ ]?truth|annotations?|transcri(pts?|ptions?))([-_. ]{_PART})*",
    re.IGNORECASE,
)
_LISTS = frozenset({"", ".txt", ".csv", ".tsv", ".json", ".jsonl", ".lst", ".list"})
_PROSE = re.compile(r"(readme|licen[cs]e|changelog|copying|notice)\b", re.IGNORECASE)  # may mention images
_BESIDE = frozenset({".txt", ".gt", ".lab", ".label", ".json", ".xml"})  # endings of one text file per image
_SNIFFED = 1 << 14  # bytes at the start of a file that show whether it lists images
LMDB_MAGIC = b"\xde\xc0\xef\xbe"
_USE_NAMES = "--format names (data.format=names) to read the images by their names"


class Folder(NamedTuple):
    """Content of a folder at any depth.

    Attributes:
      path: the folder.
      walk: all files, and what was skipped.
      lmdbs: folders of LMDBs, and LMDBs in one file.
      lists: label files, recognised by their name or by listing images.
      images: image files.
      beside: text files named like an image.
    """

    path: Path
    walk: Walk
    lmdbs: list[Path]
    lists: list[Path]
    images: list[Path]
    beside: list[Path]

    def names(self, paths: list[Path], most: int = 4) -> str:
        """Format the first paths, relative to the folder."""
        shown = [printable(path.relative_to(self.path)) for path in paths]
        return ", ".join(shown[:most]) + (f" and {len(shown) - most} more" if len(shown) > most else "")


@functools.cache
def image_endings() -> frozenset[str]:
    """Return the endings of image files, of formats that Pillow can read."""
    endings = Image.registered_extensions()
    return frozenset(ending for ending, form in endings.items() if form in Image.OPEN)


def is_lmdb(path: Path) -> bool:
    """Return whether a file is the data file of an LMDB."""
    if path.name in ("data.mdb", "lock.mdb"):
        return path.name == "data.mdb"
    try:
        if not path.is_file():  # opening a pipe would block
            return False
        with path.open("rb") as file:
            return LMDB_MAGIC in file.read(24)[8:]
    except (OSError, ValueError):
        return False


def survey(path: Path) -> Folder:
    """Walk a folder and sort its files by kind.

    Raises:
      UserError: the folder cannot be read.
    """
    walked = walk(path)
    lmdbs: list[Path] = []
    images: list[Path] = []
    others: list[Path] = []
    for file in walked.files:
        ending = file.suffix.lower()
        if ending in image_endings():
            images.append(file)
        elif file.name == "data.mdb":
            lmdbs.append(file.parent)
        elif ending in (".mdb", ".lmdb") and is_lmdb(file):
            lmdbs.append(file)
        else:
            others.append(file)
    stems = {image.with_suffix("") for image in images}
    beside = [file for file in others if _without_endings(file) in stems]
    if len(beside) * 2 < len(images):
        beside = []
    rest = others if not beside else sorted(set(others) - set(beside))
    return Folder(path, walked, lmdbs, [file for file in rest if _is_list(file)], images, beside)


def _without_endings(file: Path) -> Path | None:
    """Return the path of a text file without ``.txt`` or ``.gt.txt``."""
    if file.suffix.lower() not in _BESIDE:
        return None
    file = file.with_suffix("")
    return file.with_suffix("") if file.suffix.lower() == ".gt" else file


def _is_list(file: Path) -> bool:
    ending = file.suffix.lower()
    if ending not in _LISTS or _PROSE.match(file.name) or not file.is_file():
        return False
    return (ending != "" and _NAMES.fullmatch(file.stem) is not None) or _lists_images(file)


_IMAGE = r"\.(?:png|jpe?g|bmp|gif|tiff?|webp|ppm|pgm|jp2)"
_ROW = re.compile(rf'"?(?:[^\t]*{_IMAGE}"?\]?\t|[^\t,"]*{_IMAGE}"? *,|[^\s,"]*{_IMAGE} +\S)', re.IGNORECASE)
_ENTRY = re.compile(rf'"[^"]*{_IMAGE}"', re.IGNORECASE)


def _lists_images(file: Path) -> bool:
    """Return whether half of the lines near the start of a file begin with an image, or a JSON file names one."""
    try:
        with file.open("rb") as opened:
            text = opened.read(_SNIFFED).decode("utf-8", "replace")
    except OSError:
        return False
    if file.suffix.lower() in (".json", ".jsonl"):
        return _ENTRY.search(text) is not None
    lines = [line for line in text.removeprefix("\ufeff").split("\n")[:20] if line.strip()]
    return bool(lines) and 2 * sum(_ROW.match(line) is not None for line in lines) >= len(lines)


def chosen(folder: Folder, forced: bool) -> Path | None:
    """Return the one label file of a folder that is to be read; None to read LMDBs or images named by their text.

    Args:
      folder: content of the folder.
      forced: whether the format is that of a label file, so that LMDBs and images do not count.

    Raises:
      UserError: there are several readings.
    """
    at, lists = printable(folder.path), folder.lists
    names = folder.names(lists)
    if len(lists) > 1:
        also = f", or --format lmdb (data.format=lmdb) to read {folder.names(folder.lmdbs)}" if folder.lmdbs else ""
        also += f", or {_USE_NAMES}" if folder.images else ""
        raise UserError(f"{at}: contains {len(lists)} label files ({names}); pass one of them as the data set{also}")
    if forced:
        if lists:
            return lists[0]
        raise UserError(f"{at}: contains no label file; expected one such as labels.txt, or the path of one")
    if lists and folder.lmdbs:
        raise UserError(
            f"{at}: contains a label file ({names}) and LMDBs ({folder.names(folder.lmdbs)}); pass one of them as "
            "the data set, or --format lmdb or labels (data.format)"
        )
    if lists and lists[0].parent != folder.path:
        raise UserError(
            f"{at}: contains the label file {names} in a subfolder; pass that file as the data set, or {_USE_NAMES}"
        )
    if folder.beside and not lists and not folder.lmdbs:
        raise UserError(
            f"{at}: contains {len(folder.beside)} text files named like images ({folder.names(folder.beside, 2)}); "
            f"expected one label file of path<TAB>text, or {_USE_NAMES}"
        )
    if not lists:
        return None
    ways = f"; use {_USE_NAMES}" if folder.images else ""
    notice(f"{at}: reading the label file {names}{ways}")
    return lists[0]


def notice_skipped(folder: Folder, read: str) -> None:
    """Print what a folder contains in addition to what is read.

    Args:
      folder: content of the folder.
      read: ``"images"`` or ``"LMDBs"``.
    """
    lmdbs = set(map(data_file, folder.lmdbs))
    locks = {path.with_name("lock.mdb") for path in lmdbs} | {path.with_name(path.name + "-lock") for path in lmdbs}
    others = len([file for file in folder.walk.files if file not in lmdbs | locks]) - len(folder.images)
    images = len(folder.images) if read == "LMDBs" else 0
    if text := folder.walk.skipped(
        folder.path, counted(images, "image") if images else "", counted(others, "non-image file") if others else ""
    ):
        notice(text)
