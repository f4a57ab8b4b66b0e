"""What is minimized and how the centers move: `Flow` is a loss variant as a value, `LossConfig` names its parts.

`jaxcrnn.train.train_step` differentiates `loss_terms`, and moves the centers afterwards (`move_centers`).
"""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxcrnn import assign, centers, ctc, diagnostics, losses
from jaxcrnn.centers import CenterRule
from jaxcrnn.errors import UserError
from jaxcrnn.kernels.center_ops import DENSE, CenterOps
from jaxcrnn.kernels.logits import as_logits, constant
from jaxcrnn.types import Assignment, Batch, CenterState, Outputs


class Term(NamedTuple):
    """One summand of the loss.

    Attributes:
      name: of its value in ``info`` and in the log.
      weight: factor in the loss; a term of weight 0 is only logged.
      function: ``(outputs, batch, assignment, state, *, blank)``, where ``state`` has the centers; it and the
        assignment are None in a flow without. Returns ``[B]`` (averaged over the samples, in ``info`` their sum as
        ``<name>_sum``), or a scalar (``<name>``), or either with more such values to log, ``(value, {name: value})``.
        A function that has an argument ``ops`` is passed the `jaxcrnn.kernels.center_ops.CenterOps` of the step.
    """

    name: str
    weight: float
    function: Callable[..., Any]


class Flow(NamedTuple):
    """A loss variant: plain functions, hashed by identity under jit, so a redefined function is traced again.

    Attributes:
      assign: ``(logits, lengths, labels, label_lengths, *, blank) -> Assignment``, a constant of the loss; None for a
        flow without. ``logits`` are those of `jaxcrnn.types.Outputs`.
      rule: how the centers start and move; None for a flow without centers.
      terms: the loss is the sum of ``weight * value`` over them.
    """

    assign: Callable[..., Assignment] | None
    rule: CenterRule | None
    terms: tuple[Term, ...]


class Preset(NamedTuple):
    """A function from a `LossConfig` to a `Flow`: the defaults of the attributes of the same names."""

    assignment: str
    start: str
    update: str
    reduction: str
    weight: float

    def __call__(self, config: LossConfig) -> Flow:
        """The flow of this preset, with the parts that the config sets."""
        return _flow(config, self.parts(config), None, CenterRule(), ())

    def parts(self, config: LossConfig) -> Preset:
        """This preset, with the parts that the config sets."""
        own = {name: getattr(config, name) for name in self._fields}
        return self._replace(**{name: value for name, value in own.items() if value is not None})


# The first two flows and their figures: docs/center-loss.md. The last two are ours.
PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "ctc": Preset("none", "zeros", "fixed", "mean", 0.0),
        "flow1": Preset("counted", "zeros", "delta", "half_sum", 1e-5),
        "flow1-torch": Preset("counted", "normal", "gradient", "mean", 1e-5),
        "flow2": Preset("predicted", "estimate", "fixed", "mean", 0.25),
        "aligned": Preset("aligned", "zeros", "delta", "mean", 0.01),
        "posterior": Preset("posterior", "zeros", "delta", "mean", 0.01),
    }
)
CHOICES = {
    "start": (*centers.STARTS, "estimate"),
    "update": tuple(centers.UPDATES),
    "reduction": losses.REDUCTIONS,
    "frames": assign.FRAMES,
    "ace_variant": losses.VARIANTS,
}
RESERVED = ("loss", "grad_norm", "skipped", "nonfinite", *diagnostics.METRICS)  # names in the ``info`` of a step


