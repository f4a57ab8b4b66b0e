"""Checkpoints of a run: orbax saves the newest few and the best, and damaged ones are detected on load."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from jaxcrnn._memory import OutOfMemory, is_out_of_memory, reason
from jaxcrnn._text import first_line
from jaxcrnn.errors import UserError
from jaxcrnn.runs import seal
from jaxcrnn.runs.processes import agreed, wait_for_all
from jaxcrnn.runs.seal import Damaged
from jaxcrnn.types import TrainState

# orbax logs every file it writes, and every failure with the stacks of several threads; failures are raised as well.
logging.getLogger("absl").setLevel(logging.CRITICAL)


def written(folder: Path) -> list[int]:
    """List the steps whose checkpoint has been written to a folder, ascending."""
    return sorted(int(path.name) for path in folder.glob("*") if path.name.isdecimal())


class Checkpoints:
    """The ``checkpoints`` folder of a run.

    Args:
      folder: folder of the checkpoints, one subfolder per step.
      keep: number of newest checkpoints to keep; the best by accuracy is kept as well.
      read_only: open for evaluation; the folder must exist.

    Raises:
      UserError: ``read_only`` is set and the folder does not exist.
    """

    def __init__(self, folder: str | Path, keep: int = 2, *, read_only: bool = False) -> None:
        self.folder, self._read_only = Path(folder).resolve(), read_only
        if read_only and not self.folder.is_dir():
            raise UserError(f"{folder}: no such folder; expected the checkpoints of a run")
        self._set_aside: list[str] = []
        self._writing: threading.Thread | None = None
        self._failed: UserError | None = None
        self._manager: ocp.CheckpointManager | None = None
        if read_only:
            return
        self._set_damaged_aside()
        newest = policies.LatestN(n=keep)
        best = policies.BestN(get_metric_fn=lambda m: m["accuracy"], n=1, keep_checkpoints_without_metrics=False)
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policies.AnyPreservationPolicy([newest, best]),
                best_fn=lambda metrics: metrics["accuracy"],
                create=True,
                cleanup_tmp_directories=True,  # of interrupted saves
            ),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self.finish()
        except UserError as failed:
            if error is None:
                raise
            error.add_note(str(failed))
        finally:
            if self._manager:
                # Closing raises the error of a failed save again, which has been reported already.
                with suppress(Exception):
                    self._manager.close()

    @property
    def steps(self) -> list[int]:
        """Steps whose checkpoint has been written, ascending."""
        return written(self.folder)

    def best(self) -> int | None:
        """Return the step with the highest saved accuracy (the latest on a tie), or None if none was saved.

        Raises:
          Damaged: the accuracy of a checkpoint cannot be read.
        """
        self.finish()
        scored = [(score, step) for step in self.steps if (score := seal.accuracy(self.folder / str(step))) is not None]
        return max(scored)[1] if scored else None

    def _set_damaged_aside(self) -> None:
        """Move checkpoints aside whose damaged metadata would keep orbax from opening the folder."""
        for step in self.steps:
            try:
                seal.accuracy(self.folder / str(step))
                seal.check_metadata(self.folder / str(step))
            except Damaged as error:
                self._set_aside.append(str(error))
                if jax.process_index() == 0:
                    seal.put_aside(self.folder / str(step))
        wait_for_all("quarantined")

    def save(self, state: TrainState, extra: dict[str, Any], accuracy: float | None) -> None:
        """Start saving a state: copy its arrays, then write them in the background.

        Args:
          state: state to save; its ``step`` names the checkpoint.
          extra: counts and facts, saved as JSON.
          accuracy: validation accuracy, or None without a validation set.

        Raises:
          UserError: opened read-only, or this or the previous save failed (disk full, no permission); earlier
            checkpoints are untouched.
        """
        self.finish()
        if self._manager is None:
            raise UserError(f"{self.folder}: opened read-only; expected a folder opened for writing")
        step = int(state.step)
        metrics = None if accuracy is None else {"accuracy": accuracy}
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            extra=ocp.args.JsonSave({**extra, seal.SHAPES: seal.shapes_of(state)}),
        )
        try:
            _reserve(self.folder, sum(leaf.nbytes for leaf in jax.tree.leaves(state)))
            self._manager.save(step, args=items, metrics=metrics, force=True)
        except Exception as error:  # tensorstore wraps the file system's errors in several types
            raise self._not_saved(step, error) from error
        self._writing = threading.Thread(target=self._write, args=(self._manager, step))
        self._writing.start()

    def _write(self, manager: ocp.CheckpointManager, step: int) -> None:
        try:
            manager.wait_until_finished()
            if jax.process_index() == 0:
                seal.seal(self.folder / str(step))
        except Exception as error:
            self._failed = self._not_saved(step, error)

    def _not_saved(self, step: int, error: Exception) -> UserError:
        earlier = ", ".join(str(s) for s in self.steps if s != step) or "none"
        return UserError(
            f"{self.folder}: could not save the checkpoint of step {step}: {first_line(error)[:200]}; "
            f"earlier checkpoints: {earlier}"
        )

    def check(self) -> None:
        """Raise the error of the last save if it has failed so far, without waiting for it.

        Raises:
          UserError: the save failed.
        """
        if self._failed:
            failed, self._failed = self._failed, None
            raise failed

    def finish(self) -> None:
        """Wait until the last save is on disk.

        Raises:
          UserError: the save failed.
        """
        if self._writing:
            self._writing.join()
            self._writing = None
        self.check()

    def restore(
        self, step: int, template: TrainState, places: Any = None, *, verified: bool = False
    ) -> tuple[TrainState, dict[str, Any]]:
        """Load a state and the facts saved with it.

        Args:
          step: one of ``steps``.
          template: expected shapes and dtypes, e.g. from ``jax.eval_shape``.
          places: tree of shardings to restore to, which may differ from the saved ones; default: the first device.
          verified: skip the checksum test because it was done already.

        Raises:
          Damaged: the checkpoint cannot be read, or its files do not match their checksums.
          UserError: no such checkpoint, or unexpected shapes.
        """
        self.finish()
        if not verified and step not in self.steps:
            raise UserError(f"{self.folder}: no checkpoint of step {step}; available: {self.steps or 'none'}")
        here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        places = jax.tree.map(lambda _: here, template) if places is None else places
        target = jax.tree.map(lambda a, p: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=p), template, places)
        where = self.folder / str(step)
        if not verified:
            seal.verify(where)
        try:
            # Shapes are checked first, because orbax leaves noisy threads behind after a shape mismatch.
            extra = seal.facts_for(where, template)
            reader = ocp.Checkpointer(ocp.StandardCheckpointHandler())
            return reader.restore(where / "state", args=ocp.args.StandardRestore(target)), extra
        except UserError:
            raise
        except Exception as error:
            if is_out_of_memory(error):  # the checkpoint itself may be intact
                raise OutOfMemory(
                    f"not enough memory to load {where}: {reason(error)}; free memory, or use a larger device"
                ) from error
            raise Damaged(f"{where}: unreadable checkpoint: {first_line(error)[:200]}") from error

    def restore_newest(
        self, template: TrainState, places: Any = None, warn: Callable[[str], None] = lambda text: None
    ) -> tuple[TrainState, dict[str, Any], int]:
        """Load the newest intact state, and return it with its facts and its step.

        Damaged checkpoints are skipped. Unless opened read-only, they are moved to ``damaged-STEP`` in the run folder,
        so that training can save that step again.

        Args:
          template: as in `restore`.
          places: as in `restore`.
          warn: called with one line for each skipped checkpoint.

        Raises:
          Damaged: no checkpoint is intact.
        """
        self.finish()
        for message in self._set_aside:
            warn(f"warning: {message}; skipped")
        if jax.process_count() > 1:
            return self._restore_agreed(template, places, warn)
        for step in reversed(steps := self.steps):
            try:
                state, facts = self.restore(step, template, places)
                self._seal_missing(step, warn)
                return state, facts, step
            except Damaged as error:
                if step == steps[0]:
                    raise self._none_left(error) from error
                self._skip(step, error, warn)
                self._reload()
        raise UserError(f"{self.folder}: no checkpoints")

    def _none_left(self, error: Damaged) -> Damaged:
        return Damaged(
            f"{error}; no other checkpoint is available; copy an intact one into {self.folder} or start a new run"
        )

    def _skip(self, step: int, error: Damaged, warn: Callable[[str], None]) -> None:
        warn(f"warning: {error}; falling back to the previous checkpoint")
        if not self._read_only:
            seal.put_aside(self.folder / str(step))

    def _seal_missing(self, step: int, warn: Callable[[str], None]) -> None:
        """If a checkpoint has no checksum manifest, warn that it was not verified, and write one now."""
        folder = self.folder / str(step)
        if not seal.is_sealed(folder):
            why = f"no checksum manifest {seal.MANIFEST} (the save was interrupted?); loaded without verification"
            warn(f"warning: {folder}: {why}")
            if not self._read_only:
                with suppress(OSError):
                    seal.seal(folder)

    def _restore_agreed(
        self, template: TrainState, places: Any, warn: Callable[[str], None]
    ) -> tuple[TrainState, dict[str, Any], int]:
        """`restore_newest` for several processes: process 0 chooses the step.

        Other processes may see an older state of the folder, and processes that chose different steps would deadlock.
        """
        step, error = self._newest_intact(warn) if jax.process_index() == 0 else (-1, None)
        step = agreed(step)
        self._reload()
        if step < 0:
            raise (
                self._none_left(error)
                if error
                else Damaged(f"{self.folder}: no intact checkpoint; see the message of process 0")
            )
        state, facts = self.restore(step, template, places, verified=True)
        if jax.process_index() == 0:
            self._seal_missing(step, warn)
        return state, facts, step

    def _newest_intact(self, warn: Callable[[str], None]) -> tuple[int, Damaged | None]:
        """Return the newest step whose files match their checksums, or -1 and the error of the oldest step."""
        for step in reversed(steps := self.steps):
            try:
                seal.verify(self.folder / str(step))
                return step, None
            except Damaged as error:
                if step == steps[0]:
                    return -1, error
                self._skip(step, error, warn)
        return -1, None

    def _reload(self) -> None:
        if self._manager:
            self._manager.reload()


def _reserve(folder: Path, size: int) -> None:
    """Fail at once if a checkpoint of this size does not fit on the disk; orbax would retry for minutes first."""
    if hasattr(os, "posix_fallocate"):
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, size)
