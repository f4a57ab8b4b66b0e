"""Signals: they stop a training between steps, while waiting for a batch or the compiler, and interrupt other work."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future

T = TypeVar("T")
# Clouds, Kubernetes and SLURM send SIGTERM; `sbatch --signal=USR1@120` sends SIGUSR1.
PREEMPTED = (signal.SIGTERM, signal.SIGUSR1) if hasattr(signal, "SIGUSR1") else (signal.SIGTERM,)
INTERRUPTED = 130  # exit code of a program that Ctrl-C ended: 128 + SIGINT
TOGETHER = 0.5  # seconds within which two SIGINTs count as one: a terminal and a launcher may both send one
STUCK = 1.0  # seconds after which C++ code that keeps Python from handling a SIGINT is interrupted

before_exit: list[Callable[[], None]] = []  # called before an immediate exit, to remove unused files


class SignalReceived(Exception):
    """A signal arrived while waiting."""


class Notices(list[int]):
    """Signals received so far.

    Attributes:
      waiting: whether a signal may interrupt at once.
      alone: whether this process may stop by itself; otherwise signals do not interrupt a wait.
    """

    waiting = False
    alone = False

    def interruptible(self, work: Callable[[], T]) -> T:
        """Call a function that runs C++ code for long, such as the compiler, in another thread, and wait for it.

        Python handles signals in the main thread and not before C++ code there has ended. After a signal the call is
        abandoned, and ends by itself.

        Raises:
          SignalReceived: a signal arrived.
        """
        if not self.alone:
            return work()
        from concurrent.futures import Future

        done: Future[T] = Future()
        thread = threading.Thread(target=_complete, args=(done, work))
        thread.start()
        try:
            self.waiting = True
            if self:
                raise SignalReceived
            result = done.result()
        except SignalReceived:
            _guard.abandoned.append(thread)
            raise
        finally:
            self.waiting = False
        thread.join()
        return result


def _complete(done: Future[T], work: Callable[[], T]) -> None:
    try:
        done.set_result(work())
    except BaseException as error:
        done.set_exception(error)


def until_signal(batches: Iterator[T], stopping: Notices) -> Iterator[T]:
    """Yield batches until there are no more, or until a signal arrives while waiting for one.

    Waiting for a hanging file system may take longer than the grace period of a preemption.

    Args:
      batches: batches of the training.
      stopping: signals of `stop_flag`.
    """
    while True:
        try:
            stopping.waiting = stopping.alone
            item = next(batches)
            stopping.waiting = False
        except (SignalReceived, StopIteration):
            stopping.waiting = False
            return
        yield item


@contextmanager
def stop_flag(*, alone: bool = False) -> Iterator[Notices]:
    """Yield a list that collects SIGINT and preemption signals.

    A second SIGINT raises KeyboardInterrupt, or, in a program that called `guard`, exits at once.

    Args:
      alone: whether a signal may interrupt waiting (`Notices.alone`).
    """
    received = Notices()

    def note(number: int, _: Any) -> None:
        if received and number == signal.SIGINT:
            if _guard.active:
                return
            raise KeyboardInterrupt
        received.append(number)
        if received.waiting:
            received.waiting = False  # the next signal must not interrupt what follows
            raise SignalReceived

    try:
        before = {s: signal.signal(s, note) for s in (signal.SIGINT, *PREEMPTED)}
    except ValueError:  # not the main thread, whose owner handles signals
        before = {}
    received.alone = alone and bool(before)
    _guard.training += 1
    try:
        yield received
    finally:
        _guard.training -= 1
        for number, handler in before.items():
            signal.signal(number, handler)


class _Guard:
    """State of the SIGINT handling of a program (`guard`).

    Attributes:
      active: whether `guard` was called.
      starting: whether nothing has begun that needs cleaning up.
      training: number of `stop_flag` contexts.
      noticed: whether Python has handled the last SIGINT.
      abandoned: threads that still run the compiler.
    """

    def __init__(self) -> None:
        self.active = self.starting = self.noticed = False
        self.training = 0
        self.abandoned: list[threading.Thread] = []

    def handle(self, *_: Any) -> None:
        """Raise KeyboardInterrupt for the first SIGINT; the thread of `watch` handles the second."""
        if self.starting:
            leave("interrupted")
        if not self.noticed:
            self.noticed = True
            raise KeyboardInterrupt

    def watch(self, pipe: int) -> None:
        """Read the numbers of signals, which C code writes even while Python is kept from handling them."""
        first = 0.0
        while True:
            if os.read(pipe, 1) != bytes([signal.SIGINT]):
                continue
            now = time.monotonic()
            if first and now - first > TOGETHER:
                leave("interrupted again; exiting at once, checkpoints on disk are intact")
            if first:
                continue
            first = now
            if self.training:
                _say("stopping after the current step; press Ctrl-C again to exit at once, without saving")
            else:
                threading.Timer(STUCK, self._end_if_stuck).start()

    def ignored(self, what: sys.UnraisableHookArgs) -> None:
        """End the program if a callback of the garbage collector swallowed the interrupt."""
        if what.exc_type is KeyboardInterrupt:
            leave("interrupted")
        if what.exc_type is not SignalReceived:  # it is in the list of `stop_flag` too
            sys.__unraisablehook__(what)

    def _end_if_stuck(self) -> None:
        if not self.noticed and not self.training:
            leave("interrupted")


_guard = _Guard()


def guard() -> None:
    """Handle SIGINT in a program: the first raises KeyboardInterrupt, and the second ends the program immediately.

    The first does so too if Python does not handle it, because an orderly exit while C++ threads run may crash, or take
    as long as they do. Call `started` when the modules have been imported; until then, the first ends the program too.
    """
    if _guard.active or not hasattr(signal, "pthread_kill"):  # Windows has no pipes for signals
        return
    try:
        signal.signal(signal.SIGINT, _guard.handle)
        read, write = os.pipe()
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    except ValueError:  # not the main thread
        return
    _guard.active = _guard.starting = True
    sys.unraisablehook = _guard.ignored
    threading.Thread(target=_guard.watch, args=(read,), daemon=True).start()


def started() -> None:
    """Note that the modules of the program have been imported; see `guard`."""
    _guard.starting = False


def must_leave() -> bool:
    """Return whether an abandoned thread still runs C++ code, so that an orderly exit is not possible."""
    return _guard.active and any(thread.is_alive() for thread in _guard.abandoned)


def leave(message: str = "", code: int = INTERRUPTED) -> None:
    """End the program immediately, as a kill does, after writing buffered output.

    A checkpoint that is being written is discarded when the folder is opened the next time; those on disk are intact.
    """
    if message:
        _say(message)
        for undo in before_exit[::-1]:
            with suppress(Exception):
                undo()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(code)


def _say(message: str) -> None:
    with suppress(OSError):
        text = f"jaxcrnn: {message}\n"
        # Not print: the main thread may hold the lock of the stream.
        os.write(2, ("\n" * os.isatty(2) + text).encode())
