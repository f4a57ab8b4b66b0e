"""What texts are likely, as automata that a beam search walks through: lexicons and character n-grams.

Nothing here imports jax: an automaton is a few arrays.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from jaxcrnn.charset import Charset
from jaxcrnn.errors import UserError

DEAD = -1


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


class NGrams(NamedTuple):
    """A character n-gram model with interpolated Kneser-Ney smoothing (Chen and Goodman, 1999, eq. 28), as a trie.

    State 0 is the empty context.

    Attributes:
      order: n.
      parents: ``[N]`` int32, the n-gram without its last character; 0 of state 0.
      tokens: ``[N]`` int32, the last character's place in ``characters`` + 2; 0 begins a line, 1 ends it.
      log_p: ``[N]`` float32, natural log of the probability of the last character after the others.
      backoff: ``[N]`` float32, log of what is left for characters never seen after it.
      characters: of the text.
    """

    order: int
    parents: np.ndarray
    tokens: np.ndarray
    log_p: np.ndarray
    backoff: np.ndarray
    characters: str


BEGIN, END = 0, 1


def train(lines: Iterable[str], order: int) -> NGrams:
    """Counts n-grams of lines of text.

    Args:
      lines: without their ends; empty ones are left out.
      order: n, 1 or more.

    Raises:
      UserError: no line with a character.
    """
    kept = [line for line in lines if line]
    if not kept:
        raise UserError("no line with a character; expected plain text")
    characters = "".join(sorted(set().union(*kept)))
    token = {c: i + 2 for i, c in enumerate(characters)}
    grams: list[dict[tuple[int, ...], int]] = [{} for _ in range(order)]
    for line in kept:
        row = (BEGIN, *(token[c] for c in line), END)
        for end in range(1, len(row)):
            for n in range(1, order + 1):
                if end - n + 1 >= 0:
                    gram = row[end - n + 1 : end + 1]
                    grams[n - 1][gram] = grams[n - 1].get(gram, 0) + 1
    for n in range(order - 1):  # below the highest order: after how many characters, not how often
        fewer: dict[tuple[int, ...], int] = {}
        for gram in grams[n + 1]:
            fewer[gram[1:]] = fewer.get(gram[1:], 0) + 1
        grams[n] = {gram: count if gram[0] == BEGIN else fewer[gram] for gram, count in grams[n].items()}
    return _smoothed(grams, characters)


def _smoothed(grams: Sequence[dict[tuple[int, ...], int]], characters: str) -> NGrams:
    every = len(characters) + 1  # and the end
    p: dict[tuple[int, ...], float] = {}
    backoff: dict[tuple[int, ...], float] = {}
    for counts in grams:
        seen = np.bincount(np.minimum(list(counts.values()), 3), minlength=4)
        discount = seen[1] / (seen[1] + 2 * seen[2]) if seen[1] and seen[2] else 0.5
        totals: dict[tuple[int, ...], list[int]] = {}
        for gram, count in counts.items():
            total = totals.setdefault(gram[:-1], [0, 0])
            total[0], total[1] = total[0] + count, total[1] + 1
        for context, (total_count, kinds) in totals.items():
            backoff[context] = discount * kinds / total_count
        for gram, count in counts.items():
            lower = p[gram[1:]] if len(gram) > 1 else 1.0 / every
            p[gram] = max(count - discount, 0.0) / totals[gram[:-1]][0] + backoff[gram[:-1]] * lower
    # Contexts that begin a line are no n-grams themselves, but states.
    names = sorted({(), *p, *(gram[:k] for gram in p for k in range(1, len(gram)))}, key=lambda gram: (len(gram), gram))
    number = {gram: i for i, gram in enumerate(names)}
    return NGrams(
        len(grams), np.asarray([number[gram[:-1]] if gram else 0 for gram in names], np.int32),
        np.asarray([gram[-1] if gram else 0 for gram in names], np.int32),
        np.asarray([np.log(p[gram]) if gram in p else -np.inf for gram in names], np.float32),
        np.asarray([np.log(backoff[gram]) if gram in backoff else 0.0 for gram in names], np.float32), characters,
    )  # fmt: skip


def of_ngrams(model: NGrams, charset: Charset, weight: float, bonus: float = 0.0) -> Automaton:
    """A model of language for texts of a charset.

    Args:
      model: of `train`.
      charset: the recogniser's; a character that the model has never seen costs what is left for it.
      weight: of the model's log probability in the score of a text.
      bonus: added for each character, against the model's love of short texts.
    """
    names: list[tuple[int, ...]] = [()]
    for i in range(1, len(model.parents)):
        names.append((*names[int(model.parents[i])], int(model.tokens[i])))
    number = {gram: i for i, gram in enumerate(names)}
    longest = model.order - 1
    # A context is a state where something is known to follow it.
    follows = {gram[:-1] for gram in names[1:]}

    def state(gram: tuple[int, ...]) -> int:
        gram = gram[-longest:] if longest else ()
        while gram and gram not in follows:
            gram = gram[1:]
        return number[gram]

    class_of = {i + 2: charset.encode(c)[0] for i, c in enumerate(model.characters) if c in charset}
    edges: list[dict[int, tuple[int, float]]] = [{} for _ in names]
    final = np.full(len(names), -np.inf)
    for i, gram in enumerate(names[1:], start=1):
        context = int(model.parents[i])
        if gram[-1] == END:
            final[context] = model.log_p[i]
        elif gram[-1] in class_of:
            edges[context][class_of[gram[-1]]] = (state(gram), weight * float(model.log_p[i]) + bonus)
    # Characters never seen share what the unigrams leave.
    never = weight * (float(model.backoff[0]) - float(np.log(len(model.characters) + 1))) + bonus
    for c in range(charset.num_classes):
        if c != charset.blank:
            edges[0].setdefault(c, (0, never))
    otherwise = [number[gram[1:]] if gram and gram[1:] in number else 0 for gram in names]
    otherwise[0] = DEAD
    for i in range(len(names)):  # shorter contexts come first
        if np.isneginf(final[i]):
            final[i] = model.backoff[i] + final[otherwise[i]] if i else np.log(1e-9)
    toll = weight * model.backoff
    toll[0] = 0.0
    return _automaton(edges, otherwise, toll.tolist(), (weight * final).tolist(), state((BEGIN,)), model.order + 1)


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
