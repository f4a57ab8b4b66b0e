"""Class-sharded centers: devices compute distances to local rows and all-reduce scalars.

A gather from a sharded table would send a row of D numbers for each frame; a squared distance is one number.
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
    """Features with one copy for each device that would otherwise share them, so that gradients are all-reduced once.

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
    """Build the `jaxcrnn.kernels.center_ops.CenterOps` for a table of centers that a mesh shards by class.

    Args:
      mesh: mesh whose axis ``model`` divides the number of classes.
    """
    return CenterOps(partial(squared_distance, mesh), partial(class_sums, mesh))


def spread(mesh: Mesh, features: Array) -> Array:
    """Copy features ``[B,T,D]`` to ``[model,B,T,D]``, one copy for each device of the axis ``model``."""
    data, model = axes_of(mesh, len(features))
    many = jnp.broadcast_to(features[None], (mesh.shape[MODEL], *features.shape))
    return lax.with_sharding_constraint(many, NamedSharding(mesh, P(model, data)))


def squared_distance(mesh: Mesh, features: Any, centers: Array, classes: Array, inside: Array) -> Array:
    """Compute `CenterOps.squared_distance`; ``features`` may be `SharedFeatures`."""
    copies = features.copies if isinstance(features, SharedFeatures) else spread(mesh, features)
    data, model = axes_of(mesh, copies.shape[1])

    def part(each: Array, rows: Array, classes: Array, inside: Array) -> Array:
        here, at = own_rows(classes, len(rows), MODEL)
        # Mask before squaring: a padded frame may hold any value, including NaN.
        away = at_least_float32(each[0]) - at_least_float32(rows)[at]
        return jnp.square(jnp.where((here & inside)[..., None], away, 0.0)).sum(-1)[None]

    specs = (P(model, data), P(model), P(data), P(data))
    mapped = jax.shard_map(part, mesh=mesh, in_specs=specs, out_specs=P(model, data), check_vma=False)
    return of_each_class(lambda classes, inside: mapped(copies, centers, classes, inside).sum(0), classes, inside)


def class_sums(mesh: Mesh, centers: Array, features: Any, classes: Array, weights: Array) -> tuple[Array, Array]:
    """Compute `CenterOps.class_sums`; the sums are sharded by class like the centers.

    Differences and each device's sums are float32. Devices exchange them in the dtype of the features, so bfloat16
    features make bfloat16 sums.
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
        # The dtype of the gradients: rounding the sum of differences loses less than rounding the features did.
        return lax.psum(away.astype(features.dtype), data).astype(rows.dtype), lax.psum(total, data)

    specs = (P(model), P(data), P(data), P(data))
    mapped = jax.shard_map(part, mesh=mesh, in_specs=specs, out_specs=(P(model), P(model)), check_vma=False)

    def add(sums: tuple[Array, Array], classes: Array, weights: Array) -> tuple[Array, Array]:
        away, total = mapped(centers, features, classes, weights)
        return sums[0] + away, sums[1] + total

    return sum_each_class(add, centers, classes, weights)


def own_rows(classes: Array, size: int, axis: str) -> tuple[Array, Array]:
    """Find the classes whose rows this device holds, within `jax.shard_map`.

    Args:
      classes: int32 of any shape.
      size: number of rows that each device holds.
      axis: mesh axis that shards the rows.

    Returns:
      Two arrays of the same shape: bool, whether this device holds the row, and int32, the row's local index (any valid
      index for rows of other devices).
    """
    at = classes - lax.axis_index(axis) * size
    return (at >= 0) & (at < size), jnp.clip(at, 0, size - 1)
