"""The optimizer by hand: what it does to gradients before and after the update rule."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tolerances

from jaxcrnn import optim
from jaxcrnn.optim import OptimConfig

PARAMS = {"kernel": np.asarray([[1.0, -2.0]], np.float32), "bias": np.asarray([3.0], np.float32)}
GRADS = [
    {"kernel": np.asarray([[3.0, 0.0]], np.float32), "bias": np.asarray([4.0], np.float32)},
    {"kernel": np.asarray([[0.3, 0.1]], np.float32), "bias": np.asarray([-0.2], np.float32)},
]


def run(config):
    """The parameters after each step."""
    params, state, seen = jax.tree.map(jnp.asarray, PARAMS), None, []
    state = optim.make(config).init(params)
    for grads in GRADS:
        params, state = optim.update(config, grads, state, params)
        seen.append(params)
    return seen


def clipped(grads, most):
    length = np.sqrt(sum(np.square(g).sum() for g in grads.values()))
    return {name: g * min(1, most / length) for name, g in grads.items()}


def test_sgd_matches_manual_updates():
    """Gradients of length 5 are cut to 1, those of 0.37 are not; only kernels decay."""
    config = OptimConfig("sgd", steps=10**6, learning_rate=0.1, warmup=0, weight_decay=0.5, momentum=0.9, clip_norm=1.0)
    params, trace = dict(PARAMS), dict.fromkeys(PARAMS, 0.0)
    for grads, updated in zip(GRADS, run(config), strict=True):
        grads = clipped(grads, 1.0)
        grads["kernel"] = grads["kernel"] + 0.5 * params["kernel"]
        trace = {name: 0.9 * trace[name] + grads[name] for name in params}
        params = {name: params[name] - 0.1 * trace[name] for name in params}
        for name, value in params.items():
            np.testing.assert_allclose(updated[name], value, **tolerances.FLOAT32)


def test_adamw_matches_manual_updates():
    rate, decay, b1, b2 = 0.1, 0.5, 0.8, 0.95
    config = OptimConfig(
        "adamw", steps=10**6, learning_rate=rate, warmup=0, weight_decay=decay, beta1=b1, beta2=b2, clip_norm=1.0
    )
    params = dict(PARAMS)
    mean, square = (dict.fromkeys(PARAMS, 0.0) for _ in range(2))
    for count, (grads, updated) in enumerate(zip(GRADS, run(config), strict=True), start=1):
        grads = clipped(grads, 1.0)
        for name, g in grads.items():
            mean[name] = b1 * mean[name] + (1 - b1) * g
            square[name] = b2 * square[name] + (1 - b2) * g**2
            move = (mean[name] / (1 - b1**count)) / (np.sqrt(square[name] / (1 - b2**count)) + 1e-8)
            params[name] = params[name] - rate * (move + (decay * params[name] if name == "kernel" else 0))
            np.testing.assert_allclose(updated[name], params[name], **tolerances.FLOAT32)


@pytest.mark.parametrize(("warmup", "first"), [(0, 0.1), (1, 0.0), (100, 0.0)])
def test_first_learning_rate(warmup, first):
    """Without a warm-up the first step is a whole one; a warm-up longer than the training still ends in it."""
    rate = optim.schedule(OptimConfig(steps=10, learning_rate=0.1, warmup=warmup))
    assert rate(0) == pytest.approx(first)
    assert float(rate(10)) == pytest.approx(0.1 if warmup == 100 else 0.001, rel=1e-5)


def test_updates_of_frozen_layers_are_zero():
    """Whatever the optimizer asks for; its state stays the same."""
    params = {"backbone": {"conv0": np.ones(2), "norm1": np.ones(2), "block2": np.ones(2)}, "head": np.ones(2)}
    inner = optax.GradientTransformation(lambda params: "state", lambda updates, state, params: (updates, state))
    for frozen, kept in ((0, set()), (2, {"conv0", "norm1"}), (3, {"conv0", "norm1", "block2"})):
        held = optim._without(inner, frozen)
        updates, state = held.update(params, held.init(params), params)
        assert state == "state"
        assert {name for name, update in updates["backbone"].items() if not update.any()} == kept
        assert updates["head"].all()
