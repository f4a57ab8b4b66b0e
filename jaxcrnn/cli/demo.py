"""``jaxcrnn demo``: the main job in small, with no data and no font to bring."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from jaxcrnn.cli import options

SUMMARY = "compare four losses on rendered look-alikes in some minutes, no data needed"
MODULES = ("jaxcrnn.experiments.run", "jaxcrnn.report.build")
PLAN = Path(__file__).parents[1] / "resources" / "demo.yaml"


def add_options(parser: options.Parser) -> None:
    parser.add_argument("--out", metavar="FOLDER", help="folder of the comparison; default: a new one, runs/demo")
    options.add_set(parser)
    parser.lists_keys = True


def run(args: argparse.Namespace) -> int:
    """Plain CTC, then four ways to fine-tune it, a table and a page."""
    from jaxcrnn import _console
    from jaxcrnn.experiments.plan import read
    from jaxcrnn.experiments.run import compare
    from jaxcrnn.report import build

    began = time.monotonic()
    plan = read(PLAN, args.set)
    out = Path(args.out) if args.out else _fresh(Path("runs"), "demo")
    print("Plain CTC learns to read rendered lines of look-alike characters; then it goes on in four ways: as before\n"
          "(ctc), with the center loss of the TensorFlow original (flow1), with PaddleOCR's (flow2) and with ours\n"
          "(aligned). All are tested on lines in a typeface that none of them has seen.\n")  # fmt: skip
    if compare(plan, out) is None:
        print(f"stopped; go on with: jaxcrnn demo --out {out}")
        return 0
    page = out / "report.html"
    build.write(out, page, trust_code=True)  # the plan was the user's own
    print(f"\n{page}: {page.stat().st_size / 1e6:.1f} MB, opens in any browser")
    first = out / "tests" / "lookalike" / "0.png"
    print(f"{_console.duration(time.monotonic() - began)} in all. Read a line with one of the recognisers:")
    print(f"  jaxcrnn recognize {out / 'aligned' / 'seed-0'} {first}")
    print("The same with seeds and with losses of your own: docs/does-it-help.md")
    return 0


def _fresh(parent: Path, name: str) -> Path:
    numbered = (parent / (name if i == 1 else f"{name}-{i}") for i in range(1, 10_000))
    return next(path for path in numbered if not path.exists())
