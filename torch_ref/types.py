"""The tuples that pass between modules; the same names and meaning as in jaxcrnn."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """``images [B,H,W,1]`` in [-1, 1], ``widths [B]``, ``labels [B,L]``, ``label_lengths [B]``."""

    images: Tensor
    widths: Tensor
    labels: Tensor
    label_lengths: Tensor


class Outputs(NamedTuple):
    """``logits [B,T,C]``, ``features [B,T,D]``, ``lengths [B]``."""

    logits: Tensor
    features: Tensor
    lengths: Tensor


class Assignment(NamedTuple):
    """``classes`` and ``weights``: ``[B,T]``, or ``[B,T,K]`` where a frame belongs to K classes."""

    classes: Tensor
    weights: Tensor


class CenterState(NamedTuple):
    """``centers [C,D]`` and ``counts [C]``, the weight of the frames that moved each."""

    centers: Tensor
    counts: Tensor


class TrainState(NamedTuple):
    """What a step takes and gives: the model and the optimizer change in place, the centers are new each time."""

    step: int
    model: Any
    optimizer: Any
    centers: CenterState | None
