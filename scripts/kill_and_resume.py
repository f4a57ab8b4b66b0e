"""Kills a training at random moments, saves included, goes on each time, and compares its end with an unbroken run's.

python scripts/kill_and_resume.py --kills 30
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from helpers import SyntheticLines

from jaxcrnn.data.labels import write_lines
from jaxcrnn.runs.folder import FACTS, open_run

SETTINGS = """
    model.backbone=tiny model.hidden=8 model.dropout=0.2 augment.probability=1 data.batch_size=4 data.buckets=1
    loss.preset=flow1 optim.warmup=2 run.log_every=1 run.eval_every=3
""".split()


def start(arguments: list[str]) -> subprocess.Popen[str]:
    """``jaxcrnn`` in a process of its own."""
    command = [sys.executable, "-m", "jaxcrnn", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(arguments: list[str]) -> str:
    """What it says when nobody disturbs it."""
    with start(arguments) as process:
        out = process.communicate()[0]
        assert process.returncode == 0, out
    return out


def killed(folder: Path, first: list[str], later: float, seed: random.Random) -> tuple[bool, str]:
    """Start or resume a training and kill it; return whether it was still running, and the moment."""
    there = (folder / FACTS).exists()
    with start(["train", "--resume", str(folder)] if there else first) as process:
        log = folder / "metrics.jsonl"
        size = log.stat().st_size if log.exists() else 0
        # From the first row on, so that most kills meet steps and saves and not the start; some meet the start.
        at_start = seed.random() < 0.2
        while process.poll() is None and not at_start and not (log.exists() and log.stat().st_size > size):
            time.sleep(0.005)
        time.sleep(seed.random() * later)
        alive = process.poll() is None
        process.send_signal(signal.SIGKILL)
        out = process.communicate()[0]
        assert alive or process.returncode == 0, out
    saving = any(folder.glob("checkpoints/*tmp*"))
    return alive, "while it started" if at_start else "while it saved" if saving else "between saves"


def compare(one: Path, two: Path) -> None:
    """Stops at the first thing that differs: arrays, bitwise, or rows of the log."""
    (a, step), (b, other) = (open_run(folder).state("latest") for folder in (one, two))
    assert step == other, f"{step} and {other} steps"
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y, err_msg=jax.tree_util.keystr(path))
    assert log_of(one) == log_of(two), "the logs differ"


def log_of(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of a run's log without the speed."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in row.items() if key != "images_per_second"} for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument(
        "--later", type=float, default=1.0, help="seconds after the first step within which it is killed"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    seed, moments = random.Random(args.seed), []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        data = write_lines(root, SyntheticLines(7, 24, "0123456789", (1, 2)))
        settings = ["--set", *SETTINGS, f"optim.steps={args.steps}"]
        first = [["train", "--data", str(data), "--out", str(root / run), *settings] for run in ("whole", "part")]
        whole = finish(first[0])
        for kill in range(args.kills):
            alive, moment = killed(root / "part", first[1], args.later, seed)
            if not alive:
                print(f"finished before kill {kill + 1}; give more --steps")
                break
            moments.append(moment)
            print(f"killed {kill + 1} times, {moment}", flush=True)
        end = finish(["train", "--resume", str(root / "part")] if (root / "part").exists() else first[1])
        ends = [line for out in (whole, end) for line in out.splitlines() if line.startswith("finished")]
        compare(root / "whole", root / "part")
        counts = [line.split(";")[1].split(",")[0] for line in ends]
        assert counts[0] == counts[1], counts
        print(f"{len(moments)} kills: " + ", ".join(f"{moments.count(m)} {m}" for m in sorted(set(moments))))
        print(f"all arrays bitwise equal, logs equal,{counts[0]}")


if __name__ == "__main__":
    main()
