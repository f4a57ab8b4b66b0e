"""The parity ladder: jaxcrnn and torch_ref answer the same task, and every number is compared."""

import ast
import functools
import importlib
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tolerances

from jaxcrnn import convert
from jaxcrnn.charset import Charset
from jaxcrnn.cli.main import main
from jaxcrnn.data.config import DataConfig
from jaxcrnn.errors import UserError
from jaxcrnn.model import CRNN, ModelConfig
from jaxcrnn.objective import PRESETS, LossConfig
from jaxcrnn.parity import answers
from jaxcrnn.parity.ladder import TOLERANCES, compare, make_task
from jaxcrnn.runs.checkpoint import Checkpoints
from jaxcrnn.runs.config import Config
from jaxcrnn.runs.folder import create
from jaxcrnn.train import init_state

MODEL = ModelConfig("small", 4, 0.0, num_classes=7)
TINY = ModelConfig("tiny", 4, 0.0, num_classes=7)  # where the convolutions are not the point


@functools.cache
def variables_of(model, seed=0):
    def init(key):
        return CRNN(model).init(key, jnp.zeros((1, 32, 32, 1)), jnp.full((1,), 32, jnp.int32))

    variables = jax.jit(init)(jax.random.key(seed))
    # A fresh model reads one class everywhere; this one reads many, so that the count gate has something to count.
    head = variables["params"]["head"]
    return variables | {"params": variables["params"] | {"head": head | {"kernel": head["kernel"] * 20}}}


def with_biases(variables):
    """Biases as large as a trained model's: errors are relative to the largest of an array, and these start at 0."""
    rng = np.random.default_rng(0)

    def moved(path, array):
        size = 0.1 * (path[-1].key == "bias")
        return array + (size * rng.normal(size=array.shape)).astype(array.dtype)

    return variables | {"params": jax.tree_util.tree_map_with_path(moved, variables["params"])}


def ladder(model, dtype="float64", variables=None, steps=10, **options):
    task = make_task(model, variables or variables_of(model), dtype=dtype, **options)
    task["task"] = np.asarray(json.dumps(json.loads(str(task["task"])) | {"steps": steps}))
    theirs = importlib.import_module("torch_ref.answers").answer(task)
    ours = answers.answer(task)
    if "sgd" in options.get("optimizers", ()):
        assert any("/momentum_buffer." in name for name in ours)
    for name in options.get("presets", ()):
        if name != "ctc":  # or the rungs would hold without a center taking part
            assert ours[f"loss/{name}/center"] > 0
            assert all(v > 0 for k, v in ours.items() if k.startswith("step 1/") and k.endswith("info.center"))
            same = [np.array_equal(v, task["start/centers"]) for k, v in ours.items() if k.endswith("/centers")]
            assert all(same) if name == "flow2" else not any(same)
    return compare(ours, theirs, dtype)


def check(rungs, names, dtype="float64"):
    """The rungs are there and hold, in float64 more closely than users are promised."""

    def tolerance(rung):
        if dtype == "float32":
            return rung.tolerance
        wider = rung.name == "step 10" or rung.part.endswith("adamw")
        return tolerances.PARITY_FLOAT64_STEPS if wider else tolerances.PARITY_FLOAT64

    broken = [
        f"{r.name} {r.part}: {r.error:.1e} in {r.worst}" for r in rungs if not (r.holds and r.error <= tolerance(r))
    ]
    assert not broken, "\n".join(broken)
    assert {r.name for r in rungs} == set(names)
    assert all(r.arrays for r in rungs)


MODELS = {
    "tiny, standardized": ModelConfig("tiny", 4, 0.0, standardize=True, num_classes=7),
    "small": MODEL,
    "small, standardized, blank last": ModelConfig("small", 3, 0.0, standardize=True, num_classes=5, blank=4),
    "vgg": ModelConfig("vgg", 4, 0.0, num_classes=5),
}
QUICK = ("tiny, standardized",)


@pytest.mark.torch
@pytest.mark.parametrize(
    "model",
    [pytest.param(m, marks=() if name in QUICK else pytest.mark.slow, id=name) for name, m in MODELS.items()],
)
def test_operations_blocks_and_forward(model):
    # The numbers of tests/core/golden/ops.npz, and so the same program of the operations.
    check(ladder(model, presets=(), seed=1), ["ops", "blocks", "forward"])


@pytest.mark.torch
@pytest.mark.parametrize("preset", PRESETS)
def test_one_step_of_every_preset_in_float64(preset, monkeypatch):
    """The first momentum of SGD is the gradient, so that the rung of gradients, a program more, can be left out."""
    for side in (answers, importlib.import_module("torch_ref.answers")):
        monkeypatch.setattr(side, "_gradients" if side is answers else "gradients", lambda *_: {})
    rungs = ladder(TINY, steps=1, presets=(preset,), optimizers=("sgd",), base=False)
    check(rungs, ["loss", "step 1"])
    assert {r.part for r in rungs if r.name == "step 1"} == {f"{preset}/sgd"}


