"""Scores of how often characters are read as their look-alikes. Works on texts and never imports jax."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

NOTHING = ""  # the missing side of an insertion or deletion


def shown(character: str) -> str:
    """Format a character for a table: the empty text, whitespace and unprintable characters get a visible form.

    Examples:
      >>> from jaxcrnn.lookalikes.confusions import shown
      >>> shown("未"), shown(" "), shown("")
      ('未', "' '", '(nothing)')
    """
    if not character:
        return "(nothing)"
    return character if character.isprintable() and character.strip() else repr(character)


def members(groups: Iterable[str]) -> dict[str, int]:
    """Map each character to the index of its group.

    Examples:
      >>> from jaxcrnn.lookalikes.confusions import members
      >>> members(["未末", "土士"])
      {'未': 0, '末': 0, '土': 1, '士': 1}
    """
    return {character: number for number, group in enumerate(groups) for character in group}


def align(truth: str, read: str, group: dict[str, int]) -> list[tuple[str, str]]:
    """Align a reading with the true text, character by character; ``""`` marks insertions and deletions.

    Of all alignments with the fewest edits, it returns the one with the fewest insertions and deletions (a line is more
    often misread in place than shifted there and back), then the one with the most substitutions within a group, then
    the one that inserts and deletes last.

    Args:
      truth: the true text.
      read: the text that was read.
      group: group of each character; see `members`.

    Returns:
      Pairs of a true character and the character that was read.

    Examples:
      >>> from jaxcrnn.lookalikes.confusions import align, members
      >>> align("未土日", "末日", members(["未末"]))
      [('未', '末'), ('土', ''), ('日', '日')]
    """
    rows, columns = len(truth) + 1, len(read) + 1
    # Encode the three costs in one integer: no alignment has as many as `unit` of any of them.
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
    """Counts for each of N lines, from which the rates are computed; arrays ``[N]``.

    Attributes:
      correct: 1 if the line was read without an error, else 0.
      edits: insertions, deletions and substitutions.
      characters: characters of the true text.
      members: characters of the true text that are in a look-alike group.
      recalled: members that were read correctly.
      substituted: members that were read as another member of their group.
      alike: 1 if the line consists of look-alikes only, else 0.
    """

    correct: np.ndarray
    edits: np.ndarray
    characters: np.ndarray
    members: np.ndarray
    recalled: np.ndarray
    substituted: np.ndarray
    alike: np.ndarray


class Rate(NamedTuple):
    """A rate as numerators and denominators for each line."""

    name: str
    over: np.ndarray
    under: np.ndarray
    better: int  # 1 if higher is better, -1 if lower is better

    @property
    def value(self) -> float:
        """The rate; 0 if the denominator is 0."""
        return self.known or 0.0

    @property
    def known(self) -> float | None:
        """The rate; None if the denominator is 0."""
        return float(self.over.sum() / self.under.sum()) if self.under.sum() else None


def rates(counts: LineCounts) -> dict[str, Rate]:
    """Compute the rates of a data set by name, as numerators and denominators for each line.

    Examples:
      >>> from jaxcrnn.lookalikes.confusions import rates, score
      >>> counts = score(["末日", "未"], ["未日", "未"], groups=["未末"]).lines
      >>> rates(counts)["recall"].value, rates(counts)["substituted"].value
      (0.5, 0.5)
    """
    ones = np.ones_like(counts.correct)
    parts = {
        "lines": ("lines right", counts.correct, ones, 1),
        "characters": ("characters right", counts.characters - counts.edits, counts.characters, 1),
        "recall": ("look-alikes right", counts.recalled, counts.members, 1),
        "substituted": ("read as a look-alike", counts.substituted, counts.members, -1),
        "alike": ("look-alike lines right", counts.correct * counts.alike, counts.alike, 1),
    }
    return {name: Rate(*values) for name, values in parts.items()}


def rate_rows(counts: LineCounts) -> list[tuple[str, str, str]]:
    """Format the rates as rows of a table: name, value, and numerator over denominator.

    Examples:
      >>> from jaxcrnn.lookalikes.confusions import rate_rows, score
      >>> rate_rows(score(["末日", "未"], ["未日", "未"], groups=["未末"]).lines)[2]
      ('look-alikes right', '50.00%', '1/2')
    """
    return [
        (r.name, "-" if r.known is None else f"{r.known:.2%}", f"{r.over.sum()}/{r.under.sum()}")
        for r in rates(counts).values()
    ]


class Confusion(NamedTuple):
    """A character and what it was read as.

    Attributes:
      written: the true character, ``""`` for an insertion.
      read: the character that was read, ``""`` for a deletion.
      times: number of times this happened.
      among: number of times ``written`` occurs in the data.
      alike: whether both are in the same group.
    """

    written: str
    read: str
    times: int
    among: int
    alike: bool


class Scores(NamedTuple):
    """Look-alike scores of a data set.

    Attributes:
      lines: counts for each line.
      confusions: all confusions, the most frequent first.
    """

    lines: LineCounts
    confusions: list[Confusion]


def score(predictions: Sequence[str], references: Sequence[str], groups: Sequence[str]) -> Scores:
    """Compare predictions with references character by character.

    Args:
      predictions: N texts that were read.
      references: N true texts.
      groups: look-alike groups, each a text of its characters.

    Returns:
      `Scores`.

    Examples:
      >>> from jaxcrnn.lookalikes.confusions import score
      >>> score(["末日", "未"], ["未日", "未"], groups=["未末"]).confusions
      [Confusion(written='未', read='末', times=1, among=2, alike=True)]
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
        all_alike = bool(truth) and inside == len(truth)
        counts[n] = (not pairs, len(pairs), len(truth), inside, inside - wrong, alike, all_alike)
    confusions = [
        Confusion(a, b, count, written[a], a in group and group[a] == group.get(b))
        for (a, b), count in sorted(confused.items(), key=lambda item: (-item[1], item[0]))
    ]
    return Scores(LineCounts(*counts.T), confusions)
