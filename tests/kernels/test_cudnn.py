"""cuDNN's LSTM where there is no GPU: jax's own reference of it stands in, with the same flat weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import rnn

from jaxcrnn.errors import UserError
from jaxcrnn.kernels import lstm_cudnn
from jaxcrnn.model import ModelConfig
from jaxcrnn.nn.lstm import BiLSTM
from jaxcrnn.parallel import mesh
from jaxcrnn.parallel.mesh import MeshConfig, make_mesh

B, T, D, H = 8, 5, 3, 4


def reference(x, h, c, weights, lengths, size, hidden, layers, dropout, both, precision=None):
    assert lengths.dtype == jnp.int32
    assert x.dtype == weights.dtype == jnp.float32
    assert len(weights) == rnn.get_num_params_in_lstm(size, hidden, layers, both)
    parts = rnn.unpack_lstm_weights(weights, size, hidden, layers, both)
    with jax.numpy_rank_promotion("allow"):
        return rnn.lstm_ref(x, h, c, *parts, lengths, size, hidden, layers, dropout, both)


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    monkeypatch.setattr(rnn, "lstm", reference)
    monkeypatch.setattr(mesh, "is_nvidia", lambda: True)


def total(kind, lengths, directions=2):
    layer = BiLSTM(H, directions=directions, kind=kind)

    def of(params, x):
        out = layer.apply({"params": params}, x, lengths)
        return (out * jnp.arange(float(out.size)).reshape(out.shape)).sum(), out

    return layer, jax.value_and_grad(of, argnums=(0, 1), has_aux=True)


@pytest.mark.parametrize(("directions", "devices"), [(2, 4), (1, 1)])
def test_the_scans_numbers_and_gradients(directions, devices, as_on_a_gpu):
    """Of whole lines: the reference knows no others."""
    lengths, x = jnp.full(B, T), jax.random.normal(jax.random.key(1), (B, T, D))
    layer, scan = total("scan", lengths, directions)
    params = jax.jit(layer.init)(jax.random.key(0), x, lengths)["params"]
    params = jax.tree.map(lambda a: a + 0.1, params)  # biases that are not alike
    expected = jax.jit(scan)(params, x)
    with jax.set_mesh(make_mesh(MeshConfig(devices))):
        found = jax.device_get(jax.jit(total("cudnn", lengths, directions)[1])(params, x))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), found, jax.device_get(expected))


def test_padding_comes_back_as_zero(as_on_a_gpu, monkeypatch):
    """Also of a line without frames, which cuDNN must not be given."""
    given = []
    monkeypatch.setattr(rnn, "lstm", lambda x, h, c, w, lengths, *more: (given.append(lengths), reference(
        x, h, c, w, lengths, *more))[1])  # fmt: skip
    lengths, x = np.asarray([T, 2, 0], np.int32), jnp.ones((3, T, D), jnp.bfloat16)
    layer = BiLSTM(H, jnp.bfloat16, kind="cudnn")
    out = layer.apply(layer.init(jax.random.key(0), x, lengths), x, lengths)
    assert given[-1].tolist() == [T, 2, 1]
    assert out.dtype == jnp.bfloat16
    for row, n in zip(out, lengths, strict=True):
        assert (row[:n] != 0).any(1).all()
        assert (row[n:] == 0).all()


def test_elsewhere_it_is_the_scan():
    lengths, x = jnp.full(1, T), jnp.ones((1, T, D))
    layer, scan = total("scan", lengths)
    params = layer.init(jax.random.key(0), x, lengths)["params"]
    cudnns = jax.make_jaxpr(total("cudnn", lengths)[1])(params, x)
    assert str(cudnns) == str(jax.make_jaxpr(scan)(params, x))
    with pytest.raises(UserError, match="model.lstm is 'cuda'; expected one of scan, cudnn"):
        ModelConfig(lstm="cuda")
    assert lstm_cudnn.packed(*(params[k] for k in ("kernel_x", "kernel_h", "bias"))).dtype == jnp.float32


@pytest.mark.skipif(
    not mesh.is_nvidia(), reason="needs an NVIDIA GPU: JAX_PLATFORMS=cuda pytest tests/kernels/test_cudnn.py"
)
def test_on_a_gpu():
    """Lines of all lengths, the real thing."""
    lengths, x = jnp.asarray([T, 2, 1, 0, T, 3, 4, T]), jax.random.normal(jax.random.key(1), (B, T, D))
    layer, scan = total("scan", lengths)
    params = jax.jit(layer.init)(jax.random.key(0), x, lengths)["params"]
    with jax.default_matmul_precision("float32"):
        found, expected = (jax.device_get(jax.jit(f)(params, x)) for f in (total("cudnn", lengths)[1], scan))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), found, expected)
