"""Answers to a parity task: every quantity of every preset, computed by this reference.

A task is a dict of arrays with a JSON text under ``"task"``; an answer is a dict of arrays by name. Any other program
that answers the same task can be compared name by name: ``python -m torch_ref TASK.npz ANSWER.npz``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torch_ref import assign, centers, ctc, losses
from torch_ref.model import CRNN, ModelConfig
from torch_ref.train import PRESETS, LossConfig, OptimConfig, TrainConfig, init_state, total, train_step
from torch_ref.types import Assignment, Batch, CenterState, Outputs

Answers = dict[str, np.ndarray]


def answer(arrays: Mapping[str, np.ndarray]) -> Answers:
    """Answer a task."""
    task = json.loads(str(arrays["task"]))
    tensors = {name: torch.tensor(np.asarray(value)) for name, value in arrays.items() if name != "task"}
    out: Answers = {}
    batch = Batch(*(tensors[f"batch/{name}"] for name in Batch._fields))
    state = CenterState(tensors["start/centers"], tensors["start/counts"])
    weights = {name.removeprefix("model/"): value for name, value in tensors.items() if name.startswith("model/")}
    if task["base"]:
        out |= {f"ops/{name}": value for name, value in ops(tensors, task["blank"]).items()}
        out |= blocks(task, weights, batch, tensors)
    for preset in task["presets"]:
        # Ignored classes belong to the model's charset, not to the few classes of the task's logits.
        out |= one_loss(replace(LossConfig(**task["losses"][preset]), ignored=()), preset, tensors, task["blank"])
        if task["optim"]:
            out |= gradients(task, preset, weights, batch, state)
        for optim in task["optim"]:
            out |= steps(task, preset, OptimConfig(**optim), weights, batch, state)
    for name in task["presets"]:
        if name in PRESETS:
            out[f"loss/{name}/spelled"] = np.asarray(float(_differs(task["losses"][name], PRESETS[name])))
    return out


def _differs(theirs: Mapping[str, Any], ours: LossConfig) -> bool:
    """Check whether a preset of the other program has different values."""
    names = ("assignment", "start", "update", "reduction", "weight", "alpha", "center_rate")
    return any(theirs[name] != getattr(ours, name) for name in names)


def _numpy(value: Tensor) -> np.ndarray:
    return value.detach().numpy().copy()


def ops(tensors: Mapping[str, Tensor], blank: int) -> Answers:
    """Compute losses, assignments and center rules for the task's logits and features, with gradients."""
    logits, features, start = tensors["logits"], tensors["features"], tensors["centers"]
    labels = (tensors["lengths"], tensors["labels"], tensors["label_lengths"])
    out: Answers = {"is_feasible": _numpy(ctc.is_feasible(*labels))}
    per_sample = {
        "ctc_loss": lambda x: ctc.ctc_loss(x, *labels, blank=blank),
        "focal_ctc": lambda x: losses.focal_ctc(x, *labels, blank=blank),
        "ace.paper": lambda x: losses.ace(x, *labels, blank=blank, variant="paper"),
        "ace.paddle": lambda x: losses.ace(x, *labels, blank=blank, variant="paddle"),
    }
    every = torch.arange(logits.shape[2]).expand(*labels[1].shape, -1)  # of each slot, all classes are candidates
    per_sample["swap"] = lambda x: losses.swap(x, *labels, every, margin=1.0, blank=blank)
    for name, loss in per_sample.items():
        x = logits.clone().requires_grad_()
        value = loss(x)
        out |= {name: _numpy(value), f"{name}.gradient": _numpy(torch.autograd.grad(value.mean(), x)[0])}
    ratios = ctc.single_swaps(logits, *labels, every, blank=blank)
    finite = torch.isfinite(ratios)
    out |= {"single_swaps": _numpy(torch.where(finite, ratios, 0.0)), "single_swaps.finite": _numpy(finite)}
    out["slot_posteriors"] = _numpy(ctc.slot_posteriors(logits, *labels, blank=blank))
    out["best_path"] = _numpy(ctc.best_path(logits, *labels, blank=blank))
    assignments = {
        "counted": assign.counted(logits, *labels, blank=blank),
        "counted.ignored": assign.counted(logits, *labels, blank=blank, ignored=(2,)),
        "predicted": assign.predicted(logits, labels[0], blank=blank),
        "predicted.skip_blank": assign.predicted(logits, labels[0], blank=blank, skip_blank=True),
        **{
            f"aligned.{f}": assign.aligned(logits, *labels, blank=blank, frames=f)
            for f in ("last", "first", "best", "all")
        },
        "posterior": assign.posterior(logits, *labels, blank=blank),
    }
    for name, assignment in assignments.items():
        out |= {f"{name}.{part}": _numpy(value) for part, value in assignment._asdict().items()}
        rivals = losses.lookalikes(logits, assignment.classes, excluded=(blank,))
        out[f"{name}.lookalikes"] = _numpy(rivals)
        for reduction in ("mean", "half_sum"):
            out |= _of_centers(f"{name}.{reduction}", features, start, assignment, rivals, reduction)
        state = CenterState(start, tensors["counts"])
        moved = centers.delta(state, features, assignment, alpha=0.3)
        out |= {f"{name}.delta": _numpy(moved.centers), f"{name}.delta.counts": _numpy(moved.counts)}
    state = centers.accumulate(CenterState(start, tensors["counts"]), features, logits, *labels, blank=blank)
    return out | {"accumulate": _numpy(state.centers), "accumulate.counts": _numpy(state.counts)}


