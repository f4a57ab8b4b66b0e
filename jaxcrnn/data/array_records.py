"""Data sets as ArrayRecord shards: a record is the msgpack map ``{"image": PNG bytes, "text": str}``.

Shards are called ``lines-00000-of-00004.array_record``, so that a missing one is seen.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import numpy as np

from jaxcrnn._text import first_line
from jaxcrnn.data.images import UNREADABLE, ImageError, Limits, read_gray, to_png
from jaxcrnn.data.source import MALFORMED, Fault, Source
from jaxcrnn.errors import UserError

SUFFIX = ".array_record"
NAME = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.array_record")
AT_ONCE = 256  # records read together when the texts are looked up


def _packages(path: Path) -> tuple[Any, Any]:
    try:
        import msgpack
        from array_record.python import array_record_module
    except ImportError as error:
        expected = "expected the extra 'data'"
        raise UserError(f"{path}: ArrayRecord needs the package {error.name}; {expected}") from None
    return array_record_module, msgpack


class ArrayRecordLines:
    """One ArrayRecord file as a `Source`. A record that is none of ours is kept in ``faults``.

    Raises:
      UserError: no ArrayRecord file, or cut short.
    """

    def __init__(self, path: str | Path, limits: Limits | None = None) -> None:
        self.path, self.limits = Path(path), limits or Limits()
        self.faults: list[Fault] = []
        self.rows: list[tuple[int, str]] = []
        self._open()
        count = self._reader.num_records()
        if not count:  # what the library says of a file whose end is missing
            raise UserError(f"{self.path}: no records in it; is the file cut short?")
        for start in range(0, count, AT_ONCE):
            for number, record in enumerate(self._read(start, min(start + AT_ONCE, count)), start=start):
                try:
                    self.rows.append((number, self._unpacked(record)[1]))
                except ValueError as error:
                    self.faults.append(Fault(MALFORMED, f"{self.path}, record {number}", str(error)))

    def _open(self) -> None:
        array_record, self._msgpack = _packages(self.path)
        try:
            self._reader = array_record.ArrayRecordReader(str(self.path), "readahead_buffer_size:0,max_parallelism:0")
        except (RuntimeError, ValueError, OSError) as error:
            raise UserError(f"{self.path}: not read as ArrayRecord ({first_line(error)})") from None

    def _read(self, start: int, stop: int) -> list[bytes | str]:
        """Records, or why they cannot be read; one that is damaged does not take the others with it."""
        try:
            return list(self._reader.read(start, stop))
        except (RuntimeError, ValueError, IndexError) as error:
            if stop == start + 1:
                return [first_line(error)]
        return [record for number in range(start, stop) for record in self._read(number, number + 1)]

    def _unpacked(self, record: bytes | str) -> tuple[bytes, str]:
        if isinstance(record, str):
            raise ValueError(record)
        try:
            found = self._msgpack.unpackb(record)
        except Exception as error:  # whatever the bytes were, the package has a class of its own for it
            found = type(error).__name__
        if (
            not isinstance(found, dict)
            or not isinstance(found.get("text"), str)
            or type(found.get("image")) is not bytes
        ):
            raise ValueError(f"{str(found)[:40]!r}; expected a msgpack map of image (bytes) and text")
        return found["image"], found["text"]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_reader", "_msgpack")}

    def __setstate__(self, known: dict[str, Any]) -> None:
        self.__dict__.update(known)
        self._open()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[np.ndarray, str]:
        number, text = self.rows[index]
        try:
            data, _ = self._unpacked(self._reader.read([number])[0])
        except (RuntimeError, ValueError) as error:
            raise ImageError(UNREADABLE, f"{self.name(index)}: {first_line(error)}") from None
        return read_gray(data, self.limits, self.name(index)), text

    def text(self, index: int) -> str:
        return self.rows[index][1]

    def name(self, index: int) -> str:
        return f"{self.path.name}:{self.rows[index][0]}"

    def where(self, index: int) -> str:
        return f"{self.path}, record {self.rows[index][0]}"

    def identity(self, index: int) -> Hashable:
        return self.path.resolve(), self.rows[index][0]


def shards(folder: Path) -> list[Path]:
    """The ArrayRecord files of a folder, in order.

    Raises:
      UserError: their names say that there are more.
    """
    found = sorted(folder.rglob(f"*{SUFFIX}"))
    named = [(path, match) for path in found if (match := NAME.fullmatch(path.name))]
    for path, match in named:
        base, number, count = match.groups()
        if int(number) >= int(count):
            raise UserError(f"{path}: number {int(number)} of {int(count)} shards; expected 0 to {int(count) - 1}")
        missing = [
            name
            for i in range(int(count))
            if not (path.parent / (name := f"{base}-{i:05d}-of-{count}{SUFFIX}")).is_file()
        ]
        if missing:
            raise UserError(f"{path.parent}: {missing[0]} is missing, {len(missing)} of {int(count)} shards; "
                            "expected all of them")  # fmt: skip
    return found


def write_array_records(
    folder: Path,
    source: Source,
    per_shard: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Writes a data set as shards, images as gray PNG. Shards that a stopped call finished are kept and gone on from.

    Returns:
      How many samples were there already.

    Raises:
      UserError: the folder holds something else, cannot be written, or the disk is full; finished shards stay.
      ImageError: a line of the source cannot be read.
    """
    array_record, msgpack = _packages(folder)
    count = -(-len(source) // per_shard)
    paths = [folder / f"lines-{i:05d}-of-{count:05d}{SUFFIX}" for i in range(count)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        others = sorted(path.name for path in folder.iterdir() if path not in paths and path.suffix != ".unfinished")
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror or error}; expected a new folder, or one to go on with") from None
    if others:
        raise UserError(f"{folder}: holds {others[0]}; expected a new folder, or one of the same conversion")
    before = 0
    for shard, path in enumerate(paths):
        rows = range(shard * per_shard, min((shard + 1) * per_shard, len(source)))
        if path.is_file():
            there = ArrayRecordLines(path)
            if [there.text(i) for i in range(len(there))] != [source.text(i) for i in rows]:
                raise UserError(f"{path}: holds lines of another data set; expected a new folder")
            before += len(rows)
            continue
        # Under its own name only when it is whole: a shard that is there is finished.
        unfinished = path.with_suffix(".unfinished")
        try:
            writer = array_record.ArrayRecordWriter(str(unfinished), "group_size:1")
            for done, i in enumerate(rows, start=1):
                gray, text = source[i]
                writer.write(msgpack.packb({"image": to_png(gray), "text": text}))
                if done % 200 == 0:
                    progress(rows.start + done, len(source))
            writer.close()
            unfinished.rename(path)
        except (OSError, RuntimeError) as error:
            kept = "finished shards are kept, the same command goes on"
            raise UserError(f"{path}: {first_line(error)}; {kept}") from None
        progress(rows.stop, len(source))
    for left in folder.glob("*.unfinished"):
        left.unlink()
    return before
