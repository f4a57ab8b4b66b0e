"""Audit of a data set before training: every unusable row is counted and listed, never dropped silently."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from jaxcrnn._console import table
from jaxcrnn.charset import Charset, name_of
from jaxcrnn.data.images import (
    ABSURD,
    MISSING,
    UNREADABLE,
    ImageError,
    Limits,
    fit_height,
    noting_pages,
    pages_note,
)
from jaxcrnn.data.labels import MALFORMED, OUTSIDE, Fault, Source

UNKNOWN = "character outside the charset"
TOO_LONG = "label too long for its image"
EMPTY = "empty label"
DUPLICATE = "image listed twice"

KINDS = (MALFORMED, OUTSIDE, MISSING, UNREADABLE, ABSURD, UNKNOWN, TOO_LONG, EMPTY, DUPLICATE)
# Rows with these faults can still be read and scored; evaluation counts them as errors of the recogniser.
TEXT_KINDS = frozenset({UNKNOWN, TOO_LONG, EMPTY})


@dataclass
class Corpus:
    """Rows of a source that passed the audit, ready for batches.

    Attributes:
      source: source of the rows.
      indices: ``[N]`` kept rows of the source.
      widths: ``[N]`` int32 widths in pixels at the model's height.
      labels: N arrays of class ids; empty if the text has a character outside the charset.
      height: height of the images in pixels.
      limits: bounds on image sizes.
      faults: all faults, of skipped and of kept rows.
      left_out: number of skipped rows of the source, including malformed lines.
      cache: decoded images by position in ``indices``.
      notes: lines that the table adds: what is unusual about the images, without being a fault.
    """

    source: Source
    indices: np.ndarray
    widths: np.ndarray
    labels: list[np.ndarray]
    height: int
    limits: Limits
    faults: list[Fault]
    left_out: int
    cache: dict[int, np.ndarray]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.indices)

    def only(self, items: np.ndarray) -> Corpus:
        """Select lines by their position in ``indices``, without the faults."""
        cache = {new: self.cache[old] for new, old in enumerate(items.tolist()) if old in self.cache}
        labels = [self.labels[i] for i in items.tolist()]
        return replace(
            self,
            indices=self.indices[items],
            widths=self.widths[items],
            labels=labels,
            faults=[],
            left_out=0,
            cache=cache,
            notes=(),
        )

    @property
    def texts(self) -> list[str]:
        """The N texts."""
        return [self.source.text(int(i)) for i in self.indices]

    def image(self, item: int) -> np.ndarray:
        """Load the image of a kept row, ``[height, widths[item]]`` uint8."""
        if item in self.cache:
            return self.cache[item]
        index = int(self.indices[item])
        gray = fit_height(self.source[index][0], self.height, self.limits, self.source.name(index))
        if gray.shape[1] != self.widths[item]:
            message = f"{self.source.where(index)}: the image changed since the audit"
            raise ImageError(UNREADABLE, message)
        return gray

    @property
    def fingerprint(self) -> str:
        """Hash of the rows, their texts, widths and order."""
        digest = hashlib.sha256(self.widths.tobytes())
        for index in self.indices:
            digest.update(f"{self.source.name(int(index))}\t{self.source.text(int(index))}\n".encode())
        return digest.hexdigest()[:16]

    def counts(self) -> dict[str, int]:
        """Count the faults of each kind, in the order of ``KINDS``; kinds without faults are omitted."""
        counted = Counter(fault.kind for fault in self.faults)
        return {kind: counted[kind] for kind in KINDS if counted[kind]}


def needed_frames(ids: np.ndarray | list[int]) -> int:
    """Count the frames that a label needs under CTC: one per character, and a blank between repeats."""
    ids = np.asarray(ids)
    return int(len(ids) + np.count_nonzero(ids[1:] == ids[:-1]))


def audit(
    source: Source,
    charset: Charset,
    frames: Callable[[int], int],
    height: int,
    limits: Limits,
    *,
    keep_text_faults: bool = False,
    cache_bytes: int = 0,
    workers: int = 2,
    progress: Callable[[int], None] = lambda done: None,
) -> Corpus:
    """Read every row once, and separate usable rows from those with faults.

    Args:
      source: rows to audit.
      charset: charset of the recogniser.
      frames: maps a width in pixels to the model's number of frames.
      height: height in pixels that images are scaled to.
      limits: bounds on image sizes.
      keep_text_faults: keep rows whose image is usable but whose text the model cannot produce; evaluation counts
        such rows as errors of the recogniser.
      cache_bytes: memory for decoded images, so that small data sets are decoded only once.
      workers: number of decoding threads.
      progress: called with the number of rows done.

    Returns:
      The usable rows, and all faults.
    """
    seen: dict[object, str] = {}
    kept: list[tuple[int, int, np.ndarray]] = []
    cache: dict[int, np.ndarray] = {}
    faults = list(source.faults)
    harmless = TEXT_KINDS if keep_text_faults else frozenset()
    notes: list[str] = []
    for index, image in enumerate(_images(source, height, limits, workers, notes)):
        ids, own = _text_faults(source, index, charset, image, frames)
        if isinstance(image, ImageError):
            own.append(Fault(image.kind, source.where(index), str(image)))
        identity = source.identity(index)
        if identity in seen:
            detail = f"{source.name(index)} already listed at {seen[identity]}"
            own.append(Fault(DUPLICATE, source.where(index), detail))
        seen.setdefault(identity, source.where(index))
        faults += own
        if not isinstance(image, ImageError) and all(fault.kind in harmless for fault in own):
            if image.nbytes <= cache_bytes:
                cache[len(kept)] = image
                cache_bytes -= image.nbytes
            kept.append((index, image.shape[1], ids))
        progress(index + 1)
    return Corpus(
        source,
        np.asarray([k[0] for k in kept], np.int64),
        np.asarray([k[1] for k in kept], np.int32),
        [k[2] for k in kept],
        height,
        limits,
        faults,
        len(source) + len(source.faults) - len(kept),
        cache,
        tuple(notes),
    )


def _images(
    source: Source, height: int, limits: Limits, workers: int, notes: list[str]
) -> Iterator[np.ndarray | ImageError]:
    """Yield every image or why it cannot be used, and finally add what is unusual about them to ``notes``."""
    tall: set[int] = set()

    def read(index: int) -> np.ndarray | ImageError:
        try:
            gray, text = source[index]
            # A single character may well be taller than wide.
            if gray.shape[0] > gray.shape[1] and (limits.vertical or len(text) > 1):
                tall.add(index)
            return fit_height(gray, height, limits, source.name(index))
        except ImageError as error:
            return error

    with ThreadPoolExecutor(workers) as pool, noting_pages() as pages:
        for start in range(0, len(source), 256):  # chunks bound the memory of decoded images
            yield from pool.map(read, range(start, min(start + 256, len(source))))
    notes += [pages_note(pages)] if pages else []
    if tall and limits.vertical:
        notes.append(f"{len(tall)} of {len(source)} lines are taller than wide and are rotated (data.vertical)")
    elif tall:
        notes.append(
            f"{len(tall)} of {len(source)} lines are taller than wide, with two or more characters; "
            "if they are vertical, rotate them with --vertical (data.vertical=true)"
        )


def _text_faults(
    source: Source, index: int, charset: Charset, image: np.ndarray | ImageError, frames: Callable[[int], int]
) -> tuple[np.ndarray, list[Fault]]:
    """Encode a label, and check the text by itself and against its image."""
    text, where = source.text(index), source.where(index)
    if not text:
        return np.zeros(0, np.int32), [Fault(EMPTY, where, f"{source.name(index)} has no text")]
    if missing := charset.missing(text):
        shown = ", ".join(map(name_of, missing[:5])) + (", ..." if len(missing) > 5 else "")
        return np.zeros(0, np.int32), [Fault(UNKNOWN, where, f"{shown} in {text!r}")]
    ids = np.asarray(charset.encode(text), np.int32)
    if isinstance(image, np.ndarray) and needed_frames(ids) > frames(image.shape[1]):
        detail = (
            f"{text!r} needs {needed_frames(ids)} frames (one per character, one between repeats); "
            f"its image of {image.shape[1]} px has {frames(image.shape[1])}"
        )
        return ids, [Fault(TOO_LONG, where, detail)]
    return ids, []


def audit_table(name: str, corpus: Corpus, examples: int = 3) -> str:
    """Format the counts of faults with the first examples of each; one line if there are none."""
    total = len(corpus) + corpus.left_out
    head = "\n".join([f"{name}: {total} lines, {len(corpus)} usable", *corpus.notes])
    counts = corpus.counts()
    if not counts:
        return head
    out = [head, ""]
    out.append(table(("fault", "rows"), list(counts.items())))
    for kind, count in counts.items():
        out += ["", f"{kind}:"]
        shown = [fault for fault in corpus.faults if fault.kind == kind][:examples]
        out += [f"  {fault.where}: {fault.detail}" for fault in shown]
        if count > examples:
            out.append(f"  ... and {count - examples} more")
    return "\n".join(out)
