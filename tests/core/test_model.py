"""The model: padding influences nothing, frames are what `frames` says, and torch agrees about the parts."""

import dataclasses
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxcrnn.errors import UserError
from jaxcrnn.kernels.conv_cpu import convolve
from jaxcrnn.kernels.lstm_scan import lstm_scan
from jaxcrnn.kernels.pooling import max_pool
from jaxcrnn.model import CRNN, ModelConfig
from jaxcrnn.nn.layers import BACKBONES, frames, grid, layers_of
from jaxcrnn.nn.lstm import BiLSTM


@pytest.fixture(scope="module")
def model(request):
    """Small and standardized, where a test does not ask for others."""
    backbone, standardize = getattr(request, "param", ("small", True))
    # As runs on CPUs have it: XLA's own convolutions need no test of ours.
    config = ModelConfig(backbone, hidden=8, dropout=0.0, standardize=standardize, conv="winograd", num_classes=5)
    crnn = CRNN(config)
    variables = jax.jit(lambda key: crnn.init(key, jnp.zeros((1, 32, 32, 1)), jnp.full((1,), 32)))(jax.random.key(0))
    return config, crnn, variables


@partial(jax.jit, static_argnums=(0, 4))  # un-jitted, each of the hundreds of operations compiles by itself
def run(crnn, variables, images, widths, train=False):
    if train:
        return crnn.apply(variables, images, widths, train=True, mutable=["batch_stats"])
    return crnn.apply(variables, images, widths), None


def read(crnn, variables, images, widths):
    return run(crnn, variables, images, widths)[0]


def of_models(*slow):
    """What holds for the small backbone on standardized lines holds for others: those are slow."""
    models = {
        "standardized": ("small", True),
        "vgg": ("vgg", False),
        "small": ("small", False),
        "strided": ("16k6x6/2p2x2 32np2x2 64nk4x1v", True),
    }
    params = [pytest.param(m, marks=pytest.mark.slow if n in slow else (), id=n) for n, m in models.items()]
    return pytest.mark.parametrize("model", params, indirect=True)


every_model = of_models("small", "vgg", "strided")


@every_model
@pytest.mark.parametrize("train", [False, True])
def test_padding_does_not_affect_results(model, train):
    _, crnn, variables = model
    rng = np.random.default_rng(0)
    widths = np.asarray([37, 48, 20], np.int32)
    narrow = rng.uniform(-1, 1, (3, 32, 48, 1)).astype(np.float32)
    wide = rng.uniform(-9, 9, (5, 32, 67, 1)).astype(np.float32)  # garbage in the padding, and two empty samples
    for b, w in enumerate(widths):
        wide[b, :, :w] = narrow[b, :, :w]
    a, a_stats = run(crnn, variables, narrow, widths, train)
    b, b_stats = run(crnn, variables, wide, np.concatenate([widths, [0, 0]]).astype(np.int32), train)
    assert b.lengths.tolist() == [*a.lengths.tolist(), 0, 0]
    for i, n in enumerate(a.lengths):
        np.testing.assert_allclose(a.logits[i, :n], b.logits[i, :n], atol=2e-5)
        np.testing.assert_allclose(a.features[i, :n], b.features[i, :n], atol=2e-5)
        assert (b.features[i, n:] == 0).all()
    if train:
        chex.assert_trees_all_close(a_stats, b_stats, rtol=1e-4, atol=1e-6)


@every_model
def test_frame_counts_match_the_config(model):
    config, crnn, variables = model
    widths = np.arange(1, 13, dtype=np.int32) * 3
    out = jax.eval_shape(lambda: crnn.apply(variables, jnp.zeros((1, 32, 100, 1)), jnp.full((1,), 100)))
    assert out.logits.shape == (1, config.frames(100), 5)
    lengths = read(crnn, variables, jnp.zeros((12, 32, 36, 1)), widths).lengths
    assert lengths.tolist() == [config.frames(int(w)) for w in widths]
    assert abs(config.frames(400) - (50 if "/2" in config.backbone else 100)) <= 1


def test_zero_width_images_have_no_frames():
    assert frames("vgg", 0) == frames("small", 0) == 0


