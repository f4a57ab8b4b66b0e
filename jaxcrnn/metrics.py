"""How well lines were read, under the named rules of several projects. No jax here: texts in, numbers out."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

from jaxcrnn.errors import UserError

_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: 0x20}


@lru_cache(maxsize=1)
def _simplifier() -> Callable[[str], str]:
    try:
        import opencc
    except ImportError:
        raise UserError("the rule 'bctr' turns traditional into simplified: pip install 'jaxcrnn[report]'") from None
    return opencc.OpenCC("t2s").convert


def _bctr(text: str) -> str:
    return _simplifier()(text.translate(_FULL_WIDTH).lower())


RULES: dict[str, Callable[[str], str]] = {
    "exact": lambda text: text,
    "paddle": lambda text: text.replace(" ", ""),
    "dtrb": lambda text: re.sub("[^0-9a-z]", "", text.lower()),
    "mmocr": lambda text: re.sub("[^A-Za-z0-9\u4e00-\u9fa5]", "", text.lower()),
    "bctr": _bctr,
}
"""Each rule folds prediction and truth before they are compared.

- ``exact`` folds nothing.
- ``paddle`` removes spaces (PaddleOCR's RecMetric).
- ``dtrb`` keeps ``[0-9a-z]`` of the lower-cased text (deep-text-recognition-benchmark).
- ``mmocr`` keeps ``[A-Za-z0-9]`` and U+4E00-9FA5 of the lower-cased text.
- ``bctr`` turns full width to half width, upper to lower case and traditional to simplified (Benchmarking Chinese
  Text Recognition); it hides look-alikes such as 國/国.
"""


class Score(NamedTuple):
    """Sums over lines, from which the rates follow.

    Attributes:
      lines: number of lines.
      correct: lines read without an error.
      edits: insertions, deletions and substitutions, summed over lines.
      characters: characters of the references.
      similarity: sum over lines of ``1 - edits / max(len)``; two empty texts count 1.
    """

    lines: int
    correct: int
    edits: int
    characters: int
    similarity: float

    @property
    def line_accuracy(self) -> float:
        """Share of the lines read without an error."""
        return self.correct / self.lines if self.lines else 0.0

    @property
    def character_accuracy(self) -> float:
        """``1 - sum(edits) / sum(reference length)``; negative when there are more edits than characters."""
        return 1 - self.edits / self.characters if self.characters else float(self.edits == 0)

    @property
    def normalized_similarity(self) -> float:
        """1-NED: the mean over lines of ``1 - edits / max(len)``."""
        return self.similarity / self.lines if self.lines else 0.0


def score(predictions: Sequence[str], references: Sequence[str], rule: str = "exact") -> Score:
    """Compares what was read with what is written.

    Args:
      predictions: N texts.
      references: N texts.
      rule: a name of `RULES`.

    Raises:
      UserError: an unknown rule, or one whose optional package is missing.
    """
    from rapidfuzz.distance import Levenshtein

    if rule not in RULES:
        raise UserError(f"metric rule {rule!r} is not known; expected one of {', '.join(RULES)}")
    fold = RULES[rule]
    lines = correct = edits = characters = 0
    similarity = 0.0
    for prediction, reference in zip(map(fold, predictions), map(fold, references), strict=True):
        distance = Levenshtein.distance(prediction, reference)
        lines += 1
        correct += distance == 0
        edits += distance
        characters += len(reference)
        similarity += 1 - distance / max(len(prediction), len(reference), 1)
    return Score(lines, correct, edits, characters, similarity)


def scores(predictions: Sequence[str], references: Sequence[str]) -> tuple[dict[str, Score], dict[str, str]]:
    """Scores under every rule, and why a rule is missing."""
    scored: dict[str, Score] = {}
    absent: dict[str, str] = {}
    for rule in RULES:
        try:
            scored[rule] = score(predictions, references, rule)
        except UserError as error:
            absent[rule] = str(error)
    return scored, absent


def by_position(predictions: Sequence[str], references: Sequence[str]) -> list[tuple[int, int]]:
    """For each position of the references: how many characters stand there, and how many of them were read right.

    Positions are matched by the edit script, so one missing character does not spoil all that follow.
    """
    from rapidfuzz.distance import Levenshtein

    table = [[0, 0] for _ in range(max(map(len, references), default=0))]
    for prediction, reference in zip(predictions, references, strict=True):
        for position in range(len(reference)):
            table[position][0] += 1
        for block in Levenshtein.opcodes(reference, prediction):
            if block.tag == "equal":
                for position in range(block.src_start, block.src_end):
                    table[position][1] += 1
    return [(total, right) for total, right in table]
