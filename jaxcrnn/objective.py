"""What is minimised, and what the centers do: a preset names a whole flow, each part of it can be replaced."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxcrnn import assign, centers, ctc, decode, diagnostics, losses
from jaxcrnn.errors import UserError
from jaxcrnn.kernels.center_ops import DENSE, CenterOps
from jaxcrnn.kernels.logits import as_logits, constant
from jaxcrnn.types import Assignment, Batch, CenterState, Outputs


class Preset(NamedTuple):
    """The parts of a flow; see the attributes of the same names in `LossConfig`."""

    assignment: str
    start: str
    update: str
    reduction: str
    weight: float


# The first two flows and their figures: docs/center-loss.md. The last two are ours.
PRESETS = {
    "ctc": Preset("none", "zeros", "fixed", "mean", 0.0),
    "flow1": Preset("counted", "zeros", "delta", "half_sum", 1e-5),
    "flow1-torch": Preset("counted", "normal", "gradient", "mean", 1e-5),
    "flow2": Preset("predicted", "estimate", "fixed", "mean", 0.25),
    "aligned": Preset("aligned", "zeros", "delta", "mean", 0.01),
    "posterior": Preset("posterior", "zeros", "delta", "mean", 0.01),
}
# Each ``(config, logits, lengths, labels, label_lengths, *, blank) -> Assignment`` (see `jaxcrnn.assign`); one more
# under a name of its own is a choice of ``loss.assignment`` from then on (docs/new-loss.md).
ASSIGNMENTS: dict[str, Callable[..., Assignment]] = {
    "counted": lambda config, *known, blank: assign.counted(*known, blank=blank, ignored=config.ignored),
    "predicted": lambda config, logits, lengths, *labels, blank: assign.predicted(
        logits, lengths, blank=blank, skip_blank=config.skip_blank
    ),
    "aligned": lambda config, *known, blank: assign.aligned(*known, blank=blank, frames=config.frames),
    "posterior": lambda config, *known, blank: assign.posterior(*known, blank=blank),
}
CHOICES = {
    "start": ("zeros", "normal", "head", "estimate"),
    "update": ("fixed", "delta", "gradient"),
    "reduction": losses.REDUCTIONS,
    "frames": assign.FRAMES,
    "ace_variant": losses.VARIANTS,
}


@jax.tree_util.register_static
@dataclass(frozen=True)
class LossConfig:
    """What is minimised: ``mean(CTC or focal CTC) + ace * mean(ACE) + weight * center + push * push``.

    The first five after the preset are the preset's unless given.

    Attributes:
      preset: ``"ctc"``, ``"flow1"`` (TensorFlow original), ``"flow1-torch"`` (PyTorch seed as meant), ``"flow2"``
        (PaddleOCR), ``"aligned"`` or ``"posterior"`` (ours).
      assignment: which frame belongs to which class: ``"none"``, or one of ``ASSIGNMENTS``.
      start: centers before the first step: ``"zeros"``, ``"normal"``, ``"head"`` or ``"estimate"`` (from a file).
      update: how centers move: a function of `jaxcrnn.centers`.
      reduction: ``"mean"`` or ``"half_sum"``, of center loss, push and the ``gradient`` update.
      weight: of the center loss; 0 keeps and moves centers without pulling at the features.
      alpha: of the ``delta`` update.
      center_rate: learning rate of the ``gradient`` update. With ``"half_sum"`` a center moves by this times the sum
        over its frames, so above 2 over their number it overshoots farther each step; with ``"mean"`` 1 is safe.
      frames: of the ``aligned`` assignment.
      skip_blank: of the ``predicted`` assignment: leave out frames that show the blank.
      ignored: of the ``counted`` assignment: class ids that never emit.
      focal: focal CTC instead of CTC.
      focal_alpha: factor of focal CTC.
      focal_gamma: exponent of focal CTC.
      ace: weight of aggregation cross-entropy; 0.1 is PaddleOCR's, 0 leaves it out.
      ace_variant: ``"paper"`` or ``"paddle"``.
      push: weight of the hinge between look-alikes; 0 leaves it out.
      push_margin: its margin, in squared distance.
    """

    preset: str = "ctc"
    assignment: str | None = None
    start: str | None = None
    update: str | None = None
    reduction: str | None = None
    weight: float | None = None
    alpha: float = 0.05
    center_rate: float = 0.5
    frames: str = "last"
    skip_blank: bool = False
    ignored: tuple[int, ...] = ()
    focal: bool = False
    focal_alpha: float = 1.0
    focal_gamma: float = 2.0
    ace: float = 0.0
    ace_variant: str = "paper"
    push: float = 0.0
    push_margin: float = 1.0

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            near = difflib.get_close_matches(self.preset, PRESETS, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UserError(f"loss.preset is {self.preset!r}; expected one of {', '.join(PRESETS)}{hint}")
        for name, known in {"assignment": ("none", *ASSIGNMENTS), **CHOICES}.items():
            value = getattr(self, name)
            if value is not None and value not in known:
                raise UserError(f"loss.{name} is {value!r}; expected one of {', '.join(known)}")
        for name in ("weight", "alpha", "center_rate", "focal_alpha", "focal_gamma", "ace", "push", "push_margin"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise UserError(f"loss.{name} is {value}; expected 0 or more")
        if not self.has_centers and (self.parts.weight or self.push):
            name = "weight" if self.parts.weight else "push"
            raise UserError(f"loss.{name} needs frames with a class, and loss.assignment is 'none'; expected one of "
                            f"{', '.join(ASSIGNMENTS)}")  # fmt: skip

    @property
    def parts(self) -> Preset:
        """The preset's parts, with those given instead."""
        given = {name: getattr(self, name) for name in Preset._fields}
        return PRESETS[self.preset]._replace(**{name: value for name, value in given.items() if value is not None})

    @property
    def has_centers(self) -> bool:
        """Whether centers are kept at all."""
        return self.parts.assignment != "none"

    def check_classes(self, num_classes: int) -> None:
        """Looks at what depends on the number of classes.

        Raises:
          UserError: an ignored class is none of them.
        """
        for other in self.ignored:
            if not 0 <= other < num_classes:
                raise UserError(f"loss.ignored has class {other}; expected 0 to {num_classes - 1}")