@every_model
def test_features_are_the_input_of_the_head(model):
    _, crnn, variables = model
    out = read(crnn, variables, jnp.ones((2, 32, 40, 1)), jnp.full((2,), 40))
    head = variables["params"]["head"]
    np.testing.assert_allclose(out.features @ head["kernel"] + head["bias"][None, None], out.logits, atol=1e-5)


def test_standardization_removes_brightness_and_contrast(model):
    _, crnn, variables = model
    images = jax.random.uniform(jax.random.key(1), (1, 32, 40, 1), minval=-1.0)
    widths = jnp.asarray([30])
    a, b = (read(crnn, variables, x, widths).logits[:, :7] for x in (images, images * 0.4 + 0.3))
    np.testing.assert_allclose(a, b, atol=5e-3)


@every_model
def test_bfloat16_logits_are_close_and_float32(model):
    config, crnn, variables = model
    images = jax.random.uniform(jax.random.key(1), (2, 32, 40, 1), minval=-1.0)
    widths = jnp.asarray([40, 30])
    exact = read(crnn, variables, images, widths)
    rough = read(CRNN(dataclasses.replace(config, dtype="bfloat16")), variables, images, widths)
    assert rough.logits.dtype == rough.features.dtype == jnp.float32
    assert 1e-5 < jnp.abs(rough.logits - exact.logits).max() < 0.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone": "vgg16"}, "'vgg16'; expected one of .*small, tiny, vgg.*, or layers such as"),
        ({"dtype": "float16"}, "expected one of float32"),
        ({"hidden": 0}, "expected 1 or more"),
        ({"dropout": 1.0}, "expected 0 or more, less than 1"),
    ],
)
def test_invalid_configs_are_rejected(change, message):
    with pytest.raises(UserError, match=message):
        ModelConfig(**change)


@pytest.mark.parametrize(
    ("sizes", "kernel", "padding", "image", "strides"),
    [
        ((1, 5), (3, 3), "SAME", (6, 7), (1, 1)),
        ((4, 5), (3, 3), "SAME", (6, 7), (1, 1)),
        ((4, 5), (2, 2), "VALID", (6, 7), (1, 1)),
        ((3, 5), (2, 1), "VALID", (6, 7), (1, 1)),
        # Wide enough for tiles: whole ones, cut ones, and borders of other sizes.
        ((32, 40), (3, 3), "SAME", (4, 6), (1, 1)),
        ((40, 32), (3, 3), "SAME", (5, 7), (1, 1)),
        ((32, 32), (3, 3), "SAME", (1, 1), (1, 1)),
        ((32, 32), (3, 3), "VALID", (5, 4), (1, 1)),
        ((32, 32), (3, 3), ((0, 2), (2, 1)), (4, 5), (1, 1)),
        # First layers for lines of twice the height.
        ((1, 5), (6, 6), "SAME", (8, 11), (2, 2)),
        ((1, 5), (6, 4), ((2, 3), (1, 2)), (9, 8), (2, 3)),
        ((32, 32), (3, 3), "SAME", (4, 5), (2, 1)),
    ],
)
@pytest.mark.parametrize(
    ("dtype", "close"), [("float64", 1e-13), pytest.param("float32", 5e-6, marks=pytest.mark.slow)]
)
def test_convolution_matches_xla(sizes, kernel, padding, image, strides, dtype, close):
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(2, *image, sizes[0])), rng.normal(size=(*kernel, *sizes))

    def theirs(x, w):
        return lax.conv_general_dilated(x, w, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def all_of(f):
        gradients = jax.grad(lambda x, w: jnp.sin(f(x, w)).sum(), argnums=(0, 1))
        return jax.jit(lambda x, w: (f(x, w), gradients(x, w)))(x, w)

    with jax.enable_x64(dtype == "float64"), jax.numpy_dtype_promotion("standard"):
        x, w = jnp.asarray(x, dtype), jnp.asarray(w / sizes[0] ** 0.5, dtype)
        computed, expected = all_of(lambda x, w: convolve(x, w, strides, padding)), all_of(theirs)
        for ours, xlas in zip(jax.tree.leaves(computed), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(ours, xlas, rtol=0, atol=close * float(jnp.abs(xlas).max()))


@pytest.mark.parametrize("more", [{"rhs_dilation": (2, 1)}, {"lhs_dilation": (1, 2)}, {"feature_group_count": 2}])
def test_unsupported_convolutions_are_rejected(more):
    with pytest.raises(ValueError, match="dilation and groups are not supported"):
        convolve(jnp.zeros((1, 6, 6, 4)), jnp.zeros((3, 3, 4, 4)), (1, 1), "SAME", **more)


@pytest.mark.parametrize(
    ("shape", "window", "stride", "pad"),
    [
        ((2, 8, 10, 3), (2, 2), 2, 0),
        ((2, 9, 11, 3), (2, 2), 2, 0),  # a row and a column that fill no window
        ((2, 8, 9, 3), (2, 2), 1, 1),  # windows that overlap
        ((2, 8, 9, 3), (2, 1), 1, 0),
        ((1, 4, 7, 2), (2, 2), 2, 1),
    ],
)
def test_max_pool_and_its_gradient_match_loops(shape, window, stride, pad):
    """Of whole numbers, many of them equal: the gradient of a window goes to its first maximum."""
    rng = np.random.default_rng(0)
    x = rng.integers(-3, 3, size=shape).astype(np.float32)
    out, back = jax.vjp(lambda x: max_pool(x, window, stride, pad), jnp.asarray(x))
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (0, 0)))
    d_out = rng.normal(size=out.shape).astype(np.float32)
    d_padded = np.zeros_like(padded)
    for b, h, w, c in np.ndindex(out.shape):
        rows, columns = h * window[0], w * stride
        seen = padded[b, rows : rows + window[0], columns : columns + window[1], c]
        assert out[b, h, w, c] == seen.max()
        row, column = np.unravel_index(seen.argmax(), seen.shape)
        d_padded[b, rows + row, columns + column, c] += d_out[b, h, w, c]
    np.testing.assert_allclose(back(jnp.asarray(d_out))[0], d_padded[:, :, pad : pad + shape[2]], atol=1e-6)


