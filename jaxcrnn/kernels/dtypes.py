"""Precision of sums, distances and log probabilities."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array


def at_least_float32(x: Array) -> Array:
    """Cast an array to float32; a float64 array is returned unchanged.

    Sums, distances and log probabilities are never computed in bfloat16. float64 is for verification.
    """
    x = jnp.asarray(x)
    return x if x.dtype == jnp.float64 else x.astype(jnp.float32)
