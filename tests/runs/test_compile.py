"""What is decided once for a device, and what is handed to it: batches, and nothing else while a step runs."""

import dataclasses
from types import SimpleNamespace

import jax
import pytest
from small_runs import train_args

from jaxcrnn.cli.main import main
from jaxcrnn.errors import UserError
from jaxcrnn.kernels.mesh_ops import LOCAL
from jaxcrnn.model import ModelConfig
from jaxcrnn.parallel.mesh import MeshConfig, everywhere, make_mesh
from jaxcrnn.parallel.ops import ops
from jaxcrnn.runs import compile as compilation
from jaxcrnn.runs import trainer
from jaxcrnn.runs.compile import for_device, for_reading, for_training
from jaxcrnn.train import TrainConfig, state_shapes
from jaxcrnn.types import Batch

CPU = SimpleNamespace(platform="cpu")
TPU = SimpleNamespace(platform="tpu")
CUDA = SimpleNamespace(platform="gpu", client=SimpleNamespace(platform_version="cuda 13000"))
DESCRIBED = SimpleNamespace(platform="gpu", client=SimpleNamespace(platform_version="PJRT C API\nNVIDIA H100"))
ROCM = SimpleNamespace(platform="gpu", client=SimpleNamespace(platform_version="rocm 7"))


@pytest.mark.parametrize(
    ("device", "conv", "loop", "cudnn"),
    [
        (CPU, "winograd", "scan", "scan"),
        (TPU, "xla", "scan", "scan"),
        (CUDA, "xla", "unrolled", "cudnn"),
        (DESCRIBED, "xla", "unrolled", "cudnn"),
        (ROCM, "xla", "scan", "scan"),
    ],
)
def test_auto_is_resolved_for_the_device(device, conv, loop, cudnn):
    resolved = for_device(ModelConfig(), device)
    assert (resolved.conv, resolved.lstm, resolved.ctc) == (conv, loop, loop)
    assert for_device(ModelConfig(lstm="cudnn"), device).lstm == cudnn
    for name in ("xla", "winograd"):
        assert for_device(ModelConfig(conv=name), device).conv == name


@pytest.mark.parametrize(
    ("dtype", "inference", "device", "expected"),
    [
        ("bfloat16", "auto", CPU, "float32"),
        ("bfloat16", "auto", TPU, "bfloat16"),
        ("float32", "auto", TPU, "float32"),
        ("bfloat16", "bfloat16", CPU, "bfloat16"),
        ("float32", "bfloat16", TPU, "bfloat16"),
        ("float64", "auto", CPU, "float64"),
    ],
)
def test_inference_dtype_for_each_device(dtype, inference, device, expected):
    config = TrainConfig(ModelConfig(dtype=dtype, inference_dtype=inference))
    assert for_reading(config, device).model.dtype == expected


def test_unknown_choices_are_rejected():
    for name in ("conv", "lstm", "inference_dtype"):
        with pytest.raises(UserError, match=rf"model.{name} is 'cudn'; expected one of auto"):
            ModelConfig(**{name: "cudn"})


def test_equal_meshes_share_their_operations():
    """Functions are compared by identity: another value would trace the step again."""
    config = TrainConfig(ModelConfig("tiny", 8, num_classes=16))
    eight = make_mesh(MeshConfig(4, 2))
    assert for_training(config, eight) == for_training(config, make_mesh(MeshConfig(4, 2)))
    assert for_training(config, make_mesh(MeshConfig(1))).ops is LOCAL
    assert ops(eight, 16) != ops(make_mesh(MeshConfig(2, 4)), 16)
    assert hash(for_training(config, eight)) == hash(for_training(dataclasses.replace(config), eight))


@pytest.mark.parametrize("quick", [False, True])
def test_quick_compilation_has_options_of_the_platform(quick, monkeypatch):
    given = []
    monkeypatch.setattr(compilation, "compiled", lambda lowered, options: given.append(options))
    monkeypatch.setattr(compilation, "_check_memory", lambda *_: None)
    config, mesh = TrainConfig(ModelConfig("tiny", 4, num_classes=3)), make_mesh(MeshConfig(1))
    shapes = (2, 32, 32, 1), (2,), (2, 3), (2,)
    batch = Batch(*(jax.ShapeDtypeStruct(shape, int if i else float) for i, shape in enumerate(shapes)))
    placed = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=everywhere(mesh)), state_shapes(config)
    )
    compilation.compile_step(config, placed, batch, jax.random.key(0), mesh, quick=quick)
    assert given == [compilation.QUICK["cpu"] if quick else None]


def test_training_rejects_implicit_host_transfers(lines_file, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "assemble", lambda batch, sharding: batch)
    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        main(train_args(lines_file, tmp_path / "run", val=False))
