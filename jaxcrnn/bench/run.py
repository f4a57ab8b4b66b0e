"""Benchmark runner: times jaxcrnn interleaved with the PyTorch reference."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import jax
import jaxlib

from jaxcrnn import __version__
from jaxcrnn._console import duration, table
from jaxcrnn._files import can_be_written, write_json
from jaxcrnn._text import first_line
from jaxcrnn.bench import cases, data_cases, layer_times, traffic
from jaxcrnn.bench.cases import Sizes, Variant
from jaxcrnn.errors import UserError
from jaxcrnn.model import ModelConfig
from jaxcrnn.runs.compile import for_device, uncached

GROWTH = (100, 6941, 21504, 90112)
KINDS = ("float32", "bfloat16")  # the reference uses autocast for bfloat16
MOST = 1_000_000  # upper bound of all sizes
NAMES = {**cases.CASES, **data_cases.CASES}
# Measured only if listed: a whole step of every preset, and a CTC loss for each swapped character.
LONG = {"flows", "swaps"}
# Cases whose operations belong to several layers.
LAYERED = {"step", "flows", "backbone"}
# The reference's name for each case.
ASKED = {name: name for name in ("product", "step", "forward", "backbone", "bilstm", "ctc", "head", "center")}
ASKED |= {"flows": "step", "latency": "forward", "evaluate": "read", "recognize": "read"}


class Reference:
    """``torch_ref`` in a subprocess that runs cases on request."""

    def __init__(self, compiled: bool) -> None:
        self.compiled = compiled
        command = [sys.executable, "-m", "torch_ref.bench"]
        # torch_ref is next to the package in a checkout, and installed otherwise.
        root = str(Path(__file__).resolve().parents[2])
        env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}
        # stderr goes to a file, because a pipe that is not read would block the process.
        self.stderr = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 (closed with the process)
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.stderr}
        self.process = subprocess.Popen(command, text=True, env=env, **pipes)
        first = self._line()
        self.about = {key: first[key] for key in ("version", "device", "threads")} if "version" in first else {}
        self.error = "" if self.about else first["error"]

    def _line(self) -> dict[str, Any]:
        assert self.process.stdout
        for text in self.process.stdout:
            if text.startswith("{"):  # skips output of libraries
                return dict(json.loads(text))
        self.stderr.seek(0)
        lines = self.stderr.read().strip().splitlines()
        return {"error": lines[-1] if lines else "the PyTorch process exited without output"}

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """Send a question and return the answer; if the process has ended, the error is its last line of output."""
        if self.error:
            return {"error": self.error}
        assert self.process.stdin
        try:
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        return self._line()

    def variants(self, case: str, sizes: dict[str, Any]) -> tuple[dict[str, Variant], str]:
        """Return the reference's variants of a case, and the reason if there are none."""
        answer = self.ask({"case": case, "sizes": sizes, "compile": self.compiled})
        if "error" in answer:
            return {}, str(answer["error"])
        return {name: Variant(lambda: None, seconds) for name, seconds in answer["first"].items()}, ""

    def close(self) -> None:
        """End the process."""
        self.process.communicate()
        self.stderr.close()


def measure(
    sizes: Sizes,
    chosen: list[str] | None = None,
    *,
    rounds: int = 5,
    grow: bool = False,
    torch: bool = True,
    compiled: bool = False,
    layers: bool = False,
    out: str | None = None,
) -> None:
    """Time cases, interleaved with the PyTorch reference, and print a table for each.

    Args:
      sizes: sizes of the model and of the data.
      chosen: names of `NAMES`; all except those of `LONG` by default.
      rounds: number of measurements per variant.
      grow: also time cases with other sizes.
      torch: also time the reference.
      compiled: also time the reference under ``torch.compile``.
      layers: also add up time and memory traffic by layer, for jaxcrnn's compiled variants of `LAYERED`.
      out: JSON file to write.

    Raises:
      UserError: a size or a name is out of range, or a file cannot be read or written.
    """
    chosen = [name for name in NAMES if name not in LONG] if chosen is None else chosen
    _check(sizes, chosen, rounds)
    if out:
        can_be_written(out)
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the reference needs device memory, too
    if sizes.data and data_cases.CASES.keys() & set(chosen):
        data_cases.lines_of(sizes.data)  # fails early on invalid data
    if layers and not LAYERED & set(chosen):
        raise UserError(f"--layers needs one of the cases {', '.join(sorted(LAYERED))}, which --only does not list")
    reference = Reference(compiled) if torch else None
    about = _about(reference) | _choices(sizes)
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    rows: list[dict[str, Any]] = []
    try:
        for name, changed in _plan(chosen, sizes, grow):
            with uncached():  # to measure compilation times
                measured = _measure(name, changed, rounds, reference, layers and name in LAYERED)
            rows += measured
            print("\n" + shown(measured, name, changed), flush=True)
            if out:  # written after each case, so that a crash loses nothing
                write_json(out, {"about": about, "rows": rows})
    finally:
        if reference:
            about["peak_mb"] = {"jaxcrnn": _peak(), "torch": reference.ask({"peak": True}).get("peak_mb")}
            reference.close()
    _share_of_product(rows)
    if out:
        write_json(out, {"about": about, "rows": rows})
        print(f"wrote {out}")


