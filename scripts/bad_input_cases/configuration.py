"""Values of configuration keys, batches without memory for them, and changed runs."""

from pathlib import Path

from case import SMALL, Case

TITLE = "Configuration, memory and resuming"
NUMBERS = [
    ("a learning rate that is not a number", "optim.learning_rate=.nan"),
    ("an infinite learning rate", "optim.learning_rate=.inf"),
    ("a learning rate that is 0 in float32", "optim.learning_rate=1e-60"),
    ("a decay rate of 1.5", "optim.beta1=1.5"),
    ("a decay rate of 1", "optim.beta2=1"),
    ("a decay rate that is 1 in float32", "optim.beta2=0.999999999"),
    ("a negative weight decay", "optim.weight_decay=-1"),
    ("a momentum of 2", "optim.momentum=2"),
    ("a negative warm-up", "optim.warmup=-5"),
    ("a negative final learning rate", "optim.final=-1"),
    ("a norm that is not a number", "optim.clip_norm=.nan"),
    ("a negative warm-up of the augmentation", "augment.warmup=-1"),
    ("a line squeezed to nothing", "augment.squeeze=1"),
    ("a negative cache", "data.cache_mb=-1"),
    ("a negative weight of a data set", "data.weights=[-1]"),
    ("a seed that does not fit into 32 bits", "run.seed=4294967296"),
]
HUGE = "2000000000"


def prepare(root: Path) -> None:
    del root  # no files


def cases() -> list[Case]:
    train = ["train", "--data", "good.txt", "--out", "new", *SMALL]
    others: list[tuple[str, list[str], int | None]] = [
        ("a batch larger than the memory", [*train, f"data.batch_size={HUGE}"], None),
        ("the same, to evaluate", ["evaluate", "run", "--data", "good.txt", "--batch-size", HUGE], None),
        ("the same, to read images", ["recognize", "run", "0.png", "1.png", "--batch-size", HUGE], None),
        (
            "the same, to estimate centers",
            ["centers", "estimate", "--run", "run", "--data", "good.txt", "--batch-size", HUGE, "--out", "new"],
            None,
        ),
        ("a run cut below its steps", ["train", "--resume", "run", "--set", "optim.steps=2"], None),
        ("a resumed run with another model", ["train", "--resume", "run", "--set", "model.hidden=9"], None),
        ("a resumed run with other data", ["train", "--resume", "run", "--set", "data.train=other.txt"], None),
        ("a resumed run with an averaged model", ["train", "--resume", "run", "--set", "optim.ema=0.9"], None),
    ]
    return [Case(what, [*train, override]) for what, override in NUMBERS] + [Case(*other) for other in others]
