"""One rule for the integer arguments of every public numeric function (docs/properties.md has the table)."""

import importlib
import inspect
import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcrnn
from jaxcrnn import _arguments as arguments
from jaxcrnn import assign, augment, centers, ctc, decode, diagnostics, losses, model, objective, train
from jaxcrnn.decoding import beam
from jaxcrnn.model import ModelConfig
from jaxcrnn.types import Assignment, Batch, CenterState, Outputs

DTYPES = ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
B, C, D = 3, 4, 2
EIGHT_BITS = 250 * math.log(3) - math.log(math.comb(250 + 200, 2 * 200))  # 120.496, not 56.37


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
    of.labels = rng.choice(characters, (B, L))
    if dtype != "bool":  # no repeats: a label of n characters needs n frames
        of.labels = np.asarray(characters)[(np.arange(L)[None] + np.arange(B)[:, None]) % len(characters)]
    of.label_lengths = np.minimum([L, 0, min(L, 2)], top)
    of.widths = np.minimum([8 * max(T, 1), 0, 4 * T], top)
    of.images = jnp.asarray(rng.uniform(-1, 1, (B, 4, 8 * max(T, 1), 1)), jnp.float32)
    of.best = rng.integers(0, min(C - 1, top) + 1, (B, T))
    of.classes, of.rivals = of.best, rng.integers(0, min(C - 1, top) + 1, (B, T))
    of.weights = jnp.asarray(rng.uniform(0.1, 1, (B, T)), jnp.float32)
    for name in ("lengths", "labels", "label_lengths", "widths", "best", "classes", "rivals"):
        setattr(of, name, getattr(of, name).astype(dtype))
    return of


def labelled(function, **options):
    return lambda n: function(n.logits, n.lengths, n.labels, n.label_lengths, blank=n.blank, **options)


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
        lambda n: decode.exact(n.best[:, :3], n.label_lengths, n.labels, n.label_lengths),
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
    "centers.zeros": "sizes", "centers.normal": "sizes", "centers.from_head": "a kernel",
    "centers.estimated": "an error", "centers.is_estimated": "a rule", "centers.check_start": "a rule",
    "centers.start": "a rule and a kernel",
    "metrics.score": "texts", "metrics.scores": "texts", "metrics.by_position": "texts",
    "objective.flow": "a config",
    "optim.schedule": "a config", "optim.make": "a config", "optim.update": "trees of parameters",
    "optim.averaged": "trees of parameters", "optim.begun": "trees of parameters",
    "optim.from_the_start": "trees of parameters", "optim.global_norm": "trees of parameters",
    "train.flow_of": "a config", "train.init_state": "a config", "train.state_shapes": "a config",
    "train.eval_variables": "trees of parameters",
}  # fmt: skip
NOT_NUMERIC = {"charset", "convert", "errors", "types"}


def names(word):
    return [name for name, (_, takes) in CASES.items() if word in takes.split()]


def same(one, two):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def finite(tree):
    for leaf in jax.tree.leaves(tree):
        assert np.isfinite(leaf).all()


def known(n):
    """Arguments that jax traces, and a function that puts them back."""
    traced = ("lengths", "labels", "label_lengths", "widths", "best", "classes", "rivals")
    return [getattr(n, name) for name in traced], lambda values: SimpleNamespace(
        **{**vars(n), **dict(zip(traced, values, strict=True))}
    )


def jitted(call, n):
    values, back = known(n)
    return jax.jit(lambda *values: call(back(values)))(*values)


