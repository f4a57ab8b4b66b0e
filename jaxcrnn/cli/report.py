"""``jaxcrnn report``: write a page about a run or a comparison."""

from __future__ import annotations

import argparse
from pathlib import Path

from jaxcrnn.cli import options
from jaxcrnn.errors import UserError

SUMMARY = "write a self-contained HTML page about a run or a comparison"
MODULES = ("jaxcrnn.report.build",)


def add_options(parser: options.Parser) -> None:
    parser.add_argument("folder", help=f"folder of a comparison, or a trained recogniser: {options.TRAINED}")
    parser.add_argument("--out", metavar="FILE", help="output file; default: report.html in the folder")
    parser.add_argument("--data", metavar="FILE", help="label file to read; default: the validation or test set")
    parser.add_argument(
        "--groups", metavar="FILE", help="look-alike groups; default: the comparison's, or the package's own"
    )
    parser.add_argument(
        "--projector", metavar="FOLDER", help="also write features for TensorBoard's embedding projector to this folder"
    )
    options.add_reading(parser)
    options.add_checkpoint(parser, default=None)  # not an option for comparisons


def run(args: argparse.Namespace) -> int:
    from jaxcrnn.interop.exported import is_exported
    from jaxcrnn.report import build, projector

    folder = Path(args.folder)
    if not args.out and is_exported(folder):
        raise UserError(f"{folder}: an exported model; give --out FILE, a new file for the page")
    out = Path(args.out) if args.out else folder / "report.html"
    if args.projector:
        projector.summary_writer()  # fails early if the package is missing
    made = build.write(
        folder,
        out,
        data=args.data,
        groups=args.groups,
        checkpoint=args.checkpoint,
        trust_code=args.trust_code,
        **options.reading(args),
    )
    print(f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB); open it in any browser")
    if args.projector:
        where = Path(args.projector)
        count = projector.write(where, made.reader.features, made.corpus, made.run.charset)
        total = len(made.reader.features.classes)
        print(
            f"wrote {where}: {count} of {total} characters of {made.reader.name}; "
            f"view them with: tensorboard --logdir {where}"
        )
    return 0
