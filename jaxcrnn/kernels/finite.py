"""The guard that discards steps whose results are not finite."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


def keep_if_finite(new: Any, old: Any, grads: Any, *others: Any) -> tuple[Any, Array, Array]:
    """Select ``new`` if all gradients and other values are finite, else ``old``.

    Args:
      new: tree of arrays.
      old: tree of arrays with the same structure, shapes and dtypes.
      grads: tree of gradients.
      others: further trees of values that must be finite, such as the loss.

    Returns:
      The selected tree; whether it is ``new``, a bool scalar; and for each gradient, in the order of its leaves,
      whether it has a value that is not finite, ``[P]`` bool.
    """
    nonfinite = jnp.stack([~jnp.isfinite(g).all() for g in jax.tree.leaves(grads)])
    # Sort instead of any(): XLA would repeat any() of thirty values in each loop that reads it, a third of the program.
    finite = ~jnp.sort(nonfinite)[-1]
    for value in jax.tree.leaves(others):
        finite &= jnp.isfinite(value).all()
    return jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old), finite, nonfinite
