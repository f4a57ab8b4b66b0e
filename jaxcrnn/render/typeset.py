"""Where the characters of a line stand: widths, spaces, condensing, and crops close to the ink."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jaxcrnn.render.atlas import BASELINE, EM, SIZE
from jaxcrnn.render.config import RenderConfig
from jaxcrnn.render.look import Look

HALF = 0.75  # advance in ems below which a character is half-width
BELOW = (BASELINE - SIZE / 2) / EM  # of the baseline below the line's middle, in ems
LARGEST = 1.5  # largest em of lines that are cropped close to their ink, as a share of the height
FAINT = 24  # of 255: ink that counts for a close crop
# Original tiles, and tiles averaged along the line for lines so narrow that single columns would be missed: weights,
# and the number of tile columns per pixel from which they are used.
SOFT = (((1.0,), 0.0), ((0.25, 0.5, 0.25), 1.5), ((0.125, 0.25, 0.25, 0.25, 0.125), 2.6))


class Line(NamedTuple):
    """The places of the characters of one line, in pixels.

    Attributes:
      inside: ``[L]`` whether a slot is a character.
      tiles: ``[L]`` indices of tiles.
      ends: ``[L]`` right ends of their places.
      middles: ``[L]`` middles of the glyphs.
      scales: ``[2,L]`` horizontal and vertical size of their ems.
      rises: ``[L]`` shifts downwards, in ems of the character.
      width: width of the line.
    """

    inside: Array
    tiles: Array
    ends: Array
    middles: Array
    scales: Array
    rises: Array
    width: Array


def typeset(
    look: Look, tiles: Array, advances: Array, present: Array, labels: Array, length: Array, config: RenderConfig
) -> tuple[Line, Look]:
    """Place the characters of a line.

    Args:
      look: appearance of the line.
      tiles: ``[3,F,C,40,40]``, see `Glyphs`.
      advances: ``[F,C]``.
      present: ``[F,C]``.
      labels: ``[L]`` class ids.
      length: number of characters.
      config: rendering parameters.

    Returns:
      The line, and its appearance with the size, offset and margins of a close crop.
    """
    inside = jnp.arange(labels.shape[0]) < length
    classes = jnp.where(inside, labels, 0)
    # Each character uses the preferred typeface among those that have it.
    fonts = jnp.argmax(jnp.where(present[:, classes], look.fonts[:, None], -1.0), 0)
    advance = advances[fonts, classes]
    tall = broad = look.sizes
    rises = look.rises
    if look.half is not None:
        low, stretched, stand = look.half
        small = (advance < HALF) & (advance > 0)
        tall, broad = jnp.where(small, low, 1.0) * tall, jnp.where(small, stretched, 1.0) * broad
        rises = rises + jnp.where(small, stand * BELOW * (1 - low) / low, 0.0)
    wide = advance * broad
    gaps = look.gaps if look.overlaps is None else look.gaps - look.overlaps * wide
    room = jnp.where(inside, jnp.maximum(wide + gaps, 0.2), 0.0)
    number = fonts * present.shape[1] + classes
    margins = look.margins * look.em
    if look.crop is not None:
        look, margins = _cropped(look, tiles, number, inside, length, (wide, broad, tall, room), margins, config)
    scale = look.em * look.narrow
    natural = room.sum() * scale + margins.sum()
    squeeze = jnp.minimum(1.0, config.width / jnp.maximum(natural, 1e-6))
    width = jnp.where(length > 0, jnp.ceil(natural * squeeze - 1e-3).astype(jnp.int32), 0)
    ends = (margins[0] + jnp.cumsum(room * scale)) * squeeze
    starts = ends - room * scale * squeeze
    dense = EM / (scale * squeeze)
    softness = sum((dense >= start).astype(jnp.int32) for _, start in SOFT[1:])
    line = Line(
        inside=inside,
        tiles=softness * present.size + number,
        ends=ends,
        middles=starts + 0.5 * wide * scale * squeeze,
        scales=jnp.stack([look.em * broad * look.narrow * squeeze, look.em * tall]),
        rises=rises,
        width=width,
    )
    return line, look


def _cropped(
    look: Look,
    tiles: Array,
    number: Array,
    inside: Array,
    length: Array,
    sizes: tuple[Array, Array, Array, Array],
    margins: Array,
    config: RenderConfig,
) -> tuple[Look, Array]:
    """Choose the size and place of a line whose ink fills the image, and its margins in pixels."""
    assert look.crop is not None
    wide, broad, tall, room = sizes
    on, height = look.crop[0] > 0, config.height
    left, right, above, below = look.crop[1:]
    flat = tiles.reshape(-1, SIZE, SIZE)
    # Tiles averaged along the line miss no ink in every fourth column.
    softest = number + (len(SOFT) - 1) * (len(flat) // len(SOFT))
    rows = (flat[softest[:, None, None], jnp.arange(SIZE)[:, None], jnp.arange(0, SIZE, 4)] > FAINT).any(2)
    top, bottom = _span(rows)
    shown = inside & rows.any(1)
    top = jnp.where(shown, (top + look.rises) * tall, jnp.inf).min()
    bottom = jnp.where(shown, (bottom + look.rises) * tall, -jnp.inf).max()
    top, bottom = (jnp.where(shown.any(), edge, usual) for edge, usual in ((top, -0.5), (bottom, 0.5)))
    em = height * (1 - above - below) / jnp.maximum(bottom - top, 1e-3)
    em = jnp.clip(em, config.smallest * height, LARGEST * height)
    offset = 0.5 * height * (above - below) - 0.5 * em * (top + bottom)
    # From the ends of the first and last character's place to their ink.
    ends = jnp.stack([jnp.zeros_like(length), jnp.maximum(length - 1, 0)])
    begins, stops = _span((flat[number[ends]] > FAINT).any(1))
    scale = em * look.narrow
    begins, stops = (0.5 * wide[ends] + edge * broad[ends] for edge in (begins, stops))
    bearings = jnp.stack([begins[0], room[ends[1]] - stops[1]]) * scale
    cut = jnp.stack([left, right])
    cut = cut * jnp.where(cut > 0, height, (stops - begins) * scale)
    look = look._replace(em=jnp.where(on, em, look.em), offset=jnp.where(on, offset, look.offset))
    return look, jnp.where(on, cut - bearings, margins)


def _span(ink: Array) -> tuple[Array, Array]:
    """Return the first and last edge of ink ``[N,40]`` in ems from the middle of the tile; 0 where there is none."""
    before, after = (jnp.argmax(side, 1).astype(jnp.float32) for side in (ink, ink[:, ::-1]))
    there = ink.any(1)
    return jnp.where(there, (before - SIZE / 2) / EM, 0.0), jnp.where(there, (SIZE / 2 - after) / EM, 0.0)