@jax.tree_util.register_static
@dataclass(frozen=True)
class LossConfig:
    """What is minimized: ``mean(CTC or focal CTC) + ace * mean(ACE) + weight * center + push * push``.

    The first five after the preset are the preset's unless given.

    Attributes:
      preset: ``"ctc"``, ``"flow1"`` (TensorFlow original), ``"flow1-torch"`` (PyTorch seed as meant), ``"flow2"``
        (PaddleOCR), ``"aligned"`` or ``"posterior"`` (ours).
      assignment: which frame belongs to which class: ``"none"``, one of `jaxcrnn.assign.ASSIGNMENTS`, or the import
        path of a function, ``"module:function"`` (`Flow.assign`).
      start: centers before the first step: ``"zeros"``, ``"normal"``, ``"head"`` or ``"estimate"`` (from a file).
      update: how centers move: one of `jaxcrnn.centers.UPDATES`.
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
      rule: import path of a `CenterRule`, ``"module:rule"``, that replaces ``start`` and ``update``, or one of them,
        whatever these are.
      terms: import paths of further terms, each ``"module:function"`` or ``"0.1*module:function"`` with a weight.
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
    rule: str | None = None
    terms: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            near = difflib.get_close_matches(self.preset, PRESETS, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UserError(f"loss.preset is {self.preset!r}; expected one of {', '.join(PRESETS)}{hint}")
        for name, choices in {"assignment": ("none", *assign.ASSIGNMENTS), **CHOICES}.items():
            value = getattr(self, name)
            if value is not None and value not in choices and name not in self.import_paths:
                hint = ", or module:function" if name == "assignment" else ""
                raise UserError(f"loss.{name} is {value!r}; expected one of {', '.join(choices)}{hint}")
        for name in ("weight", "alpha", "center_rate", "focal_alpha", "focal_gamma", "ace", "push", "push_margin"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise UserError(f"loss.{name} is {value}; expected 0 or more")
        if not self.has_centers and (self.parts.weight or self.push or self.rule):
            name = "weight" if self.parts.weight else "push" if self.push else "rule"
            raise UserError(f"loss.{name} needs frames with a class, and loss.assignment is 'none'; expected one of "
                            f"{', '.join(assign.ASSIGNMENTS)}, or module:function")  # fmt: skip

    @property
    def parts(self) -> Preset:
        """The preset's parts, with those given instead."""
        return PRESETS[self.preset].parts(self)

    @property
    def has_centers(self) -> bool:
        """Whether centers are kept at all."""
        return self.parts.assignment != "none"

    @property
    def import_paths(self) -> dict[str, tuple[str, ...]]:
        """The keys whose values are import paths, with these paths; `jaxcrnn.runs.extensions` resolves them."""
        named: dict[str, tuple[str, ...]] = {
            "assignment": (self.assignment,) if self.assignment and ":" in self.assignment else (),
            "rule": (self.rule,) if self.rule is not None else (),
            "terms": self.terms,
        }
        return {key: paths for key, paths in named.items() if paths}

    def check_classes(self, num_classes: int) -> None:
        """Looks at what depends on the number of classes.

        Raises:
          UserError: an ignored class is none of them.
        """
        for other in self.ignored:
            if not 0 <= other < num_classes:
                raise UserError(f"loss.ignored has class {other}; expected 0 to {num_classes - 1}")


def flow(
    config: LossConfig,
    *,
    assignment: Callable[..., Assignment] | None = None,
    rule: CenterRule | None = None,
    terms: Sequence[Term] = (),
) -> Flow:
    """The flow of a config, with parts replaced by functions. The same arguments give the same (an equal) flow.

    Args:
      config: what is minimized.
      assignment: instead of ``config.assignment``; see `Flow`.
      rule: instead of ``config.start`` and ``config.update``; a part that is None stays the config's.
      terms: added to those of the config, under names of their own.

    Raises:
      UserError: a rule without an assignment, two terms of the same name, or an import path without its function.
    """
    return _flow(config, config.parts, assignment, rule or CenterRule(), tuple(terms))


@lru_cache(maxsize=256)
def _flow(config: LossConfig, parts: Preset, assignment: Any, rule: CenterRule, terms: tuple[Term, ...]) -> Flow:
    passed = {"assignment": assignment, "rule": any(rule), "terms": terms}
    for key, paths in config.import_paths.items():
        if not passed[key]:
            raise UserError(f"loss.{key} is {', '.join(paths)}, which has not been imported; pass what it names to "
                            "jaxcrnn.objective.flow")  # fmt: skip
    if assignment is None and parts.assignment != "none":
        options: dict[str, dict[str, Any]] = {
            "counted": {"ignored": config.ignored},
            "predicted": {"skip_blank": config.skip_blank},
            "aligned": {"frames": config.frames},
        }
        assignment = partial(assign.ASSIGNMENTS[parts.assignment], **options.get(parts.assignment, {}))
    if assignment is None and any(rule):
        raise UserError("a center rule needs frames with a class, and loss.assignment is 'none'")
    every = (*_terms(config, parts, assignment is not None), *terms)
    names = [*RESERVED, *(term.name for term in every)]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"loss.terms: two values of a training step are named {twice[0]!r}; expected another name for "
                        "one of the functions")  # fmt: skip
    return Flow(assignment, _rule(config, parts, rule) if assignment is not None else None, every)


def _terms(config: LossConfig, parts: Preset, has_centers: bool) -> Iterator[Term]:
    if config.focal:
        yield Term("focal", 1.0, partial(_focal, alpha=config.focal_alpha, gamma=config.focal_gamma))
    else:
        yield Term("ctc", 1.0, _ctc)
    if config.ace:
        yield Term("ace", config.ace, partial(_ace, variant=config.ace_variant))
    if has_centers:
        yield Term("center", parts.weight, partial(_center, reduction=parts.reduction))
    if config.push:
        yield Term("push", config.push, partial(_push, margin=config.push_margin, reduction=parts.reduction))


def _rule(config: LossConfig, parts: Preset, rule: CenterRule) -> CenterRule:
    options: dict[str, dict[str, Any]] = {
        "delta": {"alpha": config.alpha},
        "gradient": {"learning_rate": config.center_rate, "reduction": parts.reduction},
    }
    init: Any = {**centers.STARTS, "estimate": partial(centers.estimated, preset=config.preset)}[parts.start]
    update = partial(centers.UPDATES[parts.update], **options.get(parts.update, {}))
    return CenterRule(rule.init or init, rule.update or update)


