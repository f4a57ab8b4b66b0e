"""``jaxcrnn compare``: train a grid of losses and seeds, and report which differ."""

from __future__ import annotations

import argparse
from pathlib import Path

from jaxcrnn.cli import options

SUMMARY = "train with several losses and seeds, and report which scores differ"
MODULES = ("jaxcrnn.experiments.run",)


def add_options(parser: options.Parser) -> None:
    parser.add_argument("plan", help="YAML file with the sections config, start or init_from, arms, seeds and tests")
    parser.add_argument(
        "--out", required=True, metavar="FOLDER", help="output folder; an interrupted comparison is resumed"
    )
    parser.add_argument("--skip-bad", action="store_true", help="skip and count rows with faults instead of stopping")
    options.add_set(parser)


def run(args: argparse.Namespace) -> int:
    from jaxcrnn.experiments.plan import read
    from jaxcrnn.experiments.run import compare
    from jaxcrnn.interop.trained import open_untrusted

    out = Path(args.out)
    if compare(read(args.plan, args.set, open_untrusted), out, args.skip_bad) is None:
        print(f"stopped; resume with: jaxcrnn compare {args.plan} --out {out}")
        return 0
    print(f"\ncomparison written to {out}; show it with: jaxcrnn report {out}")
    return 0
