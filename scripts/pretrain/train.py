"""Trains the pretrained recogniser on lines rendered on the device: on one GPU within minutes, or on a CPU for hours.

python scripts/pretrain/train.py DATA OUT --within 540            # one GPU; ends after nine minutes at the latest
python scripts/pretrain/train.py DATA OUT --minutes 600 --init pretrained    # a CPU, in as many sittings as needed

DATA is the folder that atlas.py and words.py wrote, with the look-alikes in groups.txt. The learning rate follows the
whole plan, `--steps` or `--minutes` of training in all sittings together. A sitting ends with a signal (Ctrl-C); the
same command then resumes from the last checkpoint, with exit code 75 for as long as the plan is not finished. With
`--within`, the plan is what fits into that many seconds, compilation and export included.

Written to OUT:

- recognizer/: the averaged weights in float16 as `jaxcrnn.load` reads them, when the plan is finished; with
  `--interpolate`, the mean of these and of the weights that the training started from (Wortsman et al., 2022);
- checkpoints/: the whole training state, until then;
- metrics.jsonl: rows with the CTC loss and the share of lines read without an error, by bucket;
- about.json: device, steps, lines, seconds of training, arguments.
"""

import argparse
import collections
import dataclasses
import functools
import json
import os
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TextIO

import jax
import jax.numpy as jnp
import numpy as np
from estimation import estimate, needs_centers, quick_options
from jax import Array
from labels import BUCKETS, CYCLE, Bucket, Labels, scaled
from models import export, model_of

from jaxcrnn import optim
from jaxcrnn.augment import AugmentConfig
from jaxcrnn.charset import Charset
from jaxcrnn.errors import UserError
from jaxcrnn.interop.interpolation import between
from jaxcrnn.interop.recognizer import Recognizer
from jaxcrnn.render import atlas
from jaxcrnn.render.config import LEVELS, RenderConfig
from jaxcrnn.render.render import Glyphs, render
from jaxcrnn.runs import extensions
from jaxcrnn.runs.checkpoint import Checkpoints
from jaxcrnn.runs.compile import cache_programs, compiled, is_nvidia
from jaxcrnn.runs.config import load as load_config
from jaxcrnn.runs.signals import INTERRUPTED, stop_flag
from jaxcrnn.train import TrainConfig, eval_variables, init_state, state_shapes, train_step
from jaxcrnn.types import Batch, CenterState, TrainState

WARMUP = 100  # steps
SAVING = 6  # seconds kept for the export
LOG_EVERY = 15  # seconds
AHEAD = 3  # steps queued on the device
NOT_FINISHED = 75


@dataclasses.dataclass
class Progress:
    """What has been trained in all sittings together."""

    steps: int = 0
    lines: int = 0
    seconds: float = 0.0
    sittings: int = 0


def step(
    config: TrainConfig,
    look: RenderConfig,
    state: TrainState,
    seed: Array,
    number: Array,
    glyphs: Glyphs,
    labels: Array,
    lengths: Array,
    rate: Array,
) -> tuple[TrainState, dict[str, Array]]:
    """One training step on rendered lines.

    Training ends after a given time, so the learning rate follows the clock, not a schedule over steps. The package's
    step is taken at learning rate 1, and its update is scaled by `rate`. The average is updated from the resulting
    parameters.
    """
    images, widths = render(jax.random.fold_in(jax.random.key(seed), number), glyphs, labels, lengths, look)
    moved, info = train_step(config, state, Batch(images, widths, labels, lengths), jax.random.key(1))
    params = jax.tree.map(lambda old, new: old + rate * (new - old), state.params, moved.params)
    share = 1 - jnp.minimum(config.optim.ema, (1 + state.step) / (10 + state.step))
    average = jax.tree.map(lambda old, new: old + share * (new - old), state.opt_state.average, params)
    moved = moved._replace(params=params, opt_state=moved.opt_state._replace(average=average))
    return moved, {name: info[name] for name in ("ctc_sum", "samples", "correct", "skipped")}


