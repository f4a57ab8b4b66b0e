"""The training loop: batches in, steps, validation, checkpoints, logs; stops cleanly and resumes exactly."""

from __future__ import annotations

import json
import math
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcrnn import optim
from jaxcrnn.charset import Charset
from jaxcrnn.checkpoint import Checkpoints
from jaxcrnn.console import Plain, duration
from jaxcrnn.data.audit import Corpus
from jaxcrnn.data.loader import Batches
from jaxcrnn.errors import UserError
from jaxcrnn.evaluate import evaluate
from jaxcrnn.train import TrainConfig, init_state, train_step
from jaxcrnn.types import TrainState

SKIPS_IN_A_ROW = 10

# The one place where the step meets the compiler; the old state's memory becomes the new state's.
jit_step = jax.jit(train_step, donate_argnames="state")


@dataclass(frozen=True)
class LoopConfig:
    """How training is run, none of which changes what a step computes.

    Attributes:
      seed: of parameters, order and augmentation.
      eval_every: steps between two validations and checkpoints.
      log_every: steps summed up in one row of ``metrics.jsonl``.
      keep: newest checkpoints kept; the best by validation accuracy stays besides.
    """

    seed: int = 0
    eval_every: int = 200
    log_every: int = 10
    keep: int = 2

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < (0 if name == "seed" else 1):
                raise UserError(f"run.{name} is {value}; expected {0 if name == 'seed' else 1} or more")


@dataclass
class Totals:
    """Counts over the whole run, carried through checkpoints."""

    samples: int = 0
    skipped_steps: int = 0
    infeasible_samples: int = 0


@dataclass
class Fit:
    """How a training ended."""

    state: TrainState
    step: int
    stopped: bool
    programs: int
    totals: Totals
    validation: dict[str, float] = field(default_factory=dict)
    best_step: int | None = None


def fit(
    config: TrainConfig,
    loop: LoopConfig,
    charset: Charset,
    batches: Batches,
    validation: Corpus | None,
    folder: Path,
    console: Plain,
    track: Callable[[dict[str, Any]], None] = lambda row: None,
) -> Fit:
    """Trains to the end of the schedule, from the newest checkpoint in the folder or from the start.

    Args:
      config: what a step computes.
      loop: how the run is run.
      charset: the run's.
      batches: of the training set.
      validation: lines to validate on, or None.
      folder: the run's folder; ``checkpoints`` and ``metrics.jsonl`` are written there.
      console: where progress goes.
      track: called with every row of ``metrics.jsonl``.

    Raises:
      UserError: the data differs from the checkpoint's, a checkpoint cannot be written, or ten steps in a row had
        gradients that are not finite.
    """
    key = jax.random.key(loop.seed)
    fingerprint = batches.corpus.fingerprint
    totals = Totals()
    with Checkpoints(folder / "checkpoints", loop.keep) as checkpoints:
        if steps := checkpoints.steps:
            template = jax.eval_shape(lambda: init_state(config, key))
            state, extra = checkpoints.restore(steps[-1], template)
            if extra["data"] != fingerprint:
                raise UserError(
                    f"{folder}: the training data changed since step {steps[-1]}; a resumed run needs the same"
                )
            totals = Totals(**extra["totals"])
            console.line(f"resumed at step {steps[-1]}")
        else:
            state = init_state(config, key)
        run = _Run(
            config, loop, charset, batches, validation, folder, console, track, checkpoints, totals, key, fingerprint
        )
        return run.go(state)


