"""One training step: a free, un-jitted, pure function of config, state, batch and key."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxcrnn import centers as center_rules
from jaxcrnn import ctc, decode, diagnostics, objective, optim
from jaxcrnn.augment import AugmentConfig, augment
from jaxcrnn.errors import UserError
from jaxcrnn.kernels.finite import keep_if_finite
from jaxcrnn.kernels.mesh_ops import LOCAL, Ops
from jaxcrnn.model import CRNN, ModelConfig
from jaxcrnn.objective import Flow, LossConfig
from jaxcrnn.optim import OptimConfig
from jaxcrnn.types import Batch, CenterState, Outputs, TrainState

__all__ = [
    "Flow", "LossConfig", "TrainConfig", "eval_outputs", "eval_step", "eval_variables", "flow_of", "init_state",
    "state_shapes", "train_step",
]  # fmt: skip


@jax.tree_util.register_static
@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what a step computes. Static under jit: two equal configs share one compiled program.

    Attributes:
      model: the shape of the recogniser.
      loss: what is minimized, and how centers move.
      optim: the optimizer and its schedule.
      augment: augmentation on the device.
      flow: functions that replace those that ``loss`` names (`jaxcrnn.objective.flow`); None for none.
      ops: how a mesh of devices computes it (`jaxcrnn.parallel.ops.ops`): the same numbers but for rounding.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    flow: Flow | None = None
    ops: Ops = LOCAL

    def __post_init__(self) -> None:
        if self.model.head == "fused" and self.loss.ace and self.loss.ace_variant == "paddle":
            raise UserError("loss.ace_variant 'paddle' reads every class of every frame; expected 'paper', or "
                            "model.head=dense")  # fmt: skip

    @property
    def has_centers(self) -> bool:
        """Whether a state of this config has centers."""
        return self.loss.has_centers if self.flow is None else self.flow.rule is not None


def flow_of(config: TrainConfig) -> Flow:
    """The functions of a config's loss: its flow, or that of its ``loss``."""
    return config.flow or objective.flow(config.loss)


def init_state(
    config: TrainConfig, key: Array, *, variables: Any = None, centers: CenterState | None = None
) -> TrainState:
    """A fresh state.

    Args:
      config: its ``model.num_classes`` must be set.
      key: PRNG key of the parameters, and of centers that start at random.
      variables: ``{"params": ..., "batch_stats": ...}`` to go on from instead of random ones.
      centers: centers to start from instead of those of the loss.

    Raises:
      UserError: the loss starts from estimated centers and none are given, or those given have other sizes.
    """
    if variables is None:
        variables = _random(config.model, key)
    params = variables["params"]
    opt_state = _moments(config.optim, params)
    # Copied, because a step takes its state's memory: centers must not be the head's own array, nor the caller's.
    kernel = params["head"]["kernel"]
    started = center_rules.start(flow_of(config).rule, jax.random.fold_in(key, 1), kernel, centers)
    started = jax.tree.map(jnp.copy, started)
    return TrainState(jnp.zeros((), jnp.int32), params, variables.get("batch_stats", {}), opt_state, started)


# Programs of their own instead of hundreds of small ones: a fresh state costs a second, not ten.
@functools.partial(jax.jit, static_argnums=0)
def _random(config: ModelConfig, key: Array) -> Any:
    images = jnp.zeros((1, config.height, 32, 1), jnp.float32)
    return CRNN(config).init(key, images, jnp.full((1,), 32, jnp.int32))


@functools.partial(jax.jit, static_argnums=0)
def _moments(config: OptimConfig, params: Any) -> Any:
    return optim.make(config).init(params)


@functools.lru_cache(maxsize=8)
def state_shapes(config: TrainConfig) -> TrainState:
    """The shapes and dtypes of a state of this config, for restoring one."""
    # Of the loss only whether it keeps centers matters here: no function of a user's is called to restore a state.
    plain = dataclasses.replace(config, loss=LossConfig("flow1" if config.has_centers else "ctc"), flow=None)
    return jax.eval_shape(lambda: init_state(plain, jax.random.key(0)))


def _forward(config: TrainConfig, params: Any, state: TrainState, batch: Batch, key: Array) -> tuple[Outputs, Any]:
    variables = {"params": params, "batch_stats": state.batch_stats}
    outputs, changed = CRNN(config.model, config.ops).apply(
        variables, batch.images, batch.widths, train=True, mutable=["batch_stats"], rngs={"dropout": key}
    )
    return outputs, changed.get("batch_stats", {})


