"""`jaxcrnn train` on the command line, with a few rendered lines and a very small model."""

import functools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

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


def leaves(folder, which="latest"):
    state, step = open_run(folder).state(which)
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state)], step


def test_training_writes_a_run_folder(run_folder):
    names = {p.name for p in run_folder.iterdir()}
    assert {"config.yaml", "charset.txt", "run.json", "checkpoints", "metrics.jsonl"} <= names
    rows = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [2, 4, 6, 8]
    assert [row["step"] for row in rows if "val_loss" in row] == [4, 8]
    assert json.loads((run_folder / "run.json").read_text())["data"]["train"] == {
        "lines": 24,
        "left_out": 0,
        "faults": {},
    }


@pytest.mark.slow
def test_each_bucket_compiles_once(lines_file, tmp_path, monkeypatch, capsys):
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
def test_stopped_and_killed_runs_resume_bitwise(lines_file, tmp_path, monkeypatch, capsys):
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
    logs = [
        [(r["step"], r["loss"]) for r in map(json.loads, (f / "metrics.jsonl").read_text().splitlines())]
        for f in (whole, part)
    ]
    assert {step for step, _ in logs[0]} <= {step for step, _ in logs[1]}


@pytest.mark.fault
@pytest.mark.slow
def test_deleted_image_error_lists_available_checkpoints(lines_file, tmp_path, capsys, monkeypatch):
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
    error = capsys.readouterr().err.strip()
    assert re.search(r"\d+\.png: no such file in .*; training stopped, available checkpoints: 2(, \d+)*$", error)


def test_resuming_a_finished_run_changes_nothing(run_folder, capsys):
    before = leaves(run_folder)
    assert main(["train", "--resume", str(run_folder)]) == 0
    assert "finished at step 8" in capsys.readouterr().out
    assert leaves(run_folder)[1] == before[1]


@pytest.mark.slow
@pytest.mark.fault
def test_ten_consecutive_skipped_steps_stop_the_run(lines_file, tmp_path, capsys, monkeypatch):
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
    assert "skipped: non-finite gradients of [" in captured.out
    assert leaves(tmp_path / "run")[1] < 40


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
        ("zero.png\ta", "zero.png: empty file (0 bytes)"),
        ("cut.png\ta", "truncated"),
        ("long.png\ta", "30000x32 becomes 30000 px wide"),
        ("thin.png\ta", "'a' needs 1 frames (one per character, one between repeats); its image of 1 px has 0"),
        ("a.png\tz", "'z' (U+007A) in 'z'"),
        ("a.png\t", "has no text"),
    ],
)
def test_invalid_rows_stop_the_run_without_leftovers(tmp_path, row, shown, capsys):
    data = bad_labels(tmp_path, [row] if row.startswith(("a.png", "none of")) else [row, "a.png\ta"])
    (tmp_path / "chars.txt").write_text("a\n")
    arguments = train_args(data, tmp_path / "run", val=False)
    assert main([*arguments, "--charset", str(tmp_path / "chars.txt")]) == 2
    captured = capsys.readouterr()
    assert shown in captured.out
    assert captured.err.startswith("jaxcrnn: 1 faults in the data, listed above")
    assert not (tmp_path / "run").exists()


def test_skip_bad_counts_skipped_rows(lines_file, tmp_path, capsys):
    text = lines_file.read_text() + "none.png\t1\n0.png\t2\n"
    data = lines_file.parent / "more.txt"
    data.write_text(text)
    assert main([*train_args(data, tmp_path / "run", val=False), "--skip-bad"]) == 0
    assert "2 lines skipped" in capsys.readouterr().out
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert facts["data"]["train"]["faults"] == {"missing image": 1, "image listed twice": 1}
    assert main(["evaluate", str(tmp_path / "run"), "--data", str(data)]) == 2
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "run"), "--data", str(data), "--skip-bad"]) == 0
    assert "24 lines read, 2 skipped" in capsys.readouterr().out


def test_resuming_with_changed_data_is_rejected(broken_copy, capsys, lines_file):
    data = lines_file.parent / "fewer.txt"
    data.write_text("".join(lines_file.read_text().splitlines(keepends=True)[:-1]))
    copy = broken_copy("config.yaml", lambda t: t.replace(str(lines_file), str(data)))
    assert main(["train", "--resume", str(copy)]) == 2
    assert "the training data changed since step 8" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder_is_an_error(lines_file, tmp_path, capsys):
    (tmp_path / "locked").mkdir(mode=0o500)
    assert main(train_args(lines_file, tmp_path / "locked" / "run")) == 2
    assert "Permission denied" in capsys.readouterr().err


@pytest.mark.fault
@pytest.mark.slow
def test_full_disk_keeps_saved_checkpoints(lines_file, tmp_path):
    limit = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)); "
    code = limit + "import sys; from jaxcrnn.cli.main import main; sys.exit(main(sys.argv[1:]))"
    arguments = train_args(lines_file, tmp_path / "run", val=False)
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "could not save the checkpoint of step 4" in done.stderr
    assert "Traceback" not in done.stderr