def _of_centers(
    name: str, features: Tensor, start: Tensor, assignment: Assignment, rivals: Tensor, reduction: str
) -> Answers:
    f, c = features.clone().requires_grad_(), start.clone().requires_grad_()
    pull = losses.center(f, c, assignment, reduction=reduction)
    push = losses.push(f, c, assignment, rivals, margin=2.0, reduction=reduction)
    out = {f"{name}.center": _numpy(pull), f"{name}.push": _numpy(push)}
    for what, value in (("center", pull), ("push", push)):
        d_f, d_c = torch.autograd.grad(value, (f, c), allow_unused=True)
        out[f"{name}.{what}.d_features"] = _numpy(torch.zeros_like(f) if d_f is None else d_f)
        out[f"{name}.{what}.d_centers"] = _numpy(torch.zeros_like(c) if d_c is None else d_c)
    state = CenterState(start, torch.zeros(len(start), dtype=start.dtype))
    moved = centers.gradient(state, features, assignment, learning_rate=0.3, reduction=reduction)
    return out | {f"{name}.gradient": _numpy(moved.centers)}


def make_model(task: Mapping[str, Any], weights: Mapping[str, Tensor]) -> CRNN:
    """Build the task's model in the precision of its weights."""
    dtype = next(iter(weights.values())).dtype
    model = CRNN(ModelConfig(**task["model"])).to(dtype)
    model.load_state_dict(dict(weights))
    return model


def blocks(
    task: Mapping[str, Any], weights: Mapping[str, Tensor], batch: Batch, tensors: Mapping[str, Tensor]
) -> Answers:
    """Compute the convolutions, one LSTM on rows of different lengths, and the forward pass in both modes."""
    out: Answers = {}
    model = make_model(task, weights)
    rows = [x[:n] for x, n in zip(tensors["rows"], tensors["row_lengths"].tolist(), strict=True)]
    packed = torch.nn.utils.rnn.pack_sequence(rows, enforce_sorted=False)
    for b, line in enumerate(torch.nn.utils.rnn.unpack_sequence(model.lstm1(packed)[0])):
        out[f"blocks/bilstm.{b}"] = _numpy(line)
    for mode in ("train", "eval"):
        model = make_model(task, weights).train(mode == "train")
        for b, row in enumerate(model.rows(batch.images, batch.widths)):
            out[f"blocks/backbone.{mode}.{b}"] = _numpy(row)
        model = make_model(task, weights).train(mode == "train")
        outputs = model(batch.images, batch.widths)
        out |= _valid(f"forward/{mode}", outputs)
        out |= {
            f"forward/{mode}/{name}": _numpy(value) for name, value in model.state_dict().items() if "running" in name
        }
    return out


