"""The step, the optimizer and the augmentation."""

import dataclasses
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxcrnn import optim
from jaxcrnn.augment import AugmentConfig
from jaxcrnn.augment import augment as augment_
from jaxcrnn.ctc import ctc_loss
from jaxcrnn.errors import UserError
from jaxcrnn.model import CRNN, ModelConfig
from jaxcrnn.optim import OptimConfig
from jaxcrnn.train import LossConfig, TrainConfig, eval_step, eval_variables, init_state, state_shapes, train_step
from jaxcrnn.types import Batch

OFF = AugmentConfig(probability=0.0)
CONFIG = TrainConfig(
    ModelConfig("tiny", hidden=8, dropout=0.0, num_classes=4),
    LossConfig(),
    OptimConfig(steps=50, warmup=0, learning_rate=0.01),
    OFF,
)
KEY = jax.random.key(0)


def make_batch(size=3, fill=0, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.uniform(-1, 1, (size, 32, 32, 1)).astype(np.float32)
    labels = rng.permuted(np.tile([1, 2, 3], (size, 1)), axis=1).astype(np.int32)
    real = Batch(images, np.full(size, 32, np.int32), labels, np.full(size, 3, np.int32))
    return jax.tree.map(lambda a: np.concatenate([a, np.zeros((fill, *a.shape[1:]), a.dtype)]), real)


@pytest.fixture(scope="module")
def step():
    return jax.jit(train_step)


@pytest.fixture(scope="module")
def state():
    return init_state(CONFIG, KEY)


def test_train_step_matches_its_definition(step, state):
    batch = make_batch()
    moved, info = step(CONFIG, state, batch, KEY)

    def loss_of(params):
        variables = {"params": params, "batch_stats": state.batch_stats}
        out, changed = CRNN(CONFIG.model).apply(
            variables, batch.images, batch.widths, train=True, mutable=["batch_stats"]
        )
        return ctc_loss(out.logits, out.lengths, batch.labels, batch.label_lengths).mean(), changed["batch_stats"]

    (loss, batch_stats), grads = jax.jit(jax.value_and_grad(loss_of, has_aux=True))(state.params)
    tx = optim.make(CONFIG.optim)
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = jax.jit(lambda g, p: tx.update(g, tx.init(p), p))(grads, state.params)
    np.testing.assert_allclose(info["loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(
        info["grad_norm"],
        np.sqrt(sum(np.square(g).sum() for g in jax.tree.leaves(jax.tree.map(np.asarray, grads)))),
        rtol=1e-4,
    )
    chex.assert_trees_all_close(moved.batch_stats, batch_stats, rtol=1e-5)
    # Adam's first update is the sign of the gradient: only where a gradient is all but zero may rounding turn it.
    expected = jax.tree.map(np.add, state.params, updates)
    far = jax.tree.map(lambda a, b: (np.abs(a - b) > 1e-5).mean(), moved.params, expected)
    assert max(jax.tree.leaves(far)) < 0.02
    assert moved.step == 1
    assert moved.centers is None
    assert (info["samples"], info["skipped"], info["infeasible"]) == (3, 0, 0)


@pytest.mark.slow
def test_padding_samples_do_not_count(step, state):
    full, info = step(CONFIG, state, make_batch(), KEY)
    more, more_info = step(CONFIG, state, make_batch(fill=2), KEY)
    assert more_info["samples"] == 3
    np.testing.assert_allclose(info["loss"], more_info["loss"], rtol=1e-5)
    np.testing.assert_allclose(info["grad_norm"], more_info["grad_norm"], rtol=1e-4)
    chex.assert_trees_all_close(full.batch_stats, more.batch_stats, rtol=1e-4, atol=1e-6)


def test_infeasible_samples_are_counted_and_ignored(step, state):
    batch = make_batch()
    widths = np.asarray([32, 32, 8], np.int32)  # two frames for three characters
    _, info = step(CONFIG, state, batch._replace(widths=widths), KEY)
    assert info["infeasible"] == 1
    assert jnp.isfinite(info["loss"])


def test_nonfinite_loss_only_advances_the_step(step, state):
    batch = make_batch()
    batch.images[1, 3, 3, 0] = np.nan
    kept, info = step(CONFIG, state, batch, KEY)
    assert info["skipped"] == 1
    assert info["nonfinite"].any()
    assert kept.step == 1
    chex.assert_trees_all_equal(kept._replace(step=0), state._replace(step=0))


def test_nonfinite_centers_only_advance_the_step(step):
    """The loss is of the old centers, so it and its gradient are fine where the centers move out of range."""
    config = dataclasses.replace(
        CONFIG, loss=LossConfig("aligned", update="gradient", start="normal", center_rate=3e38)
    )
    state = init_state(config, KEY)
    kept, info = step(config, state, make_batch(), KEY)
    assert jnp.isfinite(info["loss"])
    assert not info["nonfinite"].any()
    assert info["skipped"] == 1
    assert info["centers_moved"] == 0
    chex.assert_trees_all_equal(kept._replace(step=0), state._replace(step=0))


def test_nonfinite_gradients_only_advance_the_step(monkeypatch):
    """As those of a root are at 0."""
    monkeypatch.setattr("jaxcrnn.losses.center", lambda features, *_, **__: jnp.sqrt((features * 0).sum()))
    config = dataclasses.replace(CONFIG, loss=LossConfig("flow1", weight=0.125))
    state = init_state(config, KEY)
    kept, info = jax.jit(train_step)(config, state, make_batch(), KEY)
    assert jnp.isfinite(info["loss"])
    assert info["nonfinite"].any()
    assert info["skipped"] == 1
    chex.assert_trees_all_equal(kept._replace(step=0), state._replace(step=0))


def test_step_number_does_not_retrace(state):
    traced = chex.assert_max_traces(train_step, n=1)
    compiled = jax.jit(traced)
    current = state
    losses = []
    for i in range(30):
        # An equal config that is another object must not compile again.
        current, info = compiled(dataclasses.replace(CONFIG), current, make_batch(seed=i % 2), KEY)
        losses.append(float(info["loss"]))
    assert losses[-1] < losses[0] / 2
    assert compiled._cache_size() == 1


def test_randomness_depends_on_key_and_step(state):
    config = dataclasses.replace(
        CONFIG, model=dataclasses.replace(CONFIG.model, dropout=0.5), augment=AugmentConfig(noise=0.3)
    )
    loss = jax.jit(lambda s, k: train_step(config, s, make_batch(), k)[1]["loss"])
    first = loss(state, KEY)
    assert loss(state, KEY) == first
    assert loss(state, jax.random.key(1)) != first
    assert loss(state._replace(step=jnp.asarray(5, jnp.int32)), KEY) != first


@pytest.mark.slow
def test_eval_step_uses_averaged_weights(state):
    config = dataclasses.replace(CONFIG, optim=dataclasses.replace(CONFIG.optim, ema=0.9, learning_rate=0.01))
    start = init_state(config, KEY)
    stepped = jax.jit(train_step)
    moved, _ = stepped(config, start, make_batch(), KEY)
    moved, _ = stepped(config, moved, make_batch(), KEY)
    average = moved.opt_state.average
    assert eval_variables(moved)["params"] is average
    assert eval_variables(state)["params"] is state.params
    out = jax.jit(eval_step)(config, moved, make_batch(fill=2))
    plain = jax.jit(CRNN(CONFIG.model).apply)(
        {"params": average, "batch_stats": moved.batch_stats}, make_batch().images, make_batch().widths
    )
    losses = jax.jit(ctc_loss)(plain.logits, plain.lengths, make_batch().labels, make_batch().label_lengths)
    np.testing.assert_allclose(out["loss"][:3], losses, rtol=1e-4)
    assert out["loss"][3:].tolist() == [0, 0]


def test_weight_average_matches_its_formula():
    config = OptimConfig(steps=10, warmup=0, ema=0.5, weight_decay=0.0)
    params = {"kernel": jnp.ones((2, 2))}
    opt_state = optim.make(config).init(params)
    average = np.ones((2, 2))
    for count in range(4):
        params, opt_state = optim.update(config, {"kernel": jnp.ones((2, 2))}, opt_state, params)
        decay = min(0.5, (1 + count) / (10 + count))
        average = decay * average + (1 - decay) * np.asarray(params["kernel"])
    np.testing.assert_allclose(optim.averaged(params, opt_state)["kernel"], average, rtol=1e-5)


def test_learning_rate_schedule_and_weight_decay():
    config = OptimConfig(steps=100, learning_rate=0.1, warmup=10, final=0.01)
    rate = optim.schedule(config)
    np.testing.assert_allclose([rate(0), rate(5), rate(10), rate(100)], [0, 0.05, 0.1, 0.001], rtol=1e-5)
    params = {"kernel_x": jnp.ones((2, 4)), "bias": jnp.ones((2, 4))}
    config = OptimConfig(steps=10, warmup=0, learning_rate=0.1, weight_decay=0.5)
    zero = jax.tree.map(jnp.zeros_like, params)
    moved, _ = optim.update(config, zero, optim.make(config).init(params), params)
    np.testing.assert_allclose(moved["kernel_x"], 0.95, rtol=1e-6)
    np.testing.assert_allclose(moved["bias"], 1.0)


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        (OptimConfig, {"steps": 0}, "optim.steps is 0"),
        (OptimConfig, {"learning_rate": 0.0}, "more than 0"),
        (OptimConfig, {"ema": 1.0}, "optim.ema is 1.0; expected 0 or more, less than 1"),
        (LossConfig, {"preset": "centre"}, "'centre'; expected one of ctc"),
    ],
)
def test_invalid_values_are_rejected(kind, change, message):
    with pytest.raises(UserError, match=message):
        kind(**change)


