"""The commands about data sets: ``jaxcrnn data audit`` and ``jaxcrnn data convert``."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import numpy as np

from jaxcrnn import _console
from jaxcrnn.charset import Charset
from jaxcrnn.cli.reading import audit_lines, check_usable
from jaxcrnn.data.audit import Corpus
from jaxcrnn.data.formats import Joined, open_source
from jaxcrnn.data.labels import Source
from jaxcrnn.data.lmdb import close, write_lmdb
from jaxcrnn.errors import UserError
from jaxcrnn.report import tables
from jaxcrnn.runs import config as configs


def run(args: Namespace) -> int:
    """``jaxcrnn data ACTION``."""
    return _audit(args) if args.action == "audit" else _convert(args)


def _looked_at(args: Namespace, *, keep_text_faults: bool) -> Corpus:
    config = configs.load(args.config, args.set)
    source = open_source(args.source, config.data.limits)
    if args.charset:
        charset = Charset.from_file(args.charset)
    else:
        texts = [source.text(i) for i in range(len(source))]
        charset = Charset.from_labels(texts) if any(texts) else Charset("?")
    corpus = audit_lines(config, charset, source, keep_text_faults=keep_text_faults)
    print(tables.audit_table(args.source, corpus))
    return corpus


def _audit(args: Namespace) -> int:
    """``jaxcrnn data audit``: what training would find; 2 if anything."""
    return 2 if _looked_at(args, keep_text_faults=False).faults else 0


def _convert(args: Namespace) -> int:
    """``jaxcrnn data convert``: any data set as LMDB, read back and compared."""
    out = Path(args.out)
    given = Path(args.source)
    if not args.out:
        raise UserError("no folder to write; give one after the data set")
    if given.exists() and (out.resolve() == given.resolve() or given.resolve() in out.resolve().parents):
        raise UserError(f"{out}: is inside the data set itself; expected a folder elsewhere")
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: a file; expected a folder to write to")
    corpus = _looked_at(args, keep_text_faults=True)
    check_usable(corpus, args.source, keep_text_faults=True, skip_bad=args.skip_bad)
    chosen = Joined([corpus.source], corpus.indices)
    with _console.make() as shown:

        def written(done: int, total: int) -> None:
            shown.progress(done, total, "lines written")

        before = write_lmdb(out, chosen, written)
    with _console.make() as shown:
        _compare(chosen, out, shown, before)
    again = f", {before} of them by an earlier call" if before else ""
    print(f"{len(chosen)} lines in {out}{again}; all read back and equal; {corpus.left_out} left out")
    return 0


def _compare(written: Source, folder: Path, shown: _console.Plain, before: int) -> None:
    """Reads everything back. Where an earlier call wrote lines, the data set may have changed since.

    Raises:
      UserError: a line that an earlier call wrote is not the data set's.
    """
    close(folder)
    read = open_source(folder)
    if len(read) != len(written) or read.faults:
        raise RuntimeError(f"{folder}: {len(written)} lines were written, {len(read)} can be read")
    for i in range(len(written)):
        image, text = read[i]
        expected, label = written[i]
        if text != label or not np.array_equal(image, expected):
            if before:
                raise UserError(f"{read.where(i)}: not what {written.where(i)} is now; the data set changed since an "
                                "earlier call, expected a new folder")  # fmt: skip
            raise RuntimeError(f"{read.where(i)}: not what was written from {written.where(i)}")
        if (i + 1) % 200 == 0 or i + 1 == len(written):
            shown.progress(i + 1, len(written), "lines read back")
