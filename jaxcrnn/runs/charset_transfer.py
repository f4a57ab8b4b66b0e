"""Another charset for what was learnt: rows of head, moments and centers move by character."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcrnn import optim
from jaxcrnn.charset import Charset
from jaxcrnn.parallel import mesh
from jaxcrnn.types import TrainState


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
        axis = mesh.class_axis(path)
        if axis is None or before.ndim <= axis:
            return before
        ours, theirs = jnp.moveaxis(start, axis, 0), jnp.moveaxis(before, axis, 0)
        return jnp.moveaxis(ours.at[pairs[:, 1]].set(theirs[pairs[:, 0]]), 0, axis)

    return jax.tree_util.tree_map_with_path(of, tree, fresh)


def started(before: TrainState, fresh: TrainState, old: Charset, new: Charset) -> tuple[TrainState, list[str]]:
    """The state before the first step of a new training, with all that another one has learnt.

    Args:
      before: of the old charset.
      fresh: of the new one; what ``before`` has no equal of comes from here.
      old: of ``before``.
      new: of the result.

    Returns:
      The state, its schedule at the start, and what was moved besides the weights: ``"moments"`` where both have the
      same optimizer, ``"centers"`` where both have centers.
    """
    structures: list[Any] = [jax.tree.structure(state.opt_state) for state in (before, fresh)]
    same = structures[0] == structures[1]
    both = before.centers is not None and fresh.centers is not None
    if not same:  # the weights that evaluation uses: the average is not gone on with
        before = before._replace(params=optim.averaged(before.params, before.opt_state))

    def known(state: TrainState) -> TrainState:
        return state._replace(
            step=fresh.step, opt_state=state.opt_state if same else None, centers=state.centers if both else None
        )

    grown: TrainState = moved(known(before), known(fresh), old, new)
    if same:
        grown = grown._replace(opt_state=optim.from_the_start(grown.opt_state))
    else:
        grown = grown._replace(opt_state=optim.begun(fresh.opt_state, grown.params))
    besides = [name for name, there in (("moments", same), ("centers", both)) if there]
    return grown._replace(centers=grown.centers if both else fresh.centers), besides
