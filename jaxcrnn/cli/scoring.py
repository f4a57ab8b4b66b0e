"""The command that scores look-alikes, ``jaxcrnn lookalikes score``, from the predictions of any program."""

from __future__ import annotations

import json
from argparse import Namespace

from jaxcrnn._console import table
from jaxcrnn.data.predictions import read_predictions
from jaxcrnn.errors import UserError
from jaxcrnn.lookalikes import confusions
from jaxcrnn.lookalikes.confusions import shown
from jaxcrnn.lookalikes.groups import read_groups
from jaxcrnn.render.texts import GROUPS


def groups_of(path: str) -> list[str]:
    """The groups of a file, or those in the package."""
    return read_groups(path or GROUPS)


def score(args: Namespace) -> int:
    """``jaxcrnn lookalikes score``."""
    if args.most < 1:
        raise UserError(f"--most {args.most}: expected 1 or more")
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
    return table(("score", "", "of"), confusions.rate_rows(scores.lines))


def confusion_table(found: list[confusions.Confusion], most: int) -> str:
    """The most frequent confusions."""
    if not found:
        return "every character was read right"
    rows = [
        (shown(c.written), shown(c.read), c.times, c.among or "", "look-alikes" if c.alike else "")
        for c in found[:most]
    ]
    rest = f"\n... and {len(found) - most} more kinds" if len(found) > most else ""
    return table(("written", "read", "times", "of", ""), rows) + rest


def as_json(scores: confusions.Scores, facts: dict[str, object]) -> str:
    """Everything measured, as JSON."""
    rates = {
        name: {
            "rate": rate.known,
            "count": int(rate.over.sum()),
            "of": int(rate.under.sum()),
        }
        for name, rate in confusions.rates(scores.lines).items()
    }
    found = [
        {"written": c.written, "read": c.read, "count": c.times, "of": c.among, "alike": c.alike}
        for c in scores.confusions
    ]
    return json.dumps({**facts, "rates": rates, "confusions": found}, ensure_ascii=False, indent=2)