def check_start(config: LossConfig) -> None:
    """Stops a loss that starts from estimated centers, where none are given.

    Raises:
      UserError: saying how to make them.
    """
    if config.has_centers and config.parts.start == "estimate":
        raise UserError(
            f"loss.start is 'estimate' (preset {config.preset!r}): make centers with 'jaxcrnn centers estimate' "
            "and give them with --centers FILE, or choose another loss.start: zeros, normal or head"
        )


def start(config: LossConfig, key: Array, kernel: Array, given: CenterState | None = None) -> CenterState | None:
    """The centers before the first step, None for a config that has none.

    Args:
      config: what is minimised.
      key: PRNG key, for ``"normal"``.
      kernel: ``[D,C]`` of the linear head, for ``"head"`` and for the sizes.
      given: centers from elsewhere, taken instead.

    Raises:
      UserError: the centers given have other sizes, or ``"estimate"`` and none are given.
    """
    if not config.has_centers:
        return None
    size, classes = kernel.shape
    if given is not None:
        if given.centers.shape != (classes, size):
            rows, columns = given.centers.shape
            raise UserError(
                f"{rows} centers of size {columns} were given; expected {classes} (one a class, the blank among them) "
                f"of size {size} (the model's features)"
            )
        return given
    check_start(config)
    kind = config.parts.start
    if kind == "head":
        return centers.from_head(kernel)
    return centers.normal(key, classes, size) if kind == "normal" else centers.zeros(classes, size)


