"""Images as an audit sees them: sizes, faults and duplicates."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from jaxcrnn.data.audit_cache import AuditCache
from jaxcrnn.data.images import ImageError, Limits, fit_height, fitted_width, noting_pages, pages_note, trimmed
from jaxcrnn.data.source import Source

TASK, TASKS = 16, 16  # rows of a task for a thread, and tasks that are queued at a time


class Decoded:
    """Decoded images by key, as many as fit into the remaining ``room`` in bytes; safe to use from several threads."""

    def __init__(self, room: int) -> None:
        self.room = room
        self._images: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type, tuple[int]]:
        return type(self), (0,)  # worker processes start without images

    def get(self, key: int) -> np.ndarray | None:
        return self._images.get(key)

    def add(self, key: int, image: np.ndarray) -> None:
        with self._lock:
            if key not in self._images and image.nbytes <= self.room:
                self._images[key] = image
                self.room -= image.nbytes


class Images:
    """Images of a source, read by threads in chunks.

    Args:
      source: rows to read.
      height: height in pixels that images are scaled to.
      limits: bounds on image sizes.
      cache: keeps decoded images.
      pool: threads.
    """

    def __init__(self, source: Source, height: int, limits: Limits, cache: Decoded, pool: ThreadPoolExecutor) -> None:
        self.source, self.height, self.limits, self.cache, self.pool = source, height, limits, cache, pool
        self.sizes = np.zeros((len(source), 2), np.int32)  # of images that could be decoded
        self.pages: list[str] = []  # names of images of which only the first page is read

    def widths(self, *, keep_sizes: bool) -> tuple[dict[int, int], Iterator[int | ImageError]]:
        """Return the first row of each duplicate image, and yield the scaled width of every image, or its fault."""
        kept = AuditCache(_places(self.source), self.limits) if keep_sizes else None
        hashes = np.empty(len(self.source), np.int64)
        stamps = np.zeros(len(self.source) if kept else 0, "S16")

        def look(index: int) -> None:
            identity = self.source.identity(index)
            hashes[index] = hash(identity)
            if kept:
                stamps[index] = kept.stamp(identity)

        for _ in self._map(look):
            pass
        if kept:
            self.sizes = kept.sizes(stamps)
        return _duplicates(self.source, hashes), self._measured(kept, stamps)

    def _measured(self, kept: AuditCache | None, stamps: np.ndarray) -> Iterator[int | ImageError]:
        with noting_pages() as self.pages:
            yield from self._map(self._width)
        if kept:
            # Images with several pages are read again next time, to report them again.
            pages = set(self.pages)
            sizes = self.sizes.copy() if pages else self.sizes
            if pages:
                sizes[[index for index in range(len(self.source)) if self.source.name(index) in pages]] = 0
            kept.save(stamps, sizes)

    def notes(self) -> list[str]:
        """Describe what is unusual about the images that `widths` measured, without being a fault."""
        notes = [pages_note(self.pages)] if self.pages else []
        vertical, count = self.limits.vertical, len(self.source)
        higher: list[int] = np.flatnonzero(self.sizes[:, 0] > self.sizes[:, 1]).tolist()
        # A single character may well be taller than wide.
        tall = [index for index in higher if vertical or len(self.source.text(index)) > 1]
        if tall and vertical:
            notes.append(f"{len(tall)} of {count} lines are taller than wide and are rotated (data.vertical)")
        elif tall:
            notes.append(
                f"{len(tall)} of {count} lines are taller than wide, with two or more characters; "
                "if they are vertical, rotate them with --vertical (data.vertical=true)"
            )
        return notes

    def _map(self, function: Callable[[int], Any]) -> Iterator[Any]:
        def several(start: int) -> list[Any]:
            return [function(index) for index in range(start, min(start + TASK, len(self.source)))]

        starts = range(0, len(self.source), TASK)
        for first in range(0, len(starts), TASKS):
            for results in self.pool.map(several, starts[first : first + TASKS]):
                yield from results

    def _width(self, index: int) -> int | ImageError:
        name = self.source.name(index)
        try:
            if self.sizes[index, 0]:
                return fitted_width(tuple(self.sizes[index].tolist()), self.height, self.limits, name)
            gray = self.source[index][0]
            self.sizes[index] = trimmed(gray, self.limits).shape
            scaled = fit_height(gray, self.height, self.limits, name)
        except ImageError as error:
            return error
        self.cache.add(index, scaled)
        return scaled.shape[1]


def _places(source: Source) -> set[str]:
    """Return the label files and folders that the rows of a source are in."""
    places = set()
    for index in range(len(source)):
        place, comma, _ = source.where(index).rpartition(", ")
        places.add(place if comma else os.path.dirname(place))
    return places


def _duplicates(source: Source, hashes: np.ndarray) -> dict[int, int]:
    """Map each row whose image an earlier row has to the first such row."""
    _, first, group = np.unique(hashes, return_index=True, return_inverse=True)
    firsts = first[group]
    again = np.flatnonzero(firsts != np.arange(len(hashes)))
    pairs = {int(row): int(firsts[row]) for row in again}
    return {row: first for row, first in pairs.items() if source.identity(row) == source.identity(first)}