def summary(losses: list[tuple[int, dict[str, Any]]]) -> dict[str, Any]:
    """Means over the steps since the last row, by bucket, and the number of their lines."""
    fetched = jax.device_get(losses)
    row: dict[str, Any] = {"skipped": sum(int(info["skipped"]) for _, info in fetched), "lines": 0}
    for bucket in range(len(BUCKETS)):
        infos = [info for which, info in fetched if which == bucket]
        count = sum(int(info["samples"]) for info in infos)
        row["lines"] += count
        if count:
            row[f"ctc{bucket}"] = round(sum(float(info["ctc_sum"]) for info in infos) / count, 4)
            row[f"lines{bucket}"] = round(sum(int(info["correct"]) for info in infos) / count, 4)
    return row


class Training:
    """Everything that one sitting needs."""

    def __init__(self, args: argparse.Namespace, began: float) -> None:
        self.args, self.began = args, began
        self.charset = Charset.from_file(args.data / "charset.txt")
        self.typefaces = self._count_typefaces()
        self.model, self.start, self.limits = model_of(args, self.charset)
        # `step` applies the learning rate and `run` ends the training, so the schedule is constant.
        constant = optim.OptimConfig(
            steps=10**9, learning_rate=1.0, warmup=0, final=1.0, weight_decay=0.0, ema=args.ema, clip_norm=5.0
        )
        loss = load_config(overrides=[f"loss.{setting}" for setting in args.loss]).loss
        self.config = TrainConfig(
            self.model, loss, constant, AugmentConfig(probability=0.0), flow=extensions.resolve(loss)
        )
        self.estimates = needs_centers(self.config, self.start)
        gpu = is_nvidia(jax.devices()[0])
        scale = args.scale or (1 if gpu else 1 / 16)
        self.peak = args.lr or (1.2e-3 if gpu else 4e-4)
        self.buckets = [bucket._replace(lines=max(2, int(bucket.lines * scale))) for bucket in BUCKETS[: args.buckets]]
        self.cycle = [which for which in CYCLE if which < args.buckets]

    def _count_typefaces(self) -> int:
        path = self.args.data / "atlas.npz"
        try:
            with np.load(path) as file:
                typefaces, characters = len(file["fonts"]), str(file["characters"])
        except Exception:  # zip, zlib and numpy raise different exceptions
            atlas.load(path)  # names the file and what was expected
            raise
        if characters != "".join(self.charset.characters):
            raise UserError(f"{path}: has other characters than charset.txt; draw the atlas again")
        return typefaces

    def say(self, *values: object) -> None:
        print(f"{time.time() - self.began:6.1f} s", *values, flush=True)

    def prepare(self, checkpoints: Checkpoints) -> None:
        """Compiles the step for each bucket while the state, glyphs and texts are loaded."""
        shape = (self.typefaces, self.charset.num_classes)
        shapes = Glyphs(
            jax.ShapeDtypeStruct((3, *shape, atlas.SIZE, atlas.SIZE), jnp.uint8),
            jax.ShapeDtypeStruct(shape, jnp.float32),
            jax.ShapeDtypeStruct(shape, jnp.bool_),
        )
        pool = ThreadPoolExecutor(len(self.buckets) + 1)
        programs = [pool.submit(self._compiled, bucket, shapes) for bucket in self.buckets]
        drawn = atlas.load(self.args.data / "atlas.npz")
        common = atlas.common(self.charset.characters, drawn)
        self.labels = Labels(self.args.data, self.charset, common, self.buckets, self.cycle, self.args.seed)
        self.glyphs = Glyphs.of(drawn, self.charset)
        state = pool.submit(self.state, checkpoints)
        self.say(f"{len(common)} characters in {self.typefaces} typefaces")
        self.programs = [program.result() for program in programs]
        self.first = state.result()

    def look(self, bucket: Bucket) -> RenderConfig:
        return scaled(LEVELS[self.args.level], self.model.height, bucket.width)

    def _compiled(self, bucket: Bucket, glyphs: Glyphs) -> Any:
        start = time.time()
        jitted = jax.jit(functools.partial(step, self.config, self.look(bucket)), donate_argnums=0)
        labels = jax.ShapeDtypeStruct((bucket.lines, bucket.longest), jnp.int32)
        lengths = jax.ShapeDtypeStruct((bucket.lines,), jnp.int32)
        numbers = np.int32(0), np.int32(0)
        lowered = jitted.lower(state_shapes(self.config), *numbers, glyphs, labels, lengths, np.float32(0))
        program = compiled(lowered, quick_options())
        self.say(f"compiled {bucket.lines} lines of {self.look(bucket).width} px in {time.time() - start:.1f} s")
        return program

    def state(self, checkpoints: Checkpoints) -> tuple[TrainState, Progress]:
        """The state to continue from."""
        if checkpoints.steps:
            state, facts, number = checkpoints.restore_newest(state_shapes(self.config), None, self.say)
            self.say(f"resumed at step {number}")
            return state, Progress(**facts["progress"])
        variables = jax.tree.map(jnp.array, self.start)  # copies, because a step donates its state
        state = init_state(self.config, jax.random.key(0), variables=variables, centers=self.centers(variables))
        if variables is not None:
            # The average of the weights starts at those given.
            state = state._replace(opt_state=optim.begun(state.opt_state, state.params))
        return state, Progress()

    def centers(self, variables: Any) -> CenterState | None:
        """The centers to start from, for losses that need estimated ones."""
        if not self.estimates:
            return None
        looks, args = [self.look(bucket) for bucket in self.buckets], self.args
        centers, told = estimate(self.config, variables, looks, self.glyphs, self.labels, args.seed, args.estimate)
        self.say(told)
        return centers

    def result(self, state: TrainState) -> dict[str, Any]:
        """The averaged weights, or with `--interpolate` what lies between the weights at the start and them."""
        trained, share = jax.device_get(eval_variables(state)), self.args.interpolate
        if share == 1:
            return trained
        return between(self.start, trained, share)

    def share(self, done: Progress, before: float, ready: float) -> float:
        """The share of the plan that is done."""
        if self.args.steps:
            return done.steps / self.args.steps
        if self.args.within:
            left = self.args.within - (ready - self.began) - SAVING
            return (done.seconds - before) / max(left, 1e-9)
        return done.seconds / (60 * self.args.minutes)

    def log(self, losses: list[tuple[int, dict[str, Any]]], done: Progress, share: float, file: TextIO) -> None:
        """Writes a row about the steps since the last one."""
        row = summary(losses)
        done.lines += row.pop("lines")
        facts = {"step": done.steps, "share": round(share, 4), "seconds": round(done.seconds, 1)}
        row = {**facts, **row, "lines": done.lines}
        self.say(json.dumps(row))
        file.write(json.dumps(row) + "\n")
        file.flush()
        if row["skipped"] == len(losses) > 2:
            raise UserError(f"{self.args.out}: all of the last {len(losses)} steps had non-finite gradients")

    def run(self, checkpoints: Checkpoints) -> bool:
        """Trains until the plan is finished or a signal arrives; returns whether it is finished."""
        out: Path = self.args.out
        with (out / "metrics.jsonl").open("a", encoding="utf-8") as log, stop_flag() as stopping:
            state, done = self.first
            del self.first  # its arrays are donated
            done.sittings += 1
            losses: list[tuple[int, dict[str, Any]]] = []
            waiting: collections.deque[Array] = collections.deque()
            ready = logged = saved = time.time()
            if self.args.within and self.args.within < ready - self.began + SAVING:
                self.say(f"nothing is trained: preparing took more than the {self.args.within:g} seconds of --within")
            before = done.seconds
            while True:
                done.seconds = before + time.time() - ready
                share = self.share(done, before, ready)
                over = share >= 1 or bool(stopping)
                if losses and (over or time.time() - logged > LOG_EVERY):
                    self.log(losses, done, share, log)
                    losses, logged = [], time.time()
                    if not over and time.time() - saved > 60 * self.args.save:
                        saved = time.time()
                        checkpoints.save(state, {"progress": dataclasses.asdict(done)}, None)
                if over:
                    break
                rate = self.peak * min(1.0, (done.steps + 1) / WARMUP) * 0.5 * (1 + np.cos(np.pi * share))
                which = self.cycle[done.steps % len(self.cycle)]
                labels, lengths = self.labels.next(done.steps)
                numbers = np.int32(self.args.seed), np.int32(done.steps)
                state, info = self.programs[which](state, *numbers, self.glyphs, labels, lengths, np.float32(rate))
                losses.append((which, info))
                waiting.append(info["ctc_sum"])
                if len(waiting) > AHEAD:
                    waiting.popleft().block_until_ready()
                done.steps += 1
            self.labels.thread.shutdown(cancel_futures=True)
            if share < 1:
                if done.steps not in checkpoints.steps:
                    checkpoints.save(state, {"progress": dataclasses.asdict(done)}, None)
                return False
            self.say(export(Recognizer(self.model, self.result(state), self.charset, self.limits), out))
        about = {"device": jax.devices()[0].device_kind, **dataclasses.asdict(done), "arguments": vars(self.args)}
        (out / "about.json").write_text(json.dumps(about, default=str, indent=1) + "\n", encoding="utf-8")
        return True


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with atlas.npz, charset.txt, texts.yaml and what it names")
    parser.add_argument("out", type=Path, help="folder to write")
    plan = parser.add_mutually_exclusive_group(required=True)
    plan.add_argument("--minutes", type=float, help="plan: minutes of training in all sittings, without compilation")
    plan.add_argument("--steps", type=int, help="plan: steps in all sittings")
    plan.add_argument("--within", type=float, help="plan: what fits into so many seconds, compilation included")
    parser.add_argument("--init", help="weights to start from: pretrained, or a folder (default: random weights)")
    parser.add_argument(
        "--height",
        type=int,
        choices=(32, 64),
        help="height of the lines in pixels (default: that of --init, or 32); 64 may start from weights for 32",
    )
    parser.add_argument("--gpu", action="store_true", help="fail without an NVIDIA GPU instead of using the CPU")
    parser.add_argument(
        "--buckets", type=int, choices=(1, 2, 3), default=3, help="number of widths, the narrowest first (default: 3)"
    )
    parser.add_argument("--level", choices=LEVELS, default="forms", help="look of the lines (default: forms)")
    parser.add_argument(
        "--loss",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="keys of the section loss of a configuration, such as preset=flow1 weight=1e-3 (default: plain CTC)",
    )
    parser.add_argument("--estimate", type=int, default=200, help="steps to estimate centers over (default: 200)")
    parser.add_argument("--scale", type=float, help="factor of the batch sizes (default: 1 on a GPU, else 1/16)")
    parser.add_argument("--lr", type=float, help="peak learning rate (default: 0.0012 on a GPU, else 0.0004)")
    parser.add_argument("--ema", type=float, default=0.999, help="decay of the average of the weights (default: 0.999)")
    parser.add_argument("--seed", type=int, default=5, help="seed of the texts and of their look (default: 5)")
    parser.add_argument(
        "--interpolate",
        type=float,
        default=1.0,
        metavar="SHARE",
        help="with --init: export SHARE of the trained weights and 1 - SHARE of those of --init (default: 1)",
    )
    parser.add_argument("--hidden", type=int, default=192, help="units of the LSTMs of new weights (default: 192)")
    parser.add_argument("--channels", type=int, default=384, help="channels of new weights (default: 384)")
    parser.add_argument("--save", type=float, default=10, help="minutes between checkpoints (default: 10)")
    args = parser.parse_args()
    if any(number is not None and number <= 0 for number in (args.minutes, args.steps, args.within, args.estimate)):
        parser.error("--minutes, --steps, --within and --estimate: expected more than 0")
    if not 0 < args.interpolate <= 1 or (args.interpolate < 1 and not args.init):
        parser.error("--interpolate: expected a share from 0 to 1, and --init")
    return args


def main() -> int:
    began = time.time()
    args = parse_args()
    if (args.out / "recognizer").exists():
        print(f"{args.out / 'recognizer'} exists: nothing to do")
        return 0
    cache_programs()
    try:
        if args.gpu and not is_nvidia(jax.devices()[0]):
            raise UserError("no NVIDIA GPU; install the extra 'cuda', or train on the CPU without GPU=1")
        training = Training(args, began)
        args.out.mkdir(parents=True, exist_ok=True)
        training.say(jax.devices()[0].device_kind)
        with Checkpoints(args.out / "checkpoints", 1) as checkpoints:
            training.prepare(checkpoints)
            finished = training.run(checkpoints)
        if finished:
            shutil.rmtree(args.out / "checkpoints")  # those of the training state
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED
    if not finished:
        print("not finished; the same command resumes from the last checkpoint")
        return NOT_FINISHED
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # without waiting for compilations in other threads
