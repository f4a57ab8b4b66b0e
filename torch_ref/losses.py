"""Losses that complement CTC."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from torch_ref import ctc
from torch_ref.types import Assignment, class_id

NEAREST, FARTHEST = 1e-12, 1e12


def focal_ctc(
    logits: Tensor,
    lengths: Tensor,
    labels: Tensor,
    label_lengths: Tensor,
    *,
    alpha: float = 1.0,
    gamma: float = 2.0,
    blank: int = 0,
) -> Tensor:
    """Compute ``alpha * (1 - exp(-ctc))**gamma * ctc`` of each sample: ``[B]`` (PaddleOCR's enhanced CTC)."""
    loss = ctc.ctc_loss(logits, lengths, labels, label_lengths, blank=blank)
    if gamma == 0:
        return alpha * loss
    miss = 1 - torch.exp(-loss)
    # For gamma below 1 the derivative of the power is infinite at a loss of 0.
    return torch.where(miss > 0, alpha * torch.where(miss > 0, miss, 1.0) ** gamma * loss, 0.0)


def ace(
    logits: Tensor, lengths: Tensor, labels: Tensor, label_lengths: Tensor, *, blank: int = 0, variant: str = "paper"
) -> Tensor:
    """Compute ``-sum_k (N_k / T) log(ybar_k)`` of each sample: ``[B]`` (Xie et al., 2019, eq. 7).

    ``variant="paddle"`` applies a second softmax to ``ybar``, as PaddleOCR does.
    """
    blank = class_id("blank", blank, logits.shape[2])
    losses = []
    for b in range(len(logits)):
        T, n = int(lengths[b]), int(label_lengths[b])
        if T == 0 or n > T:
            losses.append(logits[b].sum() * 0)
            continue
        counts = torch.zeros(logits.shape[2], dtype=logits.dtype)
        for c in labels[b, :n].tolist():
            counts[c] += 1
        counts[blank] += T - n
        mean = torch.softmax(logits[b, :T], -1).mean(0)
        log_mean = torch.log(mean) if variant == "paper" else torch.log_softmax(mean, -1)
        written = counts > 0  # 0 * log(0) is 0 here
        losses.append(-(counts[written] / T * log_mean[written]).sum())
    return torch.stack(losses)


def swap(
    logits: Tensor,
    lengths: Tensor,
    labels: Tensor,
    label_lengths: Tensor,
    candidates: Tensor,
    *,
    margin: float = 2.0,
    blank: int = 0,
) -> Tensor:
    """Compute ``mean_l softplus(margin + log sum_c exp(r_lc))`` over the characters of each sample: ``[B]``.

    ``r`` is `torch_ref.ctc.single_swaps`; the character itself is no candidate.
    """
    ratios = ctc.single_swaps(logits, lengths, labels, label_lengths, candidates, blank=blank)
    losses = []
    for b in range(len(logits)):
        total = logits[b].sum() * 0
        for slot in range(int(label_lengths[b])):
            others = [r for r, c in zip(ratios[b, slot], candidates[b, slot], strict=True) if c != labels[b, slot]]
            finite = [r for r in others if torch.isfinite(r)]
            if finite:
                total = total + F.softplus(margin + torch.logsumexp(torch.stack(finite), 0))
        losses.append(total / max(int(label_lengths[b]), 1))
    return torch.stack(losses)


def assigned(assignment: Assignment) -> Iterator[tuple[tuple[int, ...], int, Tensor]]:
    """Iterate over the frames of weight > 0: index into the assignment, class and weight."""
    for index in torch.nonzero(assignment.weights > 0).tolist():
        yield tuple(index), int(assignment.classes[tuple(index)]), assignment.weights[tuple(index)]


def _reduced(values: list[Tensor], weights: list[Tensor], features: Tensor, reduction: str) -> Tensor:
    if not values:
        return features.sum() * 0
    total = torch.stack([w * v for w, v in zip(weights, values, strict=True)]).sum()
    return total / 2 if reduction == "half_sum" else total / torch.stack(weights).sum()


def center(features: Tensor, centers: Tensor, assignment: Assignment, *, reduction: str = "mean") -> Tensor:
    """Compute the weighted squared distances of frames to their centers: half their sum, or their mean.

    Wen et al., 2016, eq. 2. ``half_sum`` is the ``l2_loss`` of the TensorFlow original, ``mean`` that of the PyTorch
    seed and of PaddleOCR.
    """
    values, weights = [], []
    for index, c, w in assigned(assignment):
        d = ((features[index[:2]] - centers[c]) ** 2).sum()
        values.append(d.clamp(NEAREST, FARTHEST))
        weights.append(w)
    return _reduced(values, weights, features, reduction)


def push(
    features: Tensor,
    centers: Tensor,
    assignment: Assignment,
    rivals: Tensor,
    *,
    margin: float = 1.0,
    reduction: str = "mean",
) -> Tensor:
    """Compute ``max(0, margin + ||f - own||^2 - ||f - rival||^2)``, reduced as in `center` (He et al., 2018, eq. 5)."""
    values, weights = [], []
    for index, c, w in assigned(assignment):
        rival = int(rivals[index])
        if rival == c:
            continue
        f = features[index[:2]]
        values.append((margin + ((f - centers[c]) ** 2).sum() - ((f - centers[rival]) ** 2).sum()).clamp(min=0))
        weights.append(w)
    return _reduced(values, weights, features, reduction)


def lookalikes(logits: Tensor, classes: Tensor, *, excluded: tuple[int, ...] = ()) -> Tensor:
    """Find the most probable class of each frame other than its own; its own if there is no other."""
    excluded = tuple(class_id("excluded", c, logits.shape[2]) for c in excluded)
    out = classes.long().clone()
    for index in torch.cartesian_prod(*(torch.arange(n) for n in classes.shape)).tolist():
        own = int(classes[tuple(index)])
        row = logits[index[0], index[1]].tolist()
        others = [c for c in range(len(row)) if c != own and c not in excluded]
        if others:
            out[tuple(index)] = max(others, key=row.__getitem__)
    return out
