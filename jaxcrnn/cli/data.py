"""``jaxcrnn data audit`` and ``jaxcrnn data convert``: audit or convert a data set."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from jaxcrnn.cli import options
from jaxcrnn.errors import UserError

if TYPE_CHECKING:
    from jaxcrnn._console import Plain
    from jaxcrnn.data.audit import Corpus
    from jaxcrnn.data.labels import Source

SUMMARY = "audit or convert a data set"
MODULES = ("jaxcrnn.runs.usable_lines",)


def add_options(parser: options.Parser) -> None:
    actions = options.add_actions(parser)
    for name, summary in (("audit", "look at every line, as training does"),
                          ("convert", "write any data set as LMDB")):  # fmt: skip
        sub = actions.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        sub.add_argument("source", help="label file, LMDB, folder, labels.csv, or JSON of mmocr or docTR")
        if name == "convert":
            sub.add_argument("out", help="folder to write; one of a stopped conversion is gone on with")
            sub.add_argument("--format", default="lmdb", choices=["lmdb"], help="lmdb is the only one")
            sub.add_argument("--skip-bad", action="store_true", help="leave out, counted, images that cannot be read")
        sub.add_argument("--charset", metavar="FILE", help="one character a line; default: those of the labels")
        sub.add_argument("--config", metavar="FILE", help="YAML file, for the model and the limits of images")
        options.add_set(sub)


def run(args: argparse.Namespace) -> int:
    if args.action == "convert":
        return _convert(args)
    # What training would find; 2 if there is anything.
    return 2 if _audited(args, keep_text_faults=False).faults else 0


def _audited(args: argparse.Namespace, *, keep_text_faults: bool) -> Corpus:
    from jaxcrnn.charset import Charset
    from jaxcrnn.data.audit import audit_table
    from jaxcrnn.data.formats import open_source
    from jaxcrnn.runs import config as configs
    from jaxcrnn.runs.usable_lines import audit_lines

    config = configs.load(args.config, args.set)
    source = open_source(args.source, config.data.limits)
    if args.charset:
        charset = Charset.from_file(args.charset)
    else:
        texts = [source.text(i) for i in range(len(source))]
        charset = Charset.from_labels(texts) if any(texts) else Charset("?")
    corpus = audit_lines(config, charset, source, keep_text_faults=keep_text_faults)
    print(audit_table(args.source, corpus))
    return corpus


def _convert(args: argparse.Namespace) -> int:
    """Any data set as LMDB, read back and compared."""
    from jaxcrnn import _console
    from jaxcrnn.data.formats import Joined
    from jaxcrnn.data.lmdb import write_lmdb
    from jaxcrnn.runs.usable_lines import check_usable

    out, source = Path(args.out), Path(args.source)
    if not args.out:
        raise UserError("no folder to write; give one after the data set")
    if source.exists() and (out.resolve() == source.resolve() or source.resolve() in out.resolve().parents):
        raise UserError(f"{out}: is inside the data set itself; expected a folder elsewhere")
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: a file; expected a folder to write to")
    corpus = _audited(args, keep_text_faults=True)
    check_usable(corpus, args.source, keep_text_faults=True, skip_bad=args.skip_bad)
    chosen = Joined([corpus.source], corpus.indices)
    with _console.make() as shown:
        before = write_lmdb(out, chosen, lambda done, total: shown.progress(done, total, "lines written"))
    with _console.make() as shown:
        _compare(chosen, out, shown, before)
    again = f", {before} of them by an earlier call" if before else ""
    print(f"{len(chosen)} lines in {out}{again}; all read back and equal; {corpus.left_out} left out")
    return 0


def _compare(written: Source, folder: Path, shown: Plain, before: int) -> None:
    """Read everything back. Where an earlier call wrote lines, the data set may have changed since.

    Raises:
      UserError: a line that an earlier call wrote is not the data set's.
    """
    import numpy as np

    from jaxcrnn.data.formats import open_source
    from jaxcrnn.data.lmdb import close

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
