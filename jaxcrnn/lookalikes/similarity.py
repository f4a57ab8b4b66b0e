"""Finding characters that look alike: by their glyphs, by tables, by what a recogniser confuses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

CELLS = 20  # rows and columns that glyphs are compared at
FRAME = 16  # of them, those that a glyph stretched to its own box fills
STRETCH = 2.0  # how far a box is stretched at most: 日 and 曰 become one size, 一 no square
LIFT = 0.02  # what the comparison of stretched boxes scores lower than the other for pairs as rare as those
NEIGHBOURS = 24  # candidates kept for each character


class Neighbours(NamedTuple):
    """The K most similar others of each of N characters.

    Attributes:
      indices: ``[N,K]`` int32, most similar first.
      scores: ``[N,K]`` float32, 1 for glyphs that are the same; -1 for a pair that no font has both of.
    """

    indices: np.ndarray
    scores: np.ndarray


def neighbours(
    tiles: np.ndarray,
    present: np.ndarray,
    *,
    count: int = NEIGHBOURS,
    rows: int = 512,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Neighbours:
    """The most similar glyphs of each glyph, averaged over the fonts that have both.

    Two ways of comparing, the better counts: glyphs where they stand, shifted against each other by up to a cell in
    both directions; and glyphs stretched to the same box, for characters that differ by little but their proportions.
    Both are the correlation of slightly blurred bitmaps.

    Args:
      tiles: ``[F,N,S,S]`` uint8 ink, S a multiple of 20.
      present: ``[F,N]`` bool.
      count: K.
      rows: characters compared at a time; memory grows with ``rows * N``.
      progress: called with the number of characters done, and N.
    """
    fonts, n = present.shape
    prepared = [(_shifted(_standing(tiles[f])), _shifted(_stretched(tiles[f]))) for f in range(fonts)]
    count = min(count, n - 1)
    indices, scores = np.zeros((n, count), np.int32), np.full((n, count), -1, np.float32)
    for start in range(0, n, rows):
        here = slice(start, min(start + rows, n))
        ways = np.zeros((2, here.stop - start, n), np.float32)
        both = np.zeros(ways.shape[1:], np.float32)
        for f, vectors in enumerate(prepared):
            shared = present[f, here, None] & present[f, None, :]
            for way, given in zip(ways, vectors, strict=True):
                way += np.where(shared, _best(given, here), 0)
            both += shared
        ways /= np.maximum(both, 1)
        total = np.where(both > 0, np.minimum(np.maximum(ways[0], ways[1] + LIFT), 1), -1)
        total[np.arange(len(total)), np.arange(start, here.stop)] = -2  # nobody is their own neighbour
        best = np.argpartition(-total, count - 1, axis=1)[:, :count]
        found = np.take_along_axis(total, best, 1)
        order = np.lexsort((best, -found))  # ties by index, so that no library's order shows
        indices[here] = np.take_along_axis(best, order, 1)
        scores[here] = np.take_along_axis(found, order, 1)
        progress(here.stop, n)
    return Neighbours(indices, scores)


def similarities(tiles: np.ndarray, present: np.ndarray, pairs: np.ndarray, *, rows: int = 4096) -> np.ndarray:
    """How alike given pairs are, as `alike` scores them.

    Args:
      tiles: ``[F,N,S,S]``, as `neighbours`.
      present: ``[F,N]``.
      pairs: ``[P,2]`` int.
      rows: pairs compared at a time.

    Returns:
      ``[P]`` float32; -1 for a pair that no font has both of.
    """
    used, at = np.unique(pairs, return_inverse=True)
    at = at.reshape(-1, 2)
    ways, both = np.zeros((2, 2, len(at)), np.float32), np.zeros(len(at), np.float32)  # ways, directions, pairs
    for font, there in zip(tiles, present, strict=True):
        shared = there[used[at]].all(1)
        both += shared
        for way, prepare in zip(ways, (_standing, _stretched), strict=True):
            vectors = _shifted(prepare(font[used]))
            for start in range(0, len(at), rows):
                here = slice(start, start + rows)
                for direction, (i, j) in zip(way, (at[here].T, at[here, ::-1].T), strict=True):
                    best = np.einsum("pd,spd->sp", vectors[0, i], vectors[:, j]).max(0)
                    direction[here] += np.where(shared[here], best, 0)
    ways /= np.maximum(both, 1)
    scores = np.minimum(np.maximum(ways[0], ways[1] + LIFT), 1).mean(0)
    return np.where(both > 0, scores, -1).astype(np.float32)


def _standing(tiles: np.ndarray) -> np.ndarray:
    """Tiles at 20 x 20 as they stand, slightly blurred."""
    n, size, _ = tiles.shape
    ink = tiles.reshape(n, CELLS, size // CELLS, CELLS, size // CELLS).mean((2, 4), dtype=np.float32)
    return _soft(ink / 255)


def _stretched(tiles: np.ndarray) -> np.ndarray:
    """The inked box of each tile, stretched towards 16 of 20 cells in both directions."""
    size = tiles.shape[1]
    target = size * FRAME / CELLS
    out = np.zeros((len(tiles), CELLS, CELLS), np.float32)
    for i, tile in enumerate(tiles):
        inked = tile > 64
        if not inked.any():
            continue
        maps = []
        for axis in (1, 0):
            used = np.flatnonzero(inked.any(axis))
            low, high = used[0], used[-1] + 1
            wide = min((high - low) * STRETCH, target) * CELLS / size
            maps.append(_resampled(low, high, wide, size))
        out[i] = maps[0] @ (tile.astype(np.float32) / 255) @ maps[1].T
    return _soft(out)


def _resampled(low: int, high: int, wide: float, size: int) -> np.ndarray:
    """``[20,size]`` weights that average pixels ``low`` to ``high`` into ``wide`` cells around the middle."""
    edges = low + (np.arange(CELLS + 1) - (CELLS - wide) / 2) * (high - low) / wide
    edges = np.clip(edges, low, high)
    pixels = np.arange(size)
    shared = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return (np.maximum(shared, 0) * wide / (high - low)).astype(np.float32)


def _soft(ink: np.ndarray) -> np.ndarray:
    """Blurred by [1 6 1] / 8 in both directions: strokes a fraction of a cell apart still meet."""
    for axis in (1, 2):
        pads = [(0, 0)] * 3
        pads[axis] = (1, 1)
        padded = np.pad(ink, pads)
        n = ink.shape[axis]
        parts = [np.take(padded, np.arange(i, i + n), axis) for i in range(3)]
        ink = (parts[0] + 6 * parts[1] + parts[2]) / 8
    return ink


def _shifted(ink: np.ndarray) -> np.ndarray:
    """``[9,N,400]``: unit vectors of the bitmaps as they are (first) and shifted by a cell in eight directions."""
    moves = [(0, 0)] + [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]
    vectors = np.stack([np.roll(ink, move, (1, 2)).reshape(len(ink), -1) for move in moves])
    vectors -= vectors.mean(-1, keepdims=True)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-6)


def _best(vectors: np.ndarray, here: slice) -> np.ndarray:
    best = vectors[0, here] @ vectors[0].T
    for moved in vectors[1:]:
        np.maximum(best, vectors[0, here] @ moved.T, out=best)
    return best


def alike(
    found: Neighbours, *, sure: float = 0.9, possible: float = 0.8, rank: int = 3
) -> dict[tuple[int, int], float]:
    """Pairs that look alike, with their scores.

    Simple characters have fewer strokes to share, so their scores are lower: a pair counts if its score is ``sure``,
    or if it is ``possible`` and the two are near the top of each other's lists (the sum of both places is at most
    ``rank``).
    """
    place = {
        (i, int(j)): (k + 1, float(score))
        for i, (row, scores) in enumerate(zip(found.indices, found.scores, strict=True))
        for k, (j, score) in enumerate(zip(row, scores, strict=True))
    }
    pairs = {}
    for (i, j), (k, score) in place.items():
        if i > j and (j, i) in place:
            continue
        other, back = place.get((j, i), (rank, score))
        score = (score + back) / 2
        if score >= sure or (score >= possible and k + other <= rank):
            pairs[min(i, j), max(i, j)] = score
    return pairs


def merge(
    pairs: Mapping[tuple[int, int], float],
    scores: Mapping[tuple[int, int], float],
    *,
    least: float = 0.8,
    largest: int = 6,
) -> list[list[int]]:
    """Groups of pairs, best pairs first: two groups become one if all their members are alike enough.

    Args:
      pairs: those that may be grouped, with what decides their order.
      scores: of all pairs that are known, for the members that a merger brings together.
      least: lowest score between any two members of a group.
      largest: members of a group at most.

    Returns:
      Groups in the order of their best pair, members ascending.
    """
    home: dict[int, list[int]] = {}
    for i, j in sorted(pairs, key=lambda pair: (-pairs[pair], pair)):
        one, two = home.get(i, [i]), home.get(j, [j])
        if one is two or len(one) + len(two) > largest:
            continue
        if all(max(scores.get((a, b), -1), scores.get((b, a), -1)) >= least for a in one for b in two):
            joined = one + two
            home |= dict.fromkeys(joined, joined)
    seen: set[int] = set()
    groups = []
    for i, j in sorted(pairs, key=lambda pair: (-pairs[pair], pair)):
        for member in (i, j):
            group = home.get(member, [])
            if len(group) > 1 and member not in seen:
                seen.update(group)
                groups.append(sorted(group))
    return groups


def known_scores(found: Neighbours) -> dict[tuple[int, int], float]:
    """Every pair of `Neighbours` with its score."""
    return {
        (i, int(j)): float(score)
        for i, (row, scores) in enumerate(zip(found.indices, found.scores, strict=True))
        for j, score in zip(row, scores, strict=True)
    }


def agreement(groups: Sequence[str], table: Iterable[frozenset[str]], characters: str) -> tuple[float, float, int, int]:
    """How pairs within groups agree with a table of pairs.

    Returns:
      Share of the groups' pairs that the table has, share of the table's pairs (both of them among ``characters``) that
      are within a group, and both numbers of pairs.
    """
    ours = {frozenset((a, b)) for group in groups for a in group for b in group if a != b}
    theirs = {pair for pair in table if len(pair) == 2 and all(c in characters for c in pair)}
    both = len(ours & theirs)
    return both / max(len(ours), 1), both / max(len(theirs), 1), len(ours), len(theirs)
