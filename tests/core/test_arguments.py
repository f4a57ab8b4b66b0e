"""One rule for the integer arguments of every public numeric function (docs/properties.md has the table)."""

import importlib
import inspect
import math
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numeric_calls import CASES, INTEGERS, NOT_NUMERIC, OTHERS, B, C, inputs, jitted, names

import jaxcrnn
from jaxcrnn import _arguments as arguments
from jaxcrnn import assign, ctc, decode

DTYPES = ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
EIGHT_BITS = 250 * math.log(3) - math.log(math.comb(250 + 200, 2 * 200))  # 120.496, not 56.37


def same(one, two):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def finite(tree, name):
    """Every number is finite; only where `ctc.single_swaps` has no candidate, it is ``-inf``."""
    for leaf in jax.tree.leaves(tree):
        assert (np.isfinite(leaf) | ((name == "ctc.single_swaps") & np.isneginf(leaf))).all()


def test_every_public_function_has_a_case():
    functions = set()
    for name in set(jaxcrnn._MODULES) - NOT_NUMERIC:
        module = importlib.import_module(f"jaxcrnn.{name}")
        own = [f for f in map(inspect.unwrap, filter(callable, vars(module).values())) if inspect.isfunction(f)]
        own = [f for f in own if f.__module__ == module.__name__]
        functions |= {f"{name}.{f.__name__}" for f in own if not f.__name__.startswith("_")}
    listed = {name.partition(" ")[0] for name in CASES} - {"decoding.beam.search"} | OTHERS.keys()
    assert functions == listed, "add a new function to CASES, or to OTHERS with the reason"
    page = (Path(__file__).parents[2] / "docs" / "properties.md").read_text(encoding="utf-8")
    assert not [name for name in listed if f"`{name}`" not in page], "add it to the table of the page as well"


@pytest.mark.parametrize("dtype", DTYPES)
def test_labelled_converts_every_dtype_to_int32(dtype):
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
def test_invalid_values_are_named(change, message):
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


def test_label_of_200_characters_in_uint8():
    """Its 401 states do not fit; of 3^250 paths of equal probability, ``T + n`` over ``2 n`` spell it."""
    loss = jax.jit(ctc.ctc_loss, static_argnames="blank")
    labels = np.tile(np.array([1, 2], np.uint8), (1, 100))
    arguments = jnp.zeros((1, 250, 3)), np.array([250], np.uint8), labels, np.array([200], np.uint8)
    np.testing.assert_allclose(loss(*arguments), EIGHT_BITS, rtol=1e-5)


def test_last_class_as_blank():
    logits = np.eye(4, dtype=np.float32)[[[3, 1, 1, 3]]]
    ids, counts = jax.jit(decode.greedy, static_argnames="blank")(logits, np.array([4], np.uint8), blank=-1)
    assert (ids.tolist(), counts.tolist()) == ([[1, 0, 0, 0]], [1])
    with pytest.raises(ValueError, match="blank is 4; expected a class id from 0 to 3"):
        decode.greedy(logits, np.array([4]), blank=4)
    with pytest.raises(ValueError, match="blank is -1; expected 0 or more"):
        decode.emitting(np.array([[1]]), np.array([1]), -1)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if dtype != "int32"])
def test_every_function_accepts_every_integer_dtype(dtype):
    narrow = inputs(T=160, L=120, dtype=dtype)
    wide = inputs(T=160, L=120, dtype=dtype)
    for name in INTEGERS:
        setattr(wide, name, getattr(wide, name).astype(np.int32))
    for call, takes in CASES.values():
        if takes != "step" or dtype == "uint8":
            same(call(narrow), call(wide))
            if dtype == "uint8":
                same(jitted(call, narrow), jitted(call, wide))


@pytest.mark.slow
@pytest.mark.parametrize("name", names("blank"))
def test_negative_blank_counts_from_the_end(name):
    call, takes = CASES[name]
    for blank in (0, C - 1):
        n = inputs(blank=blank)
        expected = call(n)
        finite(expected, name)
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
def test_empty_frames_and_empty_labels(name):
    call, takes = CASES[name]
    finite(call(inputs(T=0)) if "widths" not in takes else call(inputs()), name)
    finite(call(inputs(L=0)), name)
    finite(call(inputs(T=0, L=0)) if "widths" not in takes else call(inputs()), name)
    if "labels" in takes.split():
        some, none = inputs(L=1), inputs(L=0)
        some.label_lengths = some.counts = np.zeros(B, np.int32)
        one, two = (jax.tree.leaves(call(n)) for n in (some, none))
        for a, b in zip(one, two, strict=True):
            if a.shape == b.shape:  # others have an axis of slots
                np.testing.assert_array_equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("name", names("labels"))
@pytest.mark.parametrize("wrong", [-1, C])
def test_labels_out_of_range_are_rejected(name, wrong):
    call, takes = CASES[name]
    n = inputs()
    expected = jitted(call, n)
    n.labels[0, 1] = wrong
    if wrong < 0 or "classless" not in takes:
        with pytest.raises(ValueError, match=rf"(labels|ids)\[0, 1\] is {wrong}; expected a class id"):
            call(n)
    traced = jitted(call, n)
    finite(traced, name)
    for a, b in zip(jax.tree.leaves(traced), jax.tree.leaves(expected), strict=True):
        if a.ndim and len(a) == B and not name.startswith("diagnostics"):  # the other samples are as before
            np.testing.assert_array_equal(a[1:], b[1:])


@pytest.mark.slow
def test_label_out_of_range_is_infeasible_under_jit():
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
def test_assigned_classes_out_of_range_are_rejected(name, wrong):
    call, _ = CASES[name]
    n = inputs()
    n.classes[0, 1] = wrong
    with pytest.raises(ValueError, match=rf"classes\[0, 1\] is {wrong}; expected a class id from 0 to {C - 1}"):
        call(n)
    traced = jitted(call, n)
    finite(traced, name)
    if name == "diagnostics.top_rival":
        return
    n.classes[0, 1] = 0
    n.weights = n.weights.at[0, 1].set(0)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), traced, jitted(call, n))


@pytest.mark.torch
@pytest.mark.slow
def test_reference_follows_the_same_rules():
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
