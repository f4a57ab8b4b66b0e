"""Common properties of all commands: one file each, help for every option and key, and startup without jax."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import jaxcrnn
from jaxcrnn.cli import main
from jaxcrnn.cli._keys import attributes, describe, sections
from jaxcrnn.cli.main import COMMANDS, command
from jaxcrnn.runs import config as configs

PACKAGE = Path(jaxcrnn.__file__).parent
SHARED = {"main", "options", "decoding"}


def test_each_command_has_its_own_module():
    files = {path.stem for path in (PACKAGE / "cli").glob("*.py") if not path.stem.startswith("_")}
    assert files - SHARED == set(COMMANDS)
    for name in COMMANDS:
        module = command(name)
        assert module.SUMMARY
        assert callable(module.add_options)
        assert callable(module.run)


def test_only_the_command_line_parses_arguments():
    others = [path for path in PACKAGE.rglob("*.py") if path.parent.name != "cli"]
    imports = re.compile(r"^ *(import|from) argparse", re.MULTILINE)  # elsewhere it may be the name of a class
    assert [path.name for path in others if imports.search(path.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([name, "--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert command(name).SUMMARY.lower()[:20] in shown.lower()
    assert ("    optim.steps=2000\n        number of training steps" in shown) == (name in ("train", "demo"))


def test_help_does_not_import_jax():
    code = (
        "import sys; from jaxcrnn.cli.main import parser; parser(); print({'jax', 'numpy', 'PIL'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("name", sections())
def test_every_key_has_a_help_text(name):
    section = sections()[name]
    texts = attributes(section)
    keys = list(configs.keys(section))
    assert [key for key in keys if not texts.get(key)] == []
    assert set(texts) <= set(section.__dataclass_fields__)  # a text of a key that is gone
    shown = describe(10_000)
    for key in keys:
        assert f"    {name}.{key}=" in shown
        assert f"        {texts[key]}" in shown.split("\n"), key


def test_attribute_docs_end_at_the_next_section():
    class Section:
        """Two keys.

        Attributes:
          one: the ``"first"`` key, whose text
            goes on.
          two: see `jaxcrnn.model`: the second.

        Raises:
          three: no key.
        """

    assert attributes(Section) == {
        "one": 'the "first" key, whose text goes on.',
        "two": "see jaxcrnn.model: the second.",
    }


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_help_fits_the_terminal(columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(columns + 2))
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = capsys.readouterr().out.split("configuration keys (for --config and --set)")[1]
    wide = [line for line in text.split("\n") if len(line) > columns and "=" not in line]
    assert wide == []
    assert max(map(len, text.split("\n"))) > columns * 0.8


def test_print_config_shows_the_resolved_configuration(capsys):
    assert main(["train", "--print-config", "--set", "optim.steps=5", "run.seed=3", "--set", "data.buckets=2"]) == 0
    shown = capsys.readouterr().out
    assert "steps: 5" in shown
    assert "seed: 3" in shown
    assert "buckets: 2" in shown


def test_images_may_follow_options():
    from jaxcrnn.cli.main import parser

    args = parser().parse_args(["recognize", "runs/a", "--json", "1.png", "--beam", "3", "-", "2.png"])
    assert (args.items, args.json, args.beam) == (["runs/a", "1.png", "-", "2.png"], True, 3)
    with pytest.raises(SystemExit):
        parser().parse_args(["recognize", "runs/a", "--jsn", "1.png"])
