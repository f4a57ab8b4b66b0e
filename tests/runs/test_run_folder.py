"""What a run folder is kept from: two trainings at once, a start from nothing when its checkpoints are lost."""

import json
import os
import queue
import shutil
import signal
import socket
import threading
import time

import pytest
from small_runs import train_args

from jaxcrnn.cli import train
from jaxcrnn.cli.main import main
from jaxcrnn.data.loader import Batches
from jaxcrnn.errors import UserError
from jaxcrnn.runs import folder, processes, signals, trainer
from jaxcrnn.runs.lock import lock


@pytest.fixture(scope="module")
def trained(lines_file, tmp_path_factory):
    run = tmp_path_factory.mktemp("folder") / "run"
    assert main(train_args(lines_file, run, steps=12, val=False)) == 0
    return run


@pytest.fixture
def copy(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "copy")


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (
            "w.pth",
            "is a file, not a run folder; expected the --out of 'jaxcrnn train' (import a checkpoint of another ",
        ),
        ("none", "not a run folder, there is no such folder; expected"),
        ("runs", "not a run folder, config.yaml is missing; it contains the runs a, b; expected"),
        (
            "runs/a/checkpoints/4",
            "is inside the run folder {}/runs/a; expected the --out of 'jaxcrnn train', with --check",
        ),
        ("exported", "not a run folder, config.yaml is missing; it looks like an exported model; expected"),
    ],
)
def test_path_that_is_not_a_run_is_described(place, message, tmp_path):
    (tmp_path / "runs" / "a" / "checkpoints" / "4").mkdir(parents=True)
    (tmp_path / "runs" / "b").mkdir()
    (tmp_path / "exported").mkdir()
    for file in ("w.pth", "runs/a/run.json", "runs/b/run.json", "exported/config.json"):
        (tmp_path / file).touch()
    with pytest.raises(UserError) as error:
        folder.open_weights(tmp_path / place)
    assert f"{tmp_path / place}: " + message.format(tmp_path) in str(error.value)


def test_resume_without_checkpoints_is_rejected(copy, capsys):
    before = (copy / "metrics.jsonl").read_bytes()
    shutil.rmtree(copy / "checkpoints")
    assert main(["train", "--resume", str(copy)]) == 2
    assert "metrics.jsonl reaches step 12 but checkpoints/ is empty" in capsys.readouterr().err
    assert (copy / "metrics.jsonl").read_bytes() == before


@pytest.mark.slow
def test_run_without_a_first_checkpoint_restarts(copy, capsys):
    log = copy / "metrics.jsonl"
    rows = log.read_text().splitlines(keepends=True)
    log.write_text(rows[0] + rows[1][:9])
    shutil.rmtree(copy / "checkpoints")
    assert main(["train", "--resume", str(copy)]) == 0
    assert "no checkpoint found; restarting, and discarding rows of metrics.jsonl up to step 2" in (
        capsys.readouterr().out
    )
    assert [json.loads(row)["step"] for row in log.read_text().splitlines()] == [2, 4, 6, 8, 10, 12]


@pytest.mark.slow
def test_resume_of_an_initialized_run_requires_a_checkpoint(trained, lines_file, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(train_args(lines_file, run, "--init-from", str(trained), steps=2, val=False)) == 0
    shutil.rmtree(run / "checkpoints")
    assert main(["train", "--resume", str(run)]) == 2
    assert f"initialized from {trained} but has no checkpoint" in capsys.readouterr().err


@pytest.mark.slow
def test_concurrent_trainings_in_one_folder_are_rejected(copy, capsys):
    held = lock(copy)
    began = time.monotonic()
    try:
        assert main(["train", "--resume", str(copy)]) == 2
    finally:
        os.close(held)
    assert time.monotonic() - began >= 5  # what a killed one has started is waited for
    assert "another process is training in this folder" in capsys.readouterr().err
    assert main(["train", "--resume", str(copy)]) == 0


def test_missing_checksum_manifest_is_reported_and_rewritten(copy, capsys):
    newest = copy / "checkpoints" / "12"
    (newest / "files.json").unlink()
    assert main(["train", "--resume", str(copy)]) == 0
    assert "12: no checksum manifest files.json" in capsys.readouterr().out
    assert main(["train", "--resume", str(copy)]) == 0
    assert "files.json" not in capsys.readouterr().out


@pytest.mark.slow
def test_incomplete_checksum_manifest_is_rejected(copy, capsys):
    (copy / "checkpoints" / "12" / "files.json").write_text("{}")
    assert main(["train", "--resume", str(copy)]) == 0
    out = capsys.readouterr().out
    assert "is not listed in files.json" in out
    assert "resumed at step 8" in out


@pytest.mark.slow
@pytest.mark.fault
def test_exit_code_tells_whether_training_has_finished(lines_file, tmp_path):
    run = tmp_path / "run"

    def stop():
        while not (run / "metrics.jsonl").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop, daemon=True).start()
    arguments = [*train_args(lines_file, run, steps=200, val=False), "--auto-resume"]
    assert main(arguments) == train.STOPPED == 75
    assert main(arguments) == 0


