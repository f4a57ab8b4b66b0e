"""The walk through an LMDB's pages in a process of its own."""

import sys

import pytest

pytest.importorskip("lmdb", reason="the data extra is not installed")
from helpers import SyntheticLines

from jaxcrnn.data.lmdb import write_lmdb
from jaxcrnn.data.lmdb_check import damage
from jaxcrnn.errors import UserError


def test_damaged_pages_are_reported(tmp_path, monkeypatch):
    write_lmdb(tmp_path / "l", SyntheticLines(0, 30, "0123456789"))
    monkeypatch.chdir(tmp_path / "l")  # the process finds its package from any working folder
    assert damage(tmp_path / "l") is None
    file = tmp_path / "l" / "data.mdb"
    data = bytearray(file.read_bytes())
    for page in range(2, len(data) // 4096):
        data[page * 4096 + 16 : page * 4096 + 64] = b"\xf0\xff" * 24  # where its nodes are
    file.write_bytes(data)
    assert damage(tmp_path / "l").startswith("reading it failed with exit code ")


def test_failed_check_does_not_report_the_file_as_damaged(tmp_path, monkeypatch):
    write_lmdb(tmp_path / "l", SyntheticLines(0, 3, "0123456789"))
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(UserError, match=r"data\.mdb: could not be checked: reading it failed with exit code 1"):
        damage(tmp_path / "l")