def test_every_public_function_has_a_case():
    functions = set()
    for name in set(jaxcrnn._MODULES) - NOT_NUMERIC:
        module = importlib.import_module(f"jaxcrnn.{name}")
        own = [f for f in map(inspect.unwrap, filter(callable, vars(module).values())) if inspect.isfunction(f)]
        own = [f for f in own if f.__module__ == module.__name__]
        functions |= {f"{name}.{f.__name__}" for f in own if not f.__name__.startswith("_")}
    listed = {name.partition(" ")[0] for name in CASES} - {"decoding.beam.search"} | OTHERS.keys()
    assert functions == listed, "add a new function to CASES, or to OTHERS with the reason"


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_door_widens_every_dtype(dtype):
    n = inputs(T=250, L=200, dtype=dtype)
    logits = SimpleNamespace(num_classes=C, num_frames=250)
    lengths, labels, label_lengths, blank = arguments.labelled(logits, n.lengths, n.labels, n.label_lengths, -C)
    assert blank == 0
    for wide, narrow in ((lengths, n.lengths), (labels, n.labels), (label_lengths, n.label_lengths)):
        assert wide.dtype == jnp.int32
        np.testing.assert_array_equal(wide, narrow.astype(np.int64))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"labels": [[1, 2], [1, -1]]},
            r"labels\[1, 1\] is -1; expected a class id from 0 to 3 other than the blank, 0",
        ),
        ({"labels": [[1, 4], [1, 2]]}, r"labels\[0, 1\] is 4; expected a class id from 0 to 3"),
        ({"labels": [[0, 1], [1, 2]]}, r"labels\[0, 0\] is 0; expected a class id from 0 to 3 other than the blank, 0"),
        ({"labels": [1, 2]}, r"labels have shape \(2,\) and label_lengths \(2,\); expected \[B,L\] and \[B\]"),
        ({"labels": [[1.0, 2.0], [1.0, 2.0]]}, "labels has dtype float64; expected integers"),
        ({"lengths": [5, 6]}, r"lengths\[1\] is 6; expected 0 to 5 frames"),
        ({"lengths": [2**32 + 5, 5]}, r"lengths\[0\] is 4294967301; expected 0 to 5 frames"),
        ({"lengths": [5]}, r"lengths have shape \(1,\) and label_lengths \(2,\)"),
        ({"label_lengths": [2, 3]}, r"label_lengths\[1\] is 3; expected 0 to 2 characters"),
        ({"label_lengths": [-1, 2]}, r"label_lengths\[0\] is -1; expected 0 to 2 characters"),
        ({"blank": 4}, "blank is 4; expected a class id from 0 to 3, or from -4 to -1"),
        ({"blank": -5}, "blank is -5; expected a class id"),
    ],
)
def test_wrong_values_are_named(change, message):
    logits = SimpleNamespace(num_classes=C, num_frames=5)
    right = {"lengths": [5, 5], "labels": [[1, 2], [1, 2]], "label_lengths": [2, 2], "blank": 0}
    arguments.labelled(logits, *map(np.asarray, right.values()))
    arguments.labelled(logits, *right.values())  # lists too
    with pytest.raises((ValueError, TypeError), match=message):
        arguments.labelled(logits, *(np.asarray(value) for value in (right | change).values()))


def test_padding_may_hold_any_value():
    logits = SimpleNamespace(num_classes=C, num_frames=5)
    labels = arguments.labelled(logits, np.array([5]), np.array([[1, 2**40, -7]]), np.array([1]), 0).labels
    assert labels[0, 0] == 1


def test_a_label_of_200_characters_in_8_bits():
    """Its 401 states do not fit; of 3^250 paths of equal probability, ``T + n`` over ``2 n`` spell it."""
    loss = jax.jit(ctc.ctc_loss, static_argnames="blank")
    labels = np.tile(np.array([1, 2], np.uint8), (1, 100))
    arguments = jnp.zeros((1, 250, 3)), np.array([250], np.uint8), labels, np.array([200], np.uint8)
    np.testing.assert_allclose(loss(*arguments), EIGHT_BITS, rtol=1e-5)


def test_the_last_class_as_blank():
    logits = jax.nn.one_hot(jnp.array([[3, 1, 1, 3]]), 4)
    ids, counts = decode.greedy(logits, np.array([4], np.uint8), blank=-1)
    assert (ids.tolist(), counts.tolist()) == ([[1, 0, 0, 0]], [1])
    with pytest.raises(ValueError, match="blank is 4; expected a class id from 0 to 3"):
        decode.greedy(logits, np.array([4]), blank=4)
    with pytest.raises(ValueError, match="blank is -1; expected 0 or more"):
        decode.emitting(np.array([[1]]), np.array([1]), -1)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if dtype != "int32"])
def test_every_function_widens_every_dtype(dtype):
    narrow = inputs(T=160, L=120, dtype=dtype)
    wide = inputs(T=160, L=120, dtype=dtype)
    for name in ("lengths", "labels", "label_lengths", "widths", "best", "classes", "rivals"):
        setattr(wide, name, getattr(wide, name).astype(np.int32))
    for call, takes in CASES.values():
        if takes != "step" or dtype == "uint8":
            same(call(narrow), call(wide))
            if dtype == "uint8":
                same(jitted(call, narrow), jitted(call, wide))


