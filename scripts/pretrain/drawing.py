"""Lines rendered on the device for training: the glyphs, and the batch of a step."""

import functools
import lzma
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
from jaxcrnn.render.render import Glyphs, render
from jaxcrnn.render.typeset import SOFT
from jaxcrnn.types import Batch


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


def rendered(number: Array, glyphs: Glyphs, labels: Array, lengths: Array, width: int) -> Batch:
    """Renders the batch of a step. The step number seeds all of its randomness."""
    key = jax.random.fold_in(jax.random.key(5), number)
    images, widths = render(key, glyphs, labels, lengths, replace(LEVELS["forms"], width=width))
    return Batch(images, widths, labels, lengths)
