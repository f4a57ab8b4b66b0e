"""What forms, scanners and printers add to a line: ink that is not its text, and damage to its strokes."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxcrnn.render.atlas import EM, SIZE
from jaxcrnn.render.config import RenderConfig

DOTS = 3  # stray dots of a line
HALF_INK = 0.46  # of the height of Han characters, in ems
SHADES = (0.299, 0.587, 0.114)  # of red, green and blue in gray


class Stamp(NamedTuple):
    """A stamp: a ring, a star in it, and characters of the line along it.

    Attributes:
      strength: ink, 0 without a stamp.
      center: ``[2]`` column as a share of the line's width, and row as a share of the height.
      radius: ``[2]`` horizontal and vertical, as shares of the height.
      ring: thickness of the ring as a share of the radius.
      turn: rotation, as a share of a full one.
      around: number of characters on a full turn.
      grain: ``[H/2,W/2]`` whether each block of 2 x 2 pixels takes ink.
    """

    strength: Array
    center: Array
    radius: Array
    ring: Array
    turn: Array
    around: Array
    grain: Array


class Marks(NamedTuple):
    """Sampled marks of one line; None for those whose configuration key is 0.

    Attributes:
      dashes: ``[4,3]`` strength, period in pixels and share of ink of each rule's dashes.
      neighbours: ``[5]`` whether there is a line above and below, their visible heights as shares of the image's, and
        their shift along the line as a share of the width.
      stamp: see `Stamp`.
      dots: ``[3,4]`` strength, column as a share of the line's width, row as a share of the height, and diameter in
        pixels.
      screen: ``[3]`` whether the line is enlarged, from how many pixels an em, and the contrast of its small pixels.
      hard: ``[4]`` whether strokes are thresholded, sharpness, threshold relative to the ink of most strokes, and
        roughness.
      thermal: fading factors of rows ``[H]`` and columns ``[W]``.
      box: ``[6]`` depth as a share of the contrast, left and right end as shares of the width, and amplitude, period
        in pixels and direction of its raster, which is turned by 45 degrees above 0.5.
    """

    dashes: Array | None = None
    neighbours: Array | None = None
    stamp: Stamp | None = None
    dots: Array | None = None
    screen: Array | None = None
    hard: Array | None = None
    thermal: tuple[Array, Array] | None = None
    box: Array | None = None


def draw_marks(key: Array, config: RenderConfig) -> Marks:
    """Sample the marks of one line."""
    # All numbers at once, because every call of the generator takes time to compile; their order never changes.
    of_numbers, of_grain, of_thermal = jax.random.split(key, 3)
    numbers = jax.random.uniform(of_numbers, (64,))
    taken = 0

    def sample(probability: float, *spans: tuple[float, float], count: int = 1) -> Array:
        """Return ``[count,1+S]``: whether something happens, as 0 or 1, and a number from each span."""
        nonlocal taken
        shape = count, 1 + len(spans)
        values = numbers[taken : taken + shape[0] * shape[1]].reshape(shape)
        taken += shape[0] * shape[1]
        low, high = jnp.asarray(spans).T[:, None]
        return jnp.concatenate(
            [(values[:, :1] < probability).astype(jnp.float32), low + (high - low) * values[:, 1:]], 1
        )

    dashes = sample(config.dashed, (2.0, 8.0), (0.3, 0.8), count=4)
    sides = sample(config.neighbour, (0.02, 0.2), (0.2, 0.8), count=2)
    dots = sample(config.dot, (0.5, 1.0), (0.0, 1.0), (0.0, 1.0), (0.8, 2.6), count=DOTS)
    screen = sample(config.screen, (11.0, 16.0), (1.0, 2.5))[0]
    there, gain, middle, rough = sample(config.hard, (0.0, 1.8), (0.55, 1.1), (0.0, 0.1))[0]
    box = sample(config.box, (0.1, 0.5), (-0.6, 0.6), (0.4, 1.6), (0.0, 0.5), (2.0, 4.0), (0.0, 1.0))[0]
    stamp = sample(
        config.stamp,
        *((0.2, 0.65), (0.0, 1.0), (-0.6, 1.6), (0.4, 1.6), (-0.4, 0.4), (0.03, 0.09), (0.0, 1.0), (8.0, 24.0)),
        (0.5, 1.0),
    )[0]
    return Marks(
        dashes=dashes if config.dashed else None,
        neighbours=jnp.concatenate([sides[:, 0], sides[:, 1], sides[:1, 2]]) if config.neighbour else None,
        stamp=_stamp_of(stamp, of_grain, config) if config.stamp else None,
        dots=jnp.concatenate([dots[:, :1] * dots[:, 1:2], dots[:, 2:]], 1) if config.dot else None,
        screen=screen if config.screen else None,
        hard=jnp.stack([there, 1.3 * jnp.exp(gain), middle, rough]) if config.hard else None,
        thermal=_draw_thermal(of_thermal, config) if config.thermal else None,
        box=jnp.concatenate([box[:1] * box[1:2], box[2:]]) if config.box else None,
    )


def _stamp_of(numbers: Array, of_grain: Array, config: RenderConfig) -> Stamp:
    there, strength, column, row, radius, broader, ring, turn, around, patchy = numbers
    return Stamp(
        strength=there * strength,
        center=jnp.stack([column, row]),
        radius=radius * jnp.stack([1 + jnp.maximum(0.0, broader), jnp.ones(())]),
        ring=ring,
        turn=turn,
        around=jnp.round(around),
        grain=jax.random.uniform(of_grain, (config.height // 2, config.width // 2)) < patchy,
    )


def _draw_thermal(key: Array, config: RenderConfig) -> tuple[Array, Array]:
    height, width, nodes = config.height, config.width, config.width // 8 + 2
    numbers = jax.random.uniform(key, (6 + height + width + nodes,))
    there, faded, dotted, period, phase, dead = numbers[:6]
    of_rows, of_columns, of_nodes = jnp.split(numbers[6:], (height, height + width))
    x, y = (positions.reshape(-1) for positions in pixels((height, width)))
    rows = 1 - 0.7 * faded * of_rows**2
    waves = jnp.cos(2 * jnp.pi * (y / (2 + 2 * period) + phase))
    rows = rows * (1 - 0.3 * dotted * (1 - waves))
    smooth = jnp.interp(x / 8, jnp.arange(nodes, dtype=jnp.float32), of_nodes)
    broken = of_columns < 0.04 * dead  # elements of the print head
    columns = (1 - 0.5 * faded * smooth) * jnp.where(broken, 0.15, 1.0)
    on = there < config.thermal
    return jnp.where(on, rows, 1.0), jnp.where(on, columns, 1.0)


def pixels(shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Return the columns ``[1,W]`` and rows ``[H,1]`` of the pixels of an image ``[H,W]``."""
    return jnp.arange(shape[1], dtype=jnp.float32)[None], jnp.arange(shape[0], dtype=jnp.float32)[:, None]


