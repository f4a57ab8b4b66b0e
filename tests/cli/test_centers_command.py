"""Training with centers on the command line: presets, two stages, and errors in files of centers."""

import json
import pickle
import shutil

import jax
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from jaxcrnn.charset import Charset
from jaxcrnn.cli.main import main
from jaxcrnn.data.images import Limits, fit_height, read_gray
from jaxcrnn.decoding.evaluate import recognize
from jaxcrnn.errors import UserError
from jaxcrnn.objective import PRESETS, LossConfig
from jaxcrnn.runs import center_files
from jaxcrnn.runs.checkpoint import Checkpoints
from jaxcrnn.runs.config import load
from jaxcrnn.runs.folder import create, open_run
from jaxcrnn.train import init_state
from jaxcrnn.types import CenterState

SMALL = """
    model.backbone=tiny model.hidden=16 model.dropout=0 augment.probability=0 data.batch_size=4 data.buckets=1
    data.allow_outside=true optim.warmup=2 optim.learning_rate=0.01 run.log_every=2 run.eval_every=500
""".split()


def train(*more, steps=4):
    return main(["train", "--set", *SMALL, f"optim.steps={steps}", *more])


@pytest.fixture(scope="module")
def four_lines(lines_file, tmp_path_factory):
    path = tmp_path_factory.mktemp("four") / "labels.txt"
    rows = lines_file.read_text().splitlines()[:4]
    path.write_text("".join(f"{lines_file.parent}/{row}\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def reader(four_lines, tmp_path_factory):
    """A run with random weights, and a head so steep that it reads something, if nothing that is right."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "digits.txt").write_text("".join(f"{c}\n" for c in "0123456789x"))
    data = (f"data.train={four_lines}", f"data.charset={folder / 'digits.txt'}")
    run = create(folder / "reader", load(None, [*SMALL, *data]), Charset("0123456789x"), {})
    state = init_state(run.train_config, jax.random.key(0))
    head = state.params["head"]
    steep = head | {"kernel": head["kernel"] * 20, "bias": head["bias"].at[-1].set(-1e3)}  # never an x
    with Checkpoints(run.folder / "checkpoints") as checkpoints:
        checkpoints.save(state._replace(params=state.params | {"head": steep}), {}, None)
    return run.folder


@pytest.fixture(scope="module")
def as_read(reader, four_lines):
    """The four images labelled with what the run reads in them, and one more with what it does not read."""
    names = [row.split("\t")[0] for row in four_lines.read_text().splitlines()]
    state, _ = open_run(reader).state("latest")
    run = open_run(reader)
    images = [(name, fit_height(read_gray(name, Limits(), name), 32, Limits(), name)) for name in names]
    texts = [line.text for line in recognize(run.train_config, state, run.charset, images)]
    rows = [f"{name}\t{text}\n" for name, text in zip(names, texts, strict=True) if text]
    assert rows
    path = reader.parent / "as_read.txt"
    other = reader.parent / "other.png"
    shutil.copy(names[0], other)
    path.write_text("".join(rows) + f"{other}\tx\n")
    return path, len(rows)


@pytest.fixture(scope="module")
def centers_file(reader, as_read):
    assert (
        main(["centers", "estimate", "--run", str(reader), "--data", str(as_read[0]), "--skip-bad", "--allow-outside"])
        == 0
    )
    return reader / "centers.safetensors"


def test_allow_outside_of_a_run_does_not_apply_to_estimate(reader, as_read, tmp_path, capsys):
    """It says data.allow_outside=true, for what it was trained on."""
    out = ["--out", str(tmp_path / "centers.safetensors")]
    assert main(["centers", "estimate", "--run", str(reader), "--data", str(as_read[0]), *out]) == 2
    assert "path outside its folder" in capsys.readouterr().out


def test_estimate_reports_recognised_lines_and_unseen_classes(reader, centers_file, as_read, capsys):
    again = str(reader.parent / "again.safetensors")
    options = ["--run", str(reader), "--data", str(as_read[0]), "--out", again, "--skip-bad", "--allow-outside"]
    assert main(["centers", "estimate", *options]) == 0
    out = capsys.readouterr().out
    assert f"{as_read[1]} of {as_read[1] + 1} lines recognised exactly" in out
    assert " x\n" in out.split("were never seen: ")[1]
    run = open_run(reader)
    state = center_files.load(centers_file, run.charset, 32)
    again = center_files.load(reader.parent / "again.safetensors", run.charset, 32)
    np.testing.assert_array_equal(state.centers, again.centers)
    texts = {c for row in (reader.parent / "digits.txt").read_text().split() for c in row}
    assert state.counts.shape == (len(texts) + 1,)
    assert state.counts[-1] == 0  # x stands in no line
    assert (state.centers[-1] == 0).all()
    widths = [
        fit_height(read_gray(row.split("\t")[0], Limits()), 32, Limits()).shape[1]
        for row in as_read[0].read_text().splitlines()[:-1]
    ]
    assert state.counts.sum() == sum(run.config.model.frames(width) for width in widths)
    with safe_open(centers_file, "numpy") as file:
        assert file.metadata()["charset_hash"] == run.charset.hash


@pytest.mark.slow
@pytest.mark.parametrize(
    "where", ["file", *(pytest.param(name, marks=pytest.mark.slow) for name in ("head", "zeros", "normal"))]
)
def test_centers_option_selects_the_initial_centers(where, reader, centers_file, four_lines, tmp_path, capsys):
    source = str(centers_file) if where == "file" else where
    out = tmp_path / "second"
    more = ("--init-from", str(reader), "--centers", source, "--preset", "flow2", "--out", str(out))
    assert train(*more, steps=1) == 0
    run = open_run(out)
    state, _ = run.state("latest")
    before, _ = open_run(reader).state("latest")
    assert run.config.loss.preset == "flow2"
    assert run.charset.characters == open_run(reader).charset.characters
    expected = {
        "zeros": lambda: np.zeros((12, 32)),
        "head": lambda: np.asarray(before.params["head"]["kernel"]).T,
        "file": lambda: np.asarray(center_files.load(centers_file, run.charset, 32).centers),
    }
    if where in expected:
        np.testing.assert_array_equal(state.centers.centers, expected[where]())  # flow2's centers never move
    else:
        assert 0.8 < np.asarray(state.centers.centers).std() < 1.2
    # One step of Adam moves no parameter by more than the learning rate and a little decay.
    for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(before.params), strict=True):
        assert np.abs(np.asarray(a) - np.asarray(b)).max() < 0.02
    facts = run.facts()
    assert facts["init_from"]["step"] == 0
    assert facts["loss"]["weight"] == 0.25
    if where == "file":
        assert facts["centers"]["classes_never_seen"] == int((state.centers.counts == 0).sum())
    row = json.loads((out / "metrics.jsonl").read_text().splitlines()[0])
    assert row["assigned_frames"] > 0
    assert row["center"] > 0
    assert row["centers_moved"] == 0
    assert {"distance_to_own", "distance_to_lookalike", "distance_between", "hardest", "easiest"} <= set(row)
    assert set(row["hardest"][0]) == {"character", "lookalike", "probability", "margin"}


@pytest.mark.parametrize(
    "preset", [pytest.param(p, marks=pytest.mark.slow) for p in ("aligned", "flow1-torch", "posterior")]
)
def test_centers_are_saved_and_resumed(preset, four_lines, tmp_path):
    """Four steps in one go end as two and two: centers, like all else, go through the checkpoint."""
    data = ("--data", str(four_lines), "--preset", preset, "loss.weight=0.001", "loss.alpha=0.5")
    data = (*data[:4], "--set", *data[4:], "run.eval_every=2")
    assert train(*data, "--out", str(tmp_path / "whole")) == 0
    shutil.copytree(tmp_path / "whole", tmp_path / "half")
    shutil.rmtree(tmp_path / "half" / "checkpoints" / "4")
    assert main(["train", "--resume", str(tmp_path / "half")]) == 0
    one, two = (open_run(tmp_path / name).state("latest")[0] for name in ("whole", "half"))
    assert one.centers.centers.shape == two.centers.centers.shape
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_array_equal(a, b)
    if preset != "flow1-torch":
        assert (np.asarray(one.centers.counts) > 0).any()
        assert np.abs(np.asarray(one.centers.centers)).max() > 0  # they started at 0


@pytest.mark.slow
def test_interrupted_second_stage_keeps_its_own_initialization(reader, four_lines, tmp_path):
    more = ("--init-from", str(reader), "--centers", "normal", "--preset", "flow2", "--out", str(tmp_path / "run"))
    assert train(*more, steps=1) == 0
    whole = open_run(tmp_path / "run").state("latest")[0]
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "1")
    assert main(["train", "--resume", str(tmp_path / "run")]) == 0
    again = open_run(tmp_path / "run").state("latest")[0]
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)


def other_charset(tmp_path):
    path = tmp_path / "other.txt"
    path.write_text("".join(f"{c}\n" for c in "0123456789y"))
    return path


def file_mistakes(first, centers_file, tmp_path):
    """Invalid files of centers: options, and the expected message."""
    size = np.zeros((12, 32), np.float32)

    def saved(name, centers, charset="0123456789x"):
        path = tmp_path / name
        center_files.save(path, CenterState(centers, np.ones(len(centers), np.float32)), Charset(charset))
        return path

    def written(name, content):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    foreign = tmp_path / "foreign.safetensors"
    save_file({"weight": size}, foreign)
    cut = written("cut.safetensors", centers_file.read_bytes()[:-100])
    evil = written("evil.pkl", pickle.dumps({0: print}))
    odd = written("odd.pkl", pickle.dumps({0: np.zeros(32), 1: np.zeros(31)}))
    beyond = written("beyond.pkl", pickle.dumps({12: np.zeros(32)}))
    part = written("part.pkl", pickle.dumps({0: np.zeros(32)})[:-20])
    files = {
        "no such file": ("no.st", "no.st: no such file; expected centers made by"),
        "truncated": (cut, "cut.safetensors: truncated, or not a safetensors file"),
        "empty file": (written("empty.safetensors", b""), "empty.safetensors: truncated"),
        "not centers": (foreign, "not a file of centers; expected one made by"),
        "another charset": (saved("c.st", size, "0123456789y"), "'y', lacks 'x'"),
        "another order": (saved("o.st", size, "x0123456789"), "in a different order"),
        "another size": (saved("s.st", size[:, :9]), "centers of size 9; expected 32"),
        "a pickle that calls": (evil, "refusing to unpickle builtins.print"),
        "a pickle of two sizes": (odd, "all of one size"),
        "a class too many": (beyond, "class 12 is not in the charset; expected 0 to 11"),
        "a pickle cut short": (part, "part.pkl: cannot be read"),
        "not finite": (saved("n.st", size * np.nan), "non-finite centers"),
    }
    return {name: ([*first, "--centers", str(path)], message) for name, (path, message) in files.items()}


def option_mistakes(first, other):
    """Invalid options: the options, and the expected message."""
    head, ctc = [*first, "--centers", "head"], [*first[:2], *first[4:]]
    return {
        "flow2 without centers": (first, "loss.start is 'estimate' (preset 'flow2')"),
        "centers for ctc": ([*ctc, "--centers", "head"], "the preset 'ctc' has no centers"),
        "unknown preset": (
            [*first, "--preset", "flow3"],
            "expected one of ctc, flow1, flow1-torch, flow2, aligned, posterior; did you mean 'flow2'",
        ),
        "a run's charset differs": ([*head, "--charset", other], "'y', lacks 'x'"),
        "another model": (
            [*head, "--set", "model.hidden=8"],
            "weights are incompatible with this configuration: model.hidden is 8 instead of 16",
        ),
        "weight without assignment": ([*ctc, "--set", "loss.weight=0.1"], "loss.assignment is 'none'"),
        "unknown update": ([*first, "--set", "loss.update=wen"], "'wen'; expected one of fixed, delta, gradient"),
        "ignored beyond": ([*head, "--set", "loss.ignored=[40]"], "class 40; expected 0 to 11"),
        "blank elsewhere": ([*head, "--set", "data.blank=last"], "was trained with data.blank=first"),
        "charset by --set": ([*head, "--set", f"data.charset={other}"], "'y', lacks 'x'"),
        "checkpoint of nothing": (["--data", "x", "--checkpoint", "3"], "--checkpoint requires --init-from RUN"),
        "centers contradicted": ([*head, "--set", "loss.start=zeros"], "--centers head contradicts loss.start=zeros"),
        "ignored no list": ([*first, "--set", "loss.ignored=x"], "expected values in brackets"),
        "negative weight": ([*first, "--set", "loss.weight=-1"], "loss.weight is -1.0; expected 0 or more"),
    }


def test_invalid_centers_print_one_line(reader, centers_file, tmp_path, capsys):
    first = ["--init-from", str(reader), "--preset", "flow2", "--out", str(tmp_path / "out")]
    mistakes = file_mistakes(first, centers_file, tmp_path) | option_mistakes(first, str(other_charset(tmp_path)))
    for name, (options, message) in mistakes.items():
        code = train(*options) if "model.hidden=8" not in options else main(["train", *options])
        error = capsys.readouterr().err
        assert code == 2, name
        assert message in error, name
        assert len(error.splitlines()) == 1, name
        assert not (tmp_path / "out").exists(), name


@pytest.mark.slow
def test_estimate_fails_without_recognised_lines(four_lines, tmp_path, capsys):
    assert train("--data", str(four_lines), "--out", str(tmp_path / "fresh"), steps=1) == 0
    rows = [row.split("\t") for row in four_lines.read_text().splitlines()]
    other = tmp_path / "other.txt"
    other.write_text("".join(f"{name}\t{text[0] * 3}\n" for name, text in rows))
    assert main(["centers", "estimate", "--run", str(tmp_path / "fresh"), "--data", str(other), "--allow-outside"]) == 2
    assert "none of 4 lines is recognised exactly" in capsys.readouterr().err
    assert not (tmp_path / "fresh" / "centers.safetensors").exists()


def test_paddle_pickle_is_loaded(tmp_path):
    rows = {np.int64(0): np.arange(4, dtype=np.float32), 2: np.full(4, 7, np.float32)}
    for protocol in (2, 4):
        path = tmp_path / "train_center.pkl"
        path.write_bytes(pickle.dumps(rows, protocol))
        state = center_files.load(path, Charset("abc"), 4)
        np.testing.assert_array_equal(state.centers, [[0, 1, 2, 3], [0] * 4, [7] * 4, [0] * 4])
        assert state.counts.tolist() == [1, 0, 1, 0]


def test_saving_to_a_missing_folder_fails(tmp_path):
    state = CenterState(np.zeros((4, 2), np.float32), np.zeros(4, np.float32))
    with pytest.raises(UserError, match="expected a writable file"):
        center_files.save(tmp_path / "no" / "c.safetensors", state, Charset("abc"))


@pytest.mark.parametrize("preset", list(PRESETS))
def test_each_part_of_a_preset_can_be_overridden(preset):
    assert LossConfig(preset).parts == PRESETS[preset]
    other = LossConfig(preset, assignment="aligned", start="head", update="gradient", reduction="half_sum", weight=0.5)
    assert other.parts == ("aligned", "head", "gradient", "half_sum", 0.5)
