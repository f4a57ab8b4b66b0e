"""Similarity of glyphs, and the grouping of similar characters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

CELLS = 20  # rows and columns of the grid on which glyphs are compared
FRAME = 16  # cells that a stretched glyph fills
STRETCH = 2.0  # largest stretch of a glyph's box: 日 and 曰 get the same size, 一 does not become a square
LIFT = 0.02  # added to scores of stretched glyphs, which are lower than unstretched ones for equally rare pairs
NEIGHBOURS = 24  # candidates kept for each character


class Neighbours(NamedTuple):
    """The K most similar others of each of N characters.

    Attributes:
      indices: ``[N,K]`` int32, the most similar first.
      scores: ``[N,K]`` float32, 1 for identical glyphs; -1 for a pair that no font has both of.
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
    """Find the most similar glyphs of each glyph, averaged over the fonts that have both.

    The similarity is the correlation of slightly blurred bitmaps, and the better of two comparisons: unstretched glyphs
    shifted against each other by up to one cell in both directions, and glyphs stretched to the same box, for
    characters that differ in little but their proportions.

    Args:
      tiles: ``[F,N,S,S]`` uint8 ink of F fonts and N characters, with S a multiple of 20.
      present: ``[F,N]`` bool, which fonts have which characters.
      count: number of neighbours K.
      rows: number of characters compared at a time; memory grows with ``rows * N``.
      progress: called with the number of characters done, and N.

    Returns:
      `Neighbours`.

    Examples:
      >>> import numpy as np
      >>> from jaxcrnn.lookalikes.similarity import neighbours
      >>> tiles = np.zeros((1, 3, 20, 20), np.uint8)  # two vertical bars and a horizontal one
      >>> tiles[0, 0, 4:16, 9:11] = tiles[0, 1, 4:16, 9:12] = tiles[0, 2, 9:11, 4:16] = 255
      >>> neighbours(tiles, np.ones((1, 3), bool), count=1).indices[:2].ravel().tolist()
      [1, 0]
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
            for way, bitmaps in zip(ways, vectors, strict=True):
                way += np.where(shared, _best(bitmaps, here), 0)
            both += shared
        ways /= np.maximum(both, 1)
        total = np.where(both > 0, np.minimum(np.maximum(ways[0], ways[1] + LIFT), 1), -1)
        total[np.arange(len(total)), np.arange(start, here.stop)] = -2  # a character is not its own neighbour
        best = np.argpartition(-total, count - 1, axis=1)[:, :count]
        best_scores = np.take_along_axis(total, best, 1)
        order = np.lexsort((best, -best_scores))  # break ties by index, so results do not depend on the sort
        indices[here] = np.take_along_axis(best, order, 1)
        scores[here] = np.take_along_axis(best_scores, order, 1)
        progress(here.stop, n)
    return Neighbours(indices, scores)


def similarities(tiles: np.ndarray, present: np.ndarray, pairs: np.ndarray, *, rows: int = 4096) -> np.ndarray:
    """Score the similarity of given pairs, as `alike` does.

    Args:
      tiles: ``[F,N,S,S]`` uint8, as in `neighbours`.
      present: ``[F,N]`` bool, which fonts have which characters.
      pairs: ``[P,2]`` int, indices of characters.
      rows: number of pairs compared at a time.

    Returns:
      ``[P]`` float32; -1 for a pair that no font has both of.

    Examples:
      >>> import numpy as np
      >>> from jaxcrnn.lookalikes.similarity import similarities
      >>> tiles = np.zeros((1, 3, 20, 20), np.uint8)  # two vertical bars and a horizontal one
      >>> tiles[0, 0, 4:16, 9:11] = tiles[0, 1, 4:16, 9:12] = tiles[0, 2, 9:11, 4:16] = 255
      >>> close, far = similarities(tiles, np.ones((1, 3), bool), np.array([[0, 1], [0, 2]]))
      >>> bool(close > far)
      True
    """
    used, at = np.unique(pairs, return_inverse=True)
    at = at.reshape(-1, 2)
    ways, both = np.zeros((2, 2, len(at)), np.float32), np.zeros(len(at), np.float32)  # ways, directions, pairs
    for font, has in zip(tiles, present, strict=True):
        shared = has[used[at]].all(1)
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
    """Reduce tiles to 20 x 20 cells, slightly blurred."""
    n, size, _ = tiles.shape
    ink = tiles.reshape(n, CELLS, size // CELLS, CELLS, size // CELLS).mean((2, 4), dtype=np.float32)
    return _soft(ink / 255)


def _stretched(tiles: np.ndarray) -> np.ndarray:
    """Stretch the inked box of each tile towards 16 of 20 cells in both directions."""
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
    """Return ``[20,size]`` weights that average pixels ``low`` to ``high`` into ``wide`` centered cells."""
    edges = low + (np.arange(CELLS + 1) - (CELLS - wide) / 2) * (high - low) / wide
    edges = np.clip(edges, low, high)
    pixels = np.arange(size)
    shared = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return (np.maximum(shared, 0) * wide / (high - low)).astype(np.float32)


def _soft(ink: np.ndarray) -> np.ndarray:
    """Blur by [1 6 1] / 8 in both directions, so that strokes a fraction of a cell apart still overlap."""
    for axis in (1, 2):
        pads = [(0, 0)] * 3
        pads[axis] = (1, 1)
        padded = np.pad(ink, pads)
        n = ink.shape[axis]
        parts = [np.take(padded, np.arange(i, i + n), axis) for i in range(3)]
        ink = (parts[0] + 6 * parts[1] + parts[2]) / 8
    return ink


def _shifted(ink: np.ndarray) -> np.ndarray:
    """Return ``[9,N,400]``, unit vectors of the bitmaps: unshifted, then shifted by a cell in eight directions."""
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
    neighbours: Neighbours, *, sure: float = 0.9, possible: float = 0.8, rank: int = 3
) -> dict[tuple[int, int], float]:
    """Select pairs that look alike, with their scores.

    Simple characters have fewer strokes in common, so their scores are lower. A pair is selected if its score is at
    least ``sure``, or if it is at least ``possible`` and each is near the top of the other's list.

    Args:
      neighbours: the neighbours of each character.
      sure: score that is sufficient.
      possible: score that is sufficient for mutual neighbours.
      rank: largest sum of the two ranks of mutual neighbours, where the most similar one has rank 1.

    Returns:
      The score of each selected pair ``(i, j)`` with ``i < j``.

    Examples:
      >>> import numpy as np
      >>> from jaxcrnn.lookalikes.similarity import Neighbours, alike
      >>> nearest = Neighbours(np.array([[1], [0]]), np.array([[0.875], [0.875]]))
      >>> alike(nearest), alike(nearest, possible=0.9)
      ({(0, 1): 0.875}, {})
    """
    place = {
        (i, int(j)): (k + 1, float(score))
        for i, (row, scores) in enumerate(zip(neighbours.indices, neighbours.scores, strict=True))
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
    """Merge pairs into groups, best pairs first: two groups are merged if all their members are similar enough.

    Args:
      pairs: pairs that may be merged, with the scores that determine their order.
      scores: scores of all compared pairs, for the members that a merger brings together.
      least: lowest score between any two members of a group.
      largest: maximum number of members of a group.

    Returns:
      Groups in the order of their best pair, with members in ascending order.

    Examples:
      >>> from jaxcrnn.lookalikes.similarity import merge
      >>> pairs = {(0, 1): 0.95, (1, 2): 0.9}
      >>> merge(pairs, pairs), merge(pairs, {**pairs, (0, 2): 0.85})  # 0 and 2 were not compared, or are alike
      ([[0, 1]], [[0, 1, 2]])
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