def beside(neighbours: Array, em: Array, offset: Array, x: Array, y: Array, width: Array) -> tuple[Array, Array]:
    """Map pixels at the upper and lower edge to a repetition of the line above and below, shifted along it."""
    above, below, over, under, phase = neighbours
    height = x.shape[0]
    # The middles of the neighbours, so that a given part of them is in the image; never closer than an em.
    far = height / 2 + HALF_INK * em
    up = jnp.maximum(far + offset - over * height, em)
    down = jnp.maximum(far - offset - under * height, em)
    in_upper, in_lower = (above > 0) & (y < -up / 2), (below > 0) & (y > down / 2)
    shifted = jnp.where(in_upper | in_lower, (x + phase * width) % jnp.maximum(width, 1.0), x)
    return shifted, y + jnp.where(in_upper, up, 0.0) - jnp.where(in_lower, down, 0.0)


def dashed(dashes: Array, along: Array) -> Array:
    """Ink of a dashed rule at positions along it; 1 everywhere if it is solid."""
    there, period, share = dashes
    waves = jnp.cos(2 * jnp.pi * along / period) - jnp.cos(jnp.pi * share)
    return jnp.where(there > 0, jnp.clip(0.5 + waves * period / 4, 0.0, 1.0), 1.0)


def stamped(stamp: Stamp, tiles: Array, index: Array, length: Array, width: Array, config: RenderConfig) -> Array:
    """Draw a stamp.

    Args:
      stamp: the stamp.
      tiles: ``[N,40,40]`` tiles.
      index: ``[L]`` tiles of the characters that it repeats.
      length: number of characters.
      width: width of the line.
      config: rendering parameters.

    Returns:
      Ink ``[H,W]``.
    """
    x, y = pixels((config.height, config.width))
    radius = stamp.radius[1] * config.height
    across = (x - stamp.center[0] * width) * stamp.radius[1] / stamp.radius[0]
    down = y - stamp.center[1] * config.height
    away = jnp.sqrt(across**2 + down**2)
    angle = jnp.arctan2(down, across) / (2 * jnp.pi) + stamp.turn
    ring = jnp.clip(0.5 * stamp.ring * radius + 0.5 - jnp.abs(away - radius), 0.0, 1.0)
    inner = 0.35 * radius * (0.69 + 0.31 * jnp.cos(10 * jnp.pi * angle))
    star = jnp.clip(inner - away + 0.5, 0.0, 1.0)
    # Characters upright on a circle within the ring, looked up without interpolation.
    middle = 0.78 * radius
    place = (angle % 1.0) * stamp.around
    slot = jnp.floor(place)
    step = 2 * jnp.pi * middle / stamp.around
    size = jnp.minimum(step, 0.36 * radius)
    tile_x = jnp.round((place - slot - 0.5) * step / size * EM + (SIZE - 1) / 2).astype(jnp.int32)
    tile_y = jnp.round((middle - away) / size * EM + (SIZE - 1) / 2).astype(jnp.int32)
    within = (tile_x >= 0) & (tile_x < SIZE) & (tile_y >= 0) & (tile_y < SIZE)
    tile = index[slot.astype(jnp.int32) % jnp.maximum(length, 1)]
    at = (tile * SIZE + jnp.clip(tile_y, 0, SIZE - 1)) * SIZE + jnp.clip(tile_x, 0, SIZE - 1)
    written = jnp.where(within, tiles.reshape(-1)[at].astype(jnp.float32) / 255, 0.0)
    grain = jnp.repeat(jnp.repeat(stamp.grain, 2, 0), 2, 1)
    return jnp.where(grain, stamp.strength * jnp.maximum(jnp.maximum(ring, star), written), 0.0)


