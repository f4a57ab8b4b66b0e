"""Protocols of data sets and training streams."""

from __future__ import annotations

from collections.abc import Generator, Hashable
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:  # jaxcrnn.types imports jax, which reading label files never needs
    from jaxcrnn.data.buckets import Planned
    from jaxcrnn.types import Batch

MALFORMED = "malformed line"


class Fault(NamedTuple):
    """A problem with one row of a data set.

    Attributes:
      kind: category in reports.
      where: file and line.
      detail: description of the problem, and what was expected.
    """

    kind: str
    where: str
    detail: str


class Source(Protocol):
    """A data set of text lines, implemented by every reader.

    Attributes:
      faults: malformed rows, which do not count toward the length.
    """

    faults: list[Fault]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[np.ndarray, str]:
        """Load a gray uint8 image ``[h, w]`` and its text; raises ``ImageError`` for an unusable image."""

    def text(self, index: int) -> str:
        """Return the text without reading the image."""

    def name(self, index: int) -> str:
        """Return the name of a row in predictions: the path as written in the data set."""

    def where(self, index: int) -> str:
        """Return the location of a row for messages: file and line."""

    def identity(self, index: int) -> Hashable:
        """Return a value that is equal for two rows with the same image."""


class Stream(Protocol):
    """A stream of training batches.

    Attributes:
      buckets: bucket widths, ascending.
      slots: label slots of each bucket.
      batch_size: batch size B.
      steps_per_epoch: steps in an epoch; 1 for an endless stream.
      fingerprint: hash of the data; a resumed run must have the same.
    """

    buckets: tuple[int, ...]
    slots: tuple[int, ...]
    batch_size: int
    steps_per_epoch: int

    @property
    def fingerprint(self) -> str: ...

    def training(self, start: int, stop: int) -> Generator[tuple[Planned, Batch], None, None]:
        """Yield the batches of steps ``start`` to ``stop - 1``, a function of only the seed and the step."""
