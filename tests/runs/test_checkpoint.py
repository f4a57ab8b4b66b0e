"""Checkpoints: which are kept, and what becomes of those that are damaged."""

import json
import shutil
import threading

import jax
import numpy as np
import pytest
from small_runs import train_args

from jaxcrnn._console import Plain
from jaxcrnn.cli.main import main
from jaxcrnn.errors import UserError
from jaxcrnn.runs import metrics_log, seal, trainer
from jaxcrnn.runs.checkpoint import Checkpoints
from jaxcrnn.runs.seal import Damaged
from jaxcrnn.types import TrainState


def state_of(step):
    rng = np.random.default_rng(step)
    params = {"head": {"kernel": rng.normal(size=(64, 80)).astype(np.float32), "bias": np.zeros(80, np.float32)}}
    return TrainState(
        np.int32(step), params, {"m": np.arange(5, dtype=np.float32)}, (np.uint8(3), np.array([True, False])), None
    )


def test_newest_and_best_checkpoints_are_kept(tmp_path):
    with Checkpoints(tmp_path / "c", keep=2) as checkpoints:
        for step, accuracy in enumerate([0.1, 0.9, 0.3, 0.4, 0.5, None], start=1):
            checkpoints.save(state_of(step), {"n": step}, accuracy)
        checkpoints.finish()
        assert checkpoints.steps == [2, 5, 6]
        assert checkpoints.best() == 2
    with Checkpoints(tmp_path / "c", read_only=True) as checkpoints:
        restored, extra = checkpoints.restore(2, state_of(0))
        jax.tree.map(np.testing.assert_array_equal, restored, state_of(2))
        assert extra == {"n": 2}


def largest_file(folder):
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def truncate(folder):
    file = largest_file(folder)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip_a_bit(folder):
    file = largest_file(folder)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)


DAMAGES = {
    "truncated": truncate,
    "a flipped bit": flip_a_bit,
    "no state": lambda folder: shutil.rmtree(folder / "state"),
    "no facts": lambda folder: shutil.rmtree(folder / "extra"),
    "facts cut": lambda folder: [p.write_text("{") for p in (folder / "extra").rglob("*") if p.is_file()],
    "empty": lambda folder: [p.write_bytes(b"") for p in folder.rglob("*") if p.is_file()],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoint_is_skipped(damage, tmp_path):
    folder = tmp_path / "checkpoints"
    with Checkpoints(folder, keep=3) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(state_of(step), {"n": step}, None)
    DAMAGES[damage](folder / "3")
    warnings = []
    with Checkpoints(folder, read_only=True) as checkpoints:
        state, extra, step = checkpoints.restore_newest(state_of(0), warn=warnings.append)
        assert (step, extra["n"]) == (2, 2)
        jax.tree.map(np.testing.assert_array_equal, state, state_of(2))
        assert len(warnings) == 1
        assert "checkpoints/3" in warnings[0]
        with pytest.raises(Damaged):
            checkpoints.restore(3, state_of(0))
    assert (folder / "3").exists()  # nobody who reads moves it
    with Checkpoints(folder, keep=3) as checkpoints:
        assert checkpoints.restore_newest(state_of(0), warn=warnings.append)[2] == 2
        assert checkpoints.steps == [1, 2]
        checkpoints.save(state_of(3), {"n": 33}, None)
        assert checkpoints.restore_newest(state_of(0))[1] == {"n": 33}
    assert (tmp_path / "damaged-3").exists()
    for step in (1, 2, 3):
        DAMAGES["empty"](folder / str(step))
    with Checkpoints(folder, read_only=True) as checkpoints, pytest.raises(UserError, match="checkpoints/1"):
        checkpoints.restore_newest(state_of(0))


def test_checkpoint_without_a_checksum_manifest_is_loaded(tmp_path):
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(state_of(1), {}, None)
        checkpoints.finish()
        (tmp_path / "c" / "1" / "files.json").unlink()
        jax.tree.map(np.testing.assert_array_equal, checkpoints.restore(1, state_of(0))[0], state_of(1))


def test_saving_runs_in_the_background(tmp_path, monkeypatch):
    """The arrays are those of the moment, and what goes wrong later is said at the next occasion."""
    go, write_manifest = threading.Event(), seal.seal

    def late(folder):
        go.wait(30)
        if folder.name == "2":
            raise OSError("disk full")
        write_manifest(folder)

    monkeypatch.setattr(seal, "seal", late)
    double = jax.jit(lambda state: jax.tree.map(lambda a: a * 2, state), donate_argnums=0)
    expected = state_of(1)._replace(opt_state=None)
    with Checkpoints(tmp_path / "c") as checkpoints:
        state = jax.device_put(expected)
        checkpoints.save(state, {}, None)
        checkpoints.check()
        for _ in range(3):
            state = double(state)
        jax.block_until_ready(state)
        assert not (tmp_path / "c" / "1" / "files.json").exists()
        go.set()
        jax.tree.map(np.testing.assert_array_equal, checkpoints.restore(1, expected)[0], expected)
        checkpoints.save(state_of(2), {}, None)
        with pytest.raises(UserError, match="save the checkpoint of step 2: disk full; earlier checkpoints: 1"):
            checkpoints.finish()


@pytest.mark.parametrize("name", ["files.json", "state/_METADATA", "extra/metadata"])
def test_checksums_cover_every_file(name, tmp_path):
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(state_of(1), {}, None)
        checkpoints.finish()
        (tmp_path / "c" / "1" / name).write_text("[1]")
        with pytest.raises(Damaged, match=f"damaged: {name}"):
            checkpoints.restore(1, state_of(0))


def test_unreadable_log_rows_are_skipped(tmp_path, capsys):
    log = tmp_path / "metrics.jsonl"
    rows = [json.dumps({"step": step, "loss": 1.0}) for step in (2, 4, 6)]
    log.write_text("\n".join([rows[0], "garbage}", "{}", rows[1], rows[2], rows[2][:9]]))
    metrics_log.truncate(log, 4, Plain())
    assert log.read_text().splitlines() == rows[:2]
    assert "skipped 2 unreadable rows" in capsys.readouterr().out
    before = log.stat().st_mtime_ns
    metrics_log.truncate(log, 4, Plain())  # nothing to do: not written again
    assert log.stat().st_mtime_ns == before


@pytest.mark.fault
@pytest.mark.slow
def test_log_write_error_lists_available_checkpoints(lines_file, tmp_path, capsys, monkeypatch):
    write = trainer._Run._log

    def full(run, log, step, row):
        if step > 4:
            raise OSError(28, "No space left on device")
        write(run, log, step, row)

    monkeypatch.setattr(trainer._Run, "_log", full)
    assert main(train_args(lines_file, tmp_path / "run", "run.eval_every=4", "run.log_every=1", val=False)) == 2
    error = capsys.readouterr().err
    assert "run: No space left on device; training stopped, available checkpoints: 4" in error