def train_step(config: TrainConfig, state: TrainState, batch: Batch, key: Array) -> tuple[TrainState, dict[str, Any]]:
    """One step: augmentation, loss, gradients, the optimizer's update, the centers' update.

    The centers are constants of the loss; they move afterwards, from their old values and the same features and
    assignment. A step whose loss, gradients or centers are not finite changes nothing but the step number.

    Args:
      config: what to compute; static under jit.
      state: where training stands.
      batch: lines and labels; see `jaxcrnn.types.Batch`.
      key: the run's PRNG key, the same at every step; what the step draws comes from ``fold_in(key, state.step)``.

    Returns:
      The new state, and ``info``: ``loss``, ``samples``, ``correct`` (lines read exactly, under augmentation and
      dropout), ``infeasible``, ``grad_norm`` before clipping, ``skipped`` (0 or 1), ``nonfinite`` (bool for each
      parameter, in the order of ``jax.tree.leaves(state.params)``), sums over the samples of the terms of the loss
      (``ctc_sum``, and ``focal_sum``, ``ace_sum`` where they are part of it), and with centers the scalars ``center``
      and ``push``, ``assigned_samples`` (that take part: for ``counted`` those that passed the count gate and have a
      character), ``assigned_frames``, ``centers_moved`` and ``watch`` (`jaxcrnn.diagnostics.Watch`).
    """
    flow, blank, ops = flow_of(config), config.model.blank, config.ops.centers
    augment_key, dropout_key = jax.random.split(jax.random.fold_in(key, state.step))
    batch = batch._replace(images=augment(config.augment, batch.images, batch.widths, augment_key, state.step))

    def loss_of(params: Any) -> tuple[Array, Any]:
        outputs, batch_stats = _forward(config, params, state, batch, dropout_key)
        loss, (terms, assignment) = objective.loss_terms(flow, outputs, batch, state.centers, blank=blank, ops=ops)
        return loss, (terms, assignment, outputs, batch_stats)

    (loss, (terms, assignment, outputs, batch_stats)), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    params, opt_state = optim.update(config.optim, grads, state.opt_state, state.params)
    centers = objective.move_centers(flow, state.centers, outputs, assignment, ops=ops)
    moved = TrainState(state.step, params, batch_stats, opt_state, centers)
    kept, finite, nonfinite = keep_if_finite(moved, state, grads, loss, centers)
    info = {
        "loss": loss,
        "grad_norm": optim.global_norm(grads),
        "skipped": (~finite).astype(jnp.int32),
        "nonfinite": nonfinite,
        **terms,
        **diagnostics.train_metrics(outputs, batch, assignment, state.centers, kept.centers, blank=blank, ops=ops),
    }
    return kept._replace(step=state.step + 1), info


def eval_variables(state: TrainState) -> dict[str, Any]:
    """The variables to evaluate with: averaged parameters where the optimizer keeps them."""
    params = optim.averaged(state.params, state.opt_state)
    return {"params": params, "batch_stats": state.batch_stats}


def eval_outputs(config: TrainConfig, state: TrainState, batch: Batch) -> Outputs:
    """What the model returns for a batch, whose labels are not used."""
    outputs: Any = CRNN(config.model, config.ops).apply(eval_variables(state), batch.images, batch.widths, train=False)
    return outputs


def eval_step(config: TrainConfig, state: TrainState, batch: Batch) -> dict[str, Array]:
    """Reads a batch and compares it with its labels.

    Returns:
      Per sample, so that any batching adds up to the same sums: ``ids [B,T]``, ``counts [B]``, ``confidence [B]``
      (see `jaxcrnn.decode.Reading`), ``loss [B]`` (0 where infeasible) and ``feasible [B]``.
    """
    outputs = eval_outputs(config, state, batch)
    reading = decode.read(outputs.logits, outputs.lengths, blank=config.model.blank)
    labels = (outputs.lengths, batch.labels, batch.label_lengths)
    loss = ctc.ctc_loss(outputs.logits, *labels, blank=config.model.blank)
    return {**reading._asdict(), "loss": loss, "feasible": ctc.is_feasible(*labels)}
