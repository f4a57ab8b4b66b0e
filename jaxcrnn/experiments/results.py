"""What a comparison says: rates of every arm, their intervals, and a verdict for each."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
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

# A recogniser that reads nothing takes nothing for its look-alike: misread and read right are looked at together.
SHOWN = ("substituted", "recall", "lines", "characters")
JUDGED = ("substituted", "recall", "lines")


@dataclass(frozen=True)
class Rated:
    """One rate of one arm on one test set.

    Attributes:
      name: in words.
      rate: mean over the seeds.
      gain: difference from the baseline, None for the baseline itself.
      better: 1 where more is better, -1 where less is.
      of: what is counted, over all seeds.
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
    """A comparison's results.

    Attributes:
      baseline: the arm that the others are compared with.
      arms: test set -> arm -> rate -> `Rated`; the start is an arm, too.
      seeds: how many seeds each arm is compared over: those that it shares with the baseline, on every test set.
      speeds: median steps a second of each arm.
      missing: runs that are not there yet, or have not read every test set.
      damaged: logs that cannot be read, so that their speed is not known.
    """

    baseline: str
    arms: dict[str, dict[str, dict[str, Rated]]]
    seeds: dict[str, int]
    speeds: dict[str, float]
    missing: int
    damaged: tuple[str, ...] = ()

    def save(self, path: Path) -> None:
        """Writes everything as JSON."""
        path.write_text(json.dumps(asdict(self), ensure_ascii=False, indent=1), encoding="utf-8")

    def text(self) -> str:
        """Tables and sentences for a terminal."""
        parts = []
        for test in self.arms:
            head, rows = self.rows(test)
            parts.append(f"{test}\n\n" + table(head, rows))
        return "\n\n".join([*parts, "\n".join(self.sentences()), *self.warnings()])

    def markdown(self) -> str:
        """The same as Markdown."""
        parts = []
        for test in self.arms:
            head, rows = self.rows(test)
            cells: list[list[object]] = [[*head], ["---"] * len(head), *rows]
            lines = [f"| {' | '.join(map(str, row))} |" for row in cells]
            parts.append(f"### `{test}`\n\n" + "\n".join(lines))
        return "\n\n".join([*parts, "\n".join(f"- {s}" for s in self.sentences()), *self.warnings()]) + "\n"

    def rows(self, test: str) -> tuple[list[str], list[list[object]]]:
        """Header and one row an arm: rates, each with its difference from the baseline and that one's interval."""
        head, rows = ["arm", "seeds"], []
        for number, (arm, rated) in enumerate(self.arms[test].items()):
            row: list[object] = [arm, self.seeds[arm]]
            for key in SHOWN:
                one = rated[key]
                row += [f"{one.rate.value:.2%}", _points(one.gain) if one.gain else ""] if one.of else ["-", ""]
                if not number:
                    head += [one.name, f"against {self.baseline}"]
            speed = self.speeds.get(arm)
            rows.append([*row, f"{speed:.2f}" if speed else ""])
        return [*head, "steps/s"], rows

    def sentences(self) -> list[str]:
        """One for each arm but the baseline: what is better, what is worse, what cannot be told."""
        return [f"{arm}: {self.sentence(arm)}" for arm in self.arms[next(iter(self.arms))]
                if arm not in (self.baseline, "start")]  # fmt: skip

    def sentence(self, arm: str) -> str:
        """How an arm differs from the baseline."""
        said = self.verdicts(arm)
        parts = [f"{verdict}: {', '.join(found)}" for verdict, found in said.items() if found]
        return "; ".join(parts) + "." if parts else "no seed in common with the baseline."

    def verdicts(self, arm: str) -> dict[str, list[str]]:
        """What is better, what worse, and what cannot be told, each with its difference."""
        said: dict[str, list[str]] = {"better": [], "worse": [], "not distinguishable": []}
        for test, arms in self.arms.items():
            for key in JUDGED:
                one = arms[arm][key] if arm in arms else None
                if one and one.gain and one.of:
                    said[one.verdict].append(f"{one.name} on {test} ({_points(one.gain)})")
        return said

    def warnings(self) -> list[str]:
        """What the reader must know of the figures."""
        few, most = min(self.seeds.values()), max(self.seeds.values())
        known = ["Differences are in points, with 95 % intervals of a paired bootstrap over lines and seeds."]
        if few == 1:
            known[0] += (
                " With one seed they know about lines only: another seed may say the opposite, so this proves nothing."
            )
        judged = sum(len(found) for arm in self.seeds if arm not in (self.baseline, "start")
                     for found in self.verdicts(arm).values())  # fmt: skip
        if judged > 20:
            known.append(f"Of {judged} intervals of 95 %, about {round(judged / 20)} leave out 0 by chance alone.")
        if few < most:
            known.append(f"An arm with fewer seeds than {self.baseline} is compared with {self.baseline} of these "
                         "seeds alone, so its difference is not that of the two rates shown.")  # fmt: skip
        if self.missing:
            known.append(f"{self.missing} runs are missing yet.")
        known += [f"{path} is damaged: the speed is not known." for path in self.damaged]
        return known


