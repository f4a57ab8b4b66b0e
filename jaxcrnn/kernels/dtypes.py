"""In which precision things are computed."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array


def wide(x: Array) -> Array:
    """At least float32.

    Sums, distances and log probabilities are never taken in bfloat16; float64 stays what it is for those who verify.
    """
    x = jnp.asarray(x)
    return x if x.dtype == jnp.float64 else x.astype(jnp.float32)
