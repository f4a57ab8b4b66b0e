"""LMDB folders for tests. Importing this needs the package lmdb."""

import lmdb
from helpers import SyntheticLines

from jaxcrnn.data.lmdb import close, write_lmdb

SOURCE = SyntheticLines(9, 5, "0123456789", (2, 3))


def put(folder, items, remove=()):
    """Write and remove entries of an LMDB as another program would."""
    close(folder)
    with lmdb.open(str(folder), map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
        for key, value in items.items():
            transaction.put(key.encode(), value)
        for key in remove:
            transaction.delete(key.encode())


def as_lmdb(tmp_path):
    """The lines of `SOURCE`."""
    write_lmdb(tmp_path / "l", SOURCE)
    return tmp_path / "l"
