"""Class centers: initialization and updates."""

from __future__ import annotations

import torch
from torch import Tensor

from torch_ref import assign, losses
from torch_ref.types import Assignment, CenterState, class_id


def zeros(C: int, D: int) -> CenterState:
    """Initialize all centers at the origin (TensorFlow original)."""
    return CenterState(torch.zeros(C, D), torch.zeros(C))


def normal(generator: torch.Generator | None, C: int, D: int) -> CenterState:
    """Draw centers from N(0, 1) (PyTorch port; PaddleOCR without a file)."""
    return CenterState(torch.randn(C, D, generator=generator), torch.zeros(C))


def from_head(kernel: Tensor) -> CenterState:
    """Initialize centers with the columns of the linear head, ``[D,C]``."""
    return CenterState(kernel.detach().T.clone(), torch.zeros(kernel.shape[1], dtype=kernel.dtype))


def _greedy(best: list[int], blank: int) -> list[int]:
    return [c for t, c in enumerate(best) if c != blank and (t == 0 or best[t - 1] != c)]


def accumulate(
    state: CenterState,
    features: Tensor,
    logits: Tensor,
    lengths: Tensor,
    labels: Tensor,
    label_lengths: Tensor,
    *,
    blank: int = 0,
) -> CenterState:
    """Update the mean features of each best class with exactly read samples (PaddleOCR's ``export_center``)."""
    blank = class_id("blank", blank, logits.shape[2])
    centers, counts = state.centers.clone(), state.counts.clone()
    assignment = assign.predicted(logits, lengths, blank=blank)
    for b in range(len(logits)):
        length = int(lengths[b])
        best = assignment.classes[b, :length].tolist()
        if _greedy(best, blank) != labels[b, : int(label_lengths[b])].tolist():
            continue
        for t, c in enumerate(best):
            centers[c] = (centers[c] * counts[c] + features[b, t].detach()) / (counts[c] + 1)
            counts[c] += 1
    return CenterState(centers, counts)


def fixed(state: CenterState, features: Tensor, assignment: Assignment) -> CenterState:
    """Keep the centers unchanged (PaddleOCR)."""
    return state


def delta(state: CenterState, features: Tensor, assignment: Assignment, *, alpha: float = 0.05) -> CenterState:
    """Move each center towards its frames: ``c_k -= alpha * sum w (c_k - f) / (1 + sum w)``.

    Wen et al., 2016, eq. 4; the TensorFlow original.
    """
    away = torch.zeros_like(state.centers)
    weight = torch.zeros_like(state.counts)
    for index, c, w in losses.assigned(assignment):
        away[c] += w * (state.centers[c] - features[index[:2]].detach())
        weight[c] += w
    return CenterState(state.centers - alpha * away / (1 + weight)[:, None], state.counts + weight)


def gradient(
    state: CenterState, features: Tensor, assignment: Assignment, *, learning_rate: float, reduction: str = "mean"
) -> CenterState:
    """Descend the gradient: ``c_k -= learning_rate * d(center loss)/d c_k``, by autograd (PyTorch port)."""
    centers = state.centers.detach().requires_grad_()
    loss = losses.center(features.detach(), centers, assignment, reduction=reduction)
    moved = state.centers
    if loss.requires_grad:
        moved = moved - learning_rate * torch.autograd.grad(loss, centers, allow_unused=False)[0]
    weight = torch.zeros_like(state.counts)
    for _, c, w in losses.assigned(assignment):
        weight[c] += w
    return CenterState(moved, state.counts + weight)
