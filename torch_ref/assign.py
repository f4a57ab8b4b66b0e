"""Assignment of frames to classes, one frame at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from torch_ref import ctc
from torch_ref.types import Assignment, class_id


def _nothing(logits: Tensor, blank: int) -> Assignment:
    B, T, _ = logits.shape
    return Assignment(torch.full((B, T), blank), torch.zeros(B, T, dtype=logits.dtype))


def counted(
    logits: Tensor,
    lengths: Tensor,
    labels: Tensor,
    label_lengths: Tensor,
    *,
    blank: int = 0,
    ignored: Sequence[int] = (),
) -> Assignment:
    """Assign the label's characters to the last frames of greedy runs, if their number is right (flow one).

    As in the TensorFlow original; its PyTorch port also uses ``ignored=(1,)``.
    """
    blank = class_id("blank", blank, logits.shape[2])
    ignored = [class_id("ignored", c, logits.shape[2]) for c in ignored]
    out = _nothing(logits, blank)
    for b in range(len(logits)):
        best = logits[b, : int(lengths[b])].argmax(-1).tolist()
        emitting = []
        for t, c in enumerate(best):
            last_of_run = t + 1 == len(best) or best[t + 1] != c
            if c != blank and c not in ignored and last_of_run:
                emitting.append(t)
        if len(emitting) != int(label_lengths[b]):
            continue
        for i, t in enumerate(emitting):
            out.classes[b, t] = labels[b, i]
            out.weights[b, t] = 1
    return out


def predicted(logits: Tensor, lengths: Tensor, *, blank: int = 0, skip_blank: bool = False) -> Assignment:
    """Assign each valid frame to its best class, including the blank (flow two, PaddleOCR)."""
    blank = class_id("blank", blank, logits.shape[2])
    out = _nothing(logits, blank)
    for b in range(len(logits)):
        for t in range(int(lengths[b])):
            c = int(logits[b, t].argmax())
            if not (skip_blank and c == blank):
                out.classes[b, t] = c
                out.weights[b, t] = 1
    return out


def aligned(
    logits: Tensor, lengths: Tensor, labels: Tensor, label_lengths: Tensor, *, blank: int = 0, frames: str = "last"
) -> Assignment:
    """Assign the ``last``, ``first``, ``best`` or ``all`` frames of each run on the best path of the label."""
    blank = class_id("blank", blank, logits.shape[2])
    out = _nothing(logits, blank)
    slots = ctc.best_path(logits, lengths, labels, label_lengths, blank=blank)
    probabilities = torch.softmax(logits.detach(), -1)
    for b in range(len(logits)):
        for slot in range(int(label_lengths[b])):
            run = [t for t in range(logits.shape[1]) if slots[b, t] == slot]
            if not run:
                continue
            c = int(labels[b, slot])
            chosen = {
                "last": run[-1:],
                "first": run[:1],
                "best": [max(run, key=lambda t: float(probabilities[b, t, c]))],
                "all": run,
            }[frames]
            for t in chosen:
                out.classes[b, t] = c
                out.weights[b, t] = 1
    return out


def posterior(logits: Tensor, lengths: Tensor, labels: Tensor, label_lengths: Tensor, *, blank: int = 0) -> Assignment:
    """Distribute a weight of 1 for each character over the frames by the posterior of its slot: ``[B,T,L]``."""
    blank = class_id("blank", blank, logits.shape[2])
    posteriors = ctc.slot_posteriors(logits, lengths, labels, label_lengths, blank=blank)
    classes = torch.full(posteriors.shape, blank)
    weights = torch.zeros_like(posteriors)
    for b in range(len(logits)):
        for slot in range(int(label_lengths[b])):
            classes[b, :, slot] = labels[b, slot]
            total = posteriors[b, :, slot].sum()
            if total > 0:
                weights[b, :, slot] = posteriors[b, :, slot] / total
    return Assignment(classes, weights)
