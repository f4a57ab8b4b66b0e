"""Queries on logits: a dense array, or a linear head that never materializes them.

Losses, assignments and decoders use five queries: `log_norm`, `best`, `of_classes`, `of_frames` and `ranked`. Each type
of logits implements them, and passes the features of its head to the center loss (`center_features`,
`update_features`). Functions accept a plain ``[B,T,C]`` array too and wrap it with `as_logits`. The class-sharded type
is in `jaxcrnn.parallel.sharded_head`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol, cast

import jax
import jax.numpy as jnp
from jax import Array

from jaxcrnn.kernels.chunked_head import TOP, argmax, product, scan_head
from jaxcrnn.kernels.dtypes import at_least_float32


class LogitsLike(Protocol):
    """The interface of all types of logits ``[B,T,C]``. Results are float32 at least."""

    @property
    def num_classes(self) -> int:
        """Number of classes C."""

    @property
    def num_frames(self) -> int:
        """Number of frames T."""

    @property
    def dtype(self) -> Any:
        """Dtype of results computed from the logits (at least float32)."""

    def log_norm(self) -> Array:
        """Return the log of the softmax's denominator: ``[B,T]``."""

    def best(self) -> tuple[Array, Array]:
        """Return the most probable class ``[B,T]`` int32, the lowest on a tie, and its logit ``[B,T]``."""

    def of_classes(self, classes: Array) -> Array:
        """Return the logits ``[B,T,K]`` of classes ``[B,K]`` int32, given per line."""

    def of_frames(self, classes: Array) -> Array:
        """Return the logit ``[B,T]`` of one class per frame, ``[B,T]`` int32."""

    def ranked(self, excluded: Sequence[int] = ()) -> tuple[Array, Array, Array]:
        """Return the two most probable classes.

        Args:
          excluded: class ids to skip; at most one unless the logits are dense.

        Returns:
          The first class ``[B,T]`` int32, the second ``[B,T]`` int32, and whether there is a second, ``[B,T]`` bool.

        Raises:
          ValueError: If too many classes are excluded.
        """

    def center_features(self, features: Any) -> Any:
        """Return the features for the center loss: ``features``, or the same ones as copied for the head.

        Args:
          features: ``[B,T,D]``, the head's input in float32.
        """

    def update_features(self, features: Any) -> Any:
        """Return the features for the centers' update: ``features``, or the same ones in the head's dtype."""


class DenseLogits(NamedTuple):
    """Logits as an array.

    Attributes:
      values: ``[B,T,C]``.
    """

    values: Array

    @property
    def num_classes(self) -> int:
        return self.values.shape[2]

    @property
    def num_frames(self) -> int:
        return self.values.shape[1]

    @property
    def dtype(self) -> Any:
        return at_least_float32(self.values).dtype

    def log_norm(self) -> Array:
        return jax.nn.logsumexp(at_least_float32(self.values), 2)

    def best(self) -> tuple[Array, Array]:
        best, value = argmax(self.values)
        return best, at_least_float32(value)

    def of_classes(self, classes: Array) -> Array:
        return at_least_float32(jnp.take_along_axis(self.values, classes[:, None, :], 2))

    def of_frames(self, classes: Array) -> Array:
        return jnp.take_along_axis(at_least_float32(self.values), classes[:, :, None], 2)[:, :, 0]

    def ranked(self, excluded: Sequence[int] = ()) -> tuple[Array, Array, Array]:
        classes = jnp.arange(self.num_classes, dtype=jnp.int32)
        classes = jnp.broadcast_to(classes[None, None], self.values.shape)
        return first_two(classes, at_least_float32(self.values), excluded)

    def center_features(self, features: Any) -> Any:
        return features

    def update_features(self, features: Any) -> Any:
        return features


