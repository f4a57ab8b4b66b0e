"""The arguments of a training that takes seconds."""

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
