"""What data sets and training streams offer: the protocols between readers and everything that uses lines."""

from __future__ import annotations

from collections.abc import Generator, Hashable
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:  # jaxcrnn.types imports jax, which reading label files never needs
    from jaxcrnn.data.buckets import Planned
    from jaxcrnn.types import Batch

MALFORMED = "malformed line"


class Fault(NamedTuple):
    """Something wrong with one row of a data set.

    Attributes:
      kind: what reports count it under.
      where: file and line.
      detail: what is wrong and what was expected.
    """

    kind: str
    where: str
    detail: str


class Source(Protocol):
    """A data set of text lines; every reader is one.

    Attributes:
      faults: rows that cannot be read, which are not counted in its length.
    """

    faults: list[Fault]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[np.ndarray, str]:
        """A gray uint8 image ``[h, w]`` and its text; raises ``ImageError`` when the image cannot be used."""

    def text(self, index: int) -> str:
        """The text alone, without reading the image."""

    def name(self, index: int) -> str:
        """What predictions are listed under: the path as the data set spells it."""

    def where(self, index: int) -> str:
        """The place that messages name: file and line."""

    def identity(self, index: int) -> Hashable:
        """Equal for two rows that show the same image."""


class Stream(Protocol):
    """What training takes its batches from.

    Attributes:
      buckets: widths, ascending.
      slots: label slots of each bucket.
      batch_size: B.
      steps_per_epoch: steps until every line was seen; 1 where lines never end.
      fingerprint: of the data: a resumed run needs the same.
    """

    buckets: tuple[int, ...]
    slots: tuple[int, ...]
    batch_size: int
    steps_per_epoch: int

    @property
    def fingerprint(self) -> str: ...

    def training(self, start: int, stop: int) -> Generator[tuple[Planned, Batch], None, None]:
        """The batches of steps ``start`` to ``stop - 1``, a function of the seed and the step alone."""
