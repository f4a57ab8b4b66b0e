"""``jaxcrnn data audit`` and ``jaxcrnn data convert``: check a data set, or convert it to LMDB."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from jaxcrnn.cli import options
from jaxcrnn.errors import UserError

if TYPE_CHECKING:
    from jaxcrnn._console import Plain
    from jaxcrnn.data.audit import Corpus
    from jaxcrnn.data.labels import Source

SUMMARY = "check a data set for faults, or convert it to LMDB"
MODULES = ("jaxcrnn.runs.usable_lines",)


def add_options(parser: options.Parser) -> None:
    actions = options.add_actions(parser)
    summaries = {
        "audit": "check every line as training does, and list the faults (exit code 2 if any)",
        "convert": "convert a data set to LMDB",
    }
    for name, summary in summaries.items():
        sub = actions.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        sub.add_argument(
            "source",
            help="label file of path<TAB>text lines (also PaddleOCR's), LMDB folder, labels.csv of EasyOCR, JSON file "
            "of mmocr or docTR, or folder of images named after their text",
        )
        at_check = "; only for the check, images are written as they are (data.vertical)"
        options.add_vertical(sub, "; sets data.vertical" if name == "audit" else at_check)
        if name == "convert":
            sub.add_argument("out", help="output folder; an interrupted conversion is resumed")
            sub.add_argument("--skip-bad", action="store_true", help="skip and count unreadable images")
        options.add_layout(sub)
        sub.add_argument(
            "--charset", metavar="FILE", help="allowed characters, one per line; default: those of the labels"
        )
        sub.add_argument(
            "--config",
            metavar="FILE",
            help="YAML configuration of the training; its model and limits decide which lines fit",
        )
        options.add_normalize(sub, "none (data.normalize)")
        options.add_set(sub)


def run(args: argparse.Namespace) -> int:
    if args.action == "convert":
        return _convert(args)
    # The faults that stop training.
    return 2 if _audited(args, keep_text_faults=False).faults else 0


def _audited(args: argparse.Namespace, *, keep_text_faults: bool) -> Corpus:
    from jaxcrnn.charset import Charset, breaks
    from jaxcrnn.data.audit import audit_table
    from jaxcrnn.data.formats import open_source
    from jaxcrnn.runs import config as configs
    from jaxcrnn.runs.usable_lines import audit_lines

    config = configs.load(args.config, [*options.vertical_key(args), *args.set, *options.normalize_key(args)])
    layout = options.layout(args)
    if args.action == "convert" and args.format == "lmdb":  # named the output before there was a choice of the input
        del layout["format"]
    source = open_source(args.source, config.data.limits, dataclasses.replace(config.data.layout, **layout))
    if args.charset:
        charset = Charset.from_file(args.charset)
    else:
        texts = [text for i in range(len(source)) if (text := source.text(i)) and not breaks(text)]
        charset = Charset.from_labels(texts) if texts else Charset("?")
    corpus = audit_lines(config, charset, source, keep_text_faults=keep_text_faults)
    print(audit_table(args.source, corpus))
    return corpus


def _convert(args: argparse.Namespace) -> int:
    """Write a data set as LMDB, read it back and compare."""
    from jaxcrnn import _console
    from jaxcrnn.data.formats import Joined
    from jaxcrnn.data.lmdb import write_lmdb
    from jaxcrnn.runs.usable_lines import check_usable

    out, source = Path(args.out), Path(args.source)
    if source.name == "data.mdb":
        source = source.parent
    if not args.out:
        raise UserError("no output folder; give one after the data set")
    if source.exists() and (out.resolve() == source.resolve() or source.resolve() in out.resolve().parents):
        raise UserError(f"{out}: inside the source data set; expected a folder elsewhere")
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file; expected an output folder")
    corpus = _audited(args, keep_text_faults=True)
    check_usable(corpus, args.source, keep_text_faults=True, skip_bad=args.skip_bad)
    chosen = Joined([corpus.source], corpus.indices)
    with _console.make() as shown:
        before = write_lmdb(out, chosen, lambda done, total: shown.progress(done, total, "lines written"))
    with _console.make() as shown:
        _compare(chosen, out, shown, before)
    again = f" ({before} from an earlier call)" if before else ""
    print(f"{len(chosen)} lines in {out}{again}; verified by reading back; {corpus.left_out} skipped")
    return 0


def _compare(written: Source, folder: Path, shown: Plain, before: int) -> None:
    """Read everything back. If an earlier call wrote some lines, the data set may have changed since.

    Raises:
      UserError: a line written by an earlier call differs from the data set's.
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
                raise UserError(
                    f"{read.where(i)}: differs from {written.where(i)}; the data set changed since the "
                    "conversion was interrupted, use a new folder"
                )
            raise RuntimeError(f"{read.where(i)}: differs from what was written from {written.where(i)}")
        if (i + 1) % 200 == 0 or i + 1 == len(written):
            shown.progress(i + 1, len(written), "lines read back")
