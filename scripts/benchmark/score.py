"""Scores predictions for the look-alike benchmark, with intervals over lines and against the first reader.

    jaxcrnn evaluate RUN --data BENCHMARK/random.txt --predictions jaxcrnn-random.txt
    python scripts/benchmark/score.py random jaxcrnn-random.txt ppocr-v6-small-random.txt ... [--pairs 10]

Each file has `path<TAB>prediction<TAB>truth` lines for the same lines; its reader is named after the file. Several
parts, such as `random,natural`, are scored together: `NAME-random.txt` and `NAME-natural.txt` of each reader.

Spaces are removed and full-width forms folded to half width first, because print does not distinguish them reliably. A
look-alike counts as substituted if it was read as another member of its group (the shipped groups of Han characters).
Intervals are 95 % bootstrap intervals over lines; differences and ratios are paired, so lines that all readers find
hard cancel.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from make import look_alikes

from jaxcrnn.data.predictions import read_predictions
from jaxcrnn.errors import UserError
from jaxcrnn.experiments.bootstrap import difference, rate
from jaxcrnn.lookalikes.confusions import LineCounts, Scores, score
from jaxcrnn.metrics import folded

REPLICATES = 2000


def counts(lines: LineCounts) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Numerators and denominators ``[1,N]`` of the columns."""
    parts = {
        "characters right": (lines.characters - lines.edits, lines.characters),
        "lines right": (lines.correct, np.ones_like(lines.correct)),
        "look-alikes substituted": (lines.substituted, lines.members),
    }
    return {name: (over[None], under[None]) for name, (over, under) in parts.items()}


def ratio(lines: LineCounts, base: LineCounts) -> tuple[float, float, float]:
    """How many times as many look-alikes the first reader substitutes as this one, with its interval."""
    draws = np.random.default_rng(0).multinomial(
        len(lines.members), np.full(len(lines.members), 1 / len(lines.members)), REPLICATES
    )
    values = (draws @ base.substituted) / np.maximum(draws @ lines.substituted, 1)
    low, high = np.quantile(values, [0.025, 0.975])
    return float(base.substituted.sum() / max(lines.substituted.sum(), 1)), float(low), float(high)


def read(paths: list[Path], groups: list[str]) -> tuple[list[str], Scores]:
    texts: list[str] = []
    truths: list[str] = []
    for path in paths:
        rows = read_predictions(path)
        texts += map(folded, rows.read)
        truths += map(folded, rows.truths)
    return truths, score(texts, truths, groups)


def by_reader(files: list[Path], parts: list[str]) -> dict[str, list[Path]]:
    """The files of each reader, one for each part in the order of the parts."""
    found: dict[str, dict[str, Path]] = {}
    for path in files:
        part = next((part for part in parts if path.stem.endswith(f"-{part}")), parts[0] if len(parts) == 1 else "")
        name = path.stem.removesuffix(f"-{part}")
        if not part:
            sys.exit(f"{path}: belongs to no part; expected a name that ends in {' or '.join(f'-{p}' for p in parts)}")
        if part in found.setdefault(name, {}):
            sys.exit(f"{path}: second file of the reader {name}; expected files with different names")
        found[name][part] = path
    for name, own in found.items():
        if missing := [part for part in parts if part not in own]:
            sys.exit(f"{name}: no file of the part {missing[0]}; expected {name}-{missing[0]}.txt")
    return {name: [own[part] for part in parts] for name, own in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", help="name of the part, removed from the names of the files, or several with commas")
    parser.add_argument("files", type=Path, nargs="+", metavar="PREDICTIONS")
    parser.add_argument("--pairs", type=int, default=0, metavar="N", help="also list each reader's N commonest pairs")
    args = parser.parse_args()
    if args.pairs < 0:
        parser.error(f"--pairs is {args.pairs}; expected 0 or more")
    groups = look_alikes()
    readers: dict[str, tuple[list[str], Scores]] = {}
    for name, paths in by_reader(args.files, args.part.split(",")).items():
        try:
            readers[name] = read(paths, groups)
        except UserError as error:
            sys.exit(str(error))
    first, (truths, base) = next(iter(readers.items()))
    for name, (others, _) in readers.items():
        if others != truths:
            sys.exit(f"{name}: its true texts are not those of {first}; expected the same lines in the same order")
    print(
        f"{args.part}: {len(truths)} lines, {base.lines.characters.sum()} characters, "
        f"{base.lines.members.sum()} look-alikes\n"
    )
    columns = list(counts(base.lines))
    print(f"| reader | {' | '.join(columns)} | substituted, minus {first} | {first}, times as rarely |")
    print("|---" * (len(columns) + 3) + "|")
    for name, (_, scores) in readers.items():
        values = {column: rate(*pair) for column, pair in counts(scores.lines).items()}
        cells = [f"{v.value:.2%} ({v.low:.2%} to {v.high:.2%})" for v in values.values()]
        apart, times = "", ""
        if name != first:
            pair = counts(scores.lines)["look-alikes substituted"], counts(base.lines)["look-alikes substituted"]
            d = difference(*pair[0], *pair[1])
            apart = f"{100 * d.value:+.2f} ({100 * d.low:+.2f} to {100 * d.high:+.2f}) points"
            times = "{:.2f} ({:.2f} to {:.2f})".format(*ratio(base.lines, scores.lines))
        print(f"| {name} | {' | '.join(cells)} | {apart} | {times} |")
    for name, (_, scores) in readers.items() if args.pairs else ():
        alike = [c for c in scores.confusions if c.alike][: args.pairs]
        print(f"\n{name}: " + " ".join(f"{c.written}→{c.read}:{c.times}/{c.among}" for c in alike))


if __name__ == "__main__":
    main()