def _points(gain: Interval) -> str:
    return f"{100 * gain.value:+.2f} [{100 * gain.low:+.2f}, {100 * gain.high:+.2f}]"


def collect(folder: Path, replicates: int = 10_000) -> Results:
    """Scores every finished run of a comparison.

    Args:
      folder: of the comparison.
      replicates: of the bootstrap.

    Raises:
      UserError: it is none, no run of the baseline is finished, or predictions are not of the same lines.
    """
    known, groups = description(folder), read_groups(folder / "groups.txt")
    names, baseline = ("start", *known["arms"]), known["baseline"]
    counts = {test: _counts(folder, test, names, known["seeds"], groups) for test in known["tests"]}
    runs = [(arm, seed) for arm in known["arms"] for seed in known["seeds"]]
    missing = sum(any(seed not in found.get(arm, {}) for found in counts.values()) for arm, seed in runs)
    counts = {test: found for test, found in counts.items() if baseline in found}
    if not counts:
        raise UserError(f"{folder}: no run of {baseline} is finished; expected some of 'jaxcrnn compare'")
    arms: dict[str, dict[str, dict[str, Rated]]] = {}
    for test, of_test in counts.items():
        arms[test] = {}
        for arm, of_arm in of_test.items():
            # Only seeds that both have can be paired.
            both = sorted(of_arm.keys() & of_test[baseline].keys())
            one, two = [of_arm[s] for s in both or of_arm], [of_test[baseline][s] for s in both]
            arms[test][arm] = _rated(one, two if both and arm != baseline else None, replicates)
    shared: dict[str, set[int]] = {
        arm: set(known["seeds"]) for arm in names if any(arm in of for of in counts.values())
    }
    for of_test in counts.values():
        for arm in shared:
            shared[arm] &= of_test.get(arm, {}).keys() & of_test[baseline].keys()
    speeds, damaged = _speeds(folder, list(shared))
    return Results(
        baseline, arms, {arm: len(seeds) for arm, seeds in shared.items()}, speeds, missing, tuple(damaged),
    )  # fmt: skip


def _counts(
    folder: Path, test: str, arms: Sequence[str], seeds: Sequence[int], groups: Sequence[str]
) -> dict[str, dict[int, confusions.LineCounts]]:
    """Counts of every run that has read a test set, by arm and seed."""
    counts: dict[str, dict[int, confusions.LineCounts]] = {}
    first: Predictions | None = None
    for arm in arms:
        for seed in seeds:
            path = folder / arm / f"seed-{seed}" / f"{test}.txt"
            if not path.exists():
                continue
            given = read_predictions(path)
            first = first or given
            if (given.names, given.truths) != (first.names, first.truths):
                raise UserError(f"{path}: predictions of other lines than the other runs'; expected the same")
            counts.setdefault(arm, {})[seed] = confusions.score(given.read, given.truths, groups).lines
    return counts


def description(folder: Path) -> dict[str, Any]:
    """What a comparison consists of.

    Raises:
      UserError: the folder is no comparison.
    """
    path = folder / "comparison.json"
    try:
        known: dict[str, Any] = json.loads(read_text(path))
        if not {"arms", "seeds", "tests", "baseline"} <= set(known):
            raise ValueError
    except (OSError, ValueError, TypeError):
        raise UserError(f"{folder}: no comparison; expected what 'jaxcrnn compare --out' made") from None
    return known


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
    """Median steps a second of each arm, compilation and validation not counted, and logs that are damaged."""
    speeds: dict[str, float] = {}
    damaged = []
    for arm in arms:
        found = []
        for path in sorted((folder / arm).glob(f"seed-*/{metrics_log.NAME}")):
            log, before = metrics_log.read(path), 0
            for row in log.rows:
                speed, samples = metrics_log.number(row, "images_per_second"), metrics_log.number(row, "samples")
                if speed and samples:
                    found.append(speed * (row["step"] - before) / samples)
                    before = row["step"]
            if log.broken:
                damaged.append(str(path))
        if found:
            speeds[arm] = statistics.median(found)
    return speeds, damaged
