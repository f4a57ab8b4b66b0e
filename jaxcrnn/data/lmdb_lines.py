"""Data sets in LMDB, in the layout that scene text recognisers share: ``num-samples``, ``image-%09d``, ``label-%09d``.

Numbers start at 1. Newer writers add ``wh-%09d`` = ``"{w}_{h}"``; it is written here and not needed to read.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import numpy as np

from jaxcrnn.data.images import MISSING, ImageError, Limits, read_gray, to_png
from jaxcrnn.data.labels import MALFORMED, Fault, Source
from jaxcrnn.errors import UserError, first_line

COUNT = b"num-samples"
EVERY = 500  # samples a transaction: what a stopped conversion has to do again

_opened: dict[Path, Any] = {}  # LMDB allows one environment of a folder in a process


def _environment(folder: Path) -> Any:
    try:
        import lmdb
    except ImportError:
        raise UserError(f"{folder}: reading LMDB needs the package lmdb; expected the extra 'data'") from None
    folder = folder.resolve()
    if folder not in _opened:
        try:
            environment = lmdb.open(str(folder), readonly=True, lock=False, readahead=False, max_spare_txns=16)
        except lmdb.Error as error:
            raise UserError(f"{folder}: not read as LMDB ({first_line(error)})") from None
        # Pages are mapped, not read: one beyond the end of the file would kill the whole program.
        needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
        found = (folder / "data.mdb").stat().st_size
        if found < needed:
            environment.close()
            raise UserError(f"{folder / 'data.mdb'}: the file is cut short: {found:,} of {needed:,} bytes")
        _opened[folder] = environment
    return _opened[folder]


def close(folder: Path) -> None:
    """Forgets an opened LMDB, so that it can be written."""
    if environment := _opened.pop(folder.resolve(), None):
        environment.close()


class LmdbLines:
    """One LMDB folder as a `Source`. A sample without a label that can be read is kept in ``faults``.

    Raises:
      UserError: no LMDB, cut short, or without ``num-samples``.
    """

    def __init__(self, folder: str | Path, limits: Limits | None = None) -> None:
        self.folder, self.limits = Path(folder), limits or Limits()
        _environment(self.folder)
        self.faults: list[Fault] = []
        self.rows: list[tuple[int, str]] = []
        count = self._get(COUNT.decode())
        if count is None or not count.isdigit():
            found = "has no key 'num-samples'" if count is None else f"'num-samples' is {count[:20]!r}"
            raise UserError(f"{self.folder}: {found}; expected the number of samples under that key")
        for number in range(1, int(count) + 1):
            key = f"label-{number:09d}"
            label = self._get(key)
            try:
                if label is None:
                    raise ValueError("no such key")
                self.rows.append((number, label.decode("utf-8")))
            except ValueError as error:
                at = f"{self.folder}, {key}"
                self.faults.append(Fault(MALFORMED, at, f"{first_line(error)}; expected UTF-8 text"))

    def _get(self, key: str) -> bytes | None:
        import lmdb

        try:
            with _environment(self.folder).begin() as transaction:
                value: bytes | None = transaction.get(key.encode())
        except lmdb.Error as error:
            raise UserError(f"{self.folder}, {key}: {first_line(error)}; is the file cut short?") from None
        return value

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[np.ndarray, str]:
        number, text = self.rows[index]
        data = self._get(f"image-{number:09d}")
        if data is None:
            raise ImageError(MISSING, f"{self.where(index)}: no such key")
        return read_gray(data, self.limits, self.where(index)), text

    def text(self, index: int) -> str:
        return self.rows[index][1]

    def name(self, index: int) -> str:
        return f"image-{self.rows[index][0]:09d}"

    def where(self, index: int) -> str:
        return f"{self.folder}, {self.name(index)}"

    def identity(self, index: int) -> Hashable:
        return self.folder.resolve(), self.rows[index][0]


def write_lmdb(folder: Path, source: Source, progress: Callable[[int, int], None] = lambda done, total: None) -> int:
    """Writes a data set as LMDB, images as gray PNG. What a stopped call wrote is kept and gone on from.

    Returns:
      How many samples were there already.

    Raises:
      UserError: the folder holds something else, cannot be written, or the disk is full; what was written stays.
      ImageError: a line of the source cannot be read.
    """
    import lmdb

    close(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        environment = lmdb.open(str(folder), map_size=64 << 20)
    except (OSError, lmdb.Error) as error:
        expected = "expected a new folder, or one of a conversion to go on with"
        raise UserError(f"{folder}: {first_line(error)}; {expected}") from None
    try:
        with environment.begin() as transaction:
            done = int(transaction.get(COUNT) or b"0")
            last = transaction.get(f"label-{done:09d}".encode()) if done else None
        if done > len(source) or (done and last != source.text(done - 1).encode()):
            raise UserError(f"{folder}: holds {done} samples of another data set; expected a new folder")
        for start in range(done, len(source), EVERY):
            stop = min(start + EVERY, len(source))
            items = {COUNT: str(stop).encode()}
            for i in range(start, stop):
                items |= _sample(i + 1, *source[i])
            _put(environment, items)
            progress(stop, len(source))
        return done
    except (OSError, lmdb.Error) as error:
        raise UserError(f"{folder}: {first_line(error)}; what was written is kept, the same command goes on") from None
    finally:
        environment.close()


def _sample(number: int, gray: np.ndarray, text: str) -> dict[bytes, bytes]:
    size = f"{gray.shape[1]}_{gray.shape[0]}".encode()
    parts = {"image": to_png(gray), "label": text.encode(), "wh": size}
    return {f"{name}-{number:09d}".encode(): value for name, value in parts.items()}


def _put(environment: Any, items: dict[bytes, bytes]) -> None:
    import lmdb

    while True:
        try:
            with environment.begin(write=True) as transaction:
                for key, value in items.items():
                    transaction.put(key, value)
            return
        except lmdb.MapFullError:  # the map is only address space; the transaction was rolled back
            environment.set_mapsize(environment.info()["map_size"] * 2)
