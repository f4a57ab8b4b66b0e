"""Prediction files: lines of ``path<TAB>prediction<TAB>truth``, or the published ``index [prediction] [truth]``."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from jaxcrnn._files import written_whole
from jaxcrnn._text import quoted, read_text
from jaxcrnn.errors import UserError

BRACKETS = re.compile(r"(\S+)\s+\[(.*)\]\s*")
BETWEEN = re.compile(r"\](\s*)\[")
CONFIDENCE = re.compile(r"[01]\.\d{3,}")
EXPECTED = "expected path<TAB>prediction<TAB>truth, or index [prediction] [truth]"
# Characters that would end a field or a line are written as their pictures, U+2409, U+240A and U+240D.
PICTURES = {ord("\t"): "\u2409", ord("\n"): "\u240a", ord("\r"): "\u240d"}


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

    Where the texts contain brackets themselves, a line is split at the only ``][`` that is spaced as in the lines with
    a single one.

    Raises:
      UserError: the file cannot be read or is empty, or a line is in neither format (naming the line).
    """
    rows: list[tuple[int, str, list[str]]] = []
    bracketed: list[int] = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        line = line.removesuffix("\r")
        if not line:
            continue
        parts = line.split("\t")
        if len(parts) != 3:
            match = BRACKETS.fullmatch(line)
            if not match or not BETWEEN.search(match[2]):
                columns = f" has {len(parts)} columns" if len(parts) > 3 else ""
                raise UserError(f"{path}, line {number}: {quoted(line)}{columns}; {EXPECTED}")
            bracketed.append(len(rows))
            parts = [match[1], match[2]]
        rows.append((number, line, parts))
    if not rows:
        raise UserError(f"{path}: no lines; expected path<TAB>prediction<TAB>truth")
    spacing = _spacing([rows[at][2][1] for at in bracketed])
    for at in bracketed:
        number, line, (name, inside) = rows[at]
        splits = [match for match in BETWEEN.finditer(inside) if match[1] == spacing] or list(BETWEEN.finditer(inside))
        if len(splits) > 1:
            raise UserError(
                f"{path}, line {number}: {quoted(line)} is ambiguous: the prediction may end at any of {len(splits)} "
                "brackets; expected path<TAB>prediction<TAB>truth"
            )
        rows[at] = number, line, [name, inside[: splits[0].start()], inside[splits[0].end() :]]
    tabbed = [parts for _, line, parts in rows if line.count("\t") == 2]
    # In the published format with tabs, numbered lines have brackets around every text.
    if all(parts[0].isdigit() and _in_brackets(parts[1:]) for parts in tabbed):
        for parts in tabbed:
            parts[1:] = [text[1:-1] for text in parts[1:]]
    names, read, truths = map(list, zip(*(parts for _, _, parts in rows), strict=True))
    return Predictions(names, read, truths)


def with_confidences(predictions: Predictions) -> bool:
    """Return whether the true texts look like confidences, which the output of ``jaxcrnn recognize`` has instead."""
    as_confidence = CONFIDENCE.fullmatch
    return all(map(as_confidence, predictions.truths)) and not any(map(as_confidence, predictions.read))


def _spacing(lines: list[str]) -> str:
    """Return what separates the brackets in lines that can be split in one way only; a space if there are none."""
    single = Counter(spacings[0] for spacings in map(BETWEEN.findall, lines) if len(spacings) == 1)
    return single.most_common(1)[0][0] if single else " "


def _in_brackets(texts: list[str]) -> bool:
    return all(text[:1] == "[" and text[-1:] == "]" for text in texts)


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Write lines of ``path<TAB>prediction<TAB>truth`` atomically, which `read_predictions` reads back.

    Tabs and line breaks are written as their pictures, such as U+2409, and characters that are not Unicode with a
    backslash. If every text is in brackets, ``./`` precedes names that are numbers, to tell them from the published
    format.

    Raises:
      UserError: the file cannot be written.
    """
    names, read, truths = predictions
    if _in_brackets([*read, *truths]):
        names = [f"./{name}" if name.isdigit() else name for name in names]
    rows = zip(names, read, truths, strict=True)
    lines = ("\t".join(field.translate(PICTURES) for field in row) + "\n" for row in rows)
    with written_whole(path) as part:
        part.write_bytes("".join(lines).encode("utf-8", "backslashreplace"))
