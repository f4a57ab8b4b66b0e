"""Opening an LMDB, and checking its pages in a subprocess, because a damaged page kills the process that reads it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from jaxcrnn._text import first_line
from jaxcrnn.errors import UserError

INCONSISTENT = 3  # exit code of a walk that found inconsistent pages
NODE_HEADER = 8  # bytes in a page before each key
MIN_SPEED = 1 << 20  # bytes per second; a slower walk counts as endless


def open_environment(folder: Path, **options: Any) -> Any:
    """Open an LMDB, after checking that it is one and not truncated.

    Pages are memory-mapped, so that accessing one beyond the end of the file would kill the process.

    Args:
      folder: folder of ``data.mdb``, or an LMDB in one file.
      **options: options of ``lmdb.open``.

    Returns:
      A ``lmdb.Environment``.

    Raises:
      UserError: not an LMDB, truncated, or the package lmdb is missing.
    """
    try:
        import lmdb
    except ImportError:
        raise UserError(f"{folder}: reading LMDB needs the package lmdb; install the extra 'data'") from None
    file = data_file(folder)
    # Opening a pipe would block, and for an empty file the library reports "Bad file descriptor".
    if file.exists() and not file.is_file():
        raise UserError(f"{file}: not a regular file; expected an LMDB")
    if file.exists() and options.get("readonly") and not file.stat().st_size:
        raise UserError(f"{file}: empty file (0 bytes); expected an LMDB")
    try:
        environment = lmdb.open(_encodable(folder), subdir=file != folder, **options)
    except lmdb.Error as error:
        raise UserError(f"{folder}: cannot be opened as LMDB ({first_line(error)})") from None
    needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    size = file.stat().st_size
    if size < needed and environment.stat()["entries"]:
        environment.close()
        raise UserError(f"{file}: truncated file: {size:,} of {needed:,} bytes")
    return environment


def data_file(path: Path) -> Path:
    """Return the data file of an LMDB, which is the path itself for an LMDB in one file."""
    return path if path.is_file() else path / "data.mdb"


def _encodable(path: Path) -> str | bytes:
    """Return a path as text, or as bytes if it is not UTF-8, which the library accepts only so."""
    try:
        str(path).encode()
        return str(path)
    except UnicodeEncodeError:
        return os.fsencode(path)


def damage(folder: Path) -> str | None:
    """Read every key of an LMDB in a subprocess.

    Args:
      folder: folder of ``data.mdb``, or an LMDB in one file.

    Returns:
      A description of the damage, or None if every page could be read.

    Raises:
      UserError: the subprocess failed for a reason other than the file.
    """
    file = data_file(folder)
    root = str(Path(__file__).parents[2])
    # Imported by name rather than run as a file, because this folder has a module called lmdb.
    walk = f"import sys; sys.path.insert(0, {root!r}); from jaxcrnn.data.lmdb_check import walk; walk(sys.argv[1])"
    patience = 60 + (file.stat().st_size / MIN_SPEED if file.is_file() else 0)
    try:
        done = subprocess.run([sys.executable, "-c", walk, str(folder)], timeout=patience, capture_output=True)
    except subprocess.TimeoutExpired:
        return "reading it timed out"
    if done.returncode == 0:
        return None
    why = f"reading it failed with exit code {done.returncode}"
    if done.returncode > 0 and done.returncode != INCONSISTENT:  # Python failed, not the file
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise UserError(f"{file}: could not be checked: {lines[-1][:200] if lines else why}")
    return why


def walk(name: str) -> None:
    """Read every key of an LMDB and exit with 0, with ``INCONSISTENT``, or by a signal.

    Args:
      name: folder of ``data.mdb``, or an LMDB in one file.
    """
    folder = Path(name)
    try:
        import lmdb
    except ImportError:
        sys.exit(INCONSISTENT)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # hides what the library prints before it aborts
    low, high = 1 << 64, 0
    try:
        size = left = data_file(folder).stat().st_size
        with open_environment(folder, readonly=True, lock=False, readahead=False).begin(buffers=True) as transaction:
            for key, value in transaction.cursor():
                left -= len(key) + len(value) + NODE_HEADER
                same = transaction.get(key)  # takes another path through the pages
                if left < 0 or same is None or len(same) != len(value):
                    sys.exit(INCONSISTENT)
                if len(value):
                    bytes(value[-1:])  # the pages of a value are contiguous: if the last can be read, all can
                    start = np.frombuffer(value, np.uint8).ctypes.data
                    low, high = min(low, start), max(high, start + len(value))
    except (OSError, UserError, lmdb.Error):
        sys.exit(INCONSISTENT)
    sys.exit(INCONSISTENT * (high - low > size))
