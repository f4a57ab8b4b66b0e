"""The same numbers on one device and on eight, in one process and in two."""

import functools
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tolerances
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from small_runs import train_args

from jaxcrnn import centers
from jaxcrnn.augment import AugmentConfig
from jaxcrnn.bench import aot
from jaxcrnn.cli.main import main
from jaxcrnn.errors import UserError
from jaxcrnn.model import ModelConfig
from jaxcrnn.objective import PRESETS, LossConfig
from jaxcrnn.optim import OptimConfig
from jaxcrnn.parallel import mesh as sharding
from jaxcrnn.parallel.mesh import MeshConfig
from jaxcrnn.parallel.sharded_centers import center_ops
from jaxcrnn.runs.compile import compile_step
from jaxcrnn.runs.folder import open_run
from jaxcrnn.train import TrainConfig, init_state
from jaxcrnn.types import Assignment, Batch, CenterState

B, W, T, C, L, H = 8, 64, 16, 16, 3, 8
D = 2 * H
MESHES = [(8, 1), (4, 2), (2, 4)]


def config_of(preset, head, **loss):
    return TrainConfig(
        ModelConfig("tiny", H, 0.2 * (preset == "ctc"), head=head, num_classes=C),
        LossConfig(preset, start="normal" if preset == "flow2" else None, **loss),
        OptimConfig("sgd", steps=50, warmup=0, learning_rate=0.05),
        AugmentConfig(probability=float(preset == "ctc")),
    )


def batch_of(step):
    """Lines of all lengths, one that only fills the batch, and two whose label is too long."""
    rng = np.random.default_rng(step)
    images = rng.uniform(-1, 1, (B, 32, W, 1)).astype(np.float32)
    labels = rng.integers(1, C, (B, L)).astype(np.int32)
    widths, lengths = np.asarray([64, 60, 40, 64, 8, 0, 64, 4]), np.asarray([3, 2, 1, 0, 3, 0, 2, 3])
    return Batch(images, widths.astype(np.int32), labels, lengths.astype(np.int32))


@functools.cache
def steps(config, data, model, fsdp=False, count=10):
    mesh = sharding.make_mesh(MeshConfig(data, model))
    # From another start a ReLU of flow2's sixth step is within rounding of 0, and its gradient jumps.
    state, key = init_state(config, jax.random.key(int(config.loss.preset == "flow2"))), jax.random.key(1)
    if state.centers is not None:  # far from each other from the start
        start = np.random.default_rng(0).normal(size=state.centers.centers.shape).astype(np.float32)
        state = state._replace(centers=state.centers._replace(centers=jnp.asarray(start)))
    places = sharding.of_state(mesh, state, fsdp=fsdp)
    state = sharding.place(state, places)
    key = sharding.place(key, sharding.everywhere(mesh))
    program, infos = None, []
    for step in range(count):
        batch = sharding.assemble(batch_of(step), sharding.of_batch(mesh))
        program = program or compile_step(config, state, batch, key, mesh)
        state, info = program(state, batch, key)
        infos.append(jax.device_get(info))
    assert jax.tree.map(lambda a: a.sharding, state) == places
    return jax.device_get(state), infos, program.as_text()


def same_state(ours, expected):
    chex.assert_trees_all_close(ours._replace(centers=None), expected._replace(centers=None), **tolerances.STEP)
    chex.assert_trees_all_close(ours.centers, expected.centers, **tolerances.CENTERS)


EVERY = [(preset, head, *mesh) for preset in PRESETS for head in ("dense", "fused") for mesh in MESHES]


# Every program costs five seconds of compilation, so all are of one preset, and compared with one program. What
# differs from preset to preset is in test_eight_devices.py, on every mesh.
@pytest.mark.parametrize(
    ("head", "data", "model"),
    [
        pytest.param("dense", 2, 4, marks=pytest.mark.slow),
        ("fused", 4, 2),
        pytest.param("dense", 8, 1, marks=pytest.mark.slow),
    ],
)
def test_one_step_on_eight_devices(head, data, model):
    compare_steps("posterior", head, data, model, 1)


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "head", "data", "model"), EVERY)
def test_ten_steps_on_eight_devices(preset, head, data, model):
    compare_steps(preset, head, data, model, 10)


