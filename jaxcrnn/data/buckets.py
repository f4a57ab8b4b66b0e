"""Width buckets, and which lines make up which batch: a pure function of seed and epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Planned(NamedTuple):
    """One batch to be: the bucket it is padded to, and its items (fewer than the batch size only at the end)."""

    bucket: int
    items: np.ndarray


def choose(widths: Sequence[int] | np.ndarray, count: int, multiple: int = 16) -> tuple[int, ...]:
    """The ``count`` or fewer bucket widths that pad the given lines the least.

    Exact, by dynamic programming over the distinct widths rounded up to ``multiple``.

    Args:
      widths: widths of the lines in pixels.
      count: how many buckets at most; each costs one compilation.
      multiple: every bucket is a multiple of it.

    Returns:
      Ascending widths; the last holds the widest line.

    >>> choose([30, 31, 100, 310], 2)
    (112, 320)
    """
    rounded = -(-np.asarray(widths, np.int64) // multiple) * multiple
    edges, counts = np.unique(np.maximum(rounded, multiple), return_counts=True)
    below = np.concatenate([[0], np.cumsum(counts)])
    n = len(edges)
    # best[j]: least padded area of the j smallest widths with the buckets spent so far; the last bucket is edges[j-1].
    best = np.concatenate([[0.0], np.full(n, np.inf)])
    choices: list[np.ndarray] = []
    for _ in range(min(count, n)):
        cost = best[:-1, None] + edges[None, :] * (below[None, 1:] - below[:-1, None]).astype(float)
        cost[np.tril_indices(n, -1)] = np.inf
        choices.append(cost.argmin(0))
        best = np.concatenate([[0.0], cost.min(0)])
    chosen, end = [], n
    for choice in reversed(choices):
        if end == 0:
            break
        chosen.append(int(edges[end - 1]))
        end = int(choice[end - 1])
    return tuple(reversed(chosen))


def bucket_of(widths: np.ndarray, buckets: Sequence[int]) -> np.ndarray:
    """The index of the narrowest bucket that holds each width."""
    return np.searchsorted(np.asarray(buckets), widths)


def in_order(widths: np.ndarray, buckets: Sequence[int], batch_size: int) -> list[Planned]:
    """Batches for evaluation: every line once, in its own bucket whatever the batch size."""
    home = bucket_of(widths, buckets)
    plan = []
    for bucket in range(len(buckets)):
        items = np.flatnonzero(home == bucket)
        plan += [Planned(bucket, items[i : i + batch_size]) for i in range(0, len(items), batch_size)]
    return plan


def repeats(labels: Sequence[np.ndarray], share: float) -> np.ndarray:
    """How often an epoch shows each line, on average, so that rare characters are seen more often.

    Repeat factor sampling (Gupta, Dollar and Girshick 2019, section 4.2): ``max(1, sqrt(share / f))`` for the rarest
    character of the line, ``f`` being the share of the lines that have it. Scaled up to a whole number of lines.

    >>> repeats([np.array([1]), np.array([1]), np.array([1]), np.array([1, 2])], 1.0)
    array([1., 1., 1., 2.])
    """
    found = [np.unique(label) for label in labels]
    classes, counts = np.unique(np.concatenate(found), return_counts=True)
    factors = dict(zip(classes.tolist(), np.sqrt(share * len(labels) / counts), strict=True))
    each = np.asarray([max([1.0, *(factors[c] for c in own.tolist())]) for own in found])
    return each * np.ceil(each.sum() - 1e-9) / each.sum()


def epoch(
    widths: np.ndarray,
    buckets: Sequence[int],
    batch_size: int,
    seed: int,
    number: int,
    shown: np.ndarray | None = None,
) -> list[Planned]:
    """Batches of one epoch of training, in an order fixed by ``(seed, number)``.

    Every line is in it exactly once; or, with ``shown`` (see `repeats`), as often as that says on average over the
    epochs, never more than one time off, the sum of it lines in all.

    Lines that do not fill a batch of their bucket move up into the next wider one, so only the widest bucket can
    have a batch that is not full, and an epoch of N lines always has ``ceil(N / batch_size)`` batches.
    """
    rng = np.random.default_rng([seed, number])
    order = rng.permutation(len(widths))
    if shown is not None:
        # Systematic sampling: marks one apart, from a random start, over the lines laid end to end. Counted from the
        # far end, so that no rounding changes their number.
        ends = np.floor(np.cumsum(shown[order]) + rng.random())
        counts = np.diff(ends, prepend=ends[-1] - round(shown.sum())).astype(int)
        order = rng.permutation(np.repeat(order, counts))
    home = bucket_of(widths, buckets)[order]
    plan: list[Planned] = []
    rest = order[:0]
    for bucket in range(len(buckets)):
        items = np.concatenate([rest, order[home == bucket]])
        full = len(items) // batch_size * batch_size
        plan += [Planned(bucket, items[i : i + batch_size]) for i in range(0, full, batch_size)]
        rest = items[full:]
    if len(rest):
        narrowest = int(bucket_of(widths[rest].max(), buckets))
        plan.append(Planned(narrowest, rest))
    return [plan[i] for i in rng.permutation(len(plan))]


def shares(weights: Sequence[float], count: int) -> list[int]:
    """``count`` in whole parts proportional to the weights, the largest remainders rounded up.

    >>> shares([1, 1, 4], 8)
    [1, 1, 6]
    """
    exact = np.asarray(weights, float) * (count / sum(weights))
    parts = np.floor(exact + 1e-9).astype(int)
    for i in np.argsort(parts - exact, kind="stable")[: count - parts.sum()]:
        parts[i] += 1
    return parts.tolist()


def label_slots(widths: np.ndarray, lengths: np.ndarray, buckets: Sequence[int]) -> tuple[int, ...]:
    """Label slots L of each bucket: the longest label among the lines that fit it, at least 1."""
    home = bucket_of(widths, buckets)
    longest = [int(lengths[home <= b].max(initial=1)) for b in range(len(buckets))]
    return tuple(longest)
