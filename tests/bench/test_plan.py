"""``jaxcrnn plan``: collectives read out of HLO, a step for the devices here, and what cannot be planned."""

import importlib.util
import json
import re

import jax
import jax.numpy as jnp
import pytest

from jaxcrnn.bench import aot, described
from jaxcrnn.cli.main import main
from jaxcrnn.parallel.mesh import MeshConfig, everywhere, make_mesh
from jaxcrnn.runs.compile import QUICK

HLO = """
  %x = f32[8,16]{1,0} add(%a, %b)
  %all-reduce.1 = f32[512,100]{1,0:T(8,128)} all-reduce(%dot), channel_id=1, replica_groups={{0,1}}
  %ar.2 = (f32[8]{0:T(256)}, /*index=1*/bf16[4,2]{1,0:T(8,128)(2,1)S(1)}) all-reduce(%p, %q), metadata={op_name="jit(f)/while/body/sum"}
  %ars = (f32[6]{0}, s32[3]{0}) all-reduce-start(%p, %q), channel_id=3
  %ags = (bf16[4,8]{1,0}, bf16[16,8]{1,0}) all-gather-start(%p), dimensions={0}
  %agd = bf16[16,8]{1,0} all-gather-done(%ags)
  %cps = (pred[7]{0}, pred[7]{0}, u32[], u32[]) collective-permute-start(%p), source_target_pairs={{0,1}}
  %scalar = s32[] all-reduce(%n), channel_id=4
  %rs = f32[2,4]{1,0} reduce-scatter(%p), channel_id=5
"""  # noqa: E501


def test_collectives_are_parsed_from_hlo():
    collectives = [(c.kind, c.bytes, c.elements, c.repeated) for c in aot.collectives(HLO)]
    assert collectives == [
        ("all-reduce", 4 * 51200, 51200, False),
        ("all-reduce", 32 + 16, 8, True),
        ("all-reduce", 24 + 12, 6, False),
        ("all-gather", 2 * 128, 128, False),
        ("collective-permute", 7, 7, False),
        ("all-reduce", 4, 1, False),
        ("reduce-scatter", 32, 8, False),
    ]


TINY = """
    --classes 16 --width 64 --slots 3
    --set model.backbone=tiny model.hidden=8 data.batch_size=8 augment.probability=0
""".split()


@pytest.mark.slow
def test_plan_for_local_devices(tmp_path, capsys):
    out = tmp_path / "plan.json"
    arguments = ["plan", *TINY, "mesh.data=4", "mesh.model=2", "model.head=fused", "loss.preset=flow1"]
    assert main([*arguments, "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "8 devices, batch sharded over 4, classes over 2" in shown
    assert "8 lines per step (2 per device)" in shown
    assert re.search("memory traffic per device +forward MB +at least +backward MB +at least", shown)
    plan = json.loads(out.read_text())
    assert plan["least"] == {}  # classes are sharded
    assert plan["traffic"]["convolutions"]["backward"] > plan["traffic"]["convolutions"]["forward"] > 0
    # Of the head, and half of each on a device; the same of both moments, and centers.
    kernel, bias = 16 * 16 * 4, 16 * 4
    halves = (3 * (kernel + bias) + kernel + bias) // 2
    assert plan["gradients"] > kernel // 2 + bias // 2
    assert plan["state"] - 3 * (plan["gradients"] - (kernel + bias) // 2) - halves < 2000  # batch statistics, counts
    reduced = sum(c["bytes"] for c in plan["collectives"] if c["kind"] == "all-reduce")
    assert plan["gradients"] <= reduced < 2 * plan["gradients"]
    assert all(c["elements"] < 1024 for c in plan["collectives"] if c["kind"] == "all-gather")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "v5e"], "expected a TPU generation"),
        (["--device", "gpu:2x2"], "or a GPU (h100, h200) and the number of them"),
        (["--device", "h100:2x2"], "--device h100:2x2: expected"),
        (["--device", "h100:"], "--device h100:: expected"),
        (["--classes", "1"], "--classes 1: expected 2 or more"),
        (["--set", "mesh.data=16"], "only 8 are available"),
        (["--set", "mesh.data=8", "data.batch_size=12"], "expected a multiple of mesh.data=8"),
        (["--out", "nowhere/plan.json"], "nowhere/plan.json: No such file or directory"),
        (["--set", "loss.ignored=[9999]"], "loss.ignored has class 9999"),
    ],
)
def test_invalid_plans_are_rejected(arguments, message, capsys):
    assert main(["plan", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_tpu_plan_requires_the_tpu_extra(capsys):
    if importlib.util.find_spec("libtpu"):
        pytest.skip("the extra 'tpu' is installed")
    assert main(["plan", "--device", "v5e:2x2"]) == 2
    assert "needs the extra 'tpu'" in capsys.readouterr().err


CUDA = [name for name in ("jax_cuda12_plugin", "jax_cuda13_plugin") if importlib.util.find_spec(name)]


def test_gpu_plan_requires_the_cuda_extra(capsys):
    if CUDA:
        pytest.skip("the extra 'cuda' is installed")
    assert main(["plan", "--device", "h100"]) == 2
    assert "needs the extra 'cuda'" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(not CUDA, reason="the extra 'cuda' is not installed")
def test_plan_for_gpus(tmp_path, capsys):
    """Without a GPU: loops of LSTM and CTC launch the kernels of several frames in each iteration."""
    out = tmp_path / "plan.json"
    counts = []
    for loop in ("scan", "auto"):
        options = f"model.lstm={loop}", f"model.ctc={loop}", "model.dtype=bfloat16", "mesh.data=2"
        assert main(["plan", "--device", "h100:2", *TINY, *options, "--out", str(out)]) == 0
        counts.append(json.loads(out.read_text())["operations"])
    shown = capsys.readouterr().out
    assert "h100:2: 2 devices, batch sharded over 2" in shown
    assert main(["plan", "--device", "h100", *TINY, "model.dtype=bfloat16", "run.quick_compile=true"]) == 0
    assert main(["plan", "--device", "h100", *TINY, "model.lstm=cudnn"]) == 2
    assert "model.lstm=cudnn needs a GPU that is present" in capsys.readouterr().err
    assert ": fits" in shown
    for layer in ("LSTMs", "loss"):
        assert counts[1][layer]["forward"] < counts[0][layer]["forward"] / 2


@pytest.mark.slow
@pytest.mark.skipif(not CUDA, reason="the extra 'cuda' is not installed")
def test_xla_knows_the_options_of_quick_compilation():
    """The package would ignore an option that XLA has dropped."""
    mesh = make_mesh(MeshConfig(1), described.find("h100")[0])
    x = jax.ShapeDtypeStruct((64, 64), jnp.bfloat16, sharding=everywhere(mesh))
    jax.jit(lambda x: x @ x).lower(x).compile(compiler_options=QUICK["gpu"])


@pytest.mark.slow
def test_plan_for_a_tpu(capsys):
    pytest.importorskip("libtpu", reason="the extra 'tpu' is not installed")
    assert main(["plan", "--device", "v5e:2x2", *TINY, "model.dtype=bfloat16"]) == 0
    shown = capsys.readouterr().out
    assert "v5e:2x2: 4 devices" in shown
    assert ": fits" in shown
