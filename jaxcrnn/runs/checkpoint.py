"""Checkpoints of a run: the newest few and the best, written by orbax."""

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

from jaxcrnn._text import first_line
from jaxcrnn.errors import UserError
from jaxcrnn.runs import seal
from jaxcrnn.runs.processes import agreed, wait_for_all
from jaxcrnn.runs.seal import Damaged
from jaxcrnn.types import TrainState

# orbax reports every file it writes, and each failure with the stacks of several threads; what failed is raised too.
logging.getLogger("absl").setLevel(logging.CRITICAL)


def written(folder: Path) -> list[int]:
    """Steps whose checkpoint is written in a folder, ascending."""
    return sorted(int(path.name) for path in folder.glob("*") if path.name.isdecimal())


class Checkpoints:
    """The ``checkpoints`` folder of a run.

    Args:
      folder: where the checkpoints are, one folder a step.
      keep: how many of the newest stay; the best by accuracy stays besides.
      read_only: for evaluation; the folder must exist then.

    Raises:
      UserError: ``read_only`` and the folder does not exist.
    """

    def __init__(self, folder: str | Path, keep: int = 2, *, read_only: bool = False) -> None:
        self.folder, self._read_only = Path(folder).resolve(), read_only
        if read_only and not self.folder.is_dir():
            raise UserError(f"{folder}: no such folder; expected the checkpoints of a run")
        self._left_out: list[str] = []
        self._writing: threading.Thread | None = None
        self._failed: UserError | None = None
        self._manager: ocp.CheckpointManager | None = None
        if read_only:
            return
        self._leave_out()
        newest = policies.LatestN(n=keep)
        best = policies.BestN(get_metric_fn=lambda m: m["accuracy"], n=1, keep_checkpoints_without_metrics=False)
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policies.AnyPreservationPolicy([newest, best]),
                best_fn=lambda metrics: metrics["accuracy"],
                create=True,
                cleanup_tmp_directories=True,  # of saves that were killed
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
                # It raises once more what a save has failed of, which is said by now.
                with suppress(Exception):
                    self._manager.close()

    @property
    def steps(self) -> list[int]:
        """Steps whose checkpoint is written, ascending."""
        return written(self.folder)

    def best(self) -> int | None:
        """The step with the highest accuracy among those written with one, the last of several.

        Raises:
          Damaged: that of one cannot be read.
        """
        self.finish()
        scored = [(found, step) for step in self.steps if (found := seal.accuracy(self.folder / str(step))) is not None]
        return max(scored)[1] if scored else None

    def _leave_out(self) -> None:
        """Moves checkpoints out of the way with which orbax would not even open the folder."""
        for step in self.steps:
            try:
                seal.accuracy(self.folder / str(step))
                seal.check_metadata(self.folder / str(step))
            except Damaged as error:
                self._left_out.append(str(error))
                if jax.process_index() == 0:
                    seal.put_aside(self.folder / str(step))
        wait_for_all("left out")

    def save(self, state: TrainState, extra: dict[str, Any], accuracy: float | None) -> None:
        """Begins to save a state: returns when its arrays are copied, and writes them while training goes on.

        Args:
          state: its ``step`` names the checkpoint.
          extra: counts and facts, as JSON.
          accuracy: validation accuracy, if there is a validation set.

        Raises:
          UserError: opened only to read, or it or the one before could not be written (disk full, no permission);
            earlier checkpoints are untouched.
        """
        self.finish()
        if self._manager is None:
            raise UserError(f"{self.folder}: opened to be read; expected a folder opened to be written")
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
            f"earlier ones kept: {earlier}"
        )

    def check(self) -> None:
        """Says whether the last save has failed so far, without waiting for it.

        Raises:
          UserError: it has.
        """
        if self._failed:
            failed, self._failed = self._failed, None
            raise failed

    def finish(self) -> None:
        """Waits until what was saved is on the disk.

        Raises:
          UserError: it could not be written.
        """
        if self._writing:
            self._writing.join()
            self._writing = None
        self.check()

    def restore(
        self, step: int, template: TrainState, places: Any = None, *, looked_at: bool = False
    ) -> tuple[TrainState, dict[str, Any]]:
        """A state and the facts saved with it.

        Args:
          step: one of ``steps``.
          template: shapes and dtypes expected, e.g. from ``jax.eval_shape``.
          places: a tree of shardings, whatever the arrays were saved from; default: the first device.
          looked_at: its files are known to be there, and to be those that were saved.

        Raises:
          Damaged: it cannot be read, or its files are not those that were saved.
          UserError: no such checkpoint, or one that does not have the expected shapes.
        """
        self.finish()
        if not looked_at and step not in self.steps:
            raise UserError(f"{self.folder}: no checkpoint of step {step}; there are {self.steps or 'none'}")
        here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        places = jax.tree.map(lambda _: here, template) if places is None else places
        target = jax.tree.map(lambda a, p: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=p), template, places)
        where = self.folder / str(step)
        if not looked_at:
            seal.verify(where)
        try:
            # The facts first: orbax leaves noisy threads behind when it meets a shape that was not expected.
            extra = seal.facts_for(where, template)
            reader = ocp.Checkpointer(ocp.StandardCheckpointHandler())
            return reader.restore(where / "state", args=ocp.args.StandardRestore(target)), extra
        except UserError:
            raise
        except Exception as error:
            raise Damaged(f"{where}: not a checkpoint that can be read: {first_line(error)[:200]}") from error

    def restore_newest(
        self, template: TrainState, places: Any = None, warn: Callable[[str], None] = lambda text: None
    ) -> tuple[TrainState, dict[str, Any], int]:
        """The newest state that is whole, its facts, and its step.

        Damaged ones are passed over; where this may write, they are moved out of the way to ``damaged-STEP`` beside the
        folder, so that training can save that step again.

        Args:
          template: as for `restore`.
          places: as for `restore`.
          warn: called with a line for each that is passed over.

        Raises:
          Damaged: all of them are.
        """
        self.finish()
        for message in self._left_out:
            warn(f"warning: {message}; left out")
        if jax.process_count() > 1:
            return self._restore_agreed(template, places, warn)
        for step in reversed(steps := self.steps):
            try:
                state, facts = self.restore(step, template, places)
                self._unsealed(step, warn)
                return state, facts, step
            except Damaged as error:
                if step == steps[0]:
                    raise self._none_left(error) from error
                self._pass_over(step, error, warn)
                self._reload()
        raise UserError(f"{self.folder}: no checkpoint in it")

    def _none_left(self, error: Damaged) -> Damaged:
        return Damaged(f"{error}; there is no other: put a whole checkpoint into {self.folder}, or train elsewhere")

    def _pass_over(self, step: int, error: Damaged, warn: Callable[[str], None]) -> None:
        warn(f"warning: {error}; going on with the one before it")
        if not self._read_only:
            seal.put_aside(self.folder / str(step))

    def _unsealed(self, step: int, warn: Callable[[str], None]) -> None:
        """Warn that the files of a checkpoint could not be verified, and seal them as they were read now."""
        folder = self.folder / str(step)
        if not seal.is_sealed(folder):
            why = f"no {seal.MANIFEST}, as after a save that was killed: its files are taken as they are"
            warn(f"warning: {folder}: {why}")
            if not self._read_only:
                with suppress(OSError):
                    seal.seal(folder)

    def _restore_agreed(
        self, template: TrainState, places: Any, warn: Callable[[str], None]
    ) -> tuple[TrainState, dict[str, Any], int]:
        """As `restore_newest`, where the first process chooses the step: what another one sees of the folder may be
        older, and if each chose its own they would wait for each other for ever."""
        step, error = self._newest_intact(warn) if jax.process_index() == 0 else (-1, None)
        step = agreed(step)
        self._reload()
        if step < 0:
            raise self._none_left(error) if error else Damaged(f"{self.folder}: the first process says what is missing")
        state, facts = self.restore(step, template, places, looked_at=True)
        if jax.process_index() == 0:
            self._unsealed(step, warn)
        return state, facts, step

    def _newest_intact(self, warn: Callable[[str], None]) -> tuple[int, Damaged | None]:
        """The newest step whose files are those that were saved, or -1 and what is wrong with the oldest."""
        for step in reversed(steps := self.steps):
            try:
                seal.verify(self.folder / str(step))
                return step, None
            except Damaged as error:
                if step == steps[0]:
                    return -1, error
                self._pass_over(step, error, warn)
        return -1, None

    def _reload(self) -> None:
        if self._manager:
            self._manager.reload()


def _reserve(folder: Path, size: int) -> None:
    """Fails at once where a checkpoint of this size would not fit: orbax notices late, after minutes of retries."""
    if hasattr(os, "posix_fallocate"):
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, size)
