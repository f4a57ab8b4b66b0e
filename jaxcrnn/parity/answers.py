"""jaxcrnn's answers to a parity task: every quantity of every loss variant, by name.

`jaxcrnn.parity.ladder` creates the task; ``torch_ref.answers`` is the PyTorch port of this module.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxcrnn import assign, centers, convert, ctc, diagnostics, losses, objective
from jaxcrnn.augment import AugmentConfig
from jaxcrnn.model import CRNN, ModelConfig, standardized
from jaxcrnn.nn.backbones import Backbone
from jaxcrnn.nn.lstm import BiLSTM
from jaxcrnn.objective import PRESETS, LossConfig
from jaxcrnn.optim import OptimConfig
from jaxcrnn.train import TrainConfig, init_state, train_step
from jaxcrnn.types import Assignment, Batch, CenterState, Outputs

Answers = dict[str, np.ndarray]
OPS = ("logits", "features", "centers", "counts", "lengths", "labels", "label_lengths")


@contextlib.contextmanager
def _exact(task: Mapping[str, Any]) -> Iterator[None]:
    """Set the precision of a task.

    Strict dtype promotion is off, because x64 mode mixes integer widths. Matrix products use full float32, because
    accelerators would round their inputs to 10 bits of mantissa or fewer, unless the task names another precision;
    recorded tasks name none.
    """
    with (
        jax.enable_x64(task["dtype"] == "float64"),
        jax.numpy_dtype_promotion("standard"),
        jax.default_matmul_precision(task.get("products", "float32")),
    ):
        yield


def answer(arrays: Mapping[str, np.ndarray]) -> Answers:
    """Compute all answers to a task, in its precision."""
    task = json.loads(str(arrays["task"]))
    with _exact(task):
        return {name: np.asarray(value) for name, value in _answer(task, arrays).items()}


def answer_ops(arrays: Mapping[str, np.ndarray]) -> Answers:
    """Compute the answers of the lowest rung only, which needs the arrays of ``OPS``."""
    task = json.loads(str(arrays["task"]))
    with _exact(task):
        return {name: np.asarray(value) for name, value in _lowest(task, arrays).items()}


def _lowest(task: Mapping[str, Any], arrays: Mapping[str, Any]) -> dict[str, Any]:
    inputs = {name: jnp.asarray(arrays[name]) for name in OPS}
    return {f"ops/{name}": value for name, value in jax.jit(_ops, static_argnums=1)(inputs, task["blank"]).items()}


def _answer(task: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    inputs = {name: jnp.asarray(value) for name, value in arrays.items() if name != "task"}
    variables = convert.from_torch(
        {name.removeprefix("model/"): value for name, value in arrays.items() if name.startswith("model/")}
    )
    model = ModelConfig(**task["model"], conv=task["conv"], dtype=task["dtype"], dropout=0.0)
    batch = Batch(*(inputs[f"batch/{name}"] for name in Batch._fields))
    out: dict[str, Any] = {}
    if task["base"]:
        out |= _lowest(task, inputs)
        out |= _forward(model, variables, batch, inputs)
    for preset, spelled in task["losses"].items():
        parts: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in spelled.items()}
        config = LossConfig(**parts)
        out |= _one_loss(replace(config, ignored=()), preset, inputs, task["blank"])
        for number, optim in enumerate(task["optim"]):
            train = TrainConfig(model, config, OptimConfig(**optim), AugmentConfig(probability=0.0))
            if number == 0:
                out |= _gradients(train, preset, variables, batch, inputs)
            out |= _steps(train, preset, task["steps"], variables, batch, inputs)
        if preset in PRESETS:
            # torch_ref answers 1 if its preset of that name has other parts than the task's.
            out[f"loss/{preset}/spelled"] = np.zeros(())
    return out


def _ops(inputs: Mapping[str, jax.Array], blank: int) -> dict[str, jax.Array]:
    logits, features, start = inputs["logits"], inputs["features"], inputs["centers"]
    labels = (inputs["lengths"], inputs["labels"], inputs["label_lengths"])
    out = {"is_feasible": ctc.is_feasible(*labels)}
    per_sample = {
        "ctc_loss": lambda x: ctc.ctc_loss(x, *labels, blank=blank),
        "focal_ctc": lambda x: losses.focal_ctc(x, *labels, blank=blank),
        "ace.paper": lambda x: losses.ace(x, *labels, blank=blank, variant="paper"),
        "ace.paddle": lambda x: losses.ace(x, *labels, blank=blank, variant="paddle"),
    }
    every = jnp.broadcast_to(jnp.arange(logits.shape[2]), (*labels[1].shape, logits.shape[2]))
    per_sample["swap"] = lambda x: losses.swap(x, *labels, every, margin=1.0, blank=blank)
    for name, loss in per_sample.items():
        out |= {name: loss(logits), f"{name}.gradient": jax.grad(lambda x, loss=loss: loss(x).mean())(logits)}
    ratios = ctc.single_swaps(logits, *labels, every, blank=blank)
    finite = jnp.isfinite(ratios)
    out |= {"single_swaps": jnp.where(finite, ratios, 0.0), "single_swaps.finite": finite}
    out["slot_posteriors"] = ctc.slot_posteriors(logits, *labels, blank=blank)
    out["best_path"] = ctc.best_path(logits, *labels, blank=blank)
    state = CenterState(start, inputs["counts"])
    assignments = {
        "counted": assign.counted(logits, *labels, blank=blank),
        "counted.ignored": assign.counted(logits, *labels, blank=blank, ignored=(2,)),
        "predicted": assign.predicted(logits, labels[0], blank=blank),
        "predicted.skip_blank": assign.predicted(logits, labels[0], blank=blank, skip_blank=True),
        **{f"aligned.{f}": assign.aligned(logits, *labels, blank=blank, frames=f) for f in assign.FRAMES},
        "posterior": assign.posterior(logits, *labels, blank=blank),
    }
    for name, assignment in assignments.items():
        out |= {f"{name}.{part}": value for part, value in assignment._asdict().items()}
        rivals = diagnostics.top_rival(logits, assignment.classes, excluded=(blank,))
        out[f"{name}.lookalikes"] = rivals
        for reduction in losses.REDUCTIONS:
            out |= _of_centers(f"{name}.{reduction}", features, start, assignment, rivals, reduction)
        moved = centers.delta(state, features, assignment, alpha=0.3)
        out |= {f"{name}.delta": moved.centers, f"{name}.delta.counts": moved.counts}
    grown = centers.accumulate(state, features, logits, *labels, blank=blank)
    return out | {"accumulate": grown.centers, "accumulate.counts": grown.counts}


def _of_centers(
    name: str, features: jax.Array, start: jax.Array, assignment: Assignment, rivals: jax.Array, reduction: str
) -> dict[str, jax.Array]:
    out = {}
    terms = {
        "center": lambda f, c: losses.center(f, c, assignment, reduction=reduction),
        "push": lambda f, c: losses.push(f, c, assignment, rivals, margin=2.0, reduction=reduction),
    }
    for what, term in terms.items():
        out[f"{name}.{what}"], (d_f, d_c) = jax.value_and_grad(term, argnums=(0, 1))(features, start)
        out |= {f"{name}.{what}.d_features": d_f, f"{name}.{what}.d_centers": d_c}
    state = CenterState(start, jnp.zeros(len(start), start.dtype))
    moved = centers.gradient(state, features, assignment, learning_rate=0.3, reduction=reduction)
    return out | {f"{name}.gradient": moved.centers}


def _forward(model: ModelConfig, variables: Any, batch: Batch, inputs: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    params, dtype = variables["params"], inputs["logits"].dtype
    lstm = jax.jit(BiLSTM(model.hidden, dtype).apply)
    lines: Any = lstm({"params": params["lstm1"]}, inputs["rows"], inputs["row_lengths"])
    for b, n in enumerate(inputs["row_lengths"].tolist()):
        out[f"blocks/bilstm.{b}"] = lines[b, :n]
    convolutions = {
        "params": params["backbone"],
        **({"batch_stats": variables["batch_stats"]["backbone"]} if variables["batch_stats"] else {}),
    }

    @jax.jit
    def both(images: jax.Array) -> Any:
        seen = standardized(images, batch.widths) if model.standardize else images
        parts = {}
        for mode in ("train", "eval"):
            backbone = Backbone(model.backbone, dtype, winograd=model.conv == "winograd")
            parts[mode] = (
                backbone.apply(convolutions, seen, batch.widths, mode == "train", mutable=["batch_stats"])[0],
                CRNN(model).apply(variables, images, batch.widths, train=mode == "train", mutable=["batch_stats"]),
            )
        return parts

    for mode, ((rows, lengths), (outputs, changed)) in both(batch.images).items():
        for b, n in enumerate(lengths.tolist()):
            out[f"blocks/backbone.{mode}.{b}"] = rows[b, :n]
        inside = np.arange(outputs.logits.shape[1])[None, :] < np.asarray(outputs.lengths)[:, None]
        out[f"forward/{mode}/logits"] = np.asarray(outputs.logits)[inside]
        out[f"forward/{mode}/features"] = np.asarray(outputs.features)[inside]
        out[f"forward/{mode}/lengths"] = outputs.lengths
        stats = changed.get("batch_stats", variables["batch_stats"])
        named = convert.to_torch({"params": params, "batch_stats": stats})
        out |= {f"forward/{mode}/{name}": value for name, value in named.items() if "running" in name}
    return out


def _one_loss(config: LossConfig, preset: str, inputs: Mapping[str, Any], blank: int) -> dict[str, Any]:
    batch = Batch(inputs["logits"], inputs["lengths"], inputs["labels"], inputs["label_lengths"])
    state = CenterState(inputs["centers"], inputs["counts"]) if config.has_centers else None

    @jax.jit
    def value_and_gradients(logits: jax.Array, features: jax.Array) -> Any:
        def loss(logits: jax.Array, features: jax.Array) -> Any:
            outputs = Outputs(logits, features, inputs["lengths"])
            value, (info, _) = objective.loss_terms(objective.flow(config), outputs, batch, state, blank=blank)
            return value, info

        return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(logits, features)

    (value, info), (d_logits, d_features) = value_and_gradients(inputs["logits"], inputs["features"])
    out = {"loss": value, "d_logits": d_logits, "d_features": d_features}
    out |= {name: info[name] for name in ("ctc_sum", "focal_sum", "ace_sum", "center", "push") if name in info}
    return {f"loss/{preset}/{name}": value for name, value in out.items()}


def _gradients(
    config: TrainConfig, preset: str, variables: Any, batch: Batch, inputs: Mapping[str, Any]
) -> dict[str, Any]:
    """Compute the gradients of the whole loss by every parameter and by the features."""
    state = CenterState(inputs["start/centers"], inputs["start/counts"]) if config.loss.has_centers else None

    @jax.jit
    def gradients(params: Any) -> Any:
        def loss(params: Any, nothing: jax.Array) -> jax.Array:
            parts = {"params": params, "batch_stats": variables["batch_stats"]}
            model = CRNN(config.model)
            out: Any = model.apply(parts, batch.images, batch.widths, train=True, mutable=["batch_stats"])[0]
            # The gradient by an added zero is the gradient by the features, including the path through the head.
            features = out.features + nothing
            logits = features @ params["head"]["kernel"] + params["head"]["bias"][None, None]
            shown = out._replace(features=features, logits=logits)
            flow = objective.flow(config.loss)
            return objective.loss_terms(flow, shown, batch, state, blank=config.model.blank)[0]

        frames = config.model.frames(batch.images.shape[2])
        nothing = jnp.zeros((len(batch.widths), frames, 2 * config.model.hidden), batch.images.dtype)
        return jax.grad(loss, argnums=(0, 1))(params, nothing)

    by_params, by_features = gradients(variables["params"])
    named = convert.to_torch({"params": by_params, "batch_stats": variables["batch_stats"]})
    out = {n: v for n, v in named.items() if "running" not in n and "bias_hh" not in n} | {"features": by_features}
    return {f"gradients/{preset}/{name}": value for name, value in out.items()}


def _steps(
    config: TrainConfig, preset: str, count: int, variables: Any, batch: Batch, inputs: Mapping[str, Any]
) -> dict[str, Any]:
    start = CenterState(inputs["start/centers"], inputs["start/counts"])
    key = jax.random.key(0)
    state = init_state(config, key, variables=variables, centers=start if config.loss.has_centers else None)
    step = jax.jit(train_step)
    out: dict[str, Any] = {}
    for number in range(1, count + 1):
        state, info = step(config, state, batch, key)
        if number not in (1, count):
            continue
        prefix = f"step {number}/{preset}/{config.optim.optimizer}"
        terms = ("ctc_sum", "focal_sum", "ace_sum", "center", "push", "loss", "grad_norm")
        out |= {f"{prefix}/info.{name}": info[name] for name in terms if name in info}
        named = convert.to_torch({"params": state.params, "batch_stats": state.batch_stats})
        out |= {f"{prefix}/{name}": value for name, value in named.items()}
        if number == 1:
            out |= _moments(prefix, state, variables["batch_stats"])
        if state.centers is not None:
            out |= {f"{prefix}/{name}": value for name, value in state.centers._asdict().items()}
    return out


def _moments(prefix: str, state: Any, stats: Any) -> dict[str, Any]:
    """Return the optimizer's moments under torch's names; after one step of SGD the momentum is the gradient."""
    out = {}
    for ours, theirs in (("trace", "momentum_buffer"), ("mu", "exp_avg"), ("nu", "exp_avg_sq")):
        moments = optax.tree.get(state.opt_state, ours)
        if moments is not None:
            for name, value in convert.to_torch({"params": moments, "batch_stats": stats}).items():
                if "running" not in name and "bias_hh" not in name:
                    out[f"{prefix}/{theirs}.{name}"] = value
    return out
