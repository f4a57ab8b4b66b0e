"""Running out of memory: one line that says what to lower, and nothing left behind."""

import errno
import shutil

import pytest
from small_runs import train_args, untrained

from jaxcrnn import UserError, _memory
from jaxcrnn.cli.main import main
from jaxcrnn.decoding import evaluate
from jaxcrnn.runs import checkpoint, trainer, unused

XLA = "RESOURCE_EXHAUSTED: Out of memory allocating 11834361488 bytes."


def exhausted(*args, **kwargs):
    raise RuntimeError(XLA)


@pytest.fixture(scope="module")
def run(lines_file, tmp_path_factory):
    return untrained(tmp_path_factory.mktemp("memory") / "run", lines_file)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError(XLA), "could not allocate 11.0 GiB"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 734003200 bytes."), "700.0 MiB"),
        (
            RuntimeError("RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 20.5G of 15.7G hbm.\nmore"),
            "Ran out of memory in memory space hbm. Used 20.5G of 15.7G hbm",
        ),
        (RuntimeError("INTERNAL: Failed to allocate 500B for new constant"), "could not allocate 0.0 MiB"),
        (RuntimeError("can't start new thread"), "can't start new thread"),
        (MemoryError(), "an allocation failed"),
        (MemoryError("std::bad_alloc"), "std::bad_alloc"),
        (MemoryError("Unable to allocate 3.2 GiB for an array"), "could not allocate 3.2 GiB"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "Cannot allocate memory"),
    ],
)
def test_out_of_memory_errors_are_explained(error, message):
    assert _memory.is_out_of_memory(error)
    within = _memory.explained(lambda: ("work", "lower it"))
    with pytest.raises(_memory.OutOfMemory, match="not enough memory for work: ") as raised, within:
        raise error
    assert message in str(raised.value)
    assert str(raised.value).endswith("; lower it")
    assert "\n" not in str(raised.value)


def test_other_errors_are_not_changed():
    for error in (ValueError("out of memory"), UserError("out of memory"), RuntimeError("INTERNAL"), OSError(28, "")):
        assert not _memory.is_out_of_memory(error)
        with pytest.raises(type(error)), _memory.explained(lambda: ("", "")):
            raise error
    assert _memory.limit() is None or _memory.limit() > 0


@pytest.mark.slow
def test_new_run_is_removed_after_running_out_of_memory(lines_file, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(trainer, "init_state", exhausted)
    assert main(train_args(lines_file, tmp_path / "new" / "run", val=False)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "jaxcrnn: not enough memory for the state of the model: could not allocate 11.0 GiB; "
        "lower model.hidden, or choose a smaller backbone"
    )
    assert not (tmp_path / "new").exists()


def test_resumed_run_is_kept_after_running_out_of_memory(run, tmp_path, monkeypatch, capsys):
    own = shutil.copytree(run, tmp_path / "run")
    config, facts = ((own / name).read_text() for name in ("config.yaml", "run.json"))
    (own / "metrics.jsonl").unlink()
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint.seal, "facts_for", exhausted)
        assert main(["train", "--resume", str(own)]) == 2
    assert f"not enough memory to load {own.resolve()}/checkpoints/0: could not" in capsys.readouterr().err
    assert sorted(p.name for p in (own / "checkpoints").iterdir()) == ["0"], "the checkpoint is not damaged"
    assert (own / "config.yaml").read_text() == config
    assert (own / "run.json").read_text() == facts


def test_folders_with_a_checkpoint_are_kept(tmp_path):
    def fail(root, kind, *parts):
        with unused.removed_if_unused(root):
            root.joinpath(*parts).mkdir(parents=True, exist_ok=True)
            raise kind

    for kind in (_memory.OutOfMemory, KeyboardInterrupt, UserError):
        with pytest.raises(kind):
            fail(tmp_path / "a" / "run", kind, "checkpoints", "0")
        assert (tmp_path / "a").exists() == (kind is UserError)
    (tmp_path / "empty").mkdir()
    with pytest.raises(_memory.OutOfMemory):
        fail(tmp_path / "empty", _memory.OutOfMemory, "checkpoints")
    assert list((tmp_path / "empty").iterdir()) == []
    with pytest.raises(_memory.OutOfMemory):
        fail(tmp_path / "b", _memory.OutOfMemory, "run", "checkpoints", "8")
    with pytest.raises(_memory.OutOfMemory):
        fail(tmp_path / "a", _memory.OutOfMemory)
    assert (tmp_path / "b" / "run").exists()
    for kind in (KeyboardInterrupt, _memory.OutOfMemory):  # a checkpoint that is being written
        with pytest.raises(kind):
            fail(tmp_path / "c", kind, "checkpoints", "20.orbax-checkpoint-tmp")
        assert (tmp_path / "c").exists() == (kind is KeyboardInterrupt)
        shutil.rmtree(tmp_path / "c", ignore_errors=True)
    assert (tmp_path / "a" / "run").exists(), "it was there before"


@pytest.mark.parametrize(
    ("function", "command", "message"),
    [
        ("run_eval", ["evaluate", "{run}", "--data", "{data}", "--batch-size", "3"], "reading 3 lines of width "),
        ("run_read", ["recognize", "{run}", "{image}", "--engine", "jax"], "reading 1 lines of width 64"),
        (
            "run_estimate",
            ["centers", "estimate", "--run", "{run}", "--data", "{data}", "--out", "{out}"],
            "reading 4 lines of width ",
        ),
    ],
)
def test_reading_commands_suggest_a_smaller_batch(
    function, command, message, run, lines_file, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(evaluate, function, exhausted)
    places = {"run": run, "data": lines_file, "image": lines_file.parent / "0.png", "out": tmp_path / "c.safetensors"}
    assert main([word.format(**places) for word in command]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"jaxcrnn: not enough memory for {message}")
    assert line.endswith(
        "could not allocate 11.0 GiB; lower --batch-size (data.batch_size in a configuration), or use narrower images"
    )
    assert list(tmp_path.iterdir()) == []


def test_other_commands_print_one_line(monkeypatch, capsys):
    monkeypatch.setattr("jaxcrnn.cli.doctor.run", exhausted)
    assert main(["doctor"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("jaxcrnn: not enough memory: could not allocate 11.0 GiB; use smaller batches, a smaller")
