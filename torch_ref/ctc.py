"""Connectionist temporal classification: loss, posteriors and best path (Graves et al., 2006), one sample at a time.

A label of length n has 2n + 1 states: blank, first character, blank, second character, ..., blank.
"""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from torch_ref.types import class_id, integers


def repeats(label: list[int]) -> int:
    """Count equal neighbours; each pair needs a blank in between."""
    return sum(a == b for a, b in itertools.pairwise(label))


def is_feasible(lengths: Tensor, labels: Tensor, label_lengths: Tensor) -> Tensor:
    """Check whether each label, with the blanks that it requires, fits into its frames: ``[B]`` bool."""
    fits = []
    for length, label, n in zip(lengths.tolist(), labels.tolist(), label_lengths.tolist(), strict=True):
        fits.append(n + repeats(label[:n]) <= length)
    return torch.tensor(fits)


def ctc_loss(logits: Tensor, lengths: Tensor, labels: Tensor, label_lengths: Tensor, *, blank: int = 0) -> Tensor:
    """Compute ``-log p(label | logits)`` of each sample, 0 with a zero gradient where infeasible: ``[B]``."""
    lengths, labels, label_lengths = integers(lengths, labels, label_lengths)
    blank = class_id("blank", blank, logits.shape[2])
    feasible = is_feasible(lengths, labels, label_lengths).to(logits.device) & (lengths > 0)
    if feasible.all() and lengths.min() == logits.shape[1]:  # nothing to skip, no padding
        targets = labels, lengths, label_lengths
        return F.ctc_loss(torch.log_softmax(logits, -1).transpose(0, 1), *targets, blank=blank, reduction="none")
    losses = logits[:, :0].sum((1, 2))  # zeros that are connected to the logits
    if not feasible.any():
        return losses
    frames = lengths[feasible]
    inside = torch.arange(logits.shape[1], device=logits.device)[None, :] < frames[:, None]
    clean = torch.where(inside[:, :, None], logits[feasible], 0.0)
    targets = (labels[feasible], frames, label_lengths[feasible])
    values = F.ctc_loss(torch.log_softmax(clean, -1).transpose(0, 1), *targets, blank=blank, reduction="none")
    return losses.index_put((torch.nonzero(feasible)[:, 0],), values)


def _states(label: list[int], blank: int) -> list[int]:
    states = [blank]
    for c in label:
        states += [c, blank]
    return states


def _may_skip(states: list[int], s: int, blank: int) -> bool:
    """Check whether state s may follow state s - 2: it is a character, and a different one."""
    return s >= 2 and states[s] != blank and states[s] != states[s - 2]


def _log_sum(values: list[float]) -> float:
    top = max(values)
    return top if top == -math.inf else top + math.log(sum(math.exp(v - top) for v in values))


def slot_posteriors(
    logits: Tensor, lengths: Tensor, labels: Tensor, label_lengths: Tensor, *, blank: int = 0
) -> Tensor:
    """Compute the posterior of each label slot in each frame: ``[B,T,L]`` (Graves et al., 2006, eq. 7, 11 and 14)."""
    blank = class_id("blank", blank, logits.shape[2])
    out = torch.zeros(*logits.shape[:2], labels.shape[1], dtype=logits.dtype)
    feasible = is_feasible(lengths, labels, label_lengths)
    for b in range(len(logits)):
        T, n = int(lengths[b]), int(label_lengths[b])
        if not feasible[b] or T == 0:
            continue
        states = _states(labels[b, :n].tolist(), blank)
        S = len(states)
        log_p = torch.log_softmax(logits[b, :T].detach(), -1)[:, states].tolist()
        alpha = [[-math.inf] * S for _ in range(T)]
        beta = [[-math.inf] * S for _ in range(T)]  # without the frame's own probability
        for s in range(min(2, S)):
            alpha[0][s] = log_p[0][s]
        for t in range(1, T):
            for s in range(S):
                ways = [alpha[t - 1][s]]
                if s >= 1:
                    ways.append(alpha[t - 1][s - 1])
                if _may_skip(states, s, blank):
                    ways.append(alpha[t - 1][s - 2])
                alpha[t][s] = log_p[t][s] + _log_sum(ways)
        for s in range(max(S - 2, 0), S):
            beta[T - 1][s] = 0.0
        for t in reversed(range(T - 1)):
            for s in range(S):
                ways = [beta[t + 1][s] + log_p[t + 1][s]]
                if s + 1 < S:
                    ways.append(beta[t + 1][s + 1] + log_p[t + 1][s + 1])
                if s + 2 < S and _may_skip(states, s + 2, blank):
                    ways.append(beta[t + 1][s + 2] + log_p[t + 1][s + 2])
                beta[t][s] = _log_sum(ways)
        for t in range(T):
            total = _log_sum([a + z for a, z in zip(alpha[t], beta[t], strict=True)])
            for slot in range(n):
                out[b, t, slot] = math.exp(alpha[t][2 * slot + 1] + beta[t][2 * slot + 1] - total)
    return out


