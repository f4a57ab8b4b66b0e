"""Second derivatives of every function with a hand-written gradient, as gradient penalties and Hessians need them."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tolerances
from jax.experimental import rnn
from jax.flatten_util import ravel_pytree

import jaxcrnn
from jaxcrnn import ctc, losses
from jaxcrnn.kernels import chunked_head, conv_cpu, lstm_cudnn
from jaxcrnn.kernels.lstm_scan import lstm_scan
from jaxcrnn.kernels.pooling import max_pool
from jaxcrnn.model import CRNN, ModelConfig
from jaxcrnn.nn.batch_norm import normalize
from jaxcrnn.parallel.mesh import MeshConfig, make_mesh
from jaxcrnn.parallel.sharded_head import sharded

B, T, C, D = 5, 6, 4, 3
LENGTHS = np.array([6, 5, 3, 2, 6], np.int32)
LABELS = np.array([[1, 2], [3, 3], [2, 0], [1, 1], [0, 0]], np.int32)  # the fourth does not fit
SIZES = np.array([2, 2, 1, 2, 0], np.int32)
WEIGHTS = np.arange(1.0, B + 1)


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng([seed, *shape]).normal(size=shape))


@pytest.fixture
def float64():
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        yield


def both(function, at):
    """The Hessian by forward over reverse and by reverse over reverse mode."""
    return [jax.jit(outer(jax.grad(function)))(at) for outer in (jax.jacfwd, jax.jacrev)]


def differences(function, at, step=1e-5):
    gradient = jax.jit(jax.grad(function))
    columns = [(gradient(at.at[k].add(step)) - gradient(at.at[k].add(-step))) / (2 * step) for k in range(at.size)]
    return np.stack(columns, 1)


def ours(logits, labels=LABELS, blank=0):
    return (WEIGHTS * ctc.ctc_loss(logits.reshape(B, T, C), LENGTHS, labels, SIZES, blank=blank)).sum()


def theirs(logits, labels=LABELS, blank=0):
    beyond = (
        (np.arange(T)[None] >= LENGTHS[:, None]).astype(float),
        (np.arange(2)[None] >= SIZES[:, None]).astype(float),
    )
    values = optax.ctc_loss(logits.reshape(B, T, C), beyond[0], labels, beyond[1], blank_id=blank)
    return (WEIGHTS * jnp.where(ctc.is_feasible(LENGTHS, labels, SIZES), values, 0.0)).sum()


def test_every_custom_gradient_is_listed():
    functions = set()
    for path in Path(jaxcrnn.__file__).parent.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        functions |= set(re.findall(r"custom_vjp\b[^\n]*\ndef (\w+)", text))
        assert text.count("jax.custom_vjp,") + text.count("@jax.custom_vjp\n") == text.count(".defvjp("), path
    assert functions == {
        "_dense_loss",
        "_factored_loss",
        "scan_head",
        "_scan",
        "lstm_scan",
        "dense_logits",
        "max_pool",
        "_shifted_gradient",
        "_winograd",
        "normalize",
        "_outputs",
    }


def test_gradient_penalty_of_ctc(float64):
    """Along one direction, by differences; the smallest of the tests below."""

    def penalty(logits):
        return jnp.square(jax.grad(ours)(logits)).sum()

    at, way = normal(B * T * C), normal(B * T * C, seed=1)
    program = jax.jit(jax.value_and_grad(penalty))
    _, gradient = program(at)
    up, down = (program(at + sign * 1e-5 * way)[0] for sign in (1, -1))
    np.testing.assert_allclose(gradient @ way, (up - down) / 2e-5, rtol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("blank", [0, C - 1])
def test_hessian_of_ctc_matches_optax(blank, float64):
    labels, at = (LABELS - (blank > 0)) % C, 2 * normal(B * T * C)
    expected = jax.jit(jax.hessian(lambda x: theirs(x, labels, blank)))(at)
    for hessian in both(lambda x: ours(x, labels, blank), at):
        np.testing.assert_allclose(hessian, expected, rtol=0, atol=1e-13)


@pytest.mark.slow
def test_padding_and_infeasible_lines_have_zero_hessian(float64):
    """Padding and a line that cannot spell its label are NaN, and one class of another is impossible."""
    logits = np.array(normal(B, T, C))
    logits[1, 5:] = logits[3] = np.nan
    logits[0, :, 2] = -np.inf
    for hessian in both(ours, jnp.asarray(logits).reshape(-1)):
        assert np.isfinite(hessian).all()
        lines = np.abs(hessian).reshape(B, T, C, -1)
        assert not lines[[0, 3]].any()
        assert not lines[1, 5:].any()
        assert lines[[2, 4]].any((1, 2, 3)).all()
    third = jax.jit(jax.jacfwd(jax.jacfwd(jax.grad(ours))))(jnp.asarray(logits).reshape(-1)[: B * T * C])
    assert np.isfinite(third).all()


@pytest.mark.slow
@pytest.mark.parametrize("loss", [losses.focal_ctc, losses.ace])
def test_hessians_of_losses_built_on_ctc(loss, float64):
    def total(logits):
        return loss(logits.reshape(B, T, C), LENGTHS, LABELS, SIZES).sum()

    at = normal(B * T * C)
    for hessian in both(total, at):
        np.testing.assert_allclose(hessian, differences(total, at), atol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("shards", [1, 2])
def test_hessian_of_fused_heads(shards, float64, monkeypatch):
    """Over chunks of which the last overlaps, and with classes over two devices."""
    monkeypatch.setattr(chunked_head, "CHUNK", 3)
    at, back = ravel_pytree((normal(B, T, D), normal(D, C), normal(C)))
    mesh = make_mesh(MeshConfig(1, shards)) if shards > 1 else None

    def fused(flat):
        features, kernel, bias = back(flat)
        if mesh is None:
            return (WEIGHTS * ctc.fused_ctc_loss(features, kernel, bias, LENGTHS, LABELS, SIZES)).sum()
        return (WEIGHTS * ctc.ctc_loss(sharded(mesh, features, kernel, bias), LENGTHS, LABELS, SIZES)).sum()

    def dense(flat):
        features, kernel, bias = back(flat)
        return ours(features @ kernel + bias[None, None])

    expected = jax.jit(jax.hessian(dense))(at)
    for hessian in both(fused, at):
        np.testing.assert_allclose(hessian, expected, rtol=1e-10, atol=1e-11)


def lstm(flat):
    valid = np.arange(4)[:, None] < np.array([4, 2, 0])[None]
    return lambda args: sum((out**3).sum() for out in lstm_scan(*args, (valid, valid[::-1]), flat))


def unrolled(projected_kernel):
    projected, kernel = projected_kernel
    valid = np.stack([np.arange(4)[:, None] < np.array([4, 2, 0])[None]] * 2, 1)
    return (lstm_scan((projected,), kernel, (valid,), True, 2)[0] ** 3).sum()


def pooled(x):
    return jnp.sin(max_pool(x, (2, 2), 1, 1)).sum()


def convolved(args):
    return jnp.sin(conv_cpu.convolve(*args, (1, 1), "SAME")).sum()


def normalized(products):
    inside = jnp.array([1.0, 1, 1, 0, 1, 1, 0])
    return lambda args: (inside[:, None] * jnp.sin(normalize(*args, inside, 1e-5, products)[0])).sum()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (lstm(True), (((4, 3, 8), (4, 3, 8)), (2, 2, 8))),
        (lstm(False), (((4, 3, 8), (4, 3, 8)), (2, 2, 8))),
        (unrolled, ((4, 2, 3, 8), (2, 2, 8))),
        (pooled, (2, 4, 3, 2)),
        (convolved, ((1, 4, 5, 2), (3, 3, 2, 2))),
        (convolved, ((1, 3, 4, 1), (2, 2, 1, 2))),
        (convolved, ((1, 3, 4, 2), (2, 2, 2, 2))),
        (normalized(True), ((7, 2), (2,), (2,))),
        (normalized(False), ((7, 2), (2,), (2,))),
    ],
)
def test_hessians_of_kernels(function, shapes, float64, monkeypatch):
    monkeypatch.setattr(conv_cpu, "_THIN", 1)
    at, back = ravel_pytree(jax.tree.map(lambda s: normal(*s), shapes, is_leaf=lambda s: isinstance(s[0], int)))
    for hessian in both(lambda flat: function(back(flat)), at):
        np.testing.assert_allclose(hessian, differences(lambda flat: function(back(flat)), at), rtol=1e-5, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("head", ["dense", "fused"])
def test_gradient_penalty_through_the_whole_model(head, float64):
    model = CRNN(ModelConfig("tiny", 3, 0.0, num_classes=C, head=head, conv="winograd", dtype="float64"))
    images, widths = normal(2, 32, 32, 1), np.array([32, 20], np.int32)
    variables = jax.tree.map(lambda a: a.astype(jnp.float64), model.init(jax.random.key(0), images, widths))
    at, back = ravel_pytree(variables["params"])

    def loss(flat):
        variables_now = {"params": back(flat), "batch_stats": variables["batch_stats"]}
        outputs, _ = model.apply(variables_now, images, widths, train=True, mutable=["batch_stats"])
        labels = np.array([[1, 2], [3, 0]], np.int32), np.array([2, 1], np.int32)
        return ctc.ctc_loss(outputs.logits, outputs.lengths, *labels).mean()

    gradient, way = jax.jit(jax.grad(loss)), normal(at.size, seed=1)
    expected = (gradient(at + 1e-6 * way) - gradient(at - 1e-6 * way)) / 2e-6
    forward = jax.jit(lambda x: jax.jvp(jax.grad(loss), (x,), (way,))[1])(at)
    reverse = jax.jit(jax.grad(lambda x: jax.grad(loss)(x) @ way))(at)
    np.testing.assert_allclose(forward, reverse, **tolerances.FLOAT64_GRADIENT)
    np.testing.assert_allclose(forward, expected, atol=1e-6 * np.abs(expected).max())


@pytest.mark.slow
def test_cudnn_rejects_second_derivatives(monkeypatch):
    """With a stand-in for the call that needs a GPU."""

    def stand_in(x, h, c, weights, lengths, *sizes):
        return x * weights[0], h, c

    monkeypatch.setattr(rnn, "lstm", stand_in)
    x, kernels = jnp.ones((1, 2, 2)), (jnp.ones((1, 2, 8)), jnp.ones((1, 2, 8)), jnp.ones((1, 8)))

    def loss(x, kernel_x=kernels[0]):
        return jnp.square(lstm_cudnn.lstm(x, np.array([2], np.int32), kernel_x, *kernels[1:])).sum()

    assert jax.grad(loss)(x).tolist() == [[[2.0, 2.0], [2.0, 2.0]]]
    for penalty in (lambda x: jnp.square(jax.grad(loss)(x)).sum(), lambda k: jnp.square(jax.grad(loss)(x, k)).sum()):
        argument = x if penalty.__code__.co_varnames[0] == "x" else kernels[0]
        with pytest.raises(NotImplementedError, match="no second derivatives; use the scan instead"):
            jax.grad(penalty)(argument)
