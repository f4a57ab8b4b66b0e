"""The axis legend and the tuples of arrays that pass between modules.

Axes, the same everywhere and always batch first:

====  =====================================================================
B     samples of a batch
T     frames: time steps after the convolutions
L     label slots, padded
C     classes, the CTC blank among them
D     features: the size of the head's input
H W   height and width of an image in pixels
====  =====================================================================

Padding never influences a result: pixels at ``x >= widths[b]``, frames at ``t >= lengths[b]`` and label slots at
``l >= label_lengths[b]``. A sample of width 0 is padding as a whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from jax import Array


class Batch(NamedTuple):
    """Lines of text and what they say.

    Attributes:
      images: ``[B,H,W,1]`` float32 in [-1, 1]; white paper is 1; padded right.
      widths: ``[B]`` int32, true widths in pixels; 0 marks a sample that only fills the batch.
      labels: ``[B,L]`` int32 class ids; what stands in the padding is ignored.
      label_lengths: ``[B]`` int32.
    """

    images: Array
    widths: Array
    labels: Array
    label_lengths: Array


class Outputs(NamedTuple):
    """What a model returns.

    Attributes:
      logits: ``[B,T,C]`` float32, before the softmax; or, with the fused head, a type of `jaxcrnn.kernels.logits` that
        never materializes them.
      features: ``[B,T,D]`` float32, the input of the linear head; 0 in padded frames.
      lengths: ``[B]`` int32, valid frames of each sample.
    """

    logits: Any
    features: Array
    lengths: Array


class Assignment(NamedTuple):
    """Which class each frame belongs to, and how much it counts: what stands between an alignment and a center.

    A frame belongs to one class, or, where an alignment is soft, to K of them: then both arrays have a last axis K.
    Assignments are constants: no gradient flows into them.

    Attributes:
      classes: ``[B,T]`` or ``[B,T,K]`` int32; anything within the classes where the weight is 0.
      weights: of the same shape, float32, not negative; 0 in padded frames.
    """

    classes: Array
    weights: Array


class CenterState(NamedTuple):
    """The class centers.

    Attributes:
      centers: ``[C,D]`` float32, one row a class, the blank among them.
      counts: ``[C]`` float32, the weight of all frames that moved each center so far; 0 marks a class never seen.
    """

    centers: Array
    counts: Array


class TrainState(NamedTuple):
    """All that training carries from step to step: arrays only, so that it can be saved, donated and sharded.

    Attributes:
      step: int32 scalar, steps taken, the skipped ones among them.
      params: the model's parameters, nested dicts.
      batch_stats: running means and variances of batch normalisation, nested dicts.
      opt_state: the optimizer's state; with ``optim.ema`` the averaged parameters too.
      centers: a `CenterState`, or None for a loss that has none.
    """

    step: Array
    params: Any
    batch_stats: Any
    opt_state: Any
    centers: CenterState | None
