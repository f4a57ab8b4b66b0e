"""Breaks a training in every way that is listed and writes what happened as a table.

python scripts/faults.py > faults.md
"""

import ctypes
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from helpers import SyntheticLines

from jaxcrnn.data.labels import write_lines

SETTINGS = """
    model.backbone=tiny model.hidden=8 model.dropout=0 augment.probability=0 data.batch_size=4 data.buckets=1
    data.cache_mb=0 optim.warmup=2 optim.steps=3000 run.log_every=1 run.eval_every=20
""".split()


class Training:
    """A training in a process of its own, and its folder."""

    def __init__(
        self,
        root: Path,
        *more: str,
        resume: bool = False,
        before: Callable[[], None] | None = None,
        code: str = "",
    ) -> None:
        self.root, self.run = root, root / "run"
        new = ["--data", str(root / "labels.txt"), "--out", str(self.run), "--set", *SETTINGS, *more]
        arguments = ["--resume", str(self.run)] if resume else new
        program = f"{code}\nimport sys; from jaxcrnn.cli import main; sys.exit(main(sys.argv[1:]))"
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, "train", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=before,
        )

    def until(self, steps: int) -> None:
        """Waits for a row of the log."""
        log = self.run / "metrics.jsonl"
        while self.process.poll() is None and not (log.exists() and log.read_text().count("\n") >= steps):
            time.sleep(0.01)

    def end(self, seconds: float | None = None) -> tuple[int, str, str]:
        """Stops it after so long, by SIGTERM; its exit code and the last lines it printed."""
        if seconds is not None:
            time.sleep(seconds)
            self.process.send_signal(signal.SIGTERM)
        out, err = self.process.communicate(timeout=120)
        assert "Traceback" not in err, err
        return self.process.returncode, out, err


def _small_files() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))


def _as_anyone() -> None:
    """So that permissions hold for root too."""
    if os.geteuid() == 0:
        prctl, drop, write_anywhere, read_anywhere = ctypes.CDLL(None).prctl, 24, 1, 2
        prctl(drop, write_anywhere, 0, 0, 0)
        prctl(drop, read_anywhere, 0, 0, 0)


def kept(run: Path) -> str:
    """Return the steps of the available checkpoints, and of the quarantined ones."""
    steps = sorted(int(p.name) for p in run.glob("checkpoints/*") if p.name.isdigit())
    aside = sorted(p.name for p in run.glob("damaged-*"))
    return ", ".join([*map(str, steps), *aside]) or "none"


def disk_full(root: Path) -> tuple[int, str, str]:
    return Training(root, before=_small_files).end()


def folder_deleted(root: Path) -> tuple[int, str, str]:
    training = Training(root)
    training.until(30)
    while training.run.exists():  # it may be writing there
        shutil.rmtree(training.run, ignore_errors=True)
    return training.end()


def permission_lost(root: Path) -> tuple[int, str, str]:
    training = Training(root, before=_as_anyone)
    training.until(50)
    (training.run / "checkpoints").chmod(0o500)
    try:
        return training.end()
    finally:
        (training.run / "checkpoints").chmod(0o700)


def image_deleted(root: Path) -> tuple[int, str, str]:
    training = Training(root)
    training.until(5)
    (root / "3.png").unlink()
    return training.end()


def image_replaced(root: Path) -> tuple[int, str, str]:
    training = Training(root)
    training.until(5)
    Image.new("L", (600, 32), 255).save(root / "3.png")
    return training.end(2)


def image_truncated(root: Path) -> tuple[int, str, str]:
    training = Training(root)
    training.until(5)
    (root / "3.png").write_bytes((root / "3.png").read_bytes()[:60])
    return training.end()


def worker_killed(root: Path) -> tuple[int, str, str]:
    training = Training(root, "data.processes=2")
    training.until(10)
    listed = subprocess.check_output(["ps", "-o", "pid=,args=", "--ppid", str(training.process.pid)], text=True)
    workers = [line.split()[0] for line in listed.splitlines() if "spawn_main" in line]
    os.kill(int(workers[0]), signal.SIGKILL)
    training.until(60)
    return training.end(0)


NAN_BATCH = """
from jaxcrnn.data.loader import Batches
whole, made = Batches.make, []
def make(self, planned):
    batch = whole(self, planned)
    made.append(1)
    if len(made) == 7:
        batch.images[0] = float("nan")
    return batch
Batches.make = make
"""