augment = jax.jit(augment_)
ALL_OFF = {f.name: 0.0 for f in dataclasses.fields(AugmentConfig) if f.name not in ("probability", "warmup")}


def lines(width=40):
    return jax.random.uniform(jax.random.key(3), (4, 32, width, 1), minval=-1.0), jnp.asarray([40, 25, 1, 0])


def test_augment_with_every_range_zero_is_the_identity():
    images, widths = lines()
    inside = (jnp.arange(40)[None, :] < widths[:, None])[:, None, :, None]
    out = augment(AugmentConfig(**ALL_OFF), images, widths, KEY)
    np.testing.assert_allclose(out, jnp.where(inside, images, 1.0), atol=1e-5)


GEOMETRY = ("taper", "slant", "zoom", "squeeze", "shift")  # one program for all of them; tilt stands for them here


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in GEOMETRY else name for name in ALL_OFF]
)
def test_each_augmentation_changes_pixels_within_bounds(name):
    images, widths = lines()
    config = AugmentConfig(**(ALL_OFF | {name: 0.9 if name == "invert" else 0.3}))
    out = augment(config, images, widths, KEY)
    assert jnp.abs(out[0] - images[0]).max() > 0.01
    assert jnp.abs(out).max() <= 1
    assert (out[1, :, 25:] == 1).all()
    np.testing.assert_array_equal(out, augment(config, images, widths, KEY))


