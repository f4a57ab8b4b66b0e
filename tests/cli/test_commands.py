"""The commands as a user runs them, on a few rendered lines and a very small model."""

import functools
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from small_runs import train_args

import jaxcrnn.runs.trainer
from jaxcrnn.cli.main import main
from jaxcrnn.runs import compile
from jaxcrnn.runs.folder import open_run
from jaxcrnn.train import train_step


@pytest.fixture(scope="module")
def run_folder(lines_file, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    assert main(train_args(lines_file, out)) == 0
    return out


def leaves(folder, which="latest"):
    state, step = open_run(folder).state(which)
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state)], step


def test_a_run_is_a_folder(run_folder):
    names = {p.name for p in run_folder.iterdir()}
    assert {"config.yaml", "charset.txt", "run.json", "checkpoints", "metrics.jsonl"} <= names
    rows = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [2, 4, 6, 8]
    assert [row["step"] for row in rows if "val_loss" in row] == [4, 8]
    assert json.loads((run_folder / "run.json").read_text())["data"]["train"] == {
        "lines": 24, "left_out": 0, "faults": {},
    }  # fmt: skip


@pytest.mark.slow
def test_one_program_a_bucket(lines_file, tmp_path, monkeypatch, capsys):
    traces = []

    @functools.wraps(train_step)  # by the same name it is the same program, which another test has compiled
    def counted_step(*args):
        traces.append(1)
        return train_step(*args)

    monkeypatch.setattr(compile, "train_step", counted_step)
    assert main(train_args(lines_file, tmp_path / "run", "--set", "data.buckets=2", val=False)) == 0
    out = capsys.readouterr().out
    buckets = out.split("buckets ")[1].split(" px")[0].split(", ")
    assert len(buckets) == len(traces) == 2
    assert "2 step programs compiled" in out


def test_several_steps_a_call(lines_file, run_folder, tmp_path, capsys):
    """The same steps in the same order: rows of the log, counts, and what was learnt."""
    together = ("--set", "run.steps_per_call=2")
    assert main(train_args(lines_file, tmp_path / "run", *together)) == 0
    out = capsys.readouterr().out
    assert "compiled the 2 steps for width" in out
    assert "1 step programs compiled" in out

    def rows(folder):
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        return [{k: v for k, v in row.items() if k != "images_per_second"} for row in lines]

    for ours, plain in zip(rows(tmp_path / "run"), rows(run_folder), strict=True):
        assert ours == pytest.approx(plain, rel=1e-4)
    for ours, plain in zip(leaves(tmp_path / "run")[0], leaves(run_folder)[0], strict=True):
        # Adam divides by the gradient's own size: where that is rounding alone, so is the direction.
        assert np.mean(np.abs(ours - plain) <= 1e-5 + 1e-4 * np.abs(plain)) > 0.99
    assert main(train_args(lines_file, tmp_path / "odd", "--set", "run.steps_per_call=3")) == 2
    assert "run.eval_every is 4; expected a multiple of run.steps_per_call=3" in capsys.readouterr().err


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


def test_recognize_files_folders_and_stdin(run_folder, lines_file, capsys, monkeypatch):
    folder = lines_file.parent
    assert main(["recognize", str(run_folder), str(folder)]) == 0
    captured = capsys.readouterr()
    rows = [line.split("\t") for line in captured.out.splitlines()]
    assert [row[0] for row in rows] == sorted(str(p) for p in folder.glob("*.png"))
    assert "1 files that are not images passed over" in captured.err  # the label file
    assert all(0 <= float(row[2]) <= 1 for row in rows)
    assert main(["recognize", str(run_folder), rows[3][0], rows[0][0], "--json"]) == 0
    objects = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(o["path"], o["text"]) for o in objects] == [(rows[i][0], rows[i][1]) for i in (3, 0)]
    paths = "".join(f"{row[0]}\n" for row in rows[:2]).encode()
    for data, count in ((Path(rows[0][0]).read_bytes(), 1), (paths, 2)):
        monkeypatch.setattr(sys, "stdin", type("", (), {"buffer": io.BytesIO(data)}))
        assert main(["recognize", str(run_folder), "-"]) == 0
        assert capsys.readouterr().out.count("\n") == count


