"""The training step of every preset."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torch_ref import assign, centers, ctc, losses
from torch_ref.model import CRNN, ModelConfig
from torch_ref.types import Assignment, Batch, CenterState, Outputs, TrainState


@dataclass(frozen=True)
class LossConfig:
    """The parts of a loss: assignment, initialization and update of the centers, reduction and weight."""

    assignment: str = "none"
    start: str = "zeros"
    update: str = "fixed"
    reduction: str = "mean"
    weight: float = 0.0
    alpha: float = 0.05
    center_rate: float = 0.5
    frames: str = "last"
    skip_blank: bool = False
    ignored: tuple[int, ...] = ()
    focal: bool = False
    focal_alpha: float = 1.0
    focal_gamma: float = 2.0
    ace: float = 0.0
    ace_variant: str = "paper"
    push: float = 0.0
    push_margin: float = 1.0


PRESETS = {
    "ctc": LossConfig(),
    # TensorFlow original: emitting frames, centers from zero with Wen's update, half the sum.
    "flow1": LossConfig("counted", "zeros", "delta", "half_sum", 1e-5),
    # PyTorch port, corrected: random centers that are a parameter, the mean.
    "flow1-torch": LossConfig("counted", "normal", "gradient", "mean", 1e-5),
    # PaddleOCR: the best class of every frame, centers estimated beforehand and fixed.
    "flow2": LossConfig("predicted", "estimate", "fixed", "mean", 0.25),
    "aligned": LossConfig("aligned", "zeros", "delta", "mean", 0.01),
    "posterior": LossConfig("posterior", "zeros", "delta", "mean", 0.01),
}


@dataclass(frozen=True)
class OptimConfig:
    """AdamW or SGD with warm-up, cosine decay and gradient clipping."""

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


@dataclass(frozen=True)
class TrainConfig:
    """The configuration of a training step."""

    model: ModelConfig
    loss: LossConfig
    optim: OptimConfig


def schedule(config: OptimConfig, step: int) -> float:
    """Return the learning rate of a step: linear warm-up from 0, then cosine decay to ``final`` of the peak."""
    warmup = min(config.warmup, config.steps)
    if step < warmup:
        return config.learning_rate * step / warmup
    share = min((step - warmup) / (max(config.steps, warmup + 1) - warmup), 1.0)
    return config.learning_rate * ((1 - config.final) * (1 + math.cos(math.pi * share)) / 2 + config.final)


def init_state(config: TrainConfig, model: CRNN, start: CenterState | None = None) -> TrainState:
    """Initialize a train state around a model, which steps change in place; ``start`` replaces the preset's centers."""
    decayed, rest = [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (decayed if (name.endswith("weight") and "norm" not in name) or ".weight_" in name else rest).append(
                parameter
            )
    groups = [{"params": decayed, "weight_decay": config.optim.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    o = config.optim
    if o.optimizer == "sgd":
        optimizer: Any = torch.optim.SGD(groups, lr=o.learning_rate, momentum=o.momentum)
    else:
        optimizer = torch.optim.AdamW(groups, lr=o.learning_rate, betas=(o.beta1, o.beta2), eps=1e-8)
    C, D = model.head.weight.shape
    if config.loss.assignment == "none":
        start = None
    elif start is None:
        makers = {
            "zeros": lambda: centers.zeros(C, D),
            "normal": lambda: centers.normal(None, C, D),
            "head": lambda: centers.from_head(model.head.weight.T),
        }
        start = makers[config.loss.start]()
    return TrainState(0, model, optimizer, start)


def assigned(config: LossConfig, outputs: Outputs, batch: Batch, blank: int) -> Assignment:
    """Assign frames to classes as the config says."""
    if config.assignment == "predicted":
        return assign.predicted(outputs.logits, outputs.lengths, blank=blank, skip_blank=config.skip_blank)
    inputs = (outputs.logits, outputs.lengths, batch.labels, batch.label_lengths)
    if config.assignment == "counted":
        return assign.counted(*inputs, blank=blank, ignored=config.ignored)
    if config.assignment == "aligned":
        return assign.aligned(*inputs, blank=blank, frames=config.frames)
    return assign.posterior(*inputs, blank=blank)


def total(
    config: LossConfig, outputs: Outputs, batch: Batch, state: CenterState | None, *, blank: int = 0
) -> tuple[Tensor, dict[str, Tensor], Assignment | None]:
    """Compute the loss, its terms and the assignment.

    ``mean(CTC or focal) + ace * mean(ACE) + weight * center + push * push``.
    """
    inputs = (outputs.logits, outputs.lengths, batch.labels, batch.label_lengths)
    real = batch.widths > 0
    n = max(int(real.sum()), 1)
    info = {"ctc_sum": ctc.ctc_loss(*inputs, blank=blank)[real].sum()}
    loss = info["ctc_sum"] / n
    if config.focal:
        alpha, gamma = config.focal_alpha, config.focal_gamma
        info["focal_sum"] = losses.focal_ctc(*inputs, alpha=alpha, gamma=gamma, blank=blank)[real].sum()
        loss = info["focal_sum"] / n
    if config.ace:
        info["ace_sum"] = losses.ace(*inputs, blank=blank, variant=config.ace_variant)[real].sum()
        loss = loss + config.ace * info["ace_sum"] / n
    if state is None or config.assignment == "none":
        return loss, info, None
    assignment = assigned(config, outputs, batch, blank)
    info["center"] = losses.center(outputs.features, state.centers, assignment, reduction=config.reduction)
    loss = loss + config.weight * info["center"]
    if config.push:
        rivals = losses.lookalikes(outputs.logits, assignment.classes, excluded=(blank,))
        # Frames assigned to the blank are not pushed.
        rivals = torch.where(assignment.classes == blank, assignment.classes, rivals)
        info["push"] = losses.push(
            outputs.features, state.centers, assignment, rivals, margin=config.push_margin, reduction=config.reduction
        )
        loss = loss + config.push * info["push"]
    return loss, info, assignment


def train_step(config: TrainConfig, state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Tensor]]:
    """Run one step: loss, gradients, the optimizer's update, then the centers' update from their old values."""
    model, optimizer, loss_config = state.model, state.optimizer, config.loss
    model.train()
    optimizer.zero_grad()
    outputs = model(batch.images, batch.widths)
    loss, info, assignment = total(loss_config, outputs, batch, state.centers, blank=config.model.blank)
    loss.backward()
    parameters = [p for p in model.parameters() if p.grad is not None]
    norm = torch.sqrt(sum((p.grad**2).sum() for p in parameters))
    if norm >= config.optim.clip_norm:
        for p in parameters:
            p.grad *= config.optim.clip_norm / norm
    for group in optimizer.param_groups:
        group["lr"] = schedule(config.optim, state.step)
    optimizer.step()
    moved = state.centers
    if moved is not None and assignment is not None:
        features, update = outputs.features, loss_config.update
        if update == "delta":
            moved = centers.delta(moved, features, assignment, alpha=loss_config.alpha)
        elif update == "gradient":
            moved = centers.gradient(
                moved, features, assignment, learning_rate=loss_config.center_rate, reduction=loss_config.reduction
            )
    info |= {"loss": loss, "grad_norm": norm}
    return TrainState(state.step + 1, model, optimizer, moved), {k: v.detach() for k, v in info.items()}