def _share_of_product(rows: list[dict[str, Any]]) -> None:
    """Add to each row its rate as a share of that of a matrix product, if both are measured, and print it."""
    rates = [row["gflops"] for row in rows if row["case"] == "product" and "gflops" in row]
    for row in rows:
        if rates and "gflops" in row:
            row["share"] = row["gflops"] / max(rates)
            if row["case"] != "product":
                what = f"{row['case']} B={row['sizes']['batch']} W={row['sizes']['width']}, {row['variant']}"
                print(
                    f"{what}: {row['gflops']:.0f} GFLOP/s (counted as direct convolutions), {row['share']:.0%} of the "
                    f"matrix product's {max(rates):.0f} GFLOP/s"
                )


def _check(sizes: Sizes, chosen: list[str], rounds: int) -> None:
    for name in ("batch", "width", "classes", "slots", "hidden", "matrix"):
        if not 1 <= getattr(sizes, name) <= MOST:
            raise UserError(f"--{name} {getattr(sizes, name)}: expected 1 to {MOST:,}")
    if sizes.dtype not in KINDS:
        raise UserError(f"--dtype {sizes.dtype}: expected one of {', '.join(KINDS)}")
    cases.config_of(sizes)  # raises for an unknown backbone or LSTM
    if sizes.classes < 2:
        raise UserError(f"--classes {sizes.classes}: expected 2 or more (the blank and a character)")
    if sizes.frames < 2 * sizes.slots:
        raise UserError(
            f"--width {sizes.width} gives {sizes.frames} frames; expected at least {2 * sizes.slots} for "
            f"--slots {sizes.slots}"
        )
    if rounds < 1:
        raise UserError(f"--rounds {rounds}: expected 1 or more")
    for name in chosen:
        if name not in NAMES:
            raise UserError(f"--only {name!r}: unknown case; expected some of {', '.join(NAMES)}")


