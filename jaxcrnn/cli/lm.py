"""``jaxcrnn lm train``: make a character n-gram model for decoding."""

from __future__ import annotations

import argparse
from pathlib import Path

from jaxcrnn.cli import options
from jaxcrnn.errors import UserError

SUMMARY = "make a character n-gram model for decoding"
MODULES = ("jaxcrnn.decoding.ngram",)


def add_options(parser: options.Parser) -> None:
    actions = options.add_actions(parser)
    train = actions.add_parser("train", help="count the n-grams of plain text", description="Count n-grams of text.")
    train.add_argument("text", nargs="+", help="UTF-8 text files, a line of text a line")
    train.add_argument("--labels", action="store_true", help="they are label files: take what follows the tab")
    train.add_argument("--order", type=int, default=4, metavar="N", help="characters of an n-gram at most; default: 4")
    train.add_argument("--out", required=True, metavar="FILE", help="file to write")


def run(args: argparse.Namespace) -> int:
    from jaxcrnn._text import read_text
    from jaxcrnn.decoding import ngram

    if not 1 <= args.order <= ngram.MAX_ORDER:
        raise UserError(f"--order {args.order}: expected 1 to {ngram.MAX_ORDER}")
    out = Path(args.out)
    if out.exists() or not out.parent.is_dir():
        raise UserError(f"{out}: expected --out FILE, a new file in a folder that exists")
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
    print(f"made {out}: {len(model.log_p):,} n-grams up to {model.order}, of {kept:,} lines and "
          f"{len(model.characters):,} characters; left out: {len(lines) - kept - without:,} empty lines"
          + (f", {without:,} without a tab" if without else ""))  # fmt: skip
    return 0
