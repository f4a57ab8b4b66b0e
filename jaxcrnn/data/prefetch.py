"""Prefetching by worker threads, or by worker processes if decoding is too slow for threads.

Threads are daemons rather than part of a pool: one that hangs in a read can be abandoned, and does not keep the program
from continuing or exiting.

Each worker process has its own pipe, whose other end no other process holds, so that its death is noticed at once, even
while it sends. Queues shared by workers (grain's, and those of the standard library's pools) would wait forever.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import queue
import signal
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterable
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from jaxcrnn.errors import UserError

T = TypeVar("T")
PER_WORKER = 2  # batches that each worker keeps ready
PATIENCE = 300.0  # seconds without a batch after which a worker counts as hung
TRIES = 3
LEFT_BEHIND = 5.0  # seconds to wait for a thread that is no longer needed


def ahead(
    make: Callable[[int], T],
    start: int,
    stop: int,
    *,
    threads: int = 1,
    processes: int = 0,
    restarted: Callable[[str], None] = lambda why: None,
) -> Generator[T, None, None]:
    """Yield ``make(start), ..., make(stop - 1)`` in this order, for any number of workers.

    The step number alone determines the position in the data. If a worker dies or hangs, all workers are restarted at
    the next step.

    Args:
      make: function that is called concurrently from several threads; for processes it must be picklable.
      start: first argument.
      stop: one past the last argument.
      threads: number of worker threads.
      processes: number of worker processes to use instead; 0 for threads.
      restarted: called with the reason when the workers have been restarted.

    Raises:
      UserError: workers died or hung repeatedly at the same step.
    """
    kind: Callable[[Callable[[int], Any], range], Any] = _Process if processes else _Thread
    many = processes or threads
    step, last = start, (-1, 0)
    while step < stop:
        begun = step
        workers = [kind(make, range(first, stop, many)) for first in range(begun, min(begun + many, stop))]
        try:
            while step < stop:
                item = workers[(step - begun) % many].next()
                yield item
                step += 1
        except _Stalled as problem:
            last = (step, last[1] + 1 if last[0] == step else 1)
            if last[1] == TRIES:
                advice = "try data.processes=0, or fewer processes" if processes else "check the file system"
                raise UserError(f"{problem}, {TRIES} times at step {step}; {advice}") from None
            restarted(f"{problem}; restarted {many} workers at step {step}")
        finally:
            for worker in workers:
                worker.close()


class _Stalled(Exception):
    """A worker died or hung."""


class _Thread:
    """A thread that produces the elements of some steps."""

    def __init__(self, make: Callable[[int], Any], steps: range) -> None:
        self._made: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(PER_WORKER)
        self._unwanted = False
        self._thread = threading.Thread(target=self._work, args=(make, steps), daemon=True)
        self._thread.start()

    def _work(self, make: Callable[[int], Any], steps: range) -> None:
        for step in steps:
            if self._unwanted:
                return
            try:
                made: tuple[Any, BaseException | None] = make(step), None
            except BaseException as error:
                made = None, error
            self._made.put(made)
            if made[1] is not None:
                return

    def next(self) -> Any:
        """Return the next element.

        Raises:
          _Stalled: nothing came for `PATIENCE` seconds.
        """
        try:
            item, error = self._made.get(timeout=PATIENCE)
        except queue.Empty:
            raise _Stalled(f"a reader thread did not respond for {PATIENCE:.0f} seconds") from None
        if error is not None:
            raise error
        return item

    def close(self) -> None:
        """Stop the thread after its current element, or abandon it if that takes long."""
        self._unwanted = True
        _drain(self._made, self._thread, LEFT_BEHIND)


def _drain(made: queue.Queue[Any], thread: threading.Thread, seconds: float) -> None:
    """Empty the queue that a thread waits for, until the thread has ended or the time has passed."""
    until = time.monotonic() + seconds
    while thread.is_alive() and time.monotonic() < until:
        with contextlib.suppress(queue.Empty):
            made.get(timeout=0.01)


class _Process:
    """A process that produces the elements of some steps, and a thread that receives them."""

    def __init__(self, make: Callable[[int], Any], steps: range) -> None:
        spawn = multiprocessing.get_context("spawn")  # a fork would copy the locks of jax's threads
        self._receive, send = spawn.Pipe(duplex=False)
        self._process = spawn.Process(target=_work, args=(send, make, steps), daemon=True)
        self._process.start()
        send.close()
        self._made: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(PER_WORKER)
        self._thread = threading.Thread(target=self._take, daemon=True)
        self._thread.start()

    def _take(self) -> None:
        error: BaseException | None = None
        while error is None:
            try:
                item, error = self._receive.recv()
            except (EOFError, OSError):
                item, error = None, _Stalled()
            except Exception as fault:  # an element or an error that cannot be unpickled
                item, error = None, fault
            self._made.put((item, error))

    def next(self) -> Any:
        """Return the next element.

        Raises:
          _Stalled: the worker died, or nothing came for `PATIENCE` seconds.
        """
        who = f"worker process {self._process.pid}"
        try:
            item, error = self._made.get(timeout=PATIENCE)
        except queue.Empty:
            raise _Stalled(f"{who} did not respond for {PATIENCE:.0f} seconds") from None
        if isinstance(error, _Stalled):
            self._process.join()
            raise _Stalled(f"{who} died (exit code {self._process.exitcode})")
        if error is not None:
            raise error
        return item

    def close(self) -> None:
        """Kill the worker, which has no state to save."""
        self._process.kill()
        _drain(self._made, self._thread, math.inf)
        self._process.join()
        self._process.close()
        self._receive.close()


def _work(send: Connection, make: Callable[[int], Any], steps: Iterable[int]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process handles Ctrl-C
    with contextlib.suppress(BrokenPipeError):  # the parent process has ended
        try:
            for step in steps:
                send.send((make(step), None))
        except BrokenPipeError:
            raise
        except Exception as error:
            if not isinstance(error, UserError):
                error.add_note("In a worker process:\n" + traceback.format_exc())
            send.send((None, error))
