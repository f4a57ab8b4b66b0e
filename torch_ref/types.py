"""Tuples that modules pass to each other, with the names and meanings of `jaxcrnn.types`."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor


def class_id(name: str, value: int, classes: int) -> int:
    """Return a class id; a negative one counts from the end."""
    if not -classes <= value < classes:
        raise ValueError(f"{name} is {value}; expected a class id from 0 to {classes - 1}, or from -{classes} to -1")
    return value % classes


def integers(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Convert integers of any dtype to int64."""
    return tuple(tensor.long() for tensor in tensors)


class Batch(NamedTuple):
    """A batch: ``images [B,H,W,1]`` in [-1, 1], ``widths [B]``, ``labels [B,L]``, ``label_lengths [B]``."""

    images: Tensor
    widths: Tensor
    labels: Tensor
    label_lengths: Tensor


class Outputs(NamedTuple):
    """The output of a model: ``logits [B,T,C]``, ``features [B,T,D]``, ``lengths [B]``."""

    logits: Tensor
    features: Tensor
    lengths: Tensor


class Assignment(NamedTuple):
    """The ``classes`` and ``weights`` of frames: ``[B,T]``, or ``[B,T,K]`` where a frame belongs to K classes."""

    classes: Tensor
    weights: Tensor


class CenterState(NamedTuple):
    """The class centers: ``centers [C,D]`` and ``counts [C]``, the total weight of the frames that updated each one."""

    centers: Tensor
    counts: Tensor


class TrainState(NamedTuple):
    """The state of training; the model and the optimizer change in place, the centers are replaced at each step."""

    step: int
    model: Any
    optimizer: Any
    centers: CenterState | None
