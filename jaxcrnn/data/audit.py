"""Audit of a data set before training: every unusable row is counted and listed, never dropped silently."""

from __future__ import annotations

import hashlib
import re
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np

from jaxcrnn._console import table
from jaxcrnn._text import listed, quoted
from jaxcrnn.charset import Charset, breaks, name_of
from jaxcrnn.data import normalize
from jaxcrnn.data.audit_images import Decoded, Images
from jaxcrnn.data.images import ABSURD, MISSING, UNREADABLE, ImageError, Limits, fit_height, looks
from jaxcrnn.data.label_checks import LabelChecks
from jaxcrnn.data.labels import MALFORMED, OUTSIDE, Fault, Source
from jaxcrnn.data.ragged import Ragged

UNKNOWN = "character outside the charset"
TOO_LONG = "label too long for its image"
EMPTY = "empty label"
BROKEN = "tab or line break in a label"
DUPLICATE = "image listed twice"

KINDS = (MALFORMED, OUTSIDE, MISSING, UNREADABLE, ABSURD, BROKEN, UNKNOWN, TOO_LONG, EMPTY, DUPLICATE)
# Rows with these faults can still be read and scored; evaluation counts them as errors of the recogniser.
TEXT_KINDS = frozenset({UNKNOWN, TOO_LONG, EMPTY})


@dataclass
class Corpus:
    """Rows of a source that passed the audit, ready for batches.

    Attributes:
      source: source of the rows.
      indices: ``[N]`` kept rows of the source.
      widths: ``[N]`` int32 widths in pixels at the model's height.
      labels: N arrays of class ids, int32; empty if the text has a character outside the charset.
      height: height of the images in pixels.
      limits: bounds on image sizes.
      faults: all faults, of skipped and of kept rows.
      left_out: number of skipped rows of the source, including malformed lines.
      cache: decoded images by row of the source.
      notes: lines that the table adds: what is unusual about images and labels, without being a fault.
    """

    source: Source
    indices: np.ndarray
    widths: np.ndarray
    labels: Sequence[np.ndarray]
    height: int
    limits: Limits
    faults: list[Fault]
    left_out: int
    cache: Decoded = field(default_factory=lambda: Decoded(0))
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.indices)

    def only(self, items: np.ndarray) -> Corpus:
        """Select lines by their position in ``indices``, without the faults."""
        return replace(
            self,
            indices=self.indices[items],
            widths=self.widths[items],
            labels=Ragged.of([self.labels[i] for i in items.tolist()]),
            faults=[],
            left_out=0,
            notes=(),
        )

    @property
    def texts(self) -> list[str]:
        """The N texts."""
        return [self.source.text(int(i)) for i in self.indices]

    def image(self, item: int) -> np.ndarray:
        """Load the image of a kept row, ``[height, widths[item]]`` uint8."""
        index = int(self.indices[item])
        if (decoded := self.cache.get(index)) is not None:
            return decoded
        gray = self._unchanged(
            item, fit_height(self.source[index][0], self.height, self.limits, self.source.name(index))
        )
        self.cache.add(index, gray)
        return gray

    def looks(self, item: int) -> list[np.ndarray]:
        """Load the image of a kept row, and scale it as `jaxcrnn.data.images.looks` does."""
        index = int(self.indices[item])
        scaled = looks(self.source[index][0], self.height, self.limits, self.source.name(index))
        self._unchanged(item, scaled[0])
        return scaled

    def _unchanged(self, item: int, gray: np.ndarray) -> np.ndarray:
        if gray.shape[1] != self.widths[item]:
            where = self.source.where(int(self.indices[item]))
            raise ImageError(UNREADABLE, f"{where}: the image changed since the audit")
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
    keep_sizes: bool = False,
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
      keep_sizes: keep the sizes of the images on disk, so that the next audit reads only images that changed
        (`jaxcrnn.data.audit_cache`).

    Returns:
      The usable rows, and all faults.
    """
    kept, widths, ids, ends = array("q"), array("i"), array("i"), array("q")
    cache, checks = Decoded(cache_bytes), LabelChecks(charset)
    faults = list(source.faults)
    harmless = TEXT_KINDS if keep_text_faults else frozenset()
    with ThreadPoolExecutor(workers) as pool:
        images = Images(source, height, limits, cache, pool)
        firsts, measured = images.widths(keep_sizes=keep_sizes)
        for index, width in enumerate(measured):
            label, own = _text_faults(source, index, charset, width, frames, checks)
            if isinstance(width, ImageError):
                own.append(Fault(width.kind, source.where(index), str(width)))
            if index in firsts:
                detail = f"{source.name(index)} already listed at {source.where(firsts[index])}"
                own.append(Fault(DUPLICATE, source.where(index), detail))
            faults += own
            if not isinstance(width, ImageError) and all(fault.kind in harmless for fault in own):
                kept.append(index)
                widths.append(width)
                ids.extend(label)
                ends.append(len(ids))
            progress(index + 1)
    return Corpus(
        source,
        np.array(kept, np.int64),
        np.array(widths, np.int32),
        Ragged(np.array(ids, np.int32), np.array(ends, np.int64)),
        height,
        limits,
        faults,
        len(source) + len(source.faults) - len(kept),
        cache,
        (*images.notes(), *normalize.report(source), *checks.notes()),
    )


def _text_faults(
    source: Source,
    index: int,
    charset: Charset,
    width: int | ImageError,
    frames: Callable[[int], int],
    checks: LabelChecks,
) -> tuple[list[int], list[Fault]]:
    """Encode a label, and check the text by itself and against its image."""
    text = source.text(index)
    if not text:
        return [], [Fault(EMPTY, source.where(index), f"{source.name(index)} has no text")]
    if breaks(text):
        return [], [Fault(BROKEN, source.where(index), broken_label(text))]
    checks.add(text, lambda: source.where(index))
    if missing := charset.missing(text):
        checks.outside(text)
        shown = listed(list(map(name_of, missing)), 5)
        return [], [Fault(UNKNOWN, source.where(index), f"{shown} in {text!r}")]
    ids = charset.encode(text)
    if not isinstance(width, ImageError) and needed_frames(ids) > frames(width):
        detail = (
            f"{text!r} needs {needed_frames(ids)} frames (one per character, one between repeats); "
            f"its image of {width} px has {frames(width)}"
        )
        return ids, [Fault(TOO_LONG, source.where(index), detail)]
    return ids, []


def broken_label(text: str) -> str:
    """Explain a tab or line break in a label by the layout that it comes from."""
    *_, last = text.split("\t")
    if not breaks(text.strip("\t\r\n")):
        fix = "expected a text without it; delete it, or use data.normalize=space (--normalize space)"
    elif "\t" not in text:
        fix = "expected a text of one line"
    elif re.fullmatch(r"[01]\.\d+|\d(\.\d+)?[eE]-\d+|[01]|\d{1,3}\.\d+", last.strip()):
        fix = "expected path<TAB>text; is the last column a score (path<TAB>text<TAB>score)? delete it"
    else:
        fix = "expected path<TAB>text; a file of path<TAB>prediction<TAB>truth is for 'jaxcrnn lookalikes score'"
    breaking = next(c for c in text if breaks(c))
    return f"{name_of(breaking)} in {quoted(text)}; {fix}"


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
