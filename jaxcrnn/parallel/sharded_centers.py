"""Class-sharded centers: devices compute distances to the rows they hold and all-reduce scalars.

A gather from such a table would send a row of D numbers for each frame; a squared distance is one number.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxcrnn.kernels.center_ops import CenterOps, add_differences, of_each_class, sum_each_class
from jaxcrnn.kernels.dtypes import at_least_float32
from jaxcrnn.parallel.mesh import MODEL, axes_of


class SharedFeatures(NamedTuple):
    """Features with a copy for each device that would otherwise share one, so that gradients are all-reduced once.

    Attributes:
      features: ``[B,T,D]``.
      copies: ``[model,B,T,D]``; gradients flow through these.
    """

    features: Array
    copies: Array

    @property
    def shape(self) -> tuple[int, ...]:
        return self.features.shape


def center_ops(mesh: Mesh) -> CenterOps:
    """`jaxcrnn.kernels.center_ops.CenterOps` for a table of centers that ``mesh`` shards by class.

    Args:
      mesh: the size of its axis ``model`` divides the number of classes.
    """
    return CenterOps(partial(squared_distance, mesh), partial(class_sums, mesh))


def spread(mesh: Mesh, features: Array) -> Array:
    """A copy ``[model,B,T,D]`` of the features ``[B,T,D]`` for each device of the axis ``model``."""
    data, model = axes_of(mesh, len(features))
    many = jnp.broadcast_to(features[None], (mesh.shape[MODEL], *features.shape))
    return lax.with_sharding_constraint(many, NamedSharding(mesh, P(model, data)))


def squared_distance(mesh: Mesh, features: Any, centers: Array, classes: Array, inside: Array) -> Array:
    """`CenterOps.squared_distance`; ``features`` may be `SharedFeatures`."""
    copies = features.copies if isinstance(features, SharedFeatures) else spread(mesh, features)
    data, model = axes_of(mesh, copies.shape[1])

    def part(each: Array, rows: Array, classes: Array, inside: Array) -> Array:
        here, at = own_rows(classes, len(rows), MODEL)
        # Masked before the square: a padded frame may hold anything, NaN too.
        away = at_least_float32(each[0]) - at_least_float32(rows)[at]
        return jnp.square(jnp.where((here & inside)[..., None], away, 0.0)).sum(-1)[None]

    specs = (P(model, data), P(model), P(data), P(data))
    mapped = jax.shard_map(part, mesh=mesh, in_specs=specs, out_specs=P(model, data), check_vma=False)
    return of_each_class(lambda classes, inside: mapped(copies, centers, classes, inside).sum(0), classes, inside)


def class_sums(mesh: Mesh, centers: Array, features: Any, classes: Array, weights: Array) -> tuple[Array, Array]:
    """`CenterOps.class_sums`; the sums are sharded by class as the centers are.

    Narrow features (bfloat16) make narrow sums: differences and each device's sum are float32, what devices send each
    other is as wide as the features.
    """
    if isinstance(features, SharedFeatures):
        features = features.features
    data, model = axes_of(mesh, len(features))

    def part(rows: Array, features: Array, classes: Array, weights: Array) -> tuple[Array, Array]:
        here, at = own_rows(classes, len(rows), MODEL)
        weights = jnp.where(here, weights, 0.0).astype(rows.dtype)
        zero = jnp.zeros_like(rows), jnp.zeros(len(rows), rows.dtype)
        away, total = add_differences(*zero, rows, features, at, weights)
        if data is None:
            return away, total
        # As wide as the gradients are: a sum of differences is rounded by less than the features it was made from.
        return lax.psum(away.astype(features.dtype), data).astype(rows.dtype), lax.psum(total, data)

    specs = (P(model), P(data), P(data), P(data))
    mapped = jax.shard_map(part, mesh=mesh, in_specs=specs, out_specs=(P(model), P(model)), check_vma=False)

    def add(sums: tuple[Array, Array], classes: Array, weights: Array) -> tuple[Array, Array]:
        away, total = mapped(centers, features, classes, weights)
        return sums[0] + away, sums[1] + total

    return sum_each_class(add, centers, classes, weights)


def own_rows(classes: Array, size: int, axis: str) -> tuple[Array, Array]:
    """Which classes are among this device's rows, and where; any row for the others. Within `jax.shard_map`.

    Args:
      classes: int32 of any shape.
      size: rows that each device holds.
      axis: of the mesh that shards them.

    Returns:
      bool and int32 of the same shape.
    """
    at = classes - lax.axis_index(axis) * size
    return (at >= 0) & (at < size), jnp.clip(at, 0, size - 1)
