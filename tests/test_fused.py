"""The head without logits against the head with them: values, gradients, and what the compiled program holds."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcrnn import ctc, fused

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


def dense(features, kernel, bias, *known, blank=0):
    return ctc.ctc_loss(jnp.einsum("btd,dc->btc", features, kernel) + bias[None, None], *known, blank=blank)


def value_and_gradients(loss, arrays, blank):
    """Of a weighted sum, so that each sample's gradient has its own weight."""
    weight = jnp.arange(1, B + 1, dtype=arrays[2].dtype)

    def total(*three):
        losses = loss(*three, *arrays[3:], blank=blank)
        return (losses * weight.astype(losses.dtype)).sum(), losses

    return jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True))(*arrays[:3])


# One chunk, whole chunks, a last chunk that overlaps the one before, by all but one class too.
@pytest.mark.parametrize(("classes", "chunk", "blank"), [(5, 8, 0), (6, 3, 5), (7, 3, 0), (10, 9, 4)])
def test_as_with_logits(classes, chunk, blank, monkeypatch):
    monkeypatch.setattr(fused, "CHUNK", chunk)
    arrays = numbers(classes, blank)
    (_, losses), gradients = value_and_gradients(ctc.fused_ctc_loss, arrays, blank)
    (_, expected), plain = value_and_gradients(dense, arrays, blank)
    np.testing.assert_allclose(losses, expected, rtol=1e-5, atol=1e-5)
    assert losses[3] == 0  # no path
    for ours, theirs in zip(gradients, plain, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    scan = jax.jit(fused.scan_head)(arrays[0].reshape(-1, D), *arrays[1:3])
    logits = np.asarray(arrays[0].reshape(-1, D)) @ np.asarray(arrays[1]) + np.asarray(arrays[2])
    np.testing.assert_array_equal(scan.best, logits.argmax(1))
    np.testing.assert_allclose(scan.best_logit, logits.max(1), rtol=1e-5)
    np.testing.assert_allclose(scan.norm, np.logaddexp.reduce(logits, 1), rtol=1e-5)


def test_in_double_precision(monkeypatch):
    monkeypatch.setattr(fused, "CHUNK", 4)
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        arrays = numbers(11, 0, np.float64)
        (one, _), gradients = value_and_gradients(ctc.fused_ctc_loss, arrays, 0)
        (two, _), plain = value_and_gradients(dense, arrays, 0)
        np.testing.assert_allclose(one, two, rtol=1e-13)
        for ours, theirs in zip(gradients, plain, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)


def test_bfloat16_inputs_and_float32_sums(monkeypatch):
    monkeypatch.setattr(fused, "CHUNK", 4)
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


def test_padding_influences_nothing(monkeypatch):
    monkeypatch.setattr(fused, "CHUNK", 4)
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


def test_no_array_of_logits_exists():
    """In the compiled program, forward and backward: neither a buffer of that shape nor the memory for one."""
    classes, frames = 20_011, 3 * 16
    shapes = [(3, 16, 32), (32, classes), (classes,)]
    floats = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    known = [jax.ShapeDtypeStruct(shape, jnp.int32) for shape in ((3,), (3, 4), (3,))]

    def compiled(loss):
        total = jax.grad(lambda *a: loss(*a).sum(), argnums=(0, 1, 2))
        return jax.jit(total).lower(*floats, *known).compile()

    logits, chunk = 4 * frames * classes, 4 * frames * fused.CHUNK
    programs = [compiled(functools.partial(loss, blank=0)) for loss in (ctc.fused_ctc_loss, dense)]
    wanted = rf"f32\[(3,16|16,3|{frames}),{classes}\]"
    assert re.search(wanted, programs[1].as_text())  # it would be seen
    assert not re.search(wanted, programs[0].as_text())
    temporary = [p.memory_analysis().temp_size_in_bytes for p in programs]
    assert temporary[1] >= logits
    assert temporary[0] < 4 * chunk + logits // 4


def test_the_loss_keeps_nothing_of_the_logits_size():
    """But the logits and their gradient: temporaries are the states' alone."""
    shapes = [((4, 24, 5000), jnp.float32), ((4,), jnp.int32), ((4, 5), jnp.int32), ((4,), jnp.int32)]
    total = jax.value_and_grad(lambda *a: ctc.ctc_loss(*a).sum())
    program = jax.jit(total).lower(*(jax.ShapeDtypeStruct(*shape) for shape in shapes)).compile()
    assert program.memory_analysis().temp_size_in_bytes < 0.05 * 4 * 4 * 24 * 5000