def compare_steps(preset, head, data, model, count):
    push = {"push": 0.1} if preset == "aligned" else {}
    one, infos, _ = steps(config_of(preset, "dense", **push), 1, 1, count=count)
    eight, infos_of_eight, text = steps(config_of(preset, head, **push), data, model, count=count)
    for ours, expected in zip(infos_of_eight, infos, strict=True):
        for name, value in expected.items():
            tolerance = tolerances.WATCH if name == "watch" else tolerances.STEP
            chex.assert_trees_all_close(ours[name], value, **tolerance)
    same_state(eight, one)
    gathered = [c for c in aot.collectives(text) if c.kind == "all-gather"]
    assert max((c.elements for c in gathered), default=0) < B * T * H  # not the batch
    whole = {leaf.shape for leaf in jax.tree.leaves(eight) if leaf.ndim > 1 and C in leaf.shape}
    assert whole  # nor the head, its moments, or the centers
    for c in gathered:
        assert not whole & {tuple(map(int, re.findall(r"\d+", shape)[1:])) for shape in c.shapes}, c


def test_fsdp_shards_arrays_over_data(monkeypatch):
    monkeypatch.setattr(sharding, "_FSDP_FROM", 64)
    config = config_of("flow1", "dense")
    state = jax.eval_shape(lambda: init_state(config, jax.random.key(0)))
    places = sharding.of_state(sharding.make_mesh(MeshConfig(4, 2)), state, fsdp=True)
    assert tuple(places.params["lstm0"]["kernel_x"].spec) == (None, "data", None)
    assert tuple(places.params["head"]["kernel"].spec) == ("data", "model")


@pytest.mark.slow
def test_ten_steps_with_fsdp(monkeypatch):
    monkeypatch.setattr(sharding, "_FSDP_FROM", 64)
    config = config_of("flow1", "dense")
    (one, _, _), (eight, _, _) = steps(config, 1, 1), steps(config, 4, 2, fsdp=True)
    chex.assert_trees_all_close(eight, one, **tolerances.STEP)


def test_only_class_arrays_are_sharded_by_class():
    state = jax.eval_shape(lambda: init_state(config_of("flow1", "dense"), jax.random.key(0)))
    places = sharding.of_state(sharding.make_mesh(MeshConfig(2, 4)), state)
    split = {
        jax.tree_util.keystr(path)[-len("['head']['kernel']") :]: tuple(place.spec)
        for path, place in jax.tree_util.tree_leaves_with_path(places)
        if any(place.spec)
    }
    assert split == {
        ".centers.centers": ("model", None),
        ".centers.counts": ("model",),
        "['head']['kernel']": (None, "model"),
        "ms['head']['bias']": ("model",),  # the parameters'
        "ce['head']['bias']": ("model",),  # their moments'
    }
    odd = sharding.of_state(sharding.make_mesh(MeshConfig(2, 4)), jax.eval_shape(lambda: jnp.zeros(13)))
    assert not any(odd.spec)


