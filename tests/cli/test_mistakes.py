"""Mistakes on the command line: one line that says what was expected, exit code 2."""

import pytest

from jaxcrnn.cli import main

MISTAKES = {
    "unknown command": (["tain"], "invalid choice: 'tain'"),
    "unknown option": (["train", "--dta", "x"], "unrecognized arguments: --dta x; see 'jaxcrnn train --help'"),
    "no data": (["train", "--out", "{tmp}/x"], "give --data FILE"),
    "no out": (["train", "--data", "{data}"], "give --out FOLDER"),
    "missing label file": (["train", "--data", "{tmp}/no.txt", "--out", "{tmp}/x"], "no.txt: No such file"),
    "label file is an image": (["train", "--data", "{image}", "--out", "{tmp}/x"], "an image; expected a label file"),
    "out is taken": (["train", "--data", "{data}", "--out", "{run}"], "already contains a run; use --resume"),
    "out is a file": (["train", "--data", "{data}", "--out", "{image}"], "is not empty"),
    "bad key": (["train", "--data", "{data}", "--out", "{tmp}/x", "--set", "optim.step=3"], "did you mean 'steps'"),
    "missing config": (["train", "--config", "{tmp}/no.yaml"], "no.yaml: No such file"),
    "not a run": (["evaluate", "{tmp}"], "not a run folder, config.yaml is missing"),
    "resume nothing": (["train", "--resume", "{tmp}"], "not a run folder"),
    "resume elsewhere": (["train", "--resume", "{run}", "--out", "{tmp}/x"], "drop --config and --out"),
    "resume another model": (
        ["train", "--resume", "{run}", "--set", "model.hidden=9"],
        "with its own model, loss and data; drop --set model.hidden=9, or start a new run with --init-from",
    ),
    "resume with fewer steps": (
        ["train", "--resume", "{run}", "--set", "optim.steps=3"],
        "is already at step 8; expected 8 or more",
    ),
    "resume with a bad value": (["train", "--resume", "{run}", "--set", "run.keep=0"], "run.keep is 0; expected 1"),
    "no such checkpoint": (["evaluate", "{run}", "--checkpoint", "77"], "no checkpoint of step 77; available: [4, 8]"),
    "odd checkpoint": (["evaluate", "{run}", "--checkpoint", "last"], "expected best, latest or one of the steps"),
    "another charset": (
        ["evaluate", "{run}", "--charset", "{chars}"],
        "'x', lacks '0' '1' '2' '3' '4' ...",
    ),
    "batch size 0": (["evaluate", "{run}", "--batch-size", "0"], "expected 1 or more"),
    "missing image": (["recognize", "{run}", "{tmp}/no.png"], "no.png: no such file"),
    "folder without images": (["recognize", "{run}", "{tmp}/empty"], "no images in this folder"),
    "predictions nowhere": (["evaluate", "{run}", "--predictions", "{tmp}/no/p.txt"], "p.txt: No such file"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_user_errors_print_one_line(name, run_folder, lines_file, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "chars.txt").write_text("x\n")
    places = {
        "tmp": tmp_path,
        "data": lines_file,
        "run": run_folder,
        "image": lines_file.parent / "0.png",
        "chars": tmp_path / "chars.txt",
    }
    arguments, message = MISTAKES[name]
    try:
        code = main([a.format(**places) for a in arguments])
    except SystemExit as exit_:  # argparse ends the program itself
        code = exit_.code
    captured = capsys.readouterr()
    assert code == 2
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1
    assert "Traceback" not in captured.err