def test_recognize_reports_what_it_cannot_read(run_folder, lines_file, tmp_path, capsys):
    (tmp_path / "zero.png").write_bytes(b"")
    good = next(lines_file.parent.glob("*.png"))
    arguments = [
        "recognize",
        str(run_folder),
        str(tmp_path / "zero.png"),
        str(good),
        str(tmp_path / "no.png"),
        "--json",
    ]
    assert main(arguments) == 2
    captured = capsys.readouterr()
    objects = [json.loads(line) for line in captured.out.splitlines()]
    assert sorted("error" in o for o in objects) == [False, True, True]
    assert "2 of the images could not be read" in captured.err


def run_cli(arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "jaxcrnn", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


def rows_of(folder):
    log = folder / "metrics.jsonl"
    return log.read_text().count("\n") if log.exists() else 0


@pytest.mark.slow
@pytest.mark.fault
def test_a_stopped_and_a_killed_run_resume_bitwise(lines_file, tmp_path, monkeypatch, capsys):
    settings = ["--set", "run.eval_every=4", "optim.steps=24", "model.dropout=0.2", "augment.probability=1"]
    whole, part = tmp_path / "whole", tmp_path / "part"

    def stop():
        while not rows_of(part):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop, daemon=True).start()
    assert main(train_args(lines_file, part, *settings, val=False)) == 0
    stopped_at = leaves(part)[1]
    assert 2 <= stopped_at < 24
    assert f"stopped at step {stopped_at}" in capsys.readouterr().out
    before = rows_of(part)
    with run_cli(["train", "--resume", str(part)]) as process:
        while rows_of(part) <= before:
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.01)
        process.kill()
    assert leaves(part)[1] < 24
    bound, go = [], jaxcrnn.runs.trainer._Run.go

    def watched(run, state):
        bound.append({leaf.committed for leaf in jax.tree.leaves(state)})
        return go(run, state)

    monkeypatch.setattr(jaxcrnn.runs.trainer._Run, "go", watched)
    assert main(["train", "--resume", str(part)]) == 0
    assert main(train_args(lines_file, whole, *settings, val=False)) == 0
    assert bound == [{True}, {True}]  # or a fresh and a resumed run would be two programs
    (a, a_step), (b, b_step) = leaves(whole), leaves(part)
    assert a_step == b_step == 24
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)
    logs = [[(r["step"], r["loss"]) for r in map(json.loads, (f / "metrics.jsonl").read_text().splitlines())]
            for f in (whole, part)]  # fmt: skip
    assert {step for step, _ in logs[0]} <= {step for step, _ in logs[1]}


@pytest.mark.fault
@pytest.mark.slow
def test_an_image_deleted_under_way_names_what_is_kept(lines_file, tmp_path, capsys, monkeypatch):
    for file in lines_file.parent.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    go = jaxcrnn.runs.trainer._Run._save

    def save(run, state, accuracy):
        go(run, state, accuracy)
        for image in tmp_path.glob("*.png"):
            image.unlink()

    monkeypatch.setattr(jaxcrnn.runs.trainer._Run, "_save", save)
    settings = ["--set", "run.eval_every=2", "data.cache_mb=0", "data.workers=1"]
    assert main(train_args(tmp_path / lines_file.name, tmp_path / "run", *settings, steps=40, val=False)) == 2
    said = capsys.readouterr().err.strip()
    assert re.search(r"\d+\.png: no such file; the run stopped, checkpoints kept: 2(, \d+)*$", said)


def test_a_finished_run_resumes_to_nothing(run_folder, capsys):
    before = leaves(run_folder)
    assert main(["train", "--resume", str(run_folder)]) == 0
    assert "finished at step 8" in capsys.readouterr().out
    assert leaves(run_folder)[1] == before[1]


