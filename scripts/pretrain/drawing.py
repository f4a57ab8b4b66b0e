"""Lines rendered on the device for training: glyphs, the look of the lines, and what the renderer lacks."""

import functools
import lzma
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxcrnn.charset import Charset
from jaxcrnn.render.atlas import SIZE
from jaxcrnn.render.config import LEVELS
from jaxcrnn.render.render import SOFT, Glyphs, render
from jaxcrnn.types import Batch

LOOK = replace(
    LEVELS["medium"],
    largest=1.0,
    smallest=0.5,
    narrow=0.36,
    thin=0.35,
    rule=0.07,
    blur=0.8,
    contrast=0.6,
    bold=1.0,
    slant=0.06,
    noise=0.06,
    lowres=2.2,
    margin=0.22,
    offset=0.05,
    loose=0.2,
    texture=0.05,
    rotation=0.012,
    perspective=0.03,
    pitch=0.02,
    baseline=0.02,
    wave=0.015,
    blocks=0.15,
)


def decompressed(path: Path) -> np.ndarray:
    with lzma.open(path) as file:
        return np.frombuffer(file.read(), np.uint8)


def load_glyphs(data: Path, charset: Charset) -> Glyphs:
    """The glyphs of atlas.py on the device, with those of the blank, which are empty, as class 0."""
    atlas = np.load(data / "atlas.npz")
    if str(atlas["characters"]) != "".join(charset.characters):
        raise SystemExit(f"{data}: atlas.npz and charset.txt have different characters; run atlas.py again")
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(decompressed, sorted(data.glob("atlas-*.xz"))))
    fonts, count, height, width = map(int, atlas["shape"])
    packed = np.concatenate(parts).reshape(fonts, count, height, width // 2)
    return Glyphs(
        softened(unpacked(jnp.asarray(packed))),
        jnp.asarray(np.insert(atlas["advances"], 0, 0, axis=1), jnp.float32),
        jnp.asarray(np.insert(atlas["present"], 0, False, axis=1)),
    )


@jax.jit
def unpacked(packed: Array) -> Array:
    """Undoes `packed` of atlas.py, on the device: only half of the bytes are sent there."""
    tiles = jnp.stack([(packed >> 4) * 17, (packed & 15) * 17], -1).reshape(*packed.shape[:3], SIZE)
    return jnp.pad(tiles, ((0, 0), (1, 0), (0, 0), (0, 0)))


@jax.jit
def softened(tiles: Array) -> Array:
    """Tiles in the three softnesses of `Glyphs`, made on the device because 48 typefaces take minutes on the host."""

    def soften(font: Array, weights: tuple[float, ...]) -> Array:
        half = len(weights) // 2
        padded = jnp.pad(font, ((0, 0),) * 2 + ((half, half),))
        total = sum(weight * padded[..., i : i + SIZE].astype(jnp.float32) for i, weight in enumerate(weights))
        return jnp.round(total).astype(jnp.uint8)

    # One typeface at a time, or the float32 copies would not fit into memory.
    soft = [jax.lax.map(functools.partial(soften, weights=weights), tiles) for weights, _ in SOFT[1:]]
    return jnp.stack([tiles, *soft])


def distressed(key: Array, images: Array, widths: Array) -> Array:
    """Adds what the renderer lacks: ink of neighbouring lines, stamps, dots, and thresholded strokes.

    Args:
      key: PRNG key.
      images: ``[B,H,W,1]`` rendered lines.
      widths: ``[B]`` their widths.
    """
    images = images[..., 0]
    count, height, width = images.shape
    keys = iter(jax.random.split(key, 24))

    def uniform(low: float = 0.0, high: float = 1.0) -> Array:
        return jax.random.uniform(next(keys), (count, 1, 1), minval=low, maxval=high)

    x = jnp.arange(width, dtype=jnp.float32)[None, None]
    y = jnp.arange(height, dtype=jnp.float32)[None, :, None]
    wide = widths[:, None, None].astype(jnp.float32)
    valid = x < wide
    ink = jnp.where(valid, images, 1.0).min((1, 2), keepdims=True)
    paper = jnp.where(valid, images, -1.0).max((1, 2), keepdims=True)
    contrast = paper - ink

    # Ink of a neighbouring line: another sample of the batch, shifted up or down by most of the height.
    others, other_paper, other_contrast, other_wide = (jnp.roll(part, 1, 0) for part in (images, paper, contrast, wide))
    other_ink = jnp.clip((other_paper - others) / jnp.maximum(other_contrast, 0.2), 0, 1)
    other_ink = jnp.where(x < other_wide, other_ink, 0)
    shift = jnp.round(uniform(24.0, 31.0)).astype(jnp.int32) * jnp.where(uniform() < 0.5, -1, 1)
    rows = jnp.arange(height)[None, :, None] + shift
    places = jnp.clip(rows, 0, height - 1) * jnp.ones((1, 1, width), jnp.int32)
    edge = jnp.take_along_axis(other_ink, places, axis=1)
    edge = jnp.where((rows >= 0) & (rows < height) & (uniform() < 0.10), edge, 0)
    images = jnp.minimum(images, paper - contrast * edge)

    stamp = stamps(keys, uniform, x, y, wide)
    images = jnp.minimum(images, paper - contrast * stamp)

    # A stray dot.
    center_x, center_y = uniform() * wide, uniform(0.0, 32.0)
    thickness = uniform(0.8, 2.6)
    distance = jnp.sqrt((x - center_x) ** 2 + (y - center_y) ** 2)
    dot = jnp.clip(thickness / 2 + 0.5 - distance, 0, 1) * uniform(0.5, 1.0)
    dot = jnp.where(uniform() < 0.08, dot, 0.0)
    images = jnp.minimum(images, paper - contrast * dot)

    # Hard strokes, thin and broken or thick, as in thresholded scans and in screen fonts.
    relative = (images - ink) / jnp.maximum(contrast, 0.2)
    gain, middle = 1.3 * jnp.exp(uniform() * 1.8), uniform(0.3, 0.72)
    hard = ink + contrast * jnp.clip((relative - middle) * gain + 0.5, 0, 1)
    images = jnp.where(uniform() < 0.3, hard, images)
    return jnp.where(valid, jnp.clip(images, -1, 1), 1.0)[..., None]


def stamps(keys: Iterator[Array], uniform: Callable[..., Array], x: Array, y: Array, wide: Array) -> Array:
    """Draw stamps, ``[B,H,W]`` ink: a ring around a star, with bars in place of writing, in light and patchy ink.

    Args:
      keys: PRNG keys, which `uniform` uses too.
      uniform: draws a number for each line, ``[B,1,1]``.
      x: ``[1,1,W]`` columns.
      y: ``[1,H,1]`` rows.
      wide: ``[B,1,1]`` widths of the lines.
    """
    center_x, center_y = uniform() * wide, uniform(-18.0, 50.0)
    radius, thickness = uniform(12.0, 48.0), uniform(1.0, 4.0)
    distance = jnp.sqrt((x - center_x) ** 2 + (y - center_y) ** 2)
    ring = jnp.clip(thickness / 2 + 0.5 - jnp.abs(distance - radius), 0, 1)
    angle = jnp.arctan2(y - center_y, x - center_x)
    star = distance < 0.35 * radius * (0.55 + 0.45 * jnp.cos(5 * angle + 6.28 * uniform()))
    bars = jnp.clip(1.5 * jnp.cos(angle * jnp.round(uniform(8.0, 30.0)) + jnp.sin(distance * 0.9)), 0, 1)
    bars = bars * (jnp.abs(distance - 0.78 * radius) < 0.12 * radius)
    stamp = jnp.maximum(jnp.maximum(ring, star.astype(jnp.float32)), bars)
    grain = jax.random.uniform(next(keys), (len(wide), y.shape[1] // 2, x.shape[2] // 2)).repeat(2, 1).repeat(2, 2)
    stamp = stamp * (grain < uniform(0.5, 1.0)) * uniform(0.2, 0.75)
    return jnp.where(uniform() < 0.05, stamp, 0.0)


def rendered(number: Array, glyphs: Glyphs, labels: Array, lengths: Array, width: int) -> Batch:
    """Renders the batch of a step. The step number seeds all of its randomness."""
    key = jax.random.fold_in(jax.random.key(5), number)
    images, widths = render(key, glyphs, labels, lengths, replace(LOOK, width=width))
    return Batch(distressed(jax.random.fold_in(key, 10**6), images, widths), widths, labels, lengths)
