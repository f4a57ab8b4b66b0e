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
from jaxcrnn.render.atlas import EM, SIZE, Atlas
from jaxcrnn.render.config import RenderConfig

RULES = 4  # above, below, left, right
GRID = (4, 24)  # rows and columns of the grid of the paper's texture
FINE = 2  # positions per pixel at which the character is looked up
# Original tiles, and tiles averaged along the line for lines so narrow that single columns would be missed: weights,
# and the number of tile columns per pixel from which they are used.
SOFT = (((1.0,), 0.0), ((0.25, 0.5, 0.25), 1.5), ((0.125, 0.25, 0.25, 0.25, 0.125), 2.6))


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


class Look(NamedTuple):
    """Sampled appearance of one line of L slots, which determines its painting.

    Attributes:
      fonts: ``[F]`` float32 preferences; each character is set in the preferred font that has it.
      em: font size in pixels.
      narrow: horizontal scale.
      sizes: ``[L]`` relative size of each character.
      gaps: ``[L]`` space after each character, in ems.
      rises: ``[L]`` shift of each character downwards, in ems.
      margins: ``[2]`` margins in ems.
      offset: vertical offset of the line's middle, in pixels.
      slant: pixels to the right per pixel upwards.
      rotation: rotation in radians.
      perspective: ``[2]`` growth along the line and downwards.
      wave: ``[4]`` amplitudes across and along in pixels, and their phases.
      weight: stroke weight from -1 (thinner by a pixel) to 1 (bolder by a pixel).
      lowres: downsampling factor, at least 1.
      blur: standard deviation in pixels.
      ink: gray of the strokes, in [-1, 1].
      paper: gray of the paper.
      texture: ``[4,24]`` deviations of the paper's gray at the nodes of a grid over the image.
      noise: ``[H,W]`` added noise.
      blocks: quantization step.
      rules: ``[4,4]`` strength, position, thickness in pixels and tilt of the lines above, below, left and right.
      invert: whether black and white are swapped.
    """

    fonts: Array
    em: Array
    narrow: Array
    sizes: Array
    gaps: Array
    rises: Array
    margins: Array
    offset: Array
    slant: Array
    rotation: Array
    perspective: Array
    wave: Array
    weight: Array
    lowres: Array
    blur: Array
    ink: Array
    paper: Array
    texture: Array
    noise: Array
    blocks: Array
    rules: Array
    invert: Array


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


def draw(key: Array, config: RenderConfig, fonts: int, slots: int) -> Look:
    """Sample the appearance of one line; values of a character do not depend on the number of slots."""
    one, both = jax.random.uniform, lambda k, shape=(): jax.random.uniform(k, shape, minval=-1.0, maxval=1.0)
    keys = iter(jax.random.split(key, 24))
    em = config.height * one(next(keys), minval=config.smallest, maxval=config.largest)
    of_characters = next(keys)
    each = jax.vmap(lambda i: both(jax.random.fold_in(of_characters, i), (3,)))(jnp.arange(slots))
    weight = one(next(keys), minval=-config.thin, maxval=config.bold)
    contrast = one(next(keys), minval=config.contrast, maxval=max(1.9, config.contrast))
    paper = one(next(keys), minval=-1.0 + contrast, maxval=1.0)
    strength = (one(next(keys), (RULES,)) < config.rule).astype(jnp.float32)
    place, thickness, tilt, dark = one(next(keys), (4, RULES))
    return Look(
        fonts=one(next(keys), (fonts,)),
        em=em,
        narrow=one(next(keys), minval=min(config.narrow, 1.0), maxval=max(config.narrow, 1.0)),
        sizes=1 + config.size * each[:, 0],
        gaps=config.loose * one(next(keys)) ** 2 + config.pitch * each[:, 1],
        rises=config.baseline * each[:, 2],
        margins=config.margin * one(next(keys), (2,)),
        offset=config.offset * config.height * both(next(keys)),
        slant=config.slant * both(next(keys)),
        rotation=config.rotation * both(next(keys)),
        perspective=config.perspective * both(next(keys), (2,)),
        wave=jnp.concatenate([config.wave * em * both(next(keys), (2,)), 2 * jnp.pi * one(next(keys), (2,))]),
        weight=weight,
        lowres=one(next(keys), minval=1.0, maxval=max(config.lowres, 1.0)),
        blur=config.blur * one(next(keys)),
        ink=paper - contrast,
        paper=paper,
        texture=config.texture * one(next(keys)) * jax.random.normal(next(keys), GRID),
        noise=_noise(next(keys), config),
        blocks=config.blocks * one(next(keys)),
        rules=jnp.stack([strength * (0.4 + 0.6 * dark), place, 0.8 + 1.4 * thickness, 0.02 * (tilt - 0.5)], 1),
        invert=one(next(keys)) < config.invert,
    )


