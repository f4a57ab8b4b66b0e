"""Precision of sums, distances and log probabilities."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array


def at_least_float32(x: Array) -> Array:
    """The array in float32, or in float64 if it is float64 already.

    Sums, distances and log probabilities are never taken in bfloat16; float64 is for verification.
    """
    x = jnp.asarray(x)
    return x if x.dtype == jnp.float64 else x.astype(jnp.float32)
