"""Configuration of the data: what is read, and how."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from jaxcrnn.data.images import Limits
from jaxcrnn.errors import UserError


@dataclass(frozen=True)
class DataConfig:
    """What is read, and how.

    Attributes:
      train: the training set: a label file, or another format that `jaxcrnn.data.formats.open_source` reads.
      more: further training sets.
      weights: how many lines of a batch come from ``train`` and from each of ``more``, in proportion; empty draws
        from all of them as from one set.
      val: label file of the validation set; empty for none.
      charset: file of the characters; empty takes those of the training labels.
      blank: where the CTC blank stands, ``"first"`` or ``"last"``.
      batch_size: lines a step.
      buckets: width buckets at most, chosen from the data; each costs one compilation.
      max_width: widest line in pixels at the model's height.
      max_pixels: most pixels an image file may have.
      max_bytes: most bytes it may have.
      stretch: pixels that every line is stretched to, for models trained so; 0 keeps the ratio of width and height.
      allow_outside: whether label files may name images outside the folder they are in.
      cache_mb: memory for decoded images.
      workers: threads that read images ahead.
      processes: worker processes that read them instead; 0 for threads. The same batches either way.
    """

    train: str = ""
    more: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    val: str = ""
    charset: str = ""
    blank: str = "first"
    batch_size: int = 32
    buckets: int = 6
    max_width: int = 4096
    max_pixels: int = 32_000_000
    max_bytes: int = 64_000_000
    allow_outside: bool = False
    stretch: int = 0
    cache_mb: int = 1024
    workers: int = 2
    processes: int = 0

    def __post_init__(self) -> None:
        for name in ("batch_size", "buckets", "max_width", "max_pixels", "max_bytes", "workers"):
            if getattr(self, name) < 1:
                raise UserError(f"data.{name} is {getattr(self, name)}; expected 1 or more")
        if not 0 <= self.stretch <= self.max_width:
            raise UserError(f"data.stretch is {self.stretch}; expected 1 to data.max_width={self.max_width}, or 0 to "
                            "keep the ratio")  # fmt: skip
        if self.processes < 0:
            raise UserError(f"data.processes is {self.processes}; expected 0 or more")

    def with_whole_paths(self, base: Path = Path()) -> DataConfig:
        """The same from any working folder, paths that are not whole being relative to ``base``."""

        def whole(path: str) -> str:
            return str((base / path).resolve()) if path else ""

        single = {name: whole(getattr(self, name)) for name in ("train", "val", "charset")}
        return dataclasses.replace(self, more=tuple(whole(path) for path in self.more), **single)  # type: ignore[arg-type]

    @property
    def limits(self) -> Limits:
        """Sizes an image may have."""
        return Limits(self.max_pixels, self.max_width, self.max_bytes, self.allow_outside, self.stretch)
