"""Trains for an hour on lines of an LMDB and rendered ones, and watches memory and speed.

    python scripts/soak.py --minutes 60 --out soak.json

Every ten seconds the memory of the training and its workers is added up (PSS: shared pages count once). After the
first tenth, in which programs are compiled, it should stay flat, and the last rows of the log as fast as the first.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from helpers import SyntheticLines

from jaxcrnn.data.lmdb import write_lmdb

SETTINGS = """
    model.backbone=small model.hidden=64 data.batch_size=16 data.buckets=1 data.processes=1 data.cache_mb=1
    text.share=0.5 text.widths=1 loss.preset=flow1 optim.steps=100000000 run.log_every=20 run.eval_every=200
""".split()
WARM = 0.1  # of the time
EVERY = 10.0


def family(process: int) -> list[int]:
    """A process and all that it started."""
    processes = [process]
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        processes += [one for child in task.read_text(encoding="ascii").split() for one in family(int(child))]
    return processes


def memory(process: int) -> tuple[int, int]:
    """Bytes and processes."""
    total, count = 0, 0
    for one in family(process):
        try:
            text = Path(f"/proc/{one}/smaps_rollup").read_text(encoding="ascii")
        except OSError:
            continue  # it ended meanwhile
        total += next(int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith("Pss:"))
        count += 1
    return total, count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        train, val, run = (root / part for part in ("train", "val", "run"))
        write_lmdb(train, SyntheticLines(0, 2000, "0123456789"))
        write_lmdb(val, SyntheticLines(1, 100, "0123456789"))
        command = [sys.executable, "-m", "jaxcrnn", "train", "--data", train, "--val", val, "--out", run]
        command += ["--set", *SETTINGS]
        fresh = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(root / "compiled")}  # a kept program needs less memory
        began, seen = time.monotonic(), []
        with (
            args.out.with_suffix(".log").open("w", encoding="utf-8") as log,
            subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=fresh) as training,
        ):
            while time.monotonic() - began < args.minutes * 60 and training.poll() is None:
                time.sleep(EVERY)
                seen.append((time.monotonic() - began, *memory(training.pid)))
            training.send_signal(signal.SIGTERM)
            code = training.wait()
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    warm = [row for row in seen if row[0] > WARM * args.minutes * 60]
    sizes = np.asarray([row[1] for row in warm]) / 1e6
    times, fifth = np.asarray([row[0] for row in warm]), len(warm) // 5
    speeds = [row["images_per_second"] for row in rows if "images_per_second" in row]
    speeds = speeds[int(WARM * len(speeds)) :]
    part = len(speeds) // 5
    result = {
        "exit_code": code,
        "minutes": seen[-1][0] / 60,
        "steps": rows[-1]["step"],
        "processes": warm[-1][2],
        "mb_first_fifth": float(np.median(sizes[:fifth])),
        "mb_last_fifth": float(np.median(sizes[-fifth:])),
        "mb_least": float(sizes.min()),
        "mb_most": float(sizes.max()),
        "mb_an_hour": float(np.polyfit(times / 3600, sizes, 1)[0]),
        "images_per_second_first_fifth": float(np.median(speeds[:part])),
        "images_per_second_last_fifth": float(np.median(speeds[-part:])),
    }
    args.out.write_text(json.dumps({**result, "seen": seen}), encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