def dotted(dots: Array, width: Array, config: RenderConfig) -> Array:
    """Draw stray dots, ``[H,W]``."""
    x, y = pixels((config.height, config.width))
    ink = jnp.zeros((config.height, config.width))
    for strength, column, row, diameter in dots:
        away = jnp.sqrt((x - column * width) ** 2 + (y - row * config.height) ** 2)
        ink = jnp.maximum(ink, strength * jnp.clip(diameter / 2 + 0.5 - away, 0.0, 1.0))
    return ink


def subpixels(ink: Array, factor: Array) -> Array:
    """Average the three colors of a screen's pixels as gray: each samples the ink a third of a pixel from the next.

    Args:
      ink: ``[H,W]``.
      factor: width of the screen's pixels.
    """
    third = jnp.clip(factor / 3, 0.0, 1.0)
    padded = jnp.pad(ink, ((0, 0), (1, 1)))
    red, _, blue = SHADES
    return red * third * padded[:, :-2] + (1 - (red + blue) * third) * ink + blue * third * padded[:, 2:]


def hardened(ink: Array, hard: Array, grain: Array) -> Array:
    """Threshold strokes: high thresholds leave thin, broken ones, low thresholds thick ones.

    Args:
      ink: ``[H,W]``.
      hard: see `Marks`.
      grain: ``[H,W]`` standard normal noise, which frays the strokes.
    """
    there, gain, middle, rough = hard
    # Relative to the ink of most strokes, or soft and thin ones would vanish.
    level = (ink**2).sum() / jnp.maximum(ink.sum(), 1e-6)
    share = ink / jnp.maximum(level, 1e-3)
    # Paper far from strokes stays white.
    frayed = share + rough * grain * jnp.clip(4 * share, 0.0, 1.0)
    return jnp.where(there > 0, jnp.clip((frayed - middle) * gain + 0.5, 0.0, 1.0), ink)


def shaded(box: Array, width: Array, config: RenderConfig) -> Array:
    """Draw the gray of a box behind the text, ``[H,W]``, as a share of the contrast."""
    depth, left, right, raster, period, turned = box
    x, y = pixels((config.height, config.width))
    inside = jnp.clip(x - left * width, 0.0, 1.0) * jnp.clip(right * width - x, 0.0, 1.0)
    # Dots on a square grid or one turned by 45 degrees, from cosines of rows and columns only.
    columns, rows = jnp.cos(2 * jnp.pi / period * x), jnp.cos(2 * jnp.pi / period * y)
    dots = jnp.where(turned > 0.5, 0.5 * (columns + rows), columns * rows)
    return depth * inside * (1 + raster * dots)
