"""Prefix beam search, which finds the most probable texts rather than the most probable path."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxcrnn import decode
from jaxcrnn._arguments import class_id, frame_lengths
from jaxcrnn.decoding.automata import DEAD, Automaton

_HASHES = (np.uint32(1000003), np.uint32(69069))


class Beams(NamedTuple):
    """The N best texts of each line, best first.

    Attributes:
      ids: ``[B,N,T]`` int32 class ids; 0 beyond ``counts``.
      counts: ``[B,N]`` int32 numbers of characters.
      log_p: ``[B,N]`` float32, log of the total probability of the kept paths that spell the text.
      scores: ``[B,N]`` float32, ``log_p`` plus the scores of the automata; ``-inf`` if there are fewer texts.
    """

    ids: Array
    counts: Array
    log_p: Array
    scores: Array


class _Beam(NamedTuple):
    """State of W prefixes.

    Log probabilities of the paths that end in a blank and in the last character, the last class (-1 for the empty
    text), length, two hashes, states of the automata, and the scores that these have added.
    """

    blank: Array
    last: Array
    token: Array
    length: Array
    hashes: Array
    states: Array
    extra: Array

    @property
    def log_p(self) -> Array:
        return jnp.logaddexp(self.blank, self.last)


@partial(jax.jit, static_argnames=("width", "classes", "blank", "best", "steps"))
def _search(
    logits: Array,
    lengths: Array,
    automata: Any,
    starts: Array,
    *,
    width: int,
    classes: int,
    blank: int,
    best: int,
    steps: tuple[int, ...],
) -> Beams:
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32), 2)
    one = partial(_line, automata=automata, starts=starts, width=width, k=classes, blank=blank, best=best, steps=steps)
    return jax.vmap(one)(log_p, lengths)


def search(
    logits: Array,
    lengths: Array,
    *,
    width: int = 16,
    classes: int = 24,
    blank: int = 0,
    best: int = 1,
    automata: Sequence[Automaton] = (),
) -> Beams:
    """Prefix beam search (Graves, 2012, and Hannun et al., 2014, algorithm 1).

    Args:
      logits: ``[B,T,C]``; frames at ``t >= lengths[b]`` are ignored.
      lengths: ``[B]`` int32 numbers of frames.
      width: W, number of prefixes kept in each frame.
      classes: number of most probable classes of a frame that extend prefixes.
      blank: class of the blank; negative to count from the end.
      best: N, number of texts to return, at most ``width``.
      automata: automata whose scores are added to the log probabilities (`jaxcrnn.decoding.automata`).

    Returns:
      The best texts. Prefixes are merged exactly, so the search is exhaustive if ``width`` and ``classes`` are large
      enough.
    """
    lengths, blank = frame_lengths(lengths, logits.shape[1]), class_id("blank", blank, logits.shape[2])
    classes = min(classes, logits.shape[2] - 1)
    arrays = tuple(tuple(jnp.asarray(a) for a in automaton[:7]) for automaton in automata)
    starts = jnp.asarray([automaton.start for automaton in automata], jnp.int32).reshape(-1)
    steps = tuple(automaton.steps for automaton in automata)
    return _search(
        logits, lengths, arrays, starts, width=width, classes=classes, blank=blank, best=min(best, width), steps=steps
    )


def _line(
    log_p: Array,
    length: Array,
    *,
    automata: Any,
    starts: Array,
    width: int,
    k: int,
    blank: int,
    best: int,
    steps: tuple[int, ...],
) -> Beams:
    nothing = jnp.full(width, -jnp.inf)
    beam = _Beam(
        nothing.at[0].set(0.0),
        nothing,
        jnp.full(width, -1, jnp.int32),
        jnp.zeros(width, jnp.int32),
        jnp.zeros((2, width), jnp.uint32),
        jnp.broadcast_to(starts[:, None], (len(starts), width)),
        jnp.zeros(width),
    )
    # Unused prefixes get unique hashes.
    beam = beam._replace(hashes=beam.hashes + jnp.arange(width, dtype=jnp.uint32)[None] * jnp.uint32(2654435761))
    numbers = jnp.arange(log_p.shape[1])
    characters = jnp.where(numbers[None] == blank, -jnp.inf, log_p)
    likely, tokens = jax.lax.top_k(characters, k)

    def frame(beam: _Beam, inputs: Any) -> tuple[_Beam, tuple[Array, Array]]:
        row, scores, classes, inside = inputs
        new, parents, added = _frame(beam, row, scores, classes.astype(jnp.int32), automata, blank, steps)
        kept = jax.tree.map(lambda a, b: jnp.where(inside, a, b), new, beam)
        same = jnp.arange(width, dtype=jnp.int32)
        return kept, (jnp.where(inside, parents, same), jnp.where(inside, added, -1))

    inside = jnp.arange(len(log_p)) < length
    beam, (parents, added) = jax.lax.scan(frame, beam, (log_p, likely, tokens, inside))
    extra = beam.extra
    for automaton, state in zip(automata, beam.states, strict=True):
        extra = extra + automaton[6][state]
    total = beam.log_p + extra
    total = jnp.where(jnp.isnan(total), -jnp.inf, total)
    scores, order = jax.lax.top_k(total, best)

    def back(at: Array, row: tuple[Array, Array]) -> tuple[Array, Array]:
        parent, token = row
        return parent[at], token[at]

    _, emitted = jax.lax.scan(back, order, (parents, added), reverse=True)  # [T,N]
    return Beams(*decode.pack(emitted.T, emitted.T >= 0), beam.log_p[order], scores)


def _frame(
    beam: _Beam, row: Array, scores: Array, classes: Array, automata: Any, blank: int, steps: tuple[int, ...]
) -> tuple[_Beam, Array, Array]:
    width, k = len(beam.token), len(classes)
    there = ~jnp.isneginf(beam.log_p)
    repeated = jnp.where(beam.token >= 0, row[beam.token], -jnp.inf)
    stay_blank, stay_last = beam.log_p + row[blank], beam.last + repeated
    # A prefix extended by a character may equal another prefix: i + the last of j = j.
    grown = (
        beam.hashes[:, :, None] * jnp.asarray(_HASHES)[:, None, None] + (beam.token + 2).astype(jnp.uint32)[None, None]
    )
    is_other = jnp.all(grown == beam.hashes[:, None, :], 0) & (beam.length[:, None] + 1 == beam.length[None, :])
    is_other &= there[:, None] & there[None, :]
    arriving = jnp.where(beam.token[:, None] == beam.token[None, :], beam.blank[:, None], beam.log_p[:, None])
    arriving = jnp.where(is_other, arriving + repeated[None, :], -jnp.inf)
    stay_last = jnp.logaddexp(stay_last, jax.nn.logsumexp(arriving, 0))
    # All other extensions, [W,K].
    long_last = jnp.where(classes[None] == beam.token[:, None], beam.blank[:, None], beam.log_p[:, None]) + scores[None]
    merged = (is_other[:, :, None] & (beam.token[None, :, None] == classes[None, None, :])).any(1)
    states, extra = beam.states, jnp.broadcast_to(beam.extra[:, None], (width, k))
    moved = []
    for automaton, state, count in zip(automata, states, steps, strict=True):
        after, gain = _walk(automaton, state, classes, count)
        moved.append(after.reshape(-1))
        extra = extra + gain
    long_last = jnp.where(merged | jnp.isneginf(extra), -jnp.inf, long_last)
    total = jnp.concatenate([jnp.logaddexp(stay_blank, stay_last) + beam.extra, (long_last + extra).reshape(-1)])
    total = jnp.where(jnp.isnan(total), -jnp.inf, total)
    _, chosen = jax.lax.top_k(total, width)
    stays = chosen < width
    parent = jnp.where(stays, chosen, (chosen - width) // k).astype(jnp.int32)
    token = jnp.where(stays, beam.token[parent], classes[(chosen - width) % k])
    longer = beam.hashes[:, parent] * jnp.asarray(_HASHES)[:, None] + (token + 2).astype(jnp.uint32)[None]
    every = [jnp.concatenate([state, after])[chosen] for state, after in zip(states, moved, strict=True)]
    new = _Beam(
        jnp.where(stays, stay_blank[parent], -jnp.inf),
        jnp.concatenate([stay_last, long_last.reshape(-1)])[chosen],
        token,
        beam.length[parent] + jnp.where(stays, 0, 1).astype(jnp.int32),
        jnp.where(stays[None], beam.hashes[:, parent], longer),
        jnp.stack(every) if every else states,
        jnp.concatenate([beam.extra, extra.reshape(-1)])[chosen],
    )
    return new, parent, jnp.where(stays, -1, token).astype(jnp.int32)


def _walk(automaton: Any, state: Array, classes: Array, steps: int) -> tuple[Array, Array]:
    """Advance W states along K classes; return the new states and the added scores, both ``[W,K]``."""
    first, labels, targets, scores, otherwise, toll, _ = automaton
    at = jnp.broadcast_to(state[:, None], (len(state), len(classes)))
    target = jnp.broadcast_to(classes[None], at.shape)
    done, total = jnp.zeros(at.shape, bool), jnp.zeros(at.shape)
    rounds = max(1, len(labels).bit_length())
    for _ in range(steps):
        low, high = first[at], first[at + 1]

        def halve(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = ends
            middle = (low + high) // 2
            less = (labels[jnp.minimum(middle, len(labels) - 1)] < target) & (low < high)
            return jnp.where(less, middle + 1, low), jnp.where(less | (low >= high), high, middle)

        place, _ = jax.lax.fori_loop(0, rounds, halve, (low, high))
        edge = jnp.minimum(place, len(labels) - 1)
        match = (place < first[at + 1]) & (labels[edge] == target) & ~done
        other = otherwise[at]
        stuck = ~match & ~done & (other == DEAD)
        loops = ~match & ~done & (other == at)
        total += jnp.where(match, scores[edge], jnp.where(done | loops, 0.0, jnp.where(stuck, -jnp.inf, toll[at])))
        at = jnp.where(match, targets[edge], jnp.where(done | stuck | loops, at, other))
        done |= match | stuck | loops
    return at, total
