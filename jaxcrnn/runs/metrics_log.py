"""Reading ``metrics.jsonl``, which may end in the middle of a row, or be a stranger's."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

NAME = "metrics.jsonl"
STEPS = 2**53  # more are no exact float


class Log(NamedTuple):
    """The rows of a file.

    Attributes:
      lines: as they stand there.
      rows: what each of these holds; ``step`` is an int.
      broken: how many lines are no row; one that was being written when the run died does not count.
    """

    lines: list[str]
    rows: list[dict[str, Any]]
    broken: int


def read(path: Path) -> Log:
    """All rows; none where there is no such file."""
    found = Log([], [], 0)
    if not path.is_file():
        return found
    broken = 0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
            if type(row["step"]) is not int or not 0 <= row["step"] < STEPS:
                raise ValueError(line)
        except (ValueError, TypeError, KeyError, RecursionError):
            broken += line.endswith("}")
        else:
            found.lines.append(line)
            found.rows.append(row)
    return found._replace(broken=broken)


def number(row: dict[str, Any], key: str) -> float | None:
    """A number of a row, None where it has none of that name."""
    value: Any = row.get(key)
    return float(value) if type(value) in (int, float) and abs(value) <= sys.float_info.max else None