def test_augmentation_ignores_padding():
    images, widths = lines()
    wide = jnp.pad(images, ((0, 0), (0, 0), (0, 8), (0, 0)), constant_values=-7.0).at[1, :, 25:].set(5.0)
    config = AugmentConfig(noise=0.0)  # noise is drawn for the padded shape
    a, b = augment(config, images, widths, KEY), augment(config, wide, widths, KEY)
    np.testing.assert_allclose(a[0], b[0, :, :40], atol=1e-5)
    np.testing.assert_allclose(a[1, :, :25], b[1, :, :25], atol=1e-5)


def test_augmentation_probability_is_the_share_of_changed_lines():
    images = jnp.zeros((400, 8, 8, 1))
    config = AugmentConfig(**ALL_OFF | {"brightness": 0.5, "probability": 0.25})
    out = augment(config, images, jnp.full((400,), 8), KEY)
    assert 60 < (jnp.abs(out).max((1, 2, 3)) > 0).sum() < 140


def test_blur_matches_scipy():
    images, widths = lines()
    out = augment(AugmentConfig(**ALL_OFF | {"blur": 1.0}), images, widths, KEY)
    for line, image, width in zip(out, images, widths.tolist(), strict=True):
        if width:
            image = np.asarray(image[:, :width, 0])
            blurred = image
            for axis in (0, 1, 0, 1):
                blurred = ndimage.convolve1d(blurred, np.array([1, 2, 1]) / 4, axis, mode="nearest")
            away, most = np.asarray(line[:, :width, 0]) - image, blurred - image
            amount = (away * most).sum() / (most * most).sum()  # of this line, drawn
            assert 0 < amount < 1
            np.testing.assert_allclose(away, amount * most, atol=1e-5)


