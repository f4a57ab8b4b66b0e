"""Configuration of the data: files, batches and limits."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from jaxcrnn.data.images import Limits
from jaxcrnn.data.normalize import operations
from jaxcrnn.errors import UserError


@dataclass(frozen=True)
class DataConfig:
    """Data sets, batches and limits on images.

    Attributes:
      train: training set: a label file, or another format that `jaxcrnn.data.formats.open_source` reads.
      more: additional training sets.
      weights: relative number of lines in a batch from ``train`` and from each of ``more``; empty samples from all
        of them as from one data set.
      val: label file of the validation set; empty for none.
      charset: file with one character per line; empty for the characters of the training labels.
      blank: class of the CTC blank, ``"first"`` or ``"last"``.
      batch_size: lines in a batch.
      buckets: maximum number of width buckets, which are chosen from the data; each costs one compilation.
      max_width: maximum width of a line in pixels at the model's height.
      max_pixels: maximum pixels of an image file.
      max_bytes: maximum bytes of an image file.
      stretch: width in pixels that every line is stretched to, for models trained that way; 0 keeps the aspect
        ratio.
      normalize: operations that normalize every label that is read, separated by commas; empty for none. width: ASCII
        instead of full-width forms, kana instead of half-width ones; space: no spaces at the ends, no invisible
        characters such as U+200B, one space instead of several; nfc: composed accents. What changed is reported.
      allow_outside: whether label files may name images outside their own folder.
      cache_mb: memory for decoded images, in MiB.
      audit_cache: whether to keep the sizes of decoded images in the folder audits of the cache folder
        (~/.cache/jaxcrnn), so that the next start reads only images whose path, size or times changed.
      workers: number of threads that read images ahead.
      processes: number of processes that read images ahead instead of threads; 0 for threads. The batches are the
        same.
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
    normalize: str = ""
    cache_mb: int = 1024
    audit_cache: bool = True
    workers: int = 2
    processes: int = 0

    def __post_init__(self) -> None:
        for name in ("batch_size", "buckets", "max_width", "max_pixels", "max_bytes", "workers"):
            if getattr(self, name) < 1:
                raise UserError(f"data.{name} is {getattr(self, name)}; expected 1 or more")
        if not 0 <= self.stretch <= self.max_width:
            raise UserError(
                f"data.stretch is {self.stretch}; expected 1 to data.max_width={self.max_width}, or 0 to keep the ratio"
            )
        try:
            operations(self.normalize)
        except UserError as error:
            raise UserError(f"data.normalize is {self.normalize!r}: {error}") from None
        if self.processes < 0:
            raise UserError(f"data.processes is {self.processes}; expected 0 or more")

    def with_whole_paths(self, base: Path = Path()) -> DataConfig:
        """Copy with absolute paths; relative ones are resolved against ``base``."""

        def whole(path: str) -> str:
            return str((base / path).resolve()) if path else ""

        single = {name: whole(getattr(self, name)) for name in ("train", "val", "charset")}
        return dataclasses.replace(self, more=tuple(whole(path) for path in self.more), **single)  # type: ignore[arg-type]

    @property
    def limits(self) -> Limits:
        """Bounds on image sizes."""
        return Limits(self.max_pixels, self.max_width, self.max_bytes, self.allow_outside, self.stretch, self.normalize)
