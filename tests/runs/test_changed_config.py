"""A run whose config.yaml was edited between two trainings."""

import json
import re
import shutil

import pytest
from small_runs import train_args

from jaxcrnn import UserError
from jaxcrnn.cli.main import main
from jaxcrnn.runs import folder, trainer
from jaxcrnn.runs.checkpoint import written


def edit(run, old, new):
    text = (run / "config.yaml").read_text()
    assert old in text
    (run / "config.yaml").write_text(text.replace(old, new))


@pytest.fixture(scope="module")
def trained(lines_file, tmp_path_factory):
    run = tmp_path_factory.mktemp("changed") / "run"
    assert main(train_args(lines_file, run, steps=4, val=False)) == 0
    return run


@pytest.mark.slow
def test_compatible_edits_are_reported_and_resumed(trained, capsys):
    edit(trained, "steps: 4", "steps: 6")
    edit(trained, "seed: 0", "seed: 3")
    assert main(["train", "--resume", str(trained)]) == 0
    out = capsys.readouterr().out
    assert "config.yaml was edited: optim.steps is 6, was 4" in out
    assert "config.yaml was edited: run.seed is 3, was 0" in out
    assert "this changes the sample order" in out
    assert "finished at step 6" in out
    assert json.loads((trained / "run.json").read_text())["config"]["optim"]["steps"] == 6
    assert main(["train", "--resume", str(trained)]) == 0
    assert "was edited" not in capsys.readouterr().out


def test_changes_by_set_are_described_and_not_saved_yet(trained):
    config, opened = (trained / "config.yaml").read_text(), folder.open_run(trained)
    taken = opened.config.optim.steps
    run, lines = folder.say_changes(opened, [f"optim.steps={taken * 2}", "data.batch_size=3"])
    assert (run.config.optim.steps, run.config.data.batch_size) == (taken * 2, 3)
    assert lines[:2] == ["--set: data.batch_size is 3, was 4", f"--set: optim.steps is {taken * 2}, was {taken}"]
    assert lines[2].startswith(f"learning rate at step {taken}: 0.00")
    assert lines[2].endswith(f", was 1e-05; it ends at 1e-05 in step {taken * 2}")
    assert "this changes the sample order" in lines[3]
    assert (trained / "config.yaml").read_text() == config
    with pytest.raises(UserError, match=r"incompatible with the edited config: optim.ema is 0.5, was 0.0; revert"):
        folder.say_changes(opened, ["optim.ema=0.5"])


