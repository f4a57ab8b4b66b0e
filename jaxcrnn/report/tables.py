"""Results as text tables and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jaxcrnn import metrics
from jaxcrnn._console import table, to_json
from jaxcrnn.data.audit import Corpus
from jaxcrnn.decoding.evaluate import Evaluation

if TYPE_CHECKING:
    from jaxcrnn.parity.ladder import Rung


def score_table(scores: dict[str, metrics.Score], absent: dict[str, str]) -> str:
    """Format scores, one row per rule."""
    rows: list[Sequence[object]] = [
        (
            rule,
            f"{s.line_accuracy:.2%}",
            f"{s.character_accuracy:.2%}",
            f"{s.normalized_similarity:.4f}",
            f"{s.correct}/{s.lines}",
            f"{s.edits}/{s.characters}",
        )
        for rule, s in scores.items()
    ]
    text = table(("rule", "line accuracy", "character accuracy", "1-NED", "lines", "edits"), rows)
    return "\n".join([text, *(f"{rule}: not measured: {why}" for rule, why in absent.items())])


def parity_table(ladder: Sequence[Rung]) -> str:
    """Format the parity ladder, one row per rung."""
    rows = [
        (r.name, r.part, r.arrays, f"{r.error:.1e}", f"{r.tolerance:.0e}", "" if r.holds else "FAILS", r.worst)
        for r in ladder
    ]
    return table(("rung", "part", "arrays", "error", "tolerance", "", "largest in"), rows)


def position_table(result: Evaluation) -> str:
    """Format the accuracy at each position of the text."""
    rows = metrics.by_position([line.text for line in result.lines], result.truths)
    return table(
        ("position", "characters", "correct", "accuracy"),
        [(i, total, right, f"{right / total:.2%}") for i, (total, right) in enumerate(rows, start=1)],
    )


def mistakes(result: Evaluation, most: int = 5) -> str:
    """Format the first misread lines."""
    wrong = [(line, truth) for line, truth in zip(result.lines, result.truths, strict=True) if line.text != truth]
    if not wrong:
        return "no mistakes: every line was read correctly"
    rows = [(line.name, f"{line.confidence:.3f}", repr(truth), repr(line.text)) for line, truth in wrong[:most]]
    more = f"\n... and {len(wrong) - most} more misread lines" if len(wrong) > most else ""
    return table(("misread line", "confidence", "written", "read"), rows) + more


def evaluation_json(result: Evaluation, corpus: Corpus, facts: dict[str, Any]) -> str:
    """Format everything that ``jaxcrnn evaluate`` measured as JSON."""
    scores, absent = result.scores()
    values = {
        **facts,
        "lines": len(result.lines),
        "left_out": corpus.left_out,
        "faults": corpus.counts(),
        "loss": round(result.loss, 4),
        "loss_lines": result.spelled,
        "rules": {
            rule: {
                "line_accuracy": s.line_accuracy,
                "character_accuracy": s.character_accuracy,
                "1_ned": s.normalized_similarity,
                "correct": s.correct,
                "edits": s.edits,
                "characters": s.characters,
            }
            for rule, s in scores.items()
        },
        "not_measured": absent,
    }
    return to_json(values, indent=2)
