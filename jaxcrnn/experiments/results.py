"""Results of a comparison: rates of every arm, confidence intervals, and verdicts."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jaxcrnn._console import table
from jaxcrnn._text import read_text
from jaxcrnn.data.predictions import Predictions, read_predictions
from jaxcrnn.errors import UserError
from jaxcrnn.experiments import bootstrap
from jaxcrnn.experiments.bootstrap import Interval
from jaxcrnn.lookalikes import confusions
from jaxcrnn.lookalikes.groups import read_groups
from jaxcrnn.runs import metrics_log

# Both rates are needed: a recogniser that outputs nothing never confuses look-alikes.
SHOWN = ("substituted", "recall", "lines", "characters")
JUDGED = ("substituted", "recall", "lines")


@dataclass(frozen=True)
class Rated:
    """One rate of one arm on one test set.

    Attributes:
      name: description of the rate.
      rate: mean over the seeds.
      gain: difference from the baseline, None for the baseline itself.
      better: 1 if higher is better, -1 if lower is better.
      of: denominator, summed over all seeds.
    """

    name: str
    rate: Interval
    gain: Interval | None
    better: int
    of: int

    @property
    def verdict(self) -> str:
        """``better``, ``worse`` or ``not distinguishable``."""
        if self.gain is None or self.gain.low <= 0 <= self.gain.high:
            return "not distinguishable"
        return "better" if (self.gain.value > 0) == (self.better > 0) else "worse"


@dataclass(frozen=True)
class Results:
    """Results of a comparison.

    Attributes:
      baseline: arm that the others are compared with.
      arms: `Rated` by test set, arm (including the start) and rate.
      seeds: number of seeds that each arm shares with the arm that it is compared with on every test set.
      speeds: median steps per second of each arm.
      missing: number of runs that have not finished.
      damaged: corrupted logs, whose speed is unknown.
      against: for each arm that is not compared with the baseline, the arm that replaces it.
    """

    baseline: str
    arms: dict[str, dict[str, dict[str, Rated]]]
    seeds: dict[str, int]
    speeds: dict[str, float]
    missing: int
    damaged: tuple[str, ...] = ()
    against: dict[str, str] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write the results as JSON."""
        path.write_text(json.dumps(asdict(self), ensure_ascii=False, indent=1), encoding="utf-8")

    def text(self) -> str:
        """Format the results as tables and sentences for a terminal."""
        parts = []
        for test in self.arms:
            head, rows = self.rows(test)
            parts.append(f"{test}\n\n" + table(head, rows))
        return "\n\n".join([*parts, "\n".join(self.sentences()), *self.warnings()])

    def markdown(self) -> str:
        """Format the results as Markdown."""
        parts = []
        for test in self.arms:
            head, rows = self.rows(test)
            cells: list[list[object]] = [[*head], ["---"] * len(head), *rows]
            lines = [f"| {' | '.join(map(str, row))} |" for row in cells]
            parts.append(f"### `{test}`\n\n" + "\n".join(lines))
        return "\n\n".join([*parts, "\n".join(f"- {s}" for s in self.sentences()), *self.warnings()]) + "\n"

    def rows(self, test: str) -> tuple[list[str], list[list[object]]]:
        """Return the header and one row per arm: rates, each with its difference from the baseline."""
        head, rows = ["arm", "seeds"], []
        for number, (arm, rated) in enumerate(self.arms[test].items()):
            row: list[object] = [arm, self.seeds[arm]]
            for key in SHOWN:
                one = rated[key]
                row += [f"{one.rate.value:.2%}", self._gain(arm, one)] if one.of else ["-", ""]
                if not number:
                    head += [one.name, f"vs {self.baseline}"]
            speed = self.speeds.get(arm)
            rows.append([*row, f"{speed:.2f}" if speed else ""])
        return [*head, "steps/s"], rows

    def brief(self, test: str) -> tuple[list[str], list[list[object]]]:
        """Return a narrow table of one test set: for each arm its rates, and their differences from the baseline."""
        rates = ("substituted", "characters")
        first = next(iter(self.arms[test].values()))
        head = ["", *(part for key in rates for part in (first[key].name, f"difference from {self.baseline} [95 %]"))]
        rows: list[list[object]] = [
            [arm, *(part for key in rates for part in self._brief(arm, rated[key]))]
            for arm, rated in self.arms[test].items()
        ]
        return head, rows

    def _gain(self, arm: str, one: Rated) -> str:
        other = self.against.get(arm)
        return _points(one.gain) + (f" vs {other}" if other else "") if one.gain else ""

    def _brief(self, arm: str, one: Rated) -> list[str]:
        return [f"{one.rate.value:.2%}", self._gain(arm, one)] if one.of else ["-", ""]

    def sentences(self) -> list[str]:
        """Describe each arm except the baseline: what is better, worse or not distinguishable."""
        return [
            f"{arm}: {self.sentence(arm)}"
            for arm in self.arms[next(iter(self.arms))]
            if arm not in (self.baseline, "start")
        ]

    def sentence(self, arm: str) -> str:
        """Describe how an arm differs from the baseline."""
        parts = [f"{verdict}: {', '.join(rates)}" for verdict, rates in self.verdicts(arm).items() if rates]
        other = f"compared with {self.against[arm]}, " if arm in self.against else ""
        return other + "; ".join(parts) + "." if parts else f"no seed in common with {self.base(arm)}."

    def base(self, arm: str) -> str:
        """Return the arm that an arm is compared with."""
        return self.against.get(arm, self.baseline)

    def verdicts(self, arm: str) -> dict[str, list[str]]:
        """List the rates that are better, worse or not distinguishable, each with its difference."""
        verdicts: dict[str, list[str]] = {"better": [], "worse": [], "not distinguishable": []}
        for test, arms in self.arms.items():
            for key in JUDGED:
                one = arms[arm][key] if arm in arms else None
                if one and one.gain and one.of:
                    verdicts[one.verdict].append(f"{one.name} on {test} ({_points(one.gain)})")
        return verdicts

    def warnings(self) -> list[str]:
        """Return caveats about the figures."""
        few, most = min(self.seeds.values()), max(self.seeds.values())
        notes = [
            "Differences are in percentage points, with 95 % intervals of a paired bootstrap over lines and seeds."
        ]
        if few == 1:
            notes[0] += (
                " With a single seed they reflect the variation over lines only; another seed may give the opposite "
                "result, so this proves nothing."
            )
        judged = sum(
            len(rates)
            for arm in self.seeds
            if arm not in (self.baseline, "start")
            for rates in self.verdicts(arm).values()
        )
        if judged > 20:
            expected = round(judged / 20)
            notes.append(f"Of {judged} intervals of 95 %, about {expected} are expected to exclude 0 by chance.")
        if few < most:
            notes.append(
                f"An arm with fewer seeds than {self.baseline} is compared on the shared seeds only, so its difference "
                "is not that of the two rates shown."
            )
        if self.missing:
            verb = "run has" if self.missing == 1 else "runs have"
            notes.append(f"{self.missing} {verb} not finished.")
        notes += [f"{path} is corrupted; the speed is unknown." for path in self.damaged]
        return notes


