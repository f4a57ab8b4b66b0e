"""Augmentation on the device: small affine distortions, contrast, blur and noise, as a pure function of the key."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.ndimage import map_coordinates

from jaxcrnn._arguments import integers
from jaxcrnn._ranges import Decay, Natural, NonNegative, Share, check
from jaxcrnn.errors import UserError


@jax.tree_util.register_static
@dataclass(frozen=True)
class AugmentConfig:
    """Ranges of the augmentations. Each line draws its own amounts uniformly; 0 disables an augmentation.

    Lengths are fractions of the image height, so the same setting fits lines of any width.

    Attributes:
      probability: fraction of the lines that are augmented, 0 to 1; 0 disables augmentation.
      tilt: vertical displacement of the ends of the line, up or down, in image heights, 0 or more.
      taper: relative change of the text height from the middle to either end, as in perspective, 0 or more, less than
        1; together with ``zoom`` less than 1.
      slant: horizontal displacement of top and bottom, in image heights, 0 or more.
      zoom: relative change of the text height, 0 or more, less than 1.
      squeeze: largest relative shortening of the line, 0 or more, less than 1; the free ends repeat the border.
      shift: displacement in both directions, in image heights, 0 or more.
      wave: amplitude of a smooth wave along the line, about two heights long, in image heights, 0 or more.
      contrast: relative change of the contrast, 0 or more.
      brightness: change of the brightness, where black to white is a range of 2, 0 or more.
      blur: largest share of a blurred copy that is mixed in, 0 to 1; the blur is 3x3 binomial, applied twice.
      noise: largest standard deviation of Gaussian noise, where black to white is a range of 2, 0 or more.
      erase: largest side of one rectangle filled with a uniform gray, in image heights, 0 or more.
      invert: probability that black and white are swapped, 0 to 1.
      warmup: number of steps over which all ranges grow from 0 to their full size, 0 or more; 0 starts at the full
        size. CTC first has to locate the characters, and strong augmentation delays that (docs/real-lines.md).

    Raises:
      UserError: a value is out of range.
    """

    probability: Share = 1.0
    tilt: NonNegative = 0.06
    taper: Decay = 0.05
    slant: NonNegative = 0.12
    zoom: Decay = 0.1
    squeeze: Decay = 0.08
    shift: NonNegative = 0.06
    wave: NonNegative = 0.03
    contrast: NonNegative = 0.3
    brightness: NonNegative = 0.2
    blur: Share = 0.5
    noise: NonNegative = 0.1
    erase: NonNegative = 0.0
    invert: Share = 0.0
    warmup: Natural = 0

    def __post_init__(self) -> None:
        check(self, "augment")
        if not self.zoom + self.taper < 1:
            raise UserError(f"augment.zoom and taper are {self.zoom} and {self.taper}; expected a sum of less than 1")


def augment(config: AugmentConfig, images: Array, widths: Array, key: Array, step: Array | int = 0) -> Array:
    """Augment each line of a batch independently.

    Args:
      config: the ranges.
      images: ``[B,H,W,1]`` float32 in [-1, 1].
      widths: ``[B]`` int32, widths in pixels; columns beyond them are padding, never read, and white in the result.
      key: PRNG key of the batch.
      step: number of the training step, for ``config.warmup``.

    Returns:
      Images of the same shape, in [-1, 1].
    """
    if config.probability <= 0:
        return images
    widths = integers("widths", widths)
    keys = jax.random.split(key, images.shape[0])
    strength = jnp.minimum((jnp.asarray(step, jnp.float32) + 1) / config.warmup, 1.0) if config.warmup else jnp.ones(())
    changed = jax.vmap(lambda *line: _one(config, strength, *line))(images[..., 0], widths, keys)
    inside = jnp.arange(images.shape[2])[None, None, :] < widths[:, None, None]
    return jnp.where(inside, changed, 1.0)[..., None]


def _one(config: AugmentConfig, strength: Array, image: Array, width: Array, key: Array) -> Array:
    keys = jax.random.split(key, 5)
    shape = strength * jax.random.uniform(keys[0], (10,), minval=-1.0, maxval=1.0)
    share, invert = jax.random.uniform(keys[1], (2,))
    contrast, brightness = strength * jax.random.uniform(keys[2], (2,), minval=-1.0, maxval=1.0)
    blur, noise, *erase = jax.random.uniform(keys[3], (7,))
    out = _warp(config, image, width, shape)
    out = _blur(out, width, strength * config.blur * blur)
    out = _erase(config, out, width, strength, jnp.stack(erase))
    out = out * (1 + config.contrast * contrast) + config.brightness * brightness
    out = jnp.where(invert < strength * config.invert, -out, out)
    out = out + strength * config.noise * noise * jax.random.normal(keys[4], image.shape)
    return jnp.where(share < config.probability, jnp.clip(out, -1.0, 1.0), image)


def _warp(config: AugmentConfig, image: Array, width: Array, u: Array) -> Array:
    """Map output pixels to input positions and sample them with one bilinear gather."""
    height = image.shape[0]
    last_x = jnp.maximum(width - 1, 0).astype(jnp.float32)
    y = jnp.arange(height, dtype=jnp.float32)[:, None]
    x = jnp.arange(image.shape[1], dtype=jnp.float32)[None, :]
    from_middle = y - (height - 1) / 2
    along = (2 * x - last_x) / jnp.maximum(last_x, 1.0)  # -1 at the left end, 1 at the right end
    zoom, taper, tilt, slant, shift_x, shift_y, squeeze, place, wave_x, wave_y = u
    squeeze = config.squeeze * (squeeze + 1) / 2
    grow = 1 + config.zoom * zoom + config.taper * taper * along
    source_y = from_middle / grow + (height - 1) / 2 + height * (config.tilt * tilt * along + config.shift * shift_y)
    # The free space of a squeezed line is split randomly between its two ends.
    source_x = x / (1 - squeeze) - squeeze * last_x * (place + 1) / 2
    source_x = source_x + config.slant * slant * from_middle * 2 + height * config.shift * shift_x
    phase = jnp.pi * x / height
    source_y = source_y + height * config.wave * wave_y * jnp.sin(phase + 9 * wave_x)
    source_x = source_x + height * config.wave * wave_x * jnp.sin(phase + 9 * wave_y)
    source_x, source_y = jnp.broadcast_arrays(jnp.clip(source_x, 0.0, last_x), jnp.clip(source_y, 0.0, height - 1.0))
    return map_coordinates(image, [source_y, source_x], order=1, mode="nearest")


def _erase(config: AugmentConfig, image: Array, width: Array, strength: Array, u: Array) -> Array:
    height = image.shape[0]
    y = jnp.arange(height, dtype=jnp.float32)[:, None]
    x = jnp.arange(image.shape[1], dtype=jnp.float32)[None, :]
    half = strength * config.erase * height * u[:2] / 2
    inside = (jnp.abs(y - u[2] * height) < half[0]) & (jnp.abs(x - u[3] * width.astype(jnp.float32)) < half[1])
    return jnp.where(inside, 2 * u[4] - 1, image)


def _blur(image: Array, width: Array, amount: Array) -> Array:
    """Blend the image with itself blurred twice by [1 2 1] / 4 in both directions; the border repeats."""
    last = jnp.maximum(width - 1, 0)
    columns = jnp.arange(image.shape[1])
    right = jnp.minimum(columns + 1, last)
    left = jnp.maximum(columns - 1, 0)
    # The matrix product comes first: it keeps XLA from recomputing the warp for each neighbour of each pixel.
    blurred = jnp.matmul(_twice_down(image.shape[0]), image, precision="highest")
    for _ in range(2):
        blurred = (blurred[:, left] + 2 * blurred + blurred[:, right]) / 4
    return image + amount * (blurred - image)


def _twice_down(height: int) -> np.ndarray:
    """Return the matrix that blurs each column twice by [1 2 1] / 4, repeating the ends."""
    padded = np.pad(np.eye(height, dtype=np.float32), ((1, 1), (0, 0)), mode="edge")
    once = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
    return once @ once