@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_ten_steps_in_float64(preset, optimizer):
    rungs = ladder(MODEL, presets=(preset,), optimizers=(optimizer,), base=False)
    check(rungs, ["loss", "gradients", "step 1", "step 10"])
    assert {r.part for r in rungs if r.name == "step 10"} == {f"{preset}/{optimizer}"}


@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["tiny", "small"])
def test_all_loss_terms_in_float64(backbone):
    """Focal, ACE and push on top of an alignment with all frames, the blank last."""
    loss = LossConfig("aligned", frames="all", focal=True, ace=0.1, push=0.05, push_margin=5.0, start="head", alpha=0.5)
    model = ModelConfig(backbone, 4, 0.0, num_classes=7, blank=6)
    check(
        ladder(model, presets=(), optimizers=("adamw",), loss=loss, base=False),
        ["loss", "gradients", "step 1", "step 10"],
    )


@pytest.mark.torch
@pytest.mark.slow
def test_one_step_in_float32():
    # Where a gradient is rounding alone Adam goes either way, by its whole rate.
    check(ladder(MODEL, "float32", with_biases(variables_of(MODEL))), TOLERANCES["float32"], "float32")


@pytest.fixture
def run_folder(tmp_path):
    """A run of random parameters."""
    charset, folder = Charset("0123456789", "last"), tmp_path / "run"
    config = Config(model=ModelConfig("tiny", 4, 0.0, standardize=True), data=DataConfig(blank="last"))
    run = create(folder, config, charset, {})
    with Checkpoints(folder / "checkpoints") as checkpoints:
        checkpoints.save(init_state(run.train_config, jax.random.key(0)), {}, None)
    return folder


@pytest.mark.torch
@pytest.mark.slow
def test_parity_command(run_folder, capsys):
    """``jaxcrnn parity`` on a run: torch_ref answers in a process of its own."""
    assert main(["parity", str(run_folder), "--presets", "none"]) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()[4:]].count("ops") > 5
    assert "FAILS" not in out


def test_parity_command_lists_valid_presets(run_folder, capsys):
    assert main(["parity", str(run_folder), "--presets", "flow3"]) == 2
    assert "expected some of ctc, flow1" in capsys.readouterr().err


def test_differences_are_detected():
    a = {"ops/x": np.ones(3), "ops/y": np.zeros(2), "step 1/ctc/sgd/w": np.ones(2)}
    assert all(r.holds and r.error == 0 for r in compare(a, a, "float64"))
    off = a | {"ops/x": np.asarray([1, 1, 1 + 1e-8])}
    assert [r.holds for r in compare(a, off, "float64")] == [False, True, True]
    lacking = {k: v for k, v in a.items() if k != "ops/y"}
    for pair in ((a, lacking), (lacking, a)):
        assert [r.holds for r in compare(*pair, "float64")] == [True, False, True]
    broken = a | {"ops/x": np.asarray([1, np.nan, 1])}
    assert not compare(a, broken, "float64")[0].holds


@pytest.mark.parametrize(
    "model",
    [MODEL, pytest.param(ModelConfig("vgg", 3, 0.0, num_classes=5), marks=pytest.mark.slow)],
    ids=["small", "vgg"],
)
def test_conversion_round_trip(model):
    variables = jax.tree.map(np.asarray, variables_of(model))
    state_dict = convert.to_torch(variables)
    back = convert.from_torch(state_dict)
    assert jax.tree.structure(back) == jax.tree.structure(variables)
    jax.tree.map(np.testing.assert_array_equal, back, variables)
    lacking = {k: v for k, v in state_dict.items() if k != "lstm0.weight_hh_l0"}
    with pytest.raises(UserError, match="is missing lstm0.weight_hh_l0"):
        convert.from_torch(lacking)
    with pytest.raises(UserError, match="unexpected names: head.extra"):
        convert.from_torch(state_dict | {"head.extra": np.zeros(1)})


def test_packages_do_not_import_each_other():
    root = Path(__file__).parents[2]
    for package, allowed in (("torch_ref", {"torch", "numpy", "torch_ref"}), ("jaxcrnn", None)):
        for path in (root / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
                for name in (n.split(".")[0] for n in names):
                    if allowed:
                        assert name in allowed or name in sys.stdlib_module_names, f"{path} imports {name}"
                    else:
                        files = name == "torch" and path.name == "state_dicts.py"  # reads weights, computes nothing
                        assert files or name not in ("torch", "torch_ref"), f"{path} imports {name}"


def test_products_may_be_rounded_as_in_training(monkeypatch):
    """On a CPU nothing is rounded; what the task asks for is what jax is told."""
    task = make_task(TINY, variables_of(TINY), dtype="tensorfloat32", presets=(), optimizers=())
    assert task["logits"].dtype == np.float32
    seen = []
    monkeypatch.setattr(answers, "_lowest", lambda *_: seen.append(jax.config.jax_default_matmul_precision) or {})
    answers.answer_ops(task)
    answers.answer_ops(make_task(TINY, variables_of(TINY), dtype="float32", presets=(), optimizers=()))
    assert seen == ["tensorfloat32", "float32"]
    assert TOLERANCES["tensorfloat32"].keys() == TOLERANCES["float32"].keys()
