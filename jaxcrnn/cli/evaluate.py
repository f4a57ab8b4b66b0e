"""``jaxcrnn evaluate``: measure the accuracy of a trained run on a data set."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from jaxcrnn.cli import options
from jaxcrnn.cli.decoding import add_decoding, decoder_of

if TYPE_CHECKING:
    from jaxcrnn.data.audit import Corpus
    from jaxcrnn.decoding.evaluate import Evaluation

SUMMARY = "measure a trained recogniser's accuracy on labelled lines"
MODULES = options.RUN_MODULES


def add_options(parser: options.Parser) -> None:
    options.add_run(parser)
    parser.add_argument("--data", metavar="FILE", help="label file to read; default: the run's validation set")
    parser.add_argument("--charset", metavar="FILE", help="check that the recogniser was trained with this charset")
    options.add_batch_size(parser)
    options.add_checkpoint(parser)
    parser.add_argument("--positions", action="store_true", help="also print the accuracy at each text position")
    parser.add_argument(
        "--predictions", metavar="FILE", help="write path<TAB>prediction<TAB>truth of every line to this file"
    )
    options.add_reading(parser)
    options.add_reread(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_decoding(parser)


def run(args: argparse.Namespace) -> int:
    from jaxcrnn._files import can_be_written
    from jaxcrnn.charset import Charset
    from jaxcrnn.data.predictions import write_predictions
    from jaxcrnn.decoding.evaluate import evaluate
    from jaxcrnn.interop.trained import open_trained
    from jaxcrnn.report import tables
    from jaxcrnn.runs import folder
    from jaxcrnn.runs.usable_lines import usable_lines, validation_path

    opened = open_trained(args.run, args.trust_code)
    path = validation_path(opened, args.data)
    if args.charset:
        folder.same_charset(opened, Charset.from_file(args.charset, opened.config.data.blank), args.charset)
    batch_size = options.batch_size(args, opened.config.data.batch_size)
    if args.predictions:
        can_be_written(args.predictions)
    state, step = opened.state(args.checkpoint)
    decoder = decoder_of(args, opened.charset)
    shown_on = sys.stderr if args.json else sys.stdout
    given = options.reading(args) | {"reread": args.reread}
    corpus = usable_lines(opened, [path], keep_text_faults=True, shown_on=shown_on, **given)
    data = opened.config.data
    result = evaluate(
        opened.reader_config,
        state,
        opened.charset,
        corpus,
        batch_size=batch_size,
        buckets=data.buckets,
        decoder=decoder,
        reread=0.0 if decoder else corpus.limits.reread,
    )
    if args.predictions:
        write_predictions(Path(args.predictions), result.predictions())
    if args.json:
        print(tables.evaluation_json(result, corpus, {"run": str(opened.folder), "data": str(path), "step": step}))
        return 0
    print(f"{opened.described(step)}, on {path}")
    _print(corpus, result, positions=args.positions)
    return 0


def _print(corpus: Corpus, result: Evaluation, *, positions: bool) -> None:
    """Print scores under every rule, and the first misread lines."""
    from jaxcrnn.report import tables

    loss = f"CTC loss {result.loss:.4f} over {result.spelled}"
    print(f"{len(result.lines)} lines read, {corpus.left_out} skipped; {loss}\n")
    print(tables.score_table(*result.scores()), end="\n\n")
    if positions:
        print(tables.position_table(result), end="\n\n")
    print(tables.mistakes(result))
