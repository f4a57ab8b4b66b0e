"""The head without logits against the head with them: values, gradients, and what the compiled program holds."""

import dataclasses
import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import variants
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from variants import ASSIGNMENTS, LOSSES, C, close

from jaxcrnn import ctc, decode, losses
from jaxcrnn.bench import aot
from jaxcrnn.errors import UserError
from jaxcrnn.kernels import chunked_head
from jaxcrnn.kernels.logits import factored
from jaxcrnn.model import ModelConfig
from jaxcrnn.objective import LossConfig
from jaxcrnn.parallel.mesh import MeshConfig, make_mesh
from jaxcrnn.parallel.sharded_head import sharded
from jaxcrnn.train import TrainConfig, init_state, train_step
from jaxcrnn.types import Batch

B, T, D, L = 5, 7, 6, 3


def numbers(classes, blank, dtype=np.float32):
    rng = np.random.default_rng(classes)
    features, kernel, bias = (rng.normal(size=shape) for shape in ((B, T, D), (D, classes), (classes,)))
    characters = [c for c in range(classes) if c != blank]
    labels = rng.choice(characters, (B, L)).astype(np.int32)
    labels[0] = labels[0, 0]  # repeats: the same column of the kernel three times
    lengths, label_lengths = (
        np.asarray([T, 5, T, 2, 0], np.int32),
        np.asarray([3, 2, 0, 3, 0], np.int32),
    )  # 4th: too few
    return *(jnp.asarray(a, dtype) for a in (features, kernel * 2, bias)), lengths, labels, label_lengths


def dense(features, kernel, bias, *labels, blank=0):
    return ctc.ctc_loss(jnp.einsum("btd,dc->btc", features, kernel) + bias[None, None], *labels, blank=blank)


def value_and_gradients(loss, arrays, blank):
    """Of a weighted sum, so that each sample's gradient has its own weight."""
    weight = jnp.arange(1, B + 1, dtype=arrays[2].dtype)

    def total(*three):
        losses = loss(*three, *arrays[3:], blank=blank)
        return (losses * weight.astype(losses.dtype)).sum(), losses

    return jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True))(*arrays[:3])


