"""`jaxcrnn.ctc.single_swaps` of one line in numpy, for reading without jax."""

from __future__ import annotations

import numpy as np


def single_swaps(logits: np.ndarray, label: np.ndarray, candidates: np.ndarray, *, blank: int = 0) -> np.ndarray:
    """Compute ``log p(label with slot l replaced by c) - log p(label)`` for each candidate c of each slot l.

    Args:
      logits: ``[T,C]``, before the softmax.
      label: ``[L]`` class ids, one or more, that fit into the frames.
      candidates: ``[L,K]`` class ids, never ``blank``.
      blank: class id of the blank.

    Returns:
      ``[L,K]`` float64 in nats; ``-inf`` where the swapped text needs more frames than there are.

    Examples:
      >>> import numpy as np
      >>> from jaxcrnn.decoding.single_swaps import single_swaps
      >>> single_swaps(np.array([[0.0, 3.0, 2.0]]), np.array([1]), np.array([[1, 2]])).tolist()
      [[0.0, -1.0]]
    """
    states = np.full(2 * len(label) + 1, blank)
    states[1::2] = label
    scores = logits[:, states].astype(np.float64)
    enter = np.zeros(len(states), bool)  # from two states before
    enter[3::2] = states[3::2] != states[1:-2:2]
    leave = np.append(enter[2:], [False, False])
    none = np.full((1, len(states)), -np.inf)
    with np.errstate(divide="ignore"):
        forward = _arrivals(scores, enter)
        before = np.concatenate([none, forward[:-1]])
        after = np.concatenate([_arrivals(scores[::-1, ::-1], leave[::-1])[-2::-1, ::-1], none])
        blank_before, blank_after = before[:, :-1:2].copy(), after[:, 2::2].copy()
        blank_before[0, 0] = blank_after[-1, -1] = 0.0  # the line begins with the first slot, or ends with the last
        left, right = before[:, 1:-2:2], after[:, 3::2]
        outside = np.full((len(scores), 1), -np.inf)
        left, right = np.append(outside, left, 1), np.append(right, outside, 1)
        previous = np.append([-1], label[:-1])[:, None] != candidates
        following = np.append(label[1:], [-1])[:, None] != candidates
        run = total = np.full(candidates.shape, -np.inf)
        for t, frame in enumerate(logits):
            enters = np.logaddexp(blank_before[t][:, None], np.where(previous, left[t][:, None], -np.inf))
            run = np.logaddexp(run, enters) + frame[candidates].astype(np.float64)
            leaves = np.logaddexp(blank_after[t][:, None], np.where(following, right[t][:, None], -np.inf))
            total = np.logaddexp(total, run + leaves)
        return np.where(candidates == label[:, None], 0.0, total - np.logaddexp.reduce(forward[-1, -2:]))


def _arrivals(scores: np.ndarray, enter: np.ndarray) -> np.ndarray:
    """Compute the log forward variables ``[T,S]``, including each frame's own score."""
    state = np.full(scores.shape[1], -np.inf)
    state[:2] = scores[0, :2]
    rows = [state]
    for score in scores[1:]:
        one, two = np.append(-np.inf, state[:-1]), np.append([-np.inf, -np.inf], state[:-2])
        state = score + np.logaddexp(np.logaddexp(state, one), np.where(enter, two, -np.inf))
        rows.append(state)
    return np.stack(rows)
