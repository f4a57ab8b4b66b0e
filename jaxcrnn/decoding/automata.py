"""What texts are likely, as automata that a beam search walks through: lexicons and character n-grams.

Nothing here imports jax: an automaton is a few arrays.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from jaxcrnn.charset import Charset
from jaxcrnn.decoding.ngram import BEGIN, END, UNKNOWN, NGrams
from jaxcrnn.errors import UserError

DEAD = -1
LEAST = float(np.log(1e-9))  # for what a model has no probability of


class Automaton(NamedTuple):
    """States, and what reading a class adds to a text's log score.

    From a state, a class leads along its edge. Where there is none, the state's ``otherwise`` is gone to, its ``toll``
    added, and the class read there; where that is `DEAD`, no text goes on. Edges of a state are sorted by class.

    Attributes:
      first: ``[N+1]`` int32, where each state's edges begin.
      classes: ``[E]`` int32.
      targets: ``[E]`` int32, states.
      scores: ``[E]`` float32, added on the way.
      otherwise: ``[N]`` int32.
      toll: ``[N]`` float32.
      final: ``[N]`` float32, added where a text ends; ``-inf`` where none may.
      start: the state before the first class.
      steps: how many times a class may be looked for.
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
    edges: Sequence[dict[int, tuple[int, float]]], otherwise: Sequence[int], toll: Sequence[float],
    final: Sequence[float], start: int, steps: int,
) -> Automaton:  # fmt: skip
    flat = [(c, target, score) for row in edges for c, (target, score) in sorted(row.items())]
    flat = flat or [(-2, 0, 0.0)]  # an array that can be looked into
    return Automaton(
        np.cumsum([0, *map(len, edges)]).astype(np.int32), np.asarray([e[0] for e in flat], np.int32),
        np.asarray([e[1] for e in flat], np.int32), np.asarray([e[2] for e in flat], np.float32),
        np.asarray(otherwise, np.int32), np.asarray(toll, np.float32), np.asarray(final, np.float32), start, steps,
    )  # fmt: skip


def lexicon(words: Iterable[str], charset: Charset, weight: float | None = None) -> Automaton:
    """Texts made of listed words, with spaces between them where the charset has the space.

    Args:
      words: at least one; those with a character outside the charset can never be read, which is the caller's to say.
        What has spaces in it counts as its words.
      charset: the recogniser's.
      weight: what each listed word adds to the log score of a text; None allows no other words.

    Raises:
      UserError: no word that the charset can spell.
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
        raise UserError("no word of the lexicon is spelled with the charset's characters; expected one a line")
    gain = weight or 0.0
    count = len(edges)
    if weight is not None:
        edges.append({})  # inside a word that is not listed
    if " " in charset:
        (space,) = charset.encode(" ")
        for state in range(1, len(edges)):
            if space not in edges[state] and (state in ends or weight is not None):
                edges[state][space] = (0, gain if state in ends else 0.0)
    final = [gain if state in ends else (-np.inf if weight is None else 0.0) for state in range(len(edges))]
    # In a word that is not listed a class without an edge stays: a state that leads to itself.
    otherwise = [DEAD] * count if weight is None else [count] * (count + 1)
    return _automaton(edges, otherwise, [0.0] * len(edges), final, 0, 2)


def of_ngrams(model: NGrams, charset: Charset, weight: float, bonus: float = 0.0) -> Automaton:
    """Character n-grams for texts of a charset.

    Args:
      model: of `jaxcrnn.decoding.ngram`.
      charset: the recogniser's; a character that the model lacks has the probability of ``<unk>``.
      weight: of the model's log probability in the score of a text.
      bonus: added for each character, against the model's love of short texts.
    """
    class_of = {c: charset.encode(c)[0] for c in model.characters if c in charset}
    longest = model.order - 1
    # A context is a state where the model has characters that follow it, or a weight for those that do not.
    contexts = {(), *(gram[:-1] for gram in model.log_p), *(gram for gram in model.backoff if len(gram) <= longest)}
    names = sorted((gram for gram in contexts if all(c in class_of or c == BEGIN for c in gram)),
                   key=lambda gram: (len(gram), gram))  # fmt: skip
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
    return _automaton(edges, otherwise, (weight * backoff).tolist(), (weight * final).tolist(), state((BEGIN,)),
                      model.order + 1)  # fmt: skip


def score(automaton: Automaton, classes: Sequence[int]) -> float:
    """What an automaton adds to a whole text, ``-inf`` for one it does not allow."""
    state, total = automaton.start, 0.0
    for c in classes:
        for _ in range(automaton.steps):
            row = slice(int(automaton.first[state]), int(automaton.first[state + 1]))
            found = np.flatnonzero(automaton.classes[row] == c)
            if len(found):
                total += float(automaton.scores[row][found[0]])
                state = int(automaton.targets[row][found[0]])
                break
            if automaton.otherwise[state] == DEAD:
                return -np.inf
            if automaton.otherwise[state] == state:
                break
            total += float(automaton.toll[state])
            state = int(automaton.otherwise[state])
    return total + float(automaton.final[state])
