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
import lzma
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
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
from jaxcrnn.render.atlas import SIZE
from jaxcrnn.render.config import LEVELS
from jaxcrnn.render.render import SOFT, Glyphs, render
from jaxcrnn.train import TrainConfig, eval_variables, init_state, train_step
from jaxcrnn.types import Batch, TrainState

WIDTHS = (224, 512, 1024)  # pixels of the images of each bucket
LINES = (768, 384, 192)  # lines of a batch of each bucket
WARMUP = 100  # steps
SAVING = 5  # seconds kept for writing the weights
LOG_EVERY = 200  # steps
AHEAD = 3  # steps queued on the device
LARGEST = 15_000_000  # bytes of weights in a file
LOOK = replace(
    LEVELS["medium"], largest=1.0, smallest=0.5, narrow=0.36, thin=0.35, rule=0.07, blur=0.8, contrast=0.6, bold=1.0,
    slant=0.06, noise=0.06, lowres=2.2, margin=0.22, offset=0.05, loose=0.2, texture=0.05, rotation=0.012,
    perspective=0.03, pitch=0.02, baseline=0.02, wave=0.015, blocks=0.15,
)  # fmt: skip


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
        backbone="vgg", hidden=192, dropout=0.1, standardize=True, dtype=dtype, lstm=lstm,
        # XLA's convolution goes to cuDNN on a GPU; elsewhere the package's own may be faster.
        conv="xla" if lstm == "cudnn" else "auto",
        height=32, num_classes=classes, blank=0, imported=Imported(channels=384),
    )  # fmt: skip


def weights_in(folder: Path, model: ModelConfig, stem: str = "model") -> dict[str, Any]:
    """The variables in a folder's ``model*.safetensors``, one file or several, as float32."""
    arrays: dict[str, np.ndarray] = {}
    for path in sorted(folder.glob(f"{stem}*.safetensors")):
        arrays |= state_dicts.read(path)
    if not arrays:
        raise SystemExit(f"{folder}: no {stem}*.safetensors")
    return unflattened(arrays, model, folder)


def decompressed(path: Path) -> np.ndarray:
    with lzma.open(path) as file:
        return np.frombuffer(file.read(), np.uint8)


