"""``jaxcrnn doctor``: what is installed, what is missing, and what that would enable."""

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

SUMMARY = "say what is installed, what is not, and what that would enable"
NEEDED = (
    "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "jinja2", "numpy", "pillow", "pyyaml", "rapidfuzz", "rich",
    "safetensors",
)  # fmt: skip
# Package, module, extra, what it is for.
OPTIONAL = (
    ("lmdb", "lmdb", "data", "LMDB data sets"),
    ("fonttools", "fontTools", "data", "fonts other than the embedded ones"),
    ("opencc", "opencc", "report", "the metric rule bctr"),
    ("tensorboardX", "tensorboardX", "track", "TensorBoard logs beside metrics.jsonl"),
    ("torch", "torch", "torch", "parity, convert, export to PyTorch"),
    ("flatbuffers", "flatbuffers", "export", "export to StableHLO"),
    ("onnx", "onnx", "onnx", "export to ONNX"),
    ("libtpu", "libtpu", "tpu", "TPUs, and plans for them without one"),
    ("shtab", "shtab", "shell", "shell completion"),
)


def add_options(parser: options.Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    found = facts()
    if args.json:
        print(json.dumps(found, indent=1))
        return 0
    print(f"jaxcrnn {found['jaxcrnn']}, Python {found['python']}, {found['machine']}, {found['cores']} cores")
    print("packages    " + ", ".join(f"{name} {version}" for name, version in found["packages"].items()))
    print("devices     " + (", ".join(found["devices"]) or f"none: {found['problem']}"))
    print(f"fonts       {', '.join(found['typefaces'])} in the package; {found['fonts']} font files of the system")
    print(f"compiled    {found['compiled']}")
    for name, entry in found["optional"].items():
        state = entry["version"] or f"not installed: pip install 'jaxcrnn[{entry['extra']}]'"
        print(f"{name:<11} {state} ({entry['for']})")
    lacking = [name for name, version in found["packages"].items() if not version]
    if lacking:
        raise UserError(f"{', '.join(lacking)}: not installed; expected what 'pip install jaxcrnn' brings")
    return 0


def _version(name: str) -> str:
    import importlib.metadata  # slow, so not for other commands

    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def facts() -> dict[str, Any]:
    """Versions, devices, fonts, and optional packages."""
    from jaxcrnn.render import atlas

    devices, problem = [], ""
    try:
        import jax

        devices = [f"{device.device_kind} ({device.platform} {device.id})" for device in jax.devices()]
    except Exception as error:  # a broken driver says so in its own way
        problem = first_line(error)
    try:
        fonts = len(atlas.find_fonts())
    except UserError:
        fonts = 0
    return {
        "jaxcrnn": __version__, "python": platform.python_version(), "machine": platform.platform(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "packages": {name: _version(name) for name in NEEDED}, "devices": devices, "problem": problem,
        "typefaces": list(atlas.embedded().fonts), "fonts": fonts,
        "compiled": os.environ.get("JAX_COMPILATION_CACHE_DIR", str(cache_folder() / "compiled")),
        "optional": {
            name: {"version": _version(name) if importlib.util.find_spec(module) else "", "extra": extra, "for": what}
            for name, module, extra, what in OPTIONAL
        },
    }  # fmt: skip
