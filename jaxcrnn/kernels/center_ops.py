"""The two operations on the table of centers, as a value.

Losses and center updates take it as the argument ``ops``. `DENSE` is for a replicated table; `jaxcrnn.parallel.ops`
builds the counterpart for a table sharded by class.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxcrnn.kernels.dtypes import at_least_float32


class CenterOps(NamedTuple):
    """Operations on centers ``[C,D]`` and features ``[B,T,D]``.

    Attributes:
      squared_distance: ``(features, centers, classes, inside) -> d``, the squared distances of frames to the centers of
        their classes. ``classes`` is int32, ``[B,T]`` or, with several classes per frame, ``[B,T,K]``. ``inside`` is
        bool of the same shape; where it is False the features may hold any value, and the distance and its gradient are
        0.
      class_sums: ``(centers, features, classes, weights) -> (away, total)`` with ``away [C,D] = sum w (c_k - f)`` and
        ``total [C] = sum w``, both over the frames of each class.
    """

    squared_distance: Callable[[Any, Array, Array, Array], Array]
    class_sums: Callable[[Array, Any, Array, Array], tuple[Array, Array]]


def squared_distance(features: Array, centers: Array, classes: Array, inside: Array) -> Array:
    """Compute `CenterOps.squared_distance` for a replicated table."""

    def one(classes: Array, inside: Array) -> Array:
        # Mask before squaring: a padded frame may hold any value, including NaN.
        away = at_least_float32(features) - at_least_float32(centers)[classes]
        return jnp.square(jnp.where(inside[..., None], away, 0.0)).sum(-1)

    return of_each_class(one, classes, inside)


def class_sums(centers: Array, features: Array, classes: Array, weights: Array) -> tuple[Array, Array]:
    """Compute `CenterOps.class_sums` for a replicated table."""
    flat = features.reshape(-1, features.shape[-1])

    def add(sums: tuple[Array, Array], classes: Array, weights: Array) -> tuple[Array, Array]:
        return add_differences(*sums, centers, flat, classes.reshape(-1), weights.reshape(-1))

    return sum_each_class(add, centers, classes, weights)


DENSE = CenterOps(squared_distance, class_sums)


def of_each_class(one: Callable[[Array, Array], Array], classes: Array, inside: Array) -> Array:
    """Compute distances with ``one(classes [B,T], inside [B,T])``, looping over K classes per frame if there are."""
    if classes.ndim == 2:
        return one(classes, inside)
    # One [B,T,D] difference at a time, recomputed for the gradient, instead of a [B,T,K,D] array.
    by_class = jnp.moveaxis(classes, -1, 0), jnp.moveaxis(inside, -1, 0)
    return jnp.moveaxis(jax.lax.map(jax.checkpoint(lambda pair: one(*pair)), by_class), 0, -1)


def sum_each_class(
    add: Callable[[tuple[Array, Array], Array, Array], tuple[Array, Array]],
    centers: Array,
    classes: Array,
    weights: Array,
) -> tuple[Array, Array]:
    """Fold ``add(sums, classes [B,T], weights [B,T])`` over the classes of a frame, starting from zeros."""
    start = jnp.zeros_like(centers), jnp.zeros(len(centers), centers.dtype)
    weights = weights.astype(centers.dtype)
    if classes.ndim == 2:
        return add(start, classes, weights)
    by_class = jnp.moveaxis(classes, -1, 0), jnp.moveaxis(weights, -1, 0)
    return jax.lax.scan(lambda sums, pair: (add(sums, *pair), None), start, by_class)[0]


def add_differences(
    away: Array, total: Array, centers: Array, features: Array, classes: Array, weights: Array
) -> tuple[Array, Array]:
    """Add ``w (c_k - f)`` to ``away [C,D]`` and ``w`` to ``total [C]``; features of weight 0 may hold any value."""
    # Sum differences, not features: a feature that equals its center then moves it by exactly 0.
    far = weights[..., None] * (centers[classes] - at_least_float32(features))
    far = jnp.where((weights > 0)[..., None], far, 0.0)
    return away.at[classes].add(far.astype(centers.dtype)), total.at[classes].add(weights)
