"""Steps whose results are not finite change nothing."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


def keep_if_finite(new: Any, old: Any, grads: Any, *others: Any) -> tuple[Any, Array, Array]:
    """``new`` if all gradients and all other values are finite, else ``old``.

    Args:
      new: a tree of arrays.
      old: a tree of the same structure, shapes and dtypes.
      grads: a tree of gradients.
      others: further trees of values that must be finite, such as the loss.

    Returns:
      The tree that is kept; whether it is ``new``, a bool; and for each gradient, in the order of its leaves, whether
      it has a value that is not finite: ``[P]`` bool.
    """
    nonfinite = jnp.stack([~jnp.isfinite(g).all() for g in jax.tree.leaves(grads)])
    # Sorted, because XLA would repeat any() of thirty values in each loop that reads it: a third of the whole program.
    finite = ~jnp.sort(nonfinite)[-1]
    for value in jax.tree.leaves(others):
        finite &= jnp.isfinite(value).all()
    return jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old), finite, nonfinite
