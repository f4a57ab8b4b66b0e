"""Help for every key of the configuration, from the docstrings of its dataclasses."""

from __future__ import annotations

import dataclasses
import inspect
import re
import shutil
import textwrap
from collections.abc import Iterator
from typing import Any, get_type_hints

from jaxcrnn.runs import config as configs

INDENT = 8


def sections() -> dict[str, type]:
    """The dataclass of each section of the configuration."""
    hints = get_type_hints(configs.Config)
    return {field.name: hints[field.name] for field in dataclasses.fields(configs.Config)}


def attributes(section: type) -> dict[str, str]:
    """The texts of the ``Attributes:`` part of a docstring, each on one line and without markup.

    Args:
      section: dataclass with a docstring in Google style.
    """
    _, _, part = (inspect.getdoc(section) or "").partition("Attributes:\n")
    texts: dict[str, str] = {}
    name = ""
    for line in part.split("\n"):
        if start := re.match(r"  (\w+): (.*)", line):
            name = start[1]
            texts[name] = start[2]
        elif name and line.startswith("    "):
            texts[name] += " " + line.strip()
        elif line.strip():  # another part of the docstring
            break
    return {name: text.replace("``", "").replace("`", "") for name, text in texts.items()}


def describe(width: int | None = None) -> str:
    """Every key with its default and its meaning, for ``--help``.

    Args:
      width: columns of the text; the terminal's by default.
    """
    width = max(width or shutil.get_terminal_size().columns - 2, 40)
    return "\n".join(["keys of --config and --set, with their defaults:", *_lines(width)])


def _lines(width: int) -> Iterator[str]:
    for name, section in sections().items():
        yield ""
        summary = (inspect.getdoc(section) or "").split("\n")[0].replace("`", "")
        yield textwrap.fill(f"{name}: {summary}", width, initial_indent="  ", subsequent_indent="  ")
        texts = attributes(section)
        for key, field in configs.keys(section).items():
            yield f"    {name}.{key}={_shown(field)}"
            if texts.get(key):
                indent = " " * INDENT
                yield textwrap.fill(texts[key], width, initial_indent=indent, subsequent_indent=indent)


def _shown(field: dataclasses.Field[Any]) -> str:
    """A default as ``--set`` takes it."""
    value = field.default
    if value is None:
        return "the preset's"
    if isinstance(value, bool):
        return str(value).lower()
    return str(list(value) if isinstance(value, tuple) else value)