def single_swaps(
    logits: Tensor, lengths: Tensor, labels: Tensor, label_lengths: Tensor, candidates: Tensor, *, blank: int = 0
) -> Tensor:
    """Compute ``log p(label with slot l replaced by c) - log p(label)`` by a CTC loss for each swap: ``[B,L,K]``.

    ``-inf`` where a candidate is the blank, the slot is padding, or the swapped text or the label is infeasible.
    """
    blank = class_id("blank", blank, logits.shape[2])
    lines = [logits, *integers(lengths, labels, label_lengths)]
    own = ctc_loss(*lines, blank=blank)
    spelled = is_feasible(*lines[1:])
    slots = []
    for slot in range(labels.shape[1]):
        ways = []
        for k in range(candidates.shape[2]):
            swapped = lines[2].clone()
            swapped[:, slot] = candidates[:, slot, k]
            exists = (slot < lines[3]) & (swapped[:, slot] != blank) & spelled
            swapped[~exists] = lines[2][~exists]
            exists &= is_feasible(lines[1], swapped, lines[3])
            ratio = own - ctc_loss(logits, lines[1], swapped, lines[3], blank=blank)
            ways.append(torch.where(exists.to(ratio.device), ratio, -math.inf))
        slots.append(torch.stack(ways, -1))
    return torch.stack(slots, 1)


def best_path(logits: Tensor, lengths: Tensor, labels: Tensor, label_lengths: Tensor, *, blank: int = 0) -> Tensor:
    """Find the most probable path that spells the label (Viterbi).

    Returns:
      ``[B,T]``, the slot of each frame; -1 for the blank.
    """
    blank = class_id("blank", blank, logits.shape[2])
    out = torch.full(logits.shape[:2], -1)
    feasible = is_feasible(lengths, labels, label_lengths)
    for b in range(len(logits)):
        T, n = int(lengths[b]), int(label_lengths[b])
        if not feasible[b] or T == 0:
            continue
        states = _states(labels[b, :n].tolist(), blank)
        S = len(states)
        log_p = torch.log_softmax(logits[b, :T].detach(), -1)[:, states].tolist()
        best = [log_p[0][s] if s < 2 else -math.inf for s in range(S)]
        steps: list[list[int]] = [[0] * S]
        for t in range(1, T):
            row, moved = [], []
            for s in range(S):
                one = best[s - 1] if s >= 1 else -math.inf
                two = best[s - 2] if _may_skip(states, s, blank) else -math.inf
                ways = [best[s], one, two]
                way = ways.index(max(ways))
                row.append(way)
                moved.append(log_p[t][s] + ways[way])
            steps.append(row)
            best = moved
        ends = range(max(S - 2, 0), S)
        s = max(ends, key=lambda end: best[end])
        for t in reversed(range(T)):
            out[b, t] = s // 2 if s % 2 else -1
            s -= steps[t][s]
    return out
