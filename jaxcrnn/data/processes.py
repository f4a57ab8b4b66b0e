"""Batches read by worker processes, with grain: for images that take longer to decode than threads can hide."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Generator
from typing import Any, TypeVar

from jaxcrnn.errors import UserError

T = TypeVar("T")
PER_WORKER = 2  # batches that each process keeps ready


class _Sealed:
    """An element that grain takes as one thing and sends through a pipe.

    Arrays that it sees go through shared memory, of which what nobody took stays behind at exit, with a warning.
    """

    def __init__(self, inside: Any) -> None:
        self.inside = inside


class _Sealing:
    def __init__(self, make: Callable[[int], Any]) -> None:
        self.make = make

    def __call__(self, number: int) -> _Sealed:
        return _Sealed(self.make(int(number)))


def ahead(make: Callable[[int], T], start: int, stop: int, processes: int) -> Generator[T, None, None]:
    """``make(start), ..., make(stop - 1)`` in this order, whatever the number of processes.

    The position in the data is the step number alone, so a checkpoint needs no more than that: grain's iterator is
    made anew from ``start``.

    Args:
      make: a function that can be pickled, of an importable module.
      start: first argument.
      stop: one past the last.
      processes: worker processes.

    Raises:
      UserError: grain is not installed.
    """
    try:
        import grain
        from absl import flags
    except ImportError:
        raise UserError(
            f"data.processes={processes} needs the package grain; expected the extra 'data', or data.processes=0"
        ) from None
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # grain's workers take absl's flags with them
    steps: Any = grain.MapDataset.range(start, stop).map(_Sealing(make))
    reading = grain.ReadOptions(num_threads=1, prefetch_buffer_size=PER_WORKER)
    workers = grain.MultiprocessingOptions(num_workers=processes, per_worker_buffer_size=PER_WORKER)
    iterator = iter(steps.to_iter_dataset(reading).mp_prefetch(workers, worker_init_fn=_begin))
    try:
        for sealed in iterator:
            yield sealed.inside
    finally:
        iterator.close()


def _begin(worker: int, workers: int) -> None:
    """A worker leaves Ctrl-C to the program that started it, and does not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
