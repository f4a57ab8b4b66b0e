"""Wrong input by the hundred thousand: everything a user can feed to the program, damaged at random (Hypothesis).

    python scripts/fuzz.py --out FOLDER [--share 1] [--seed 0] [--only NAME]

An input is taken or refused with one line (`jaxcrnn.UserError`); anything else is a find: another exception, a dead
process, more than `SECONDS` for one input, more than `MEMORY` bytes beside what the process had before. Each target
runs in a process of its own; the input at hand is in ``FOLDER/NAME/input``, and stays there if the process dies.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from fuzz_doors import doors
from fuzz_folders import folders, lists, maps, mixtures, texts
from fuzz_targets import TARGETS as FIRST
from fuzz_targets import Target
from hypothesis import HealthCheck, Phase, given, seed, settings

from jaxcrnn.errors import UserError

TARGETS = {
    **FIRST,
    "doors": Target(6_000, doors),
    "folders": Target(8_000, folders),
    "lists": Target(15_000, lists),
    "texts": Target(25_000, texts),
    "maps": Target(8_000, maps),
    "mixtures": Target(4_000, mixtures),
}
SECONDS = 20
MEMORY = 2 << 30


def _too_long(*_: object) -> None:
    raise TimeoutError(f"more than {SECONDS} seconds for one input")


def fuzz(name: str, inputs: int, folder: Path, number: int = 0) -> dict[str, Any]:
    """Runs one target.

    Returns:
      Inputs, how many of them were taken, seconds, the slowest input's seconds, and the growth of memory in bytes.
    """
    strategy, check = TARGETS[name].make(folder)
    counts = {"inputs": 0, "taken": 0}
    slowest = 0.0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    @seed(number)
    @settings(
        max_examples=inputs,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def each(case: Any) -> None:
        nonlocal slowest
        (folder / "input").write_text(repr(case), encoding="utf-8")
        counts["inputs"] += 1
        began = time.perf_counter()
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            check(case)
            counts["taken"] += 1
        except UserError as error:
            if "\n" in str(error):
                raise AssertionError(f"more than a line: {error}") from error
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        slowest = max(slowest, time.perf_counter() - began)

    signal.signal(signal.SIGALRM, _too_long)
    began = time.perf_counter()
    each()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    if grown << 10 > MEMORY:
        raise MemoryError(f"{grown << 10:,} bytes more than at the start")
    return {**counts, "seconds": time.perf_counter() - began, "slowest": slowest, "grown": grown << 10}


def _bounded(name: str, inputs: int, folder: Path, number: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    room = MEMORY + (8 << 30 if name == "runs" else 0)  # address space that many threads reserve
    resource.setrlimit(resource.RLIMIT_AS, (used + room, used + room))
    (folder / "found.json").write_text(json.dumps(fuzz(name, inputs, folder, number)), encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description="Damaged input by the hundred thousand.")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--share", type=float, default=1.0, metavar="X", help="of the inputs of each target")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--only", choices=list(TARGETS))
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here:
        _bounded(args.only, max(1, int(TARGETS[args.only].inputs * args.share)), args.out / args.only, args.seed)
        return 0
    columns = ("what", "inputs", "taken", "refused", "seconds", "slowest input, s", "memory grown, MB")
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    total, failed = 0, []
    for name in [args.only] if args.only else list(TARGETS):
        command = [sys.executable, __file__, "--here", "--only", name, "--out", str(args.out)]
        done = subprocess.run([*command, "--share", str(args.share), "--seed", str(args.seed)], check=False)
        if done.returncode:
            failed.append(f"{name}: ended with {done.returncode}; {args.out / name / 'input'} has the input")
            continue
        f = json.loads((args.out / name / "found.json").read_text(encoding="utf-8"))
        total += f["inputs"]
        counts = f"{f['inputs']:,} | {f['taken']:,} | {f['inputs'] - f['taken']:,}"
        print(f"| {name} | {counts} | {f['seconds']:.0f} | {f['slowest']:.2f} | {f['grown'] / 1e6:.0f} |", flush=True)
    print(f"\n{total:,} inputs, {len(failed)} targets with a find")
    print("\n".join(failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