def moved_centers(kind, shared):
    """Centers moved by features of that kind, on one device or on eight, and what the devices add up for it."""
    rng = np.random.default_rng(0)
    table, classes = rng.normal(size=(64, D)).astype(np.float32), rng.integers(0, 64, (B, T)).astype(np.int32)
    near = (table[classes] + 0.3 * rng.normal(size=(B, T, D))).astype(np.float32)
    weights = rng.uniform(0, 1, (B, T)).astype(np.float32)
    arguments = CenterState(table, np.zeros(64, np.float32)), near.astype(kind), Assignment(classes, weights)
    if not shared:
        return np.asarray(jax.jit(centers.delta)(*arguments).centers), []
    mesh = sharding.make_mesh(MeshConfig(4, 2))
    places = (P("model"), P("data"), P("data"))
    arrays = [jax.device_put(a, NamedSharding(mesh, place)) for a, place in zip(arguments, places, strict=True)]
    program = jax.jit(functools.partial(centers.delta, ops=center_ops(mesh))).lower(*arrays)
    moved = program.compile()(*arrays).centers
    return np.asarray(moved), re.findall(r"all_reduce.*?\}\) : \(tensor<(\w+)>", program.as_text(), re.DOTALL)


def test_center_all_reduce_uses_the_feature_dtype():
    (exact, _), (wide, reduced) = moved_centers(jnp.float32, False), moved_centers(jnp.float32, True)
    assert reduced == [f"32x{D}xf32", "32xf32"]
    np.testing.assert_allclose(wide, exact, **tolerances.CENTERS)
    (alone, _), (narrow, reduced) = moved_centers(jnp.bfloat16, False), moved_centers(jnp.bfloat16, True)
    assert reduced == [f"32x{D}xbf16", "32xf32"]
    by_features, by_sums = np.abs(alone - exact).mean(), np.abs(narrow - alone).mean()
    assert 0 < by_sums < by_features / 2


@pytest.mark.parametrize(
    ("mesh", "message"),
    [
        (MeshConfig(16), "needs 16 devices; only 8 are available"),
        (MeshConfig(3, 3), "needs 9 devices; only 8"),
        (MeshConfig(8, 2), "mesh.data=8 × mesh.model=2 needs 16 devices"),
    ],
)
def test_mesh_larger_than_the_devices_is_rejected(mesh, message):
    with pytest.raises(UserError, match=message):
        sharding.make_mesh(mesh)


def test_indivisible_batch_size_is_rejected():
    with pytest.raises(UserError, match=r"data.batch_size is 6; expected a multiple of mesh.data=4"):
        sharding.my_rows(sharding.make_mesh(MeshConfig(4)), 6)


# Not Adam, which divides by the gradient's own size: where that is rounding alone, so is the direction. With seed 0
# a ReLU is within rounding of 0, and its gradient jumps.
SETTINGS = """
    data.batch_size=8 run.eval_every=4 optim.optimizer=sgd loss.preset=posterior loss.start=normal run.seed=1
""".split()


