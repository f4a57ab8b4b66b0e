"""The documentation site, the README and the files for contributors. `make docs` itself is not run here."""

import importlib
import importlib.util
import re
import tomllib
from pathlib import Path

import pytest
import yaml

import jaxcrnn

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
GENERATED = {"changelog.md", "contributing.md"}  # scripts/docs_site.py


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pages_of(nav):
    for entry in nav:
        if isinstance(entry, str):
            yield entry
        else:
            for value in entry.values():
                yield from [value] if isinstance(value, str) else pages_of(value)


def test_architecture_diagram_is_current():
    pytest.importorskip("grimp", reason="import-linter is not installed")
    committed = (DOCS / "images" / "architecture.svg").read_text(encoding="utf-8")
    assert script("architecture").picture() == committed, (
        "the imports changed; run: python scripts/architecture.py docs/images/architecture.svg"
    )


def test_navigation_lists_every_page_once():
    pages = list(pages_of(yaml.safe_load((ROOT / ".mkdocs.yml").read_text(encoding="utf-8"))["nav"]))
    assert sorted(pages) == sorted({path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")} | GENERATED)


def test_reference_lists_every_public_name():
    shown = set()
    for page in REFERENCE.glob("*.md"):
        for path in re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE):
            module, _, name = path.rpartition(".")
            if importlib.util.find_spec(module).submodule_search_locations is None:
                assert hasattr(importlib.import_module(module), name), path
                shown.add(module)
            else:
                assert importlib.util.find_spec(path), path
                shown.add(path)
    assert {f"jaxcrnn.{name}" for name in jaxcrnn._MODULES} <= shown
    assert {f"jaxcrnn.{module}" for module in jaxcrnn._NAMES} <= shown
    index = (REFERENCE / "index.md").read_text(encoding="utf-8")
    for module in shown:
        assert f"`{module.removeprefix('jaxcrnn.')}`" in index, module


def test_readme_is_at_most_130_lines():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 130


def test_contributing_guide_lists_markers_and_tolerances():
    guide = (ROOT / ".github" / "CONTRIBUTING.md").read_text(encoding="utf-8")
    options = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pytest"]["ini_options"]
    names = [marker.partition(":")[0] for marker in options["markers"]]
    names += re.findall(
        r"^([A-Z0-9_]+) = ", (ROOT / "tests" / "tolerances.py").read_text(encoding="utf-8"), re.MULTILINE
    )
    for name in names:
        assert f"`{name}`" in guide, name


def test_github_files_are_valid_yaml():
    files = [*(ROOT / ".github").rglob("*.yml"), ROOT / ".github" / "CITATION.cff", ROOT / ".pre-commit-config.yaml"]
    assert len(files) >= 6
    for path in files:
        assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict), path


def test_pre_commit_hooks_match_make_lint():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    hooks = {hook["id"]: hook["entry"] for repository in config["repos"] for hook in repository["hooks"]}
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8").partition("\nlint:")[2].partition("\n\n")[0]
    tools = set(re.findall(r"\$\(BIN\)/(\S+)", recipe))
    assert {entry.split()[0].removeprefix(".venv/bin/") for entry in hooks.values()} == tools
