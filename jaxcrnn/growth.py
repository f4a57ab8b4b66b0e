"""Another charset for what was learnt: rows of head, moments and centers move by character."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcrnn import sharding
from jaxcrnn.charset import Charset


def moved(tree: Any, fresh: Any, old: Charset, new: Charset) -> Any:
    """Arrays for another charset.

    Args:
      tree: a `jaxcrnn.types.TrainState` or a part of one, of the old charset.
      fresh: the same for the new one, as a start makes it: what characters that are new get.
      old: of ``tree``.
      new: of the result.

    Returns:
      Like ``fresh``: what has classes takes the blank's row and those of shared characters from ``tree``, everything
      else comes from ``tree`` as it is.
    """
    shared = [(old.encode(c)[0], new.encode(c)[0]) for c in old.characters if c in new]
    pairs = np.asarray([(old.blank, new.blank), *shared])

    def of(path: tuple[Any, ...], before: Any, start: Any) -> Any:
        axis = sharding.class_axis(path)
        if axis is None or before.ndim <= axis:
            return before
        ours, theirs = jnp.moveaxis(start, axis, 0), jnp.moveaxis(before, axis, 0)
        return jnp.moveaxis(ours.at[pairs[:, 1]].set(theirs[pairs[:, 0]]), 0, axis)

    return jax.tree_util.tree_map_with_path(of, tree, fresh)