@pytest.mark.slow
@pytest.mark.fault
def test_ten_broken_steps_in_a_row_stop_the_run(lines_file, tmp_path, capsys, monkeypatch):
    config = [
        "--set",
        "optim.learning_rate=1e30",
        "optim.clip_norm=1e30",
        "optim.warmup=0",
        "optim.steps=40",
        "data.buckets=1",
    ]
    assert main(train_args(lines_file, tmp_path / "run", *config, val=False)) == 2
    captured = capsys.readouterr()
    assert "10 steps in a row" in captured.err
    assert "skipped: not finite: gradients of [" in captured.out
    assert leaves(tmp_path / "run")[1] < 40


def edit(path, change):
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")


def bad_labels(tmp_path, rows):
    Image.new("L", (64, 32), 255).save(tmp_path / "a.png")
    (tmp_path / "zero.png").write_bytes(b"")
    Image.new("1", (30000, 32)).save(tmp_path / "long.png")
    Image.new("L", (1, 32)).save(tmp_path / "thin.png")
    Image.effect_noise((64, 32), 80).save(tmp_path / "cut.png")
    data = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
    path = tmp_path / "labels.txt"
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("row", "shown"),
    [
        ("no tab", "malformed line"),
        ("none of its rows has one", "malformed line"),
        ("none.png\ta", "none.png: no such file"),
        ("zero.png\ta", "zero.png: the file is empty (0 bytes)"),
        ("cut.png\ta", "truncated"),
        ("long.png\ta", "30000x32 becomes 30000 px wide"),
        ("thin.png\ta", "'a' needs 1 frames (one a character, one between repeats); its image of 1 px has 0"),
        ("a.png\tz", "'z' (U+007A) in 'z'"),
        ("a.png\t", "has no text"),
    ],
)
def test_bad_rows_stop_the_run_and_leave_nothing(tmp_path, row, shown, capsys):
    data = bad_labels(tmp_path, [row] if row.startswith(("a.png", "none of")) else [row, "a.png\ta"])
    (tmp_path / "chars.txt").write_text("a\n")
    arguments = train_args(data, tmp_path / "run", val=False)
    assert main([*arguments, "--charset", str(tmp_path / "chars.txt")]) == 2
    captured = capsys.readouterr()
    assert shown in captured.out
    assert captured.err.startswith("jaxcrnn: 1 faults in the data, listed above")
    assert not (tmp_path / "run").exists()


def test_skip_bad_counts_what_it_leaves_out(lines_file, tmp_path, capsys):
    text = lines_file.read_text() + "none.png\t1\n0.png\t2\n"
    data = lines_file.parent / "more.txt"
    data.write_text(text)
    assert main([*train_args(data, tmp_path / "run", val=False), "--skip-bad"]) == 0
    assert "2 lines left out" in capsys.readouterr().out
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert facts["data"]["train"]["faults"] == {"missing image": 1, "image listed twice": 1}
    assert main(["evaluate", str(tmp_path / "run"), "--data", str(data)]) == 2
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "run"), "--data", str(data), "--skip-bad"]) == 0
    assert "24 lines read, 2 left out" in capsys.readouterr().out


