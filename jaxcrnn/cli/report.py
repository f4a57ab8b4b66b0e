"""``jaxcrnn report``: one page that shows a run or a comparison."""

from __future__ import annotations

import argparse
from pathlib import Path

from jaxcrnn.cli import options

SUMMARY = "one page that shows a run or a comparison"
MODULES = ("jaxcrnn.report.build",)


def add_options(parser: options.Parser) -> None:
    parser.add_argument("folder", help="run folder, or a comparison's")
    parser.add_argument("--out", metavar="FILE", help="page to write; default: report.html in the folder")
    parser.add_argument("--data", metavar="FILE", help="lines to read for it; default: the validation or test set")
    parser.add_argument(
        "--groups", metavar="FILE", help="look-alike groups; default: the comparison's, or the package's"
    )
    parser.add_argument(
        "--projector", metavar="FOLDER", help="also write features for TensorBoard's embedding projector"
    )
    options.add_reading(parser)
    options.add_checkpoint(parser, default=None)  # a comparison has none to choose


def run(args: argparse.Namespace) -> int:
    from jaxcrnn.report import build, projector

    folder = Path(args.folder)
    out = Path(args.out) if args.out else folder / "report.html"
    if args.projector:
        projector.summary_writer()  # a missing package stops it before the work
    made = build.write(
        folder,
        out,
        data=args.data,
        groups=args.groups,
        checkpoint=args.checkpoint,
        trust_code=args.trust_code,
        **options.reading(args),
    )
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB, opens in any browser")
    if args.projector:
        where = Path(args.projector)
        count = projector.write(where, made.reader.features, made.corpus, made.run.charset)
        total = len(made.reader.features.classes)
        print(f"{where}: {count} of {total} characters of {made.reader.name}; look at them with: tensorboard --logdir "
              f"{where}")  # fmt: skip
    return 0
