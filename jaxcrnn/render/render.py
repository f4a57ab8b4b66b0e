"""Rendering text lines on the device from a glyph atlas, as a pure function of key, glyphs and labels.

`draw` samples the appearance of a line and `paint` paints it; `render` does both for a batch. The appearance depends on
the line's own key only, so it is the same in any batch and under any sharding.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxcrnn.charset import Charset
from jaxcrnn.nn.layers import HEIGHT
from jaxcrnn.render.atlas import EM, SIZE, Atlas
from jaxcrnn.render.config import RenderConfig
from jaxcrnn.render.look import GRID, Look, draw
from jaxcrnn.render.marks import beside, dashed, dotted, hardened, pixels, shaded, stamped, subpixels
from jaxcrnn.render.typeset import SOFT, Line, typeset

COARSEST = 3.5  # largest factor by which small text of a screen is enlarged to lines of 32 pixels
FINE = 2  # positions per pixel at which the character is looked up


class Glyphs(NamedTuple):
    """An atlas on the device, indexed by class.

    Attributes:
      tiles: ``[3,F,C,40,40]`` uint8, plain and averaged along the line in two strengths; the blank's are empty.
      advances: ``[F,C]`` float32 in ems.
      present: ``[F,C]`` bool.
    """

    tiles: Array
    advances: Array
    present: Array

    @classmethod
    def of(cls, atlas: Atlas, charset: Charset) -> Glyphs:
        """Select the glyphs of a charset by class, including the blank; characters without a glyph leave no ink."""
        chosen = atlas.select("".join(charset.characters))
        parts = (chosen.tiles, chosen.advances, chosen.present)
        tiles, advances, present = (np.insert(part, charset.blank, 0, axis=1) for part in parts)
        return cls(
            jnp.asarray(np.stack([tiles, *(_softened(tiles, weights) for weights, _ in SOFT[1:])])),
            jnp.asarray(advances),
            jnp.asarray(present),
        )


def _softened(tiles: np.ndarray, weights: tuple[float, ...]) -> np.ndarray:
    half = len(weights) // 2
    soft = np.empty_like(tiles)
    for typeface, out in zip(tiles, soft, strict=True):  # the float32 copies of all would not fit into memory
        padded = np.pad(typeface, ((0, 0),) * 2 + ((half, half),)).astype(np.float32)
        out[:] = np.round(sum(w * padded[..., i : i + SIZE] for i, w in enumerate(weights)))
    return soft


def render(key: Array, glyphs: Glyphs, labels: Array, lengths: Array, config: RenderConfig) -> tuple[Array, Array]:
    """Render a batch of lines.

    Args:
      key: one PRNG key for the batch, from which sample b uses ``fold_in(key, b)``; or ``[B]`` keys, one per line, such
        as ``fold_in(key(seed), index)``.
      glyphs: glyphs of the charset.
      labels: ``[B,L]`` class ids; ignored beyond ``lengths``.
      lengths: ``[B]`` label lengths; 0 gives a line of width 0.
      config: rendering parameters, static under jit.

    Returns:
      ``images [B,H,W,1]`` float32 in [-1, 1], white beyond their widths, and ``widths [B]`` int32.
    """
    keys = key if key.ndim else jax.vmap(lambda b: jax.random.fold_in(key, b))(jnp.arange(labels.shape[0]))
    looks = jax.vmap(lambda k: draw(k, config, glyphs.present.shape[0], labels.shape[1]))(keys)
    images, widths = jax.vmap(lambda look, row, n: paint(look, glyphs, row, n, config))(looks, labels, lengths)
    return images[..., None], widths


def paint(look: Look, glyphs: Glyphs, labels: Array, length: Array, config: RenderConfig) -> tuple[Array, Array]:
    """Paint one line.

    Returns:
      The image ``[H,W]`` and its width.
    """
    columns, marks = config.width, look.marks
    line, look = typeset(look, glyphs.tiles, glyphs.advances, glyphs.present, labels, length, config)
    # Table from positions along the line to characters, so that pixels need no comparison with every character.
    along = (jnp.arange(columns * FINE, dtype=jnp.float32) + 0.5) / FINE
    table = ((along[:, None] >= line.ends[None, :]) & line.inside[None, :]).sum(1, dtype=jnp.int32)
    width = line.width.astype(jnp.float32)

    # Behind barriers, what several operations use is computed once, not again in the loop of each.
    x, y = jax.lax.optimization_barrier(_unwarped(look, width, config))
    text_x, text_y = x, y
    if marks.neighbours is not None:
        text_x, text_y = beside(marks.neighbours, look.em, look.offset, x, y, width)
    last = jnp.maximum(length - 1, 0)
    at = jnp.clip(table[jnp.clip((text_x * FINE).astype(jnp.int32), 0, columns * FINE - 1)], 0, last)
    ink = jax.lax.optimization_barrier(_glyphs(line, glyphs.tiles, at, text_x, text_y))
    ink = jnp.maximum(_weigh(ink, look.weight), _ruled(look, x, y, width))
    if marks.stamp is not None:
        ink = 1 - (1 - ink) * (1 - stamped(marks.stamp, glyphs.tiles, line.tiles, length, width, config))
    if marks.dots is not None:
        ink = jnp.maximum(ink, dotted(marks.dots, width, config))
    ink = _blurred(_reduced(ink, look), look.blur)
    if marks.thermal is not None:
        ink = ink * marks.thermal[0][:, None] * marks.thermal[1][None, :]
    if marks.hard is not None and look.grain is not None:
        ink = hardened(ink, marks.hard, look.grain)
    paper = look.paper + _spread(look.texture, config)
    if marks.box is not None:
        shade = shaded(marks.box, width, config)
        paper, ink = paper - shade * (look.paper - look.ink), ink * (1 - shade)
    image = paper + ink * (look.ink - look.paper) + look.noise
    image = _quantised(image, look.blocks)
    image = jnp.where(look.invert, -image, image)
    return jnp.where(jnp.arange(columns)[None, :] < line.width, jnp.clip(image, -1.0, 1.0), 1.0), line.width


def _glyphs(line: Line, tiles: Array, at: Array, x: Array, y: Array) -> Array:
    """Sample the ink of character ``at`` at each position."""
    tile_x = (x - line.middles[at]) / line.scales[0][at] * EM + (SIZE - 1) / 2
    tile_y = (y / line.scales[1][at] - line.rises[at]) * EM + (SIZE - 1) / 2
    return _sample(tiles, *jax.lax.optimization_barrier((line.tiles[at], tile_x, tile_y)))


def _unwarped(look: Look, width: Array, config: RenderConfig) -> tuple[Array, Array]:
    """Map each pixel of the image to its position along the line and below the line's middle, in pixels."""
    half = jnp.maximum(width / 2, 1.0)
    y = jnp.arange(config.height, dtype=jnp.float32)[:, None] - ((config.height - 1) / 2 + look.offset)
    x = jnp.arange(config.width, dtype=jnp.float32)[None, :] + 0.5 - half
    # A long line turned by the same angle would leave the image.
    angle = look.rotation * jnp.minimum(1.0, 3 * config.height / half)
    turned_x = jnp.cos(angle) * x + jnp.sin(angle) * y
    turned_y = jnp.cos(angle) * y - jnp.sin(angle) * x
    far = 1 + look.perspective[0] * turned_x / half + look.perspective[1] * turned_y / config.height
    across, along, phase_y, phase_x = look.wave
    # Stretched so that the nearer end of the line stays in the image.
    line_x = (
        turned_x * (1 + jnp.abs(look.perspective[0])) / far
        + look.slant * turned_y
        + along * jnp.sin(jnp.pi * turned_x / config.height + phase_x)
    )
    line_y = turned_y / far + across * jnp.sin(jnp.pi * turned_x / (2 * config.height) + phase_y)
    return line_x + half, line_y


