"""``jaxcrnn demo``: the main job in small, with no data and no font to bring."""

from __future__ import annotations

import time
from argparse import Namespace
from pathlib import Path

from jaxcrnn import _console
from jaxcrnn.experiments import run as compare
from jaxcrnn.experiments.plan import read
from jaxcrnn.report import build

PLAN = Path(__file__).parents[1] / "resources" / "demo.yaml"


def run(args: Namespace) -> int:
    """``jaxcrnn demo``: plain CTC, then four ways of going on from it, a table and a page."""
    began = time.monotonic()
    plan = read(PLAN, args.set)
    out = Path(args.out) if args.out else _fresh(Path("runs"), "demo")
    print("Plain CTC learns to read rendered lines of look-alike characters; then it goes on in four ways: as before\n"
          "(ctc), with the center loss of the TensorFlow original (flow1), with PaddleOCR's (flow2) and with ours\n"
          "(aligned). All are tested on lines in a typeface that none of them has seen.\n")  # fmt: skip
    if compare.compare(plan, out) is None:
        print(f"stopped; go on with: jaxcrnn demo --out {out}")
        return 0
    print()
    from jaxcrnn.cli.main import parser  # so that an option of the report is never lacking here

    build.run(parser(()).parse_args(["report", str(out), "--trust-code"]))
    first = out / "tests" / "lookalike" / "0.png"
    print(f"{_console.duration(time.monotonic() - began)} in all. Read a line with one of the recognisers:")
    print(f"  jaxcrnn recognize {out / 'aligned' / 'seed-0'} {first}")
    print("The same with seeds and with losses of your own: docs/does-it-help.md")
    return 0


def _fresh(parent: Path, name: str) -> Path:
    numbered = (parent / (name if i == 1 else f"{name}-{i}") for i in range(1, 10_000))
    return next(path for path in numbered if not path.exists())
