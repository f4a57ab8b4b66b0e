"""Signals that ask a training to stop: heard between steps, and while a batch is waited for."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")
# Clouds, Kubernetes and SLURM send the first; `sbatch --signal=USR1@120` the second.
PREEMPTED = (signal.SIGTERM, signal.SIGUSR1) if hasattr(signal, "SIGUSR1") else (signal.SIGTERM,)


class _Told(Exception):
    """A notice came while a batch was waited for."""


class Notices(list[int]):
    """Signals received; ``waiting`` while nothing is under way that one may not interrupt."""

    waiting = False


def until_told(found: Iterator[T], stopping: Notices, *, alone: bool) -> Iterator[T]:
    """Elements until there are no more, or until a notice comes while one is waited for.

    A file system that does not answer may take longer than whoever sent the notice waits.

    Args:
      found: the elements.
      stopping: of `stop_flag`.
      alone: whether this process may stop by itself; otherwise an element is waited for whatever comes.
    """
    while True:
        try:
            stopping.waiting = alone
            item = next(found)
            stopping.waiting = False
        except (_Told, StopIteration):
            stopping.waiting = False
            return
        yield item


@contextmanager
def stop_flag() -> Iterator[Notices]:
    """A list that fills when SIGINT, or what preemption notices send, comes; a second SIGINT interrupts at once."""
    received = Notices()

    def note(number: int, _: Any) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)
        if received.waiting:
            raise _Told

    try:
        before = {s: signal.signal(s, note) for s in (signal.SIGINT, *PREEMPTED)}
    except ValueError:  # not the main thread: whoever runs us there handles signals
        before = {}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
