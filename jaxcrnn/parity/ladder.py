"""Parity ladder: both implementations answer one task, and all answers are compared by name.

The task consists of arrays and a JSON text. `jaxcrnn.parity.answers` answers it in this process and ``torch_ref`` in a
subprocess, so neither package imports the other. The rungs are operations, blocks, the forward pass, the loss of each
preset with its gradients, one step, and ten steps.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcrnn import convert, decode
from jaxcrnn.errors import UserError
from jaxcrnn.model import CRNN, ModelConfig
from jaxcrnn.objective import PRESETS, LossConfig
from jaxcrnn.optim import OptimConfig
from jaxcrnn.parity.answers import Answers
from jaxcrnn.types import Batch

NOTHING = 1e-8  # lower bound of the maximum that errors are divided by
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
    # Measured errors with a margin for other machines; Adam's steps depend on the signs of gradients close to 0.
    "float32": {
        "ops": 2e-5,
        "blocks": 2e-5,
        "forward": 2e-5,
        "loss": 2e-5,
        "gradients": 1e-3,
        "step 1": 5e-3,
        "step 10": 5e-2,
    },
    # Products of NVIDIA GPUs with 10 bits of mantissa, as in training. Estimates: not measured yet.
    "tensorfloat32": {
        "ops": 1e-3,
        "blocks": 5e-3,
        "forward": 5e-3,
        "loss": 5e-3,
        "gradients": 5e-2,
        "step 1": 1e-1,
        "step 10": 3e-1,
    },
}
OPTIM = {
    "sgd": OptimConfig("sgd", steps=20, warmup=0, learning_rate=1e-2, weight_decay=1e-3, clip_norm=5.0),
    "adamw": OptimConfig("adamw", steps=20, warmup=0, learning_rate=1e-3, weight_decay=1e-2, clip_norm=5.0),
}


class Rung(NamedTuple):
    """One row of the ladder.

    Attributes:
      name: name of the rung, such as ``"step 10"``.
      part: preset and optimizer, or operation.
      arrays: number of compared arrays.
      error: largest ``max|a - b| / max|b|`` among them.
      worst: name of the array with the largest error.
      tolerance: maximum error.
    """

    name: str
    part: str
    arrays: int
    error: float
    worst: str
    tolerance: float

    @property
    def holds(self) -> bool:
        """Whether the error is within the tolerance; NaN is not."""
        return self.error <= self.tolerance


def _differences(model: ModelConfig) -> list[str]:
    """List the parts of a model that torch_ref does not have."""
    plain, names = ModelConfig(), [f.name for f in fields(model.imported) if f.name != "two_biases"]
    parts = [("model", model, plain, ["recurrent"]), ("imported", model.imported, plain.imported, names)]
    return [f"model.backbone={model.backbone}"] * (model.backbone not in ("vgg", "small", "tiny")) + [
        f"{section}.{name}={getattr(ours, name)}"
        for section, ours, theirs, names in parts
        for name in names
        if getattr(ours, name) != getattr(theirs, name)
    ]


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
    """Create a task: random inputs for both implementations.

    Args:
      model: configuration of the model.
      variables: ``{"params": ..., "batch_stats": ...}``.
      presets: presets for the loss, gradient and step rungs.
      optimizers: ``"sgd"``, ``"adamw"`` or both.
      loss: another loss for these rungs, under the name ``"run"``.
      dtype: ``"float64"``, ``"float32"``, or ``"tensorfloat32"`` for float32 whose products may be rounded to 10 bits
        in jaxcrnn, which only NVIDIA GPUs do.
      base: include the rungs that do not depend on the preset: operations, blocks and the forward pass.
      seed: random seed of the inputs.

    Raises:
      UserError: torch_ref has no such model.
    """
    if other := _differences(model):
        raise UserError(
            f"{', '.join(other)}: not supported by torch_ref; expected two BiLSTMs after vgg, small or tiny with "
            "defaults otherwise"
        )
    rng = np.random.default_rng(seed)
    frames, classes, size = 14, 9, 5
    variants = {name: LossConfig(name) for name in presets}
    if loss is not None:
        variants["run"] = loss
    kind = "float64" if dtype == "float64" else "float32"
    task: dict[str, Any] = {
        "model": {name: getattr(model, name) for name in ("backbone", "hidden", "standardize", "num_classes", "blank")},
        "losses": {name: _spelled(config) for name, config in variants.items()},
        "presets": list(variants),
        "optim": [_without(asdict(OPTIM[name]), "ema", "frozen") for name in optimizers],
        "steps": 10,
        "conv": model.conv,
        "blank": model.blank if model.blank == 0 else classes - 1,
        "dtype": kind,
        "products": "tensorfloat32" if dtype == "tensorfloat32" else "float32",
        "base": base,
    }
    logits = rng.normal(size=(6, frames, classes)) * 3
    lengths = np.asarray([frames, frames, 9, 6, 1, 0], np.int32)
    labels, label_lengths = _labels_that_are_read(rng, logits, lengths, task["blank"], 5)
    labels[1, :3], label_lengths[1] = 3, 3  # feasible repeats, then infeasible ones
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
        {name: np.asarray(value, kind) for name, value in floats.items()}
        | {name: np.asarray(value, np.int32) for name, value in whole.items()}
        | {"task": np.asarray(json.dumps(task))}
    )


def _spelled(config: LossConfig) -> dict[str, Any]:
    # The reference does not support user-defined functions.
    return _without(asdict(config) | config.parts._asdict(), "preset", "rule", "terms")


def _without(values: dict[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in names}


def _labels_that_are_read(rng: Any, logits: Any, lengths: Any, blank: int, slots: int) -> tuple[Any, Any]:
    """Make labels of which every other one equals the greedy decoding, so that some pass the count gate."""
    ids, counts = (np.asarray(a) for a in decode.greedy(jnp.asarray(logits), jnp.asarray(lengths), blank=blank))
    slots = max(slots, int(counts.max()))
    characters = [c for c in range(logits.shape[2]) if c != blank]
    labels = rng.choice(characters, (len(logits), slots)).astype(np.int32)
    sizes = np.minimum(rng.integers(0, 4, len(logits)), lengths // 2).astype(np.int32)
    for b in range(0, len(logits), 2):
        labels[b, : counts[b]], sizes[b] = ids[b, : counts[b]], counts[b]
    return labels, sizes


def _batch(rng: Any, model: ModelConfig, variables: Mapping[str, Any]) -> Batch:
    images = rng.uniform(-1, 1, (4, model.height, 40, 1))
    widths = np.asarray([40, 31, 22, 0], np.int32)
    single = replace(model, dtype="float32", dropout=0.0)
    apply = jax.jit(lambda v, x: CRNN(single).apply(v, x, widths, train=True, mutable=["batch_stats"])[0])
    out: Any = apply(jax.tree.map(lambda a: np.asarray(a, np.float32), dict(variables)), images.astype(np.float32))
    labels, sizes = _labels_that_are_read(rng, np.asarray(out.logits), np.asarray(out.lengths), model.blank, 4)
    arrays: Any = (images, widths, labels, np.where(widths > 0, sizes, 0))
    return Batch(*arrays)


def ask_torch(task: Answers) -> Answers:
    """Run ``torch_ref`` in a subprocess and return its answers.

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
            raise UserError("torch_ref cannot run because torch is not installed; install the extra 'torch'")
        if done.returncode:
            raise RuntimeError(f"torch_ref failed:\n{done.stderr}")
        with np.load(reply) as answers:
            return dict(answers)


def compare(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray], dtype: str) -> list[Rung]:
    """Build the ladder, lowest rung first; an answer that one side lacks counts as an infinite error."""
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
