"""Files of predictions: ``path<TAB>prediction<TAB>truth`` a line, or the published ``index [prediction] [truth]``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from jaxcrnn._files import written_whole
from jaxcrnn._text import read_text
from jaxcrnn.errors import UserError

BRACKETS = re.compile(r"\S+\s+\[(.*)\]\s*\[(.*)\]\s*")
BETWEEN = re.compile(r"\]\s*\[")


class Predictions(NamedTuple):
    """What was read and what is written, of N lines.

    Attributes:
      names: paths or numbers of the images.
      read: N texts.
      truths: N texts.
    """

    names: list[str]
    read: list[str]
    truths: list[str]


def read_predictions(path: str | Path) -> Predictions:
    """Reads ``path<TAB>prediction<TAB>truth``, or ``index [prediction] [truth]``, a line an image.

    Raises:
      UserError: the file cannot be read, has no line, or a line is neither, naming it.
    """
    found = Predictions([], [], [])
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        line = line.removesuffix("\r")
        if not line:
            continue
        parts = line.split("\t")
        if len(parts) != 3:
            match = BRACKETS.fullmatch(line)
            if not match:
                raise UserError(f"{path}, line {number}: {line[:40]!r}; expected path<TAB>prediction<TAB>truth, or "
                                "index [prediction] [truth]")  # fmt: skip
            if len(BETWEEN.findall(line)) > 1:
                raise UserError(f"{path}, line {number}: {line[:40]!r}; which bracket ends the prediction cannot be "
                                "told; expected path<TAB>prediction<TAB>truth")  # fmt: skip
            parts = [line.split()[0], *match.groups()]
        for values, value in zip(found, parts, strict=True):
            values.append(value)
    # With tabs between, too, brackets around every text are the layout's and not the texts'.
    if all(text[:1] == "[" and text[-1:] == "]" for text in (*found.read, *found.truths)):
        found = Predictions(found.names, [text[1:-1] for text in found.read], [text[1:-1] for text in found.truths])
    if not found.names:
        raise UserError(f"{path}: no line in it; expected path<TAB>prediction<TAB>truth")
    return found


def write_predictions(path: Path, found: Predictions) -> None:
    """Writes ``path<TAB>prediction<TAB>truth`` a line; the file is there whole or not at all.

    Raises:
      UserError: it cannot be written.
    """
    with written_whole(path) as part:
        part.write_text("".join("\t".join(row) + "\n" for row in zip(*found, strict=True)), encoding="utf-8")
