"""Lexicons and character n-grams as weighted automata for beam search.

This module does not import jax: an automaton is a few numpy arrays.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from jaxcrnn.charset import Charset
from jaxcrnn.decoding.ngram import BEGIN, END, UNKNOWN, NGrams
from jaxcrnn.errors import UserError

DEAD = -1
LEAST = float(np.log(1e-9))  # log probability of events that the model lacks


class Automaton(NamedTuple):
    """Weighted automaton with failure transitions, which adds scores to the log score of a text.

    A class follows its edge from the current state. Without such an edge, the automaton moves to the state's
    ``otherwise``, adds its ``toll``, and tries the class there; if ``otherwise`` is `DEAD`, the text is rejected. The
    edges of a state are sorted by class.

    Attributes:
      first: ``[N+1]`` int32, offset of each state's edges.
      classes: ``[E]`` int32, class of each edge.
      targets: ``[E]`` int32, target state of each edge.
      scores: ``[E]`` float32, score of each edge.
      otherwise: ``[N]`` int32, failure state.
      toll: ``[N]`` float32, score of the failure transition.
      final: ``[N]`` float32, score of ending in a state; ``-inf`` if no text may end there.
      start: start state.
      steps: maximum number of states visited for one class.
    """

    first: np.ndarray
    classes: np.ndarray
    targets: np.ndarray
    scores: np.ndarray
    otherwise: np.ndarray
    toll: np.ndarray
    final: np.ndarray
    start: int
    steps: int


def _automaton(
    edges: Sequence[dict[int, tuple[int, float]]],
    otherwise: Sequence[int],
    toll: Sequence[float],
    final: Sequence[float],
    start: int,
    steps: int,
) -> Automaton:
    flat = [(c, target, score) for row in edges for c, (target, score) in sorted(row.items())]
    flat = flat or [(-2, 0, 0.0)]  # arrays must not be empty
    return Automaton(
        np.cumsum([0, *map(len, edges)]).astype(np.int32),
        np.asarray([e[0] for e in flat], np.int32),
        np.asarray([e[1] for e in flat], np.int32),
        np.asarray([e[2] for e in flat], np.float32),
        np.asarray(otherwise, np.int32),
        np.asarray(toll, np.float32),
        np.asarray(final, np.float32),
        start,
        steps,
    )


def lexicon(words: Iterable[str], charset: Charset, weight: float | None = None) -> Automaton:
    """Build an automaton for texts made of listed words, separated by spaces if the charset has the space.

    Args:
      words: at least one word; entries with characters outside the charset are skipped, and entries with spaces count
        as several words.
      charset: charset of the recogniser.
      weight: score that each listed word adds; None rejects other words.

    Raises:
      UserError: no word consists of characters of the charset.
    """
    edges: list[dict[int, tuple[int, float]]] = [{}]
    ends: set[int] = set()
    for word in (part for line in words if not charset.missing(line) for part in line.split(" ") if part):
        state = 0
        for c in charset.encode(word):
            if c not in edges[state]:
                edges[state][c] = (len(edges), 0.0)
                edges.append({})
            state = edges[state][c][0]
        ends.add(state)
    if not ends:
        raise UserError("no word of the lexicon consists of characters of the charset; expected one word per line")
    gain = weight or 0.0
    count = len(edges)
    if weight is not None:
        edges.append({})  # state inside an unlisted word
    if " " in charset:
        (space,) = charset.encode(" ")
        for state in range(1, len(edges)):
            if space not in edges[state] and (state in ends or weight is not None):
                edges[state][space] = (0, gain if state in ends else 0.0)
    final = [gain if state in ends else (-np.inf if weight is None else 0.0) for state in range(len(edges))]
    # Inside an unlisted word, a class without an edge stays in the state.
    otherwise = [DEAD] * count if weight is None else [count] * (count + 1)
    return _automaton(edges, otherwise, [0.0] * len(edges), final, 0, 2)


def of_ngrams(model: NGrams, charset: Charset, weight: float, bonus: float = 0.0) -> Automaton:
    """Build an automaton for character n-grams.

    Args:
      model: n-gram model.
      charset: charset of the recogniser; characters that the model lacks have the probability of ``<unk>``.
      weight: weight of the model's log probability in the score of a text.
      bonus: score added for each character, to offset the model's preference for short texts.
    """
    class_of = {c: charset.encode(c)[0] for c in model.characters if c in charset}
    longest = model.order - 1
    # A context is a state if the model has a following character or a back-off weight for it.
    contexts = {(), *(gram[:-1] for gram in model.log_p), *(gram for gram in model.backoff if len(gram) <= longest)}
    names = sorted(
        (gram for gram in contexts if all(c in class_of or c == BEGIN for c in gram)),
        key=lambda gram: (len(gram), gram),
    )
    number = {gram: i for i, gram in enumerate(names)}

    def state(gram: tuple[str, ...]) -> int:
        gram = gram[-longest:] if longest else ()
        while gram not in number:
            gram = gram[1:]
        return number[gram]

    edges: list[dict[int, tuple[int, float]]] = [{} for _ in names]
    final = np.full(len(names), -np.inf)
    for gram, log_p in model.log_p.items():
        if gram[:-1] not in number:
            continue
        context = number[gram[:-1]]
        if gram[-1] == END:
            final[context] = log_p
        elif gram[-1] in class_of:
            edges[context][class_of[gram[-1]]] = (state(gram), weight * log_p + bonus)
    unknown = weight * model.log_p.get((UNKNOWN,), LEAST) + bonus
    for c in range(charset.num_classes):
        if c != charset.blank:
            edges[0].setdefault(c, (0, unknown))
    backoff = np.asarray([model.backoff.get(gram, 0.0) if gram else 0.0 for gram in names])
    otherwise = [DEAD, *(state(gram[1:]) for gram in names[1:])]
    for i in range(len(names)):  # shorter contexts come first
        if np.isneginf(final[i]):
            final[i] = backoff[i] + final[otherwise[i]] if i else LEAST
    return _automaton(
        edges, otherwise, (weight * backoff).tolist(), (weight * final).tolist(), state((BEGIN,)), model.order + 1
    )


def score(automaton: Automaton, classes: Sequence[int]) -> float:
    """Return the score that an automaton adds to a whole text, ``-inf`` if it rejects the text."""
    state, total = automaton.start, 0.0
    for c in classes:
        for _ in range(automaton.steps):
            row = slice(int(automaton.first[state]), int(automaton.first[state + 1]))
            edges = np.flatnonzero(automaton.classes[row] == c)
            if len(edges):
                total += float(automaton.scores[row][edges[0]])
                state = int(automaton.targets[row][edges[0]])
                break
            if automaton.otherwise[state] == DEAD:
                return -np.inf
            if automaton.otherwise[state] == state:
                break
            total += float(automaton.toll[state])
            state = int(automaton.otherwise[state])
    return total + float(automaton.final[state])
