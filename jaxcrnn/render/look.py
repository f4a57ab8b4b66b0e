"""The sampled appearance of a line, a function of its key."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxcrnn.render.config import RenderConfig
from jaxcrnn.render.marks import Marks, draw_marks

RULES = 4  # above, below, left, right
GRID = (4, 24)  # rows and columns of the grid of the paper's texture
STRONGEST = 1.9  # contrast of black ink
LATER = 2**20  # folded into a line's key for what `_styled` samples
AROUND = 0.15  # largest margin of a close crop, as a share of the height
NARROWEST = 10.0  # width in pixels of the em of lines at levels that stretch, too: their digits stay legible


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
      half: ``[3]`` height and width of half-width characters relative to full-width ones, and how far the lower ones
        stand on their baseline (1) or in the middle (0); None if `RenderConfig.half` is 0, as with the next ones.
      overlaps: ``[L]`` narrowing of the place of each character, as a share of its width.
      crop: ``[5]`` whether the line is cropped close to its ink, and the left, right, upper and lower margin, as shares
        of the height, or of a character where they are negative.
      grain: ``[H,W]`` standard normal noise of thresholded strokes.
      marks: ink that is not text, and damage to strokes.
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
    half: Array | None = None
    overlaps: Array | None = None
    crop: Array | None = None
    grain: Array | None = None
    marks: Marks = Marks()


def draw(key: Array, config: RenderConfig, fonts: int, slots: int) -> Look:
    """Sample the appearance of one line; values of a character do not depend on the number of slots."""
    one, both = jax.random.uniform, lambda k, shape=(): jax.random.uniform(k, shape, minval=-1.0, maxval=1.0)
    keys = iter(jax.random.split(key, 24))
    em = config.height * one(next(keys), minval=config.smallest, maxval=config.largest)
    of_characters = next(keys)
    each = jax.vmap(lambda i: both(jax.random.fold_in(of_characters, i), (3,)))(jnp.arange(slots))
    weight = one(next(keys), minval=-config.thin, maxval=config.bold)
    contrast = one(next(keys), minval=config.contrast, maxval=max(STRONGEST, config.contrast))
    paper = one(next(keys), minval=-1.0 + contrast, maxval=1.0)
    strength = (one(next(keys), (RULES,)) < config.rule).astype(jnp.float32)
    place, thickness, tilt, dark = one(next(keys), (4, RULES))
    look = Look(
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
        noise=(noise := _noise(next(keys), config))[0] * noise[1],
        blocks=config.blocks * one(next(keys)),
        rules=jnp.stack([strength * (0.4 + 0.6 * dark), place, 0.8 + 1.4 * thickness, 0.02 * (tilt - 0.5)], 1),
        invert=one(next(keys)) < config.invert,
        grain=noise[1] if config.hard else None,
    )
    # Later than the other keys, so that lines look as before at the levels that do not use them.
    return _styled(look, jax.random.fold_in(key, LATER), config, slots)


def _noise(key: Array, config: RenderConfig) -> tuple[Array, Array]:
    """Sample the standard deviation of the noise, and standard normal noise ``[H,W]``."""
    scale, each = jax.random.split(key)
    return config.noise * jax.random.uniform(scale), jax.random.normal(each, (config.height, config.width))


def _styled(look: Look, key: Array, config: RenderConfig, slots: int) -> Look:
    """Sample what only some levels have; nothing is computed for keys that are off."""
    one = jax.random.uniform
    of_line, of_overlaps, of_marks = jax.random.split(key, 3)
    way, low, broad, stand, tight, cropped, left, right, above, below, white, gray = one(of_line, (12,))
    if config.wide > 1:
        way = 2 * way - 1
        scale = jnp.where(way < 0, config.narrow, config.wide) ** way**2
        look = look._replace(narrow=jnp.maximum(scale, NARROWEST / look.em))
    if config.half:
        look = look._replace(
            half=jnp.stack([1 - config.half * low**2, 1 + config.half * (2 * broad - 1), 1 - stand**2])
        )
    if config.tight:
        each = jax.vmap(lambda i: one(jax.random.fold_in(of_overlaps, i)))(jnp.arange(slots))
        look = look._replace(overlaps=config.tight * tight**3 * (0.4 + 0.6 * each))
    if config.close:
        edges = [-config.cut + (config.cut + AROUND) * margin for margin in (left, right, above, below)]
        look = look._replace(crop=jnp.stack([(cropped < config.close).astype(jnp.float32), *edges]))
    if config.clean:
        clean = white < config.clean
        paper = jnp.where(clean, 1 - 0.06 * gray**2, look.paper)
        # Most ink on white paper is black.
        contrast = look.paper - look.ink
        lack = (STRONGEST - contrast) ** 3 / max(STRONGEST - config.contrast, 1e-3) ** 2
        look = look._replace(
            paper=paper,
            ink=paper - jnp.where(clean & (contrast < STRONGEST), STRONGEST - lack, contrast),
            texture=jnp.where(clean, 0.15, 1.0) * look.texture,
            noise=jnp.where(clean, 0.25, 1.0) * look.noise,
        )
    return look._replace(marks=draw_marks(of_marks, config))