# One chunk, whole chunks, a last chunk that overlaps the one before, by all but one class too.
@pytest.mark.parametrize(("classes", "chunk", "blank"), [(5, 8, 0), (6, 3, 5), (7, 3, 0), (10, 9, 4)])
def test_fused_ctc_matches_dense_ctc(classes, chunk, blank, monkeypatch):
    monkeypatch.setattr(chunked_head, "CHUNK", chunk)
    arrays = numbers(classes, blank)
    (_, losses), gradients = value_and_gradients(ctc.fused_ctc_loss, arrays, blank)
    (_, expected), plain = value_and_gradients(dense, arrays, blank)
    np.testing.assert_allclose(losses, expected, rtol=1e-5, atol=1e-5)
    assert losses[3] == 0  # no path
    for ours, theirs in zip(gradients, plain, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    scan = jax.jit(chunked_head.scan_head)(arrays[0].reshape(-1, D), *arrays[1:3])
    logits = np.asarray(arrays[0].reshape(-1, D)) @ np.asarray(arrays[1]) + np.asarray(arrays[2])
    np.testing.assert_array_equal(scan.top, np.argsort(-logits, 1)[:, :3])
    np.testing.assert_allclose(scan.top_logits, -np.sort(-logits, 1)[:, :3], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(scan.norm, np.logaddexp.reduce(logits, 1), rtol=1e-5)


def test_fused_ctc_in_float64(monkeypatch):
    monkeypatch.setattr(chunked_head, "CHUNK", 4)
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        arrays = numbers(11, 0, np.float64)
        (one, _), gradients = value_and_gradients(ctc.fused_ctc_loss, arrays, 0)
        (two, _), plain = value_and_gradients(dense, arrays, 0)
        np.testing.assert_allclose(one, two, rtol=1e-13)
        for ours, theirs in zip(gradients, plain, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)


def test_bfloat16_inputs_accumulate_in_float32(monkeypatch):
    monkeypatch.setattr(chunked_head, "CHUNK", 4)
    arrays = numbers(11, 0)
    rounded = tuple(a.astype(jnp.bfloat16) for a in arrays[:3]) + arrays[3:]
    wide = tuple(a.astype(jnp.float32) for a in rounded[:3]) + arrays[3:]
    (_, losses), gradients = value_and_gradients(ctc.fused_ctc_loss, rounded, 0)
    (_, expected), plain = value_and_gradients(dense, wide, 0)
    assert losses.dtype == jnp.float32
    np.testing.assert_allclose(losses, expected, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(gradients, plain, strict=True):
        assert ours.dtype == jnp.bfloat16
        np.testing.assert_allclose(
            ours.astype(jnp.float32), theirs, rtol=0.02, atol=0.02 * float(jnp.abs(theirs).max())
        )


def test_padding_does_not_affect_results(monkeypatch):
    monkeypatch.setattr(chunked_head, "CHUNK", 4)
    features, kernel, bias, lengths, labels, label_lengths = numbers(9, 0)
    inside = np.arange(T)[None, :] < lengths[:, None]
    noisy = jnp.where(inside[:, :, None], features, jnp.nan)
    others = np.where(np.arange(L)[None, :] < label_lengths[:, None], labels, 1)
    (one, _), gradients = value_and_gradients(
        ctc.fused_ctc_loss, (features, kernel, bias, lengths, labels, label_lengths), 0
    )
    (two, _), noised = value_and_gradients(ctc.fused_ctc_loss, (noisy, kernel, bias, lengths, others, label_lengths), 0)
    assert one == two
    for a, b in zip(gradients, noised, strict=True):
        np.testing.assert_array_equal(a, b)
    assert (np.asarray(gradients[0])[~inside] == 0).all()


def test_logits_are_never_materialized():
    """In the compiled program, forward and backward: neither a buffer of that shape nor the memory for one."""
    classes, frames = 20_011, 3 * 16
    shapes = [(3, 16, 32), (32, classes), (classes,)]
    floats = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    integers = [jax.ShapeDtypeStruct(shape, jnp.int32) for shape in ((3,), (3, 4), (3,))]

    def compiled(loss):
        total = jax.grad(lambda *a: loss(*a).sum(), argnums=(0, 1, 2))
        return jax.jit(total).lower(*floats, *integers).compile()

    logits, chunk = 4 * frames * classes, 4 * frames * chunked_head.CHUNK
    programs = [compiled(functools.partial(loss, blank=0)) for loss in (ctc.fused_ctc_loss, dense)]
    wanted = rf"f32\[(3,16|16,3|{frames}),{classes}\]"
    assert re.search(wanted, programs[1].as_text())  # it would be seen
    assert not re.search(wanted, programs[0].as_text())
    temporary = [p.memory_analysis().temp_size_in_bytes for p in programs]
    assert temporary[1] >= logits
    assert temporary[0] < 1.2 * chunk + logits // 8


def test_temporaries_are_smaller_than_the_logits():
    """But the logits and their gradient: temporaries are the states' alone."""
    shapes = [((4, 24, 5000), jnp.float32), ((4,), jnp.int32), ((4, 5), jnp.int32), ((4,), jnp.int32)]
    total = jax.value_and_grad(lambda *a: ctc.ctc_loss(*a).sum())
    program = jax.jit(total).lower(*(jax.ShapeDtypeStruct(*shape) for shape in shapes)).compile()
    assert program.memory_analysis().temp_size_in_bytes < 0.05 * 4 * 4 * 24 * 5000


def as_head(logits):
    """A head that says these logits: the features are the logits."""
    return factored(logits, jnp.eye(logits.shape[2]), jnp.zeros(logits.shape[2]))


@pytest.fixture
def three_at_a_time(monkeypatch):
    monkeypatch.setattr(chunked_head, "CHUNK", 3)


# One of each kind here, all of them in `make test-all`.
QUICK = ("counted, one ignored", "posterior")
NAMES = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in ASSIGNMENTS]


@pytest.mark.parametrize("name", NAMES)
def test_every_assignment_matches_dense_logits(name, three_at_a_time):
    logits, *rest = variants.numbers()
    compute = variants.everything(name)[0]
    assert C > 2 * chunked_head.CHUNK
    ours = jax.jit(lambda logits, *rest: compute(as_head(logits), *rest))(logits, *rest)
    close(ours, variants.everything(name)[1](logits, *rest))


@pytest.mark.parametrize("name", [name for name in LOSSES if "paddle" not in name])
def test_every_loss_matches_dense_logits(name, three_at_a_time):
    logits, _, _, *labels = variants.numbers()

    def both(of):
        weight = jnp.arange(1.0, 1 + len(logits))

        def total(logits):
            losses = LOSSES[name](of(logits), *labels)
            return (losses * weight).sum(), (losses, decode.read(of(logits), labels[0]))

        return jax.jit(jax.value_and_grad(total, has_aux=True))(logits)

    close(both(as_head), both(lambda logits: logits))


def test_unsupported_queries_are_rejected():
    logits, _, _, *labels = variants.numbers()
    whole = as_head(jnp.asarray(logits))
    with pytest.raises(ValueError, match="'paddle' needs the logits of every class"):
        losses.ace(whole, *labels, variant="paddle")
    with pytest.raises(ValueError, match="at most 1 can be excluded"):
        whole.ranked(excluded=(0, 1))
    with pytest.raises(UserError, match=r"loss.ace_variant 'paddle' .* model.head=dense"):
        TrainConfig(ModelConfig(head="fused"), LossConfig(ace=0.1, ace_variant="paddle"))


# Classes that the devices share equally, and some that they do not.
@pytest.mark.parametrize(("data", "model", "classes"), [(1, 8, 16), (4, 2, 13), (2, 4, 13)])
def test_sharded_head_matches_one_device(data, model, classes, monkeypatch):
    monkeypatch.setattr(chunked_head, "CHUNK", 3)
    rng = np.random.default_rng(0)
    features, kernel, bias = (
        jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((8, T, D), (D, classes), (classes,))
    )
    labels = rng.integers(1, classes, (8, L)).astype(np.int32)
    targets = jnp.asarray([T, 5, T, 2, 0, T, T, 3]), jnp.asarray(labels), jnp.asarray([3, 2, 0, 3, 0, 1, 3, 2])

    def step(make):
        def total(features, kernel, bias):
            whole = make(features, kernel, bias)
            return ctc.ctc_loss(whole, *targets).sum(), (whole.top, whole.top_logits, whole.norm)

        return jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True))

    expected = step(factored)(features, kernel, bias)
    mesh = make_mesh(MeshConfig(data, model))
    specs = [P("data"), P(None, "model"), P("model")] if classes % model == 0 else [P("data"), P(), P()]
    split = [jax.device_put(a, NamedSharding(mesh, s)) for a, s in zip((features, kernel, bias), specs, strict=True)]
    program = step(functools.partial(sharded, mesh)).lower(*split).compile()
    close(jax.device_get(program(*split)), jax.device_get(expected))
    words = aot.collectives(program.as_text())
    if classes % model == 0:  # no device ever holds the others' columns
        gathered = [shape for c in words if c.kind == "all-gather" for shape in c.shapes]
        assert not [shape for shape in gathered if str(classes) in re.findall(r"\d+", shape)[1:]]
    reduced = [shape for c in words if c.kind == "all-reduce" for shape in c.shapes]
    # What comes from the softmax and what comes from the label goes over the network as one.
    assert reduced.count(f"f32[{D},{-(-classes // model)}]") == (data > 1)
    assert reduced.count(f"f32[{8 // data},{T},{D}]") == 1