def test_every_preemption_signal_is_recorded():
    with signals.stop_flag() as received:
        for notice in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            os.kill(os.getpid(), notice)
        assert received == [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1]


@pytest.mark.slow
@pytest.mark.fault
def test_signal_is_handled_while_waiting_for_data(lines_file, tmp_path, monkeypatch, capsys):
    makes = Batches.training

    def stalled(self, start, stop):
        for number, batch in enumerate(makes(self, start, stop)):
            if number == 5:
                threading.Timer(1, os.kill, (os.getpid(), signal.SIGTERM)).start()
                queue.Queue().get(timeout=100)
            yield batch

    run = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(Batches, "training", stalled)
        assert main(train_args(lines_file, run, val=False)) == 0
    stopped = folder.open_run(run).state("latest")[1]
    assert 1 <= stopped <= 5
    assert f"stopped at step {stopped}" in capsys.readouterr().out
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"] == stopped
    assert main(["train", "--resume", str(run)]) == 0
    assert folder.open_run(run).state("latest")[1] == 8


def test_pipe_is_rejected_as_image(tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe.png")
    lines = tmp_path / "lines.txt"
    lines.write_text("pipe.png\tabc\n")
    assert main(["data", "audit", str(lines)]) == 2
    captured = capsys.readouterr()
    assert "pipe.png: not a regular file" in captured.out + captured.err


def test_all_checkpoints_damaged_is_an_error(copy, capsys):
    seals = list(copy.glob("checkpoints/*/files.json"))
    for seal in seals:
        seal.write_text("{}")
    assert main(["train", "--resume", str(copy)]) == 2
    captured = capsys.readouterr()
    assert captured.out.count("falling back to the previous checkpoint") == len(seals) - 1 > 0
    assert "no other checkpoint is available; copy an intact one into" in captured.err


def test_missing_log_is_reported(copy, capsys):
    (copy / "metrics.jsonl").unlink()
    assert main(["train", "--resume", str(copy)]) == 0
    assert "metrics.jsonl is missing; its rows up to step 12 are lost" in capsys.readouterr().out


@pytest.mark.slow
def test_auto_resume_rejects_another_initialization(copy, lines_file, tmp_path, capsys):
    run = tmp_path / "run"
    arguments = [*train_args(lines_file, run, "--init-from", str(copy), steps=2, val=False), "--auto-resume"]
    other = shutil.copytree(copy, tmp_path / "other")
    assert main([*arguments, "--checkpoint", "8"]) == 0
    assert main([*arguments, "--checkpoint", "8"]) == 0
    assert main([*arguments, "--checkpoint", "12"]) == 2
    assert "was initialized from step 8 of" in capsys.readouterr().err
    for begins in (("--init-from", str(other)), ()):
        assert main([*train_args(lines_file, run, *begins, steps=2, val=False), "--auto-resume"]) == 2
        option = begins[1] if begins else "not given"
        assert f"was initialized from {copy}, but --init-from is {option}" in capsys.readouterr().err
    shutil.rmtree(copy)
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert f"{copy} no longer exists; resuming {run} with its own config" in out
    assert "resumed at step 2" in out


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("127.0.0.1", "1", "0"), "--coordinator 127.0.0.1: expected HOST:PORT"),
        (("localhost:99999", "1", "0"), "a port from 1 to 65535"),
        (("localhost:9999", "2", "2"), "--process-index 2 of --process-count 2: expected 0 to 1"),
    ],
)
def test_invalid_coordinator_options_are_rejected(values, message, capsys):
    flags = ("--coordinator", "--process-count", "--process-index")
    several = [word for pair in zip(flags, values, strict=True) for word in pair]
    assert main(["train", "--distributed", *several]) == 2
    assert message in capsys.readouterr().err


def test_coordinator_port_in_use_or_unreachable():
    with socket.create_server(("", 0)) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(UserError, match=f"--coordinator localhost:{port}: Address already in use"):
            processes.can_meet("localhost", port, first=True)
        processes.can_meet("localhost", port, first=False, patience=0)
    processes.can_meet("localhost", port, first=True)
    with pytest.raises(UserError, match=r"Connection refused; expected the first process \(--process-index 0\)"):
        processes.can_meet("localhost", port, first=False, patience=0)


@pytest.mark.slow
def test_worker_restarts_are_counted_across_resumes(lines_file, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(trainer, "restarts", lambda batches: 2)
    assert main(train_args(lines_file, tmp_path / "run", val=False)) == 0
    assert "worker processes restarted 2 times" in capsys.readouterr().out
    monkeypatch.setattr(trainer, "restarts", lambda batches: 0)
    assert main(["train", "--resume", str(tmp_path / "run")]) == 0
    assert "worker processes restarted 2 times" in capsys.readouterr().out
