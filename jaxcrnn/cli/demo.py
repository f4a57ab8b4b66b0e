"""``jaxcrnn demo``: a small comparison of losses that needs no data and no fonts."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from jaxcrnn.cli import options

SUMMARY = "compare four losses on rendered look-alike characters; takes minutes, needs no data"
MODULES = ("jaxcrnn.experiments.run", "jaxcrnn.report.build")
PLAN = Path(__file__).parents[1] / "resources" / "demo.yaml"


def add_options(parser: options.Parser) -> None:
    parser.add_argument("--out", metavar="FOLDER", help="output folder; default: runs/demo, or the next free number")
    options.add_set(parser)
    parser.lists_keys = True


def run(args: argparse.Namespace) -> int:
    """Train plain CTC, fine-tune it with four losses, and write a table and a report page."""
    from jaxcrnn import _console
    from jaxcrnn.experiments.plan import read
    from jaxcrnn.experiments.run import compare
    from jaxcrnn.report import build

    began = time.monotonic()
    plan = read(PLAN, args.set)
    out = Path(args.out) if args.out else _fresh(Path("runs"), "demo")
    print(
        "A plain CTC baseline learns to read rendered lines of look-alike characters. It is then fine-tuned with four\n"
        "losses: plain CTC (ctc), and the center losses of the TensorFlow original (flow1), of PaddleOCR (flow2) and\n"
        "of jaxcrnn (aligned). All are tested on lines in a typeface that was not used for training.\n"
    )
    if compare(plan, out) is None:
        print(f"stopped; resume with: jaxcrnn demo --out {out}")
        return 0
    page = out / "report.html"
    build.write(out, page, trust_code=True)  # the plan is the user's own
    print(f"\nwrote {page} ({page.stat().st_size / 1e6:.1f} MB); open it in any browser")
    first = out / "tests" / "lookalike" / "0.png"
    print(f"Finished in {_console.duration(time.monotonic() - began)}. Read a line with one of the recognisers:")
    print(f"  jaxcrnn recognize {out / 'aligned' / 'seed-0'} {first}")
    print("To compare your own losses over several seeds, see docs/does-it-help.md.")
    return 0


def _fresh(parent: Path, name: str) -> Path:
    numbered = (parent / (name if i == 1 else f"{name}-{i}") for i in range(1, 10_000))
    return next(path for path in numbered if not path.exists())
