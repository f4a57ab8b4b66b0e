"""Centers that a mesh splits by class: each device looks at the rows that it has, and numbers go over the network.

A gather from such a table would send a row of D numbers for each frame; a squared distance is one.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import PartitionSpec as P

from jaxcrnn.kernels.dtypes import wide
from jaxcrnn.parallel.mesh import MODEL, axes_of


def are_split(classes: int) -> bool:
    """Whether the mesh in use (`jax.set_mesh`) splits a table of so many rows, one a class (`sharding.of_state`).

    Args:
      classes: C.
    """
    if axes_of(1)[1] is None:
        return False
    return classes % jax.sharding.get_abstract_mesh().shape[MODEL] == 0


def spread(features: Array) -> Array:
    """A copy of the features for each device that would otherwise share one, so that gradients add up once.

    Args:
      features: ``[B,T,D]``.

    Returns:
      ``[model,B,T,D]``.
    """
    data, model = axes_of(len(features))
    assert model is not None
    many = jnp.broadcast_to(features[None], (jax.sharding.get_abstract_mesh().shape[model], *features.shape))
    return lax.with_sharding_constraint(many, P(model, data))


def squared(copies: Array, table: Array, classes: Array, inside: Array) -> Array:
    """Squared distances of frames to rows of the table: ``[B,T]``, 0 where a frame is not ``inside``.

    Args:
      copies: of the features (`spread`).
      table: ``[C,D]``, split by class.
      classes: ``[B,T]`` int32, the row of each frame.
      inside: ``[B,T]`` bool; features of other frames may hold anything.
    """
    data, model = axes_of(copies.shape[1])
    assert model is not None

    def part(each: Array, rows: Array, classes: Array, inside: Array) -> Array:
        here, at = mine(classes, len(rows), model)
        # Masked before the square: a padded frame may hold anything, NaN too.
        away = jnp.where((here & inside)[..., None], wide(each[0]) - wide(rows)[at], 0.0)
        return jnp.square(away).sum(-1)[None]

    specs = (P(model, data), P(model), P(data), P(data))
    mapped = jax.shard_map(part, in_specs=specs, out_specs=P(model, data), check_vma=False)
    return mapped(copies, table, classes, inside).sum(0)


def sums(table: Array, features: Array, classes: Array, weights: Array) -> tuple[Array, Array]:
    """``sum w (row - f)`` as ``[C,D]`` and ``sum w`` as ``[C]``, over the frames of each row.

    Args:
      table: ``[C,D]``, split by class; the results are too.
      features: ``[B,T,D]``. Narrow ones (bfloat16) make narrow sums: differences and each device's sum are float32,
        what devices tell each other is as wide as the features.
      classes: ``[B,T]`` int32, the row of each frame.
      weights: ``[B,T]``; features of frames without one may hold anything.
    """
    data, model = axes_of(len(features))
    assert model is not None

    def part(rows: Array, features: Array, classes: Array, weights: Array) -> tuple[Array, Array]:
        here, at = mine(classes, len(rows), model)
        weights = jnp.where(here, weights, 0.0).astype(rows.dtype)
        away, total = add(jnp.zeros_like(rows), jnp.zeros(len(rows), rows.dtype), rows, features, at, weights)
        if data is None:
            return away, total
        # As wide as the gradients are: a sum of differences is rounded by less than the features it was made from.
        return lax.psum(away.astype(features.dtype), data).astype(rows.dtype), lax.psum(total, data)

    specs = (P(model), P(data), P(data), P(data))
    mapped = jax.shard_map(part, in_specs=specs, out_specs=(P(model), P(model)), check_vma=False)
    return mapped(table, features, classes, weights)


def add(
    away: Array, total: Array, table: Array, features: Array, classes: Array, weights: Array
) -> tuple[Array, Array]:
    """`sums` where every row is at hand, added to what there is."""
    # Differences, not sums of features: a feature on its center then moves it by exactly nothing.
    far = jnp.where((weights > 0)[..., None], weights[..., None] * (table[classes] - wide(features)), 0.0)
    return away.at[classes].add(far.astype(table.dtype)), total.at[classes].add(weights)


def mine(classes: Array, size: int, model: str) -> tuple[Array, Array]:
    """Which classes are among this device's rows, and where; any row for the others. Within `jax.shard_map`.

    Args:
      classes: int32 of any shape.
      size: rows that each device has.
      model: axis of the mesh that splits them.

    Returns:
      bool and int32 of the same shape.
    """
    at = classes - lax.axis_index(model) * size
    return (at >= 0) & (at < size), jnp.clip(at, 0, size - 1)