def load_glyphs(data: Path, charset: Charset) -> Glyphs:
    """The glyphs of atlas.py on the device, with those of the blank, which are empty, as class 0."""
    atlas = np.load(data / "atlas.npz")
    if str(atlas["characters"]) != "".join(charset.characters):
        raise SystemExit(f"{data}: atlas.npz and charset.txt have different characters; run atlas.py again")
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(decompressed, sorted(data.glob("atlas-*.xz"))))
    fonts, count, height, width = map(int, atlas["shape"])
    packed = np.concatenate(parts).reshape(fonts, count, height, width // 2)
    return Glyphs(
        softened(unpacked(jnp.asarray(packed))),
        jnp.asarray(np.insert(atlas["advances"], 0, 0, axis=1), jnp.float32),
        jnp.asarray(np.insert(atlas["present"], 0, False, axis=1)),
    )


@jax.jit
def unpacked(packed: Array) -> Array:
    """Undoes `packed` of atlas.py, on the device: only half of the bytes are sent there."""
    tiles = jnp.stack([(packed >> 4) * 17, (packed & 15) * 17], -1).reshape(*packed.shape[:3], SIZE)
    return jnp.pad(tiles, ((0, 0), (1, 0), (0, 0), (0, 0)))


@jax.jit
def softened(tiles: Array) -> Array:
    """Tiles in the three softnesses of `Glyphs`, made on the device because 48 typefaces take minutes on the host."""

    def soften(font: Array, weights: tuple[float, ...]) -> Array:
        half = len(weights) // 2
        padded = jnp.pad(font, ((0, 0),) * 2 + ((half, half),))
        total = sum(weight * padded[..., i : i + SIZE].astype(jnp.float32) for i, weight in enumerate(weights))
        return jnp.round(total).astype(jnp.uint8)

    # One typeface at a time, or the float32 copies would not fit into memory.
    soft = [jax.lax.map(functools.partial(soften, weights=weights), tiles) for weights, _ in SOFT[1:]]
    return jnp.stack([tiles, *soft])


def distressed(key: Array, images: Array, widths: Array) -> Array:
    """Adds what the renderer lacks: ink of neighbouring lines, stamps, dots, and thresholded strokes.

    Args:
      key: PRNG key.
      images: ``[B,H,W,1]`` rendered lines.
      widths: ``[B]`` their widths.
    """
    images = images[..., 0]
    count, height, width = images.shape
    keys = iter(jax.random.split(key, 24))

    def uniform(low: float = 0.0, high: float = 1.0) -> Array:
        return jax.random.uniform(next(keys), (count, 1, 1), minval=low, maxval=high)

    x = jnp.arange(width, dtype=jnp.float32)[None, None]
    y = jnp.arange(height, dtype=jnp.float32)[None, :, None]
    wide = widths[:, None, None].astype(jnp.float32)
    valid = x < wide
    ink = jnp.where(valid, images, 1.0).min((1, 2), keepdims=True)
    paper = jnp.where(valid, images, -1.0).max((1, 2), keepdims=True)
    contrast = paper - ink

    # Ink of a neighbouring line: another sample of the batch, shifted up or down by most of the height.
    others, other_paper, other_contrast, other_wide = (jnp.roll(part, 1, 0) for part in (images, paper, contrast, wide))
    other_ink = jnp.clip((other_paper - others) / jnp.maximum(other_contrast, 0.2), 0, 1)
    other_ink = jnp.where(x < other_wide, other_ink, 0)
    shift = jnp.round(uniform(24.0, 31.0)).astype(jnp.int32) * jnp.where(uniform() < 0.5, -1, 1)
    rows = jnp.arange(height)[None, :, None] + shift
    places = jnp.clip(rows, 0, height - 1) * jnp.ones((1, 1, width), jnp.int32)
    edge = jnp.take_along_axis(other_ink, places, axis=1)
    edge = jnp.where((rows >= 0) & (rows < height) & (uniform() < 0.10), edge, 0)
    images = jnp.minimum(images, paper - contrast * edge)

    # A stamp: a ring around a star, with bars in place of writing, in light and patchy ink.
    center_x, center_y = uniform() * wide, uniform(-18.0, 50.0)
    radius, thickness = uniform(12.0, 48.0), uniform(1.0, 4.0)
    distance = jnp.sqrt((x - center_x) ** 2 + (y - center_y) ** 2)
    ring = jnp.clip(thickness / 2 + 0.5 - jnp.abs(distance - radius), 0, 1)
    angle = jnp.arctan2(y - center_y, x - center_x)
    star = distance < 0.35 * radius * (0.55 + 0.45 * jnp.cos(5 * angle + 6.28 * uniform()))
    bars = jnp.clip(1.5 * jnp.cos(angle * jnp.round(uniform(8.0, 30.0)) + jnp.sin(distance * 0.9)), 0, 1)
    bars = bars * (jnp.abs(distance - 0.78 * radius) < 0.12 * radius)
    stamp = jnp.maximum(jnp.maximum(ring, star.astype(jnp.float32)), bars)
    grain = jax.random.uniform(next(keys), (count, height // 2, width // 2)).repeat(2, 1).repeat(2, 2)
    stamp = stamp * (grain < uniform(0.5, 1.0)) * uniform(0.2, 0.75)
    stamp = jnp.where(uniform() < 0.05, stamp, 0.0)
    images = jnp.minimum(images, paper - contrast * stamp)

    # A stray dot.
    center_x, center_y = uniform() * wide, uniform(0.0, 32.0)
    thickness = uniform(0.8, 2.6)
    distance = jnp.sqrt((x - center_x) ** 2 + (y - center_y) ** 2)
    dot = jnp.clip(thickness / 2 + 0.5 - distance, 0, 1) * uniform(0.5, 1.0)
    dot = jnp.where(uniform() < 0.08, dot, 0.0)
    images = jnp.minimum(images, paper - contrast * dot)

    # Hard strokes, thin and broken or thick, as in thresholded scans and in screen fonts.
    relative = (images - ink) / jnp.maximum(contrast, 0.2)
    gain, middle = 1.3 * jnp.exp(uniform() * 1.8), uniform(0.3, 0.72)
    hard = ink + contrast * jnp.clip((relative - middle) * gain + 0.5, 0, 1)
    images = jnp.where(uniform() < 0.3, hard, images)
    return jnp.where(valid, jnp.clip(images, -1, 1), 1.0)[..., None]


def rendered(number: Array, glyphs: Glyphs, labels: Array, lengths: Array, width: int) -> Batch:
    """Renders the batch of a step. The step number seeds all of its randomness."""
    key = jax.random.fold_in(jax.random.key(5), number)
    images, widths = render(key, glyphs, labels, lengths, replace(LOOK, width=width))
    return Batch(distressed(jax.random.fold_in(key, 10**6), images, widths), widths, labels, lengths)


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
        program = jax.jit(functools.partial(step, config), static_argnums=6, donate_argnums=0).lower(
            state, np.int32(0), glyphs, jax.ShapeDtypeStruct((bucket.lines, bucket.longest), jnp.int32),
            jax.ShapeDtypeStruct((bucket.lines,), jnp.int32), np.float32(0), bucket.width,
        ).compile()  # fmt: skip
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
                row = {"step": number, "share": round(share, 4), "rate": float(rate), "seconds": round(now - began, 1),
                       "train_seconds": round(now - ready, 1), **row, "seen": seen}  # fmt: skip
                print(json.dumps(row), flush=True)
                log.write(json.dumps(row) + "\n")
                log.flush()
                losses = []
            if share > 0.6 and not half_saved:
                half_saved = True
                save(state, args.out, "mid")
    save(state, args.out, "model")
    about = {"device": str(jax.devices()[0]), "steps": number, "lines": seen, "train_seconds": time.time() - ready,
             "arguments": vars(args)}  # fmt: skip
    (args.out / "about.json").write_text(json.dumps(about, default=str, indent=1) + "\n", encoding="utf-8")
    say("done")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "data", type=Path, help="folder with atlas.npz, atlas-*.xz, charset.txt, groups.txt, words.xz and corpus.xz"
    )
    parser.add_argument(
        "out", type=Path,
        help="folder to write; weights are split into files of at most 15 MB, for machines from which no file above "
        "16 MB can be copied back",
    )  # fmt: skip
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
