"""Recorded outputs of the original programs, reproduced by jaxcrnn and by torch_ref.

``golden/originals.npz`` is a sample of what the TensorFlow original, the PyTorch port and PaddleOCR computed, made by
``scripts/make_golden.py``. Every number in it is the recorded one, and every quantity is there:

* Flow one: all frames that emit, all centers before and after, all losses. Features of other frames, on which none of
  these depends, are 0. Gradients by feature are those of every third frame that emits.
* Flow two: features, the argmax class of each frame, the mean center loss and the estimated centers of all six
  samples. Logits, losses and gradients by logit or feature are those of two samples (one read exactly, one not), the
  gradients of every sixth frame with the largest entry of all. Centers of classes that no frame has are 0.

Where the folder of shared data lies beside the checkout, the same tests run on the full recordings too.
``golden/ops.npz``, by the same script, has float64 outputs of torch_ref.
"""

import importlib
import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tolerances

import jaxcrnn.assign
import jaxcrnn.centers
import jaxcrnn.ctc
import jaxcrnn.losses
from jaxcrnn.parity import answers, ladder
from jaxcrnn.types import CenterState

GOLDEN = Path(__file__).parent / "golden"
FULL = {"flow1": "flow1_tf_torch.npz", "flow2": "flow2_paddle.npz"}


class Jax:
    """The functions of jaxcrnn, and how to hand them numbers."""

    ctc, losses, assign, centers = jaxcrnn.ctc, jaxcrnn.losses, jaxcrnn.assign, jaxcrnn.centers
    array = staticmethod(jnp.asarray)

    @staticmethod
    def call(function, *x):
        return jax.jit(function)(*x)  # un-jitted, each of the hundreds of operations compiles by itself

    @staticmethod
    def gradient(function, x):
        return jax.jit(jax.grad(function))(x)


class Torch:
    """The same of torch_ref."""

    def __init__(self):
        self.torch = importlib.import_module("torch")
        for name in ("ctc", "losses", "assign", "centers"):
            setattr(self, name, importlib.import_module(f"torch_ref.{name}"))

    def array(self, value):
        return self.torch.tensor(np.asarray(value))

    def call(self, function, *x):
        return function(*x)

    def gradient(self, function, x):
        x = x.clone().requires_grad_()
        return self.torch.autograd.grad(function(x), x)[0]


@pytest.fixture(
    params=[
        "jax-float32",
        "jax-float64",
        pytest.param("torch-float32", marks=pytest.mark.torch),
        pytest.param("torch-float64", marks=pytest.mark.torch),
    ]
)
def side(request):
    name, dtype = request.param.split("-")
    with jax.enable_x64(dtype == "float64"), jax.numpy_dtype_promotion("standard"):
        yield (Jax if name == "jax" else Torch)(), dtype


def agree(computed, recorded, tolerance=None, largest=None):
    """Within the tolerance of the largest entry, that of the whole array where the recording is a part of one."""
    double = np.asarray(computed).dtype == np.float64
    tolerance = tolerance or (tolerances.GOLDEN_FLOAT64 if double else tolerances.GOLDEN_FLOAT32)
    computed, recorded = np.asarray(computed, np.float64), np.asarray(recorded, np.float64)
    largest = np.abs(recorded).max() if largest is None else largest
    np.testing.assert_allclose(computed, recorded, rtol=0, atol=tolerance * largest)


@pytest.fixture(params=["sample", pytest.param("full", marks=[pytest.mark.shared, pytest.mark.slow])])
def recorded(request):
    """What was recorded of one flow."""

    def load(flow):
        if request.param == "full":
            with np.load(request.getfixturevalue("shared") / "golden" / FULL[flow]) as file:
                return dict(file)
        with np.load(GOLDEN / "originals.npz") as file:
            return {name.removeprefix(f"{flow}/"): file[name] for name in file.files if name.startswith(f"{flow}/")}

    return load


@pytest.fixture
def flow1(recorded, side):
    golden = recorded("flow1")
    return (*side, {"kept": np.arange(len(golden["tf_labels"]))} | golden)


def assignment_of(fw, dtype, classes, golden, **options):
    """`counted` on logits whose best classes are the recorded ones."""
    logits = fw.array(np.eye(len(golden["centers"]), dtype=dtype)[classes])
    labels = fw.array(np.maximum(golden["labels"], 0).astype(np.int32))
    frames = fw.array(np.full(len(classes), classes.shape[1], np.int32))
    sizes = fw.array(golden["label_lengths"].astype(np.int32))
    return fw.call(lambda *x: fw.assign.counted(*x, **options), logits, frames, labels, sizes)


@pytest.mark.parametrize("start", ["", "_from_zeros"])
def test_flow1_matches_the_tensorflow_original(flow1, start):
    fw, dtype, golden = flow1
    features = fw.array(golden["features"].astype(dtype))
    centers = fw.array(golden["centers"].astype(dtype) * (0 if start else 1))
    assignment = assignment_of(fw, dtype, golden["tf_raw_pred"], golden, blank=len(golden["centers"]) - 1)
    samples, frames = np.nonzero(np.asarray(assignment.weights))
    np.testing.assert_array_equal(samples, golden["tf_samples"])
    np.testing.assert_array_equal(frames, golden["tf_frames"])
    np.testing.assert_array_equal(np.asarray(assignment.classes)[samples, frames], golden["tf_labels"])

    def loss(f):
        return fw.losses.center(f, centers, assignment, reduction="half_sum")

    agree(fw.call(loss, features), golden[f"tf_loss{start}"])
    gradient = np.asarray(fw.gradient(loss, features))[samples, frames]
    agree(gradient[golden["kept"]], golden[f"tf_dcharfeatures{start}"])
    state = CenterState(centers, fw.array(np.zeros(len(centers), dtype)))
    agree(fw.centers.delta(state, features, assignment, alpha=0.05).centers, golden[f"tf_new_centers{start}"])


