"""What the steps since the last row of the log add up to."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np

from jaxcrnn import optim
from jaxcrnn.charset import Charset
from jaxcrnn.train import TrainConfig

COUNTS = ("correct", "infeasible", "assigned_samples", "assigned_frames", "centers_moved")
NAMED = ("loss", "ctc_sum", "focal_sum", "ace_sum", "center", "push", "grad_norm")  # other terms come after these


class Window:
    """Sums over the steps since the last row of the log; of a skipped step only its samples count."""

    def __init__(self, charset: Charset) -> None:
        self.charset = charset
        self.loss = self.correct = self.speed = 0.0
        self.taken = False  # before the first row there is nothing to show
        self._reset()

    def _reset(self) -> None:
        self.began = time.monotonic()
        self.sums: dict[str, float] = {}
        self.others: dict[str, None] = {}  # names of the terms from outside the package, in order
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
        """The row of the log, and a new window."""
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
        # With no frame assigned there is no mean distance: such a row has none.
        if sums["weight"]:
            row |= {f"distance_{name}": sums[name] / sums["weight"] for name in ("to_own", "to_lookalike", "between")}
            row |= {name: self._named(getattr(self.last, name)) for name in ("hardest", "easiest")}
        return row

    def _named(self, frames: Any) -> list[dict[str, Any]]:
        """The extreme frames of the newest step, with characters for classes."""
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
    """A number as JSON: float32's digits, None for what is no number."""
    if isinstance(value, int | list):
        return value
    return float(np.float32(value)) if math.isfinite(value) else None