@pytest.mark.slow
@pytest.mark.parametrize("name", names("blank"))
def test_a_negative_blank_counts_from_the_end(name):
    call, takes = CASES[name]
    for blank in (0, C - 1):
        n = inputs(blank=blank)
        expected = call(n)
        finite(expected)
        n.blank = blank - C
        if "classless" in takes:
            with pytest.raises(ValueError, match=f"blank is {blank - C}"):
                call(n)
        else:
            same(call(n), expected)
    for blank in (C, -C - 1):
        n = inputs()
        n.blank = blank
        if "classless" not in takes:
            with pytest.raises(ValueError, match=f"is {blank}; expected a class id from 0 to {C - 1}"):
                call(n)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, (_, takes) in CASES.items() if takes != "step"])
def test_no_frames_and_no_slots(name):
    call, takes = CASES[name]
    finite(call(inputs(T=0)) if "widths" not in takes else call(inputs()))
    finite(call(inputs(L=0)))
    finite(call(inputs(T=0, L=0)) if "widths" not in takes else call(inputs()))
    if "labels" in takes.split():
        some, none = inputs(L=1), inputs(L=0)
        some.label_lengths = np.zeros(B, np.int32)
        one, two = (jax.tree.leaves(call(n)) for n in (some, none))
        for a, b in zip(one, two, strict=True):
            if a.shape == b.shape:  # others have an axis of slots
                np.testing.assert_array_equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("name", names("labels"))
@pytest.mark.parametrize("wrong", [-1, C])
def test_labels_that_are_no_classes(name, wrong):
    call, takes = CASES[name]
    n = inputs()
    expected = jitted(call, n)
    n.labels[0, 1] = wrong
    if wrong < 0 or "classless" not in takes:
        with pytest.raises(ValueError, match=rf"labels\[0, 1\] is {wrong}; expected a class id"):
            call(n)
    found = jitted(call, n)
    finite(found)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        if a.ndim and len(a) == B:  # the other samples are as before
            np.testing.assert_array_equal(a[1:], b[1:])


@pytest.mark.slow
def test_a_label_that_is_no_class_is_infeasible_under_jit():
    n = inputs()
    n.labels[0, 1] = C
    for name in ("ctc.ctc_loss", "ctc.fused_ctc_loss", "losses.focal_ctc", "losses.ace", "losses.ace paddle"):
        loss = jitted(CASES[name][0], n)
        assert loss[0] == 0
        assert loss[2] > 0
    for name in ("assign.counted", *(f"assign.aligned {f}" for f in assign.FRAMES), "assign.posterior"):
        frames = jitted(CASES[name][0], n)
        assert (frames.weights[0] == 0).all()
        assert ((frames.classes >= 0) & (frames.classes < C)).all()
    gradient = jax.jit(jax.grad(lambda x, *k: ctc.ctc_loss(x, *k).sum()))(
        n.logits, n.lengths, n.labels, n.label_lengths
    )
    assert (gradient[0] == 0).all()
    assert (gradient[2] != 0).any()
    assert jitted(CASES["diagnostics.train_metrics"][0], n)["infeasible"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", names("classes"))
@pytest.mark.parametrize("wrong", [-1, C])
def test_assigned_classes_that_are_no_classes(name, wrong):
    call, _ = CASES[name]
    n = inputs()
    n.classes[0, 1] = wrong
    with pytest.raises(ValueError, match=rf"classes\[0, 1\] is {wrong}; expected a class id from 0 to {C - 1}"):
        call(n)
    found = jitted(call, n)
    finite(found)
    if name == "diagnostics.top_rival":
        return
    n.classes[0, 1] = 0
    n.weights = n.weights.at[0, 1].set(0)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, jitted(call, n))


@pytest.mark.torch
def test_the_reference_has_the_same_rule():
    torch = pytest.importorskip("torch", reason="the torch extra is not installed")
    import torch_ref

    logits = torch.zeros(1, 250, 3)
    labels = torch.tensor([[0, 1] * 100], dtype=torch.uint8)
    sizes = torch.tensor([250], dtype=torch.uint8), labels, torch.tensor([200], dtype=torch.uint8)
    one = torch_ref.ctc.ctc_loss(logits, *sizes, blank=-1)
    np.testing.assert_allclose(one, EIGHT_BITS, rtol=1e-5)
    for function in (torch_ref.losses.focal_ctc, torch_ref.losses.ace, torch_ref.assign.counted):
        for a, b in zip(*(function(logits, *sizes, blank=blank) for blank in (-1, 2)), strict=True):
            assert torch.equal(a, b)
    with pytest.raises(ValueError, match="blank is 3; expected a class id from 0 to 2"):
        torch_ref.ctc.ctc_loss(logits, *sizes, blank=3)
