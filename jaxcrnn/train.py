"""One training step: a free, un-jitted, pure function of config, state, batch and key."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxcrnn import ctc, decode, optim
from jaxcrnn.augment import AugmentConfig, augment
from jaxcrnn.errors import UserError
from jaxcrnn.model import CRNN, ModelConfig
from jaxcrnn.optim import OptimConfig
from jaxcrnn.types import Batch, Outputs, TrainState

PRESETS = ("ctc",)


@jax.tree_util.register_static
@dataclass(frozen=True)
class LossConfig:
    """What is minimised.

    Attributes:
      preset: ``"ctc"``, plain CTC.
    """

    preset: str = "ctc"

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise UserError(f"loss.preset is {self.preset!r}; expected one of {', '.join(PRESETS)}")


@jax.tree_util.register_static
@dataclass(frozen=True)
class TrainConfig:
    """All that decides what a step computes. Static under jit: two equal configs share one compiled program."""

    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)


def init_state(config: TrainConfig, key: Array) -> TrainState:
    """A fresh state.

    Args:
      config: its ``model.num_classes`` must be set.
      key: PRNG key of the parameters.
    """
    images = jnp.zeros((1, config.model.height, 32, 1), jnp.float32)
    # One program instead of hundreds of small ones: a fresh state costs a second, not ten.
    variables = jax.jit(lambda k: CRNN(config.model).init(k, images, jnp.full((1,), 32, jnp.int32)))(key)
    params = variables["params"]
    opt_state = optim.make(config.optim).init(params)
    return TrainState(jnp.zeros((), jnp.int32), params, variables.get("batch_stats", {}), opt_state, None)


def _forward(config: TrainConfig, params: Any, state: TrainState, batch: Batch, key: Array) -> tuple[Outputs, Any]:
    variables = {"params": params, "batch_stats": state.batch_stats}
    outputs, changed = CRNN(config.model).apply(
        variables, batch.images, batch.widths, train=True, mutable=["batch_stats"], rngs={"dropout": key}
    )
    return outputs, changed.get("batch_stats", {})


def _losses(config: TrainConfig, outputs: Outputs, batch: Batch) -> tuple[Array, dict[str, Array]]:
    """The total and its sums and counts; samples of width 0 only fill the batch and count nowhere."""
    real = batch.widths > 0
    samples = real.sum(dtype=jnp.int32)
    feasible = ctc.is_feasible(outputs.lengths, batch.labels, batch.label_lengths)
    per_sample = ctc.ctc_loss(
        outputs.logits, outputs.lengths, batch.labels, batch.label_lengths, blank=config.model.blank
    )
    ids, counts = decode.greedy(outputs.logits, outputs.lengths, blank=config.model.blank)
    correct = real & decode.exact(ids, counts, batch.labels, batch.label_lengths)
    ctc_sum = jnp.where(real, per_sample, 0.0).sum()
    info = {
        "samples": samples,
        "correct": correct.sum(dtype=jnp.int32),
        "infeasible": (real & ~feasible).sum(dtype=jnp.int32),
        "ctc_sum": ctc_sum,
    }
    return ctc_sum / jnp.maximum(samples, 1).astype(jnp.float32), info


def train_step(config: TrainConfig, state: TrainState, batch: Batch, key: Array) -> tuple[TrainState, dict[str, Any]]:
    """One step: augmentation, loss, gradients, the optimizer's update.

    A step whose loss or gradients are not finite changes nothing but the step number.

    Args:
      config: what to compute; static under jit.
      state: where training stands.
      batch: lines and labels; see `jaxcrnn.types.Batch`.
      key: the run's PRNG key, the same at every step; what the step draws comes from ``fold_in(key, state.step)``.

    Returns:
      The new state, and ``info``: ``loss``, ``ctc_sum``, ``samples``, ``correct`` (lines read exactly, under
      augmentation and dropout), ``infeasible``, ``grad_norm`` before clipping, ``skipped`` (0 or 1) and ``nonfinite``
      (bool for each parameter, in the order of ``jax.tree.leaves(state.params)``).
    """
    augment_key, dropout_key = jax.random.split(jax.random.fold_in(key, state.step))
    batch = batch._replace(images=augment(config.augment, batch.images, batch.widths, augment_key, state.step))

    def loss_of(params: Any) -> tuple[Array, tuple[dict[str, Array], Any]]:
        outputs, batch_stats = _forward(config, params, state, batch, dropout_key)
        loss, info = _losses(config, outputs, batch)
        return loss, (info, batch_stats)

    (loss, (info, batch_stats)), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    params, opt_state = optim.update(config.optim, grads, state.opt_state, state.params)
    moved = TrainState(state.step, params, batch_stats, opt_state, state.centers)
    nonfinite = jnp.stack([~jnp.isfinite(g).all() for g in jax.tree.leaves(grads)])
    fine = jnp.isfinite(loss) & ~nonfinite.any()
    kept = jax.tree.map(lambda new, old: jnp.where(fine, new, old), moved, state)
    info |= {
        "loss": loss,
        "grad_norm": optim.global_norm(grads),
        "skipped": (~fine).astype(jnp.int32),
        "nonfinite": nonfinite,
    }
    return kept._replace(step=state.step + 1), info


def eval_variables(state: TrainState) -> dict[str, Any]:
    """The variables to evaluate with: averaged parameters where the optimizer keeps them."""
    return {"params": optim.averaged(state.params, state.opt_state), "batch_stats": state.batch_stats}


def eval_step(config: TrainConfig, state: TrainState, batch: Batch) -> dict[str, Array]:
    """Reads a batch.

    Returns:
      Per sample, so that any batching adds up to the same sums: ``ids [B,T]``, ``counts [B]``, ``confidence [B]``
      (see `jaxcrnn.decode.Reading`), ``loss [B]`` (0 where infeasible) and ``feasible [B]``.
    """
    outputs: Any = CRNN(config.model).apply(eval_variables(state), batch.images, batch.widths, train=False)
    reading = decode.read(outputs.logits, outputs.lengths, blank=config.model.blank)
    labels = (outputs.lengths, batch.labels, batch.label_lengths)
    loss = ctc.ctc_loss(outputs.logits, *labels, blank=config.model.blank)
    return {**reading._asdict(), "loss": loss, "feasible": ctc.is_feasible(*labels)}
