"""The parity ladder: both frameworks answer one task, and every answer is compared by name.

The task is arrays and a JSON text; `torch_ref` answers it in a process of its own, so neither package imports the
other. Rungs: operations, blocks, the forward pass, each preset's loss with its gradients, one step, several steps.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxcrnn import assign, centers, convert, ctc, decode, diagnostics, losses, objective
from jaxcrnn.augment import AugmentConfig
from jaxcrnn.backbones import Backbone
from jaxcrnn.errors import UserError
from jaxcrnn.model import CRNN, ModelConfig, standardized
from jaxcrnn.objective import PRESETS, LossConfig
from jaxcrnn.optim import OptimConfig
from jaxcrnn.recurrent import BiLSTM
from jaxcrnn.train import TrainConfig, init_state, train_step
from jaxcrnn.types import Assignment, Batch, CenterState, Outputs

Answers = dict[str, np.ndarray]
NOTHING = 1e-8  # an array smaller than this all over is compared with this instead of with itself
TOLERANCES = {
    "float64": {
        "ops": 1e-9,
        "blocks": 1e-9,
        "forward": 1e-9,
        "loss": 1e-9,
        "gradients": 1e-9,
        "step 1": 1e-9,
        "step 10": 1e-6,
    },
    # What was measured with room for another machine; Adam's steps depend on the signs of gradients that are all but 0.
    "float32": {
        "ops": 2e-5,
        "blocks": 2e-5,
        "forward": 2e-5,
        "loss": 2e-5,
        "gradients": 1e-3,
        "step 1": 5e-3,
        "step 10": 5e-2,
    },
}
OPS = ("logits", "features", "centers", "counts", "lengths", "labels", "label_lengths")
OPTIM = {
    "sgd": OptimConfig("sgd", steps=20, warmup=0, learning_rate=1e-2, weight_decay=1e-3, clip_norm=5.0),
    "adamw": OptimConfig("adamw", steps=20, warmup=0, learning_rate=1e-3, weight_decay=1e-2, clip_norm=5.0),
}


class Rung(NamedTuple):
    """One line of the ladder.

    Attributes:
      name: such as ``"step 10"``.
      part: the preset and optimizer, or the operation.
      arrays: how many were compared.
      error: the largest ``max|a - b| / max|b|`` among them.
      worst: the array it comes from.
      tolerance: what it may be.
    """

    name: str
    part: str
    arrays: int
    error: float
    worst: str
    tolerance: float

    @property
    def holds(self) -> bool:
        """Whether the error is within the tolerance; not a number is not."""
        return self.error <= self.tolerance


def make_task(
    model: ModelConfig,
    variables: Mapping[str, Any],
    *,
    presets: Sequence[str] = tuple(PRESETS),
    optimizers: Sequence[str] = tuple(OPTIM),
    loss: LossConfig | None = None,
    dtype: str = "float64",
    base: bool = True,
    seed: int = 0,
) -> Answers:
    """Numbers for both sides to work on, none of them from data.

    Args:
      model: of the variables.
      variables: ``{"params": ..., "batch_stats": ...}``.
      presets: which to take the last rungs of.
      optimizers: ``"sgd"``, ``"adamw"`` or both.
      loss: another loss to take them of besides, under the name ``"run"``.
      dtype: ``"float64"`` or ``"float32"``.
      base: ask for the rungs that belong to no preset: operations, blocks and the forward pass.
      seed: of the numbers.
    """
    rng = np.random.default_rng(seed)
    frames, classes, size = 14, 9, 5
    known = {name: LossConfig(name) for name in presets}
    if loss is not None:
        known["run"] = loss
    task: dict[str, Any] = {
        "model": {name: getattr(model, name) for name in ("backbone", "hidden", "standardize", "num_classes", "blank")},
        "losses": {name: _spelled(config) for name, config in known.items()},
        "presets": list(known),
        "optim": [_without(asdict(OPTIM[name]), "ema") for name in optimizers],
        "steps": 10,
        "blank": model.blank if model.blank == 0 else classes - 1,
        "dtype": dtype,
        "base": base,
    }
    logits = rng.normal(size=(6, frames, classes)) * 3
    lengths = np.asarray([frames, frames, 9, 6, 1, 0], np.int32)
    labels, label_lengths = _labels_that_are_read(rng, logits, lengths, task["blank"], 5)
    labels[1, :3], label_lengths[1] = 3, 3  # repeats that fit, and repeats that do not
    labels[3, :4], label_lengths[3] = 3, 4
    features, start = rng.normal(size=(6, frames, size)), rng.normal(size=(classes, size))
    floats: dict[str, Any] = {
        "logits": logits,
        "features": features,
        "centers": start,
        "counts": rng.integers(0, 3, classes),
    }
    rows = rng.normal(size=(3, 6, 2 * model.hidden))
    batch = _batch(rng, model, variables)
    shape = (model.num_classes, 2 * model.hidden)
    floats |= {"rows": rows, "start/centers": rng.normal(size=shape) / 4, "start/counts": np.zeros(shape[0])}
    floats |= {"batch/images": batch.images}
    floats |= {f"model/{name}": value for name, value in convert.to_torch(variables).items()}
    whole = {"lengths": lengths, "labels": labels, "label_lengths": label_lengths, "row_lengths": np.asarray([6, 3, 1])}
    whole |= {f"batch/{name}": getattr(batch, name) for name in ("widths", "labels", "label_lengths")}
    return (
        {name: np.asarray(value, dtype) for name, value in floats.items()}
        | {name: np.asarray(value, np.int32) for name, value in whole.items()}
        | {"task": np.asarray(json.dumps(task))}
    )


def _spelled(config: LossConfig) -> dict[str, Any]:
    return _without(asdict(config) | config.parts._asdict(), "preset")


def _without(values: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != name}


def _labels_that_are_read(rng: Any, logits: Any, lengths: Any, blank: int, slots: int) -> tuple[Any, Any]:
    """Labels of which every other one is what greedy decoding reads, so that the count gate lets some pass."""
    ids, counts = (np.asarray(a) for a in decode.greedy(jnp.asarray(logits), jnp.asarray(lengths), blank=blank))
    slots = max(slots, int(counts.max()))
    characters = [c for c in range(logits.shape[2]) if c != blank]
    labels = rng.choice(characters, (len(logits), slots)).astype(np.int32)
    sizes = np.minimum(rng.integers(0, 4, len(logits)), lengths // 2).astype(np.int32)
    for b in range(0, len(logits), 2):
        labels[b, : counts[b]], sizes[b] = ids[b, : counts[b]], counts[b]
    return labels, sizes


def _batch(rng: Any, model: ModelConfig, variables: Mapping[str, Any]) -> Batch:
    images = rng.uniform(-1, 1, (4, model.height, 56, 1))
    widths = np.asarray([56, 41, 30, 0], np.int32)
    single = replace(model, dtype="float32", dropout=0.0)
    apply = jax.jit(lambda v, x: CRNN(single).apply(v, x, widths, train=True, mutable=["batch_stats"])[0])
    out: Any = apply(jax.tree.map(lambda a: np.asarray(a, np.float32), dict(variables)), images.astype(np.float32))
    labels, sizes = _labels_that_are_read(rng, np.asarray(out.logits), np.asarray(out.lengths), model.blank, 4)
    arrays: Any = (images, widths, labels, np.where(widths > 0, sizes, 0))
    return Batch(*arrays)


def answer(arrays: Mapping[str, np.ndarray]) -> Answers:
    """This package's answers to a task, in the task's precision."""
    task = json.loads(str(arrays["task"]))
    # Mixed integer widths are all that x64 mode adds; they need no strictness.
    # An accelerator would shorten float32 products to 10 bits of mantissa or fewer.
    with (
        jax.enable_x64(task["dtype"] == "float64"),
        jax.numpy_dtype_promotion("standard"),
        jax.default_matmul_precision("float32"),
    ):
        return _answer(task, arrays)


def answer_ops(arrays: Mapping[str, np.ndarray]) -> Answers:
    """The answers of the lowest rung alone, from the arrays that it needs of a task."""
    blank = json.loads(str(arrays["task"]))["blank"]
    double = arrays["logits"].dtype == np.float64
    with jax.enable_x64(double), jax.numpy_dtype_promotion("standard"), jax.default_matmul_precision("float32"):
        given = {name: jnp.asarray(arrays[name]) for name in OPS}
        return {f"ops/{name}": np.asarray(v) for name, v in jax.jit(_ops, static_argnums=1)(given, blank).items()}


def _answer(task: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> Answers:
    given = {name: jnp.asarray(value) for name, value in arrays.items() if name != "task"}
    variables = convert.from_torch(
        {name.removeprefix("model/"): value for name, value in arrays.items() if name.startswith("model/")}
    )
    model = ModelConfig(**task["model"], dtype=task["dtype"], dropout=0.0)
    batch = Batch(*(given[f"batch/{name}"] for name in Batch._fields))
    out: dict[str, Any] = {}
    if task["base"]:
        out |= answer_ops(arrays)
        out |= _forward(model, variables, batch, given)
    for preset, spelled in task["losses"].items():
        given_parts: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in spelled.items()}
        config = LossConfig(**given_parts)
        out |= _one_loss(replace(config, ignored=()), preset, given, task["blank"])
        for number, optim in enumerate(task["optim"]):
            train = TrainConfig(model, config, OptimConfig(**optim), AugmentConfig(probability=0.0))
            if number == 0:
                out |= _gradients(train, preset, variables, batch, given)
            out |= _steps(train, preset, task["steps"], variables, batch, given)
    known = [name for name in task["presets"] if name in PRESETS]
    out |= {
        f"loss/{name}/spelled": np.zeros(()) for name in known
    }  # torch_ref says 1 where it spells a preset otherwise
    return {name: np.asarray(value) for name, value in out.items()}


def _ops(given: Mapping[str, jax.Array], blank: int) -> dict[str, jax.Array]:
    logits, features, start = given["logits"], given["features"], given["centers"]
    known = (given["lengths"], given["labels"], given["label_lengths"])
    out = {"is_feasible": ctc.is_feasible(*known)}
    per_sample = {
        "ctc_loss": lambda x: ctc.ctc_loss(x, *known, blank=blank),
        "focal_ctc": lambda x: losses.focal_ctc(x, *known, blank=blank),
        "ace.paper": lambda x: losses.ace(x, *known, blank=blank, variant="paper"),
        "ace.paddle": lambda x: losses.ace(x, *known, blank=blank, variant="paddle"),
    }
    for name, loss in per_sample.items():
        out |= {name: loss(logits), f"{name}.gradient": jax.grad(lambda x, loss=loss: loss(x).mean())(logits)}
    out["slot_posteriors"] = ctc.slot_posteriors(logits, *known, blank=blank)
    out["best_path"] = ctc.best_path(logits, *known, blank=blank)
    state = CenterState(start, given["counts"])
    assignments = {
        "counted": assign.counted(logits, *known, blank=blank),
        "counted.ignored": assign.counted(logits, *known, blank=blank, ignored=(2,)),
        "predicted": assign.predicted(logits, known[0], blank=blank),
        "predicted.skip_blank": assign.predicted(logits, known[0], blank=blank, skip_blank=True),
        **{f"aligned.{f}": assign.aligned(logits, *known, blank=blank, frames=f) for f in assign.FRAMES},
        "posterior": assign.posterior(logits, *known, blank=blank),
    }
    for name, assignment in assignments.items():
        out |= {f"{name}.{part}": value for part, value in assignment._asdict().items()}
        rivals = diagnostics.lookalikes(logits, assignment.classes, excluded=(blank,))
        out[f"{name}.lookalikes"] = rivals
        for reduction in losses.REDUCTIONS:
            out |= _of_centers(f"{name}.{reduction}", features, start, assignment, rivals, reduction)
        moved = centers.delta(state, features, assignment, alpha=0.3)
        out |= {f"{name}.delta": moved.centers, f"{name}.delta.counts": moved.counts}
    grown = centers.accumulate(state, features, logits, *known, blank=blank)
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


def _forward(model: ModelConfig, variables: Any, batch: Batch, given: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    params, dtype = variables["params"], given["logits"].dtype
    lstm = BiLSTM(model.hidden, dtype)
    lines: Any = lstm.apply({"params": params["lstm1"]}, given["rows"], given["row_lengths"])
    for b, n in enumerate(given["row_lengths"].tolist()):
        out[f"blocks/bilstm.{b}"] = lines[b, :n]
    convolutions = {
        "params": params["backbone"],
        **({"batch_stats": variables["batch_stats"]["backbone"]} if variables["batch_stats"] else {}),
    }
    images = batch.images
    if model.standardize:
        images = standardized(images, batch.widths)

    @jax.jit
    def both(train_images: jax.Array) -> Any:
        parts = {}
        for mode in ("train", "eval"):
            backbone = Backbone(model.backbone, dtype)
            parts[mode] = (
                backbone.apply(convolutions, images, batch.widths, mode == "train", mutable=["batch_stats"])[0],
                CRNN(model).apply(
                    variables, train_images, batch.widths, train=mode == "train", mutable=["batch_stats"]
                ),
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


def _one_loss(config: LossConfig, preset: str, given: Mapping[str, Any], blank: int) -> dict[str, Any]:
    batch = Batch(given["logits"], given["lengths"], given["labels"], given["label_lengths"])
    state = CenterState(given["centers"], given["counts"]) if config.has_centers else None

    @jax.jit
    def value_and_gradients(logits: jax.Array, features: jax.Array) -> Any:
        def loss(logits: jax.Array, features: jax.Array) -> Any:
            value, (info, _) = objective.total(
                config, Outputs(logits, features, given["lengths"]), batch, state, blank=blank
            )
            return value, info

        return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(logits, features)

    (value, info), (d_logits, d_features) = value_and_gradients(given["logits"], given["features"])
    out = {"loss": value, "d_logits": d_logits, "d_features": d_features}
    out |= {name: info[name] for name in ("ctc_sum", "focal_sum", "ace_sum", "center", "push") if name in info}
    return {f"loss/{preset}/{name}": value for name, value in out.items()}


def _gradients(
    config: TrainConfig, preset: str, variables: Any, batch: Batch, given: Mapping[str, Any]
) -> dict[str, Any]:
    """Of the whole loss through the model, by every parameter and by the features."""
    state = CenterState(given["start/centers"], given["start/counts"]) if config.loss.has_centers else None

    @jax.jit
    def gradients(params: Any) -> Any:
        def loss(params: Any, nothing: jax.Array) -> jax.Array:
            parts = {"params": params, "batch_stats": variables["batch_stats"]}
            model = CRNN(config.model)
            out: Any = model.apply(parts, batch.images, batch.widths, train=True, mutable=["batch_stats"])[0]
            # The features with something added that is 0: its gradient is theirs, through the head too.
            features = out.features + nothing
            logits = features @ params["head"]["kernel"] + params["head"]["bias"][None, None]
            shown = out._replace(features=features, logits=logits)
            return objective.total(config.loss, shown, batch, state, blank=config.model.blank)[0]

        frames = config.model.frames(batch.images.shape[2])
        nothing = jnp.zeros((len(batch.widths), frames, 2 * config.model.hidden), batch.images.dtype)
        return jax.grad(loss, argnums=(0, 1))(params, nothing)

    by_params, by_features = gradients(variables["params"])
    named = convert.to_torch({"params": by_params, "batch_stats": variables["batch_stats"]})
    out = {n: v for n, v in named.items() if "running" not in n and "bias_hh" not in n} | {"features": by_features}
    return {f"gradients/{preset}/{name}": value for name, value in out.items()}


def _steps(
    config: TrainConfig, preset: str, count: int, variables: Any, batch: Batch, given: Mapping[str, Any]
) -> dict[str, Any]:
    start = CenterState(given["start/centers"], given["start/counts"])
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
    """The optimizer's moments under torch's names; after one step of SGD the momentum is the gradient."""
    out = {}
    for ours, theirs in (("trace", "momentum_buffer"), ("mu", "exp_avg"), ("nu", "exp_avg_sq")):
        found = optax.tree.get(state.opt_state, ours)
        if found is not None:
            for name, value in convert.to_torch({"params": found, "batch_stats": stats}).items():
                if "running" not in name and "bias_hh" not in name:
                    out[f"{prefix}/{theirs}.{name}"] = value
    return out


def ask_torch(task: Answers) -> Answers:
    """The answers of ``torch_ref``, from a process of its own.

    Raises:
      UserError: torch is not installed.
      RuntimeError: torch_ref failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        question, reply = Path(folder, "task.npz"), Path(folder, "answer.npz")
        np.savez(question, **task)  # type: ignore[arg-type]
        command = [sys.executable, "-m", "torch_ref", str(question), str(reply)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if "No module named 'torch" in done.stderr or "No module named torch_ref" in done.stderr:
            raise UserError("torch_ref gave no answer: torch is not installed; expected the extra 'torch'")
        if done.returncode:
            raise RuntimeError(f"torch_ref failed:\n{done.stderr}")
        with np.load(reply) as answers:
            return dict(answers)


def compare(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray], dtype: str) -> list[Rung]:
    """The ladder, lowest rung first. An answer that one side lacks is an infinite error."""
    groups: dict[tuple[str, str], dict[str, float]] = {}
    for name in sorted(ours.keys() | theirs.keys()):
        rung, _, rest = name.partition("/")
        part = "/".join(rest.split("/")[:2]) if rung.startswith("step") else rest.split("/")[0].split(".")[0]
        part = rest.split("/")[0] if rung in ("loss", "gradients") else part
        groups.setdefault((rung, part), {})[rest] = _error(ours.get(name), theirs.get(name))
    order = list(TOLERANCES[dtype])
    ladder = []
    for (rung, part), errors in sorted(groups.items(), key=lambda item: (order.index(item[0][0]), item[0][1])):
        worst = max(errors, key=lambda name: (np.isnan(errors[name]), errors[name]))
        ladder.append(Rung(rung, part, len(errors), errors[worst], worst, TOLERANCES[dtype][rung]))
    return ladder


def _error(a: np.ndarray | None, b: np.ndarray | None) -> float:
    if a is None or b is None or a.shape != b.shape:
        return float("inf")
    if not a.size:
        return 0.0
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(np.abs(a - b).max() / max(np.abs(b).max(), NOTHING))