@pytest.fixture(scope="module")
def whole(lines_file, tmp_path_factory):
    """Eight steps on eight devices, validation among them."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    charset = out.with_name("charset.txt")
    charset.write_text("".join(f"{c}\n" for c in "0123456789abcde"))  # with the blank 16 classes, to be shared by two
    assert main(train_args(lines_file, out, *SETTINGS, "mesh.data=8", "--charset", str(charset))) == 0
    return out


def halfway(whole, tmp_path):
    """The run as it was after four steps."""
    part = tmp_path / "part"
    shutil.copytree(whole, part)
    shutil.rmtree(part / "checkpoints" / "8")
    return part


def same_end(part, whole):
    states = [open_run(folder).state("latest")[0] for folder in (part, whole)]
    assert states[0].step == 8
    same_state(*states)
    rows = [
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()] for folder in (part, whole)
    ]
    for ours, expected in zip(*rows, strict=True):
        for name in expected.keys() - {"images_per_second"}:
            for value, other in zip(*map(jax.tree.leaves, (ours[name], expected[name])), strict=True):
                assert value == (other if isinstance(other, str) else pytest.approx(other, rel=1e-4)), name


@pytest.mark.slow
@pytest.mark.parametrize("mesh", [("mesh.data=4", "mesh.model=2"), ("mesh.data=1",)], ids=",".join)
def test_resume_on_another_number_of_devices(whole, tmp_path, mesh, capsys):
    part = halfway(whole, tmp_path)
    assert main(["train", "--resume", str(part), "--set", *mesh]) == 0
    assert "resumed at step 4" in capsys.readouterr().out
    same_end(part, whole)


def start(arguments, count, devices):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    code = f"import os; os.environ['JAX_NUM_CPU_DEVICES'] = '{devices}'; "
    code += "import sys; from jaxcrnn.cli.main import main; sys.exit(main(sys.argv[1:]))"
    several = ["--distributed", "--coordinator", f"localhost:{port}", "--process-count", str(count), "--process-index"]
    return [
        subprocess.Popen(
            [sys.executable, "-c", code, *arguments, *several, str(i)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(count)
    ]


def processes(arguments, count, devices):
    return [(process.communicate(timeout=200), process.returncode) for process in start(arguments, count, devices)]


@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL])
def test_stopping_or_killing_one_of_two_processes(lines_file, tmp_path, sent):
    """Told to stop, both stop at one step and save it; killed, the other one ends too, and what was saved is kept."""
    run = tmp_path / "run"
    arguments = train_args(lines_file, run, "data.batch_size=8", "mesh.data=2", steps=100_000, val=False)
    both = start(arguments, 2, 1)
    log = run / "metrics.jsonl"
    while not (log.exists() and log.read_text().count("\n") >= 6):
        time.sleep(0.1)
        assert both[0].poll() is None, both[0].communicate()
    both[1].send_signal(sent)
    ((out, _), (_, _)) = (process.communicate(timeout=300) for process in both)
    if sent == signal.SIGTERM:
        assert [process.returncode for process in both] == [0, 0]
        assert "resume with: jaxcrnn train --resume" in out
    else:
        assert both[0].returncode
    step = open_run(run).state("latest")[1]
    assert step >= 8
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("steps: 100000", f"steps: {step + 2}"))
    assert main(["train", "--resume", str(run), "--set", "mesh.data=1"]) == 0
    assert open_run(run).state("latest")[1] == step + 2


@pytest.mark.slow
@pytest.mark.fault
def test_error_in_one_process_ends_both(lines_file, tmp_path):
    """The one whose image is gone says so and ends with 2, soon; the other does not wait for ever."""
    lines = tmp_path / lines_file.name
    for file in lines_file.parent.iterdir():
        shutil.copy(file, tmp_path / file.name)
    run = tmp_path / "run"
    settings = "data.batch_size=8", "mesh.data=2", "data.cache_mb=0"
    both = start(train_args(lines, run, *settings, steps=100_000, val=False), 2, 1)
    log = run / "metrics.jsonl"
    while not (log.exists() and log.read_text().count("\n") >= 6):
        time.sleep(0.1)
        assert both[0].poll() is None, both[0].communicate()
    name = lines.read_text().splitlines()[0].split("\t")[0]
    (tmp_path / name).unlink()
    errors = [process.communicate(timeout=200)[1] for process in both]
    failed = [code == 2 for code in (process.returncode for process in both)]
    assert any(failed), errors
    assert all(process.returncode for process in both)
    assert f"{name}: no such file" in errors[failed.index(True)]


@pytest.mark.slow
@pytest.mark.fault
def test_two_processes_of_four_devices_match_one_of_eight(whole, tmp_path):
    """And both pass over the newest checkpoint, which is damaged."""
    part = tmp_path / "part"
    shutil.copytree(whole, part)
    largest = max((p for p in (part / "checkpoints" / "8").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-1])
    (first, second) = processes(["train", "--resume", str(part)], 2, 4)
    assert first[1] == second[1] == 0, first[0][1] + second[0][1]
    assert "checkpoints/8: damaged: " in first[0][0]
    assert (part / "damaged-8").is_dir()
    assert "resumed at step 4" in first[0][0]
    assert "8 devices: batch sharded over 8, classes over 1; 2 processes" in first[0][0]
    assert not second[0][0]
    same_end(part, whole)
