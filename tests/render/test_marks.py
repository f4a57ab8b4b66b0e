"""What forms add to a line: sizes and crops of its characters, ink that is not text, damage to strokes."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcrnn.charset import Charset
from jaxcrnn.errors import UserError
from jaxcrnn.render import marks as marking
from jaxcrnn.render.atlas import Atlas
from jaxcrnn.render.config import FORMS, LATER, LEVELS, RenderConfig
from jaxcrnn.render.look import Look, draw
from jaxcrnn.render.marks import Marks
from jaxcrnn.render.render import Glyphs, paint
from jaxcrnn.render.typeset import typeset

HEIGHT, WIDTH, SLOTS = 32, 96, 4
SMALL = RenderConfig(width=WIDTH)


@functools.cache
def glyphs():
    """A full-width and a half-width block: 24 of 32 pixels high, on the baseline; 24 and 12 wide."""
    tiles = np.zeros((1, 2, 40, 40), np.uint8)
    tiles[0, 0, 7:31, 8:32] = tiles[0, 1, 7:31, 14:26] = 255
    return Glyphs.of(
        Atlas("田1", ("f",), tiles, np.asarray([[1, 0.5]], np.float32), np.ones((1, 2), bool)), Charset("田1")
    )


def plain(**changes):
    """The look of a line without any variation: an em of 16 pixels, black on white."""
    zero = jnp.zeros(())
    look = Look(
        fonts=jnp.ones(1),
        em=jnp.asarray(16.0),
        narrow=jnp.ones(()),
        sizes=jnp.ones(SLOTS),
        gaps=jnp.zeros(SLOTS),
        rises=jnp.zeros(SLOTS),
        margins=jnp.asarray([0.25, 0.25]),
        offset=zero,
        slant=zero,
        rotation=zero,
        perspective=jnp.zeros(2),
        wave=jnp.zeros(4),
        weight=zero,
        lowres=jnp.ones(()),
        blur=zero,
        ink=jnp.asarray(-1.0),
        paper=jnp.ones(()),
        texture=jnp.zeros((4, 24)),
        noise=jnp.zeros((HEIGHT, WIDTH)),
        blocks=zero,
        rules=jnp.zeros((4, 4)).at[:, 2].set(1.0),
        invert=jnp.asarray(False),
    )
    return look._replace(**changes)


def place(labels, **changes):
    g = glyphs()
    row = np.zeros(SLOTS, np.int32)
    row[: len(labels)] = labels
    return typeset(plain(**changes), g.tiles, g.advances, g.present, row, jnp.asarray(len(labels)), SMALL)


def test_keys_that_are_off_sample_and_compute_nothing():
    for level in ("easy", "medium", "hard"):
        look = jax.eval_shape(lambda level=level: draw(jax.random.key(0), LEVELS[level], 1, SLOTS))
        assert look.marks == Marks()
        assert (look.half, look.overlaps, look.crop, look.grain) == (None,) * 4
    look = jax.eval_shape(lambda: draw(jax.random.key(0), FORMS, 1, SLOTS))
    assert None not in (*look, *look.marks)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"wide": 0.9}, "render.wide is 0.9; expected 1 or more"),
        ({"tight": 0.6}, "render.tight is 0.6; expected 0 to 0.5"),
        ({"stamp": 2.0}, "render.stamp is 2.0; expected 0 to 1"),
    ],
)
def test_ranges(change, message):
    with pytest.raises(UserError, match=message):
        RenderConfig(**change)


@pytest.mark.slow
def test_half_width_characters_have_their_own_size():
    line, _ = place([1, 2])
    changed, _ = place([1, 2], half=jnp.asarray([0.5, 1.5, 1.0]))
    np.testing.assert_allclose(changed.scales[:, 0], [16, 16])
    np.testing.assert_allclose(changed.scales[:, 1], [24, 8])
    assert int(changed.width - line.width) == 4  # half an em of 16 pixels grows by half
    # The baseline is 11 of 32 rows below the middle for both; it stays.
    np.testing.assert_allclose(changed.scales[1, 1] * (11 / 32 + changed.rises[1]), 16 * 11 / 32, rtol=1e-6)
    middle, _ = place([1, 2], half=jnp.asarray([0.5, 1.5, 0.0]))
    assert middle.rises[1] == 0


@pytest.mark.slow
def test_tight_lines_are_shorter_by_the_overlaps():
    line, _ = place([1, 2, 1])
    tight, _ = place([1, 2, 1], overlaps=jnp.full(SLOTS, 0.25))
    assert int(line.width - tight.width) == 16 * 0.25 * 2.5
    np.testing.assert_allclose(np.diff(tight.middles[:3]), [16 * (0.75 - 0.25), 16 * (0.375 - 0.25 + 0.5)])


@pytest.mark.slow
def test_close_crops_end_at_the_ink():
    for margins in ((0.0, 0.0, 0.0, 0.0), (0.1, 0.05, 0.1, 0.05)):
        line, look = place([2, 1], crop=jnp.asarray([1.0, *margins]))
        left, right, above, below = (HEIGHT * margin for margin in margins)
        # Ink of 24 rows fills the height but the margins, and starts 8 rows below the top of the tile's em.
        em = (HEIGHT - above - below) / 24 * 32
        np.testing.assert_allclose(look.em, em, rtol=1e-6)
        top = HEIGHT / 2 + look.offset + em * (7 - 20) / 32
        np.testing.assert_allclose(top, above, atol=1e-4)
        np.testing.assert_allclose(line.middles[0] - em * 6 / 32, left, atol=1e-4)
        assert abs(float(line.middles[1]) + em * 12 / 32 + right - int(line.width)) < 1
    cut, _ = place([2, 1], crop=jnp.asarray([1.0, -0.25, -0.25, 0.0, 0.0]))
    # Of 16 + 32 columns without bearings of 2 and 4, a quarter of the ink of 12 and 24 is cut off.
    assert int(cut.width) == (48 - 2 - 4 - 3 - 6) / 24 * HEIGHT
    off, look = place([2, 1], crop=jnp.asarray([0.0, -0.25, -0.25, 0.0, 0.0]))
    assert (off.width, float(look.em)) == (place([2, 1])[0].width, 16)


@pytest.mark.slow
def test_close_crops_of_lines_without_ink_keep_a_size():
    line, look = place([], crop=jnp.asarray([1.0, 0.1, 0.1, 0.1, 0.1]))
    assert line.width == 0
    assert np.isfinite(look.em)


@pytest.mark.slow
def test_neighbours_are_visible_at_the_edges():
    x, y = np.broadcast_arrays(np.arange(96.0)[None], np.arange(HEIGHT)[:, None] - 15.5)
    at = jnp.asarray([1.0, 0.0, 0.125, 0.125, 0.5])
    moved_x, moved_y = marking.beside(at, jnp.asarray(16.0), jnp.asarray(0.0), x, y, jnp.asarray(80.0))
    moved = np.asarray(moved_y) != y
    assert moved[:6].all()
    assert not moved[6:].any()
    # Four rows show the lower end of its ink, 0.46 ems below its middle.
    assert abs(moved_y[3, 0] - (0.46 * 16 - 0.5)) < 1e-4
    np.testing.assert_allclose(moved_x[moved], (x[moved] + 40) % 80)


@pytest.mark.slow
def test_dashes_have_their_period_and_share_of_ink():
    along = np.arange(600.0)
    ink = np.asarray(marking.dashed(jnp.asarray([1.0, 6.0, 0.5]), along))
    assert abs(ink.mean() - 0.5) < 0.02
    np.testing.assert_allclose(ink[6:], ink[:-6], atol=1e-4)
    assert (marking.dashed(jnp.asarray([0.0, 6.0, 0.5]), along) == 1).all()


@pytest.mark.slow
def test_stamps_repeat_the_characters_around_a_star():
    config = RenderConfig(height=64, width=64)
    key, g = jax.random.key(0), glyphs()
    stamp = marking.draw_marks(key, dataclasses.replace(config, stamp=1.0)).stamp
    stamp = stamp._replace(
        strength=jnp.asarray(0.5), center=jnp.asarray([0.5, 0.5]), radius=jnp.asarray([0.45, 0.45]), turn=jnp.zeros(())
    )
    stamp = stamp._replace(ring=jnp.asarray(0.08), around=jnp.asarray(8.0), grain=jnp.ones((32, 32), bool))
    flat = g.tiles.reshape(-1, 40, 40)
    ink = np.asarray(marking.stamped(stamp, flat, jnp.asarray([1, 1]), jnp.asarray(2), jnp.asarray(64.0), config))
    away = np.hypot(*(np.indices(ink.shape) - 32))
    assert ink.max() == 0.5
    assert ink[away < 3].min() == 0.5  # the star
    assert (ink[np.abs(away - 0.45 * 64) < 0.5] > 0.3).all()  # the ring
    between = ink[(away > 0.45 * 64 * 0.65) & (away < 0.45 * 64 * 0.9)]
    assert 0.2 < (between > 0).mean() < 0.8  # eight blocks with gaps
    assert (ink[away > 32] == 0).all()
    none = marking.stamped(stamp, flat, jnp.asarray([0, 0]), jnp.asarray(2), jnp.asarray(64.0), config)
    assert ((np.asarray(none) != ink) <= ((away > 0.5 * 0.45 * 64) & (away < 0.45 * 64))).all()


@pytest.mark.slow
def test_dots_shades_and_thresholds():
    dots = jnp.asarray([[1.0, 0.5, 0.5, 2.0], [0.0, 0.1, 0.1, 2.0], [0.0, 0.1, 0.1, 2.0]])
    ink = np.asarray(marking.dotted(dots, jnp.asarray(80.0), SMALL))
    assert 3 < ink.sum() < 6
    assert ink[16, 40] == 1
    assert ink[:, 44:].max() == 0
    shade = np.asarray(marking.shaded(jnp.asarray([0.3, 0.25, 0.5, 0.0, 3.0, 0.0]), jnp.asarray(80.0), SMALL))
    assert (shade[:, 22:40] == np.float32(0.3)).all()
    assert shade[:, :20].max() == 0
    assert shade[:, 41:].max() == 0
    gray = jnp.asarray([[0.0, 0.4, 0.6, 1.0]])
    hard = marking.hardened(gray, jnp.asarray([1.0, 1000.0, 0.7, 0.0]), jnp.ones((1, 4)))
    np.testing.assert_array_equal(hard, [[0, 0, 1, 1]])
    assert (marking.hardened(gray, jnp.asarray([0.0, 9.0, 0.5, 0.1]), jnp.ones((1, 4))) == gray).all()
    # The edge of a stroke becomes softer, its total ink stays.
    stroke = np.zeros((1, 20), np.float32)
    stroke[0, 8:12] = 1
    soft = np.asarray(marking.subpixels(stroke, jnp.asarray(2.0)))
    assert 0 < soft[0, 7] < 1
    assert 0 < soft[0, 12] < 1
    assert abs(soft.sum() - 4) < 1e-5


@pytest.mark.slow
def test_each_mark_changes_what_it_says_and_nothing_else():
    config = dataclasses.replace(FORMS, width=WIDTH)
    drawn = jax.jit(draw, static_argnums=(1, 2, 3))(jax.random.key(0), config, 1, SLOTS)
    off = Marks(
        dashes=drawn.marks.dashes.at[:, 0].set(0.0),
        neighbours=drawn.marks.neighbours.at[:2].set(0.0),
        stamp=drawn.marks.stamp._replace(strength=jnp.zeros(())),
        dots=drawn.marks.dots.at[:, 0].set(0.0),
        screen=drawn.marks.screen.at[0].set(0.0),
        hard=drawn.marks.hard.at[0].set(0.0),
        thermal=(jnp.ones(HEIGHT), jnp.ones(WIDTH)),
        box=drawn.marks.box.at[0].set(0.0),
    )
    base = plain(
        half=jnp.asarray([1.0, 1.0, 0.0]),
        overlaps=jnp.zeros(SLOTS),
        crop=jnp.zeros(5),
        grain=drawn.grain,
        marks=off,
    )
    painted = jax.jit(paint, static_argnames="config")

    def image(**changes):
        look = base._replace(marks=off._replace(**changes))
        ink, width = painted(look, glyphs(), np.asarray([1, 2, 1, 0]), jnp.asarray(3), config=config)
        assert width == 48
        assert np.isfinite(ink).all()
        assert (ink[:, 48:] == 1).all()
        return np.asarray(ink[:, :48])

    alone, _ = jax.jit(paint, static_argnames="config")(
        plain(), glyphs(), np.asarray([1, 2, 1, 0]), jnp.asarray(3), config=SMALL
    )
    text = image()
    np.testing.assert_allclose(text, alone[:, :48], atol=1e-5)
    beside = image(neighbours=jnp.asarray([1.0, 1.0, 0.15, 0.15, 0.5]))
    np.testing.assert_allclose(beside[8:24], text[8:24], atol=1e-5)
    assert beside[:4].min() < -0.9
    assert beside[-4:].min() < -0.9
    stamp = image(stamp=drawn.marks.stamp._replace(strength=jnp.asarray(0.5), center=jnp.asarray([0.5, 0.5])))
    assert (stamp <= text + 1e-5).all()
    assert (stamp[text > 0.99] < 0.5).mean() > 0.02
    dot = image(dots=jnp.asarray([[1.0, 0.5, 0.05, 2.0], [0.0] * 4, [0.0] * 4]))
    assert 1 < (np.abs(dot - text) > 0.5).sum() < 8
    screen = image(screen=jnp.asarray([1.0, 8.0, 1.0]))
    assert 0.05 < np.abs(screen - text).mean() < 0.5
    hard = image(hard=jnp.asarray([1.0, 100.0, 0.5, 0.0]))
    assert (np.abs(hard) > 0.99).mean() > 0.99
    rows = np.ones(HEIGHT, np.float32)
    rows[14] = 0.0
    thermal = image(thermal=(jnp.asarray(rows), jnp.ones(WIDTH)))
    assert (thermal[14] > 0.99).all()
    np.testing.assert_allclose(np.delete(thermal, 14, 0), np.delete(text, 14, 0), atol=1e-5)
    box = image(box=jnp.asarray([0.5, 0.0, 0.5, 0.0, 3.0, 0.0]))
    np.testing.assert_allclose(box[:, 25:], text[:, 25:], atol=1e-5)
    assert np.abs(box[:, 2:22][text[:, 2:22] > 0.99]).max() < 1e-5  # half of the way to black
    assert box.min() == text.min()


@pytest.mark.slow
def test_widths_of_forms_leave_room_for_every_character():
    config, g = dataclasses.replace(FORMS, width=1200), glyphs()

    def line(key, length):
        look = draw(key, config, 1, 40)
        row, after = typeset(look, g.tiles, g.advances, g.present, jnp.full(40, 2), length, config)
        return row.width, after.em, row.ends, row.scales

    keys = jax.random.split(jax.random.key(0), 500)
    for length in (1, 8, 40):
        widths, ems, ends, scales = jax.jit(jax.vmap(functools.partial(line, length=length)))(keys)
        assert (widths <= 1200).all()
        assert (np.asarray(widths) >= 2.5 * length).all()
        assert (ems >= config.smallest * 32 - 1e-3).all()
        assert (ems <= 1.5 * 32).all()
        assert np.isfinite(ends).all()
        assert np.isfinite(scales).all()
    shares = np.asarray(scales)[:, 1, 0] / np.asarray(ems)
    assert shares.min() > 0.7
    assert np.quantile(shares, 0.1) < 0.95
    assert shares.max() <= 1.05


def test_keys_that_are_off_do_not_change_what_identifies_rendered_lines():
    # Runs of versions without these keys resume: the fingerprint of their data is the same.
    assert not set(LATER) & set(LEVELS["hard"].recorded())
    assert {"height", "smallest", "invert"} < set(LEVELS["hard"].recorded())
    assert RenderConfig(stamp=0.1).recorded()["stamp"] == 0.1
    assert set(LATER) - {"wide"} < set(FORMS.recorded())
