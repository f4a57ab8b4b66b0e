"""In which precision things are computed."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array


def wide(x: Array) -> Array:
    """At least float32.

    Sums, distances and log probabilities are never taken in bfloat16; float64 stays what it is for those who verify.
    """
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
