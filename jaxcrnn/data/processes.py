"""Batches read by worker processes, with grain: for images that take longer to decode than threads can hide."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from jaxcrnn.errors import UserError

T = TypeVar("T")
PER_WORKER = 2  # batches that each process keeps ready


def ahead(make: Callable[[int], T], start: int, stop: int, processes: int) -> Iterator[T]:
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
    steps: Any = grain.MapDataset.range(start, stop).map(make)
    reading = grain.ReadOptions(num_threads=1, prefetch_buffer_size=PER_WORKER)
    workers = grain.MultiprocessingOptions(num_workers=processes, per_worker_buffer_size=PER_WORKER)
    iterator = iter(steps.to_iter_dataset(reading).mp_prefetch(workers))
    try:
        yield from iterator
    finally:
        iterator.close()
