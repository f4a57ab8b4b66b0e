"""The optimizer: AdamW or SGD with warm-up and cosine, gradient clipping, an optional average of the weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jaxcrnn.errors import UserError

OPTIMIZERS = ("adamw", "sgd")


@jax.tree_util.register_static
@dataclass(frozen=True)
class OptimConfig:
    """How the parameters move.

    Attributes:
      optimizer: ``"adamw"``, or ``"sgd"`` with momentum.
      steps: length of the schedule, which is the length of the training.
      learning_rate: its peak, reached after ``warmup`` steps.
      warmup: steps of linear growth from 0.
      final: learning rate at the end, as a share of the peak; a cosine leads there.
      weight_decay: on matrices and convolution kernels only; with AdamW decoupled from the gradient, with SGD added to
        it.
      momentum: of SGD.
      beta1: decay of the first moment.
      beta2: decay of the second moment.
      clip_norm: gradients longer than this (all parameters together) are scaled down to it.
      ema: decay of the averaged parameters that evaluation uses; 0 keeps none.
    """

    optimizer: str = "adamw"
    steps: int = 2000
    learning_rate: float = 1e-3
    warmup: int = 100
    final: float = 0.01
    weight_decay: float = 0.01
    momentum: float = 0.9
    beta1: float = 0.9
    beta2: float = 0.99
    clip_norm: float = 5.0
    ema: float = 0.0

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise UserError(f"optim.optimizer is {self.optimizer!r}; expected one of {', '.join(OPTIMIZERS)}")
        if self.steps < 1:
            raise UserError(f"optim.steps is {self.steps}; expected 1 or more")
        if self.learning_rate <= 0:
            raise UserError(f"optim.learning_rate is {self.learning_rate}; expected more than 0")
        if not 0 <= self.ema < 1:
            raise UserError(f"optim.ema is {self.ema}; expected 0 <= ema < 1")


class AverageState(NamedTuple):
    """The optimizer's own state, the averaged parameters, and how many steps are in them."""

    inner: Any
    average: Any
    steps: Array


def schedule(config: OptimConfig) -> optax.Schedule:
    """Learning rate by step: linear from 0, then a cosine down to ``final`` of the peak."""
    warmup = min(config.warmup, config.steps)
    return optax.warmup_cosine_decay_schedule(
        0.0 if warmup else config.learning_rate,
        config.learning_rate,
        warmup,
        max(config.steps, warmup + 1),
        config.learning_rate * config.final,
    )


def make(config: OptimConfig) -> optax.GradientTransformation:
    """The optimizer of a config."""

    def mask(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(_is_kernel, params)

    rate, decay = schedule(config), config.weight_decay
    if config.optimizer == "sgd":
        moves = [optax.add_decayed_weights(decay, mask), optax.sgd(rate, momentum=config.momentum)]
    else:
        moves = [optax.adamw(rate, b1=config.beta1, b2=config.beta2, weight_decay=decay, mask=mask)]
    clipped = optax.chain(optax.clip_by_global_norm(config.clip_norm), *moves)
    return _with_average(clipped, config.ema) if config.ema else clipped


def _is_kernel(path: tuple[Any, ...], _: Array) -> bool:
    return str(path[-1].key).startswith("kernel")


def _with_average(inner: optax.GradientTransformation, decay: float) -> optax.GradientTransformation:
    def init(params: Any) -> AverageState:
        return AverageState(inner.init(params), jax.tree.map(jnp.copy, params), jnp.zeros((), jnp.int32))

    def update(updates: Any, state: AverageState, params: Any = None) -> tuple[Any, AverageState]:
        updates, inner_state = inner.update(updates, state.inner, params)
        moved = optax.apply_updates(params, updates)
        # A young average forgets faster, or the random start would stay in it for thousands of steps.
        count = state.steps.astype(jnp.float32)
        share = 1 - jnp.minimum(decay, (1 + count) / (10 + count))
        average = optax.incremental_update(moved, state.average, share)
        return updates, AverageState(inner_state, average, state.steps + 1)

    return optax.GradientTransformation(init, update)


def update(config: OptimConfig, grads: Any, opt_state: Any, params: Any) -> tuple[Any, Any]:
    """One update: ``(new params, new optimizer state)``."""
    with jax.numpy_dtype_promotion("standard"):  # optax's Adam counts on implicit promotion of its step count
        updates, opt_state = make(config).update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state


def averaged(params: Any, opt_state: Any) -> Any:
    """The parameters to evaluate with: the average where there is one."""
    return opt_state.average if isinstance(opt_state, AverageState) else params


def begun(opt_state: Any, params: Any) -> Any:
    """A fresh optimizer state for parameters from elsewhere: an average begins where they are."""
    if isinstance(opt_state, AverageState):
        return opt_state._replace(average=jax.tree.map(jnp.copy, params))
    return opt_state


def from_the_start(opt_state: Any) -> Any:
    """The same moments, before the first step of a schedule."""

    def is_schedule(part: Any) -> bool:
        return isinstance(part, optax.ScaleByScheduleState)

    def of(part: Any) -> Any:
        return part._replace(count=jnp.zeros_like(part.count)) if is_schedule(part) else part

    return jax.tree.map(of, opt_state, is_leaf=is_schedule)


def global_norm(tree: Any) -> Array:
    """Length of all leaves taken as one vector."""
    return optax.tree.norm(tree)
