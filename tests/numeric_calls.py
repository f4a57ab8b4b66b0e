"""A call of every public numeric function, for tests that apply one property to all of them."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np

from jaxcrnn import assign, augment, centers, ctc, decode, diagnostics, losses, model, objective, train
from jaxcrnn.decoding import beam
from jaxcrnn.model import ModelConfig
from jaxcrnn.types import Assignment, Batch, CenterState, Outputs

INTEGERS = ("lengths", "labels", "label_lengths", "counts", "widths", "best", "classes", "rivals")
B, C, D = 3, 4, 2


def inputs(T=9, L=4, blank=0, dtype="int32", seed=0):
    """Arguments by name; samples 0 and 2 are feasible, sample 1 has padding. Counts grow with the dtype's range."""
    rng = np.random.default_rng(seed)
    top = 1 if dtype == "bool" else min(2**15, np.iinfo(dtype).max)
    characters = [c for c in range(C) if c != blank and c <= top] or [1]
    of = SimpleNamespace(blank=blank, key=jax.random.key(0))
    of.logits, of.features = (jnp.asarray(rng.normal(size=(B, T, n)), jnp.float32) for n in (C, D))
    of.kernel, of.bias = jnp.asarray(rng.normal(size=(D, C)), jnp.float32), jnp.zeros(C)
    of.state = CenterState(jnp.asarray(rng.normal(size=(C, D)), jnp.float32), jnp.ones(C))
    of.lengths = np.minimum([T, T // 2, T], top)
    of.labels = np.random.default_rng(seed).choice(characters, (B, L))
    if dtype != "bool":  # no repeats: a label of n characters needs n frames
        of.labels = np.asarray(characters)[(np.arange(L)[None] + np.arange(B)[:, None]) % len(characters)]
    of.label_lengths = np.minimum([L, 0, min(L, 2)], top)
    of.counts = np.minimum(of.label_lengths, T)
    of.widths = np.minimum([8 * max(T, 1), 0, 4 * T], top)
    of.images = jnp.asarray(rng.uniform(-1, 1, (B, 4, 8 * max(T, 1), 1)), jnp.float32)
    of.best = rng.integers(0, min(C - 1, top) + 1, (B, T))
    of.classes, of.rivals = of.best, rng.integers(0, min(C - 1, top) + 1, (B, T))
    of.weights = jnp.asarray(rng.uniform(0.1, 1, (B, T)), jnp.float32)
    for name in INTEGERS:
        setattr(of, name, getattr(of, name).astype(dtype))
    return of


def labelled(function, **options):
    return lambda n: function(n.logits, n.lengths, n.labels, n.label_lengths, blank=n.blank, **options)


def swapping(function):
    """A function of lines and of candidates for each character; here all classes."""

    def call(n):
        candidates = np.broadcast_to(
            np.arange(C, dtype=np.int32 if n.labels.dtype == bool else n.labels.dtype), (*n.labels.shape, C)
        )
        return function(n.logits, n.lengths, n.labels, n.label_lengths, candidates, blank=n.blank)

    return call


def assigned(n):
    return Assignment(n.classes, n.weights)


def batch(n):
    return Batch(n.images, n.widths, n.labels, n.label_lengths)


def outputs(n):
    return Outputs(n.logits, n.features, n.lengths)


def soft(n):
    return assign.posterior(n.logits, n.lengths, n.labels, n.label_lengths, blank=n.blank)


SOFT = objective.flow(objective.LossConfig("posterior", push=0.1))
PUSHING = objective.flow(objective.LossConfig("aligned", ace=0.1, push=0.1))
TINY = train.TrainConfig(ModelConfig("tiny", hidden=4, num_classes=C))
AUGMENTED = augment.AugmentConfig(noise=0.0)


def step(function):
    """A function of the whole step, on images of 32 rows that the model takes."""

    def call(n):
        lines = Batch(jnp.ones((B, 32, n.images.shape[2], 1)), n.widths, n.labels, n.label_lengths)
        return function(TINY, train.init_state(TINY, n.key), lines)

    return call


# A call of each public function, and which arguments it takes.
CASES = {
    "ctc.is_feasible": (lambda n: ctc.is_feasible(n.lengths, n.labels, n.label_lengths), "labels classless"),
    "ctc.ctc_loss": (labelled(ctc.ctc_loss), "labels blank"),
    "ctc.fused_ctc_loss": (
        lambda n: ctc.fused_ctc_loss(n.features, n.kernel, n.bias, n.lengths, n.labels, n.label_lengths, blank=n.blank),
        "labels blank",
    ),
    "ctc.slot_posteriors": (labelled(ctc.slot_posteriors), "labels blank"),
    "ctc.best_path": (labelled(ctc.best_path), "labels blank"),
    "ctc.single_swaps": (swapping(ctc.single_swaps), "labels blank"),
    "losses.swap": (swapping(losses.swap), "labels blank"),
    "losses.focal_ctc": (labelled(losses.focal_ctc), "labels blank"),
    "losses.ace": (labelled(losses.ace), "labels blank"),
    "losses.ace paddle": (labelled(losses.ace, variant="paddle"), "labels blank"),
    "losses.center": (lambda n: losses.center(n.features, n.state.centers, assigned(n)), "classes"),
    "losses.push": (lambda n: losses.push(n.features, n.state.centers, assigned(n), n.rivals), "classes"),
    "assign.counted": (labelled(assign.counted), "labels blank"),
    "assign.counted ignored": (lambda n: labelled(assign.counted, ignored=(n.blank,))(n), "labels blank"),
    "assign.predicted": (lambda n: assign.predicted(n.logits, n.lengths, blank=n.blank, skip_blank=True), "blank"),
    **{f"assign.aligned {f}": (labelled(assign.aligned, frames=f), "labels blank") for f in assign.FRAMES},
    "assign.posterior": (labelled(assign.posterior), "labels blank"),
    "centers.accumulate": (
        lambda n: centers.accumulate(
            n.state, n.features, n.logits, n.lengths, n.labels, n.label_lengths, blank=n.blank
        ),
        "labels blank",
    ),
    "centers.fixed": (lambda n: centers.fixed(n.state, n.features, assigned(n)), ""),
    "centers.delta": (lambda n: centers.delta(n.state, n.features, assigned(n)), "classes"),
    "centers.gradient": (lambda n: centers.gradient(n.state, n.features, assigned(n), learning_rate=1.0), "classes"),
    "decode.emitting": (lambda n: decode.emitting(n.best, n.lengths, n.blank), "blank classless"),
    "decode.pack": (lambda n: decode.pack(n.best, n.best > 1), ""),
    "decode.greedy": (lambda n: decode.greedy(n.logits, n.lengths, blank=n.blank), "blank"),
    "decode.read": (lambda n: decode.read(n.logits, n.lengths, blank=n.blank), "blank"),
    "decode.blankness": (lambda n: decode.blankness(n.logits, n.lengths, blank=n.blank), "blank"),
    "decode.characters": (labelled(decode.characters), "labels blank"),
    "decode.exact": (
        lambda n: decode.exact(n.best, n.counts, n.labels, n.label_lengths),
        "labels classless",
    ),
    "decoding.beam.search": (lambda n: beam.search(n.logits, n.lengths, blank=n.blank, width=2), "blank"),
    "diagnostics.top_rival": (
        lambda n: diagnostics.top_rival(n.logits, n.classes, excluded=(n.blank,)),
        "classes blank",
    ),
    "diagnostics.watch": (
        lambda n: diagnostics.watch(n.logits, n.features, n.state.centers, assigned(n)),
        "classes",
    ),
    "diagnostics.train_metrics": (
        lambda n: diagnostics.train_metrics(outputs(n), batch(n), assigned(n), n.state, n.state, blank=n.blank),
        "labels classes blank",
    ),
    "diagnostics.watch posterior": (
        lambda n: diagnostics.watch(n.logits, n.features, n.state.centers, soft(n)),
        "labels blank",
    ),
    "diagnostics.train_metrics posterior": (
        lambda n: diagnostics.train_metrics(outputs(n), batch(n), soft(n), n.state, n.state, blank=n.blank),
        "labels blank",
    ),
    "augment.augment": (lambda n: augment.augment(AUGMENTED, n.images, n.widths, n.key), "widths"),
    "objective.loss_terms": (
        lambda n: objective.loss_terms(PUSHING, outputs(n), batch(n), n.state, blank=n.blank),
        "labels blank",
    ),
    "objective.loss_terms posterior": (
        lambda n: objective.loss_terms(SOFT, outputs(n), batch(n), n.state, blank=n.blank),
        "labels blank",
    ),
    "objective.move_centers posterior": (
        lambda n: objective.move_centers(SOFT, n.state, outputs(n), soft(n)),
        "labels blank",
    ),
    "objective.move_centers": (
        lambda n: objective.move_centers(PUSHING, n.state, outputs(n), assigned(n)),
        "classes",
    ),
    "model.standardized": (lambda n: model.standardized(n.images, n.widths), "widths"),
    "train.eval_outputs": (step(train.eval_outputs), "step"),
    "train.eval_step": (step(train.eval_step), "step"),
    "train.train_step": (step(lambda *a: train.train_step(*a, jax.random.key(1))[1]), "step"),
}
# Public functions without arrays of integers, and why.
OTHERS = {
    "losses.focal": "losses",
    "centers.zeros": "sizes",
    "centers.normal": "sizes",
    "centers.from_head": "a kernel",
    "centers.estimated": "an error",
    "centers.is_estimated": "a rule",
    "centers.check_start": "a rule",
    "centers.start": "a rule and a kernel",
    "metrics.score": "texts",
    "metrics.scores": "texts",
    "metrics.by_position": "texts",
    "metrics.folded": "a text",
    "objective.flow": "a config",
    "optim.schedule": "a config",
    "optim.make": "a config",
    "optim.update": "trees of parameters",
    "optim.averaged": "trees of parameters",
    "optim.begun": "trees of parameters",
    "optim.is_frozen": "a path",
    "optim.from_the_start": "trees of parameters",
    "optim.global_norm": "trees of parameters",
    "train.flow_of": "a config",
    "train.init_state": "a config",
    "train.state_shapes": "a config",
    "train.eval_variables": "trees of parameters",
    "train.for_inference": "trees of parameters",
}
NOT_NUMERIC = {"charset", "convert", "errors", "types"}


def names(word):
    return [name for name, (_, takes) in CASES.items() if word in takes.split()]


def traced(n):
    """Arguments that jax traces, and a function that puts them back."""

    def back(values):
        return SimpleNamespace(**{**vars(n), **dict(zip(INTEGERS, values, strict=True))})

    return [getattr(n, name) for name in INTEGERS], back


def jitted(call, n):
    values, back = traced(n)
    return jax.jit(lambda *values: call(back(values)))(*values)
