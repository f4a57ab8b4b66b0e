"""Removing run folders that an error or an interrupt leaves without a use."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import jax

from jaxcrnn._memory import OutOfMemory
from jaxcrnn.runs import metrics_log, signals
from jaxcrnn.runs.folder import CHECKPOINTS


@contextmanager
def removed_if_unused(folder: Path) -> Iterator[None]:
    """Remove a folder that the context creates if memory runs out, or the user interrupts, before a step is saved.

    Args:
      folder: run folder, or folder of several runs. It is kept once it contains a checkpoint of a step after 0 (or,
        after an interrupt, a row of the log), or if it contained files before.
    """
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    if jax.process_index() or not (new or (folder.is_dir() and not any(folder.iterdir()))):
        yield
        return
    undo = partial(_remove_unused, folder, new)
    signals.before_exit.append(undo)
    try:
        yield
    except OutOfMemory:
        _remove_unused(folder, new, logged=False)
        raise
    except KeyboardInterrupt:
        undo()
        raise
    finally:
        signals.before_exit.remove(undo)


def _remove_unused(folder: Path, new: list[Path], *, logged: bool = True) -> None:
    """Remove a folder without trained checkpoints, and its parents among ``new`` that are then empty.

    Args:
      folder: folder to remove.
      new: the folder and its parents, as far as they were created with it.
      logged: whether log rows, or a checkpoint that is being written, keep the folder too.
    """
    saved = [path.name.partition(".") for path in folder.glob(f"**/{CHECKPOINTS}/*")]
    if any(step.isdecimal() and int(step) and (logged or not rest) for step, _, rest in saved):
        return
    if logged and any(path.stat().st_size for path in folder.glob(f"**/{metrics_log.NAME}")):
        return
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        if folder not in new:
            folder.mkdir()
        for path in new[1:]:
            path.rmdir()