def _ctc(outputs: Outputs, batch: Batch, *_: Any, blank: int) -> Array:
    return ctc.ctc_loss(outputs.logits, outputs.lengths, batch.labels, batch.label_lengths, blank=blank)


def _focal(outputs: Outputs, batch: Batch, *_: Any, blank: int, **options: float) -> tuple[Array, dict[str, Array]]:
    plain = _ctc(outputs, batch, blank=blank)
    return losses.focal(plain, **options), {"ctc": plain}


def _ace(outputs: Outputs, batch: Batch, *_: Any, blank: int, variant: str) -> Array:
    labels = (outputs.lengths, batch.labels, batch.label_lengths)
    return losses.ace(outputs.logits, *labels, blank=blank, variant=variant)


def _center(
    outputs: Outputs,
    _: Batch,
    assignment: Assignment,
    state: CenterState,
    *,
    blank: int,
    reduction: str,
    ops: CenterOps = DENSE,
) -> Array:
    del blank
    features = as_logits(outputs.logits).center_features(outputs.features)
    return losses.center(features, state.centers, assignment, reduction=reduction, ops=ops)


def _push(
    outputs: Outputs,
    _: Batch,
    assignment: Assignment,
    state: CenterState,
    *,
    blank: int,
    margin: float,
    reduction: str,
    ops: CenterOps = DENSE,
) -> Array:
    # The blank looks like nothing: it is nobody's rival, and frames that show it are not pushed.
    rivals = diagnostics.top_rival(outputs.logits, assignment.classes, excluded=(blank,))
    rivals = jnp.where(assignment.classes == blank, assignment.classes, rivals)
    features = as_logits(outputs.logits).center_features(outputs.features)
    return losses.push(features, state.centers, assignment, rivals, margin=margin, reduction=reduction, ops=ops)


@lru_cache(maxsize=256)
def _takes_ops(function: Callable[..., Any]) -> bool:
    return "ops" in inspect.signature(function).parameters


def _with_ops(function: Callable[..., Any], ops: CenterOps) -> Callable[..., Any]:
    """The function with the operations on centers that a step is given, if it takes any."""
    return partial(function, ops=ops) if _takes_ops(function) else function


def loss_terms(
    flow: Flow,
    outputs: Outputs,
    batch: Batch,
    state: CenterState | None,
    *,
    blank: int = 0,
    ops: CenterOps = DENSE,
) -> tuple[Array, tuple[dict[str, Array], Assignment | None]]:
    """The loss of a batch, its terms, and the assignment behind it. Samples of width 0 are padding.

    Args:
      flow: what is minimized.
      outputs: the model's, for the batch.
      batch: lines and labels.
      state: the centers, constants here; None in a flow without.
      blank: class of the blank.
      ops: how distances to the centers are computed; see `jaxcrnn.kernels.center_ops`.

    Returns:
      The loss, then the values of the terms (sums over the samples as ``<name>_sum``, scalars as ``<name>``) and the
      assignment.

    Raises:
      ValueError: a term is neither ``[B]`` nor a scalar.
    """
    real = batch.widths > 0
    samples = jnp.maximum(real.sum(dtype=jnp.int32), 1)
    assignment = None
    if flow.assign is not None:
        labels = (outputs.lengths, batch.labels, batch.label_lengths)
        assignment = flow.assign(constant(outputs.logits), *labels, blank=blank)
        assignment = jax.tree.map(jax.lax.stop_gradient, assignment)
    loss: Any = 0.0
    info: dict[str, Array] = {}
    for term in flow.terms:
        value = _with_ops(term.function, ops)(outputs, batch, assignment, state, blank=blank)
        value, more = value if isinstance(value, tuple) else (value, {})
        value = jnp.asarray(value)
        for name, each in {**jax.tree.map(jnp.asarray, more), term.name: value}.items():
            if each.shape not in ((), real.shape):
                raise ValueError(f"term {name!r} has shape {each.shape}; expected {real.shape} or a scalar")
            if each.ndim:
                info[f"{name}_sum"] = jnp.where(real, each, 0.0).sum()
            else:
                info[name] = each
        if term.weight:
            total = info[f"{term.name}_sum"] * (1 / samples.astype(value.dtype)) if value.ndim else value
            loss += term.weight * total
    return loss, (info, assignment)


def move_centers(
    flow: Flow,
    state: CenterState | None,
    outputs: Outputs,
    assignment: Assignment | None,
    *,
    ops: CenterOps = DENSE,
) -> CenterState | None:
    """The centers after a step, from the old ones and the features and assignment of its loss."""
    if state is None or assignment is None or flow.rule is None or flow.rule.update is None:
        return state
    features = as_logits(outputs.logits).update_features(outputs.features)
    return _with_ops(flow.rule.update, ops)(state, features, assignment)
