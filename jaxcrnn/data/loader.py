"""Batches as numpy arrays, made by threads ahead of the device."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from itertools import islice
from typing import Any, cast

import numpy as np

from jaxcrnn.data import buckets as plans
from jaxcrnn.data.audit import Corpus
from jaxcrnn.types import Batch


def to_float(gray: np.ndarray) -> np.ndarray:
    """uint8 gray -> float32 in [-1, 1], white = 1."""
    return gray.astype(np.float32) / np.float32(127.5) - np.float32(1)


def collate(
    images: Sequence[np.ndarray], labels: Sequence[np.ndarray], batch_size: int, width: int, slots: int
) -> Batch:
    """Pads lines into one batch of a fixed shape; samples beyond the given ones have width 0.

    Args:
      images: uint8 ``[H, w]`` each, ``w <= width``.
      labels: class ids of each.
      batch_size: B of the result.
      width: W of the result.
      slots: L of the result.
    """
    pixels = np.ones((batch_size, images[0].shape[0], width, 1), np.float32)
    widths, lengths = np.zeros(batch_size, np.int32), np.zeros(batch_size, np.int32)
    ids = np.zeros((batch_size, slots), np.int32)
    for b, (image, label) in enumerate(zip(images, labels, strict=True)):
        widths[b], lengths[b] = image.shape[1], len(label)
        pixels[b, :, : image.shape[1], 0] = to_float(image)
        ids[b, : len(label)] = label
    return Batch(*cast(Any, (pixels, widths, ids, lengths)))


class Batches:
    """The batches of a corpus, for training by step number and for evaluation in order.

    Attributes:
      buckets: widths, ascending.
      slots: label slots of each bucket.
      steps_per_epoch: batches of one epoch.
      shown: how often an epoch shows each line, or None for once; follows from ``repeat_rare``, the share of the
        lines below which a character counts as rare (`jaxcrnn.data.buckets.repeats`).
    """

    def __init__(
        self,
        corpus: Corpus,
        buckets: Sequence[int],
        batch_size: int,
        *,
        seed: int = 0,
        workers: int = 2,
        repeat_rare: float = 0.0,
    ) -> None:
        self.corpus = corpus
        self.buckets = tuple(buckets)
        self.batch_size = batch_size
        self.seed = seed
        self.workers = workers
        lengths = np.asarray([len(label) for label in corpus.labels])
        self.slots = plans.label_slots(corpus.widths, lengths, self.buckets)
        self.shown = plans.repeats(corpus.labels, repeat_rare) if repeat_rare else None
        lines = len(corpus) if self.shown is None else round(self.shown.sum())
        self.steps_per_epoch = -(-lines // batch_size)
        self._epoch = lru_cache(maxsize=2)(
            lambda number: plans.epoch(corpus.widths, self.buckets, batch_size, seed, number, self.shown)
        )

    @property
    def fingerprint(self) -> str:
        """Of the corpus: a resumed run needs the same."""
        return self.corpus.fingerprint

    def planned(self, step: int) -> plans.Planned:
        """What training step ``step`` (from 0) is fed: a function of the seed and the step alone."""
        number, position = divmod(step, self.steps_per_epoch)
        return self._epoch(number)[position]

    def make(self, planned: plans.Planned) -> Batch:
        """Reads the images of one planned batch."""
        return collate(
            [self.corpus.image(int(i)) for i in planned.items],
            [self.corpus.labels[int(i)] for i in planned.items],
            self.batch_size,
            self.buckets[planned.bucket],
            self.slots[planned.bucket],
        )

    def training(self, start: int, stop: int) -> Iterator[tuple[plans.Planned, Batch]]:
        """The batches of steps ``start`` to ``stop - 1``."""
        return self._ahead(self.planned(step) for step in range(start, stop))

    def in_order(self) -> Iterator[tuple[plans.Planned, Batch]]:
        """Every line once, each in its own bucket."""
        return self._ahead(iter(plans.in_order(self.corpus.widths, self.buckets, self.batch_size)))

    def _ahead(self, plan: Iterator[plans.Planned]) -> Iterator[tuple[plans.Planned, Batch]]:
        waiting: deque[tuple[plans.Planned, Future[Batch]]] = deque()
        with ThreadPoolExecutor(self.workers) as pool:
            try:
                for planned in islice(plan, self.workers + 2):
                    waiting.append((planned, pool.submit(self.make, planned)))
                while waiting:
                    planned, future = waiting.popleft()
                    batch = future.result()
                    for following in islice(plan, 1):
                        waiting.append((following, pool.submit(self.make, following)))
                    yield planned, batch
            finally:
                for _, future in waiting:
                    future.cancel()
