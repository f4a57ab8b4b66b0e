"""Checkpoints of a run: the newest few and the best, written by orbax."""

from __future__ import annotations

import json
import logging
import os
import tempfile
import threading
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from jaxcrnn._text import first_line
from jaxcrnn.errors import UserError
from jaxcrnn.types import TrainState

# orbax reports every file it writes, and each failure with the stacks of several threads; what failed is raised too.
logging.getLogger("absl").setLevel(logging.CRITICAL)


_SHAPES, _SEAL = "shapes", "files.json"


class Damaged(UserError):
    """A checkpoint that cannot be read, or whose files are not those that were saved."""


def _shapes(state: TrainState) -> dict[str, list[int]]:
    return {jax.tree_util.keystr(path): list(leaf.shape) for path, leaf in jax.tree_util.tree_leaves_with_path(state)}


def _files(folder: Path) -> dict[str, list[int]]:
    """Size and CRC-32 of every file of a checkpoint."""
    paths = (p for p in sorted(folder.rglob("*")) if p.is_file() and not p.name.startswith(_SEAL))
    return {str(p.relative_to(folder)): [p.stat().st_size, _crc(p)] for p in paths}


def _crc(path: Path) -> int:
    found = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            found = zlib.crc32(block, found)
    return found


def _seal(folder: Path) -> None:
    sealed = folder / f"{_SEAL}.new"
    sealed.write_text(json.dumps(_files(folder)), encoding="utf-8")
    sealed.rename(folder / _SEAL)


def _check(folder: Path) -> None:
    """Compares the files of a checkpoint with what they were.

    A save that was killed between its last file and its seal is whole and has none.

    Raises:
      Damaged: they differ.
    """
    if not (folder / _SEAL).exists():
        return
    try:
        sealed = json.loads((folder / _SEAL).read_text(encoding="utf-8"))
        found = _files(folder)
        wrong = [name for name, known in sealed.items() if found.get(name) != known]
        wrong += [name for name in found if name not in sealed and name.split(os.sep)[0] in ("state", "extra")]
    except (OSError, ValueError, AttributeError):
        raise Damaged(f"{folder}: damaged: {_SEAL} cannot be read") from None
    if wrong:
        name = wrong[0]
        if name not in sealed:
            what = f"is not among those of {_SEAL}"
        elif name not in found:
            what = "is missing"
        elif found[name][0] != sealed[name][0]:
            what = f"has {found[name][0]} bytes instead of {sealed[name][0]}"
        else:
            what = "is not what was saved"
        raise Damaged(f"{folder}: damaged: {name} {what}" + f", one of {len(wrong)} such files" * (len(wrong) > 1))


def _facts(folder: Path) -> None:
    """Looks at orbax's own facts about a checkpoint, where there are any.

    Raises:
      Damaged: they are no JSON object.
    """
    file = folder / "_CHECKPOINT_METADATA"
    try:
        if file.exists() and not isinstance(json.loads(file.read_bytes()), dict):
            raise ValueError
    except (OSError, ValueError, RecursionError):
        raise Damaged(f"{folder}: damaged: {file.name} cannot be read") from None


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
        scored = [(found, step) for step in self.steps if (found := self._accuracy(step)) is not None]
        return max(scored)[1] if scored else None

    def _accuracy(self, step: int) -> float | None:
        file = self.folder / str(step) / "metrics" / "metrics"
        try:
            return float(json.loads(file.read_bytes())["accuracy"]) if file.exists() else None
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise Damaged(f"{self.folder / str(step)}: damaged: its metrics cannot be read") from error

    def _leave_out(self) -> None:
        """Moves checkpoints out of the way with which orbax would not even open the folder."""
        for step in self.steps:
            try:
                self._accuracy(step)
                _facts(self.folder / str(step))
            except Damaged as error:
                self._left_out.append(str(error))
                self._move(step)
        _all_here("left out")

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
            extra=ocp.args.JsonSave({**extra, _SHAPES: _shapes(state)}),
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
                _seal(self.folder / str(step))
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
            _check(where)
        try:
            # The facts first: orbax leaves noisy threads behind when it meets a shape that was not expected.
            extra = json.loads((where / "extra" / "metadata").read_bytes())
            saved, expected = extra.pop(_SHAPES), _shapes(template)
            for name in sorted(saved.keys() | expected.keys()):
                if saved.get(name) != expected.get(name):
                    raise UserError(
                        f"{where}: not a checkpoint of this run's model: {name} is {saved.get(name)}, "
                        f"the configuration makes it {expected.get(name)}"
                    )
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
                found = self.restore(step, template, places)
                self._unsealed(step, warn)
                return *found, step
            except Damaged as error:
                if step == steps[0]:
                    raise self._none_left(error) from error
                warn(f"warning: {error}; going on with the one before it")
                if not self._read_only:
                    self._move(step)
                    self._reload()
        raise UserError(f"{self.folder}: no checkpoint in it")

    def _none_left(self, error: Damaged) -> Damaged:
        return Damaged(f"{error}; there is no other: put a whole checkpoint into {self.folder}, or train elsewhere")

    def _unsealed(self, step: int, warn: Callable[[str], None]) -> None:
        """Says that nothing can be said about the files of a checkpoint; of those read now it can, from now on."""
        where = self.folder / str(step)
        if not (where / _SEAL).exists():
            warn(f"warning: {where}: no {_SEAL}, as after a save that was killed: its files are taken as they are")
            if not self._read_only:
                with suppress(OSError):
                    _seal(where)

    def _restore_agreed(
        self, template: TrainState, places: Any, warn: Callable[[str], None]
    ) -> tuple[TrainState, dict[str, Any], int]:
        """As `restore_newest`, where the first process looks and says which: what another one sees of the folder may be
        older, and each of them going its own way would make them wait for each other for ever."""
        step, last = -1, None
        if jax.process_index() == 0:
            for known in reversed(self.steps):
                try:
                    _check(self.folder / str(known))
                except Damaged as error:
                    last = error
                    if known == self.steps[0]:
                        break
                    warn(f"warning: {error}; going on with the one before it")
                    if not self._read_only:
                        self._move(known)
                else:
                    step = known
                    break
        step = agreed(step)
        self._reload()
        if step < 0:
            raise self._none_left(last) if last else Damaged(f"{self.folder}: the first process says what is missing")
        found = self.restore(step, template, places, looked_at=True)
        if jax.process_index() == 0:
            self._unsealed(step, warn)
        return *found, step

    def _reload(self) -> None:
        if self._manager:
            self._manager.reload()

    def _move(self, step: int) -> None:
        if jax.process_index() == 0:
            place, number = self.folder.parent / f"damaged-{step}", 1
            while place.exists():
                place, number = self.folder.parent / f"damaged-{step}-{number}", number + 1
            (self.folder / str(step)).rename(place)


def agreed(number: int) -> int:
    """What the first process says, for all of them."""
    if jax.process_count() == 1:
        return number
    from jax.experimental import multihost_utils

    return int(multihost_utils.broadcast_one_to_all(np.int32(number)))


def _all_here(what: str) -> None:
    """Waits for the other processes."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(what)


def _reserve(folder: Path, size: int) -> None:
    """Fails at once where a checkpoint of this size would not fit: orbax notices late, after minutes of retries."""
    if hasattr(os, "posix_fallocate"):
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, size)
