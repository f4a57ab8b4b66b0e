"""Checkpoints of a run: the newest few and the best, written by orbax."""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from jaxcrnn.errors import UserError, first_line
from jaxcrnn.types import TrainState

logging.getLogger("absl").setLevel(logging.ERROR)  # orbax reports every file it writes


_SHAPES = "shapes"


def _shapes(state: TrainState) -> dict[str, list[int]]:
    return {jax.tree_util.keystr(path): list(leaf.shape) for path, leaf in jax.tree_util.tree_leaves_with_path(state)}


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
        self.folder = Path(folder).resolve()
        if read_only and not self.folder.is_dir():
            raise UserError(f"{folder}: no such folder; expected the checkpoints of a run")
        newest = policies.LatestN(n=keep)
        best = policies.BestN(get_metric_fn=lambda m: m["accuracy"], n=1, keep_checkpoints_without_metrics=False)
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policies.AnyPreservationPolicy([newest, best]),
                best_fn=lambda metrics: metrics["accuracy"],
                enable_async_checkpointing=False,
                read_only=read_only,
                create=not read_only,
            ),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._manager.close()

    @property
    def steps(self) -> list[int]:
        """Steps that have a checkpoint, ascending."""
        return sorted(self._manager.all_steps())

    def best(self) -> int | None:
        """The step with the highest accuracy among those saved with one."""
        return self._manager.best_step() if self._scored() else None

    def _scored(self) -> bool:
        return any(self._manager.metrics(step) for step in self.steps)

    def save(self, state: TrainState, extra: dict[str, Any], accuracy: float | None) -> None:
        """Saves a state.

        Args:
          state: its ``step`` names the checkpoint.
          extra: counts and facts, as JSON.
          accuracy: validation accuracy, if there is a validation set.

        Raises:
          UserError: it could not be written (disk full, no permission); earlier checkpoints are untouched.
        """
        step = int(state.step)
        metrics = None if accuracy is None else {"accuracy": accuracy}
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state), extra=ocp.args.JsonSave({**extra, _SHAPES: _shapes(state)})
        )
        try:
            _reserve(self.folder, sum(leaf.nbytes for leaf in jax.tree.leaves(state)))
            self._manager.save(step, args=items, metrics=metrics, force=True)
        except Exception as error:  # tensorstore wraps the file system's errors in several types
            earlier = ", ".join(str(s) for s in self.steps if s != step) or "none"
            reason = first_line(error)
            raise UserError(
                f"{self.folder}: could not save the checkpoint of step {step}: {reason[:200]}; "
                f"earlier ones kept: {earlier}"
            ) from error

    def restore(self, step: int, template: TrainState, places: Any = None) -> tuple[TrainState, dict[str, Any]]:
        """A state and the facts saved with it.

        Args:
          step: one of ``steps``.
          template: shapes and dtypes expected, e.g. from ``jax.eval_shape``.
          places: a tree of shardings, whatever the arrays were saved from; default: the first device.

        Raises:
          UserError: no such checkpoint, or one that does not have the expected shapes.
        """
        if step not in self.steps:
            raise UserError(f"{self.folder}: no checkpoint of step {step}; there are {self.steps or 'none'}")
        here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        places = jax.tree.map(lambda _: here, template) if places is None else places
        target = jax.tree.map(lambda a, p: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=p), template, places)
        where = self.folder / str(step)
        try:
            # The facts first: orbax leaves noisy threads behind when it meets a shape that was not expected.
            extra = self._manager.restore(step, args=ocp.args.Composite(extra=ocp.args.JsonRestore())).extra
            saved, expected = extra.pop(_SHAPES), _shapes(template)
            for name in sorted(saved.keys() | expected.keys()):
                if saved.get(name) != expected.get(name):
                    raise UserError(
                        f"{where}: not a checkpoint of this run's model: {name} is {saved.get(name)}, "
                        f"the configuration makes it {expected.get(name)}"
                    )
            items = ocp.args.Composite(state=ocp.args.StandardRestore(target))
            return self._manager.restore(step, args=items).state, extra
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"{where}: not a checkpoint that can be read: {first_line(error)[:200]}") from error


def _reserve(folder: Path, size: int) -> None:
    """Fails at once where a checkpoint of this size would not fit: orbax notices late, after minutes of retries."""
    if hasattr(os, "posix_fallocate"):
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, size)
