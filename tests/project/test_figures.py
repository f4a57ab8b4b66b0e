"""The comparison of the numbers of two revisions of the pages."""

import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "compare_figures.py"


def load():
    spec = importlib.util.spec_from_file_location("compare_figures", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_number_is_matched_once_on_its_own_page_first():
    script = load()
    old = script.places({"a.md": "1,024 lines in 0.5 s\n0.5 again, 3e-5", "b.md": "7 on v5e"})
    new = script.places({"a.md": "in 0.5 s", "b.md": "7 and 1024", "c.md": "5"})
    assert script.match(old, new) == [
        ("a.md", 1, "1024", ("b.md", 1)),
        ("a.md", 1, "0.5", ("a.md", 1)),
        ("a.md", 2, "0.5", None),
        ("a.md", 2, "3e-5", None),
        ("b.md", 1, "7", ("b.md", 1)),
    ]
