"""Axis legend and the tuples of arrays that modules pass to each other.

Axes, named alike everywhere and always batch first:

====  =====================================================================
B     samples of a batch
T     frames: time steps after the convolutions
L     label slots, padded
C     classes, including the CTC blank
D     features: the size of the head's input
H W   height and width of an image in pixels
====  =====================================================================

Padding never influences a result: pixels at ``x >= widths[b]``, frames at ``t >= lengths[b]`` and label slots at
``l >= label_lengths[b]`` are ignored. A sample of width 0 is padding as a whole.

Functions accept integers of any dtype and convert them to int32. A negative class id of an option such as ``blank``
counts from the end. Lengths and class ids that are out of range are a ``ValueError`` where their values are known;
under jit such a label is infeasible and such a frame has weight 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from jax import Array


class Batch(NamedTuple):
    """A batch of text lines and their labels.

    Attributes:
      images: ``[B,H,W,1]`` float32 in [-1, 1], where white paper is 1; padded on the right.
      widths: ``[B]`` int32, widths in pixels without padding; 0 marks a sample that only fills up the batch.
      labels: ``[B,L]`` int32 class ids; padded slots may hold any value.
      label_lengths: ``[B]`` int32, characters of each label.
    """

    images: Array
    widths: Array
    labels: Array
    label_lengths: Array


class Outputs(NamedTuple):
    """The output of a model.

    Attributes:
      logits: ``[B,T,C]`` float32, before the softmax; with the fused head, a type of `jaxcrnn.kernels.logits` that
        never materializes them.
      features: ``[B,T,D]`` float32, the input of the linear head; 0 in padded frames.
      lengths: ``[B]`` int32, valid frames of each sample.
    """

    logits: Any
    features: Array
    lengths: Array


class Assignment(NamedTuple):
    """The class and the weight of each frame: the interface between alignments and center losses.

    With a hard alignment a frame belongs to one class. With a soft alignment it belongs to K classes, and both arrays
    have a last axis K. Assignments are constants: no gradient flows into them.

    Attributes:
      classes: ``[B,T]`` or ``[B,T,K]`` int32; any valid class id where the weight is 0.
      weights: float32 of the same shape, not negative; 0 in padded frames.
    """

    classes: Array
    weights: Array


class CenterState(NamedTuple):
    """The class centers and how often each was updated.

    Attributes:
      centers: ``[C,D]`` float32, one row for each class, including the blank.
      counts: ``[C]`` float32, total weight of the frames that have updated each center; 0 marks a class never seen.
    """

    centers: Array
    counts: Array


class TrainState(NamedTuple):
    """The state that training carries from step to step: arrays only, so it can be saved, donated and sharded.

    Attributes:
      step: int32 scalar, number of steps taken, including skipped ones.
      params: parameters of the model, nested dicts.
      batch_stats: running means and variances of batch normalisation, nested dicts.
      opt_state: state of the optimizer; with ``optim.ema`` it includes the averaged parameters.
      centers: a `CenterState`, or None for a loss without centers.
    """

    step: Array
    params: Any
    batch_stats: Any
    opt_state: Any
    centers: CenterState | None
