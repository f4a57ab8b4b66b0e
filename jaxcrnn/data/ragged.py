"""Arrays of various lengths in one block of memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class Ragged(Sequence[np.ndarray]):
    """Arrays of int32 of various lengths in one block of memory.

    Args:
      values: ``[sum of lengths]`` all values.
      ends: ``[N]`` end of each array in ``values``.
    """

    def __init__(self, values: np.ndarray, ends: np.ndarray) -> None:
        self.values, self.ends = values, ends

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, item: int) -> np.ndarray:  # type: ignore[override]
        item = range(len(self))[item]
        return self.values[self.ends[item - 1] if item else 0 : self.ends[item]]

    @classmethod
    def of(cls, arrays: Sequence[np.ndarray]) -> Ragged:
        """Copy arrays into one block."""
        ends = np.cumsum([len(each) for each in arrays], dtype=np.int64)
        return cls(np.concatenate([np.zeros(0, np.int32), *arrays], dtype=np.int32), ends)
