"""The command that scores look-alikes, ``jaxcrnn lookalikes score``, from the predictions of any program."""

from __future__ import annotations

import json
import re
from argparse import Namespace
from pathlib import Path
from typing import NamedTuple

from jaxcrnn import confusions
from jaxcrnn.charset import read_text
from jaxcrnn.console import table
from jaxcrnn.data.groups import read_groups
from jaxcrnn.data.texts import GROUPS
from jaxcrnn.errors import UserError

BRACKETS = re.compile(r"\S+\s+\[(.*)\]\s*\[(.*)\]\s*")
BETWEEN = re.compile(r"\]\s*\[")


class Predictions(NamedTuple):
    """What was read and what is written, of N lines.

    Attributes:
      names: paths or numbers of the images.
      read: N texts.
      truths: N texts.
    """

    names: list[str]
    read: list[str]
    truths: list[str]


def read_predictions(path: str | Path) -> Predictions:
    """Reads ``path<TAB>prediction<TAB>truth``, or ``index [prediction] [truth]``, a line an image.

    Raises:
      UserError: the file cannot be read, has no line, or a line is neither, naming it.
    """
    found = Predictions([], [], [])
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        line = line.removesuffix("\r")
        if not line:
            continue
        parts = line.split("\t")
        if len(parts) != 3:
            match = BRACKETS.fullmatch(line)
            if not match:
                raise UserError(f"{path}, line {number}: {line[:40]!r}; expected path<TAB>prediction<TAB>truth, or "
                                "index [prediction] [truth]")  # fmt: skip
            if len(BETWEEN.findall(line)) > 1:
                raise UserError(f"{path}, line {number}: {line[:40]!r}; which bracket ends the prediction cannot be "
                                "told; expected path<TAB>prediction<TAB>truth")  # fmt: skip
            parts = [line.split()[0], *match.groups()]
        for values, value in zip(found, parts, strict=True):
            values.append(value)
    if not found.names:
        raise UserError(f"{path}: no line in it; expected path<TAB>prediction<TAB>truth")
    return found


def groups_of(path: str) -> list[str]:
    """The groups of a file, or those in the package."""
    return read_groups(path or GROUPS)


def score(args: Namespace) -> int:
    """``jaxcrnn lookalikes score``."""
    given = read_predictions(args.predictions)
    groups = groups_of(args.groups or "")
    scores = confusions.score(given.read, given.truths, groups)
    if args.json:
        print(as_json(scores, {"predictions": str(args.predictions), "groups": len(groups)}))
        return 0
    print(f"{args.predictions}: {len(given.names)} lines; {len(groups)} groups of look-alikes\n")
    print(rate_table(scores), end="\n\n")
    print(confusion_table(scores.confusions, args.most))
    return 0


def rate_table(scores: confusions.Scores) -> str:
    """One row a rate, with how much stands behind it."""
    rows = [
        (rate.name, f"{rate.value:.2%}", f"{rate.over.sum()}/{rate.under.sum()}")
        for rate in confusions.rates(scores.lines).values()
    ]
    return table(("score", "", "of"), rows)


def confusion_table(found: list[confusions.Confusion], most: int) -> str:
    """The most frequent confusions."""
    if not found:
        return "every character was read right"
    rows = [
        (_shown(c.written), _shown(c.read), c.times, c.among or "", "look-alikes" if c.alike else "")
        for c in found[:most]
    ]
    rest = f"\n... and {len(found) - most} more kinds" if len(found) > most else ""
    return table(("written", "read", "times", "of", ""), rows) + rest


def _shown(character: str) -> str:
    return repr(character) if character.isspace() else character or "(nothing)"


def as_json(scores: confusions.Scores, facts: dict[str, object]) -> str:
    """Everything measured, as JSON."""
    rates = {
        name: {"rate": rate.value, "count": int(rate.over.sum()), "of": int(rate.under.sum())}
        for name, rate in confusions.rates(scores.lines).items()
    }
    found = [
        {"written": c.written, "read": c.read, "count": c.times, "of": c.among, "alike": c.alike}
        for c in scores.confusions
    ]
    return json.dumps({**facts, "rates": rates, "confusions": found}, ensure_ascii=False, indent=2)
