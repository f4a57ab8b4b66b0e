"""Augmentation on the device: small affine changes, contrast, blur and noise, a pure function of the key."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.ndimage import map_coordinates


@jax.tree_util.register_static
@dataclass(frozen=True)
class AugmentConfig:
    """How far each change may go; every line draws its own amounts uniformly. 0 turns a change off.

    Lengths are fractions of the image height, so that one setting fits lines of any width.

    Attributes:
      probability: share of the lines that are changed at all; 0 turns everything off.
      tilt: vertical displacement of the line's ends.
      taper: relative growth of the height from the middle to one end, as seen from the side.
      slant: horizontal displacement of top and bottom.
      zoom: relative change of the height.
      squeeze: relative shortening of the line; the end that becomes free repeats the border.
      shift: displacement, both ways.
      contrast: relative change of the contrast.
      brightness: change of the brightness, of a range of 2.
      blur: share of a 3x3 binomial blur, twice applied.
      noise: largest standard deviation of Gaussian noise, of a range of 2.
      invert: probability that black and white are exchanged.
    """

    probability: float = 1.0
    tilt: float = 0.06
    taper: float = 0.05
    slant: float = 0.12
    zoom: float = 0.1
    squeeze: float = 0.08
    shift: float = 0.06
    contrast: float = 0.3
    brightness: float = 0.2
    blur: float = 0.5
    noise: float = 0.1
    invert: float = 0.0


def augment(config: AugmentConfig, images: Array, widths: Array, key: Array) -> Array:
    """Changes each line in its own way.

    Args:
      config: the ranges.
      images: ``[B,H,W,1]`` float32 in [-1, 1].
      widths: ``[B]`` true widths; nothing beyond them is looked at, and the padding comes back white.
      key: one PRNG key for the batch.

    Returns:
      Images of the same shape, in [-1, 1].
    """
    if config.probability <= 0:
        return images
    keys = jax.random.split(key, images.shape[0])
    changed = jax.vmap(lambda image, width, k: _one(config, image, width, k))(images[..., 0], widths, keys)
    inside = jnp.arange(images.shape[2])[None, None, :] < widths[:, None, None]
    return jnp.where(inside, changed, 1.0)[..., None]


def _one(config: AugmentConfig, image: Array, width: Array, key: Array) -> Array:
    amounts_key, noise_key = jax.random.split(key)
    u = jax.random.uniform(amounts_key, (12,), minval=-1.0, maxval=1.0)
    share = (u[10] + 1) / 2
    out = _warp(config, image, width, u)
    out = _blur(out, width, config.blur * (u[6] + 1) / 2)
    out = out * (1 + config.contrast * u[7]) + config.brightness * u[8]
    out = jnp.where((u[11] + 1) / 2 < config.invert, -out, out)
    out = out + config.noise * (u[9] + 1) / 2 * jax.random.normal(noise_key, image.shape)
    return jnp.where(share < config.probability, jnp.clip(out, -1.0, 1.0), image)


def _warp(config: AugmentConfig, image: Array, width: Array, u: Array) -> Array:
    """One inverse mapping from output pixels to input positions, and one bilinear gather."""
    height = image.shape[0]
    last_x = jnp.maximum(width - 1, 0).astype(jnp.float32)
    y = jnp.arange(height, dtype=jnp.float32)[:, None]
    x = jnp.arange(image.shape[1], dtype=jnp.float32)[None, :]
    from_middle = y - (height - 1) / 2
    along = (2 * x - last_x) / jnp.maximum(last_x, 1.0)  # -1 at the left end, 1 at the right end
    grow = 1 + config.zoom * u[0] + config.taper * u[1] * along
    source_y = from_middle / grow + (height - 1) / 2 + height * (config.tilt * u[2] * along + config.shift * u[3])
    source_x = x / (1 - config.squeeze * (u[5] + 1) / 2) + config.slant * u[4] * from_middle * 2
    # A squeezed line may stand anywhere in the room it leaves; half of it plus the shift keeps most in view.
    source_x = source_x - config.squeeze * (u[5] + 1) / 4 * last_x + height * config.shift * u[10]
    source_x, source_y = jnp.broadcast_arrays(jnp.clip(source_x, 0.0, last_x), jnp.clip(source_y, 0.0, height - 1.0))
    return map_coordinates(image, [source_y, source_x], order=1, mode="nearest")


def _blur(image: Array, width: Array, amount: Array) -> Array:
    """Mixes in the image blurred by [1 2 1] / 4 twice in both directions; the border repeats."""
    last = jnp.maximum(width - 1, 0)
    columns = jnp.arange(image.shape[1])
    right = jnp.minimum(columns + 1, last)
    left = jnp.maximum(columns - 1, 0)
    blurred = image
    for _ in range(2):
        blurred = (blurred[:, left] + 2 * blurred + blurred[:, right]) / 4
        up = jnp.concatenate([blurred[:1], blurred[:-1]])
        down = jnp.concatenate([blurred[1:], blurred[-1:]])
        blurred = (up + 2 * blurred + down) / 4
    return image + amount * (blurred - image)