class _Run:
    """The moving parts of one call of `fit`."""

    def __init__(
        self,
        config: TrainConfig,
        loop: LoopConfig,
        charset: Charset,
        batches: Batches,
        validation: Corpus | None,
        folder: Path,
        console: Plain,
        track: Callable[[dict[str, Any]], None],
        checkpoints: Checkpoints,
        totals: Totals,
        key: jax.Array,
        fingerprint: str,
    ) -> None:
        self.config, self.loop, self.charset, self.batches, self.validation = config, loop, charset, batches, validation
        self.console, self.track, self.checkpoints, self.totals, self.key = console, track, checkpoints, totals, key
        self.fingerprint = fingerprint  # hashes every row of the data: once a run, not once a checkpoint
        self.log_path = folder / "metrics.jsonl"
        self.programs: dict[int, Any] = {}
        self.window = _Window()
        self.skipped: deque[int] = deque(maxlen=SKIPS_IN_A_ROW)
        self.accuracy = math.nan
        self.paused = 0.0  # seconds spent compiling and validating, which say nothing about the steps to come
        self.validated: dict[str, float] = {}

    def go(self, state: TrainState) -> Fit:
        start, stop = int(state.step), self.config.optim.steps
        _truncate(self.log_path, start)
        saved = start if self.checkpoints.steps else -1
        names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state.params)]
        began = time.monotonic()
        step, pending = start, None
        with _stop_flag() as stopping, self.log_path.open("a", encoding="utf-8") as log:
            for planned, batch in self.batches.training(start, stop):
                state, info = self._program(planned.bucket, state, batch)(self.config, state, batch, self.key)
                # The info of the step before is fetched while this one runs, so the device never waits for us.
                if pending:
                    self._account(step - 1, pending, names)
                pending, step = info, step + 1
                due = step % self.loop.eval_every == 0 or step == stop or bool(stopping)
                if due or step % self.loop.log_every == 0:
                    self._account(step - 1, pending, names)
                    pending = None
                    self._log(log, step, self.window.take(self.config, step))
                if self.window.taken:
                    self._show(step, stop, began, step - start)
                if due:
                    # A run told to stop saves at once: validation can wait, the sender of the signal may not.
                    scored = not stopping or step == stop
                    self._save(state, self._validate(log, step, state) if scored else None)
                    saved = step
                if stopping:
                    break
        if saved != step:
            self._save(state, None)
        return Fit(
            state,
            step,
            bool(stopping) and step < stop,
            len(self.programs),
            self.totals,
            self.validated,
            self.checkpoints.best(),
        )

    def _program(self, bucket: int, state: TrainState, batch: Any) -> Any:
        """The step compiled for one bucket's shapes; a shape it was not made for is an error, never a recompilation."""
        if bucket not in self.programs:
            began = time.monotonic()
            lowered = jit_step.lower(self.config, state, batch, self.key)
            compiled = lowered.compile()
            self.programs[bucket] = lambda config, *arrays: compiled(config, *arrays)
            width = self.batches.buckets[bucket]
            self.console.line(f"compiled the step for width {width} in {duration(time.monotonic() - began)}")
            self.paused += time.monotonic() - began
            self.window.began += time.monotonic() - began
        return self.programs[bucket]

    def _account(self, step: int, info: dict[str, Any], names: list[str]) -> None:
        info = jax.device_get(info)
        self.window.add(info)
        self.totals.samples += int(info["samples"])
        self.totals.infeasible_samples += int(info["infeasible"])
        if not info["skipped"]:
            self.skipped.clear()
            return
        self.totals.skipped_steps += 1
        self.skipped.append(step)
        broken = [name for name, bad in zip(names, info["nonfinite"], strict=True) if bad]
        shown = ", ".join(broken[:3]) + (f" and {len(broken) - 3} more" if len(broken) > 3 else "")
        self.console.line(f"step {step} skipped: not finite: {'gradients of ' + shown if broken else 'the loss'}")
        if len(self.skipped) == SKIPS_IN_A_ROW:
            raise UserError(
                f"{SKIPS_IN_A_ROW} steps in a row ({self.skipped[0]} to {step}) had gradients that are not finite; "
                f"checkpoints kept: {self.checkpoints.steps or 'none'}; try a lower optim.learning_rate"
            )

    def _log(self, log: Any, step: int, row: dict[str, Any]) -> None:
        row = {"step": step, **{k: _round(v) for k, v in row.items()}}
        log.write(json.dumps(row, allow_nan=False) + "\n")
        log.flush()
        self.track(row)

    def _show(self, step: int, stop: int, began: float, taken: int) -> None:
        w = self.window
        eta = duration((time.monotonic() - began - self.paused) / max(taken, 1) * (stop - step))
        accuracy = "" if math.isnan(self.accuracy) else f"  val {self.accuracy:.1%}"
        text = f"loss {w.loss:.4f}  lines {w.correct:.1%}{accuracy}  {w.speed:.0f} images/s  ETA {eta}"
        self.console.progress(step, stop, text)

    def _validate(self, log: Any, step: int, state: TrainState) -> float | None:
        if self.validation is None:
            return None
        began = time.monotonic()
        result = evaluate(
            self.config,
            state,
            self.charset,
            self.validation,
            batch_size=self.batches.batch_size,
            buckets=len(self.batches.buckets),
        )
        try:
            score = result.score()
            more = {"val_character_accuracy": score.character_accuracy, "val_1_ned": score.normalized_similarity}
            self.accuracy = score.line_accuracy
        except ImportError:  # a machine without rapidfuzz still validates, by lines alone
            right = sum(line.text == truth for line, truth in zip(result.lines, result.truths, strict=True))
            more, self.accuracy = {}, right / len(result.lines)
        self.validated = {"val_loss": result.loss, "val_line_accuracy": self.accuracy, **more}
        self._log(log, step, self.validated)
        shown = "  ".join(f"{k.removeprefix('val_').replace('_', ' ')} {v:.4f}" for k, v in self.validated.items())
        self.console.line(f"step {step}  validation  {shown}")
        self.paused += time.monotonic() - began
        self.window.began += time.monotonic() - began
        return self.accuracy

    def _save(self, state: TrainState, accuracy: float | None) -> None:
        extra = {"data": self.fingerprint, "totals": asdict(self.totals)}
        self.checkpoints.save(state, extra, accuracy)


