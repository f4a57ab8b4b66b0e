"""LMDB data sets in the common layout of scene text recognisers: ``num-samples``, ``image-%09d``, ``label-%09d``.

Numbers start at 1; data sets whose numbers start at 0 are read too. Newer writers add ``wh-%09d`` = ``"{w}_{h}"``,
which is written here but not needed for reading.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import numpy as np

from jaxcrnn._files import printable
from jaxcrnn._text import first_line
from jaxcrnn.data.images import ABSURD, MISSING, ImageError, Limits, read_gray, to_png
from jaxcrnn.data.lmdb_check import damage, data_file, open_environment
from jaxcrnn.data.source import MALFORMED, Fault, Source
from jaxcrnn.errors import UserError

COUNT = b"num-samples"
WRITTEN = b"jaxcrnn-written"  # progress of an unfinished conversion: "500 of 2000"
MAX_LABEL = 1 << 16  # bytes
EVERY = 500  # samples per transaction, the most that an interrupted conversion repeats

_opened: dict[Path, Any] = {}  # LMDB allows one environment per folder in a process


def _check(folder: Path) -> None:
    """Check for damaged pages, which would kill the process that reads them.

    Raises:
      UserError: a page is damaged, or the folder is not an LMDB.
    """
    if why := damage(folder):
        _environment(folder)  # raises a more specific error in most cases
        close(folder)
        raise UserError(f"{data_file(folder)}: corrupted file ({why}); expected an intact LMDB")


def _environment(folder: Path) -> Any:
    folder = folder.resolve()
    if folder not in _opened:
        _opened[folder] = open_environment(folder, readonly=True, lock=False, readahead=False, max_spare_txns=16)
    return _opened[folder]


def close(folder: Path) -> None:
    """Close an open LMDB, so that it can be written."""
    if environment := _opened.pop(folder.resolve(), None):
        environment.close()


class LmdbLines:
    """An LMDB as a `Source`; samples with an unreadable label are added to ``faults``.

    Args:
      folder: folder of ``data.mdb``, that file, or an LMDB in one file with another name.
      limits: bounds on images.

    Raises:
      UserError: not an LMDB, truncated, or without ``num-samples``.
    """

    def __init__(self, folder: str | Path, limits: Limits | None = None) -> None:
        self.folder, self.limits = Path(folder), limits or Limits()
        if self.folder.name == "data.mdb":
            self.folder = self.folder.parent
        _check(self.folder)
        self.faults: list[Fault] = []
        self.rows: list[tuple[int, str]] = []
        try:
            count = self._get(COUNT.decode(), 20)
            unfinished = self._get(WRITTEN.decode(), 100)
        except ValueError as error:
            raise UserError(f"{self.folder}: 'num-samples' or 'jaxcrnn-written' has {error}") from None
        if unfinished:
            raise UserError(
                f"{self.folder}: incomplete conversion ({unfinished.decode(errors='replace')} lines); "
                "rerun 'jaxcrnn data convert' to finish it"
            )
        entries = _environment(self.folder).stat()["entries"]
        if count is not None and count.isdigit() and int(count) > entries:
            raise UserError(
                f"{self.folder}: 'num-samples' is {int(count)}, but there are only {entries} keys; expected "
                "a key for each image and label"
            )
        if count is None or not count.isdigit():
            problem = "missing key 'num-samples'" if count is None else f"'num-samples' is {count[:20]!r}"
            raise UserError(f"{self.folder}: {problem}; expected the number of samples under that key")
        self._read_labels(int(count))

    def _read_labels(self, count: int) -> None:
        """Read the labels, and report those that the number of samples does not cover."""
        zero = self._has(_label(0))
        first = int(not (zero and not self._has(_label(count))))
        for number in range(first, first + count):
            try:
                label = self._get(_label(number), MAX_LABEL)
                if label is None:
                    raise ValueError("no such key")
                self.rows.append((number, label.decode("utf-8")))
            except ValueError as error:
                self._fault(_label(number), f"{first_line(error)}; expected UTF-8 text")
        for number in [0] * (zero and first) + [first + count] * self._has(_label(first + count)):
            self._fault(_label(number), f"'num-samples' is only {count}; expected no further labels")

    def _fault(self, key: str, detail: str) -> None:
        self.faults.append(Fault(MALFORMED, f"{printable(self.folder)}, {key}", detail))

    def _has(self, key: str) -> bool:
        with _environment(self.folder).begin(buffers=True) as transaction:
            return transaction.get(key.encode()) is not None

    def _get(self, key: str, most: int) -> bytes | None:
        """Return a value, or None if the key is missing.

        Raises:
          ValueError: the value has more than ``most`` bytes.
          UserError: it cannot be read.
        """
        import lmdb

        try:
            with _environment(self.folder).begin(buffers=True) as transaction:
                value = transaction.get(key.encode())
                if value is not None and len(value) > most:
                    raise ValueError(f"{len(value):,} bytes; expected at most {most:,}")
                return None if value is None else bytes(value)
        except lmdb.Error as error:
            raise UserError(f"{self.folder}, {key}: {first_line(error)}; is the file truncated?") from None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[np.ndarray, str]:
        number, text = self.rows[index]
        try:
            data = self._get(f"image-{number:09d}", self.limits.max_bytes)
        except ValueError as error:
            raise ImageError(ABSURD, f"{self.name(index)}: {error}") from None
        if data is None:
            raise ImageError(MISSING, f"{self.name(index)}: no such key")
        return read_gray(data, self.limits, self.name(index)), text

    def text(self, index: int) -> str:
        return self.rows[index][1]

    def name(self, index: int) -> str:
        return f"image-{self.rows[index][0]:09d}"

    def where(self, index: int) -> str:
        return f"{printable(self.folder)}, {self.name(index)}"

    def identity(self, index: int) -> Hashable:
        return self.folder.resolve(), self.rows[index][0]


def _label(number: int) -> str:
    return f"label-{number:09d}"


def write_lmdb(folder: Path, source: Source, progress: Callable[[int, int], None] = lambda done, total: None) -> int:
    """Write a data set as LMDB, with images as gray PNG; an interrupted conversion is resumed.

    Returns:
      Number of samples that an earlier call had written.

    Raises:
      UserError: the folder contains something else, cannot be written, or the disk is full; written samples are kept.
      ImageError: a line of the source cannot be read.
    """
    import lmdb

    close(folder)
    expected = "expected a new folder, or an interrupted conversion to resume"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        others = sorted(path.name for path in folder.iterdir() if path.name not in ("data.mdb", "lock.mdb"))
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror or error}; {expected}") from None
    if others:
        raise UserError(f"{folder}: contains {others[0]}; {expected}")
    environment = open_environment(folder, map_size=64 << 20)
    try:
        done = _done(environment, folder, source)
        for start in range(done, len(source), EVERY):
            stop = min(start + EVERY, len(source))
            items = {WRITTEN: f"{stop} of {len(source)}".encode()}
            for i in range(start, stop):
                items |= _sample(i + 1, *source[i])
            _put(environment, items)
            progress(stop, len(source))
        with environment.begin(write=True) as transaction:  # last, because it marks the data set as complete
            transaction.put(COUNT, str(len(source)).encode())
            transaction.delete(WRITTEN)
        return done
    except (OSError, lmdb.Error) as error:
        raise UserError(f"{folder}: {first_line(error)}; written lines are kept, rerun the command to resume") from None
    finally:
        environment.close()


def _done(environment: Any, folder: Path, source: Source) -> int:
    """Return how many samples of this source an earlier call has written.

    Raises:
      UserError: the LMDB contains another data set.
    """
    with environment.begin() as transaction:
        written = transaction.get(WRITTEN) or transaction.get(COUNT) or b"0"
        count, _, total = written.decode("utf-8", "replace").partition(" of ")
        done = int(count) if count.isdecimal() and count.isascii() else 0
        labels = [transaction.get(f"label-{i + 1:09d}".encode()) for i in range(min(done, len(source)))]
    foreign = done > len(source) or (total or str(done or len(source))) != str(len(source))
    if foreign or (not done and environment.stat()["entries"]):
        raise UserError(f"{folder}: contains {done or 'unknown'} samples of another data set; expected a new folder")
    for i, label in enumerate(labels):
        if label != source.text(i).encode():
            raise UserError(
                f"{folder}, label-{i + 1:09d}: differs from the label of {source.where(i)}; expected a new "
                "folder, or a conversion of the same data set"
            )
    return done


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
