"""``jaxcrnn lm train``: train a character n-gram model for decoding."""

from __future__ import annotations

import argparse
from pathlib import Path

from jaxcrnn.cli import options
from jaxcrnn.errors import UserError

SUMMARY = "train a character language model (n-grams) for decoding"
MODULES = ("jaxcrnn.decoding.ngram",)


def add_options(parser: options.Parser) -> None:
    actions = options.add_actions(parser)
    train = actions.add_parser(
        "train", help="train on plain text or labels", description="Train an n-gram model on plain text or labels."
    )
    train.add_argument("text", nargs="+", help="UTF-8 text files, one text line per line")
    train.add_argument("--labels", action="store_true", help="the files are label files: use the text after the tab")
    train.add_argument("--order", type=int, default=4, metavar="N", help="longest n-gram in characters; default: 4")
    train.add_argument("--out", required=True, metavar="FILE", help="new output file")


def run(args: argparse.Namespace) -> int:
    from jaxcrnn._text import read_text
    from jaxcrnn.decoding import ngram

    if not 1 <= args.order <= ngram.MAX_ORDER:
        raise UserError(f"--order {args.order}: expected 1 to {ngram.MAX_ORDER}")
    out = Path(args.out)
    if out.exists() or not out.parent.is_dir():
        raise UserError(f"{out}: expected --out FILE, a new file in an existing folder")
    lines = [line.removesuffix("\r") for path in args.text for line in read_text(path).removesuffix("\n").split("\n")]
    without = 0
    if args.labels:
        without = sum("\t" not in line for line in lines if line)
        lines = [line.partition("\t")[2] for line in lines]
    try:
        model = ngram.train(lines, args.order)
    except UserError as error:
        raise UserError(f"{', '.join(args.text)}: {error}") from None
    ngram.save_ngrams(out, model)
    kept = sum(bool(line) for line in lines)
    print(
        f"wrote {out}: {len(model.log_p):,} n-grams up to length {model.order}, from {kept:,} lines and "
        f"{len(model.characters):,} characters; skipped {len(lines) - kept - without:,} empty lines"
        + (f", {without:,} without a tab" if without else "")
    )
    return 0
