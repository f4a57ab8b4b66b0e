"""Positions, probabilities and features of the characters that a recogniser reads."""

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
    """Reading of one line.

    Attributes:
      item: index of the line in the corpus.
      text: text that was read.
      probabilities: highest probability of each character that was read.
      places: middle of each character that was read, in pixels.
    """

    item: int
    text: str
    probabilities: list[float]
    places: list[float]


class Features(NamedTuple):
    """Features of N true characters, each at its most probable frame on the best path of the true label.

    Attributes:
      vectors: ``[N,D]`` float32 features.
      classes: ``[N]`` int32 class ids.
      items: ``[N]`` index of each character's line.
      places: ``[N]`` middle of each character in pixels.
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
    labels = batch.labels, batch.label_lengths
    assignment = assign.aligned(logits, lengths, *labels, blank=config.model.blank, frames="best")
    return {
        "best": jnp.argmax(logits, -1),
        "sure": probabilities.max(-1),
        "lengths": lengths,
        "features": out.features,  # type: ignore[union-attr]
        "classes": assignment.classes,
        "weights": assignment.weights,
    }


_run_look = jax.jit(_look)


def look(
    config: TrainConfig, state: TrainState, charset: Charset, corpus: Corpus, *, batch_size: int = 32, buckets: int = 6
) -> tuple[list[Seen], Features]:
    """Read a corpus, and return the readings with character details and the features of the true characters.

    Args:
      config: configuration of the run.
      state: state of the run.
      charset: charset of the run.
      corpus: audited lines.
      batch_size: lines in a batch.
      buckets: number of width buckets; each costs one compilation.
    """
    seen: list[Seen] = []
    parts: list[tuple[np.ndarray, ...]] = []
    batches = Batches(corpus, plans.choose(corpus.widths, buckets), batch_size)
    for planned, batch in batches.in_order():
        out = jax.device_get(_run_look(config, state, batch))
        wide = batches.buckets[planned.bucket] / out["best"].shape[1]  # pixels per frame
        for row, item in enumerate(planned.items.tolist()):
            frames = int(out["lengths"][row])
            seen.append(_seen(item, out["best"][row, :frames], out["sure"][row, :frames], charset, wide))
            used = np.flatnonzero(out["weights"][row, :frames] > 0)
            parts.append(
                (out["features"][row, used], out["classes"][row, used], np.full(len(used), item), (used + 0.5) * wide)
            )
    order = np.argsort([one.item for one in seen], kind="stable")
    vectors, classes, items, places = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return [seen[i] for i in order], Features(vectors.astype(np.float32), classes, items, places)


def _seen(item: int, best: np.ndarray, sure: np.ndarray, charset: Charset, wide: float) -> Seen:
    """Collapse runs of the same class to one character, as `jaxcrnn.decode.greedy` does."""
    ids, probabilities, places = [], [], []
    starts = np.flatnonzero(np.diff(best, prepend=-1))
    for start, stop in zip(starts, [*starts[1:], len(best)], strict=True):
        if best[start] != charset.blank:
            ids.append(int(best[start]))
            probabilities.append(float(sure[start:stop].max()))
            places.append((start + stop) / 2 * wide)
    return Seen(item, charset.decode(ids), probabilities, places)


def plane(sets: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Project each set of vectors ``[N,D]`` on its own first two principal components, giving ``[N,2]``.

    Each set has its own plane, because two trained models do not share their axes. All sets are scaled by the root mean
    square distance to their mean. A set with as many vectors as the first is rotated or mirrored to match it
    (orthogonal Procrustes), so that only relative positions differ.
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
    """Measure the separation of look-alikes; higher is better, and 0 means that there are no pairs.

    It is the mean distance between the means of two characters of a group, divided by the root mean square distance of
    characters to their own mean.
    """
    means = {int(c): vectors[classes == c].mean(0) for c in np.unique(classes)}
    spread = np.sqrt(np.mean([np.square(v - means[int(c)]).sum() for v, c in zip(vectors, classes, strict=True)]))
    pairs = [
        (a, b) for group in groups for i, a in enumerate(group) for b in group[i + 1 :] if a in means and b in means
    ]
    if not pairs or not spread:
        return 0.0
    return float(np.mean([np.linalg.norm(means[a] - means[b]) for a, b in pairs]) / spread)