def _points(gain: Interval) -> str:
    return f"{100 * gain.value:+.2f} [{100 * gain.low:+.2f}, {100 * gain.high:+.2f}]"


def collect(folder: Path, replicates: int = 10_000) -> Results:
    """Score every finished run of a comparison.

    Args:
      folder: folder of the comparison.
      replicates: number of bootstrap replicates.

    Raises:
      UserError: the folder is not a comparison, no run of the baseline is finished, or predictions are for other lines.
    """
    facts, groups = description(folder), read_groups(folder / "groups.txt")
    names, baseline, against = ("start", *facts["arms"]), facts["baseline"], facts.get("against", {})
    counts = {test: _counts(folder, test, names, facts["seeds"], groups) for test in facts["tests"]}
    runs = [(arm, seed) for arm in facts["arms"] for seed in facts["seeds"]]
    missing = sum(any(seed not in by_arm.get(arm, {}) for by_arm in counts.values()) for arm, seed in runs)
    counts = {test: by_arm for test, by_arm in counts.items() if baseline in by_arm}
    if not counts:
        raise UserError(f"{folder}: no run of {baseline} is finished; run 'jaxcrnn compare' first")
    arms: dict[str, dict[str, dict[str, Rated]]] = {}
    for test, of_test in counts.items():
        arms[test] = {}
        for arm, of_arm in of_test.items():
            # Only shared seeds can be paired.
            base = of_test.get(against.get(arm, baseline), {})
            both = sorted(of_arm.keys() & base.keys())
            one, two = [of_arm[s] for s in both or of_arm], [base[s] for s in both]
            arms[test][arm] = _rated(one, two if both and arm != baseline else None, replicates)
    shared: dict[str, set[int]] = {
        arm: set(facts["seeds"]) for arm in names if any(arm in of for of in counts.values())
    }
    for of_test in counts.values():
        for arm in shared:
            shared[arm] &= of_test.get(arm, {}).keys() & of_test.get(against.get(arm, baseline), {}).keys()
    speeds, damaged = _speeds(folder, list(shared))
    return Results(
        baseline,
        arms,
        {arm: len(seeds) for arm, seeds in shared.items()},
        speeds,
        missing,
        tuple(damaged),
        against,
    )


