"""Run the examples of the docstrings, and check that every public function of the main modules has one."""

import ast
import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = ("assign", "centers", "ctc", "decode", "losses", "metrics", "model", "objective", "train")
LOOKALIKES = ("confusions", "groups", "mining", "similarity")
DOCUMENTED = (*(f"jaxcrnn.{name}" for name in CORE), *(f"jaxcrnn.lookalikes.{name}" for name in LOOKALIKES))
# Examples of modules that need an optional package.
REQUIRES = {"jaxcrnn.data.lmdb": "lmdb", "jaxcrnn.data.lmdb_check": "lmdb"}


def source(module):
    return (ROOT / module.replace(".", "/")).with_suffix(".py").read_text(encoding="utf-8")


def modules_with_examples():
    for path in sorted((ROOT / "jaxcrnn").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if ">>> " in path.read_text(encoding="utf-8"):
            yield name


@pytest.mark.parametrize("name", list(modules_with_examples()))
def test_docstring_examples_run(name):
    if name in REQUIRES:
        pytest.importorskip(REQUIRES[name])
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    report = []
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, name):
        runner.run(test, out=report.append)
    assert not runner.failures, "".join(report)
    assert runner.tries == source(name).count(">>> "), "an example was not found"


@pytest.mark.parametrize("name", DOCUMENTED)
def test_every_public_function_has_an_example(name):
    functions = [node for node in ast.parse(source(name)).body if isinstance(node, ast.FunctionDef)]
    public = {node.name: ast.get_docstring(node) or "" for node in functions if not node.name.startswith("_")}
    assert public
    assert not [function for function, docstring in public.items() if ">>> " not in docstring]
