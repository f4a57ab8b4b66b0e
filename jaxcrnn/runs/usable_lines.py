"""Auditing the lines that a run reads: faults are listed and counted, and skipped only on request."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TextIO

from jaxcrnn import _console
from jaxcrnn.charset import Charset
from jaxcrnn.data.audit import TEXT_KINDS, Corpus, audit, audit_table
from jaxcrnn.data.bounds import bounded
from jaxcrnn.data.formats import open_sources
from jaxcrnn.data.images import Limits
from jaxcrnn.data.labels import Source
from jaxcrnn.data.layout import Layout
from jaxcrnn.errors import UserError
from jaxcrnn.runs import config as configs
from jaxcrnn.runs.folder import CONFIG, Run


def audit_lines(
    config: configs.Config, charset: Charset, source: Source, *, keep_text_faults: bool, limits: Limits | None = None
) -> Corpus:
    """Audit every row of a data set, and show progress if it takes long.

    Args:
      config: supplies the image height and frames of the model, the cache size and the number of workers.
      charset: allowed characters of labels.
      source: rows to audit.
      keep_text_faults: as in `jaxcrnn.data.audit.audit`.
      limits: bounds on images; those of ``config`` by default.
    """
    began, shown = time.monotonic(), _console.make()

    def progress(done: int) -> None:
        if done % 500 == 0 and time.monotonic() - began > 2:
            shown.progress(done, len(source), "lines checked")

    with shown:
        return audit(
            source,
            charset,
            config.model.frames,
            config.model.height,
            limits or config.data.limits,
            keep_text_faults=keep_text_faults,
            cache_bytes=config.data.cache_mb << 20,
            workers=config.data.workers,
            progress=progress,
            keep_sizes=config.data.audit_cache,
        )


def usable_lines(
    run: Run,
    paths: Sequence[str],
    *,
    keep_text_faults: bool,
    skip_bad: bool = False,
    allow_outside: bool = False,
    max_pixels: int | None = None,
    max_bytes: int | None = None,
    max_width: int | None = None,
    vertical: bool | None = None,
    reread: float | None = None,
    layout: Mapping[str, str] | None = None,
    normalize: str | None = None,
    shown_on: TextIO | None = None,
) -> Corpus:
    """Return the lines of data sets that a run can use, after listing the faults of the others.

    Args:
      run: supplies the charset, the size of images and the limits.
      paths: data sets to read.
      keep_text_faults: as in `jaxcrnn.data.audit.audit`.
      skip_bad: skip rows with faults instead of stopping.
      allow_outside: whether label files may name images outside their folder.
      max_pixels: as in `jaxcrnn.data.bounds.bounded`.
      max_bytes: as in `jaxcrnn.data.bounds.bounded`.
      max_width: as in `jaxcrnn.data.bounds.bounded`.
      vertical: as in `jaxcrnn.data.bounds.bounded`.
      reread: as in `jaxcrnn.data.bounds.bounded`.
      layout: fields of `jaxcrnn.data.layout.Layout` for ``paths``; the others are detected, or those of the run for
        its own data sets.
      normalize: operations that normalize labels; those of the run by default.
      shown_on: stream to list faults on; stdout by default.

    Raises:
      UserError: there are faults and ``skip_bad`` is not set, or no line is usable.
    """
    limits = bounded(
        run.config.data.limits,
        f"{run.folder / CONFIG}: data",
        outside=allow_outside,
        max_pixels=max_pixels,
        max_bytes=max_bytes,
        max_width=max_width,
        vertical=vertical,
        reread=reread,
    )
    if normalize is not None:
        limits = dataclasses.replace(limits, normalize=normalize)
    source = open_sources(paths, limits, layout_of(run, paths, layout or {}))
    path = ", ".join(paths)
    corpus = audit_lines(run.config, run.charset, source, keep_text_faults=keep_text_faults, limits=limits)
    if corpus.faults or corpus.notes:
        print(audit_table(path, corpus), end="\n\n", file=shown_on or sys.stdout)
    check_usable(corpus, path, keep_text_faults=keep_text_faults, skip_bad=skip_bad)
    return corpus


def layout_of(run: Run, paths: Sequence[str], fields: Mapping[str, str]) -> Layout:
    """Return the layout of data sets: that of the run for its own data sets, with some fields replaced."""
    data = run.config.data
    own = set(paths) <= {data.train, data.val, *data.more}
    return dataclasses.replace(data.layout if own else Layout(), **fields)


def check_usable(corpus: Corpus, path: str, *, keep_text_faults: bool, skip_bad: bool) -> None:
    """Check that no faults have to be skipped without permission, and that a line is usable.

    Raises:
      UserError: there are faults and ``skip_bad`` is not set, or no line is usable.
    """
    unusable = [fault for fault in corpus.faults if not (keep_text_faults and fault.kind in TEXT_KINDS)]
    if unusable and not skip_bad:
        raise UserError(f"{path}: {len(unusable)} faults, listed above; fix them, or skip those rows with --skip-bad")
    if not len(corpus):
        raise UserError(f"{path}: no usable lines")


def validation_path(run: Run, path: str | None) -> str:
    """Return ``path``, or the run's validation set if it is empty.

    Raises:
      UserError: there is neither.
    """
    path = path or run.config.data.val
    if not path:
        raise UserError(f"{run.folder}: no validation set on record; give --data FILE, a label file of path<TAB>text")
    return path