def _counts(
    folder: Path, test: str, arms: Sequence[str], seeds: Sequence[int], groups: Sequence[str]
) -> dict[str, dict[int, confusions.LineCounts]]:
    """Count the outcomes of every run on a test set, by arm and seed."""
    counts: dict[str, dict[int, confusions.LineCounts]] = {}
    first: Predictions | None = None
    for arm in arms:
        for seed in seeds:
            path = folder / arm / f"seed-{seed}" / f"{test}.txt"
            if not path.exists():
                continue
            own = read_predictions(path)
            first = first or own
            if (own.names, own.truths) != (first.names, first.truths):
                raise UserError(f"{path}: predictions for other lines than in the other runs; expected the same lines")
            counts.setdefault(arm, {})[seed] = confusions.score(own.read, own.truths, groups).lines
    return counts


def description(folder: Path) -> dict[str, Any]:
    """Read the description of a comparison: arms, seeds, test sets and baseline.

    Raises:
      UserError: the folder is not a comparison.
    """
    path = folder / "comparison.json"
    try:
        facts: dict[str, Any] = json.loads(read_text(path))
        if not {"arms", "seeds", "tests", "baseline"} <= set(facts):
            raise ValueError
    except (OSError, ValueError, TypeError):
        raise UserError(f"{folder}: not a comparison; expected the --out of 'jaxcrnn compare'") from None
    return facts


def _rated(
    of_arm: Sequence[confusions.LineCounts], base: Sequence[confusions.LineCounts] | None, replicates: int
) -> dict[str, Rated]:
    mine = [confusions.rates(counts) for counts in of_arm]
    theirs = [confusions.rates(counts) for counts in base] if base else None
    rated = {}
    for key, rate in mine[0].items():
        over, under = (np.stack([getattr(rates[key], part) for rates in mine]) for part in ("over", "under"))
        gain = None
        if theirs:
            other = [np.stack([getattr(rates[key], part) for rates in theirs]) for part in ("over", "under")]
            gain = bootstrap.difference(over, under, other[0], other[1], replicates=replicates)
        value = bootstrap.rate(over, under, replicates=replicates)
        rated[key] = Rated(rate.name, value, gain, rate.better, int(under.sum()))
    return rated


def _speeds(folder: Path, arms: Sequence[str]) -> tuple[dict[str, float], list[str]]:
    """Return the median steps per second of each arm, without compilation and validation, and corrupted logs."""
    speeds: dict[str, float] = {}
    damaged = []
    for arm in arms:
        rates = []
        for path in sorted((folder / arm).glob(f"seed-*/{metrics_log.NAME}")):
            log, before = metrics_log.read(path), 0
            for row in log.rows:
                speed, samples = metrics_log.number(row, "images_per_second"), metrics_log.number(row, "samples")
                if speed and samples:
                    rates.append(speed * (row["step"] - before) / samples)
                    before = row["step"]
            if log.broken:
                damaged.append(str(path))
        if rates:
            speeds[arm] = statistics.median(rates)
    return speeds, damaged