def _valid(prefix: str, outputs: Outputs) -> Answers:
    """Return the logits and features of valid frames, one line after the other."""
    inside = torch.arange(outputs.logits.shape[1])[None, :] < outputs.lengths[:, None]
    parts = {"logits": outputs.logits[inside], "features": outputs.features[inside], "lengths": outputs.lengths}
    return {f"{prefix}/{name}": _numpy(value) for name, value in parts.items()}


def one_loss(config: LossConfig, preset: str, tensors: Mapping[str, Tensor], blank: int) -> Answers:
    """Compute a preset's loss for the task's logits and features, its terms, and its gradients with respect to both."""
    logits, features = tensors["logits"].clone().requires_grad_(), tensors["features"].clone().requires_grad_()
    outputs = Outputs(logits, features, tensors["lengths"])
    batch = Batch(logits, tensors["lengths"], tensors["labels"], tensors["label_lengths"])
    state = None if config.assignment == "none" else CenterState(tensors["centers"], tensors["counts"])
    loss, info, _ = total(config, outputs, batch, state, blank=blank)
    d_logits, d_features = torch.autograd.grad(loss, (logits, features), allow_unused=True)
    out = {f"loss/{preset}/{name}": _numpy(value) for name, value in ({"loss": loss} | info).items()}
    out[f"loss/{preset}/d_logits"] = _numpy(d_logits)
    out[f"loss/{preset}/d_features"] = _numpy(torch.zeros_like(features) if d_features is None else d_features)
    return out


def gradients(
    task: Mapping[str, Any], preset: str, weights: Mapping[str, Tensor], batch: Batch, start: CenterState
) -> Answers:
    """Compute the gradient of a preset's loss with respect to every parameter and the features."""
    config = LossConfig(**task["losses"][preset])
    model = make_model(task, weights).train()
    outputs = model(batch.images, batch.widths)
    outputs.features.retain_grad()
    loss, _, _ = total(config, outputs, batch, start, blank=task["model"]["blank"])
    loss.backward()
    out = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    return {f"gradients/{preset}/{name}": _numpy(v) for name, v in (out | {"features": outputs.features.grad}).items()}


def steps(
    task: Mapping[str, Any],
    preset: str,
    optim: OptimConfig,
    weights: Mapping[str, Tensor],
    batch: Batch,
    start: CenterState,
) -> Answers:
    """Return parameters, statistics, moments and centers after the first and the last step."""
    config = TrainConfig(ModelConfig(**task["model"]), LossConfig(**task["losses"][preset]), optim)
    state = init_state(config, make_model(task, weights), start)
    out: Answers = {}
    for step in range(1, task["steps"] + 1):
        state, info = train_step(config, state, batch)
        if step not in (1, task["steps"]):
            continue
        prefix = f"step {step}/{preset}/{optim.optimizer}"
        out |= {f"{prefix}/info.{name}": _numpy(value) for name, value in info.items()}
        out |= {f"{prefix}/{name}": _numpy(value) for name, value in state.model.state_dict().items()}
        if step == 1:
            out |= _moments(prefix, state)
        if state.centers is not None:
            out |= {f"{prefix}/{name}": _numpy(value) for name, value in state.centers._asdict().items()}
    return out


def _moments(prefix: str, state: Any) -> Answers:
    """Return the moments of the optimizer."""
    out: Answers = {}
    for name, parameter in state.model.named_parameters():
        if not parameter.requires_grad:
            continue
        kept = state.optimizer.state[parameter]
        for key in ("momentum_buffer", "exp_avg", "exp_avg_sq"):
            if key in kept:
                out[f"{prefix}/{key}.{name}"] = _numpy(kept[key])
    return out
