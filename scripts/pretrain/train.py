"""Trains the pretrained recogniser on lines rendered on the device, for a given number of seconds.

python scripts/pretrain/train.py DATA OUT --seconds 520 --init WEIGHTS                            # one GPU
python scripts/pretrain/train.py DATA OUT --steps 4 --scale 0.02 --count 2000 --workers 2 \\
    --dtype float32 --lstm scan                                                                   # a trial on a CPU

DATA is the folder that atlas.py and words.py wrote, with the look-alikes in groups.txt. Processes of texts.py write the
texts while the training step is compiled. Written to OUT:

- model-0.safetensors, model-1.safetensors, ...: averaged weights in float16, in files of at most 15 MB; export.py joins
  them. mid-*.safetensors: the same after 60 % of the training.
- metrics.jsonl: a row every 200 steps with the CTC loss and the share of lines read without an error, by bucket.
- about.json: device, steps, lines, seconds of training, arguments.
"""

import argparse
import collections
import functools
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from drawing import load_glyphs, rendered
from jax import Array
from safetensors.numpy import save_file
from texts import CYCLE, SPANS

from jaxcrnn import optim
from jaxcrnn.augment import AugmentConfig
from jaxcrnn.charset import Charset
from jaxcrnn.interop import state_dicts
from jaxcrnn.interop.recognizer import flattened, unflattened
from jaxcrnn.model import ModelConfig
from jaxcrnn.nn.imported import Imported
from jaxcrnn.objective import LossConfig
from jaxcrnn.render.render import Glyphs
from jaxcrnn.train import TrainConfig, eval_variables, init_state, train_step
from jaxcrnn.types import TrainState

WIDTHS = (224, 512, 1024)  # pixels of the images of each bucket
LINES = (768, 384, 192)  # lines of a batch of each bucket
WARMUP = 100  # steps
SAVING = 5  # seconds kept for writing the weights
LOG_EVERY = 200  # steps
AHEAD = 3  # steps queued on the device
LARGEST = 15_000_000  # bytes of weights in a file


class Bucket(NamedTuple):
    """Lines that are rendered at one width.

    Attributes:
      shortest: characters of a text.
      longest: characters of a text.
      width: pixels.
      lines: of a batch.
    """

    shortest: int
    longest: int
    width: int
    lines: int


def model_of(classes: int, dtype: str = "float32", lstm: str = "scan") -> ModelConfig:
    return ModelConfig(
        backbone="vgg",
        hidden=192,
        dropout=0.1,
        standardize=True,
        dtype=dtype,
        lstm=lstm,
        # XLA's convolution goes to cuDNN on a GPU; elsewhere the package's own may be faster.
        conv="xla" if lstm == "cudnn" else "auto",
        height=32,
        num_classes=classes,
        blank=0,
        imported=Imported(channels=384),
    )


def weights_in(folder: Path, model: ModelConfig, stem: str = "model") -> dict[str, Any]:
    """The variables in a folder's ``model*.safetensors``, one file or several, as float32."""
    arrays: dict[str, np.ndarray] = {}
    for path in sorted(folder.glob(f"{stem}*.safetensors")):
        arrays |= state_dicts.read(path)
    if not arrays:
        raise SystemExit(f"{folder}: no {stem}*.safetensors")
    return unflattened(arrays, model, folder)


def step(
    config: TrainConfig,
    state: TrainState,
    number: Array,
    glyphs: Glyphs,
    labels: Array,
    lengths: Array,
    rate: Array,
    width: int,
) -> tuple[TrainState, dict[str, Array]]:
    """One training step on rendered lines.

    Training ends after a given time, so the learning rate follows the clock, not a schedule over steps. The package's
    step is taken at learning rate 1, and its update is scaled by `rate`. The average is updated from the resulting
    parameters.
    """
    batch = rendered(number, glyphs, labels, lengths, width)
    moved, info = train_step(config, state, batch, jax.random.key(1))
    params = jax.tree.map(lambda old, new: old + rate * (new - old), state.params, moved.params)
    share = 1 - jnp.minimum(config.optim.ema, (1 + state.step) / (10 + state.step))
    average = jax.tree.map(lambda old, new: old + share * (new - old), state.opt_state.average, params)
    moved = moved._replace(params=params, opt_state=moved.opt_state._replace(average=average))
    return moved, {name: info[name] for name in ("ctc_sum", "samples", "correct", "skipped")}