def test_warp_is_computed_once_per_pixel():
    """For a pixel and not for each of its neighbours in the blur: that was twelve times slower on CPUs."""
    program = augment.lower(AugmentConfig(), *lines(), KEY).compile().as_text()
    assert 1 <= program.count(" sine(") <= 2  # the wave across and along


@pytest.mark.slow
@pytest.mark.parametrize("frozen", [2, 3])
def test_frozen_layers_keep_weights_and_batch_statistics(frozen, state):
    """Two of three layers, and all of them."""
    config = dataclasses.replace(CONFIG, optim=dataclasses.replace(CONFIG.optim, frozen=frozen, weight_decay=0.1))
    after, _ = jax.jit(train_step, static_argnums=0)(config, state, make_batch(), KEY)
    for part in ("params", "batch_stats"):
        ours, theirs = (getattr(one, part)["backbone"] for one in (after, state))
        for name in ours:
            same = [
                np.array_equal(*pair) for pair in zip(*map(jax.tree.leaves, (ours[name], theirs[name])), strict=True)
            ]
            assert set(same) == {int(name[-1]) < frozen}, name
    for name in ("lstm0", "lstm1", "head"):
        assert not np.array_equal(*(jax.tree.leaves(one.params[name])[0] for one in (after, state)))


def test_more_frozen_layers_than_there_are():
    with pytest.raises(UserError, match="optim.frozen is 4; expected at most 3, the layers of 'tiny'"):
        TrainConfig(ModelConfig("tiny"), optim=OptimConfig(frozen=4))


@pytest.mark.parametrize("lstm", ["scan", "unrolled"])
def test_all_products_of_a_bfloat16_step_have_bfloat16_inputs(lstm):
    """Forward and backward: products of float32 numbers do not run on a GPU's tensor cores."""
    model = ModelConfig("vgg", hidden=8, dropout=0.0, num_classes=7, dtype="bfloat16", conv="xla", lstm=lstm)
    config, batch = TrainConfig(model, augment=OFF), jax.tree.map(jnp.asarray, make_batch())
    program = jax.jit(train_step, static_argnums=0).lower(config, state_shapes(config), batch, KEY).as_text()
    pattern = r"stablehlo\.(?:dot_general|convolution)\b.*: \(tensor<([^>]*)>, tensor<([^>]*)>\)"
    inputs = re.findall(pattern, program)
    assert len(inputs) > 30
    assert not [pair for pair in inputs if not all(shape.endswith("bf16") for shape in pair)]
