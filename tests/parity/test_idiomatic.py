"""Idiomatic PyTorch computes what the reference computes, on equal weights and lines of one width."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from torch_ref import idiomatic  # noqa: E402
from torch_ref.model import BACKBONES, CRNN, ModelConfig  # noqa: E402
from torch_ref.train import PRESETS, OptimConfig, TrainConfig, init_state, train_step  # noqa: E402
from torch_ref.types import Batch  # noqa: E402

pytestmark = pytest.mark.torch
WIDTH, CLASSES = 56, 11


@pytest.fixture(params=BACKBONES)
def pair(request):
    """A reference model in float64 with random running statistics, and an idiomatic one with the same weights."""
    torch.manual_seed(1)
    config = ModelConfig(request.param, hidden=5, num_classes=CLASSES)
    reference = CRNN(config).double()
    for name, array in reference.named_buffers():
        array += torch.rand_like(array) * (2.0 if name.endswith("var") else 0.1)
    fast = idiomatic.Recogniser(config).double()
    fast.load_reference(reference)
    return reference, fast


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    arrays = (
        rng.uniform(-1, 1, (3, 32, WIDTH, 1)),
        np.full(3, WIDTH),
        np.asarray([[1, 1, 2, 3], [4, 5, 0, 0], [10, 9, 8, 0]]),
        np.asarray([4, 2, 3]),
    )
    return Batch(*map(torch.tensor, arrays))


def test_equal_weights_read_the_same_logits(pair, batch):
    reference, fast = (model.eval() for model in pair)
    theirs = reference(batch.images, batch.widths).logits
    ours = fast(idiomatic.to_images(batch.images)).transpose(0, 1)
    assert theirs.detach().abs().max() > 0.1
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_equal_weights_have_the_same_loss_and_gradients(pair, batch):
    reference, fast = pair
    config = TrainConfig(reference.config, PRESETS["ctc"], OptimConfig(learning_rate=0.0, warmup=0, clip_norm=1e-3))
    _, info = train_step(config, init_state(config, reference), batch)
    trainer = idiomatic.Trainer(fast, config.optim)
    # The loss is float32 by design; the gradients are of its order, clipped to the same norm.
    loss = trainer.step(idiomatic.to_images(batch.images), batch.labels, batch.label_lengths)
    assert float(loss) == pytest.approx(float(info["loss"]), rel=1e-6)
    theirs = {name: p.grad for name, p in reference.named_parameters() if p.grad is not None}
    mine = gradients_by_reference_name(fast, [name for name, _ in reference.backbone.named_children()])
    assert theirs.keys() == mine.keys() - {name for name in mine if "bias_hh" in name}
    # Both biases of an LSTM have the same gradient, which the clipped norm of PyTorch's own layer counts twice.
    scale = float(theirs["head.bias"].norm() / mine["head.bias"].norm())
    assert scale >= 1
    for name, gradient in theirs.items():
        assert float((mine[name] * scale - gradient).norm()) < 1e-5 * float(gradient.norm()) + 1e-10, name


def test_one_step_moves_the_parameters_alike(pair, batch):
    """Without clipping, so that neither the second biases of the LSTMs nor a common factor matter."""
    reference, fast = pair
    optim = OptimConfig(learning_rate=1e-3, warmup=0, weight_decay=0.0, clip_norm=1e9)
    config = TrainConfig(reference.config, PRESETS["ctc"], optim)
    before = reference.head.weight.detach().clone()
    train_step(config, init_state(config, reference), batch)
    idiomatic.Trainer(fast, optim).step(idiomatic.to_images(batch.images), batch.labels, batch.label_lengths)
    moved, expected = (model.head.weight.detach() - before for model in (fast, reference))
    assert float(expected.abs().max()) == pytest.approx(1e-3, rel=1e-2)
    assert float((moved - expected).abs().max()) < 1e-5
    torch.testing.assert_close(fast.head.weight.grad, reference.head.weight.grad, rtol=1e-4, atol=1e-6)


def gradients_by_reference_name(model, names):
    """The gradients of an idiomatic model, by the names of the reference's parameters, given those of its layers."""
    layers = [layer for layer in model.backbone if list(layer.parameters())]
    named = {}
    for name, layer in zip(names, layers, strict=True):
        named |= {f"backbone.{name}.{key}": p.grad for key, p in layer.named_parameters()}
    for key, p in model.lstm.named_parameters():
        depth = "1" if "_l1" in key else "0"
        named[f"lstm{depth}.{key.replace('_l1', '_l0')}"] = p.grad
    return named | {f"head.{key}": p.grad for key, p in model.head.named_parameters()}
