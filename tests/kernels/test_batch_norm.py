"""Masked batch normalisation: both ways to sum, against PyTorch's layer on the valid pixels, and what it keeps."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tolerances

from jaxcrnn.nn.backbones import Backbone
from jaxcrnn.nn.batch_norm import BatchNorm, _forward, normalize

INSIDE = np.asarray([1, 1, 0, 1, 1, 1, 0, 1], np.float32)
RNG = np.random.default_rng(0)
X, D_OUT = (RNG.normal(size=(8, 3)).astype(np.float32) + 2 for _ in range(2))
SCALE, BIAS = RNG.normal(size=(2, 3)).astype(np.float32)


def results(x, products, d_out=D_OUT):
    """The result, the mean and the variance, and the gradients by x, scale and bias."""
    outs, back = jax.vjp(lambda *args: normalize(*args, INSIDE, 1e-5, products), x, SCALE, BIAS)
    return outs, back((jnp.asarray(d_out, x.dtype), jnp.zeros(3), jnp.zeros(3)))


def rounded(x):
    return x.astype(jnp.bfloat16).astype(np.float32)


@pytest.mark.torch
@pytest.mark.parametrize("products", [False, True])
def test_valid_pixels_are_normalised_as_by_torch(products):
    import torch

    valid = INSIDE > 0
    layer = torch.nn.BatchNorm2d(3)
    layer.weight.data, layer.bias.data = torch.tensor(SCALE), torch.tensor(BIAS)
    x = torch.tensor(X[valid].T[None, :, :, None], requires_grad=True)
    out = layer(x)
    out.backward(torch.tensor(D_OUT[valid].T[None, :, :, None]))
    (ours, mean, variance), (d_x, d_scale, d_bias) = results(X, products)
    np.testing.assert_allclose(ours[valid], out.detach()[0, :, :, 0].T, **tolerances.FLOAT32)
    np.testing.assert_allclose((mean, variance), (X[valid].mean(0), X[valid].var(0)), **tolerances.FLOAT32)
    np.testing.assert_allclose(d_x[valid], x.grad[0, :, :, 0].T, **tolerances.FLOAT32)
    np.testing.assert_allclose((d_scale, d_bias), (layer.weight.grad, layer.bias.grad), **tolerances.FLOAT32)
    assert (np.asarray(d_x)[~valid] == 0).all()


@pytest.mark.parametrize("products", [False, True])
def test_bfloat16_pixels_have_float32_statistics(products):
    outs, gradients = results(X.astype(jnp.bfloat16), products)
    expected_outs, expected_gradients = results(rounded(X), products, rounded(D_OUT))
    assert [a.dtype for a in outs] == [jnp.bfloat16, jnp.float32, jnp.float32]
    assert [a.dtype for a in gradients] == [jnp.bfloat16, jnp.float32, jnp.float32]
    chex.assert_trees_all_close(outs[1:], expected_outs[1:], **tolerances.FLOAT32)
    for ours, expected in ((outs[0], expected_outs[0]), (gradients[0], expected_gradients[0])):
        np.testing.assert_allclose(ours.astype(np.float32), expected, rtol=2**-7, atol=1e-2)


def test_no_float32_pixels_are_kept_for_the_backward_pass():
    x = jax.ShapeDtypeStruct((8, 3), jnp.bfloat16)
    (out, *_), saved = jax.eval_shape(lambda x: _forward(x, SCALE, BIAS, INSIDE, 1e-5, False), x)
    assert out.dtype == jnp.bfloat16
    assert {a.dtype for a in jax.tree.leaves(saved) if a.shape == x.shape} == {jnp.dtype(jnp.bfloat16)}


def test_inference_keeps_the_dtype():
    layer, inside = BatchNorm(), jnp.ones((1, 1, 4, 1), bool)
    x = jnp.asarray(RNG.normal(size=(1, 2, 4, 3)), jnp.bfloat16)
    variables = layer.init(jax.random.key(0), x, inside, False)
    out = layer.apply(variables, x, inside, False)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(out.astype(np.float32), x.astype(np.float32), rtol=2**-7)


@pytest.mark.parametrize("winograd", [False, True])
def test_a_backbone_sums_by_products_on_cpus_only(winograd):
    layers = Backbone("tiny", jnp.bfloat16, winograd=winograd)
    images, widths = jnp.zeros((2, 32, 32, 1)), jnp.full(2, 32)
    variables = layers.init(jax.random.key(0), images, widths, False)

    def total(params, images):
        out, _ = layers.apply({**variables, "params": params}, images, widths, True, mutable=["batch_stats"])[0]
        return out.astype(jnp.float32).sum()

    program = str(jax.make_jaxpr(jax.grad(total))(variables["params"], images))
    sums = program.count("HIGHEST")  # the convolutions of this test have the default precision
    assert (sums > 0) == winograd