def nan_batch(root: Path) -> tuple[int, str, str]:
    return Training(root, "optim.steps=40", code=NAN_BATCH).end()


def not_finite(root: Path) -> tuple[int, str, str]:
    return Training(root, "optim.learning_rate=1e30", "optim.clip_norm=1e30").end()


def _after(root: Path, damage: Callable[[Path], None], seconds: float | None = 1) -> tuple[int, str, str]:
    first = Training(root)
    first.until(45)
    first.end(0)
    newest = max((root / "run" / "checkpoints").iterdir(), key=lambda p: int(p.name) if p.name.isdigit() else -1)
    damage(newest)
    second = Training(root, resume=True)
    second.until(len((root / "run" / "metrics.jsonl").read_text().splitlines()) + 3)
    return second.end(seconds)


def _largest(folder: Path) -> Path:
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def truncated(root: Path) -> tuple[int, str, str]:
    return _after(root, lambda newest: os.truncate(_largest(newest), _largest(newest).stat().st_size // 2))


def flipped(root: Path) -> tuple[int, str, str]:
    def flip(newest: Path) -> None:
        data = bytearray(_largest(newest).read_bytes())
        data[len(data) // 2] ^= 1
        _largest(newest).write_bytes(data)

    return _after(root, flip)


def charset_changed(root: Path) -> tuple[int, str, str]:
    def change(newest: Path) -> None:
        path = newest.parents[1] / "charset.txt"
        path.write_text(path.read_text() + "x\n")

    return _after(root, change)


def labels_changed(root: Path) -> tuple[int, str, str]:
    def change(newest: Path) -> None:
        rows = (root / "labels.txt").read_text().splitlines()
        (root / "labels.txt").write_text("\n".join(rows[:-1]) + "\n")

    return _after(root, change)


def settings_changed(root: Path) -> tuple[int, str, str]:
    def change(newest: Path) -> None:
        path = newest.parents[1] / "config.yaml"
        path.write_text(path.read_text().replace("hidden: 8", "hidden: 16"))

    return _after(root, change)


def steps_changed(root: Path) -> tuple[int, str, str]:
    def change(newest: Path) -> None:
        path = newest.parents[1] / "config.yaml"
        path.write_text(path.read_text().replace("steps: 3000", f"steps: {int(newest.name) + 5}"))

    return _after(root, change, None)


FAULTS: dict[str, Callable[[Path], tuple[int, str, str]]] = {
    "disk full (files limited to 60 kB)": disk_full,
    "the run's folder deleted under way": folder_deleted,
    "checkpoints/ made read-only under way": permission_lost,
    "an image deleted under way": image_deleted,
    "an image replaced by a longer one": image_replaced,
    "an image truncated under way": image_truncated,
    "a worker process killed (SIGKILL)": worker_killed,
    "NaN in one batch": nan_batch,
    "gradients that are not finite": not_finite,
    "newest checkpoint truncated, then --resume": truncated,
    "one bit of it flipped, then --resume": flipped,
    "charset.txt changed, then --resume": charset_changed,
    "a line of the data removed, then --resume": labels_changed,
    "model.hidden changed in config.yaml, then --resume": settings_changed,
    "optim.steps changed in config.yaml, then --resume": steps_changed,
}


def main() -> None:
    print("| what | exit code | what it printed | checkpoints left |\n|---|---|---|---|")
    chosen = sys.argv[1:]
    for name, fault in FAULTS.items():
        if chosen and not any(word in name for word in chosen):
            continue
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            write_lines(root, SyntheticLines(7, 24, "0123456789", (1, 2)))
            code, out, err = fault(root)
            shown = [line for line in out.splitlines() if "warning" in line] + err.splitlines()[-1:]
            progress = ("restart", " skipped", "resuming")
            shown += [line for line in out.splitlines() if any(word in line for word in progress)]
            shown += [] if err else out.splitlines()[-2:-1]
            text = " / ".join(shown).replace(f"{folder}/", "").replace("|", "\\|")
            print(f"| {name} | {code} | `{text[:300]}` | {kept(root / 'run')} |", flush=True)
            rows = root / "run" / "metrics.jsonl"
            if rows.exists():
                steps = [json.loads(line)["step"] for line in rows.read_text().splitlines()]
                assert steps == sorted(set(steps)), f"{name}: rows of the log twice or out of order"


if __name__ == "__main__":
    main()
