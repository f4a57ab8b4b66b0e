"""Batches as numpy arrays, prefetched by threads or processes."""

from __future__ import annotations

import sys
import threading
from collections.abc import Generator, Sequence
from typing import Any, cast

import numpy as np

from jaxcrnn.data import buckets as plans
from jaxcrnn.data.audit import Corpus
from jaxcrnn.data.images import to_float
from jaxcrnn.data.prefetch import ahead
from jaxcrnn.types import Batch


def collate(
    images: Sequence[np.ndarray], labels: Sequence[np.ndarray], batch_size: int, height: int, width: int, slots: int
) -> Batch:
    """Pad lines to one batch of a fixed shape; samples that only fill the batch have width 0.

    Args:
      images: images, uint8 ``[H, w]`` each with ``w <= width``; may be empty.
      labels: class ids of each image.
      batch_size: batch size B.
      height: image height H.
      width: padded width W.
      slots: label slots L.
    """
    pixels = np.ones((batch_size, height, width, 1), np.float32)
    widths, lengths = np.zeros(batch_size, np.int32), np.zeros(batch_size, np.int32)
    ids = np.zeros((batch_size, slots), np.int32)
    for b, (image, label) in enumerate(zip(images, labels, strict=True)):
        widths[b], lengths[b] = image.shape[1], len(label)
        pixels[b, :, : image.shape[1], 0] = to_float(image)
        ids[b, : len(label)] = label
    return Batch(*cast(Any, (pixels, widths, ids, lengths)))


class Batches:
    """Batches of a corpus, by step number for training and in order for evaluation.

    Args:
      corpus: lines of the data set.
      buckets: widths that batches are padded to.
      batch_size: lines in a batch.
      seed: seed of the sample order.
      workers: number of prefetching threads.
      processes: number of processes that prefetch training batches instead of threads; the batches are the same.
      full: fill the incomplete batch of an epoch with lines drawn again.
      rows: range of the rows of every batch that this process reads; all of them by default.

    Attributes:
      buckets: bucket widths, ascending.
      slots: label slots of each bucket.
      steps_per_epoch: batches in an epoch.
      restarts: number of times that workers were restarted.
    """

    def __init__(
        self,
        corpus: Corpus,
        buckets: Sequence[int],
        batch_size: int,
        *,
        seed: int = 0,
        workers: int = 2,
        processes: int = 0,
        full: bool = False,
        rows: tuple[int, int] | None = None,
    ) -> None:
        self.corpus = corpus
        self.buckets = tuple(buckets)
        self.batch_size = batch_size
        self.seed = seed
        self.workers, self.processes = workers, processes
        self.full, self.rows = full, rows or (0, batch_size)
        lengths = np.asarray([len(label) for label in corpus.labels])
        self.slots = plans.label_slots(corpus.widths, lengths, self.buckets)
        self.steps_per_epoch = -(-len(corpus) // batch_size)
        self.restarts = 0
        self._epochs: dict[int, list[plans.Planned]] = {}

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the corpus; a resumed run must have the same."""
        return self.corpus.fingerprint

    def planned(self, step: int) -> plans.Planned:
        """Plan the batch of training step ``step`` (from 0), a function of only the seed and the step."""
        number, position = divmod(step, self.steps_per_epoch)
        if number not in self._epochs:
            lines = (self.corpus.widths, self.buckets, self.batch_size)
            plan = plans.epoch(*lines, self.seed, number)
            self._epochs = {n: p for n, p in self._epochs.items() if n == number - 1} | {number: plan}
        planned = self._epochs[number][position]
        lacking = self.batch_size - len(planned.items)
        if not (self.full and lacking):
            return planned
        fitting = np.flatnonzero(self.corpus.widths <= self.buckets[planned.bucket])
        drawn = np.random.default_rng([self.seed, number, position]).choice(fitting, lacking)
        return planned._replace(items=np.concatenate([planned.items, drawn]))

    def make(self, planned: plans.Planned) -> Batch:
        """Read the images of a planned batch (this process's rows of it)."""
        start, stop = self.rows
        items = planned.items[start:stop].tolist()
        return collate(
            [self.corpus.image(i) for i in items],
            [self.corpus.labels[i] for i in items],
            stop - start,
            self.corpus.height,
            self.buckets[planned.bucket],
            self.slots[planned.bucket],
        )

    def at(self, step: int) -> tuple[plans.Planned, Batch]:
        """Return the plan of a training step and its batch."""
        planned = self.planned(step)
        return planned, self.make(planned)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state that is pickled for worker processes; decoded images are not (`Decoded`)."""
        return self.__dict__ | {"_epochs": {}}

    def training(self, start: int, stop: int) -> Generator[tuple[plans.Planned, Batch], None, None]:
        """Yield the batches of steps ``start`` to ``stop - 1``."""
        if self.processes:
            return ahead(self.at, start, stop, processes=self.processes, restarted=self._restarted)
        planning = threading.Lock()  # so that only one thread plans a new epoch

        def at(step: int) -> tuple[plans.Planned, Batch]:
            with planning:
                planned = self.planned(step)
            return planned, self.make(planned)

        return ahead(at, start, stop, threads=self.workers, restarted=self._restarted)

    def _restarted(self, why: str) -> None:
        self.restarts += 1
        print(f"warning: {why}", file=sys.stderr, flush=True)

    def in_order(self) -> Generator[tuple[plans.Planned, Batch], None, None]:
        """Yield every line once, each in its own bucket."""
        plan = plans.in_order(self.corpus.widths, self.buckets, self.batch_size)

        def at(number: int) -> tuple[plans.Planned, Batch]:
            return plan[number], self.make(plan[number])

        return ahead(at, 0, len(plan), threads=self.workers, restarted=self._restarted)
