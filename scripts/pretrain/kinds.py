"""Scores of lines, and of their characters by kind."""

import numpy as np

from jaxcrnn.lookalikes.confusions import align, members, score

KINDS = ("digits", "Latin", "punctuation", "Han")

Counts = dict[str, tuple[np.ndarray, np.ndarray]]


def kind_of(character: str) -> str:
    """One of `KINDS`."""
    if "\u3400" <= character <= "\u9fff":
        return "Han"
    if character.isascii() and character.isalnum():
        return "digits" if character.isdigit() else "Latin"
    return "punctuation"


def counted(read: list[str], truths: list[str], groups: list[str]) -> Counts:
    """Numerators and denominators ``[1,N]`` of each score, for N lines; those of kinds that do not occur are skipped.

    A character that was put in counts against its own kind.
    """
    lines = score(read, truths, groups).lines
    ones = np.ones_like(lines.correct)
    counts = {
        "characters right": (lines.characters - lines.edits, lines.characters),
        "lines right": (lines.correct, ones),
        "look-alikes substituted": (lines.substituted, lines.members),
    }
    right, all_of = np.zeros((len(KINDS), len(truths)), np.int64), np.zeros((len(KINDS), len(truths)), np.int64)
    group = members(groups)
    for n, (truth, text) in enumerate(zip(truths, read, strict=True)):
        for written, got in align(truth, text, group):
            kind = KINDS.index(kind_of(written or got))
            all_of[kind, n] += bool(written)
            right[kind, n] += 1 if written == got else -(not written)
    counts |= {kind: (right[i], all_of[i]) for i, kind in enumerate(KINDS) if all_of[i].sum()}
    return {name: (over[None], under[None]) for name, (over, under) in counts.items() if under.sum()}