def _sample(tiles: Array, index: Array, x: Array, y: Array) -> Array:
    """Sample tile ``index`` bilinearly at each pixel with one gather of four neighbours; 0 outside the tile."""
    left, top = jnp.floor(x), jnp.floor(y)
    columns = left.astype(jnp.int32)[..., None] + jnp.asarray([0, 1, 0, 1])[None, None]
    rows = top.astype(jnp.int32)[..., None] + jnp.asarray([0, 0, 1, 1])[None, None]
    inside = (columns >= 0) & (columns < SIZE) & (rows >= 0) & (rows < SIZE)
    flat = (index[..., None] * SIZE + jnp.clip(rows, 0, SIZE - 1)) * SIZE + jnp.clip(columns, 0, SIZE - 1)
    values = jnp.where(inside, tiles.reshape(-1)[flat].astype(jnp.float32) / 255, 0.0)
    right, down = x - left, y - top
    weights = jnp.stack([(1 - right) * (1 - down), right * (1 - down), (1 - right) * down, right * down], -1)
    return (values * weights).sum(-1)


def _weigh(ink: Array, weight: Array) -> Array:
    """Grow or shrink strokes: blend each pixel with the maximum or minimum over its four neighbours and itself."""
    padded = jnp.pad(ink, 1)
    neighbours = [padded[1:-1, :-2], padded[1:-1, 2:], padded[:-2, 1:-1], padded[2:, 1:-1]]
    bold, thin = ink, ink
    for other in neighbours:
        bold, thin = jnp.maximum(bold, other), jnp.minimum(thin, other)
    return ink + jnp.maximum(weight, 0.0) * (bold - ink) + jnp.maximum(-weight, 0.0) * (thin - ink)


