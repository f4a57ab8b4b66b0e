"""Queries on logits: a dense array, or a linear head that never materializes them.

Losses, assignments and decoders ask logits five questions: `log_norm`, `best`, `of_classes`, `of_frames` and `ranked`.
Each type of logits answers them, and hands the center loss the features that its head reads (`center_features`,
`update_features`); functions accept a plain ``[B,T,C]`` array as well and wrap it with `as_logits`.
The class-sharded type lives in `jaxcrnn.parallel.sharded_head`.
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
    """What every type of logits ``[B,T,C]`` answers, in float32 at least."""

    @property
    def num_classes(self) -> int:
        """C."""

    @property
    def num_frames(self) -> int:
        """T."""

    @property
    def dtype(self) -> Any:
        """Dtype of results computed from the logits (at least float32)."""

    def log_norm(self) -> Array:
        """Log of the softmax's denominator: ``[B,T]``."""

    def best(self) -> tuple[Array, Array]:
        """The most probable class, the lowest of equals, ``[B,T]`` int32, and its logit ``[B,T]``."""

    def of_classes(self, classes: Array) -> Array:
        """The logits ``[B,T,K]`` of the classes ``[B,K]`` int32 of each line."""

    def of_frames(self, classes: Array) -> Array:
        """The logit ``[B,T]`` of one class ``[B,T]`` int32 of each frame."""

    def ranked(self, excluded: Sequence[int] = ()) -> tuple[Array, Array, Array]:
        """The two most probable classes.

        Args:
          excluded: classes to skip; at most one unless the logits are dense.

        Returns:
          ``[B,T]`` int32 the first, ``[B,T]`` int32 the second, and ``[B,T]`` bool, whether there is a second.

        Raises:
          ValueError: too many excluded classes.
        """

    def center_features(self, features: Any) -> Any:
        """The features that the center loss reads: ``features``, or the same ones shared with the head.

        Args:
          features: ``[B,T,D]``, the head's input in float32.
        """

    def update_features(self, features: Any) -> Any:
        """The features that move the centers: ``features``, or the same ones in the dtype of the head's input."""


class DenseLogits(NamedTuple):
    """An array of logits.

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
    """What the logits of a fused head answer from one pass over its classes, whichever devices made it.

    Attributes:
      features: ``[B,T,D]``, the head's input.
      norm: ``[B,T]`` log of the softmax's denominator.
      top: ``[B,T,3]`` int32, the most probable classes.
      top_logits: ``[B,T,3]`` their logits.
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
            raise ValueError(f"{len(excluded)} classes excluded; a fused head keeps the {TOP} most probable ones, "
                             f"expected {TOP - 2} at most")  # fmt: skip
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
    """Logits that are never materialized: ``features @ kernel + bias``. See `factored`.

    Attributes:
      features: ``[B,T,D]``.
      kernel: ``[D,C]``.
      bias: ``[C]``.
      norm: ``[B,T]`` log of the softmax's denominator; its gradient reaches the three above.
      top: ``[B,T,3]`` int32, the most probable classes.
      top_logits: ``[B,T,3]`` their logits.
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
    """The logits of a linear head after one pass over its classes, chunk by chunk (`jaxcrnn.kernels.chunked_head`).

    Args:
      features: ``[B,T,D]`` float32 or bfloat16; sums are float32.
      kernel: ``[D,C]``.
      bias: ``[C]``.
    """
    scan = scan_head(features.reshape(-1, features.shape[2]), kernel, bias)
    norm, top, top_logits = (a.reshape(*features.shape[:2], *a.shape[1:]) for a in scan)
    return FactoredLogits(features, kernel, bias, norm, top, top_logits)


def as_logits(logits: Logits) -> LogitsLike:
    """Logits of any type; a plain ``[B,T,C]`` array becomes `DenseLogits`."""
    if hasattr(logits, "log_norm"):
        return cast(LogitsLike, logits)
    return DenseLogits(jnp.asarray(logits))


def constant(logits: Logits) -> Any:
    """The same logits without a gradient; a plain array stays one."""
    return jax.tree.map(jax.lax.stop_gradient, logits)


def norm(logits: Logits) -> Array:
    """`LogitsLike.log_norm`, as version 0.1 spelled it."""
    return as_logits(logits).log_norm()


def of_frames(logits: Logits, classes: Array) -> Array:
    """`LogitsLike.of_frames`, as version 0.1 spelled it."""
    return as_logits(logits).of_frames(classes)


def first_two(classes: Array, values: Array, excluded: Sequence[int]) -> tuple[Array, Array, Array]:
    """The classes of the two largest ``values [B,T,K]``, without those excluded, and whether there is a second."""
    for other in excluded:
        values = jnp.where(classes == other, -jnp.inf, values)
    at = jnp.argmax(values, -1)[:, :, None]
    rest = jnp.where(jnp.arange(values.shape[2])[None, None] == at, -jnp.inf, values)
    second = jnp.argmax(rest, -1)[:, :, None]
    one, two = (jnp.take_along_axis(classes, k, 2)[:, :, 0] for k in (at, second))
    return one, two, ~jnp.isneginf(rest.max(-1))
