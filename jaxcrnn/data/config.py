"""Configuration of the data: files, batches and limits."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from jaxcrnn.data.images import Limits
from jaxcrnn.data.layout import Layout
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
      format: format of all sets: ``"auto"`` detects it; ``"labels"`` is path<TAB>text, ``"tsv"`` the same with texts
        quoted as in CSV, ``"space"`` a space for the tab, ``"icdar"`` path, "text"; ``"csv"``, ``"json"`` and
        ``"lmdb"`` are those formats, and ``"names"`` images named by their texts.
      encoding: text encoding of the lists of all sets, such as gbk or utf-16, and of file names that are not UTF-8.
      root: folder that the paths in the lists of all sets are relative to; empty for the folder of each list.
      charset: file with one character per line; empty for the characters of the training labels.
      blank: class of the CTC blank, ``"first"`` or ``"last"``.
      batch_size: lines in a batch.
      buckets: maximum number of width buckets, which are chosen from the data; each costs one compilation.
      max_width: maximum width of a line in pixels at the model's height.
      max_pixels: maximum pixels of an image file.
      max_bytes: maximum bytes of an image file.
      stretch: width in pixels that every line is stretched to, for models trained that way; 0 keeps the aspect
        ratio.
      allow_outside: whether label files may name images outside their own folder.
      cache_mb: memory for decoded images, in MiB.
      workers: number of threads that read images ahead.
      processes: number of processes that read images ahead instead of threads; 0 for threads. The batches are the
        same.
    """

    train: str = ""
    more: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    val: str = ""
    format: str = "auto"
    encoding: str = "utf-8"
    root: str = ""
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
        try:
            _ = self.layout
        except UserError as error:
            raise UserError(f"data.{error}") from None
        for name in ("batch_size", "buckets", "max_width", "max_pixels", "max_bytes", "workers"):
            if getattr(self, name) < 1:
                raise UserError(f"data.{name} is {getattr(self, name)}; expected 1 or more")
        if not 0 <= self.stretch <= self.max_width:
            raise UserError(
                f"data.stretch is {self.stretch}; expected 1 to data.max_width={self.max_width}, or 0 to keep the ratio"
            )
        if self.processes < 0:
            raise UserError(f"data.processes is {self.processes}; expected 0 or more")

    def with_whole_paths(self, base: Path = Path()) -> DataConfig:
        """Copy with absolute paths; relative ones are resolved against ``base``."""

        def whole(path: str) -> str:
            return str((base / path).resolve()) if path else ""

        single = {name: whole(getattr(self, name)) for name in ("train", "val", "root", "charset")}
        return dataclasses.replace(self, more=tuple(whole(path) for path in self.more), **single)  # type: ignore[arg-type]

    @property
    def limits(self) -> Limits:
        """Bounds on image sizes."""
        return Limits(self.max_pixels, self.max_width, self.max_bytes, self.allow_outside, self.stretch)

    @property
    def layout(self) -> Layout:
        """Layout of all sets."""
        return Layout(self.format, self.encoding, self.root)
