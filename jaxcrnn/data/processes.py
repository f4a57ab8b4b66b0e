"""Batches read by worker processes, with grain: for images that take longer to decode than threads can hide."""

from __future__ import annotations

import functools
import multiprocessing
import multiprocessing.util
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Generator
from typing import Any, TypeVar

from jaxcrnn.errors import UserError

T = TypeVar("T")
PER_WORKER = 2  # batches that each process keeps ready
PATIENCE = 300.0  # seconds without a batch after which workers count as hanging
TRIES = 3


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


def ahead(
    make: Callable[[int], T], start: int, stop: int, processes: int, restarted: Callable[[str], None] = lambda why: None
) -> Generator[T, None, None]:
    """``make(start), ..., make(stop - 1)`` in this order, whatever the number of processes.

    The position in the data is the step number alone, so a checkpoint needs no more than that: grain's iterator is
    made anew from ``start``, and from the step that is due when a worker has died or hangs.

    Args:
      make: a function that can be pickled, of an importable module.
      start: first argument.
      stop: one past the last.
      processes: worker processes.
      restarted: called with the reason when the workers were started anew.

    Raises:
      UserError: grain is not installed, or workers die again and again at one step.
    """
    step, last = start, (-1, 0)
    while step < stop:
        reader = _Reader(make, step, stop, processes)
        try:
            while step < stop:
                item = reader.next()
                yield item
                step += 1
        except _Stalled as problem:
            last = (step, last[1] + 1 if last[0] == step else 1)
            if last[1] == TRIES:
                raise UserError(f"{problem}, {TRIES} times at step {step}; expected data.processes=0, or more memory "
                                "for fewer processes") from None  # fmt: skip
            restarted(f"{problem}; all {processes} started anew at step {step}")
        finally:
            reader.close()


class _Stalled(Exception):
    """No element comes any more."""


class _Reader:
    """Grain's iterator behind a queue, so that a silent one is noticed: grain waits for a dead worker for ever."""

    def __init__(self, make: Callable[[int], Any], start: int, stop: int, processes: int) -> None:
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
        others = set(multiprocessing.active_children())
        self._iterator = iter(
            steps.to_iter_dataset(reading).mp_prefetch(workers, worker_init_fn=functools.partial(_begin, os.getpid()))
        )
        self._others, self._workers = others, set[Any]()
        self._found: queue.Queue[Any] = queue.Queue(PER_WORKER)
        self._closed = threading.Event()
        threading.Thread(target=self._pull, daemon=True).start()

    def _pull(self) -> None:
        try:
            for sealed in self._iterator:
                self._put((sealed.inside, None))
        except BaseException as error:
            self._put((None, error))

    def _put(self, pair: tuple[Any, BaseException | None]) -> None:
        while not self._closed.is_set():
            try:
                return self._found.put(pair, timeout=0.5)
            except queue.Full:
                continue

    def next(self) -> Any:
        """The next element.

        Raises:
          _Stalled: a worker has died, or nothing came for `PATIENCE` seconds.
        """
        began = time.monotonic()
        while True:
            try:
                item, error = self._found.get(timeout=0.2)
            except queue.Empty:
                self._workers |= set(multiprocessing.active_children()) - self._others
                for worker in self._workers:
                    if not worker.is_alive() and worker.exitcode != 0:
                        raise _Stalled(f"worker process {worker.pid} died (exit code {worker.exitcode})") from None
                if time.monotonic() - began > PATIENCE:
                    raise _Stalled(f"no worker process answered for {PATIENCE:.0f} seconds") from None
                continue
            if error is not None:
                raise error
            self._workers |= set(multiprocessing.active_children()) - self._others
            return item

    def close(self) -> None:
        """Ends the workers."""
        self._closed.set()
        if all(worker.is_alive() for worker in self._workers):
            return self._iterator.close()
        for worker in self._workers:
            worker.kill()
        # Closing it would wait for ever for what a dead worker had begun to send, and so would grain at exit.
        registry: dict[Any, Any] = getattr(multiprocessing.util, "_finalizer_registry", {})
        for finalizer in list(registry.values()):
            if getattr(getattr(finalizer, "_callback", None), "__name__", "") == "_close_if_alive":
                finalizer.cancel()


def _begin(parent: int, worker: int, workers: int) -> None:
    """A worker leaves Ctrl-C to the program that started it, and does not outlive it, be it gone already."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
