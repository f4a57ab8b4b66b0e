"""Configuration of the data: files, batches and limits."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from jaxcrnn._ranges import Bytes, Count, Natural, Positive, Share, check
from jaxcrnn.data.images import Limits
from jaxcrnn.data.layout import Layout
from jaxcrnn.data.normalize import operations
from jaxcrnn.errors import UserError


@dataclass(frozen=True)
class DataConfig:
    """Data sets, batches and limits on images.

    Attributes:
      train: training set: a label file, or another format that ``jaxcrnn data audit --help`` lists.
      more: additional training sets.
      weights: relative number of lines in a batch from ``train`` and from each of ``more``, each more than 0; if empty,
        all of them are used as one data set.
      val: label file of the validation set; empty for none.
      format: format of all sets: ``"auto"`` detects it; ``"labels"`` is path<TAB>text, ``"tsv"`` the same with texts
        quoted as in CSV, ``"space"`` a space for the tab, ``"icdar"`` path, "text"; ``"csv"``, ``"json"`` and
        ``"lmdb"`` are those formats, and ``"names"`` images named by their texts.
      encoding: text encoding of the lists of all sets, such as gbk or utf-16, and of file names that are not UTF-8.
      root: folder that the paths in the lists of all sets are relative to; empty for the folder of each list.
      charset: file of the characters to recognise, one per line; empty for the characters of the training labels.
      blank: position of the CTC blank (no character) among the classes, ``"first"`` or ``"last"``.
      batch_size: lines in a batch, 1 or more.
      buckets: maximum number of widths that lines are padded to, chosen from the data, 1 or more; each is compiled
        once.
      max_width: maximum width of a line in pixels at the model's height, 1 or more; wider lines are faults.
      max_pixels: maximum pixels of an image file, 1 or more; larger images are faults.
      max_bytes: maximum bytes of an image file, 1 or more; larger files are faults.
      stretch: width in pixels that every line is stretched to, for models trained that way, 0 or more and at most
        ``max_width``; 0 keeps the aspect ratio.
      vertical: rotate lines that are taller than wide by 90 degrees counterclockwise, so that vertical text, read from
        top to bottom, becomes a line from left to right; wider lines stay as they are.
      trim: remove empty rows above and below the text before scaling, at most half of the image.
      invert: swap black and white, for light text on a dark ground.
      reread: confidence below which ``jaxcrnn recognize`` and ``evaluate`` read a line again, 15 % narrower and 20 %
        wider, and keep the most confident reading, 0 to 1; 0 for never.
      normalize: operations that normalize every label that is read, separated by commas; empty for none. width: ASCII
        instead of full-width forms, kana instead of half-width ones; space: no spaces at the ends, no invisible
        characters such as U+200B, one space instead of several; nfc: composed accents. What changed is reported.
      allow_outside: whether label files may name images outside their own folder.
      cache_mb: memory in MiB that keeps decoded images for later epochs, 0 or more; 0 disables the cache.
      audit_cache: whether to keep the sizes of decoded images in the folder audits of the cache folder
        (~/.cache/jaxcrnn), so that the next start reads only images whose path, size or times changed.
      workers: number of threads that read the images of the next batches, 1 or more.
      processes: number of processes that read images instead of threads, 0 or more; 0 for threads. The batches are the
        same.
    """

    train: str = ""
    more: tuple[str, ...] = ()
    weights: tuple[Positive, ...] = ()
    val: str = ""
    format: str = "auto"
    encoding: str = "utf-8"
    root: str = ""
    charset: str = ""
    blank: str = "first"
    batch_size: Count = 32
    buckets: Count = 6
    max_width: Count = 4096
    max_pixels: Bytes = 32_000_000
    max_bytes: Bytes = 64_000_000
    allow_outside: bool = False
    stretch: Natural = 0
    vertical: bool = False
    trim: bool = False
    invert: bool = False
    reread: Share = 0.0
    normalize: str = ""
    cache_mb: Natural = 1024
    audit_cache: bool = True
    workers: Count = 2
    processes: Natural = 0

    def __post_init__(self) -> None:
        try:
            _ = self.layout
        except UserError as error:
            raise UserError(f"data.{error}") from None
        check(self, "data")
        if self.stretch > self.max_width:
            raise UserError(
                f"data.stretch is {self.stretch}; expected 1 to data.max_width={self.max_width}, or 0 to keep the ratio"
            )
        try:
            operations(self.normalize)
        except UserError as error:
            raise UserError(f"data.normalize is {self.normalize!r}: {error}") from None

    def with_whole_paths(self, base: Path = Path()) -> DataConfig:
        """Copy with absolute paths; relative ones are resolved against ``base``."""

        def whole(path: str) -> str:
            return str((base / path).resolve()) if path else ""

        single = {name: whole(getattr(self, name)) for name in ("train", "val", "root", "charset")}
        return dataclasses.replace(self, more=tuple(whole(path) for path in self.more), **single)  # type: ignore[arg-type]

    @property
    def limits(self) -> Limits:
        """Bounds on image sizes."""
        return Limits(
            self.max_pixels,
            self.max_width,
            self.max_bytes,
            outside=self.allow_outside,
            stretch=self.stretch,
            vertical=self.vertical,
            trim=self.trim,
            invert=self.invert,
            reread=self.reread,
            normalize=self.normalize,
        )

    @property
    def layout(self) -> Layout:
        """Layout of all sets."""
        return Layout(self.format, self.encoding, self.root)
