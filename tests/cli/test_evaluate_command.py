"""`jaxcrnn evaluate`: results that do not depend on the batch size, and runs that were changed."""

import json

import pytest

from jaxcrnn.cli import main


@pytest.mark.slow
def test_evaluation_does_not_depend_on_the_batch_size(run_folder, lines_file, capsys, tmp_path):
    shown = []
    for size in (1, 7, 32):
        predictions = tmp_path / f"{size}.txt"
        assert main(["evaluate", str(run_folder), "--batch-size", str(size), "--predictions", str(predictions)]) == 0
        shown.append((capsys.readouterr().out, predictions.read_text()))
    assert shown[0] == shown[1] == shown[2]
    assert shown[0][1].count("\n") == 24
    assert main(["evaluate", str(run_folder), "--json", "--positions"]) == 0
    assert json.loads(capsys.readouterr().out)["lines"] == 24


def test_tampered_run_is_rejected(broken_copy, capsys):
    copy = broken_copy("charset.txt", lambda text: text.replace("0", "x"))
    assert main(["evaluate", str(copy)]) == 2
    assert "does not match the charset of the training" in capsys.readouterr().err


def test_checkpoint_of_another_model_is_rejected(broken_copy, capsys):
    copy = broken_copy("config.yaml", lambda text: text.replace("hidden: 8", "hidden: 9"))
    assert main(["evaluate", str(copy)]) == 2
    assert "not a checkpoint of this run's model" in capsys.readouterr().err