def _ruled(look: Look, x: Array, y: Array, width: Array) -> Array:
    """Draw straight lines around the text, as in forms and tables."""
    strength, place, thickness, tilt = look.rules.T
    half = look.em / 2
    high, low = -half * (1.02 + 0.25 * place[0]), half * (1.02 + 0.25 * place[1])
    left, right = 0.15 * look.em * place[2], width - 1 - 0.15 * look.em * place[3]
    far = [
        y - high - tilt[0] * (x - width / 2),
        y - low - tilt[1] * (x - width / 2),
        x - left - tilt[2] * y,
        x - right - tilt[3] * y,
    ]
    if look.marks.dashes is not None:
        # Along the image: rules are nearly parallel to its sides.
        columns, rows = pixels(x.shape)
        along = [dashed(d, at) for d, at in zip(look.marks.dashes, (columns, columns, rows, rows), strict=True)]
        strength = [strong * on for strong, on in zip(strength, along, strict=True)]
    ink = jnp.zeros_like(y)
    for away, strong, thick in zip(far, strength, thickness, strict=True):
        ink = jnp.maximum(ink, strong * jnp.clip(thick / 2 + 0.5 - jnp.abs(away), 0.0, 1.0))
    return ink


def _hats(positions: Array, nodes: int) -> Array:
    """Return ``[len(positions), nodes]`` weights of linear interpolation between nodes at 0, 1, 2 ..."""
    return jnp.maximum(0.0, 1 - jnp.abs(positions[:, None] - jnp.arange(nodes, dtype=jnp.float32)[None, :]))


def _reduced(ink: Array, look: Look) -> Array:
    """Downsample by a factor with averaging and upsample with linear interpolation, in both directions."""
    factor, screen = look.lowres, look.marks.screen
    if screen is not None:
        factor = jnp.where(
            screen[0] > 0, jnp.clip(look.em / screen[1], 1.0, max(1.0, COARSEST * len(ink) / HEIGHT)), factor
        )
        ink = jnp.where(screen[0] > 0, subpixels(ink, factor), ink)

    def matrices(n: int) -> tuple[Array, Array]:
        cells = (jnp.arange(n, dtype=jnp.float32) + 0.5) * factor - 0.5
        last = jnp.floor((n - 1) / factor)  # no cell beyond the image
        away = jnp.abs(jnp.arange(n, dtype=jnp.float32)[None, :] - cells[:, None]) / factor
        down = jnp.maximum(0.0, 1 - away)
        down = down / jnp.maximum(down.sum(1, keepdims=True), 1e-6)
        return down, _hats(jnp.clip((jnp.arange(n, dtype=jnp.float32) + 0.5) / factor - 0.5, 0.0, last), n)

    (down_y, up_y), (down_x, up_x) = (matrices(n) for n in ink.shape)
    # In this order, because products of the matrices themselves grow with the third power of the width.
    small = (down_y @ ink) @ down_x.T
    if screen is not None:
        small = jnp.where(screen[0] > 0, jnp.clip(small * screen[2], 0.0, 1.0), small)
    return (up_y @ small) @ up_x.T


def _blurred(ink: Array, deviation: Array) -> Array:
    taps = jnp.arange(-3, 4, dtype=jnp.float32)
    kernel = jnp.exp(-0.5 * (taps / jnp.maximum(deviation, 1e-3)) ** 2)
    kernel = kernel / kernel.sum()
    height, width = ink.shape
    padded = jnp.pad(ink, ((3, 3), (0, 0)))
    rows = sum(kernel[i] * padded[i : i + height] for i in range(7))
    padded = jnp.pad(rows, ((0, 0), (3, 3)))
    return sum((kernel[i] * padded[:, i : i + width] for i in range(7)), jnp.zeros_like(ink))


def _spread(texture: Array, config: RenderConfig) -> Array:
    """Interpolate the texture's grid over the whole image."""
    rows = jnp.linspace(0.0, GRID[0] - 1.0, config.height)
    last = GRID[1] - 1.0
    columns = jnp.arange(config.width, dtype=jnp.float32) / config.height * 3
    columns = last - jnp.abs(columns % (2 * last) - last)  # mirrored on long lines
    return _hats(rows, GRID[0]) @ texture @ _hats(columns, GRID[1]).T


def _quantised(image: Array, step: Array) -> Array:
    """Round the frequencies of 8x8 blocks to multiples of a step that grows with the frequency."""
    k = np.arange(8)
    cosines = np.cos(np.pi * (k[None, :] + 0.5) * k[:, None] / 8) * np.where(k[:, None] == 0, np.sqrt(1 / 8), 0.5)
    basis = jnp.asarray(cosines, jnp.float32)  # [frequency, pixel], orthonormal
    height, width = image.shape
    blocks = image.reshape(height // 8, 8, width // 8, 8)
    frequencies = jnp.einsum("fy,aybx,gx->abfg", basis, blocks, basis)
    steps = step * (1 + jnp.asarray(k[:, None] + k[None, :], jnp.float32))[None, None] / 2
    rounded = jnp.where(steps > 1e-4, jnp.round(frequencies / jnp.maximum(steps, 1e-4)) * steps, frequencies)
    return jnp.einsum("fy,abfg,gx->aybx", basis, rounded, basis).reshape(height, width)
