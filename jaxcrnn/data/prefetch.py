"""Batches read ahead by worker threads, or by worker processes where decoding takes longer than threads can hide.

Threads are daemons of our own instead of a pool's: one that hangs in a read that never returns can be left behind, and
keeps the program neither from going on nor from ending.

Of processes, each has a pipe whose other end no other process holds: so the end of a dead worker is seen at once, even
in the middle of what it was sending. Queues that workers share (grain's, and those of the standard library's pools)
wait for ever for the rest of it.
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
PER_WORKER = 2  # batches that each worker has ready
PATIENCE = 300.0  # seconds without a batch after which a worker counts as hanging
TRIES = 3
LEFT_BEHIND = 5.0  # seconds after which a thread that is not wanted any more is not waited for


def ahead(
    make: Callable[[int], T],
    start: int,
    stop: int,
    *,
    threads: int = 1,
    processes: int = 0,
    restarted: Callable[[str], None] = lambda why: None,
) -> Generator[T, None, None]:
    """``make(start), ..., make(stop - 1)`` in this order, whatever the number of workers.

    The position in the data is the step number alone, so a checkpoint needs no more than that: workers begin at
    ``start``, and anew at the step that is due when one of them has died or hangs.

    Args:
      make: called from several threads at once; for processes a function that can be pickled, of an importable module.
      start: first argument.
      stop: one past the last.
      threads: that work ahead.
      processes: worker processes instead; 0 for threads.
      restarted: called with the reason when the workers were started anew.

    Raises:
      UserError: workers die or hang again and again at one step.
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
                way_out = "data.processes=0, or more memory for fewer processes" if processes else "files that answer"
                raise UserError(f"{problem}, {TRIES} times at step {step}; expected {way_out}") from None
            restarted(f"{problem}; all {many} started anew at step {step}")
        finally:
            for worker in workers:
                worker.close()


class _Stalled(Exception):
    """No element comes any more."""


class _Thread:
    """A thread that makes the elements of some steps."""

    def __init__(self, make: Callable[[int], Any], steps: range) -> None:
        self._found: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(PER_WORKER)
        self._unwanted = False
        self._thread = threading.Thread(target=self._work, args=(make, steps), daemon=True)
        self._thread.start()

    def _work(self, make: Callable[[int], Any], steps: range) -> None:
        for step in steps:
            if self._unwanted:
                return
            try:
                found: tuple[Any, BaseException | None] = make(step), None
            except BaseException as error:
                found = None, error
            self._found.put(found)
            if found[1] is not None:
                return

    def next(self) -> Any:
        """The next element.

        Raises:
          _Stalled: nothing came for `PATIENCE` seconds.
        """
        try:
            item, error = self._found.get(timeout=PATIENCE)
        except queue.Empty:
            raise _Stalled(f"a reader thread did not answer for {PATIENCE:.0f} seconds") from None
        if error is not None:
            raise error
        return item

    def close(self) -> None:
        """Ends the thread after the element it is at, or leaves it behind if that takes long."""
        self._unwanted = True
        _drain(self._found, self._thread, LEFT_BEHIND)


def _drain(found: queue.Queue[Any], thread: threading.Thread, seconds: float) -> None:
    """Makes room for a thread that waits for it, until it has ended or so long has passed."""
    until = time.monotonic() + seconds
    while thread.is_alive() and time.monotonic() < until:
        with contextlib.suppress(queue.Empty):
            found.get(timeout=0.01)


class _Process:
    """A process that makes the elements of some steps, and a thread that takes them as they come."""

    def __init__(self, make: Callable[[int], Any], steps: range) -> None:
        spawn = multiprocessing.get_context("spawn")  # a fork would take jax's threads and their locks with it
        self._receive, send = spawn.Pipe(duplex=False)
        self._process = spawn.Process(target=_work, args=(send, make, steps), daemon=True)
        self._process.start()
        send.close()
        self._found: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(PER_WORKER)
        self._thread = threading.Thread(target=self._take, daemon=True)
        self._thread.start()

    def _take(self) -> None:
        error: BaseException | None = None
        while error is None:
            try:
                item, error = self._receive.recv()
            except (EOFError, OSError):
                item, error = None, _Stalled()
            except Exception as fault:  # an element or an error that is not what was pickled
                item, error = None, fault
            self._found.put((item, error))

    def next(self) -> Any:
        """The next element.

        Raises:
          _Stalled: the worker has died, or nothing came for `PATIENCE` seconds.
        """
        who = f"worker process {self._process.pid}"
        try:
            item, error = self._found.get(timeout=PATIENCE)
        except queue.Empty:
            raise _Stalled(f"{who} did not answer for {PATIENCE:.0f} seconds") from None
        if isinstance(error, _Stalled):
            self._process.join()
            raise _Stalled(f"{who} died (exit code {self._process.exitcode})")
        if error is not None:
            raise error
        return item

    def close(self) -> None:
        """Ends the worker, which has nothing to lose."""
        self._process.kill()
        _drain(self._found, self._thread, math.inf)
        self._process.join()
        self._process.close()
        self._receive.close()


def _work(send: Connection, make: Callable[[int], Any], steps: Iterable[int]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the program that started it
    with contextlib.suppress(BrokenPipeError):  # that program is gone
        try:
            for step in steps:
                send.send((make(step), None))
        except BrokenPipeError:
            raise
        except Exception as error:
            if not isinstance(error, UserError):
                error.add_note("In a worker process:\n" + traceback.format_exc())
            send.send((None, error))