class Texts:
    """The texts of all workers, sorted by length, of which each step takes a random batch."""

    def __init__(self, paths: list[Path], buckets: list[Bucket]) -> None:
        parts = [np.load(path) for path in paths]
        rows = np.concatenate([part["rows"] for part in parts])
        lengths = np.concatenate([part["lengths"] for part in parts]).astype(np.int32)
        order = np.argsort(lengths, kind="stable")
        self.rows, self.lengths, self.buckets = rows[order], lengths[order], buckets
        self.spans = [
            (
                np.searchsorted(self.lengths, bucket.shortest),
                np.searchsorted(self.lengths, bucket.longest, side="right"),
            )
            for bucket in buckets
        ]

    def batch(self, number: int) -> tuple[int, np.ndarray, np.ndarray]:
        """The bucket of a step, and its labels and lengths."""
        which = CYCLE[number % len(CYCLE)]
        bucket = self.buckets[which]
        chosen = np.random.default_rng([4, number]).integers(*self.spans[which], bucket.lines)
        labels = np.ascontiguousarray(self.rows[chosen, : bucket.longest]).astype(np.int32)
        return which, labels, self.lengths[chosen]


def save(state: TrainState, out: Path, name: str) -> None:
    """Writes the averaged weights as float16, in parts that each fit into a file of limited size."""
    parts: list[dict[str, np.ndarray]] = [{}]
    size = 0
    for path, value in flattened(jax.device_get(eval_variables(state))).items():
        # Variances of the batch statistics may lie outside the range of float16.
        value = value if path.startswith("batch_stats") else value.astype(np.float16)
        if size + value.nbytes > LARGEST:
            parts, size = [*parts, {}], 0
        parts[-1][path], size = value, size + value.nbytes
    for number, part in enumerate(parts):
        save_file(part, out / f"{name}-{number}.safetensors")


def summary(losses: list[tuple[int, dict[str, Any]]]) -> dict[str, Any]:
    """Means over the steps since the last row, by bucket, and the number of their lines."""
    fetched = jax.device_get(losses)
    row: dict[str, Any] = {"skipped": sum(int(info["skipped"]) for _, info in fetched), "lines": 0}
    for bucket in range(len(SPANS)):
        infos = [info for which, info in fetched if which == bucket]
        count = sum(int(info["samples"]) for info in infos)
        row["lines"] += count
        if count:
            row[f"ctc{bucket}"] = round(sum(float(info["ctc_sum"]) for info in infos) / count, 4)
            row[f"lines{bucket}"] = round(sum(int(info["correct"]) for info in infos) / count, 4)
    return row


def start_workers(args: argparse.Namespace) -> list[tuple[Path, subprocess.Popen | None]]:
    """Starts texts.py for each missing file of texts."""
    started: list[tuple[Path, subprocess.Popen | None]] = []
    for seed in range(args.workers):
        path = args.texts / f"texts-{seed}.npz"
        command = [sys.executable, str(Path(__file__).with_name("texts.py")), str(args.data), str(args.texts)]
        command += ["--count", str(args.count), "--seed", str(seed)]
        started.append((path, None if path.exists() else subprocess.Popen(command)))
    return started