def _noise(key: Array, config: RenderConfig) -> Array:
    scale, each = jax.random.split(key)
    amount = config.noise * jax.random.uniform(scale)
    return amount * jax.random.normal(each, (config.height, config.width))


def paint(look: Look, glyphs: Glyphs, labels: Array, length: Array, config: RenderConfig) -> tuple[Array, Array]:
    """Paint one line.

    Returns:
      The image ``[H,W]`` and its width.
    """
    columns = config.width
    inside = jnp.arange(labels.shape[0]) < length
    classes = jnp.where(inside, labels, 0)
    # Each character uses the preferred typeface among those that have it.
    fonts = jnp.argmax(jnp.where(glyphs.present[:, classes], look.fonts[:, None], -1.0), 0)
    scale = look.em * look.narrow
    wide = glyphs.advances[fonts, classes] * look.sizes
    room = jnp.where(inside, jnp.maximum(wide + look.gaps, 0.2), 0.0) * scale
    margins = look.margins * look.em
    natural = room.sum() + margins.sum()
    squeeze = jnp.minimum(1.0, columns / jnp.maximum(natural, 1e-6))
    width = jnp.where(length > 0, jnp.ceil(natural * squeeze - 1e-3).astype(jnp.int32), 0)
    ends = (margins[0] + jnp.cumsum(room)) * squeeze
    starts = ends - room * squeeze
    # Table from positions along the line to characters, so that pixels need no comparison with every character.
    along = (jnp.arange(columns * FINE, dtype=jnp.float32) + 0.5) / FINE
    table = ((along[:, None] >= ends[None, :]) & inside[None, :]).sum(1, dtype=jnp.int32)

    x, y = _unwarped(look, width.astype(jnp.float32), config)
    at = jnp.clip(table[jnp.clip((x * FINE).astype(jnp.int32), 0, columns * FINE - 1)], 0, jnp.maximum(length - 1, 0))
    middles = starts + 0.5 * wide * scale * squeeze
    size = look.em * look.sizes
    tile_x = (x - middles[at]) / (size * look.narrow * squeeze)[at] * EM + (SIZE - 1) / 2
    tile_y = (y / size[at] - look.rises[at]) * EM + (SIZE - 1) / 2
    dense = EM / (scale * squeeze)
    softness = sum((dense >= start).astype(jnp.int32) for _, start in SOFT[1:])
    fonts_in_all, classes_in_all = glyphs.present.shape
    tile = (softness * fonts_in_all + fonts) * classes_in_all + classes
    ink = _sample(glyphs.tiles, tile[at], tile_x, tile_y)
    ink = jnp.maximum(_weigh(ink, look.weight), _ruled(look, x, y, width.astype(jnp.float32)))
    ink = _blurred(_reduced(ink, look.lowres), look.blur)
    image = look.paper + _spread(look.texture, config) + ink * (look.ink - look.paper) + look.noise
    image = _quantised(image, look.blocks)
    image = jnp.where(look.invert, -image, image)
    return jnp.where(jnp.arange(columns)[None, :] < width, jnp.clip(image, -1.0, 1.0), 1.0), width


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
    ink = jnp.zeros_like(y)
    for away, strong, thick in zip(far, strength, thickness, strict=True):
        ink = jnp.maximum(ink, strong * jnp.clip(thick / 2 + 0.5 - jnp.abs(away), 0.0, 1.0))
    return ink


def _hats(positions: Array, nodes: int) -> Array:
    """Return ``[len(positions), nodes]`` weights of linear interpolation between nodes at 0, 1, 2 ..."""
    return jnp.maximum(0.0, 1 - jnp.abs(positions[:, None] - jnp.arange(nodes, dtype=jnp.float32)[None, :]))


def _reduced(ink: Array, factor: Array) -> Array:
    """Downsample by a factor with averaging and upsample with linear interpolation, in both directions."""

    def matrix(n: int) -> Array:
        cells = (jnp.arange(n, dtype=jnp.float32) + 0.5) * factor - 0.5
        last = jnp.floor((n - 1) / factor)  # no cell beyond the image
        away = jnp.abs(jnp.arange(n, dtype=jnp.float32)[None, :] - cells[:, None]) / factor
        down = jnp.maximum(0.0, 1 - away)
        down = down / jnp.maximum(down.sum(1, keepdims=True), 1e-6)
        up = _hats(jnp.clip((jnp.arange(n, dtype=jnp.float32) + 0.5) / factor - 0.5, 0.0, last), n)
        return up @ down

    return matrix(ink.shape[0]) @ ink @ matrix(ink.shape[1]).T


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