class FusedLogits:
    """Queries that logits of a fused head answer from one pass over the classes, sharded or not.

    Attributes:
      features: ``[B,T,D]``, the head's input.
      norm: ``[B,T]``, log of the softmax's denominator.
      top: ``[B,T,3]`` int32, the most probable classes in descending order.
      top_logits: ``[B,T,3]``, their logits.
    """

    features: Array
    norm: Array
    top: Array
    top_logits: Array

    @property
    def num_frames(self) -> int:
        return self.features.shape[1]

    @property
    def dtype(self) -> Any:
        return self.norm.dtype

    def log_norm(self) -> Array:
        return self.norm

    def best(self) -> tuple[Array, Array]:
        return self.top[:, :, 0], self.top_logits[:, :, 0]

    def ranked(self, excluded: Sequence[int] = ()) -> tuple[Array, Array, Array]:
        if len(excluded) > TOP - 2:
            raise ValueError(
                f"cannot exclude {len(excluded)} classes: a fused head keeps the {TOP} most probable ones, so at most "
                f"{TOP - 2} can be excluded"
            )
        return first_two(self.top, self.top_logits, excluded)

    def update_features(self, features: Any) -> Any:
        return self.features


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["features", "kernel", "bias", "norm", "top", "top_logits"],
    meta_fields=[],
)
@dataclass(frozen=True)
class FactoredLogits(FusedLogits):
    """Logits ``features @ kernel + bias`` that are never materialized. See `factored`.

    Attributes:
      features: ``[B,T,D]``.
      kernel: ``[D,C]``.
      bias: ``[C]``.
      norm: ``[B,T]``, log of the softmax's denominator; differentiable in features, kernel and bias.
      top: ``[B,T,3]`` int32, the most probable classes in descending order.
      top_logits: ``[B,T,3]``, their logits.
    """

    features: Array
    kernel: Array
    bias: Array
    norm: Array
    top: Array
    top_logits: Array

    @property
    def num_classes(self) -> int:
        return self.kernel.shape[1]

    def of_classes(self, classes: Array) -> Array:
        own = product("btd,dbk->btk", self.features, self.kernel[:, classes])
        return own + at_least_float32(self.bias)[classes][:, None, :]

    def of_frames(self, classes: Array) -> Array:
        columns = self.kernel.T[classes]
        return product("btd,btd->bt", self.features, columns) + at_least_float32(self.bias)[classes]

    def center_features(self, features: Any) -> Any:
        return features


Logits = Array | LogitsLike


def factored(features: Array, kernel: Array, bias: Array) -> FactoredLogits:
    """Build the logits of a linear head with one pass over its classes (`jaxcrnn.kernels.chunked_head`).

    Args:
      features: ``[B,T,D]`` float32 or bfloat16; sums are float32.
      kernel: ``[D,C]``.
      bias: ``[C]``.
    """
    scan = scan_head(features.reshape(-1, features.shape[2]), kernel, bias)
    norm, top, top_logits = (a.reshape(*features.shape[:2], *a.shape[1:]) for a in scan)
    return FactoredLogits(features, kernel, bias, norm, top, top_logits)


def as_logits(logits: Logits) -> LogitsLike:
    """Wrap a plain ``[B,T,C]`` array as `DenseLogits`; other types of logits are returned unchanged."""
    if hasattr(logits, "log_norm"):
        return cast(LogitsLike, logits)
    return DenseLogits(jnp.asarray(logits))


def constant(logits: Logits) -> Any:
    """Stop the gradient of logits of any type; a plain array stays one."""
    return jax.tree.map(jax.lax.stop_gradient, logits)


def norm(logits: Logits) -> Array:
    """Return `LogitsLike.log_norm`; name of version 0.1."""
    return as_logits(logits).log_norm()


def of_frames(logits: Logits, classes: Array) -> Array:
    """Return `LogitsLike.of_frames`; name of version 0.1."""
    return as_logits(logits).of_frames(classes)


def first_two(classes: Array, values: Array, excluded: Sequence[int]) -> tuple[Array, Array, Array]:
    """Return the classes of the two largest ``values [B,T,K]`` that are not excluded, and whether there is a second."""
    for other in excluded:
        values = jnp.where(classes == other, -jnp.inf, values)
    at = jnp.argmax(values, -1)[:, :, None]
    rest = jnp.where(jnp.arange(values.shape[2])[None, None] == at, -jnp.inf, values)
    second = jnp.argmax(rest, -1)[:, :, None]
    one, two = (jnp.take_along_axis(classes, k, 2)[:, :, 0] for k in (at, second))
    return one, two, ~jnp.isneginf(rest.max(-1))
