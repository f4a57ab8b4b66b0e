"""Imports go down only; readers never load jax."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def lint(folder):
    """The linter over the package in a folder, wherever another one is installed."""
    code = "import sys; sys.path.insert(0, ''); from importlinter.cli import lint_imports_command as lint; lint()"
    command = [sys.executable, "-c", code, "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_import_contracts_hold_without_exceptions():
    pytest.importorskip("importlinter")
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert "ignore_imports" not in text
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


def test_documented_layers_are_those_that_are_enforced():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = "\n".join(project["tool"]["importlinter"]["contracts"][0]["layers"])
    assert f"```\n{layers}\n```" in (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_upward_import_breaks_a_contract(tmp_path):
    pytest.importorskip("importlinter")
    shutil.copytree(ROOT / "jaxcrnn", tmp_path / "jaxcrnn")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    losses = tmp_path / "jaxcrnn" / "losses.py"
    losses.write_text(losses.read_text(encoding="utf-8") + "\nfrom jaxcrnn.parallel import mesh\n", encoding="utf-8")
    done = lint(tmp_path)
    assert done.returncode == 1
    assert "jaxcrnn.losses -> jaxcrnn.parallel.mesh" in done.stdout


def test_readers_never_import_jax():
    modules = (
        "charset types metrics data.labels data.loader data.audit cli interop.recognizer interop.onnx_engine".split()
    )
    code = f"import sys, {', '.join(f'jaxcrnn.{module}' for module in modules)}; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