@pytest.mark.torch
def test_max_pool_and_its_gradient_match_torch():
    import torch

    rng = np.random.default_rng(1)
    x = rng.integers(-3, 3, size=(2, 8, 10, 3)).astype(np.float32)
    out, back = jax.vjp(lambda x: max_pool(x, (2, 2), 2, 0), jnp.asarray(x))
    theirs = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    expected = torch.nn.functional.max_pool2d(theirs, (2, 2))
    expected.sum().backward()
    np.testing.assert_array_equal(out, expected.detach().numpy().transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(back(jnp.ones_like(out))[0], theirs.grad.numpy().transpose(0, 2, 3, 1))


@pytest.mark.parametrize("shape", [(1, 2, 1, 1), (0, 4, 4, 2), (2, 1, 4, 2)])
def test_max_pool_without_windows_has_no_gradient(shape):
    out, back = jax.vjp(lambda x: max_pool(x, (2, 2), 2, 0), jnp.ones(shape))
    assert out.size == 0
    np.testing.assert_array_equal(back(out)[0], np.zeros(shape))


def lstm_by_hand(x, length, kernel_x, kernel_h, bias):
    """One direction of one sample, a frame at a time, in float64."""

    def sigmoid(v):
        return 1 / (1 + np.exp(-v))

    h = c = np.zeros(kernel_h.shape[0])
    out = np.zeros((len(x), len(h)))
    for t in range(length):
        i, f, g, o = np.split(x[t] @ kernel_x + h @ kernel_h + bias, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        out[t] = h
    return out


def test_lstm_matches_manual_computation():
    x = np.random.default_rng(0).normal(size=(3, 7, 5)).astype(np.float32)
    lengths = np.asarray([7, 4, 0], np.int32)
    layer = BiLSTM(6)
    variables = jax.jit(layer.init)(jax.random.key(0), x, lengths)
    out = jax.jit(layer.apply)(variables, x, lengths)
    p = {k: np.asarray(v, np.float64) for k, v in variables["params"].items()}
    for b, n in enumerate(lengths):
        forward = lstm_by_hand(x[b], n, p["kernel_x"][0], p["kernel_h"][0], p["bias"][0])
        backward = lstm_by_hand(x[b, :n][::-1], n, p["kernel_x"][1], p["kernel_h"][1], p["bias"][1])[::-1]
        np.testing.assert_allclose(out[b, :, :6], forward, atol=1e-6)
        np.testing.assert_allclose(out[b, :n, 6:], backward, atol=1e-6)
        assert (out[b, n:] == 0).all()


@pytest.mark.torch
def test_lstm_matches_torch():
    torch = pytest.importorskip("torch", reason="the torch extra is not installed")
    x = np.random.default_rng(1).normal(size=(3, 7, 5)).astype(np.float32)
    lengths = np.asarray([7, 4, 2], np.int32)
    layer = BiLSTM(6)
    params = jax.jit(layer.init)(jax.random.key(0), x, lengths)["params"]
    theirs = torch.nn.LSTM(5, 6, bidirectional=True, batch_first=True)
    for k, end in enumerate(("", "_reverse")):
        for name, value in (
            ("weight_ih", params["kernel_x"][k].T),
            ("weight_hh", params["kernel_h"][k].T),
            ("bias_ih", params["bias"][k]),
            ("bias_hh", params["bias"][k] * 0),
        ):
            getattr(theirs, f"{name}_l0{end}").data = torch.tensor(np.array(value))
    tx = torch.tensor(x, requires_grad=True)
    packed = torch.nn.utils.rnn.pack_padded_sequence(tx, torch.tensor(lengths), batch_first=True)
    expected, _ = torch.nn.utils.rnn.pad_packed_sequence(theirs(packed)[0], batch_first=True)
    expected.square().sum().backward()

    def total(params, x):
        out = layer.apply({"params": params}, x, lengths)
        return (out**2).sum(), out

    (d_params, d_x), out = jax.jit(jax.grad(total, argnums=(0, 1), has_aux=True))(params, x)
    np.testing.assert_allclose(out, expected.detach(), atol=1e-6)
    np.testing.assert_allclose(d_x, tx.grad, atol=1e-5)
    for k, end in enumerate(("", "_reverse")):
        np.testing.assert_allclose(d_params["kernel_x"][k].T, getattr(theirs, f"weight_ih_l0{end}").grad, atol=2e-5)
        np.testing.assert_allclose(d_params["kernel_h"][k].T, getattr(theirs, f"weight_hh_l0{end}").grad, atol=2e-5)
        np.testing.assert_allclose(d_params["bias"][k], getattr(theirs, f"bias_hh_l0{end}").grad, atol=2e-5)


def test_lstm_gradient_matches_finite_differences():
    keys = jax.random.split(jax.random.key(2), 2)
    projected = tuple(jax.random.normal(keys[0], (2, 5, 3, 16)))
    kernel = jax.random.normal(keys[1], (2, 4, 16))
    valid = tuple(jnp.asarray(np.random.default_rng(0).random((2, 5, 3)) < 0.7))  # holes too
    jax.test_util.check_grads(
        lambda p, k: lstm_scan(p, k, valid), (projected, kernel), 1, ["rev"], atol=2e-2, rtol=2e-2
    )


@pytest.mark.parametrize("backbone", [*BACKBONES, "8k6x6/2p2x2 8nk3x3/3 8nk4x1v"])
def test_frames_begin_at_the_same_place_in_images_of_any_width(backbone):
    places = {grid(backbone, width).left for width in range(160, 208)}
    assert len(places) == 1


@pytest.mark.parametrize("spelled", ["8/0", "8k3x3/ 8", "8v/2", "8k0x3", "8p2x0", "8p2x2s0", "0"])
def test_wrongly_spelled_layers_are_refused(spelled):
    with pytest.raises(UserError, match="or layers such as"):
        layers_of(spelled)
    assert layers_of("8k5x5/2v")[0].step == (2, 2)
