"""Runs and data sets in folders whose names are not UTF-8."""

import json
import os
import shutil

import pytest
from small_runs import SMALL

from jaxcrnn.cli.main import main
from jaxcrnn.errors import UserError
from jaxcrnn.runs.folder import open_weights

NAME = os.fsdecode(b"\xd6\xd0")


def test_run_path_that_is_not_utf8_is_rejected(tmp_path):
    """The library of the checkpoints cannot read them there, and they would be taken for damaged."""
    for name in ("config.yaml", "charset.txt", "run.json"):
        (tmp_path / NAME).mkdir(exist_ok=True)
        (tmp_path / NAME / name).write_text("")
    with pytest.raises(UserError, match=r"\\xd6\\xd0: the path is not UTF-8, as checkpoints require"):
        open_weights(tmp_path / NAME)


@pytest.mark.slow
def test_data_path_that_is_not_utf8_is_supported(lines_file, tmp_path, capsys):
    folder = shutil.copytree(lines_file.parent, tmp_path / NAME)
    data = str(folder / "labels.txt")
    assert (
        main(["train", "--data", data, "--val", data, "--out", str(tmp_path / "run"), "--set", *SMALL, "optim.steps=4"])
        == 0
    )
    assert json.loads((tmp_path / "run" / "run.json").read_text())["config"]["data"]["train"] == data
    assert main(["report", str(tmp_path / "run")]) == 0
    assert "\\udcd6\\udcd0" in (tmp_path / "run" / "report.html").read_text()
    assert main(["train", "--data", data, "--out", str(tmp_path / "run" / NAME), "--set", *SMALL]) == 2
    assert "the path is not UTF-8" in capsys.readouterr().err
    assert not (tmp_path / "run" / NAME).exists()
