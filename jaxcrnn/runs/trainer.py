"""Training loop: steps, validation, checkpoints and logs; stops cleanly on signals and resumes exactly."""

from __future__ import annotations

import json
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxcrnn._console import Plain, duration
from jaxcrnn._memory import explained
from jaxcrnn._ranges import Count, Natural, check
from jaxcrnn._text import first_line
from jaxcrnn.charset import Charset
from jaxcrnn.data.audit import Corpus
from jaxcrnn.data.buckets import Planned
from jaxcrnn.data.images import ImageError
from jaxcrnn.decoding.evaluate import evaluate
from jaxcrnn.errors import UserError
from jaxcrnn.parallel.mesh import MeshConfig, assemble, everywhere, make_mesh, of_batch, of_state, place
from jaxcrnn.render.streams import Stream
from jaxcrnn.runs import metrics_log
from jaxcrnn.runs.checkpoint import Checkpoints
from jaxcrnn.runs.compile import Program, compile_step, for_training, trim_heap
from jaxcrnn.runs.metrics_log import Window, rounded
from jaxcrnn.runs.processes import agreed
from jaxcrnn.runs.signals import Notices, SignalReceived, stop_flag, until_signal
from jaxcrnn.train import TrainConfig, init_state, state_shapes
from jaxcrnn.types import Batch, TrainState

SKIPS_IN_A_ROW = 10
_MANY_CLASSES = 1000  # from which the dense head takes most of the memory


@dataclass(frozen=True)
class LoopConfig:
    """Training loop: seed, and how often to validate, log and save.

    Attributes:
      seed: random seed of the parameters, the sample order and the augmentation, 0 or more.
      eval_every: steps between validations, 1 or more; a checkpoint is saved at each.
      log_every: steps aggregated into one row of ``metrics.jsonl``, 1 or more.
      quick_compile: compile the training step with less optimization, for runs of a few minutes. On CPUs, this takes as
        little as half the time, and steps take longer; on GPUs, it has not been measured. Results are equal up to
        rounding.
      keep: number of newest checkpoints to keep, 1 or more; the best by validation accuracy is kept as well.

    Raises:
      UserError: a value is out of range.
    """

    seed: Natural = 0
    eval_every: Count = 200
    log_every: Count = 10
    keep: Count = 2
    quick_compile: bool = False

    def __post_init__(self) -> None:
        check(self, "run")


@dataclass
class Totals:
    """Counts over the whole run, saved in checkpoints."""

    samples: int = 0
    skipped_steps: int = 0
    infeasible_samples: int = 0
    worker_restarts: int = 0


@dataclass
class Fit:
    """Result of a training."""

    state: TrainState
    step: int
    stopped: bool
    programs: int
    totals: Totals


def fit(
    config: TrainConfig,
    loop: LoopConfig,
    charset: Charset,
    batches: Stream,
    validation: Corpus | None,
    folder: Path,
    console: Plain,
    track: Callable[[dict[str, Any]], None] = lambda row: None,
    first: TrainState | None = None,
    mesh: Mesh | None = None,
    fsdp: bool = False,
) -> Fit:
    """Train to the end of the schedule, from the newest checkpoint in the folder or from the start.

    Args:
      config: configuration of the train step.
      loop: configuration of the training loop.
      charset: charset of the run.
      batches: stream of training batches.
      validation: lines to validate on, or None.
      folder: run folder; ``checkpoints`` and ``metrics.jsonl`` are written there.
      console: console for progress.
      track: called with every row of ``metrics.jsonl``.
      first: initial state; default: `jaxcrnn.train.init_state` with the seed's key.
      mesh: device mesh (`jaxcrnn.parallel.mesh.make_mesh`); default: one device. With several processes each calls
        this function, and only process 0 writes logs.
      fsdp: shard large arrays of the state over the devices of the batch (`jaxcrnn.parallel.mesh.of_state`).

    Raises:
      UserError: the data differ from the checkpoint's, a checkpoint cannot be written, or ten steps in a row had
        non-finite gradients.
    """
    mesh = mesh or make_mesh(MeshConfig(1))
    key = jax.random.key(loop.seed)
    fingerprint = batches.fingerprint
    totals = Totals()
    shapes = state_shapes(config)
    places = of_state(mesh, shapes, fsdp=fsdp)
    with Checkpoints(folder / "checkpoints", loop.keep) as checkpoints:
        if agreed(len(checkpoints.steps)):
            state, extra, step = checkpoints.restore_newest(shapes, places, console.line)
            if extra["data"] != fingerprint:
                raise UserError(
                    f"{folder}: the training data changed since step {step}; resuming requires the same data"
                )
            totals = Totals(**extra["totals"])
            console.line(f"resumed at step {step}")
        else:
            # Placed on the devices like a restored state, so that new and resumed runs share one cached program
            # (`jaxcrnn.runs.compile.cache_programs`).
            _warn_lost(folder, loop.eval_every, console)
            with explained(lambda: ("the state of the model", "lower model.hidden, or choose a smaller backbone")):
                state = jax.block_until_ready(place(first or init_state(config, key), places))
            if first:  # otherwise a run killed before its first checkpoint would be resumed from other weights
                checkpoints.save(state, {"data": fingerprint, "totals": asdict(totals)}, None)
        log = folder / metrics_log.NAME if jax.process_index() == 0 else Path(os.devnull)
        run = _Run(
            config,
            loop,
            charset,
            batches,
            validation,
            log,
            console,
            track,
            checkpoints,
            totals,
            place(key, everywhere(mesh)),
            fingerprint,
            mesh,
            fsdp,
        )
        try:
            with explained(run.described):
                return run.go(state)
        except BrokenPipeError:
            raise
        except (ImageError, OSError) as error:  # an image deleted or replaced since the audit; a log on a full disk
            with suppress(UserError):
                checkpoints.finish()
            what = str(error)
            if isinstance(error, OSError):
                what = f"{error.filename or folder}: {error.strerror or first_line(error)}"
            raise UserError(f"{what}; training stopped, available checkpoints: {_listed(checkpoints)}") from None


