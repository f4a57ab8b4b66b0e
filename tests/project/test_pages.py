"""Commands and programs of the pages, as a reader would run them."""

import importlib.util
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from variants import numbers

from jaxcrnn import centers, objective
from jaxcrnn.cli.main import COMMANDS, main, parser
from jaxcrnn.objective import PRESETS, LossConfig
from jaxcrnn.runs.folder import open_run
from jaxcrnn.train import eval_variables
from jaxcrnn.types import Batch, Outputs

DOCS = Path(__file__).parents[2] / "docs"
# A reader waits for a trained model; a test does not.
SMALL = """
    model.backbone=tiny model.hidden=8 optim.warmup=1 data.batch_size=4 data.buckets=1 augment.probability=0
    run.eval_every=2
""".split()


def blocks(page, language=""):
    text = (DOCS / page).read_text(encoding="utf-8")
    # All of them, or what closes a block of another language would open one.
    every = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [block for name, block in every if name == language]


@pytest.fixture(scope="module")
def place(lines_file, tmp_path_factory):
    """A folder with the data of the quick start."""
    folder = tmp_path_factory.mktemp("quick")
    (folder / "lines").mkdir()
    for file in lines_file.parent.glob("*.png"):
        (folder / "lines" / file.name).write_bytes(file.read_bytes())
    rows = lines_file.read_text().splitlines(keepends=True)
    (folder / "lines" / "labels.txt").write_text("".join(rows[:-6]))
    (folder / "lines" / "val.txt").write_text("".join(rows[-6:]))
    return folder