@pytest.fixture
def whole_step(monkeypatch):
    """Two configs, of the plain head and the fused one, and what a step is given."""
    monkeypatch.setattr(chunked_head, "CHUNK", 64)
    classes, rng = 211, np.random.default_rng(0)
    loss = LossConfig("flow2", start="normal", push=0.1, ace=0.1)
    dense = TrainConfig(ModelConfig("tiny", hidden=8, dropout=0, num_classes=classes), loss)
    config = dataclasses.replace(dense, model=dataclasses.replace(dense.model, head="fused"))
    images = rng.uniform(-1, 1, (3, 32, 32, 1)).astype(np.float32)
    lengths = np.asarray([2, 1, 0], np.int32)
    labels = rng.integers(1, classes, (3, 2)).astype(np.int32)
    batch, key = Batch(images, np.asarray([32, 20, 0], np.int32), labels, lengths), jax.random.key(0)
    return (dense, config), (init_state(dense, key), batch, key)


def compiled(config, arguments):
    return jax.jit(train_step, static_argnums=0).lower(config, *arguments).compile()


def has_logits(program, classes=211):
    return bool(re.search(rf"f32\[(3,8|8,3|24),{classes}\]", program.as_text()))


@pytest.mark.slow
def test_train_step_does_not_materialize_logits(whole_step):
    """No buffer of all logits, and no word to the host, in the compiled program."""
    (_, config), arguments = whole_step
    program = compiled(config, arguments)
    assert not has_logits(program)
    plain = jax.jit(lambda x, kernel: x @ kernel + 1).lower(jnp.ones((3, 8, 4)), jnp.ones((4, 211))).compile()
    assert has_logits(plain)  # they would be seen
    assert not re.search(r"infeed|outfeed|send\(|recv\(|custom_call_target=\"\w*callback", program.as_text())


@pytest.mark.slow  # ten steps in test_mesh.py
def test_train_step_matches_the_dense_head(whole_step):
    configs, arguments = whole_step
    chex.assert_trees_all_equal(*(init_state(config, arguments[-1]) for config in configs))
    programs = [compiled(config, arguments) for config in configs]
    (one, info), (two, other_info) = (program(*arguments) for program in programs)
    close(info, other_info)
    # Adam divides by the gradient's own size: where that is rounding alone, so is the direction.
    close((one.batch_stats, one.centers, one.step), (two.batch_stats, two.centers, two.step))
    close(one.opt_state, two.opt_state)
    assert [has_logits(program) for program in programs] == [True, False]
