"""Prediction files: lines of ``path<TAB>prediction<TAB>truth``, or the published ``index [prediction] [truth]``."""

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
    """Predictions for N lines.

    Attributes:
      names: N paths or numbers of the images.
      read: N predicted texts.
      truths: N true texts.
    """

    names: list[str]
    read: list[str]
    truths: list[str]


def read_predictions(path: str | Path) -> Predictions:
    """Read lines of ``path<TAB>prediction<TAB>truth``, or of ``index [prediction] [truth]``.

    Raises:
      UserError: the file cannot be read or is empty, or a line is in neither format (naming the line).
    """
    rows = Predictions([], [], [])
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        line = line.removesuffix("\r")
        if not line:
            continue
        parts = line.split("\t")
        if len(parts) != 3:
            match = BRACKETS.fullmatch(line)
            if not match:
                raise UserError(
                    f"{path}, line {number}: {line[:40]!r}; expected path<TAB>prediction<TAB>truth, or "
                    "index [prediction] [truth]"
                )
            if len(BETWEEN.findall(line)) > 1:
                raise UserError(
                    f"{path}, line {number}: {line[:40]!r} is ambiguous: several brackets may end the "
                    "prediction; expected path<TAB>prediction<TAB>truth"
                )
            parts = [line.split()[0], *match.groups()]
        for values, value in zip(rows, parts, strict=True):
            values.append(value)
    # Brackets around every text belong to the format, also in lines with tabs.
    if all(text[:1] == "[" and text[-1:] == "]" for text in (*rows.read, *rows.truths)):
        rows = Predictions(rows.names, [text[1:-1] for text in rows.read], [text[1:-1] for text in rows.truths])
    if not rows.names:
        raise UserError(f"{path}: no lines; expected path<TAB>prediction<TAB>truth")
    return rows


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Write lines of ``path<TAB>prediction<TAB>truth`` atomically.

    Raises:
      UserError: the file cannot be written.
    """
    with written_whole(path) as part:
        part.write_text("".join("\t".join(row) + "\n" for row in zip(*predictions, strict=True)), encoding="utf-8")
