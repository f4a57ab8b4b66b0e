"""The training step: an un-jitted, pure function of config, state, batch and key."""

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
from jaxcrnn.nn.layers import layers_of
from jaxcrnn.objective import Flow, LossConfig
from jaxcrnn.optim import OptimConfig
from jaxcrnn.types import Batch, CenterState, Outputs, TrainState

__all__ = [
    "Flow",
    "LossConfig",
    "TrainConfig",
    "eval_outputs",
    "eval_step",
    "eval_variables",
    "flow_of",
    "for_inference",
    "init_state",
    "state_shapes",
    "train_step",
]


@jax.tree_util.register_static
@dataclass(frozen=True)
class TrainConfig:
    """The configuration of a training step. It is static under jit: equal configs share one compiled program.

    Attributes:
      model: architecture of the recogniser.
      loss: the loss and the center rule.
      optim: optimizer and learning-rate schedule.
      augment: augmentation on the device.
      flow: functions that replace those that ``loss`` names (`jaxcrnn.objective.flow`); None to use ``loss``.
      ops: implementation of sharded operations (`jaxcrnn.parallel.ops.ops`); results are equal up to rounding.

    Raises:
      UserError: If the loss needs the logits of every class and the head is fused, or if more layers are frozen than
        the backbone has.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    flow: Flow | None = None
    ops: Ops = LOCAL

    def __post_init__(self) -> None:
        if self.model.head == "fused" and self.loss.ace and self.loss.ace_variant == "paddle":
            raise UserError(
                "loss.ace_variant 'paddle' needs the logits of every class; use 'paper', or set model.head=dense"
            )

        layers = len(layers_of(self.model.backbone, self.model.imported.channels))
        if self.optim.frozen > layers:
            raise UserError(
                f"optim.frozen is {self.optim.frozen}; expected at most {layers}, the layers of {self.model.backbone!r}"
            )

    @property
    def has_centers(self) -> bool:
        """Whether the train state has centers."""
        return self.loss.has_centers if self.flow is None else self.flow.rule is not None


def flow_of(config: TrainConfig) -> Flow:
    """Return the flow of a config: ``config.flow``, or the one that ``config.loss`` names.

    Examples:
      >>> from jaxcrnn import train
      >>> [term.name for term in train.flow_of(train.TrainConfig()).terms]
      ['ctc']
    """
    return config.flow or objective.flow(config.loss)


def init_state(
    config: TrainConfig, key: Array, *, variables: Any = None, centers: CenterState | None = None
) -> TrainState:
    """Initialize a train state.

    Args:
      config: training configuration; ``config.model.num_classes`` must be set.
      key: PRNG key for the parameters and for random centers.
      variables: ``{"params": ..., "batch_stats": ...}`` to start from instead of random ones.
      centers: centers to start from instead of those of the loss.

    Returns:
      A `jaxcrnn.types.TrainState` at step 0.

    Raises:
      UserError: If the loss starts from estimated centers and none are passed, or the centers have the wrong shape.

    Examples:
      >>> import jax
      >>> from jaxcrnn import train
      >>> from jaxcrnn.model import ModelConfig
      >>> config = train.TrainConfig(ModelConfig("tiny", hidden=4, num_classes=3))
      >>> state = jax.eval_shape(train.init_state, config, jax.random.key(0))  # shapes only; call it for the arrays
      >>> state.params["head"]["kernel"].shape, state.step.dtype.name
      ((8, 3), 'int32')
    """
    if variables is None:
        variables = _random(config.model, key)
    params = variables["params"]
    opt_state = _moments(config.optim, params)
    # Copy, because a step donates its state: the centers must not share memory with the head or the caller's array.
    kernel = params["head"]["kernel"]
    started = center_rules.start(flow_of(config).rule, jax.random.fold_in(key, 1), kernel, centers)
    started = jax.tree.map(jnp.copy, started)
    return TrainState(jnp.zeros((), jnp.int32), params, variables.get("batch_stats", {}), opt_state, started)


# Jitted as a whole instead of hundreds of small programs: a new state takes a second, not ten.
@functools.partial(jax.jit, static_argnums=0)
def _random(config: ModelConfig, key: Array) -> Any:
    images = jnp.zeros((1, config.height, 32, 1), jnp.float32)
    return CRNN(config).init(key, images, jnp.full((1,), 32, jnp.int32))


@functools.partial(jax.jit, static_argnums=0)
def _moments(config: OptimConfig, params: Any) -> Any:
    return optim.make(config).init(params)


@functools.lru_cache(maxsize=8)
def state_shapes(config: TrainConfig) -> TrainState:
    """Return the shapes and dtypes of a train state, for restoring a checkpoint.

    Args:
      config: training configuration; ``config.model.num_classes`` must be set.

    Examples:
      >>> from jaxcrnn import train
      >>> from jaxcrnn.model import ModelConfig
      >>> config = train.TrainConfig(ModelConfig("tiny", hidden=4, num_classes=3), train.LossConfig("flow1"))
      >>> train.state_shapes(config).centers.centers.shape
      (3, 8)
    """
    # The shapes depend only on whether the loss keeps centers, so no user-defined function is called here.
    plain = dataclasses.replace(config, loss=LossConfig("flow1" if config.has_centers else "ctc"), flow=None)
    return jax.eval_shape(lambda: init_state(plain, jax.random.key(0)))


def _forward(config: TrainConfig, params: Any, state: TrainState, batch: Batch, key: Array) -> tuple[Outputs, Any]:
    variables = {"params": params, "batch_stats": state.batch_stats}
    outputs, changed = CRNN(config.model, config.ops).apply(
        variables,
        batch.images,
        batch.widths,
        train=True,
        frozen=config.optim.frozen,
        mutable=["batch_stats"],
        rngs={"dropout": key},
    )
    return outputs, changed.get("batch_stats", {})


def train_step(config: TrainConfig, state: TrainState, batch: Batch, key: Array) -> tuple[TrainState, dict[str, Any]]:
    """Run one training step: augmentation, loss, gradients, the optimizer's update and the centers' update.

    The centers are constants of the loss. They are updated afterwards, from their old values and the features and
    assignment of the loss. A step whose loss, gradients or centers are not finite changes nothing but the step number.

    Args:
      config: training configuration; static under jit.
      state: state before the step.
      batch: lines and labels; see `jaxcrnn.types.Batch`.
      key: PRNG key of the run, the same at every step; random numbers are drawn from ``fold_in(key, state.step)``.

    Returns:
      The new state, and ``info`` with these values: ``loss``; ``samples``, ``correct`` (lines read exactly, under
      augmentation and dropout) and ``infeasible``; ``grad_norm`` before clipping; ``skipped`` (0 or 1); ``nonfinite``
      (bool for each parameter, in the order of ``jax.tree.leaves(state.params)``); the sums over the samples of the
      terms of the loss (``ctc_sum``, and ``focal_sum`` and ``ace_sum`` if they are used). With centers also the scalars
      ``center`` and ``push``, ``assigned_samples`` (samples with an assigned frame: with ``counted``, those that emit
      the right number of characters), ``assigned_frames``, ``centers_moved`` and ``watch`` (a
      `jaxcrnn.diagnostics.Watch`).

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxcrnn import train
      >>> from jaxcrnn.model import ModelConfig
      >>> from jaxcrnn.types import Batch
      >>> config = train.TrainConfig(ModelConfig("tiny", hidden=4, num_classes=3))
      >>> batch = Batch(jnp.ones((2, 32, 32, 1)), jnp.array([32, 0]), jnp.array([[1], [0]]), jnp.array([1, 0]))
      >>> state = train.state_shapes(config)  # shapes only; a loop would jit the step with static_argnums=0
      >>> state, info = jax.eval_shape(train.train_step, config, state, batch, jax.random.key(0))
      >>> info["loss"].shape, state.step.shape
      ((), ())
    """
    flow, blank, ops = flow_of(config), config.model.blank, config.ops.centers
    recursion = "scan" if config.model.ctc == "auto" else config.model.ctc
    augment_key, dropout_key = jax.random.split(jax.random.fold_in(key, state.step))
    with jax.named_scope("augment"):
        batch = batch._replace(images=augment(config.augment, batch.images, batch.widths, augment_key, state.step))

    def loss_of(params: Any) -> tuple[Array, Any]:
        outputs, batch_stats = _forward(config, params, state, batch, dropout_key)
        with jax.named_scope("loss"):
            loss, (terms, assignment) = objective.loss_terms(
                flow, outputs, batch, state.centers, blank=blank, ops=ops, recursion=recursion
            )
        return loss, (terms, assignment, outputs, batch_stats)

    (loss, (terms, assignment, outputs, batch_stats)), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    with jax.named_scope("optimizer"):
        params, opt_state = optim.update(config.optim, grads, state.opt_state, state.params)
    with jax.named_scope("centers"):
        centers = objective.move_centers(flow, state.centers, outputs, assignment, ops=ops)
    moved = TrainState(state.step, params, batch_stats, opt_state, centers)
    with jax.named_scope("optimizer"):
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
    """Return the variables to evaluate with: the averaged parameters if the optimizer keeps them.

    Examples:
      >>> from jaxcrnn import train
      >>> from jaxcrnn.model import ModelConfig
      >>> state = train.state_shapes(train.TrainConfig(ModelConfig("tiny", hidden=4, num_classes=3)))
      >>> sorted(train.eval_variables(state))
      ['batch_stats', 'params']
    """
    params = optim.averaged(state.params, state.opt_state)
    return {"params": params, "batch_stats": state.batch_stats}


def for_inference(config: TrainConfig, state: TrainState) -> tuple[TrainConfig, TrainState]:
    """Drop what inference does not use, so that runs with one model share compiled programs whatever their loss.

    Args:
      config: training configuration.
      state: state of a run.

    Returns:
      The configuration of the model alone, and a state of `eval_variables` without optimizer and centers.

    Examples:
      >>> from jaxcrnn import train
      >>> from jaxcrnn.model import ModelConfig
      >>> config = train.TrainConfig(ModelConfig("tiny", hidden=4, num_classes=3), train.LossConfig("flow1"))
      >>> train.for_inference(config, train.state_shapes(config))[1].centers is None
      True
    """
    variables = eval_variables(state)
    plain = TrainState(state.step, variables["params"], variables["batch_stats"], (), None)
    return TrainConfig(config.model, ops=config.ops), plain


def eval_outputs(config: TrainConfig, state: TrainState, batch: Batch) -> Outputs:
    """Run the model on a batch in inference mode. Labels are not used.

    Args:
      config: training configuration; static under jit.
      state: state to evaluate.
      batch: lines; see `jaxcrnn.types.Batch`.

    Returns:
      `jaxcrnn.types.Outputs`.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxcrnn import train
      >>> from jaxcrnn.model import ModelConfig
      >>> from jaxcrnn.types import Batch
      >>> config = train.TrainConfig(ModelConfig("tiny", hidden=4, num_classes=3))
      >>> batch = Batch(jnp.ones((2, 32, 32, 1)), jnp.array([32, 0]), jnp.array([[1], [0]]), jnp.array([1, 0]))
      >>> outputs = jax.eval_shape(train.eval_outputs, config, train.state_shapes(config), batch)
      >>> outputs.logits.shape, outputs.features.shape
      ((2, 8, 3), (2, 8, 8))
    """
    outputs: Any = CRNN(config.model, config.ops).apply(eval_variables(state), batch.images, batch.widths, train=False)
    return outputs


def eval_step(config: TrainConfig, state: TrainState, batch: Batch) -> dict[str, Array]:
    """Decode a batch and compute its loss.

    All values are per sample, so sums over a data set do not depend on the batching.

    Args:
      config: training configuration; static under jit.
      state: state to evaluate.
      batch: lines and labels; see `jaxcrnn.types.Batch`.

    Returns:
      ``ids [B,T]``, ``counts [B]`` and ``confidence [B]`` (see `jaxcrnn.decode.Reading`), ``loss [B]`` in nats (0 if
      infeasible) and ``feasible [B]``.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxcrnn import train
      >>> from jaxcrnn.model import ModelConfig
      >>> from jaxcrnn.types import Batch
      >>> config = train.TrainConfig(ModelConfig("tiny", hidden=4, num_classes=3))
      >>> batch = Batch(jnp.ones((2, 32, 32, 1)), jnp.array([32, 0]), jnp.array([[1], [0]]), jnp.array([1, 0]))
      >>> info = jax.eval_shape(train.eval_step, config, train.state_shapes(config), batch)
      >>> info["ids"].shape, info["loss"].shape
      ((2, 8), (2,))
    """
    outputs = eval_outputs(config, state, batch)
    reading = decode.read(outputs.logits, outputs.lengths, blank=config.model.blank)
    labels = (outputs.lengths, batch.labels, batch.label_lengths)
    loss = ctc.ctc_loss(outputs.logits, *labels, blank=config.model.blank)
    return {**reading._asdict(), "loss": loss, "feasible": ctc.is_feasible(*labels)}
