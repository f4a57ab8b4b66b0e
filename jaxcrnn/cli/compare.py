"""``jaxcrnn compare``: train a grid of losses and seeds, and report which differ."""

from __future__ import annotations

import argparse
from pathlib import Path

from jaxcrnn.cli import options

SUMMARY = "train a grid of losses and seeds, and say which differ"
MODULES = ("jaxcrnn.experiments.run",)


def add_options(parser: options.Parser) -> None:
    parser.add_argument("plan", help="YAML file: config, start, arms, seeds, tests")
    parser.add_argument(
        "--out", required=True, metavar="FOLDER", help="of the comparison; a stopped one is gone on with"
    )
    parser.add_argument("--skip-bad", action="store_true", help="leave out, counted, rows that cannot be used")
    options.add_set(parser)


def run(args: argparse.Namespace) -> int:
    from jaxcrnn.experiments.plan import read
    from jaxcrnn.experiments.run import compare

    out = Path(args.out)
    if compare(read(args.plan, args.set), out, args.skip_bad) is None:
        print(f"stopped; go on with: jaxcrnn compare {args.plan} --out {out}")
        return 0
    print(f"\nthe comparison is in {out}; look at it with: jaxcrnn report {out}")
    return 0