@pytest.mark.slow
def test_quick_start_commands_run(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    commands = [shlex.split(line) for line in blocks("quick-start.md")[0].splitlines()]
    assert len(commands) == 6
    for words in commands:
        assert words[0] == "jaxcrnn"
        if "train" in words:
            assert words[-1] == "optim.steps=2000"
            words = [*words[:-1], "optim.steps=2", *SMALL]
        assert main(words[1:]) == 0, words
    assert {p.name for p in (place / "served").iterdir()} == {"model.bin", "charset.txt", "config.json"}
    capsys.readouterr()
    (loader,) = (block for block in blocks("open-doors.md", "python") if "deserialize" in block)
    Image.open("lines/1.png").save("line.png")
    exec(compile(loader, "loader", "exec"), {})
    output = capsys.readouterr().out
    assert main(["recognize", "runs/first", "line.png"]) == 0
    assert capsys.readouterr().out.split("\t")[1] == output.rstrip("\n")


@pytest.mark.torch
@pytest.mark.slow
def test_interoperability_page_commands_run(place, tmp_path, monkeypatch, capsys):
    """In their order, in a folder that has what they name; training is cut short, the long comparison left out."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from torch_models import CrnnPytorch, Named

    monkeypatch.chdir(tmp_path)
    weights = CrnnPytorch().state_dict()
    torch.save(weights, "crnn.pth")
    torch.save({"model": weights, "ema": {"model": weights}, "epoch": 3}, "last.ckpt")
    torch.save(Named().state_dict(), "theirs.pth")
    Path("chars.txt").write_text("".join(f"{d}\n" for d in range(10)))
    assert main(["convert", "theirs.pth", "--charset", "chars.txt", "--out", "none"]) == 2
    Path("names.map").write_text(capsys.readouterr().out)
    Path("words.txt").write_text("12\n34\n5\n")
    Path("groups.txt").write_text("0123456789\n")
    for name in ("train", "val", "test"):
        rows = (place / "lines" / ("val.txt" if name == "val" else "labels.txt")).read_text()
        Path(f"{name}.txt").write_text(rows)
    for file in (place / "lines").glob("*.png"):
        Path(file.name).write_bytes(file.read_bytes())
    Image.open("1.png").save("photo.png")
    mine = ["train", "--data", "train.txt", "--charset", "chars.txt", "--preset", "flow1", "--out", "runs/mine"]
    assert main([*mine, "--set", "optim.steps=2", *SMALL]) == 0
    run = 0
    for words in commands(DOCS / "open-doors.md"):
        if words[0] == "compare" or ("onnx" in words and importlib.util.find_spec("onnxruntime") is None):
            continue
        if words[0] == "train":
            words += ["--set", "optim.steps=2", *SMALL[2:]]
        assert main(words) == 0, f"{words}: {capsys.readouterr().err}"
        run += 1
    assert run >= 10


EXAMPLE = DOCS.parent / "scripts" / "examples" / "new_loss.py"


def test_new_loss_page_matches_the_example_script(monkeypatch):
    """Its blocks are those of the program, and what it says for Python makes a flow that computes something."""
    program = EXAMPLE.read_text(encoding="utf-8")
    assert len(program.splitlines()) < 60
    *shown, from_python = blocks("new-loss.md", "python")
    assert len(shown) == 3
    for block in shown:
        assert block in program
    spec = importlib.util.spec_from_file_location("my_loss", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, "my_loss", module)
    scope = {}
    exec(from_python, scope)
    flow = scope["config"].flow
    logits, features, _, lengths, labels, label_lengths = map(jnp.asarray, numbers())
    outputs = Outputs(logits, features, lengths)
    batch = Batch(None, lengths, labels, label_lengths)
    state = centers.start(flow.rule, jax.random.key(0), jnp.zeros((features.shape[2], logits.shape[2])))
    assert 0 < jnp.abs(state.centers).max() < 0.1
    loss, (info, assignment) = objective.loss_terms(flow, outputs, batch, state)
    assert jnp.isfinite(loss)
    assert info["energy_sum"] > 0
    plain = PRESETS["posterior"](LossConfig("posterior")).assign(logits, lengths, labels, label_lengths, blank=0)
    np.testing.assert_allclose(assignment.weights, jnp.square(plain.weights), rtol=1e-5)
    moved = objective.move_centers(flow, state, outputs, assignment)
    assert (moved.centers != state.centers).any()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments", "shown"),
    [
        ("train_on_your_lines", ["{tmp}/a"], ["50 lines", "Their labels: "]),
        ("custom_reader", ["{tmp}/b"], ["400 lines; the first is ", "run saved to "]),
        ("use_from_python", [], ["'Total: 96.70', confidence 0.", "second call, 16 lines in batches of 8: "]),
    ],
)
def test_example_runs(name, arguments, shown, monkeypatch, tmp_path, capsys):
    """Each is short, is linked from a page and runs; training is cut short."""
    file = EXAMPLE.with_name(f"{name}.py")
    assert len(file.read_text(encoding="utf-8").splitlines()) < 60
    assert any(f"(../scripts/examples/{name}.py)" in page.read_text(encoding="utf-8") for page in DOCS.glob("*.md"))
    more = ["optim.steps=4", "run.eval_every=4"] if arguments else []
    monkeypatch.setattr(sys, "argv", [str(file), *(one.format(tmp=tmp_path) for one in arguments), *more])
    monkeypatch.syspath_prepend(EXAMPLE.parent)
    runpy.run_path(str(file), run_name="__main__")
    printed = capsys.readouterr().out
    assert all(part in printed for part in shown)


@pytest.mark.torch
@pytest.mark.slow
def test_parity_notebook_shows_small_differences():
    """In a process of its own, because it turns float64 on; every difference that it prints is small."""
    file = EXAMPLE.with_name("parity_notebook.py")
    assert len(file.read_text(encoding="utf-8").splitlines()) < 60
    user = {"JAX_NUMPY_RANK_PROMOTION": "allow", "JAX_NUMPY_DTYPE_PROMOTION": "standard"}  # jax's own defaults
    environment = os.environ | user | {"PYTHONPATH": str(DOCS.parent)}
    done = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, env=environment, check=True)
    errors = [float(number) for number in re.findall(r" (\d\.\de[+-]\d+), largest value", done.stdout)]
    assert len(errors) > 20
    assert max(errors) < 1e-10


@pytest.mark.slow
def test_new_loss_example_trains(place, monkeypatch, tmp_path):
    """The page's program, whose loss is none of those that are there."""
    arguments = [str(EXAMPLE), str(place / "lines" / "labels.txt"), str(tmp_path), "optim.steps=2", *SMALL]
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.syspath_prepend(EXAMPLE.parent)
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    states = {}
    for name in ("posterior", "mine"):
        state, step = open_run(tmp_path / name, trust=True).state("latest")
        assert step == 2
        states[name] = state
    assert np.abs(states["mine"].centers.centers).max() > 0
    moved = jax.tree.map(
        lambda a, b: float(np.abs(np.asarray(a) - np.asarray(b)).max()),
        *(eval_variables(states[name])["params"] for name in states),
    )
    assert max(jax.tree.leaves(moved)) > 0


def test_documented_keys_and_options_exist():
    """What the pages call by name exists."""
    from jaxcrnn.runs import config

    sections = {f.name: config.keys(config._section(f.name)) for f in config.dataclasses.fields(config.Config)}
    keys = 0
    for page in ("coming-from.md", "quick-start.md", "open-doors.md", "new-loss.md"):
        text = (DOCS / page).read_text(encoding="utf-8")
        files = "md|bin|onnx|safetensors|lm"
        for section, key in re.findall(rf"\b({'|'.join(sections)})\.(?!{files})([a-z_]+)\b(?!\()", text):
            assert key in sections[section], f"{page}: {section}.{key}"
            keys += 1
        for command in re.findall(r"(?:^|`)jaxcrnn ([a-z]+)", text, re.MULTILINE):
            assert command in COMMANDS, f"{page}: jaxcrnn {command}"
    assert keys > 20


ROOT = DOCS.parent
PAGES = sorted([ROOT / "README.md", ROOT / ".github" / "CONTRIBUTING.md", *DOCS.rglob("*.md")])
# Pages whose commands are tried, and how many there are at least: or a page in another layout would pass untried.
COMMANDS_OF = {
    "README.md": 4,
    "index.md": 18,
    "center-loss.md": 5,
    "data.md": 3,
    "does-it-help.md": 4,
    "look-alikes.md": 2,
    "open-doors.md": 14,
    "quick-start.md": 6,
    "real-lines.md": 4,
    "rendering.md": 2,
    "scale.md": 5,
}


def name_of(path):
    return path.relative_to(DOCS if DOCS in path.parents else ROOT).as_posix()


def commands(path):
    """Every command line in the blocks of a page, without what follows a ``#``; an ellipsis stands for a data set."""
    for block in [*blocks(path), *blocks(path, "bash")]:
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("jaxcrnn "):
                words = shlex.split(line, comments=True)
                yield [
                    part for word in words[1:] for part in (["--data", "x", "--out", "x"] if word == "..." else [word])
                ]


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_documented_commands_parse(path, capsys):
    """Its options are there, and each key of --set."""
    from jaxcrnn.runs import config

    documented = list(commands(path))
    assert len(documented) >= COMMANDS_OF.get(name_of(path), 0)
    for words in documented:
        try:
            args = parser().parse_args(words)
        except SystemExit as stopped:
            if stopped.code:
                pytest.fail(f"{' '.join(words)}: {capsys.readouterr().err}")
            continue
        for setting in getattr(args, "set", []):
            section, _, key = setting.partition("=")[0].partition(".")
            assert key in config.keys(config._section(section)), f"{' '.join(words)}: {setting}"


def test_pages_with_expected_commands_exist():
    assert COMMANDS_OF.keys() <= {name_of(path) for path in PAGES}


def links(path):
    return re.findall(r"\]\(([^)#]*)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))


def test_links_between_pages_are_detected():
    assert len([target for path in PAGES for target in links(path) if target.endswith(".md")]) > 20


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_have_targets(path):
    for target in links(path):
        assert not target or "://" in target or (path.parent / target).exists(), target
