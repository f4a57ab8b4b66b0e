"""``jaxcrnn doctor``: check the installation: packages, devices and fonts."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
from typing import Any

from jaxcrnn import __version__
from jaxcrnn._files import cache_folder
from jaxcrnn._text import first_line
from jaxcrnn.cli import options
from jaxcrnn.errors import UserError

SUMMARY = "check the installation: packages, devices, fonts, and what is missing for which feature"
NEEDED = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "jinja2",
    "numpy",
    "pillow",
    "pyyaml",
    "rapidfuzz",
    "rich",
    "safetensors",
)
# Package, module, extra, the feature that needs it.
OPTIONAL = (
    ("lmdb", "lmdb", "data", "LMDB data sets"),
    ("fonttools", "fontTools", "data", "fonts other than the embedded ones"),
    ("opencc", "opencc", "report", "the metric rule bctr"),
    ("tensorboardX", "tensorboardX", "track", "TensorBoard logs next to metrics.jsonl"),
    ("torch", "torch", "torch", "parity, convert, export to PyTorch"),
    ("flatbuffers", "flatbuffers", "export", "export to StableHLO"),
    ("onnx", "onnx", "onnx", "export to ONNX, reading on CPUs without compilation"),
    ("onnxruntime", "onnxruntime", "onnx", "reading on CPUs without compilation"),
    ("libtpu", "libtpu", "tpu", "TPUs, and plans for TPUs that are not present"),
    ("shtab", "shtab", "shell", "shell completion"),
)


def add_options(parser: options.Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    machine = facts()
    if args.json:
        print(json.dumps(machine, indent=1))
        return 0
    print(f"jaxcrnn {machine['jaxcrnn']}, Python {machine['python']}, {machine['machine']}, {machine['cores']} cores")
    print("packages    " + ", ".join(f"{name} {version}" for name, version in machine["packages"].items()))
    print("devices     " + (", ".join(machine["devices"]) or f"none: {machine['problem']}"))
    reason = f": {machine['reason']}" if machine["reason"] else ""
    print(f"reading     with the engine {machine['engine']}{reason}")
    print(f"fonts       {', '.join(machine['typefaces'])} (embedded); {machine['fonts']} system font files")
    print(f"cache       {machine['compiled']} (compiled programs)")
    for name, entry in machine["optional"].items():
        state = entry["version"] or f"not installed: pip install 'jaxcrnn[{entry['extra']}]'"
        print(f"{name:<11} {state} ({entry['for']})")
    missing = [name for name, version in machine["packages"].items() if not version]
    if missing:
        raise UserError(f"missing packages: {', '.join(missing)}; install them with 'pip install jaxcrnn'")
    return 0


def _version(name: str) -> str:
    import importlib.metadata  # slow, so not for other commands

    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def facts() -> dict[str, Any]:
    """Collect versions, devices, fonts and optional packages."""
    from jaxcrnn.interop import engines
    from jaxcrnn.render import atlas
    from jaxcrnn.render.fonts import find

    devices, problem = [], ""
    try:
        import jax

        devices = [f"{device.device_kind} ({device.platform} {device.id})" for device in jax.devices()]
    except Exception as error:  # a broken driver may raise anything
        problem = first_line(error)
    try:
        fonts = len(find())
    except UserError:
        fonts = 0
    return {
        "jaxcrnn": __version__,
        "python": platform.python_version(),
        "machine": platform.platform(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "packages": {name: _version(name) for name in NEEDED},
        "devices": devices,
        "problem": problem,
        "engine": engines.choose("auto"),
        "reason": engines.missing(),
        "typefaces": list(atlas.embedded().fonts),
        "fonts": fonts,
        "compiled": os.environ.get("JAX_COMPILATION_CACHE_DIR", str(cache_folder() / "compiled")),
        "optional": {
            name: {"version": _version(name) if importlib.util.find_spec(module) else "", "extra": extra, "for": what}
            for name, module, extra, what in OPTIONAL
        },
    }
