"""CTC for GPUs: the unrolled loop and the kernel, interpreted, against the scan, and what the kernel compiles to."""

import re
from functools import partial
from importlib.metadata import version

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tolerances

from jaxcrnn import ctc
from jaxcrnn.errors import UserError
from jaxcrnn.kernels.logits import factored
from jaxcrnn.model import ModelConfig
from jaxcrnn.objective import LossConfig
from jaxcrnn.parallel.mesh import MeshConfig, make_mesh
from jaxcrnn.runs.compile import for_device, for_training
from jaxcrnn.train import TrainConfig, state_shapes, train_step
from jaxcrnn.types import Batch

# Repeats, an empty label, no frames, too few frames, a label that fits exactly, padded slots of any value.
LABELS = np.asarray([[1, 1, 2], [3, 2, 99], [4, 7, 7], [1, 2, 3], [2, 2, 2], [5, 1, 5], [3, 0, 0]], np.int32)
SIZES = np.asarray([3, 2, 1, 0, 3, 3, 1], np.int32)
LENGTHS = np.asarray([9, 6, 0, 4, 4, 3, 1], np.int32)
KINDS = pytest.mark.parametrize(
    "kind",
    [
        pytest.param("pallas", marks=pytest.mark.gpu),
        "pallas-interpreted",
        "unrolled",
        pytest.param("unrolled", marks=pytest.mark.gpu, id="unrolled-gpu"),
    ],
)


def logits(frames=9, classes=8, batch=7):
    return jnp.asarray(np.random.default_rng(0).normal(size=(batch, frames, classes)).astype(np.float32) * 3)


def values(recursion, x, *labels):
    of = partial(ctc.ctc_loss, recursion=recursion)
    weights = jnp.arange(1.0, len(x) + 1)
    return jax.value_and_grad(lambda x: ((losses := of(x, *labels)) @ weights, losses), has_aux=True)(x)


@KINDS
def test_the_kernel_computes_what_the_scan_computes(kind):
    (_, expected), expected_gradient = values("scan", logits(), LENGTHS, LABELS, SIZES)
    (_, losses), gradient = values(kind, logits(), LENGTHS, LABELS, SIZES)
    assert sorted(np.flatnonzero(expected == 0)) == [2, 4]  # those that do not fit
    chex.assert_trees_all_close((losses, gradient), (expected, expected_gradient), **tolerances.FLOAT32)


@KINDS
def test_a_long_line_is_as_exact_as_with_the_scan(kind):
    """128 frames and 40 characters: 81 states, four warps."""
    rng = np.random.default_rng(1)
    labels = rng.integers(1, 8, (2, 40)).astype(np.int32)
    arguments = np.asarray([128, 120], np.int32), labels, np.asarray([40, 33], np.int32)
    (_, expected), expected_gradient = values("scan", logits(128, batch=2), *arguments)
    (_, losses), gradient = values(kind, logits(128, batch=2), *arguments)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-5)


def test_the_unrolled_loop_has_eight_frames_in_an_iteration():
    program = str(jax.make_jaxpr(partial(values, "unrolled"))(logits(), LENGTHS, LABELS, SIZES))
    assert re.findall(r"unroll=(\d+)", program) == ["8"]


def test_padded_frames_may_be_nan():
    x = jnp.where((jnp.arange(9)[None] < LENGTHS[:, None])[:, :, None], logits(), jnp.nan)
    clean = values("pallas-interpreted", logits(), LENGTHS, LABELS, SIZES)
    chex.assert_trees_all_equal(values("pallas-interpreted", x, LENGTHS, LABELS, SIZES), clean)


def test_the_fused_head_uses_the_kernel():
    features = logits(classes=5)
    rng = np.random.default_rng(2)
    kernel, bias = (jnp.asarray(rng.normal(size=shape).astype(np.float32)) for shape in ((5, 8), 8))

    def of(recursion, features):
        losses = ctc.ctc_loss(factored(features, kernel, bias), LENGTHS, LABELS, SIZES, recursion=recursion)
        return losses.sum()

    gradients = [jax.grad(partial(of, kind))(features) for kind in ("scan", "pallas-interpreted")]
    np.testing.assert_allclose(gradients[1], gradients[0], atol=1e-5)
    program = jax.jit(partial(of, "pallas-interpreted")).trace(features).jaxpr
    assert "pallas_call" in str(program)


@pytest.mark.skipif(not version("jax").startswith("0.10."), reason="newer versions of jax need a GPU to lower for one")
def test_the_kernel_lowers_for_cuda_without_a_gpu():
    """One Triton program for both directions, one warp a line; XLA compiles it where there is a GPU."""
    labelled = [jax.ShapeDtypeStruct(np.shape(a), jnp.int32) for a in (LENGTHS, LABELS, SIZES)]
    traced = jax.jit(partial(values, "pallas")).trace(logits(), *labelled)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    calls = re.findall(r"custom_call @\S*triton\b.*", text)
    assert len(calls) == 1
    assert "grid_x = 2 : i32" in calls[0]
    assert f"grid_y = {len(LABELS)} : i32" in calls[0]
    assert "num_warps = 1 : i32" in calls[0]
    assert "stablehlo.while" not in text  # no loop over frames remains


def test_threads_wait_for_each_other_in_every_frame():
    """What other threads wrote is read in the next frame, which no interpreter would notice."""
    arguments = (LENGTHS, LABELS, SIZES)
    compiled = str(jax.make_jaxpr(partial(values, "pallas"))(logits(), *arguments))
    assert compiled.count("debug_barrier") == 1
    assert "debug_barrier" not in str(jax.make_jaxpr(partial(values, "pallas-interpreted"))(logits(), *arguments))


def test_second_derivatives_are_refused():
    def slope(x):
        return values("pallas-interpreted", x, LENGTHS, LABELS, SIZES)[1].sum()

    with pytest.raises(NotImplementedError, match=r"use the scan instead \(model.ctc=scan\)"):
        jax.grad(slope)(logits())


def test_unknown_choices_are_refused():
    with pytest.raises(ValueError, match="recursion is 'loop'; expected one of scan, unrolled, pallas"):
        ctc.ctc_loss(logits(), LENGTHS, LABELS, SIZES, recursion="loop")
    with pytest.raises(UserError, match="model.ctc is 'loop'; expected one of auto, scan, unrolled, pallas"):
        ModelConfig(ctc="loop")


@pytest.mark.parametrize("loss", [LossConfig(), LossConfig(focal=True)], ids=["ctc", "focal"])
@pytest.mark.parametrize("choice", ["scan", "pallas"])
def test_a_step_uses_the_kernel_of_its_model(choice, loss):
    config = TrainConfig(ModelConfig("tiny", hidden=4, num_classes=8, ctc=choice), loss)
    shapes = (2, 32, 64, 1), (2,), (2, 3), (2,)
    batch = Batch(*(jax.ShapeDtypeStruct(s, jnp.int32 if i else jnp.float32) for i, s in enumerate(shapes)))
    program = jax.make_jaxpr(train_step, static_argnums=0)(config, state_shapes(config), batch, jax.random.key(0))
    assert ("pallas_call" in str(program)) == (choice == "pallas")


def test_other_devices_use_the_scan():
    cpus = jax.devices("cpu")
    assert for_device(ModelConfig(ctc="pallas"), cpus[0]).ctc == "scan"
    config = TrainConfig(ModelConfig(ctc="pallas"))
    assert for_training(config, make_mesh(MeshConfig(1), cpus[:1])).model.ctc == "scan"
    assert for_device(ModelConfig(), cpus[0]).ctc == "scan"