MISTAKES = {
    "unknown command": (["tain"], "invalid choice: 'tain'"),
    "unknown option": (["train", "--dta", "x"], "unrecognized arguments: --dta"),
    "no data": (["train", "--out", "{tmp}/x"], "give --data FILE"),
    "no out": (["train", "--data", "{data}"], "give --out FOLDER"),
    "missing label file": (["train", "--data", "{tmp}/no.txt", "--out", "{tmp}/x"], "no.txt: No such file"),
    "label file is an image": (["train", "--data", "{image}", "--out", "{tmp}/x"], "is not UTF-8"),
    "out is taken": (["train", "--data", "{data}", "--out", "{run}"], "already holds a run; --resume"),
    "out is a file": (["train", "--data", "{data}", "--out", "{image}"], "is not empty"),
    "bad key": (["train", "--data", "{data}", "--out", "{tmp}/x", "--set", "optim.step=3"], "did you mean 'steps'"),
    "missing config": (["train", "--config", "{tmp}/no.yaml"], "no.yaml: No such file"),
    "not a run": (["evaluate", "{tmp}"], "not a run folder, config.yaml is missing"),
    "resume nothing": (["train", "--resume", "{tmp}"], "not a run folder"),
    "resume with options": (
        ["train", "--resume", "{run}", "--set", "optim.steps=3"],
        "leave out --config, --set (but of mesh.*)",
    ),
    "no such checkpoint": (["evaluate", "{run}", "--checkpoint", "77"], "no checkpoint of step 77; there are [4, 8]"),
    "odd checkpoint": (["evaluate", "{run}", "--checkpoint", "last"], "expected best, latest or one of the steps"),
    "another charset": (
        ["evaluate", "{run}", "--charset", "{chars}"],
        "it has besides 'x', lacks '0' '1' '2' '3' '4' ...",
    ),
    "batch size 0": (["evaluate", "{run}", "--batch-size", "0"], "expected 1 or more"),
    "missing image": (["recognize", "{run}", "{tmp}/no.png"], "no.png: no such file"),
    "folder without images": (["recognize", "{run}", "{tmp}/empty"], "no image in this folder"),
    "predictions nowhere": (["evaluate", "{run}", "--predictions", "{tmp}/no/p.txt"], "p.txt: No such file"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_get_one_line(name, run_folder, lines_file, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "chars.txt").write_text("x\n")
    places = {"tmp": tmp_path, "data": lines_file, "run": run_folder, "image": lines_file.parent / "0.png",
              "chars": tmp_path / "chars.txt"}  # fmt: skip
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


def broken_copy(run_folder, tmp_path, name, change):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(run_folder, copy)
    edit(copy / name, change)
    return copy


def test_a_tampered_run_is_refused(run_folder, tmp_path, capsys):
    copy = broken_copy(run_folder, tmp_path, "charset.txt", lambda text: text.replace("0", "x"))
    assert main(["evaluate", str(copy)]) == 2
    assert "trained with another charset" in capsys.readouterr().err


def test_a_checkpoint_of_another_model_is_refused(run_folder, tmp_path, capsys):
    copy = broken_copy(run_folder, tmp_path, "config.yaml", lambda text: text.replace("hidden: 8", "hidden: 9"))
    assert main(["evaluate", str(copy)]) == 2
    assert "not a checkpoint of this run's model" in capsys.readouterr().err


def test_changed_data_cannot_be_resumed(run_folder, tmp_path, capsys, lines_file):
    data = lines_file.parent / "fewer.txt"
    data.write_text("".join(lines_file.read_text().splitlines(keepends=True)[:-1]))
    copy = broken_copy(run_folder, tmp_path, "config.yaml", lambda t: t.replace(str(lines_file), str(data)))
    assert main(["train", "--resume", str(copy)]) == 2
    assert "the training data changed since step 8" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_place(lines_file, tmp_path, capsys):
    (tmp_path / "locked").mkdir(mode=0o500)
    assert main(train_args(lines_file, tmp_path / "locked" / "run")) == 2
    assert "Permission denied" in capsys.readouterr().err


@pytest.mark.fault
@pytest.mark.slow
def test_a_full_disk_keeps_what_was_saved(lines_file, tmp_path):
    limit = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)); "
    code = limit + "import sys; from jaxcrnn.cli.main import main; sys.exit(main(sys.argv[1:]))"
    arguments = train_args(lines_file, tmp_path / "run", val=False)
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "could not save the checkpoint of step 4" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["train", "evaluate", "recognize", "demo"])
def test_help(command, capsys):
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert "optim.steps=2000" in capsys.readouterr().out or command in ("evaluate", "recognize")


def test_print_config(capsys):
    assert main(["train", "--print-config", "--set", "optim.steps=5"]) == 0
    assert "steps: 5" in capsys.readouterr().out
