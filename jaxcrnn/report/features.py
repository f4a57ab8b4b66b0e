"""A recogniser looked into, character by character: where it saw each, how sure it was, what its feature was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxcrnn import assign
from jaxcrnn.charset import Charset
from jaxcrnn.data import buckets as plans
from jaxcrnn.data.audit import Corpus
from jaxcrnn.data.loader import Batches
from jaxcrnn.model import CRNN
from jaxcrnn.train import TrainConfig, eval_variables
from jaxcrnn.types import Batch, TrainState


class Seen(NamedTuple):
    """What was read in one line.

    Attributes:
      item: the line's number in the corpus.
      text: what was read.
      probabilities: of each character read, where it was most probable.
      places: of each character read, its middle in pixels.
    """

    item: int
    text: str
    probabilities: list[float]
    places: list[float]


class Features(NamedTuple):
    """Features of N characters that are written, at the frame of the true label's best path where each is surest.

    Attributes:
      vectors: ``[N,D]`` float32.
      classes: ``[N]`` int32.
      items: ``[N]`` the line of each.
      places: ``[N]`` its middle in pixels.
    """

    vectors: np.ndarray
    classes: np.ndarray
    items: np.ndarray
    places: np.ndarray


def _look(config: TrainConfig, state: TrainState, batch: Batch) -> dict[str, Array]:
    out = CRNN(config.model).apply(eval_variables(state), batch.images, batch.widths, train=False)
    logits: Array = out.logits  # type: ignore[union-attr]
    lengths: Array = out.lengths  # type: ignore[union-attr]
    probabilities = jax.nn.softmax(logits.astype(jnp.float32), -1)
    found = assign.aligned(logits, lengths, batch.labels, batch.label_lengths, blank=config.model.blank, frames="best")
    return {
        "best": jnp.argmax(logits, -1), "sure": probabilities.max(-1), "lengths": lengths,
        "features": out.features, "classes": found.classes, "weights": found.weights,  # type: ignore[union-attr]
    }  # fmt: skip


_run_look = jax.jit(_look)


def look(
    config: TrainConfig, state: TrainState, charset: Charset, corpus: Corpus, *, batch_size: int = 32, buckets: int = 6
) -> tuple[list[Seen], Features]:
    """Reads a corpus and keeps what stands behind each character.

    Args:
      config: the run's.
      state: the run's.
      charset: the run's.
      corpus: lines, audited.
      batch_size: lines at a time.
      buckets: width buckets, each one compilation.
    """
    seen: list[Seen] = []
    parts: list[tuple[np.ndarray, ...]] = []
    batches = Batches(corpus, plans.choose(corpus.widths, buckets), batch_size)
    for planned, batch in batches.in_order():
        out = jax.device_get(_run_look(config, state, batch))
        wide = batches.buckets[planned.bucket] / out["best"].shape[1]  # pixels a frame
        for row, item in enumerate(planned.items.tolist()):
            frames = int(out["lengths"][row])
            seen.append(_seen(item, out["best"][row, :frames], out["sure"][row, :frames], charset, wide))
            used = np.flatnonzero(out["weights"][row, :frames] > 0)
            parts.append((out["features"][row, used], out["classes"][row, used], np.full(len(used), item),
                          (used + 0.5) * wide))  # fmt: skip
    order = np.argsort([one.item for one in seen], kind="stable")
    vectors, classes, items, places = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return [seen[i] for i in order], Features(vectors.astype(np.float32), classes, items, places)


def _seen(item: int, best: np.ndarray, sure: np.ndarray, charset: Charset, wide: float) -> Seen:
    """Runs of the same class are one character, as `jaxcrnn.decode.greedy` reads them."""
    ids, probabilities, places = [], [], []
    starts = np.flatnonzero(np.diff(best, prepend=-1))
    for start, stop in zip(starts, [*starts[1:], len(best)], strict=True):
        if best[start] != charset.blank:
            ids.append(int(best[start]))
            probabilities.append(float(sure[start:stop].max()))
            places.append((start + stop) / 2 * wide)
    return Seen(item, charset.decode(ids), probabilities, places)


def plane(sets: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Sets of vectors ``[N,D]`` in the plane of their own first two principal components, each ``[N,2]``.

    Each set has a plane of its own, because two trained models do not share their axes. All are scaled by the root mean
    square distance to their mean, and a set of as many vectors as the first is turned or mirrored to lie as that does
    (orthogonal Procrustes), so that only how characters stand to each other differs.
    """
    flat: list[np.ndarray] = []
    for vectors in sets:
        centered = vectors - vectors.mean(0)
        _, _, axes = np.linalg.svd(centered, full_matrices=False)
        placed = centered @ axes[:2].T / (np.sqrt(np.square(centered).sum(1).mean()) or 1.0)
        if flat and len(flat[0]) == len(placed):
            left, _, right = np.linalg.svd(placed.T @ flat[0])
            placed = placed @ left @ right
        flat.append(placed)
    return flat


def separation(vectors: np.ndarray, classes: np.ndarray, groups: Sequence[Sequence[int]]) -> float:
    """How far look-alikes are apart: the mean over pairs of one group of the distance of their means, by the root mean
    square distance of characters to their own mean. Larger is better told apart; 0 where there is no pair."""
    means = {int(c): vectors[classes == c].mean(0) for c in np.unique(classes)}
    spread = np.sqrt(np.mean([np.square(v - means[int(c)]).sum() for v, c in zip(vectors, classes, strict=True)]))
    pairs = [
        (a, b) for group in groups for i, a in enumerate(group) for b in group[i + 1 :] if a in means and b in means
    ]
    if not pairs or not spread:
        return 0.0
    return float(np.mean([np.linalg.norm(means[a] - means[b]) for a, b in pairs]) / spread)