def test_a_resumed_run_that_runs_out_of_memory_is_kept(trained, tmp_path, monkeypatch, capsys):
    def exhausted(*_, **__):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 11834361488 bytes.")

    run = shutil.copytree(trained, tmp_path / "run")
    taken = folder.open_run(run).config.optim.steps
    monkeypatch.setattr(trainer, "compile_step", exhausted)
    assert main(["train", "--resume", str(run), "--set", f"optim.steps={taken + 2}", "data.batch_size=3"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    steps = written(run / folder.CHECKPOINTS)
    assert steps[-1] == taken
    assert line == (
        "jaxcrnn: not enough memory for a step on 3 lines of width 64: could not allocate 11.0 GiB; lower "
        "data.batch_size, data.max_width or model.hidden, then resume from a checkpoint "
        f"(available: {', '.join(map(str, steps))})"
    )
    assert "batch_size: 3" in (run / "config.yaml").read_text()


@pytest.mark.slow
def test_set_extends_a_finished_run(trained, tmp_path, capsys):
    run = shutil.copytree(trained, tmp_path / "run")
    taken = folder.open_run(run).config.optim.steps
    extend = ["train", "--resume", str(run), "--set", f"optim.steps={taken + 2}", "run.log_every=1", "mesh.data=1"]
    assert main(extend) == 0
    out = capsys.readouterr().out
    assert f"--set: optim.steps is {taken + 2}, was {taken}\n" in out
    assert f"finished at step {taken + 2};" in out
    own = folder.open_run(run)
    assert (own.config.optim.steps, own.config.run.log_every, own.config.mesh.data) == (taken + 2, 1, 0)
    assert own.facts()["config"]["optim"]["steps"] == taken + 2
    rows = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert rows[-2:] == [taken + 1, taken + 2]
    assert main(["train", "--resume", str(run)]) == 0
    assert "optim.steps" not in capsys.readouterr().out
    assert main([*extend[:-3], f"optim.steps={taken}"]) == 2
    assert f"already at step {taken + 2}; expected {taken + 2} or more" in capsys.readouterr().err
    assert folder.open_run(run).config.optim.steps == taken + 2


def test_config_of_an_earlier_version_is_unchanged(trained, tmp_path):
    """Keys that have another name by now, that were removed, or that there were not yet."""
    run = shutil.copytree(trained, tmp_path / "run")
    facts = json.loads((run / "run.json").read_text())
    facts["config"]["model"] |= facts["config"].pop("imported")
    facts["config"]["data"]["repeat_rare"] = 0.0
    del facts["config"]["data"]["allow_outside"]
    (run / "run.json").write_text(json.dumps(facts))
    assert folder.say_changes(folder.open_run(run))[1] == []
    facts["config"]["model"]["black"] = 0.5
    (run / "run.json").write_text(json.dumps(facts))
    (message,) = folder.say_changes(folder.open_run(run))[1]
    assert message.endswith("config.yaml was edited: imported.black is -1.0, was 0.5")


@pytest.mark.parametrize(("value", "refused"), [("0.0", False), ("0.1", True)])
def test_run_with_removed_keys(trained, tmp_path, capsys, value, refused):
    """Its files have the key: at the default nothing is said; another value is refused until it is deleted."""
    run = shutil.copytree(trained, tmp_path / "run")
    edit(run, "  buckets:", f"  repeat_rare: {value}\n  buckets:")
    facts = json.loads((run / "run.json").read_text())
    facts["config"]["data"]["repeat_rare"] = float(value)
    facts["config"]["run"]["steps_per_call"] = 1
    (run / "run.json").write_text(json.dumps(facts))
    if refused:
        assert main(["train", "--resume", str(run)]) == 2
        assert "config.yaml: data.repeat_rare is 0.1, but the key was removed in version 0.2" in capsys.readouterr().err
        edit(run, f"  repeat_rare: {value}\n", "")
    assert main(["train", "--resume", str(run)]) == 0
    assert "was edited" not in capsys.readouterr().out


def test_fewer_steps_than_already_taken(trained, tmp_path, capsys):
    run = shutil.copytree(trained, tmp_path / "run")
    taken = folder.open_run(run).config.optim.steps
    edit(run, f"steps: {taken}", "steps: 2")
    assert main(["train", "--resume", str(run)]) == 0
    out = capsys.readouterr().out
    assert f"is at step {taken}, past optim.steps=2; nothing to do" in out
    assert "finished" not in out


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("hidden: 8", "hidden: 16", "model.hidden is 16, was 8"),
        ("preset: ctc", "preset: flow1", 'loss.preset is "flow1", was "ctc"'),
    ],
)
def test_incompatible_edits_are_rejected_by_name(trained, capsys, old, new, message):
    edit(trained, old, new)
    try:
        edit(trained, "learning_rate: 0.001", "learning_rate: 0.002")  # which would do
        assert main(["train", "--resume", str(trained)]) == 2
        error = capsys.readouterr().err
        assert f"the checkpoint is incompatible with the edited config: {message}; revert" in error
    finally:
        edit(trained, new, old)
        edit(trained, "learning_rate: 0.002", "learning_rate: 0.001")


def test_auto_resume_starts_and_resumes(lines_file, tmp_path, capsys):
    arguments = [*train_args(lines_file, tmp_path / "run", steps=4, val=False), "--auto-resume"]
    assert main(arguments) == 0
    assert not re.search("resuming|resumed", capsys.readouterr().out)
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert f"resuming the run in {tmp_path / 'run'}" in out
    assert "resumed at step 4" in out
    for more, message in (("optim.steps=5", "optim.steps is 4 there, 5 here"), ("run.seed=2", "run.seed is 0 there")):
        assert main([*arguments, "--set", more]) == 2
        assert message in capsys.readouterr().err
    assert main([*arguments, "--set", "mesh.data=2"]) == 0
    assert "2 devices" in capsys.readouterr().out
    assert main(["train", "--auto-resume", "--resume", str(tmp_path / "run")]) == 2
    assert "give --out FOLDER and drop --resume" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("charset.txt", lambda t: t + "x\n", "charset.txt: does not match the charset of the training: has "),
        ("charset.txt", lambda t: t.replace("3\n", ""), ": lacks '3'"),
        ("config.yaml", lambda t: t.replace("blank: first", "blank: last"), ": has the blank last instead of first"),
    ],
)
def test_changed_charset_is_rejected_by_character(trained, tmp_path, capsys, file, change, message):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    (run / file).write_text(change((run / file).read_text()))
    assert main(["train", "--resume", str(run)]) == 2
    assert message in capsys.readouterr().err
    facts = json.loads((run / "run.json").read_text())
    facts["characters"] = "33"  # a folder of a stranger's may say anything
    (run / "run.json").write_text(json.dumps(facts))
    assert main(["train", "--resume", str(run)]) == 2
    assert f"instead of {facts['charset_hash']}" in capsys.readouterr().err