def _plan(chosen: list[str], sizes: Sizes, grow: bool) -> list[tuple[str, Sizes]]:
    """List the cases with their sizes; ``grow`` adds other numbers of classes, batch sizes and widths."""
    fixed: dict[str, dict[str, Any]] = {name: {"dtype": "float32"} for name in ("ctc", "swaps", "center")}
    fixed["latency"] = {"batch": 1}
    plan = [(name, dataclasses.replace(sizes, **fixed.get(name, {}))) for name in chosen]
    if grow:
        for classes in GROWTH:
            for name in chosen:
                if name in ("ctc", "swaps", "head", "center"):
                    plan.append((name, dataclasses.replace(sizes, classes=classes, **fixed.get(name, {}))))
        for name in chosen:
            if name in ("step", "forward"):
                plan += [(name, dataclasses.replace(sizes, batch=b)) for b in (sizes.batch // 4, sizes.batch // 2)]
                plan += [(name, dataclasses.replace(sizes, width=w)) for w in (sizes.width // 2, sizes.width * 2)]
    # Without duplicates and infeasible sizes.
    return [(name, s) for name, s in dict.fromkeys(plan) if s.batch and s.frames >= 2 * s.slots]


def _measure(name: str, sizes: Sizes, rounds: int, reference: Reference | None, layers: bool) -> list[dict[str, Any]]:
    """Time all variants interleaved, so that other load on the machine affects them equally."""
    used = data_cases.reference_sizes(sizes) if name in data_cases.CASES else sizes.asdict()
    theirs: dict[str, Variant] = {}
    problem = ""
    try:
        ours = NAMES[name](sizes)
        for made in ours.values():
            made.run()
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        return [{"case": name, "variant": "jaxcrnn", "sizes": used, "error": first_line(error)[:200]}]
    if reference and name in ASKED:
        theirs, problem = reference.variants(ASKED[name], used)
    times: dict[str, list[float]] = {variant: [] for variant in [*ours, *theirs]}
    for _ in range(rounds):
        for variant, seconds in times.items():
            if variant in ours:
                began = time.perf_counter()
                ours[variant].run()
                seconds.append(time.perf_counter() - began)
            elif reference and not problem:
                answer = reference.ask({"time": variant})
                problem = str(answer.get("error", ""))
                seconds.append(float(answer.get("seconds", 0)))
    made_all = ours if problem else {**ours, **theirs}
    rows = [_row(name, variant, sizes, used, made, times[variant]) for variant, made in made_all.items()]
    for row in rows:
        row["ratio"] = row["median_ms"] / rows[0]["median_ms"]
        made = made_all[row["variant"]]
        if layers and made.program is not None:
            try:
                row["layers"] = _layers(made)
            except Exception as error:  # a trace or program of another format loses no measured time
                row["layers_error"] = first_line(error)[:200]
    if problem:
        rows.append({"case": name, "variant": "torch", "sizes": used, "error": problem})
    return rows


def _row(
    name: str, variant: str, sizes: Sizes, used: dict[str, Any], made: Variant, seconds: list[float]
) -> dict[str, Any]:
    middle = statistics.median(seconds)
    row: dict[str, Any] = {
        "case": name,
        "variant": variant,
        "sizes": used,
        "rounds": len(seconds),
        "median_ms": 1e3 * middle,
        "least_ms": 1e3 * min(seconds),
        "first_s": made.compile_seconds,
        "temporary_mb": None if made.temporary_bytes is None else made.temporary_bytes / 1e6,
    }
    if name in ("product", "step"):
        row["gflops"] = (2e-9 * sizes.matrix**3 if name == "product" else 1e-9 * cases.flops(sizes)) / middle
    if name in data_cases.CASES and name != "cold":
        row["lines_per_second"] = len(data_cases.lines_of(sizes.data).corpus) / middle
    return row


def _layers(made: Variant) -> dict[str, dict[str, float]]:
    text = made.program.as_text()
    times, moved = layer_times.by_layer(made.run, text), traffic.by_layer(text)
    none = traffic.Cost(0, 0)
    return {
        name: {
            "forward_ms": times.get(name, none).forward,
            "backward_ms": times.get(name, none).backward,
            "forward_mb": moved.get(name, none).forward / 1e6,
            "backward_mb": moved.get(name, none).backward / 1e6,
        }
        for name in (*traffic.LAYERS, layer_times.IDLE)
        if name in times or name in moved
    }


def _shown_layers(row: dict[str, Any]) -> str:
    """Format time and memory traffic by layer as a table."""
    columns = ("forward_ms", "backward_ms", "forward_mb", "backward_mb")
    total = {column: sum(layer[column] for layer in row["layers"].values()) for column in columns}
    lines = [
        (name, *(f"{layer[column]:.1f}" for column in columns))
        for name, layer in {**row["layers"], "total": total}.items()
    ]
    return table((f"{row['variant']}, by layer", "forward ms", "backward ms", "forward MB", "backward MB"), lines)


def shown(rows: list[dict[str, Any]], name: str, sizes: Sizes) -> str:
    """Format the rows of one case as a table."""
    s = sizes
    header = f"{name}: B={s.batch} W={s.width} T={s.frames} C={s.classes} L={s.slots} {s.backbone} {s.dtype}"
    if name in data_cases.CASES:
        model, read = data_cases.MODEL, data_cases.lines_of(s.data)
        header = f"{name}: {len(read.corpus)} lines, {model['backbone']} H={model['hidden']} B={model['batch']}"
    if name == "product":
        header = f"product: {s.matrix} x {s.matrix} x {s.matrix} {s.dtype}"
    measured = [row for row in rows if "error" not in row]
    lines = [
        (
            row["variant"],
            f"{row['median_ms']:.1f}",
            f"{row['least_ms']:.1f}",
            f"{row['ratio']:.2f}",
            _or_nothing(row["first_s"], lambda v: duration(v) if v >= 1 else f"{v:.1f}s"),
            _or_nothing(row["temporary_mb"], "{:.0f}".format),
            _or_nothing(row.get("lines_per_second") or row.get("gflops"), "{:.0f}".format),
        )
        for row in measured
    ]
    heads = [header, "median ms", "min ms", "ratio", "compile", "temporary MB"]
    if any(row[-1] for row in lines):
        heads.append("GFLOP/s" if any("gflops" in row for row in measured) else "lines/s")
    text = table(tuple(heads), [row[: len(heads)] for row in lines]) if lines else header
    text = "\n".join([text, *(f"not measured: {row['variant']}: {row['error']}" for row in rows if "error" in row)])
    failed = [f"no layers: {row['variant']}: {row['layers_error']}" for row in measured if "layers_error" in row]
    return "\n\n".join([text, *(_shown_layers(row) for row in measured if "layers" in row), *failed])


def _or_nothing(value: Any, show: Callable[[Any], str]) -> str:
    return "" if value is None else show(value)


def _peak() -> float:
    """Return the peak memory so far in MB: of the device if available, else of the process."""
    stats = jax.devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        return float(stats["peak_bytes_in_use"]) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def _about(reference: Reference | None) -> dict[str, Any]:
    device = jax.devices()[0]
    about: dict[str, Any] = {"date": date.today().isoformat(), "device": _name(device), "jaxcrnn": __version__}
    about |= {"jax": jax.__version__, "jaxlib": jaxlib.__version__, "python": platform.python_version()}
    if reference:
        about |= {f"torch {key}" if key != "version" else "torch": value for key, value in reference.about.items()}
        about.setdefault("torch", f"none ({reference.error})")
    return about


def _choices(sizes: Sizes) -> dict[str, str]:
    """Return the implementations that the device runs."""
    model = for_device(ModelConfig(lstm=sizes.lstm, ctc=sizes.ctc))
    return {"lstm": model.lstm, "ctc": model.ctc}


def _name(device: Any) -> str:
    if device.platform != "cpu":
        return str(device.device_kind)
    cores, model = os.cpu_count() or 1, platform.processor() or "CPU"
    if Path("/proc/cpuinfo").exists():
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        model = next((line.split(":")[1].strip() for line in text.splitlines() if line.startswith("model name")), model)
    return f"{model}, {cores} cores"
