"""Signals that stop a training: handled between steps and while waiting for a batch."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")
# Clouds, Kubernetes and SLURM send SIGTERM; `sbatch --signal=USR1@120` sends SIGUSR1.
PREEMPTED = (signal.SIGTERM, signal.SIGUSR1) if hasattr(signal, "SIGUSR1") else (signal.SIGTERM,)


class _Told(Exception):
    """A signal arrived while waiting for a batch."""


class Notices(list[int]):
    """Signals received so far; ``waiting`` is True while a signal may interrupt at once."""

    waiting = False


def until_told(batches: Iterator[T], stopping: Notices, *, alone: bool) -> Iterator[T]:
    """Yield batches until there are no more, or until a signal arrives while waiting for one.

    Waiting for a hanging file system may take longer than the grace period of a preemption.

    Args:
      batches: batches of the training.
      stopping: signals of `stop_flag`.
      alone: whether this process may stop by itself; otherwise signals do not interrupt the wait.
    """
    while True:
        try:
            stopping.waiting = alone
            item = next(batches)
            stopping.waiting = False
        except (_Told, StopIteration):
            stopping.waiting = False
            return
        yield item


@contextmanager
def stop_flag() -> Iterator[Notices]:
    """Yield a list that collects SIGINT and preemption signals; a second SIGINT interrupts at once."""
    received = Notices()

    def note(number: int, _: Any) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)
        if received.waiting:
            raise _Told

    try:
        before = {s: signal.signal(s, note) for s in (signal.SIGINT, *PREEMPTED)}
    except ValueError:  # not the main thread, whose owner handles signals
        before = {}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
