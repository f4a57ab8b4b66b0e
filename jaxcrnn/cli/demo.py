"""``jaxcrnn demo``: read lines of look-alikes, and fine-tune with four losses; needs no data and no fonts."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from jaxcrnn.cli import options

if TYPE_CHECKING:
    from jaxcrnn.experiments.results import Results
    from jaxcrnn.report.build import Opening
    from jaxcrnn.report.readings import Shown

SUMMARY = "read look-alike characters with the pretrained recogniser and fine-tune it; takes minutes, needs no data"
MODULES = ("jaxcrnn.experiments.run", "jaxcrnn.report.build")
RESOURCES = Path(__file__).parents[1] / "resources"
PLAN, FROM_SCRATCH, LINES = RESOURCES / "demo.yaml", RESOURCES / "demo_from_scratch.yaml", RESOURCES / "demo"
TEST = "lookalike"  # test set of the table at the beginning of the page
PROVES_NOTHING = "A fine-tune this short, with one seed, proves nothing about which loss is better."


def add_options(parser: options.Parser) -> None:
    parser.add_argument("--out", metavar="FOLDER", help="output folder; default: runs/demo, or the next free number")
    parser.add_argument(
        "--from-scratch",
        action="store_true",
        help="train the recogniser that is fine-tuned from random weights instead of using the pretrained one; takes "
        "twice as long or more",
    )
    options.add_set(parser)
    parser.lists_keys = True


def run(args: argparse.Namespace) -> int:
    """Compare four losses, and write a table and a report page."""
    from jaxcrnn import _console
    from jaxcrnn.experiments.plan import read
    from jaxcrnn.experiments.run import compare
    from jaxcrnn.interop.trained import open_untrusted
    from jaxcrnn.report import build

    began = time.monotonic()
    plan = read(FROM_SCRATCH if args.from_scratch else PLAN, args.set, open_untrusted)
    out = Path(args.out) if args.out else _fresh(Path("runs"), "demo")
    shown = None if args.from_scratch else _read_lines()
    print(_FROM_SCRATCH if args.from_scratch else _FINE_TUNES)
    results = compare(plan, out)
    if results is None:
        print(f"stopped; resume with: jaxcrnn demo{' --from-scratch' * args.from_scratch} --out {out}")
        return 0
    page = out / "report.html"
    build.write(out, page, trust_code=True, opening=_opening(shown, results) if shown else None)  # the user's own plan
    print(f"\n{PROVES_NOTHING}")
    print(f"wrote {page} ({page.stat().st_size / 1e6:.1f} MB); open it in any browser")
    first = out / "tests" / "lookalike" / "0.png"
    print(f"Finished in {_console.duration(time.monotonic() - began)}. Read a line with one of the recognisers:")
    print(f"  jaxcrnn recognize {out / 'aligned' / 'seed-0'} {first}")
    print("To compare your own losses over several seeds, see docs/does-it-help.md.")
    return 0


_FROM_SCRATCH = (
    "A plain CTC baseline learns to read rendered lines of look-alike characters. It is then fine-tuned with four\n"
    "losses: plain CTC (ctc), and the center losses of the TensorFlow original (flow1), of PaddleOCR (flow2) and\n"
    "of jaxcrnn (aligned). All are tested on lines in a typeface that was not used for training.\n"
)
_FINE_TUNES = (
    "The pretrained recogniser is now fine-tuned with four losses: plain CTC (ctc), and the center losses of the\n"
    "TensorFlow original (flow1), of PaddleOCR (flow2) and of jaxcrnn (aligned). All are tested on distorted lines\n"
    "in a typeface of the pretrained weights that the fine-tunes do not use.\n"
)


def _read_lines() -> list[Shown]:
    """Read the lines of the package with the pretrained recogniser, and print what was read."""
    import jaxcrnn
    from jaxcrnn.data.images import Limits, read_gray
    from jaxcrnn.lookalikes.groups import read_groups
    from jaxcrnn.render.texts import GROUPS
    from jaxcrnn.report import readings

    rows = [row.split("\t") for row in (LINES / "labels.txt").read_text(encoding="utf-8").splitlines()]
    read = jaxcrnn.load().recognize([LINES / name for name, _ in rows])
    shown = [
        readings.Shown(read_gray(LINES / name, Limits()), truth, line.text, f"level {name.partition('-')[0]}")
        for (name, truth), line in zip(rows, read, strict=True)
    ]
    groups = read_groups(GROUPS)
    print(
        "The pretrained recogniser reads lines of look-alikes, rendered in typefaces of its training at three levels\n"
        "of difficulty:\n"
    )
    for number, line in enumerate(shown, start=1):
        wrong = [pair for pair in readings.marked(line.truth, line.text, groups) if pair.kind != "same"]
        errors = ", ".join(f"{p.written or 'nothing'} read as {p.read or 'nothing'}" for p in wrong)
        print(f"  {number:2}  {line.note:12}  {line.truth}  {line.text}" + (f"  <- {errors}" if wrong else ""))
    print(f"\n{readings.summary(shown, groups)}.\n")
    return shown


def _opening(shown: list[Shown], results: Results) -> Opening:
    """Build the beginning of the page: what it shows, the lines that were read, and the scores of the fine-tunes."""
    from jaxcrnn.lookalikes.groups import read_groups
    from jaxcrnn.render.texts import GROUPS
    from jaxcrnn.report import html, readings
    from jaxcrnn.report.build import Opening

    groups = read_groups(GROUPS)
    text = (
        f"The pretrained recogniser of jaxcrnn reads {len(shown)} lines of look-alike characters. It is then "
        f"fine-tuned for a few steps with each of four losses. {PROVES_NOTHING}"
    )
    explained = (
        f"{readings.summary(shown, groups)}, in typefaces of its training. A solid line marks a character that was "
        "read as a look-alike, a dotted line another error."
    )
    head, rows = results.brief(TEST)
    table = html.text(
        "Lines of look-alikes in a typeface of the pretrained weights that the fine-tunes do not use:"
    ) + html.table(head, rows, "Scores before and after fine-tuning")
    section = readings.section("What the pretrained recogniser reads", explained, shown, groups, table)
    return Opening("jaxcrnn demo: characters that look alike", text, section)


def _fresh(parent: Path, name: str) -> Path:
    numbered = (parent / (name if i == 1 else f"{name}-{i}") for i in range(1, 10_000))
    return next(path for path in numbered if not path.exists())
