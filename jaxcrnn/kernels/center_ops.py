"""The two operations that touch a table of centers, as values.

Losses and updates take them as the argument ``ops``. `DENSE` is for a table that is whole on every device;
`jaxcrnn.parallel.ops` has the counterpart for a table that a mesh shards by class.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxcrnn.kernels.dtypes import at_least_float32


class CenterOps(NamedTuple):
    """Operations on centers ``[C,D]`` and frames of features ``[B,T,D]``.

    Attributes:
      squared_distance: ``(features, centers, classes, inside) -> d``, the squared distances of frames to the centers of
        their classes. ``classes`` is ``[B,T]`` int32, or ``[B,T,K]`` where a frame belongs to several; ``inside``, of
        the same shape, is False where the features may hold anything: there the distance is 0, without gradient.
      class_sums: ``(centers, features, classes, weights) -> (away, total)`` with ``away [C,D] = sum w (c_k - f)`` and
        ``total [C] = sum w``, both over the frames of each class.
    """

    squared_distance: Callable[[Any, Array, Array, Array], Array]
    class_sums: Callable[[Array, Any, Array, Array], tuple[Array, Array]]


def squared_distance(features: Array, centers: Array, classes: Array, inside: Array) -> Array:
    """`CenterOps.squared_distance` of a table that is whole on every device."""

    def one(classes: Array, inside: Array) -> Array:
        # Masked before the square: a padded frame may hold anything, NaN too.
        away = at_least_float32(features) - at_least_float32(centers)[classes]
        return jnp.square(jnp.where(inside[..., None], away, 0.0)).sum(-1)

    return of_each_class(one, classes, inside)


def class_sums(centers: Array, features: Array, classes: Array, weights: Array) -> tuple[Array, Array]:
    """`CenterOps.class_sums` of a table that is whole on every device."""
    flat = features.reshape(-1, features.shape[-1])

    def add(sums: tuple[Array, Array], classes: Array, weights: Array) -> tuple[Array, Array]:
        return add_differences(*sums, centers, flat, classes.reshape(-1), weights.reshape(-1))

    return sum_each_class(add, centers, classes, weights)


DENSE = CenterOps(squared_distance, class_sums)


def of_each_class(one: Callable[[Array, Array], Array], classes: Array, inside: Array) -> Array:
    """Distances ``one(classes [B,T], inside [B,T])``, for each of K classes where a frame belongs to several."""
    if classes.ndim == 2:
        return one(classes, inside)
    # A frame with K classes: one [B,T,D] difference at a time, made again for the gradient, never [B,T,K,D].
    by_class = jnp.moveaxis(classes, -1, 0), jnp.moveaxis(inside, -1, 0)
    return jnp.moveaxis(jax.lax.map(jax.checkpoint(lambda pair: one(*pair)), by_class), 0, -1)


def sum_each_class(
    add: Callable[[tuple[Array, Array], Array, Array], tuple[Array, Array]],
    centers: Array,
    classes: Array,
    weights: Array,
) -> tuple[Array, Array]:
    """Folds ``add(sums, classes [B,T], weights [B,T])`` over the classes of a frame, from sums of 0."""
    start = jnp.zeros_like(centers), jnp.zeros(len(centers), centers.dtype)
    weights = weights.astype(centers.dtype)
    if classes.ndim == 2:
        return add(start, classes, weights)
    by_class = jnp.moveaxis(classes, -1, 0), jnp.moveaxis(weights, -1, 0)
    return jax.lax.scan(lambda sums, pair: (add(sums, *pair), None), start, by_class)[0]


def add_differences(
    away: Array, total: Array, centers: Array, features: Array, classes: Array, weights: Array
) -> tuple[Array, Array]:
    """Adds ``w (c_k - f)`` to ``away [C,D]`` and ``w`` to ``total [C]``; features of weight 0 may hold anything."""
    # Differences, not sums of features: a feature on its center then moves it by exactly nothing.
    far = weights[..., None] * (centers[classes] - at_least_float32(features))
    far = jnp.where((weights > 0)[..., None], far, 0.0)
    return away.at[classes].add(far.astype(centers.dtype)), total.at[classes].add(weights)
