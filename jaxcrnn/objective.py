"""Loss configuration: presets and their parts (assignment, initialization, update, reduction).

A `Flow` is a loss variant made of functions; a `LossConfig` names its parts. `jaxcrnn.train.train_step` differentiates
`loss_terms` and then updates the centers with `move_centers`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxcrnn import _terms, assign, centers, diagnostics, losses
from jaxcrnn._arguments import class_id
from jaxcrnn._ranges import Natural, NonNegative, check
from jaxcrnn.centers import CenterRule
from jaxcrnn.errors import UserError
from jaxcrnn.kernels.center_ops import DENSE, CenterOps
from jaxcrnn.kernels.logits import as_logits, constant
from jaxcrnn.types import Assignment, Batch, CenterState, Outputs


class Term(NamedTuple):
    """One summand of the loss.

    Attributes:
      name: name of the value in ``info`` and in the log.
      weight: factor in the loss; a term of weight 0 is only logged.
      function: ``(outputs, batch, assignment, state, *, blank)``, where ``state`` holds the centers; ``assignment`` and
        ``state`` are None in a flow without them. It returns ``[B]`` (averaged over the samples; ``info`` has the sum
        as ``<name>_sum``) or a scalar (``<name>``), or, with more such values to log, ``(value, {name: value})``. A
        function with an argument ``ops`` is passed the `jaxcrnn.kernels.center_ops.CenterOps` of the step.
    """

    name: str
    weight: float
    function: Callable[..., Any]


class Flow(NamedTuple):
    """A loss variant made of plain functions.

    Functions are hashed by identity under jit, so a redefined function is traced again.

    Attributes:
      assign: ``(logits, lengths, labels, label_lengths, *, blank) -> Assignment``, treated as a constant; None for a
        flow without assignment. ``logits`` are those of `jaxcrnn.types.Outputs`.
      rule: initialization and update of the centers; None for a flow without centers.
      terms: the loss is the sum of ``weight * value`` over them.
    """

    assign: Callable[..., Assignment] | None
    rule: CenterRule | None
    terms: tuple[Term, ...]


class Preset(NamedTuple):
    """The default parts of a loss; calling it with a `LossConfig` returns a `Flow`."""

    assignment: str
    start: str
    update: str
    reduction: str
    weight: float

    def __call__(self, config: LossConfig) -> Flow:
        """Return the flow of this preset, with the parts that the config overrides."""
        return _flow(config, self.parts(config), None, CenterRule(), ())

    def parts(self, config: LossConfig) -> Preset:
        """Return this preset with the parts that the config overrides."""
        own = {name: getattr(config, name) for name in self._fields}
        return self._replace(**{name: value for name, value in own.items() if value is not None})


# docs/center-loss.md has the sources and measurements. The last two presets are this project's own.
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
RESERVED = ("loss", "grad_norm", "skipped", "nonfinite", *diagnostics.METRICS)  # taken in the ``info`` of a step


@jax.tree_util.register_static
@dataclass(frozen=True)
class LossConfig:
    """The training loss: ``mean(CTC or focal CTC) + ace * mean(ACE) + weight * (center loss) + push * (push loss)``.

    ``assignment``, ``start``, ``update``, ``reduction`` and ``weight`` default to those of the preset.

    Attributes:
      preset: ``"ctc"`` (plain CTC, no centers), or with a center loss (docs/center-loss.md): ``"flow1"`` (TensorFlow
        original), ``"flow1-torch"`` (its PyTorch port, corrected), ``"flow2"`` (PaddleOCR), ``"aligned"`` or
        ``"posterior"`` (this project's own).
      assignment: class of each frame (a narrow vertical slice of a line) in the center loss: ``"none"``, ``"counted"``
        (the true characters where greedy decoding outputs characters, if their numbers match), ``"predicted"`` (the
        most probable class), ``"aligned"`` (the best CTC path of the true text), ``"posterior"`` (the true
        characters, weighted by their CTC posteriors), or the import path of a function, ``"module:function"``
        (`Flow.assign`).
      start: centers before the first step: ``"zeros"``, ``"normal"`` (random), ``"head"`` (the weights of the linear
        layer) or ``"estimate"`` (from the file of ``--centers``).
      update: how centers move: ``"fixed"`` (not at all), ``"delta"`` (towards the features of their class) or
        ``"gradient"`` (gradient descent on the center loss).
      reduction: ``"mean"`` or ``"half_sum"`` (half the sum) over the assigned frames, in the center loss, the push and
        the ``gradient`` update.
      weight: weight of the center loss, 0 or more; at 0 centers are kept and updated but do not affect the features.
      alpha: step size of the ``delta`` update, 0 or more.
      center_rate: learning rate of the ``gradient`` update, 0 or more. With ``"half_sum"`` a center moves by this rate
        times the sum over its frames, so a rate above 2 divided by their number diverges; with ``"mean"`` 1 is safe.
      frames: frames of a character's run that the ``aligned`` assignment uses: ``"last"``, ``"first"``, ``"best"`` or
        ``"all"``.
      skip_blank: whether the ``predicted`` assignment drops frames whose best class is the blank.
      ignored: class ids that the ``counted`` assignment does not count as characters, each 0 or more.
      focal: use focal CTC instead of CTC, so that lines that are already read with confidence count less.
      focal_alpha: factor of focal CTC, 0 or more.
      focal_gamma: focusing exponent of focal CTC, 0 or more; 0 is plain CTC.
      ace: weight of ACE (aggregation cross-entropy of predicted and true character counts), 0 or more; PaddleOCR uses
        0.1, 0 disables it.
      ace_variant: ``"paper"`` (Xie et al., 2019), or ``"paddle"`` (PaddleOCR) with a second softmax.
      push: weight of a loss that keeps frames farther from the center of their most probable other class than from
        their own, 0 or more; 0 disables it.
      push_margin: margin of that loss in squared distance, 0 or more.
      rule: import path of a `CenterRule` of your own (docs/new-loss.md), ``"module:rule"``; each part that it sets
        overrides ``start`` or ``update``.
      terms: import paths of additional terms, each ``"module:function"`` or, with a weight, ``"0.1*module:function"``.

    Raises:
      UserError: If a value is unknown or out of range, or centers are configured without an assignment.

    Examples:
      >>> from jaxcrnn.objective import LossConfig
      >>> config = LossConfig("flow1", weight=1e-3)
      >>> config.parts
      Preset(assignment='counted', start='zeros', update='delta', reduction='half_sum', weight=0.001)
    """

    preset: str = "ctc"
    assignment: str | None = None
    start: str | None = None
    update: str | None = None
    reduction: str | None = None
    weight: NonNegative | None = None
    alpha: NonNegative = 0.05
    center_rate: NonNegative = 0.5
    frames: str = "last"
    skip_blank: bool = False
    ignored: tuple[Natural, ...] = ()
    focal: bool = False
    focal_alpha: NonNegative = 1.0
    focal_gamma: NonNegative = 2.0
    ace: NonNegative = 0.0
    ace_variant: str = "paper"
    push: NonNegative = 0.0
    push_margin: NonNegative = 1.0
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
        check(self, "loss")
        if not self.has_centers and (self.parts.weight or self.push or self.rule):
            name = "weight" if self.parts.weight else "push" if self.push else "rule"
            raise UserError(
                f"loss.{name} requires an assignment, but loss.assignment is 'none'; expected one of "
                f"{', '.join(assign.ASSIGNMENTS)}, or module:function"
            )

    @property
    def parts(self) -> Preset:
        """The parts of the preset, with those that this config overrides."""
        return PRESETS[self.preset].parts(self)

    @property
    def has_centers(self) -> bool:
        """Whether the loss keeps centers."""
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
        """Check the keys that depend on the number of classes.

        Raises:
          UserError: If an ignored class is out of range.
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
    """Build the flow of a config, optionally with parts replaced by functions.

    Equal arguments give equal flows, so a jitted step is not traced again.

    Args:
      config: the loss.
      assignment: replacement for ``config.assignment``; see `Flow`.
      rule: replacement for ``config.start`` and ``config.update``; a part that is None is taken from the config.
      terms: terms to add to those of the config; names must be unique.

    Returns:
      A `Flow`.

    Raises:
      UserError: If there is a rule without an assignment, two terms have the same name, or the config has an import
        path whose function was not passed.

    Examples:
      >>> from jaxcrnn.objective import LossConfig, Term, flow
      >>> [(term.name, term.weight) for term in flow(LossConfig("aligned", ace=0.1)).terms]
      [('ctc', 1.0), ('ace', 0.1), ('center', 0.01)]
      >>> def energy(outputs, batch, assignment, state, *, blank):
      ...     return (outputs.features**2).mean((1, 2))
      >>> [term.name for term in flow(LossConfig("ctc"), terms=[Term("energy", 1e-4, energy)]).terms]
      ['ctc', 'energy']
    """
    return _flow(config, config.parts, assignment, rule or CenterRule(), tuple(terms))


@lru_cache(maxsize=256)
def _flow(config: LossConfig, parts: Preset, assignment: Any, rule: CenterRule, terms: tuple[Term, ...]) -> Flow:
    passed = {"assignment": assignment, "rule": any(rule), "terms": terms}
    for key, paths in config.import_paths.items():
        if not passed[key]:
            raise UserError(
                f"loss.{key} is {', '.join(paths)}, which has not been imported; import it and pass it to "
                "jaxcrnn.objective.flow"
            )
    if assignment is None and parts.assignment != "none":
        options: dict[str, dict[str, Any]] = {
            "counted": {"ignored": config.ignored},
            "predicted": {"skip_blank": config.skip_blank},
            "aligned": {"frames": config.frames},
        }
        assignment = partial(assign.ASSIGNMENTS[parts.assignment], **options.get(parts.assignment, {}))
    if assignment is None and any(rule):
        raise UserError("a center rule requires an assignment, but loss.assignment is 'none'")
    built_in = (Term(*term) for term in _terms.built_in(config, parts, assignment is not None))
    all_terms = (*built_in, *terms)
    names = [*RESERVED, *(term.name for term in all_terms)]
    if duplicates := [name for name in names if names.count(name) > 1]:
        raise UserError(
            f"loss.terms: duplicate name {duplicates[0]!r} among the values of a training step; rename one of the "
            "functions"
        )
    return Flow(assignment, _rule(config, parts, rule) if assignment is not None else None, all_terms)


def _rule(config: LossConfig, parts: Preset, rule: CenterRule) -> CenterRule:
    options: dict[str, dict[str, Any]] = {
        "delta": {"alpha": config.alpha},
        "gradient": {"learning_rate": config.center_rate, "reduction": parts.reduction},
    }
    init: Any = {**centers.STARTS, "estimate": partial(centers.estimated, preset=config.preset)}[parts.start]
    update = partial(centers.UPDATES[parts.update], **options.get(parts.update, {}))
    return CenterRule(rule.init or init, rule.update or update)


def loss_terms(
    flow: Flow,
    outputs: Outputs,
    batch: Batch,
    state: CenterState | None,
    *,
    blank: int = 0,
    ops: CenterOps = DENSE,
    recursion: str = "scan",
) -> tuple[Array, tuple[dict[str, Array], Assignment | None]]:
    """Compute the loss of a batch, its terms and the assignment. Samples of width 0 are padding.

    Args:
      flow: the loss.
      outputs: output of the model for the batch.
      batch: lines and labels.
      state: the centers, treated as constants; None in a flow without centers.
      blank: class id of the blank; a negative one counts from the end.
      ops: implementation of the distances to the centers; see `jaxcrnn.kernels.center_ops`.
      recursion: implementation of CTC; see `jaxcrnn.ctc.ctc_loss`. The assignment always uses ``"scan"``.

    Returns:
      The loss, and a pair of the values of the terms (sums over the samples as ``<name>_sum``, scalars as ``<name>``)
      and the assignment, which is None in a flow without one.

    Raises:
      ValueError: If the value of a term is neither ``[B]`` nor a scalar.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxcrnn import centers
      >>> from jaxcrnn.objective import LossConfig, flow, loss_terms
      >>> from jaxcrnn.types import Batch, Outputs
      >>> outputs = Outputs(logits=jnp.zeros((1, 4, 3)), features=jnp.ones((1, 4, 2)), lengths=jnp.array([4]))
      >>> batch = Batch(images=None, widths=jnp.array([16]), labels=jnp.array([[1, 2]]), label_lengths=jnp.array([2]))
      >>> loss, (info, assignment) = loss_terms(flow(LossConfig("aligned")), outputs, batch, centers.zeros(3, 2))
      >>> round(float(loss), 4), round(float(info["ctc_sum"]), 4), float(info["center"])  # 1.6864 + 0.01 * 2
      (1.7064, 1.6864, 2.0)
    """
    blank = class_id("blank", blank, as_logits(outputs.logits).num_classes)
    outputs, batch = _terms.with_integers(outputs, batch)
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
        function = _terms.bound(term.function, ops=ops, recursion=recursion)
        value = function(outputs, batch, assignment, state, blank=blank)
        value, more = value if isinstance(value, tuple) else (value, {})
        value = jnp.asarray(value)
        info |= _terms.logged({**jax.tree.map(jnp.asarray, more), term.name: value}, real)
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
    """Update the centers after a step, from their old values and the features and assignment of its loss.

    Args:
      flow: the loss.
      state: centers before the step; None in a flow without centers.
      outputs: output of the model for the batch.
      assignment: assignment of the loss; None in a flow without one.
      ops: implementation of the sums over the frames of a class; see `jaxcrnn.kernels.center_ops`.

    Returns:
      The updated centers, or ``state`` if there is nothing to update.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxcrnn import centers
      >>> from jaxcrnn.objective import LossConfig, flow, move_centers
      >>> from jaxcrnn.types import Assignment, Outputs
      >>> outputs = Outputs(jnp.zeros((1, 2, 3)), jnp.ones((1, 2, 2)), jnp.array([2]))
      >>> frames = Assignment(jnp.array([[1, 0]]), jnp.array([[1.0, 0.0]]))
      >>> state = move_centers(flow(LossConfig("flow1", alpha=0.5)), centers.zeros(3, 2), outputs, frames)
      >>> state.centers.tolist()  # 0.5 * 1 / (1 + 1)
      [[0.0, 0.0], [0.25, 0.25], [0.0, 0.0]]
    """
    if state is None or assignment is None or flow.rule is None or flow.rule.update is None:
        return state
    features = as_logits(outputs.logits).update_features(outputs.features)
    return _terms.bound(flow.rule.update, ops=ops)(state, features, assignment)