def test_flow1_torch_matches_the_pytorch_seed(flow1):
    fw, dtype, golden = flow1
    features, centers = (fw.array(golden[name].astype(dtype)) for name in ("features", "centers"))
    assignment = assignment_of(fw, dtype, golden["seed_raw_pred"], golden, ignored=(1,))
    samples, frames = np.nonzero(np.asarray(assignment.weights))
    np.testing.assert_array_equal(np.asarray(assignment.classes)[samples, frames], golden["seed_labels"])
    agree(np.asarray(features)[samples, frames][golden["kept"]], golden["seed_charfeatures"])

    def loss(c):
        return fw.losses.center(features, c, assignment, reduction="mean")

    agree(fw.call(loss, centers), golden["seed_loss"])
    agree(fw.gradient(loss, centers), golden["seed_dcenters"])
    state = CenterState(centers, fw.array(np.zeros(len(centers), dtype)))
    moved = fw.centers.gradient(state, features, assignment, learning_rate=1.0, reduction="mean")
    agree(np.asarray(centers) - np.asarray(moved.centers), golden["seed_dcenters"])


@pytest.fixture
def flow2(recorded, side):
    golden = recorded("flow2")
    if "raw_pred" not in golden:  # the full recording
        count, frames = golden["logits"].shape[:2]
        everything = {"samples": np.arange(count), "frames": np.arange(frames)}
        golden |= {"raw_pred": golden["logits"].argmax(-1), **everything}
    return (*side, golden)


def lines_of(fw, golden, samples):
    """Lengths, labels and label lengths of some samples; all frames are valid."""
    count, frames = golden["raw_pred"].shape
    targets = np.full(count, frames), golden["labels"], golden["label_lengths"]
    return [fw.array(array[samples].astype(np.int32)) for array in targets]


@pytest.mark.parametrize("name", ["ctc", "focal_ctc", "ace"])
def test_losses_match_paddle(flow2, name):
    fw, dtype, golden = flow2
    logits, lines = fw.array(golden["logits"].astype(dtype)), lines_of(fw, golden, golden["samples"])
    loss = {
        "ctc": lambda x: fw.ctc.ctc_loss(x, *lines),
        "focal_ctc": lambda x: fw.losses.focal_ctc(x, *lines),
        "ace": lambda x: fw.losses.ace(x, *lines, variant="paddle"),
    }[name]
    agree(fw.call(loss, logits), golden[name].reshape(-1))
    of_all = len(golden["raw_pred"])  # the mean that was differentiated is that of all samples
    gradient = np.asarray(fw.gradient(lambda x: loss(x).sum() / of_all, logits))[:, golden["frames"]]
    tolerance = None if name == "ace" else tolerances.GOLDEN_CTC_GRADIENT
    agree(gradient, golden[f"{name}_mean_dlogits"], tolerance, golden.get(f"{name}_largest"))


def test_flow2_matches_paddle(flow2):
    fw, dtype, golden = flow2
    features, centers = (fw.array(golden[name].astype(dtype)) for name in ("features", "centers"))
    # Neither asks more of the logits than which one of a frame is the largest.
    logits = fw.array(np.eye(len(golden["centers"]), dtype=dtype)[golden["raw_pred"]])
    lines = lines_of(fw, golden, slice(None))
    assignment = fw.call(fw.assign.predicted, logits, lines[0])

    def loss(f):
        return fw.losses.center(f, centers, assignment)

    agree(fw.call(loss, features), golden["center"])
    gradient = np.asarray(fw.gradient(loss, features))[golden["samples"]][:, golden["frames"]]
    agree(gradient, golden["center_dfeatures"])
    start = CenterState(centers * 0, centers[:, 0] * 0)
    state = fw.call(fw.centers.accumulate, start, features, logits, *lines)
    seen = golden["estimate_classes"]
    assert set(np.flatnonzero(np.asarray(state.counts))) == set(seen)
    agree(np.asarray(state.centers)[seen], golden["estimate_means"])
    np.testing.assert_array_equal(np.asarray(state.counts)[seen], golden["estimate_counts"])


# Where PyTorch is, tests/parity asks it for the same numbers.
@pytest.mark.parametrize(
    "file", [pytest.param("ops.npz", marks=[pytest.mark.slow] if importlib.util.find_spec("torch") else [])]
)
def test_ops_match_the_recorded_reference(file):
    with np.load(GOLDEN / file) as arrays:
        recorded = dict(arrays)
    task = {name.removeprefix("task/"): value for name, value in recorded.items() if name.startswith("task/")}
    expected = {name.removeprefix("answer/"): value for name, value in recorded.items() if name.startswith("answer/")}
    assert len(expected) > 100
    for rung in ladder.compare(answers.answer_ops(task), expected, "float64"):
        assert rung.holds, rung
