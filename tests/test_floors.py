"""The house rules about imports, read from the source itself."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import jaxcrnn

ROOT = Path(jaxcrnn.__file__).parent
COMMANDS = {
    "cli", "commands", "conversion", "hosts", "mining", "plan", "reading", "scoring", "compare", "reporting", "demo",
    "bench", "bench_data", "importing", "exporting", "language", "doctor",
    "options", "decoder_options", "tuning",
}  # fmt: skip
FLOORS = [
    {"types", "charset", "data", "errors", "files", "console", "allocator", "notices", "precision", "compiled", "svg"},
    {
        "fused",
        "rows",
        "head",
        "ctc",
        "assign",
        "losses",
        "centers",
        "diagnostics",
        "decode",
        "rescoring",
        "automata",
        "beam",
        "metrics",
        "lookalikes",
        "bootstrap",
        "confusions",
        "predictions",
        "sharding",
        "augment",
        "convolution",
        "cudnn",
        "looks",
        "render",
        "logs",
    },
    {
        "backbones",
        "normalization",
        "recurrent",
        "model",
        "optim",
        "objective",
        "convert",
        "streams",
        "layouts",
        "torch_files",
    },
    {"train", "checkpoint", "center_files", "dispatch", "growth", "window"},
    {"answers", "decoding", "evaluate", "loop", "parity", "inspection"},
    {"report", "config", "results", "panels", "page", "projector", "timing"},
    {"runs", "grid"},
    {"recognizer"},
    COMMANDS | {"training_data"},
]
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}
# Two modules of one floor may use each other as long as no circle arises; these do.
SIDEWAYS = {
    ("charset", "errors"), ("files", "errors"), ("data", "files"),
    ("data", "errors"), ("data", "charset"), ("data", "types"), ("data", "data"),
    ("fused", "sharding"), ("convolution", "sharding"), ("cudnn", "sharding"), ("head", "fused"), ("ctc", "head"),
    ("assign", "ctc"), ("assign", "head"),
    ("decode", "head"), ("decode", "ctc"), ("beam", "automata"), ("beam", "decode"), ("evaluate", "decoding"),
    ("rescoring", "decode"), ("reading", "decoder_options"), ("decoder_options", "language"),
    ("decoder_options", "scoring"), ("tuning", "decoder_options"), ("tuning", "reading"), ("tuning", "scoring"),
    ("mining", "tuning"), ("cli", "options"), ("doctor", "cli"), ("demo", "cli"), ("exporting", "importing"),
    ("rows", "sharding"), ("fused", "rows"),
    ("head", "rows"), ("losses", "rows"), ("centers", "rows"), ("diagnostics", "losses"),
    ("losses", "ctc"), ("losses", "head"), ("centers", "head"), ("diagnostics", "head"),
    ("centers", "assign"), ("centers", "decode"), ("centers", "losses"),
    ("layouts", "backbones"), ("model", "backbones"), ("model", "recurrent"), ("backbones", "normalization"),
    ("loop", "evaluate"),
    ("parity", "answers"), ("render", "looks"), ("cli", "commands"), ("commands", "reading"), ("mining", "reading"),
    ("conversion", "reading"), ("commands", "training_data"), ("commands", "hosts"), ("training_data", "reading"),
    ("mining", "scoring"),
    ("bench", "bench_data"), ("dispatch", "train"), ("window", "train"), ("compare", "training_data"),
    ("compare", "reading"), ("compiled", "data"), ("panels", "page"),
    ("reporting", "training_data"), ("reporting", "reading"), ("demo", "compare"), ("demo", "reporting"),
}  # fmt: skip
MODULES = sorted(p for p in ROOT.rglob("*.py") if p.name not in ("__init__.py", "__main__.py"))


def imports(path):
    """Every module that a file imports, wherever in it, with what is taken from packages of ours spelled out."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def house_name(dotted):
    parts = dotted.split(".")
    return parts[1] if parts[0] == "jaxcrnn" and len(parts) > 1 and parts[1] in FLOOR else None


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down(path):
    own = path.relative_to(ROOT).parts[0].removesuffix(".py")
    assert own in FLOOR, f"{own} stands on no floor"
    for dotted in imports(path):
        other = house_name(dotted)
        if other and other != own and (own, other) not in SIDEWAYS:
            assert FLOOR[other] < FLOOR[own], f"{own} imports {other}"


@pytest.mark.parametrize(
    ("library", "allowed"),
    [
        ("flax", {"backbones", "normalization", "recurrent", "model"}),
        ("argparse", COMMANDS),
        ("orbax", {"checkpoint"}),
        ("chex", set()),
        ("torch", {"torch_files"}),
        ("torch_ref", set()),
    ],
)
def test_libraries_stay_behind_their_modules(library, allowed):
    users = {
        path.relative_to(ROOT).parts[0].removesuffix(".py")
        for path in MODULES
        if any(name.split(".")[0] == library for name in imports(path))
    }
    assert users <= allowed


@pytest.mark.parametrize("module", ["charset", "types", "metrics", "data.labels", "data.loader", "data.audit", "cli"])
def test_readers_never_import_jax(module):
    code = f"import sys, jaxcrnn.{module}; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