def _warn_lost(folder: Path, eval_every: int, console: Plain) -> None:
    """Warn that a run without checkpoints restarts, or raise if its checkpoints must have been removed.

    Raises:
      UserError: the log extends beyond the second save, which starts only when the first is on disk.
    """
    log = folder / metrics_log.NAME
    last = max((row["step"] for row in metrics_log.read(log).rows), default=0)
    if last > 2 * eval_every:
        raise UserError(
            f"{folder}: {log.name} reaches step {last} but checkpoints/ is empty; restore the checkpoints "
            "or use a new folder"
        )
    if last:
        console.line(f"no checkpoint found; restarting, and discarding rows of {log.name} up to step {last}")


def _listed(checkpoints: Checkpoints) -> str:
    return ", ".join(map(str, checkpoints.steps)) or "none"


def restarts(batches: Stream) -> int:
    """Return how often worker processes of a stream, or of its parts, were restarted."""
    return sum(getattr(part, "restarts", 0) for part in getattr(batches, "parts", [batches]))


@dataclass
class _Run:
    """State of one call of `fit`."""

    config: TrainConfig
    loop: LoopConfig
    charset: Charset
    batches: Stream
    validation: Corpus | None
    log_path: Path
    console: Plain
    track: Callable[[dict[str, Any]], None]
    checkpoints: Checkpoints
    totals: Totals
    key: jax.Array
    fingerprint: str  # computed once per run, because it hashes every row of the data
    mesh: Mesh
    fsdp: bool
    programs: dict[int, Program] = field(default_factory=dict)
    skipped: deque[int] = field(default_factory=lambda: deque(maxlen=SKIPS_IN_A_ROW))
    accuracy: float = math.nan
    bucket: int | None = None  # of the batch of the current step
    paused: float = 0.0  # seconds spent compiling and validating, excluded from the ETA

    def __post_init__(self) -> None:
        self.window = Window(self.charset)
        self.restarted_before = self.totals.worker_restarts
        self.reader = for_training(self.config, self.mesh)

    def go(self, state: TrainState) -> Fit:
        start, stop = int(state.step), self.config.optim.steps
        metrics_log.truncate(self.log_path, start, self.console)
        self.checkpoints.finish()
        saved = start if agreed(len(self.checkpoints.steps)) else -1
        names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state.params)]
        began = time.monotonic()
        step, pending = start, None
        with (
            stop_flag(alone=jax.process_count() == 1) as stopping,
            self.log_path.open("a", encoding="utf-8") as log,
            closing(self.batches.training(start, stop)) as batches,
        ):
            for bucket, batch in until_signal(self._sent(batches), stopping):
                self.bucket = bucket
                try:
                    program = self._program(bucket, batch, state, stopping)
                except SignalReceived:
                    break
                with jax.transfer_guard("disallow"):
                    state, info = program(state, batch, self.key)
                # The info of the previous step is fetched while this one runs, so that the device never waits.
                if pending:
                    self._account(step - 1, pending, names)
                pending, step = info, step + 1
                stopped = self._is_stopped(stopping, step)
                due = step % self.loop.eval_every == 0 or step == stop or stopped
                if due or step % self.loop.log_every == 0:
                    self._account(step - 1, pending, names)
                    pending = None
                    self._log(log, step, self.window.take(self.config, step))
                if self.window.taken:
                    self._show(step, stop, began, step - start)
                if due:
                    # After a signal the state is saved without validation, because a kill may follow soon.
                    scored = not stopped or step == stop
                    self._save(state, self._validate(log, step, state) if scored else None)
                    saved = step
                if stopped:
                    break
            if pending:  # a signal arrived while waiting for a batch or the compiler
                self._account(step - 1, pending, names)
                self._log(log, step, self.window.take(self.config, step))
        if saved != step:
            self._save(state, None)
        return Fit(state, step, step < stop, len(self.programs), self.totals)

    def described(self) -> tuple[str, str]:
        """Describe the current step, and what to lower if it needs too much memory."""
        data, model = self.batches, self.config.model
        width = f"width {data.buckets[self.bucket]}" if self.bucket is not None else f"widths up to {data.buckets[-1]}"
        what = f"a step on {data.batch_size} lines of {width}"
        ways = ["lower data.batch_size, data.max_width or model.hidden"]
        if model.head == "dense" and model.num_classes > _MANY_CLASSES:
            ways.append(f"or use model.head=fused, which never stores the logits of all {model.num_classes} classes")
        if any(self.checkpoints.steps):
            ways.append(f"then resume from a checkpoint (available: {_listed(self.checkpoints)})")
        return what, ", ".join(ways)

    def _is_stopped(self, stopping: Notices, step: int) -> bool:
        """Return whether to stop after this step; a signal to one process stops all of them at the same step."""
        if jax.process_count() == 1:
            return bool(stopping)
        from jax.experimental import multihost_utils

        # Only when a log row is due, because it needs an all-gather.
        return step % self.loop.log_every == 0 and bool(
            multihost_utils.process_allgather(np.int32(len(stopping))).any()
        )

    def _sent(self, batches: Iterator[tuple[Planned, Batch]]) -> Iterator[tuple[int, Batch]]:
        """Yield batches on the devices, with their buckets; the step itself is not allowed to transfer data."""
        for planned, batch in batches:
            yield planned.bucket, assemble(batch, of_batch(self.mesh))

    def _program(self, bucket: int, batch: Batch, state: TrainState, stopping: Notices) -> Program:
        """Return the step compiled for a bucket; an unexpected shape is an error and never recompiles.

        Raises:
          SignalReceived: a signal arrived while the compiler ran.
        """
        if bucket not in self.programs:
            began = time.monotonic()
            arguments, quick = (self.config, state, batch, self.key, self.mesh), self.loop.quick_compile
            self.programs[bucket] = compile_step(*arguments, stopping.interruptible, quick=quick)
            trim_heap()
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
        self.console.line(f"step {step} skipped: non-finite {'gradients of ' + shown if broken else 'loss or centers'}")
        if len(self.skipped) == SKIPS_IN_A_ROW:
            raise UserError(
                f"{SKIPS_IN_A_ROW} steps in a row ({self.skipped[0]} to {step}) had non-finite gradients; "
                f"available checkpoints: {self.checkpoints.steps or 'none'}; try a lower optim.learning_rate or "
                "loss.center_rate"
            )

    def _log(self, log: Any, step: int, row: dict[str, Any]) -> None:
        self.checkpoints.check()
        again = self.totals.worker_restarts = self.restarted_before + restarts(self.batches)
        row = {"step": step, **{k: rounded(v) for k, v in row.items()}, **({"worker_restarts": again} if again else {})}
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
            self.reader,
            self._whole(state),
            self.charset,
            self.validation,
            batch_size=self.batches.batch_size,
            buckets=len(self.batches.buckets),
            mesh=self.mesh if self.mesh.size > 1 else None,
        )
        trim_heap()
        try:
            score = result.score()
            more = {"val_character_accuracy": score.character_accuracy, "val_1_ned": score.normalized_similarity}
            self.accuracy = score.line_accuracy
        except ImportError:  # without rapidfuzz only the line accuracy is available
            right = sum(line.text == truth for line, truth in zip(result.lines, result.truths, strict=True))
            more, self.accuracy = {}, right / len(result.lines)
        validated = {"val_loss": result.loss, "val_line_accuracy": self.accuracy, **more}
        self._log(log, step, validated)
        shown = "  ".join(f"{k.removeprefix('val_').replace('_', ' ')} {v:.4f}" for k, v in validated.items())
        self.console.line(f"step {step}  validation  {shown}")
        self.paused += time.monotonic() - began
        self.window.began += time.monotonic() - began
        return self.accuracy

    def _whole(self, state: TrainState) -> TrainState:
        """Gather the parameters that FSDP shards, for validation."""
        if not self.fsdp:
            return state
        return jax.jit(lambda state: state, out_shardings=of_state(self.mesh, state))(state)

    def _save(self, state: TrainState, accuracy: float | None) -> None:
        self.totals.worker_restarts = self.restarted_before + restarts(self.batches)
        extra = {"data": self.fingerprint, "totals": asdict(self.totals)}
        self.checkpoints.save(state, extra, accuracy)
