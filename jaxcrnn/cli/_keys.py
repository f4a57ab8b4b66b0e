"""Help texts of the configuration keys, taken from the docstrings of the dataclasses."""

from __future__ import annotations

import dataclasses
import inspect
import re
import shutil
import textwrap
from collections.abc import Iterator
from typing import Any, get_type_hints

from jaxcrnn._ranges import LARGEST
from jaxcrnn.objective import Preset
from jaxcrnn.runs import config as configs

INDENT = 8


def sections() -> dict[str, type]:
    """Return the dataclass of each configuration section."""
    hints = get_type_hints(configs.Config)
    return {field.name: hints[field.name] for field in dataclasses.fields(configs.Config)}


def attributes(section: type) -> dict[str, str]:
    """Parse the ``Attributes:`` part of a docstring into one line of plain text per attribute.

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
    """List every key with its default and its meaning, for ``--help``.

    Args:
      width: text width in columns; the terminal's width by default.
    """
    width = max(width or shutil.get_terminal_size().columns - 2, 40)
    numbers = f"Numbers must be finite; whole numbers without another limit are at most {LARGEST:,}."
    return "\n".join(
        [
            "configuration keys (for --config and --set) and their defaults:",
            textwrap.fill(numbers, width),
            *_lines(width),
        ]
    )


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
    """Format a default the way ``--set`` accepts it."""
    value = field.default
    if value is None:
        return "null (set by the preset)" if field.name in Preset._fields else "null"
    if isinstance(value, bool):
        return str(value).lower()
    return str(list(value) if isinstance(value, tuple) else value)