class _Window:
    """Sums over the steps since the last row of the log."""

    def __init__(self) -> None:
        self.loss = self.correct = self.speed = 0.0
        self.taken = False  # before the first row there is nothing to show
        self._reset()

    def _reset(self) -> None:
        self.began = time.monotonic()
        self.sums: dict[str, float] = {}
        self.steps = 0

    def add(self, info: dict[str, Any]) -> None:
        self.steps += 1
        for name in ("samples", "correct", "infeasible", "skipped"):
            self.sums[name] = self.sums.get(name, 0) + int(info[name])
        if not info["skipped"]:
            for name in ("ctc_sum", "grad_norm"):
                self.sums[name] = self.sums.get(name, 0.0) + float(info[name])
            self.sums["good_samples"] = self.sums.get("good_samples", 0) + int(info["samples"])

    def take(self, config: TrainConfig, step: int) -> dict[str, Any]:
        """The row of the log, and a new window."""
        self.taken = True
        seconds = max(time.monotonic() - self.began, 1e-9)
        sums, steps = self.sums, max(self.steps, 1)
        good = max(steps - sums.get("skipped", 0), 1)
        self.loss = sums.get("ctc_sum", 0.0) / max(sums.get("good_samples", 0), 1)
        self.correct = sums.get("correct", 0) / max(sums.get("samples", 0), 1)
        self.speed = sums.get("samples", 0) / seconds
        row = {
            "loss": self.loss,
            "line_accuracy": self.correct,
            "grad_norm": sums.get("grad_norm", 0.0) / good,
            "learning_rate": float(optim.schedule(config.optim)(step - 1)),
            "infeasible": int(sums.get("infeasible", 0)),
            "skipped": int(sums.get("skipped", 0)),
            "images_per_second": self.speed,
        }
        self._reset()
        return row


def _round(value: Any) -> Any:
    if isinstance(value, int):
        return value
    return float(np.float32(value)) if math.isfinite(value) else None


def _truncate(path: Path, step: int) -> None:
    """Drops the rows of steps that will be taken again, after a run that died between two checkpoints."""
    if path.exists():
        rows = [row for row in path.read_text(encoding="utf-8").splitlines() if row.endswith("}")]
        kept = [row for row in rows if json.loads(row)["step"] <= step]
        path.write_text("".join(row + "\n" for row in kept), encoding="utf-8")


@contextmanager
def _stop_flag() -> Iterator[list[int]]:
    """A list that fills when SIGINT or SIGTERM comes; a second SIGINT interrupts at once."""
    received: list[int] = []

    def note(number: int, _: Any) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    try:
        before = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: whoever runs us there handles signals
        before = {}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
