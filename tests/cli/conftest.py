"""What the tests of commands share."""

import shutil

import pytest
from small_runs import train_args

from jaxcrnn.cli import main


@pytest.fixture(scope="session")
def run_folder(lines_file, tmp_path_factory):
    """A finished run of eight steps; tests that change it take a copy."""
    out = tmp_path_factory.mktemp("runs") / "run"
    assert main(train_args(lines_file, out)) == 0
    return out


@pytest.fixture
def broken_copy(run_folder, tmp_path):
    """A function that copies the run and changes the text of one of the copy's files."""

    def copied(name, change):
        copy = tmp_path / "copy"
        shutil.copytree(run_folder, copy)
        (copy / name).write_text(change((copy / name).read_text(encoding="utf-8")), encoding="utf-8")
        return copy

    return copied
