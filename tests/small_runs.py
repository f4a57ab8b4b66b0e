"""The arguments of a training that takes seconds, and a run that was never trained."""

import json

import jax

from jaxcrnn.charset import Charset
from jaxcrnn.runs.checkpoint import Checkpoints
from jaxcrnn.runs.config import load
from jaxcrnn.runs.folder import create
from jaxcrnn.train import init_state

SMALL = [
    "model.backbone=tiny",
    "model.hidden=8",
    "model.dropout=0",
    "augment.probability=0",
    "data.batch_size=4",
    "data.buckets=1",
    "optim.warmup=2",
    "run.log_every=2",
    "run.eval_every=4",
]


def train_args(data, out, *more, steps=8, val=True):
    settings = [*SMALL, f"optim.steps={steps}"]
    return [
        "train",
        "--data",
        str(data),
        *(["--val", str(data)] if val else []),
        "--out",
        str(out),
        "--set",
        *settings,
        *more,
    ]


def untrained(folder, data, characters="0123456789"):
    """A run folder with random weights, for what reads one: no training step is compiled for it."""
    run = create(folder, load(overrides=[*SMALL, f"data.train={data}"]), Charset(characters), {})
    with Checkpoints(folder / "checkpoints") as checkpoints:
        checkpoints.save(init_state(run.train_config, jax.random.key(0)), {}, None)
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 0, "ctc": 9.0}) + "\n")
    return folder