def assigned(config: LossConfig, outputs: Outputs, batch: Batch, blank: int) -> Assignment:
    """Which frame belongs to which class, under ``config.assignment``; a constant."""
    known = (constant(outputs.logits), outputs.lengths, batch.labels, batch.label_lengths)
    found = ASSIGNMENTS[config.parts.assignment](config, *known, blank=blank)
    return jax.tree.map(jax.lax.stop_gradient, found)


def total(
    config: LossConfig,
    outputs: Outputs,
    batch: Batch,
    state: CenterState | None,
    *,
    blank: int = 0,
    ops: CenterOps = DENSE,
) -> tuple[Array, tuple[dict[str, Any], Assignment | None]]:
    """The loss of a batch, its terms, and the assignment behind it.

    Samples of width 0 only fill the batch and count nowhere.

    Args:
      config: what is minimised.
      outputs: of the model.
      batch: what it was given.
      state: the centers, constants here; None for a config that has none.
      blank: class of the blank.

    Returns:
      The loss, then ``info`` (sums over the samples of ``ctc``, ``focal`` and ``ace``, the scalars ``center`` and
      ``push``, and counts) and the assignment.
    """
    labels = (outputs.lengths, batch.labels, batch.label_lengths)
    real = batch.widths > 0
    samples = real.sum(dtype=jnp.int32)
    per_sample = jnp.where(real, ctc.ctc_loss(outputs.logits, *labels, blank=blank), 0.0)
    ids, counts = decode.greedy(outputs.logits, outputs.lengths, blank=blank)
    info: dict[str, Any] = {
        "samples": samples,
        "correct": (real & decode.exact(ids, counts, *labels[1:])).sum(dtype=jnp.int32),
        "infeasible": (real & ~ctc.is_feasible(*labels)).sum(dtype=jnp.int32),
        "ctc_sum": per_sample.sum(),
    }
    share = 1 / jnp.maximum(samples, 1).astype(per_sample.dtype)
    loss = info["ctc_sum"] * share
    if config.focal:
        info["focal_sum"] = losses.focal(per_sample, alpha=config.focal_alpha, gamma=config.focal_gamma).sum()
        loss = info["focal_sum"] * share
    if config.ace:
        of_sample = losses.ace(outputs.logits, *labels, blank=blank, variant=config.ace_variant)
        info["ace_sum"] = jnp.where(real, of_sample, 0.0).sum()
        loss += config.ace * info["ace_sum"] * share
    if state is None or not config.has_centers:
        return loss, (info, None)
    assignment = assigned(config, outputs, batch, blank)
    used = assignment.weights > 0
    info["assigned_samples"] = used.reshape(len(real), -1).any(1).sum(dtype=jnp.int32)
    info["assigned_frames"] = used.reshape(*used.shape[:2], -1).any(2).sum(dtype=jnp.int32)
    reduction = config.parts.reduction
    features = as_logits(outputs.logits).center_features(outputs.features)
    info["center"] = losses.center(features, state.centers, assignment, reduction=reduction, ops=ops)
    loss += config.parts.weight * info["center"]
    if config.push:
        # The blank looks like nothing: it is nobody's rival, and frames that show it are not pushed.
        rivals = diagnostics.lookalikes(outputs.logits, assignment.classes, excluded=(blank,))
        rivals = jnp.where(assignment.classes == blank, assignment.classes, rivals)
        info["push"] = losses.push(
            features,
            state.centers,
            assignment,
            rivals,
            margin=config.push_margin,
            reduction=reduction,
            ops=ops,
        )
        loss += config.push * info["push"]
    return loss, (info, assignment)


def move(
    config: LossConfig, state: CenterState, features: Array, assignment: Assignment, *, ops: CenterOps = DENSE
) -> CenterState:
    """The centers after a step, from the old ones and the features and assignment of its loss."""
    update = config.parts.update
    if update == "delta":
        return centers.delta(state, features, assignment, alpha=config.alpha, ops=ops)
    if update == "gradient":
        reduction = config.parts.reduction
        return centers.gradient(
            state, features, assignment, learning_rate=config.center_rate, reduction=reduction, ops=ops
        )
    return centers.fixed(state, features, assignment)
