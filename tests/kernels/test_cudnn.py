"""LSTMs for GPUs: cuDNN's flat weights against torch, and the numbers of all implementations against the scan."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tolerances
from jax.experimental import rnn

from jaxcrnn.errors import UserError
from jaxcrnn.kernels import lstm_cudnn
from jaxcrnn.model import ModelConfig
from jaxcrnn.nn.lstm import BiLSTM
from jaxcrnn.runs.compile import for_device

B, T, D, H = 8, 5, 3, 4
LENGTHS = np.asarray([T, 2, 1, 0, T, 3, 4, T], np.int32)


def total(kind, lengths, directions=2):
    """A layer, and a function to its output with the gradients of a weighted sum by parameters and input."""
    layer = BiLSTM(H, directions=directions, kind=kind)

    def of(params, x):
        out = layer.apply({"params": params}, x, lengths)
        return (out * jnp.arange(float(out.size)).reshape(out.shape)).sum(), out

    return layer, jax.value_and_grad(of, argnums=(0, 1), has_aux=True)


def parameters(layer, x, lengths):
    params = jax.jit(layer.init)(jax.random.key(0), x, lengths)["params"]
    return jax.tree.map(lambda a: a + 0.1, params)  # biases that are not 0


@pytest.mark.torch
@pytest.mark.parametrize("directions", [1, 2])
def test_packed_weights_match_torch(directions):
    """What jax's cuDNN call finds in them, put into ``torch.nn.LSTM``, makes the scan's numbers."""
    import torch

    lengths, x = np.full(B, T, np.int32), np.random.default_rng(1).normal(size=(B, T, D)).astype(np.float32)
    layer = BiLSTM(H, directions=directions)
    params = parameters(layer, x, lengths)
    flat = lstm_cudnn.packed(*(params[name] for name in ("kernel_x", "kernel_h", "bias")))
    assert flat.dtype == jnp.float32
    assert flat.shape == (rnn.get_num_params_in_lstm(D, H, 1, directions == 2),)
    theirs = torch.nn.LSTM(D, H, bidirectional=directions == 2, batch_first=True)
    parts = rnn.unpack_lstm_weights(flat, D, H, 1, directions == 2)
    for name, part in zip(("weight_ih", "weight_hh", "bias_ih", "bias_hh"), parts, strict=True):
        assert len(part) == directions
        for k, end in enumerate(("", "_reverse")[:directions]):
            getattr(theirs, f"{name}_l0{end}").data.copy_(torch.from_numpy(np.array(part[k])))
    with torch.no_grad():
        expected = theirs(torch.from_numpy(x))[0].numpy()
    np.testing.assert_allclose(jax.jit(layer.apply)({"params": params}, x, lengths), expected, **tolerances.FLOAT32)


def test_cudnn_falls_back_to_the_scan():
    assert for_device(ModelConfig(lstm="cudnn"), jax.devices("cpu")[0]).lstm == "scan"
    with pytest.raises(UserError, match="model.lstm is 'cuda'; expected one of auto, scan, unrolled, cudnn"):
        ModelConfig(lstm="cuda")


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("cudnn", marks=pytest.mark.gpu),
        "unrolled",
        pytest.param("unrolled", marks=pytest.mark.gpu, id="unrolled-gpu"),
    ],
)
@pytest.mark.parametrize("directions", [1, 2])
def test_other_implementations_match_the_scan(directions, kind):
    """Of lines of all lengths, one without frames among them, on one device."""
    x = jax.random.normal(jax.random.key(1), (B, T, D))
    layer, scan = total("scan", LENGTHS, directions)
    params = parameters(layer, x, LENGTHS)
    with jax.default_matmul_precision("float32"):
        (loss, out), gradients = jax.device_get(jax.jit(total(kind, LENGTHS, directions)[1])(params, x))
        (expected_loss, expected), expected_gradients = jax.device_get(jax.jit(scan)(params, x))
    np.testing.assert_allclose(loss, expected_loss, **tolerances.LSTM)
    np.testing.assert_allclose(out, expected, **tolerances.LSTM)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerances.LSTM), gradients, expected_gradients)
    for line, n in zip(out, LENGTHS, strict=True):
        assert (line[:n] != 0).any(1).all()
        assert (line[n:] == 0).all()


def test_the_unrolled_loop_has_four_frames_in_an_iteration():
    x = jnp.ones((B, T, D))
    layer, whole = total("unrolled", LENGTHS)
    program = str(jax.make_jaxpr(whole)(parameters(layer, x, LENGTHS), x))
    assert re.findall(r"unroll=(\d+)", program) == ["4", "4"]  # forward and backward


@pytest.mark.gpu
def test_bfloat16_input_gives_bfloat16_output():
    x = jnp.ones((B, T, D), jnp.bfloat16)
    layer = BiLSTM(H, jnp.bfloat16, kind="cudnn")
    out = jax.jit(layer.apply)(jax.jit(layer.init)(jax.random.key(0), x, LENGTHS), x, LENGTHS)
    assert out.dtype == jnp.bfloat16
    for line, n in zip(out, LENGTHS, strict=True):
        assert (line[n:] == 0).all()