def known_scores(neighbours: Neighbours) -> dict[tuple[int, int], float]:
    """Collect the score of every pair of `Neighbours`.

    Examples:
      >>> import numpy as np
      >>> from jaxcrnn.lookalikes.similarity import Neighbours, known_scores
      >>> known_scores(Neighbours(np.array([[1], [0]]), np.array([[0.5], [0.5]])))
      {(0, 1): 0.5, (1, 0): 0.5}
    """
    return {
        (i, int(j)): float(score)
        for i, (row, scores) in enumerate(zip(neighbours.indices, neighbours.scores, strict=True))
        for j, score in zip(row, scores, strict=True)
    }


def agreement(groups: Sequence[str], table: Iterable[frozenset[str]], characters: str) -> tuple[float, float, int, int]:
    """Measure how the pairs within groups agree with a table of pairs.

    Args:
      groups: look-alike groups, each a text of its characters.
      table: pairs of characters.
      characters: characters to which the table is restricted.

    Returns:
      The fraction of the groups' pairs that the table has, the fraction of the table's pairs that are within a group,
      and the numbers of pairs of the groups and of the table.

    Examples:
      >>> from jaxcrnn.lookalikes.similarity import agreement
      >>> agreement(["未末", "土士"], [frozenset("未末"), frozenset("己已")], "未末土士己已")
      (0.5, 0.5, 2, 2)
    """
    ours = {frozenset((a, b)) for group in groups for a in group for b in group if a != b}
    theirs = {pair for pair in table if len(pair) == 2 and all(c in characters for c in pair)}
    both = len(ours & theirs)
    return both / max(len(ours), 1), both / max(len(theirs), 1), len(ours), len(theirs)
