"""``metrics.jsonl``: rows that training writes, and how to read them back.

`Window` aggregates the steps since the last row. The reader accepts files with a truncated last row and files that
other programs wrote.
"""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxcrnn import optim
from jaxcrnn._console import Plain
from jaxcrnn._files import written_whole
from jaxcrnn.charset import Charset
from jaxcrnn.train import TrainConfig

NAME = "metrics.jsonl"
MAX_STEP = 2**53  # larger integers are not exact as floats

COUNTS = ("correct", "infeasible", "assigned_samples", "assigned_frames", "centers_moved")
NAMED = ("loss", "ctc_sum", "focal_sum", "ace_sum", "center", "push", "grad_norm")  # user-defined terms follow these


class Log(NamedTuple):
    """Rows of a metrics file.

    Attributes:
      lines: text lines of the valid rows.
      rows: their parsed values; ``step`` is an int.
      broken: number of invalid lines, not counting a truncated last one.
    """

    lines: list[str]
    rows: list[dict[str, Any]]
    broken: int


def read(path: Path) -> Log:
    """Read all rows of a file; a missing file has none."""
    log, broken = Log([], [], 0), 0
    if not path.is_file():
        return log
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
            if type(row["step"]) is not int or not 0 <= row["step"] < MAX_STEP:
                raise ValueError(line)
        except (ValueError, TypeError, KeyError, RecursionError):
            broken += line.endswith("}")
        else:
            log.lines.append(line)
            log.rows.append(row)
    return log._replace(broken=broken)


def number(row: dict[str, Any], key: str) -> float | None:
    """Return a number of a row, or None if the row has no such number."""
    value: Any = row.get(key)
    return float(value) if type(value) in (int, float) and abs(value) <= sys.float_info.max else None


class Window:
    """Sums over the steps since the last log row; skipped steps only count their samples."""

    def __init__(self, charset: Charset) -> None:
        self.charset = charset
        self.loss = self.correct = self.speed = 0.0
        self.taken = False  # whether a row has been written, and progress can be shown
        self._reset()

    def _reset(self) -> None:
        self.began = time.monotonic()
        self.sums: dict[str, float] = {}
        self.others: dict[str, None] = {}  # names of user-defined terms, in order
        self.last: Any = None

    def add(self, info: dict[str, Any]) -> None:
        self._sum({name: int(info[name]) for name in ("samples", "skipped")})
        if info["skipped"]:
            return
        self._sum({name: int(info[name]) for name in COUNTS if name in info})
        others = [name for name in info if name not in NAMED and _is_term(info[name])]
        self._sum({name: float(info[name]) for name in (*NAMED, *others) if name in info})
        self.others |= dict.fromkeys(others)
        self._sum({"good_steps": 1, "good_samples": int(info["samples"])})
        if "watch" in info:
            self.last = info["watch"]
            self._sum(
                {name: float(getattr(self.last, name)) for name in ("weight", "between", "to_lookalike", "to_own")}
            )

    def _sum(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0) + value

    def take(self, config: TrainConfig, step: int) -> dict[str, Any]:
        """Return the log row, and start a new window."""
        self.taken = True
        seconds = max(time.monotonic() - self.began, 1e-9)
        sums = self.sums
        steps, samples = max(sums.get("good_steps", 0), 1), max(sums.get("good_samples", 0), 1)
        self.loss = sums.get("loss", 0.0) / steps
        self.correct = sums.get("correct", 0) / samples
        self.speed = sums.get("samples", 0) / seconds
        row = {"loss": self.loss, "ctc": sums.get("ctc_sum", 0.0) / samples}
        row |= {name: sums[f"{name}_sum"] / samples for name in ("focal", "ace") if f"{name}_sum" in sums}
        row |= {name: sums[name] / steps for name in ("center", "push") if name in sums}
        for name in self.others:
            row[name.removesuffix("_sum")] = sums[name] / (samples if name.endswith("_sum") else steps)
        row |= {
            "line_accuracy": self.correct,
            "grad_norm": sums.get("grad_norm", 0.0) / steps,
            "learning_rate": float(optim.schedule(config.optim)(step - 1)),
            "samples": int(sums.get("samples", 0)),
            "infeasible": int(sums.get("infeasible", 0)),
            "skipped": int(sums.get("skipped", 0)),
            "images_per_second": self.speed,
        }
        row |= self._of_centers()
        self._reset()
        return row

    def _of_centers(self) -> dict[str, Any]:
        sums = self.sums
        if "weight" not in sums:
            return {}
        row: dict[str, Any] = {name: int(sums[name]) for name in ("assigned_samples", "assigned_frames")}
        row["centers_moved"] = sums["centers_moved"] / max(sums.get("good_steps", 0), 1)
        # Without assigned frames there are no mean distances.
        if sums["weight"]:
            row |= {f"distance_{name}": sums[name] / sums["weight"] for name in ("to_own", "to_lookalike", "between")}
            row |= {name: self._named(getattr(self.last, name)) for name in ("hardest", "easiest")}
        return row

    def _named(self, frames: Any) -> list[dict[str, Any]]:
        """Describe the extreme frames of the newest step, with characters instead of class ids."""
        named = [self.charset.name(int(c)) for c in np.maximum(frames.classes, 0)]
        rivals = [self.charset.name(int(c)) for c in np.maximum(frames.rivals, 0)]
        return [
            {"character": own, "lookalike": rival, "probability": rounded(p), "margin": rounded(m)}
            for own, rival, c, p, m in zip(
                named, rivals, frames.classes, frames.probabilities, frames.margins, strict=True
            )
            if c >= 0
        ]


def _is_term(value: Any) -> bool:
    return isinstance(value, np.ndarray | np.generic) and value.ndim == 0 and np.issubdtype(value.dtype, np.floating)


def rounded(value: Any) -> Any:
    """Convert a number for JSON: round it to float32, and replace non-finite values with None."""
    if isinstance(value, int | list):
        return value
    return float(np.float32(value)) if math.isfinite(value) else None


def truncate(path: Path, step: int, console: Plain) -> None:
    """Drop log rows after the resumed step, which a run killed between two checkpoints leaves behind."""
    if not path.exists():
        if step:
            console.line(f"warning: {path} is missing; its rows up to step {step} are lost")
        return
    saved = read(path)
    if saved.broken:
        console.line(f"{path}: skipped {saved.broken} unreadable rows; expected JSON objects with a step")
    kept = "".join(f"{line}\n" for line, row in zip(saved.lines, saved.rows, strict=True) if row["step"] <= step)
    if kept.encode() != path.read_bytes():
        with written_whole(path) as part:
            part.write_text(kept, encoding="utf-8")
