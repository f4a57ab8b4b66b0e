"""Sizes of images that earlier audits have decoded, kept on disk so that images are not read again at every start."""

from __future__ import annotations

import functools
import hashlib
import os
import tempfile
import time
from collections.abc import Hashable, Iterable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import numpy as np

import jaxcrnn
from jaxcrnn._files import cache_folder
from jaxcrnn.data import images
from jaxcrnn.data.images import AROUND, EMPTY, Limits
from jaxcrnn.data.lmdb_check import data_file

# An image that changed this recently may change again without another modification time.
SETTLED = 3.0  # seconds
UNUSED = 90 * 86400  # seconds until a file that no audit used is removed
LEAST = 64  # images that are worth a file
_ROW = np.dtype([("stamp", "S16"), ("height", "<i4"), ("width", "<i4")])
_DIGEST = 32


class AuditCache:
    """Sizes of decoded images, keyed by path, size, modification and change time, limits and versions.

    Only images that could be decoded are recorded; those with faults are read at every start. A file has a checksum, is
    replaced atomically, and is ignored if it cannot be read, so that several processes may use it. Without a writable
    folder nothing is kept.

    Args:
      places: label files or folders of the data set, which have a file of their own in the cache.
      limits: bounds on images.
      folder: folder of the cache; ``audits`` in the cache folder of the package by default.
    """

    def __init__(self, places: Iterable[str], limits: Limits, folder: Path | None = None) -> None:
        self.file: Path | None = None
        self._folders: dict[Path, bytes] = {}
        with suppress(OSError, RuntimeError, ValueError):  # no home folder, or a name that no file can have
            trim = limits.trim and (EMPTY, AROUND)  # which the sizes depend on
            key = hashlib.sha256(repr((limits.max_pixels, limits.max_bytes, trim, _decoder())).encode())
            for place in sorted({os.path.abspath(place) for place in set(places)}):
                key.update(os.fsencode(place) + b"\0")
            self.file = (folder or cache_folder() / "audits") / f"{key.hexdigest()[:32]}.sizes"
        self._rows = self._read()

    def _read(self) -> np.ndarray:
        with suppress(OSError):
            if self.file and (data := self.file.read_bytes()):
                with suppress(OSError):
                    os.utime(self.file)  # in use
                if hashlib.sha256(data[_DIGEST:]).digest() == data[:_DIGEST]:
                    return np.frombuffer(data[_DIGEST:], _ROW)
        return np.zeros(0, _ROW)

    def stamp(self, identity: Hashable) -> bytes:
        """Return 16 bytes that change with an image; none if it has no file, or one that changed just now.

        Args:
          identity: identity of a row of a `Source`: a path, or the folder of an LMDB and a number.
        """
        try:
            if isinstance(identity, Path):
                return _digest(_state(identity))
            if isinstance(identity, tuple) and len(identity) == 2 and isinstance(identity[0], Path):
                folder, number = identity
                if folder not in self._folders:  # once, before any image is read
                    self._folders[folder] = _state(data_file(folder))
                return _digest(self._folders[folder], str(number).encode())
        except (OSError, ValueError):
            pass
        return b""

    def sizes(self, stamps: np.ndarray) -> np.ndarray:
        """Look up the sizes of images by their stamps ``[N]``: ``[N, 2]`` heights and widths, 0 where unknown."""
        sizes = np.zeros((len(stamps), 2), np.int32)
        if len(self._rows) and len(stamps):
            at = np.minimum(np.searchsorted(self._rows["stamp"], stamps), len(self._rows) - 1)
            recorded = (self._rows["stamp"][at] == stamps) & (stamps != b"")
            sizes[recorded] = np.stack([self._rows[name][at[recorded]] for name in ("height", "width")], 1)
        return sizes

    def save(self, stamps: np.ndarray, sizes: np.ndarray) -> None:
        """Record the sizes ``[N, 2]`` of the images that have a stamp ``[N]``, if the folder is writable."""
        kept = (stamps != b"") & (sizes[:, 0] > 0)
        rows = np.empty(int(kept.sum()), _ROW)
        rows["stamp"], rows["height"], rows["width"] = stamps[kept], sizes[kept, 0], sizes[kept, 1]
        rows = rows[np.argsort(rows["stamp"], kind="stable")]
        if self.file is None or len(rows) < LEAST or np.array_equal(rows, self._rows):
            return
        with suppress(OSError):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            data = rows.tobytes()
            with tempfile.NamedTemporaryFile(dir=self.file.parent, suffix=".part", delete=False) as part:
                try:
                    part.write(hashlib.sha256(data).digest() + data)
                    part.close()
                    Path(part.name).replace(self.file)
                except BaseException:
                    Path(part.name).unlink(missing_ok=True)
                    raise
            _remove_unused(self.file.parent)


def _digest(*parts: bytes) -> bytes:
    return hashlib.blake2b(b"\0".join(parts), digest_size=16).digest() if all(parts) else b""


def _state(file: Path) -> bytes:
    """Describe a file by path, size and times; nothing if it changed so recently that it may change unnoticed."""
    status = file.stat()
    if time.time() - max(status.st_mtime, status.st_ctime) < SETTLED:
        return b""
    numbers = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    return os.fsencode(file) + repr(numbers).encode()


@functools.cache
def _decoder() -> tuple[str, ...]:
    """Return what decoding depends on in addition to the file: versions, and the code that decodes."""
    code = hashlib.sha256(Path(images.__file__).read_bytes()).hexdigest()
    return jaxcrnn.__version__, version("pillow"), version("numpy"), code


def _remove_unused(folder: Path) -> None:
    for file in folder.iterdir():
        with suppress(OSError):
            if time.time() - file.stat().st_mtime > UNUSED:
                file.unlink()
