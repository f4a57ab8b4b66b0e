"""Patterns of texts such as dates, amounts, codes and fields of forms, written as rules.

A file of patterns is YAML: each rule has a list of alternatives, all equally probable (repeat one to draw it more
often). ``{date}`` in an alternative stands for a draw from the rule of that name, ``{d}`` for a digit; `PLACEHOLDERS`
lists the others. ``{d*4}`` repeats four times, ``{d*1-6}`` once to six times, ``{date?}`` is dropped half of the time.
Drawing starts at the rule ``text`` unless another is named.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxcrnn._text import read_text
from jaxcrnn.errors import UserError

# Filled separately for every text, so a template stands for many texts.
PLACEHOLDERS = {
    "d": "0123456789",
    "n": "123456789",
    "A": "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "a": "abcdefghijklmnopqrstuvwxyz",
    "x": "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
}
TEMPLATES = 32_768
LONGEST = 120  # characters of a template
DEEPEST = 30  # rules within rules
REFERENCE = re.compile(r"\{(\w+)(?:\*(\d+)(?:-(\d+))?)?(\?)?\}")


class Pool(NamedTuple):
    """Templates: ``rows [N,W]`` of numbers of characters, ``-k`` for the k-th placeholder, and ``lengths [N]``."""

    rows: np.ndarray
    lengths: np.ndarray


class Part(NamedTuple):
    """A literal text, or a reference to a rule or placeholder, with its repeats."""

    literal: str
    name: str = ""
    least: int = 1
    most: int = 1
    optional: bool = False


def read_rules(path: str | Path) -> dict[str, list[list[Part]]]:
    """Read a file of patterns.

    Raises:
      UserError: it is not a mapping of rules to lists of texts, or a reference names no rule.
    """
    import yaml

    try:
        rules = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        raise UserError(f"{path}: invalid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(rules, dict) or "text" not in rules:
        raise UserError(f"{path}: expected rules, each with a list of texts, one of them named 'text'")
    for name, alternatives in rules.items():
        if not isinstance(alternatives, list) or not alternatives or not all(isinstance(a, str) for a in alternatives):
            raise UserError(f"{path}: rule {name!r}: expected a list of texts; quote numbers and dates")
    return {name: [_parts(path, name, a, rules) for a in alternatives] for name, alternatives in rules.items()}


def _parts(path: str | Path, rule: str, text: str, rules: Mapping[str, Any]) -> list[Part]:
    parts, end = [], 0
    for match in REFERENCE.finditer(text):
        parts.append(Part(text[end : match.start()]))
        end = match.end()
        name, least, most, optional = match.groups()
        if name not in rules and name not in PLACEHOLDERS:
            raise UserError(
                f"{path}: rule {rule!r}: {match.group()} names no rule; expected one of the file or "
                f"{', '.join(PLACEHOLDERS)}"
            )
        low = int(least or 1)
        parts.append(Part("", name, low, int(most or low), bool(optional)))
        if not low <= parts[-1].most <= LONGEST:
            raise UserError(f"{path}: rule {rule!r}: {match.group()}; expected repeats of 1 to {LONGEST}, rising")
    parts.append(Part(text[end:]))
    return [part for part in parts if part.literal or part.name]


def template_pool(
    path: str | Path,
    number: Mapping[str, int],
    left_out: Counter[str],
    start: str = "text",
    count: int = TEMPLATES,
    seed: int = 0,
) -> Pool:
    """Draw templates from a file of patterns.

    Args:
      path: the file.
      number: numbers of the characters that can be drawn.
      left_out: counts characters that cannot; a template with one is dropped.
      start: rule to start at.
      count: templates to draw.
      seed: seed of the draws.

    Raises:
      UserError: the file is invalid or lacks the rule, a rule refers to itself without end, or no template can be
        drawn.
    """
    rules, rng = read_rules(path), random.Random(seed)
    if start not in rules:
        raise UserError(f"{path}: no rule {start!r}; expected one of {', '.join(rules)}")
    names = {name: -place for place, name in enumerate(PLACEHOLDERS, start=1)}
    rows: list[list[int]] = []

    def expand(rule: str, row: list[int], depth: int) -> None:
        if depth > DEEPEST:
            raise UserError(f"{path}: rule {rule!r} is nested more than {DEEPEST} times; expected rules that end")
        for part in rng.choice(rules[rule]):
            if part.literal:
                for c in part.literal:
                    if c not in number:
                        left_out[c] += 1
                    row.append(number.get(c, _MISSING))
            elif not part.optional or rng.random() < 0.5:
                for _ in range(rng.randint(part.least, part.most)):
                    if part.name in names:
                        row.append(names[part.name])
                    else:
                        expand(part.name, row, depth + 1)

    # Characters that cannot be drawn, and placeholders without one that can.
    blocked = {_MISSING, *(names[name] for name, filling in PLACEHOLDERS.items() if not set(filling) & set(number))}
    for _ in range(count):
        row: list[int] = []
        expand(start, row, 0)
        if blocked.isdisjoint(row) and 0 < len(row) <= LONGEST:
            rows.append(row)
    if not rows:
        raise UserError(f"{path}: no text of the rule {start!r} consists of characters that can be drawn")
    lengths = np.asarray([len(row) for row in rows], np.int64)
    table = np.zeros((len(rows), int(lengths.max())), np.int32)
    for i, values in enumerate(rows):
        table[i, : len(values)] = values
    return Pool(table, lengths)


_MISSING = -1000
