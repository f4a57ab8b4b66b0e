"""Built-in terms of the loss, as functions of a `jaxcrnn.objective.Term`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial
from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxcrnn import ctc, diagnostics, losses
from jaxcrnn._arguments import integers
from jaxcrnn.kernels.center_ops import DENSE, CenterOps
from jaxcrnn.kernels.logits import as_logits
from jaxcrnn.types import Assignment, Batch, CenterState, Outputs


def plain_ctc(outputs: Outputs, batch: Batch, *_: Any, blank: int, recursion: str = "scan") -> Array:
    labels = (outputs.lengths, batch.labels, batch.label_lengths)
    return ctc.ctc_loss(outputs.logits, *labels, blank=blank, recursion=recursion)


def focal(
    outputs: Outputs, batch: Batch, *_: Any, blank: int, recursion: str = "scan", **options: float
) -> tuple[Array, dict[str, Array]]:
    plain = plain_ctc(outputs, batch, blank=blank, recursion=recursion)
    return losses.focal(plain, **options), {"ctc": plain}


def ace(outputs: Outputs, batch: Batch, *_: Any, blank: int, variant: str) -> Array:
    labels = (outputs.lengths, batch.labels, batch.label_lengths)
    return losses.ace(outputs.logits, *labels, blank=blank, variant=variant)


def center(
    outputs: Outputs,
    _: Batch,
    assignment: Assignment,
    state: CenterState,
    *,
    blank: int,
    reduction: str,
    ops: CenterOps = DENSE,
) -> Array:
    del blank
    features = as_logits(outputs.logits).center_features(outputs.features)
    return losses.center(features, state.centers, assignment, reduction=reduction, ops=ops)


def push(
    outputs: Outputs,
    _: Batch,
    assignment: Assignment,
    state: CenterState,
    *,
    blank: int,
    margin: float,
    reduction: str,
    ops: CenterOps = DENSE,
) -> Array:
    # The blank is never a rival, and frames assigned to the blank are not pushed.
    rivals = diagnostics.top_rival(outputs.logits, assignment.classes, excluded=(blank,))
    rivals = jnp.where(assignment.classes == blank, assignment.classes, rivals)
    features = as_logits(outputs.logits).center_features(outputs.features)
    return losses.push(features, state.centers, assignment, rivals, margin=margin, reduction=reduction, ops=ops)


def built_in(config: Any, parts: Any, has_centers: bool) -> Iterator[tuple[str, float, Callable[..., Any]]]:
    """Yield the name, weight and function of each term of a config.

    Args:
      config: a `jaxcrnn.objective.LossConfig`.
      parts: its `jaxcrnn.objective.Preset`.
      has_centers: whether the loss keeps centers.
    """
    if config.focal:
        yield "focal", 1.0, partial(focal, alpha=config.focal_alpha, gamma=config.focal_gamma)
    else:
        yield "ctc", 1.0, plain_ctc
    if config.ace:
        yield "ace", config.ace, partial(ace, variant=config.ace_variant)
    if has_centers:
        yield "center", parts.weight, partial(center, reduction=parts.reduction)
    if config.push:
        yield "push", config.push, partial(push, margin=config.push_margin, reduction=parts.reduction)


@lru_cache(maxsize=256)
def _parameters(function: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters)


def bound(function: Callable[..., Any], **offered: Any) -> Callable[..., Any]:
    """Bind those arguments of a step to a function that it has a parameter for."""
    accepted = {name: value for name, value in offered.items() if name in _parameters(function)}
    return partial(function, **accepted) if accepted else function


def with_integers(outputs: Outputs, batch: Batch) -> tuple[Outputs, Batch]:
    """Convert lengths, widths and labels to integers."""
    names = ("widths", "labels", "label_lengths")
    integral = {name: integers(name, getattr(batch, name)) for name in names}
    return outputs._replace(lengths=integers("lengths", outputs.lengths)), batch._replace(**integral)


def logged(values: Mapping[str, Array], real: Array) -> dict[str, Array]:
    """Return the values of a term to log: sums over the samples as ``<name>_sum``, scalars as ``<name>``.

    Args:
      values: ``[B]`` or scalars.
      real: ``[B]``, whether a sample is not padding.

    Raises:
      ValueError: If a value is neither ``[B]`` nor a scalar.
    """
    info = {}
    for name, value in values.items():
        if value.shape not in ((), real.shape):
            raise ValueError(f"term {name!r} has shape {value.shape}; expected {real.shape} or a scalar")
        if value.ndim:
            info[f"{name}_sum"] = jnp.where(real, value, 0.0).sum()
        else:
            info[name] = value
    return info
