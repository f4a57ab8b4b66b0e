"""Width buckets, and the assignment of lines to batches as a pure function of seed and epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Planned(NamedTuple):
    """A planned batch: its bucket and its items (fewer than the batch size only at the end of an epoch)."""

    bucket: int
    items: np.ndarray


def choose(widths: Sequence[int] | np.ndarray, count: int, multiple: int = 16) -> tuple[int, ...]:
    """Choose at most ``count`` bucket widths that minimize the padding of the given lines.

    The result is optimal; it is found by dynamic programming over the distinct widths, rounded up to ``multiple``.

    Args:
      widths: widths of the lines in pixels.
      count: maximum number of buckets; each costs one compilation.
      multiple: bucket widths are multiples of this value.

    Returns:
      Ascending widths; the last fits the widest line.

    >>> choose([30, 31, 100, 310], 2)
    (112, 320)
    """
    rounded = -(-np.asarray(widths, np.int64) // multiple) * multiple
    edges, counts = np.unique(np.maximum(rounded, multiple), return_counts=True)
    below = np.concatenate([[0], np.cumsum(counts)])
    n = len(edges)
    # best[j]: smallest padded area of the j smallest widths with the buckets used so far, the last being edges[j-1].
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
    """Return the index of the narrowest bucket that fits each width."""
    return np.searchsorted(np.asarray(buckets), widths)


def in_order(widths: np.ndarray, buckets: Sequence[int], batch_size: int) -> list[Planned]:
    """Plan the batches of an evaluation: every line once, in its own bucket for any batch size."""
    home = bucket_of(widths, buckets)
    plan = []
    for bucket in range(len(buckets)):
        items = np.flatnonzero(home == bucket)
        plan += [Planned(bucket, items[i : i + batch_size]) for i in range(0, len(items), batch_size)]
    return plan


def epoch(widths: np.ndarray, buckets: Sequence[int], batch_size: int, seed: int, number: int) -> list[Planned]:
    """Plan the batches of a training epoch, in an order determined by ``(seed, number)``.

    Every line occurs exactly once. Lines that do not fill a batch of their bucket move to the next wider one, so that
    at most one batch is not full, and an epoch of N lines always has ``ceil(N / batch_size)`` batches.
    """
    rng = np.random.default_rng([seed, number])
    order = rng.permutation(len(widths))
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
    """Split ``count`` into integers proportional to the weights, rounding up the largest remainders.

    >>> shares([1, 2, 4], 8)
    [1, 2, 5]
    """
    exact = np.asarray(weights, float) * (count / sum(weights))
    parts = np.floor(exact + 1e-9).astype(int)
    for i in np.argsort(parts - exact, kind="stable")[: count - parts.sum()]:
        parts[i] += 1
    return parts.tolist()


def label_slots(widths: np.ndarray, lengths: np.ndarray, buckets: Sequence[int]) -> tuple[int, ...]:
    """Return the label slots L of each bucket: the longest label among the lines that fit it, at least 1."""
    home = bucket_of(widths, buckets)
    longest = [int(lengths[home <= b].max(initial=1)) for b in range(len(buckets))]
    return tuple(longest)
