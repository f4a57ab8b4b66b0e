"""The optimizer: AdamW or SGD with warm-up, cosine decay, gradient clipping and optional parameter averaging."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jaxcrnn._ranges import Count, Decay, Natural, NonNegative, Positive, Share, check
from jaxcrnn.errors import UserError

OPTIMIZERS = ("adamw", "sgd")


@jax.tree_util.register_static
@dataclass(frozen=True)
class OptimConfig:
    """The optimizer and its learning-rate schedule.

    Attributes:
      optimizer: ``"adamw"``, or ``"sgd"`` with momentum.
      steps: number of training steps, 1 or more; also the length of the schedule.
      learning_rate: peak learning rate, more than 0, reached after ``warmup`` steps.
      warmup: number of steps over which the learning rate grows linearly from 0, 0 or more; 0 starts at the peak.
      final: learning rate at the end of the cosine decay, as a fraction of the peak, 0 to 1.
      weight_decay: weight decay of matrices and convolution kernels only, 0 or more; decoupled from the gradient with
        AdamW, added to it with SGD.
      momentum: momentum of SGD, 0 or more, less than 1.
      beta1: decay rate of AdamW's first moment, 0 or more, less than 1.
      beta2: decay rate of AdamW's second moment, 0 or more, less than 1.
      clip_norm: largest norm of the gradients of all parameters together, 0 or more; larger ones are scaled down to it,
        and 0 disables clipping.
      frozen: number of convolutional layers, counted from the image, whose weights and batch statistics training keeps,
        0 or more; a residual block counts as one. For short fine-tunes: a frozen layer has no backward pass.
      ema: decay rate of the averaged parameters that evaluation uses, 0 or more, less than 1; 0 disables averaging.

    Raises:
      UserError: If a value is unknown or out of range.
    """

    optimizer: str = "adamw"
    steps: Count = 2000
    learning_rate: Positive = 1e-3
    warmup: Natural = 100
    final: Share = 0.01
    weight_decay: NonNegative = 0.01
    momentum: Decay = 0.9
    beta1: Decay = 0.9
    beta2: Decay = 0.99
    clip_norm: NonNegative = 5.0
    frozen: Natural = 0
    ema: Decay = 0.0

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise UserError(f"optim.optimizer is {self.optimizer!r}; expected one of {', '.join(OPTIMIZERS)}")
        check(self, "optim")


class AverageState(NamedTuple):
    """The state of the inner optimizer, the averaged parameters, and the number of steps averaged."""

    inner: Any
    average: Any
    steps: Array


def schedule(config: OptimConfig) -> optax.Schedule:
    """Build the learning-rate schedule: linear warm-up from 0, then cosine decay to ``final`` of the peak."""
    warmup = min(config.warmup, config.steps)
    return optax.warmup_cosine_decay_schedule(
        0.0 if warmup else config.learning_rate,
        config.learning_rate,
        warmup,
        max(config.steps, warmup + 1),
        config.learning_rate * config.final,
    )


def make(config: OptimConfig) -> optax.GradientTransformation:
    """Build the optimizer of a config."""

    def mask(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(_is_kernel, params)

    rate, decay = schedule(config), config.weight_decay
    if config.optimizer == "sgd":
        moves = [optax.add_decayed_weights(decay, mask), optax.sgd(rate, momentum=config.momentum)]
    else:
        moves = [optax.adamw(rate, b1=config.beta1, b2=config.beta2, weight_decay=decay, mask=mask)]
    # Without clipping the state has the same structure, so that a resumed run may switch it on or off.
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    clipped = _without(optax.chain(clip, *moves), config.frozen)
    return _with_average(clipped, config.ema) if config.ema else clipped


def _is_kernel(path: tuple[Any, ...], _: Array) -> bool:
    return str(path[-1].key).startswith("kernel")


def _without(inner: optax.GradientTransformation, frozen: int) -> optax.GradientTransformation:
    """Set the updates of frozen layers to 0, those by weight decay and old moments too; the state stays the same."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        updates, state = inner.update(updates, state, params)
        return jax.tree_util.tree_map_with_path(held, updates), state

    def held(path: tuple[Any, ...], a: Array) -> Array:
        return jnp.zeros_like(a) if is_frozen(tuple(str(part.key) for part in path), frozen) else a

    return optax.GradientTransformation(inner.init, update) if frozen else inner


def is_frozen(path: tuple[str, ...], frozen: int) -> bool:
    """Return whether a parameter belongs to the first ``frozen`` layers of the backbone.

    Args:
      path: keys of the parameter, such as ``("backbone", "conv2", "kernel")``.
      frozen: number of layers.

    >>> is_frozen(("backbone", "norm1", "scale"), 2), is_frozen(("backbone", "conv2", "kernel"), 2)
    (True, False)
    """
    layer = path[1].lstrip("abcdefghijklmnopqrstuvwxyz") if path[0] == "backbone" else ""
    return layer.isdecimal() and int(layer) < frozen


def _with_average(inner: optax.GradientTransformation, decay: float) -> optax.GradientTransformation:
    def init(params: Any) -> AverageState:
        return AverageState(inner.init(params), jax.tree.map(jnp.copy, params), jnp.zeros((), jnp.int32))

    def update(updates: Any, state: AverageState, params: Any = None) -> tuple[Any, AverageState]:
        updates, inner_state = inner.update(updates, state.inner, params)
        moved = optax.apply_updates(params, updates)
        # Average over fewer steps at first, or the random initialization would persist for thousands of steps.
        count = state.steps.astype(jnp.float32)
        share = 1 - jnp.minimum(decay, (1 + count) / (10 + count))
        average = optax.incremental_update(moved, state.average, share)
        return updates, AverageState(inner_state, average, state.steps + 1)

    return optax.GradientTransformation(init, update)


def update(config: OptimConfig, grads: Any, opt_state: Any, params: Any) -> tuple[Any, Any]:
    """Update the parameters once.

    Args:
      config: the optimizer.
      grads: gradients, a tree like ``params``.
      opt_state: state of the optimizer.
      params: parameters.

    Returns:
      The new parameters and the new state of the optimizer.
    """
    with jax.numpy_dtype_promotion("standard"):  # optax's Adam relies on implicit promotion of its step count
        updates, opt_state = make(config).update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state


def averaged(params: Any, opt_state: Any) -> Any:
    """Return the parameters to evaluate with: the average if the optimizer keeps one, else ``params``."""
    return opt_state.average if isinstance(opt_state, AverageState) else params


def begun(opt_state: Any, params: Any) -> Any:
    """Return a fresh optimizer state for given parameters; an average starts from them."""
    if isinstance(opt_state, AverageState):
        return opt_state._replace(average=jax.tree.map(jnp.copy, params))
    return opt_state


def from_the_start(opt_state: Any) -> Any:
    """Return the optimizer state with its moments kept and its schedule reset to step 0."""

    def is_schedule(part: Any) -> bool:
        return isinstance(part, optax.ScaleByScheduleState)

    def reset(part: Any) -> Any:
        return part._replace(count=jnp.zeros_like(part.count)) if is_schedule(part) else part

    return jax.tree.map(reset, opt_state, is_leaf=is_schedule)


def global_norm(tree: Any) -> Array:
    """Compute the Euclidean norm of all leaves of a tree taken as one vector."""
    return optax.tree.norm(tree)
