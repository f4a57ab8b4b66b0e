"""How often characters were read as their look-alikes. No jax here: texts in, numbers out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

NOTHING = ""  # stands where a character is missing or too many


def shown(character: str) -> str:
    """A character as a table shows it: nothing, and what leaves no mark or moves the cursor, by name."""
    if not character:
        return "(nothing)"
    return character if character.isprintable() and character.strip() else repr(character)


def members(groups: Iterable[str]) -> dict[str, int]:
    """The number of each character's group.

    >>> members(["未末", "土士"])
    {'未': 0, '末': 0, '土': 1, '士': 1}
    """
    return {character: number for number, group in enumerate(groups) for character in group}


def align(truth: str, read: str, group: dict[str, int]) -> list[tuple[str, str]]:
    """Which character was read where which stands, ``""`` for none: insertions and deletions.

    Of all alignments with the fewest edits the one with the fewest insertions and deletions is taken (a line is more
    often misread in place than shifted there and back), of these one with the most substitutions within a group, of
    these the one that inserts and deletes last.

    Args:
      truth: what is written.
      read: what was read.
      group: see `members`.

    >>> align("未土日", "末日", members(["未末"]))
    [('未', '末'), ('土', ''), ('日', '日')]
    """
    rows, columns = len(truth) + 1, len(read) + 1
    # One whole number orders the three costs: no alignment has as many as `unit` of any.
    unit = rows + columns
    shift = unit * unit + unit
    cost = [[0] * columns for _ in range(rows)]
    for i in range(rows):
        cost[i][0] = i * shift
    cost[0] = [j * shift for j in range(columns)]

    def swap(i: int, j: int) -> int:
        one, two = truth[i], read[j]
        return 0 if one == two else unit * unit + (one not in group or group[one] != group.get(two))

    for i in range(1, rows):
        above, row = cost[i - 1], cost[i]
        for j in range(1, columns):
            row[j] = min(above[j - 1] + swap(i - 1, j - 1), above[j] + shift, row[j - 1] + shift)
    pairs = []
    i, j = rows - 1, columns - 1
    while i or j:
        if i and cost[i][j] == cost[i - 1][j] + shift:
            i -= 1
            pairs.append((truth[i], NOTHING))
        elif j and cost[i][j] == cost[i][j - 1] + shift:
            j -= 1
            pairs.append((NOTHING, read[j]))
        else:
            i, j = i - 1, j - 1
            pairs.append((truth[i], read[j]))
    return pairs[::-1]


class LineCounts(NamedTuple):
    """Counts of each of N lines, from which every rate follows; arrays ``[N]``.

    Attributes:
      correct: 1 where the line was read without an error.
      edits: insertions, deletions and substitutions.
      characters: of the truth.
      members: of those, how many are in a look-alike group.
      recalled: of those, how many were read right.
      substituted: of those, how many were read as another member of their own group.
      alike: 1 where the line is made only of look-alikes.
    """

    correct: np.ndarray
    edits: np.ndarray
    characters: np.ndarray
    members: np.ndarray
    recalled: np.ndarray
    substituted: np.ndarray
    alike: np.ndarray


class Rate(NamedTuple):
    """A rate as two sums: of the numerator's counts and of what they are counted among."""

    name: str
    over: np.ndarray
    under: np.ndarray
    better: int  # 1 where more is better, -1 where less is

    @property
    def value(self) -> float:
        """The rate; 0 where there is nothing to count among."""
        return self.known or 0.0

    @property
    def known(self) -> float | None:
        """The rate; None where there is nothing to count among."""
        return float(self.over.sum() / self.under.sum()) if self.under.sum() else None


def rates(counts: LineCounts) -> dict[str, Rate]:
    """The scores of a data set, by name, as numerators and denominators of each line."""
    ones = np.ones_like(counts.correct)
    known = {
        "lines": ("lines right", counts.correct, ones, 1),
        "characters": ("characters right", counts.characters - counts.edits, counts.characters, 1),
        "recall": ("look-alikes right", counts.recalled, counts.members, 1),
        "substituted": ("read as a look-alike", counts.substituted, counts.members, -1),
        "alike": ("look-alike lines right", counts.correct * counts.alike, counts.alike, 1),
    }
    return {name: Rate(*parts) for name, parts in known.items()}


def rate_rows(counts: LineCounts) -> list[tuple[str, str, str]]:
    """A table's rows: each rate's name, its value, and what it is counted among."""
    return [
        (r.name, "-" if r.known is None else f"{r.known:.2%}", f"{r.over.sum()}/{r.under.sum()}")
        for r in rates(counts).values()
    ]


class Confusion(NamedTuple):
    """One character read as another.

    Attributes:
      written: what stands there, ``""`` for nothing.
      read: what was read, ``""`` for nothing.
      times: how often.
      among: how often ``written`` stands in the data.
      alike: whether both are of one group.
    """

    written: str
    read: str
    times: int
    among: int
    alike: bool


class Scores(NamedTuple):
    """Scores for look-alikes.

    Attributes:
      lines: counts of each line.
      confusions: every confusion, the most frequent first.
    """

    lines: LineCounts
    confusions: list[Confusion]


def score(predictions: Sequence[str], references: Sequence[str], groups: Sequence[str]) -> Scores:
    """Compares what was read with what is written, character by character.

    Args:
      predictions: N texts.
      references: N texts.
      groups: look-alike groups, each a text of its characters.
    """
    group = members(groups)
    counts = np.zeros((len(references), len(LineCounts._fields)), np.int64)
    confused: Counter[tuple[str, str]] = Counter()
    written = Counter(character for reference in references for character in reference)
    for n, (read, truth) in enumerate(zip(predictions, references, strict=True)):
        inside = sum(character in group for character in truth)
        pairs = [] if read == truth else [(a, b) for a, b in align(truth, read, group) if a != b]
        confused.update(pairs)
        wrong = sum(a in group for a, _ in pairs)
        alike = sum(a in group and group[a] == group.get(b) for a, b in pairs)
        counts[n] = (
            not pairs, len(pairs), len(truth), inside, inside - wrong, alike, bool(truth) and inside == len(truth)
        )  # fmt: skip
    found = [
        Confusion(a, b, count, written[a], a in group and group[a] == group.get(b))
        for (a, b), count in sorted(confused.items(), key=lambda item: (-item[1], item[0]))
    ]
    return Scores(LineCounts(*counts.T), found)