def main() -> None:
    began = time.time()
    args = parse_args()
    args.texts = args.texts or args.out / "texts"
    for folder in (args.texts, args.out):
        folder.mkdir(parents=True, exist_ok=True)
    workers = start_workers(args)

    def say(*values: object) -> None:
        print(f"{time.time() - began:6.1f}", *values, flush=True)

    say(jax.devices(), jax.__version__)
    charset = Charset.from_file(args.data / "charset.txt")
    glyphs = load_glyphs(args.data, charset)
    say("glyphs", glyphs.tiles.shape)
    config = TrainConfig(
        model_of(charset.num_classes, args.dtype, args.lstm),
        LossConfig(),
        # `step` applies the learning rate and `main` ends the training, so the schedule is constant.
        optim.OptimConfig(
            steps=10**6, learning_rate=1.0, warmup=0, final=1.0, weight_decay=0.0, ema=args.ema, clip_norm=5.0
        ),
        AugmentConfig(probability=0.0),
    )
    variables = jax.tree.map(jnp.asarray, weights_in(args.init, config.model)) if args.init else None
    state = init_state(config, jax.random.key(0), variables=variables)
    if args.init:
        # The average of the weights starts at those given.
        state = state._replace(opt_state=optim.begun(state.opt_state, state.params))
    buckets = [
        Bucket(*span, width, max(2, int(lines * args.scale)))
        for span, width, lines in zip(SPANS, WIDTHS, LINES, strict=True)
    ]

    def compiled(bucket: Bucket) -> Any:
        start = time.time()
        jitted = jax.jit(functools.partial(step, config), static_argnums=6, donate_argnums=0)
        labels = jax.ShapeDtypeStruct((bucket.lines, bucket.longest), jnp.int32)
        lengths = jax.ShapeDtypeStruct((bucket.lines,), jnp.int32)
        program = jitted.lower(state, np.int32(0), glyphs, labels, lengths, np.float32(0), bucket.width).compile()
        say("compiled", bucket, f"{time.time() - start:.1f} s")
        return program

    with ThreadPoolExecutor(len(buckets)) as pool:
        programs = list(pool.map(compiled, buckets))
    for path, process in workers:
        if process is not None and process.wait():
            raise SystemExit(f"texts.py failed to write {path}")
    texts = Texts([path for path, _ in workers], buckets)
    say("texts", texts.rows.shape)

    losses: list[tuple[int, dict[str, Any]]] = []
    waiting: collections.deque[Array] = collections.deque()
    number, seen, half_saved, over, ready = 0, 0, False, False, time.time()
    with (args.out / "metrics.jsonl").open("a", encoding="utf-8") as log:
        while not over:
            elapsed = time.time() - ready
            share = elapsed / max(args.seconds - (ready - began) - SAVING, 1e-9)
            if args.steps:
                share = number / args.steps
            over = share >= 1
            rate = args.lr * min(1.0, (number + 1) / WARMUP) * 0.5 * (1 + np.cos(np.pi * min(share, 1.0)))
            which, labels, lengths = texts.batch(number)
            state, info = programs[which](state, np.int32(number), glyphs, labels, lengths, np.float32(rate))
            losses.append((which, info))
            waiting.append(info["ctc_sum"])
            if len(waiting) > AHEAD:
                waiting.popleft().block_until_ready()
            number += 1
            if number % LOG_EVERY == 0 or over or number == 20:
                row = summary(losses)
                seen += row.pop("lines")
                now = time.time()
                row = {
                    "step": number,
                    "share": round(share, 4),
                    "rate": float(rate),
                    "seconds": round(now - began, 1),
                    "train_seconds": round(now - ready, 1),
                    **row,
                    "seen": seen,
                }
                print(json.dumps(row), flush=True)
                log.write(json.dumps(row) + "\n")
                log.flush()
                losses = []
            if share > 0.6 and not half_saved:
                half_saved = True
                save(state, args.out, "mid")
    save(state, args.out, "model")
    about = {
        "device": str(jax.devices()[0]),
        "steps": number,
        "lines": seen,
        "train_seconds": time.time() - ready,
        "arguments": vars(args),
    }
    (args.out / "about.json").write_text(json.dumps(about, default=str, indent=1) + "\n", encoding="utf-8")
    say("done")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "data", type=Path, help="folder with atlas.npz, atlas-*.xz, charset.txt, groups.txt, words.xz and corpus.xz"
    )
    parser.add_argument(
        "out",
        type=Path,
        help="folder to write; weights are split into files of at most 15 MB, for machines from which no file above "
        "16 MB can be copied back",
    )
    parser.add_argument(
        "--init", type=Path, help="folder with model*.safetensors to start from (default: random weights)"
    )
    parser.add_argument(
        "--seconds", type=float, default=60, help="of the whole command, compilation included (default: 60)"
    )
    parser.add_argument(
        "--steps", type=int, default=0, help="train for this many steps instead of --seconds (default: 0, off)"
    )
    parser.add_argument("--scale", type=float, default=1, help="factor of the batch sizes (default: 1)")
    parser.add_argument("--lr", type=float, default=1.2e-3, help="peak learning rate (default: 0.0012)")
    parser.add_argument("--ema", type=float, default=0.999, help="decay of the average of the weights (default: 0.999)")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument(
        "--lstm", choices=("cudnn", "scan"), default="cudnn", help="use scan on anything but an NVIDIA GPU"
    )
    parser.add_argument("--texts", type=Path, help="folder of the texts, written if missing (default: OUT/texts)")
    parser.add_argument("--count", type=int, default=160_000, help="texts of each worker (default: 160000)")
    parser.add_argument("--workers", type=int, default=14, help="processes that write texts (default: 14)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
