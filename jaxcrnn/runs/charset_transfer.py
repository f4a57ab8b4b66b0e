"""Transfer to another charset: rows of the head, optimizer moments and centers are mapped by character."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcrnn import optim
from jaxcrnn.charset import Charset
from jaxcrnn.parallel import mesh
from jaxcrnn.types import TrainState


def transfer(tree: Any, fresh: Any, old: Charset, new: Charset) -> Any:
    """Transfer arrays to another charset.

    Args:
      tree: a `jaxcrnn.types.TrainState` or a part of one, for the old charset.
      fresh: the same for the new charset, newly initialized; supplies the values of new characters.
      old: charset of ``tree``.
      new: charset of the result.

    Returns:
      A tree like ``fresh``. Arrays with a class axis take the rows of the blank and of shared characters from ``tree``;
      all other arrays are those of ``tree``.
    """
    shared = [(old.encode(c)[0], new.encode(c)[0]) for c in old.characters if c in new]
    pairs = np.asarray([(old.blank, new.blank), *shared])

    def of(path: tuple[Any, ...], before: Any, start: Any) -> Any:
        axis = mesh.class_axis(path)
        if axis is None or before.ndim <= axis:
            return before
        ours, theirs = jnp.moveaxis(start, axis, 0), jnp.moveaxis(before, axis, 0)
        return jnp.moveaxis(ours.at[pairs[:, 1]].set(theirs[pairs[:, 0]]), 0, axis)

    return jax.tree_util.tree_map_with_path(of, tree, fresh)


def started(before: TrainState, fresh: TrainState, old: Charset, new: Charset) -> tuple[TrainState, list[str]]:
    """Build the initial state of a new training from the state of another one.

    Args:
      before: a state for the old charset.
      fresh: a new state for the new charset; supplies what ``before`` does not have.
      old: charset of ``before``.
      new: charset of the result.

    Returns:
      The state, with its schedule at the start, and the names of what was transferred in addition to the weights:
      ``"moments"`` if both have the same optimizer, ``"centers"`` if both have centers.
    """
    structures: list[Any] = [jax.tree.structure(state.opt_state) for state in (before, fresh)]
    same = structures[0] == structures[1]
    both = before.centers is not None and fresh.centers is not None
    if not same:  # start from the averaged weights that evaluation uses; the average itself is not continued
        before = before._replace(params=optim.averaged(before.params, before.opt_state))

    def shared(state: TrainState) -> TrainState:
        return state._replace(
            step=fresh.step, opt_state=state.opt_state if same else None, centers=state.centers if both else None
        )

    grown: TrainState = transfer(shared(before), shared(fresh), old, new)
    if same:
        grown = grown._replace(opt_state=optim.from_the_start(grown.opt_state))
    else:
        grown = grown._replace(opt_state=optim.begun(fresh.opt_state, grown.params))
    transferred = [name for name, has in (("moments", same), ("centers", both)) if has]
    return grown._replace(centers=grown.centers if both else fresh.centers), transferred
