"""Recognition metrics under the matching rules of several projects. Works on texts and never imports jax."""

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
        raise UserError("metric rule 'bctr' needs opencc; install it with: pip install 'jaxcrnn[report]'") from None
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
"""Matching rules: each normalizes prediction and reference before they are compared.

- ``exact`` changes nothing.
- ``paddle`` removes spaces (PaddleOCR's RecMetric).
- ``dtrb`` keeps ``[0-9a-z]`` of the lower-cased text (deep-text-recognition-benchmark).
- ``mmocr`` keeps ``[A-Za-z0-9]`` and U+4E00-9FA5 of the lower-cased text.
- ``bctr`` converts full width to half width, upper to lower case and traditional to simplified characters (Benchmarking
  Chinese Text Recognition); it hides look-alikes such as 國/国.
"""


def folded(text: str) -> str:
    """Remove spaces and convert full-width forms to half width, which print does not distinguish reliably.

    Args:
      text: a prediction or a reference.

    Returns:
      The text to compare.

    Examples:
      >>> from jaxcrnn import metrics
      >>> metrics.folded("合计：１２．５ 元")
      '合计:12.5元'
    """
    return text.translate(_FULL_WIDTH).replace(" ", "")


class Score(NamedTuple):
    """Sums over lines, from which the rates are computed.

    Attributes:
      lines: number of lines.
      correct: lines read without an error.
      edits: insertions, deletions and substitutions, summed over the lines.
      characters: characters of the references, summed over the lines.
      similarity: sum over the lines of ``1 - edits / max(len)``; two empty texts count as 1.
    """

    lines: int
    correct: int
    edits: int
    characters: int
    similarity: float

    @property
    def line_accuracy(self) -> float:
        """Fraction of the lines read without an error, in [0, 1]."""
        return self.correct / self.lines if self.lines else 0.0

    @property
    def character_accuracy(self) -> float:
        """``1 - sum(edits) / sum(reference length)``, 1 at most; negative with more edits than characters."""
        return 1 - self.edits / self.characters if self.characters else float(self.edits == 0)

    @property
    def normalized_similarity(self) -> float:
        """1-NED: the mean over the lines of ``1 - edits / max(len)``, in [0, 1]."""
        return self.similarity / self.lines if self.lines else 0.0


def score(predictions: Sequence[str], references: Sequence[str], rule: str = "exact") -> Score:
    """Score predictions against references under one matching rule.

    Args:
      predictions: N texts that were read.
      references: N true texts.
      rule: name of a rule in `RULES`.

    Returns:
      A `Score`.

    Raises:
      UserError: If the rule is unknown, or needs an optional package that is not installed.

    Examples:
      >>> from jaxcrnn import metrics
      >>> result = metrics.score(["cat", "dog"], ["cat", "dot"])
      >>> result.line_accuracy, result.edits, round(result.character_accuracy, 3)
      (0.5, 1, 0.833)
    """
    from rapidfuzz.distance import Levenshtein

    if rule not in RULES:
        raise UserError(f"unknown metric rule {rule!r}; expected one of {', '.join(RULES)}")
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
    """Score predictions under every rule.

    Args:
      predictions: N texts that were read.
      references: N true texts.

    Returns:
      The scores by rule, and for each rule that needs a missing package the reason why it was skipped.

    Examples:
      >>> from jaxcrnn import metrics
      >>> by_rule, skipped = metrics.scores(["a b"], ["ab"])
      >>> by_rule["exact"].line_accuracy, by_rule["paddle"].line_accuracy
      (0.0, 1.0)
    """
    by_rule: dict[str, Score] = {}
    skipped: dict[str, str] = {}
    for rule in RULES:
        try:
            by_rule[rule] = score(predictions, references, rule)
        except UserError as error:
            skipped[rule] = str(error)
    return by_rule, skipped


def by_position(predictions: Sequence[str], references: Sequence[str]) -> list[tuple[int, int]]:
    """Count the characters at each position of the references, and how many of them were read correctly.

    Positions are aligned by the edit script, so a missing character does not invalidate those after it.

    Args:
      predictions: N texts that were read.
      references: N true texts.

    Returns:
      ``(characters, correct)`` for each position, up to the longest reference.

    Examples:
      >>> from jaxcrnn import metrics
      >>> metrics.by_position(["cat", "dg"], ["cat", "dog"])
      [(2, 2), (2, 1), (2, 2)]
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
    return [(total, correct) for total, correct in table]
