"""The renderer against a slow one; every line a function of its own key; glyphs that are missing."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import slow_render

from jaxcrnn.charset import Charset
from jaxcrnn.errors import UserError
from jaxcrnn.render.atlas import Atlas, embedded
from jaxcrnn.render.config import EASY, HARD, LEVELS, RenderConfig
from jaxcrnn.render.render import Glyphs, draw, paint, render

CHARS = "01未末土士Agj"
CHARSET = Charset(CHARS)
LABELS = np.asarray([[3, 4, 4, 1], [7, 8, 9, 2], [5, 0, 0, 0], [6, 6, 6, 6]], np.int32)
LENGTHS = np.asarray([4, 4, 1, 0], np.int32)
rendered = jax.jit(render, static_argnames="config")


@functools.cache
def glyphs():
    return Glyphs.of(embedded(), CHARSET)


def narrow(config, width=96):
    return dataclasses.replace(config, width=width)


# The hard lines have everything that the others have; those are slow.
EACH = [pytest.param(level, marks=() if level == "hard" else pytest.mark.slow) for level in LEVELS]


@pytest.mark.parametrize("level", EACH[:3])  # what the last has in addition is in test_marks.py
def test_render_matches_the_reference_renderer(level):
    # Rounding to a multiple may fall on the other side in float32: without blocks here, and with them below.
    config = narrow(dataclasses.replace(LEVELS[level], blocks=0.0, rule=0.5, invert=0.5), 72)
    parts = [np.asarray(part) for part in glyphs()]
    for b, n in enumerate(LENGTHS):
        look = jax.jit(draw, static_argnums=(1, 2, 3))(jax.random.key(b + 10), config, 3, 4)
        image, width = jax.jit(paint, static_argnames="config")(look, glyphs(), LABELS[b], n, config=config)
        expected, wide = slow_render.paint(look, *parts, LABELS[b, :n].tolist(), 32, 72)
        assert width == wide
        # A pixel whose place on the line falls on the border of two characters may take either.
        far = np.abs(np.asarray(image) - expected)
        assert (far > 1e-3).mean() < 1e-3
        assert np.median(far) < 1e-5


def test_blocks_match_a_cosine_transform():
    from jaxcrnn.render.render import _quantised

    image = np.random.default_rng(0).uniform(-1, 1, (16, 24)).astype(np.float32)
    for step in (0.0, 0.05, 0.4):
        far = np.abs(_quantised(jnp.asarray(image), jnp.asarray(step)) - slow_render.quantised(image, step))
        assert (far > 1e-3).mean() < 0.1
        assert np.median(far) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("level", EACH)
def test_rendering_depends_only_on_the_key(level):
    """In another batch, with fewer slots: the same image."""
    config, key = narrow(LEVELS[level]), jax.random.key(3)
    images, widths = rendered(key, glyphs(), LABELS, LENGTHS, config)
    keys = jax.vmap(lambda b: jax.random.fold_in(key, b))(jnp.arange(4))
    more = np.pad(LABELS, ((0, 0), (0, 3)), constant_values=9)
    for b in range(4):
        alone, width = rendered(keys[b : b + 1], glyphs(), more[b : b + 1], LENGTHS[b : b + 1], config)
        np.testing.assert_allclose(alone[0], images[b], atol=1e-5)
        assert width[0] == widths[b]


@pytest.mark.slow
def test_rendering_does_not_depend_on_sharding():
    config, key = narrow(HARD), jax.random.key(3)
    images, _ = rendered(key, glyphs(), LABELS, LENGTHS, config)
    keys = jax.vmap(lambda b: jax.random.fold_in(key, b))(jnp.arange(4))
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    many = [jax.device_put(np.tile(a, (2, 1)[: a.ndim]), split) for a in (LABELS, LENGTHS)]
    shared = rendered(jax.device_put(jnp.concatenate([keys, keys]), split), glyphs(), *many, config)[0]
    np.testing.assert_allclose(shared, np.concatenate([images, images]), atol=1e-5)


def test_shape_and_range_of_rendered_batches():
    images, widths = rendered(jax.random.key(0), glyphs(), LABELS, LENGTHS, narrow(HARD))
    assert images.shape == (4, 32, 96, 1)
    assert widths[3] == 0
    assert (widths[:3] > 10).all()
    assert (jnp.abs(images) <= 1).all()
    for image, width in zip(images, widths, strict=True):
        assert (image[:, int(width) :] == 1).all()
    other = rendered(jax.random.key(1), glyphs(), LABELS, LENGTHS, narrow(HARD))[0]
    assert jnp.abs(other[0] - images[0]).max() > 0.5


@pytest.mark.slow
def test_long_lines_are_condensed():
    labels, lengths = np.full((1, 8), 3, np.int32), np.asarray([8], np.int32)
    image, width = rendered(jax.random.key(0), glyphs(), labels, lengths, narrow(EASY, 64))
    assert width == 64
    # Eight characters, each with one upright stroke, none of them lost between two pixels.
    ink = np.asarray(1 - image[0, :, :, 0]).mean(0).reshape(8, 8).max(1)
    assert ink.min() > 0.6 * ink.max()


@pytest.mark.slow
def test_missing_glyph_is_taken_from_another_font():
    tiles = np.zeros((2, 1, 40, 40), np.uint8)
    tiles[1, 0, 8:32, 8:32] = 255
    half = Atlas("x", ("empty", "full"), tiles, np.ones((2, 1), np.float32), np.asarray([[False], [True]]))
    glyphs_of_half = Glyphs.of(half, Charset("xy"))
    for seed in range(4):
        image, _ = rendered(jax.random.key(seed), glyphs_of_half, np.asarray([[1]]), np.asarray([1]), narrow(EASY))
        assert image.max() - image.min() > 0.8
    image, width = rendered(jax.random.key(0), glyphs_of_half, np.asarray([[2]]), np.asarray([1]), narrow(EASY))
    assert image[0, :, : int(width[0])].std() < 0.1  # no font has it: nothing is drawn, least of all a box


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 30}, "expected multiples of 8"),
        ({"noise": -1.0}, "render.noise is -1.0; expected 0 or more"),
        ({"smallest": 0.9, "largest": 0.5}, "smallest <= largest"),
        ({"level": "mean"}, "'mean'; expected easy, medium, hard or forms"),
    ],
)
def test_invalid_values_are_rejected(change, message):
    with pytest.raises(UserError, match=message):
        RenderConfig(**change)
