"""What is special to one assignment, loss or update, against results worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from variants import B, C, D, L, everything, numbers

from jaxcrnn import assign, centers, ctc, decode, diagnostics, losses
from jaxcrnn.types import Assignment, CenterState


def test_focal_ctc_with_gamma_zero_is_ctc():
    logits, _, _, *labels = numbers()
    plain, same, thrice = jax.jit(
        lambda *x: (ctc.ctc_loss(*x), losses.focal_ctc(*x, gamma=0.0), losses.focal_ctc(*x, alpha=3.0, gamma=0.0))
    )(logits, *labels)
    np.testing.assert_array_equal(same, plain)
    np.testing.assert_allclose(thrice, 3 * plain, rtol=1e-6)


def test_ace_matches_manual_computation():
    logits, _, _, lengths, labels, label_lengths = numbers()
    values = losses.ace(logits, lengths, labels, label_lengths)
    for b in (0, 1, 2, 3):
        frames = np.exp(logits[b, : lengths[b]].astype(np.float64))
        mean = (frames / frames.sum(1, keepdims=True)).mean(0)
        counts = np.bincount(labels[b, : label_lengths[b]], minlength=C)
        counts[0] = lengths[b] - label_lengths[b]
        np.testing.assert_allclose(values[b], -(counts / lengths[b] * np.log(mean)).sum(), rtol=1e-5, atol=1e-6)


def test_counted_assigns_labels_only_where_counts_match():
    out = everything("counted")[1](*numbers())["assignment"]
    assert np.flatnonzero(out.weights[0]).tolist() == [2, 5]  # the last frames of both runs
    assert out.classes[0, [2, 5]].tolist() == [3, 6]  # the label, though 5 was read
    logits, features, start, lengths, labels, label_lengths = numbers()
    ids, counts = decode.greedy(logits, lengths)
    passed = (out.weights > 0).any(1)
    assert (passed == ((counts == label_lengths) & (label_lengths > 0))).all()
    label_lengths[0] = 3
    assert (assign.counted(logits, lengths, labels, label_lengths).weights[0] == 0).all()


@pytest.mark.parametrize("frames", assign.FRAMES)
def test_aligned_assigns_exactly_the_label(frames):
    logits, _, _, lengths, labels, label_lengths = numbers(seed=4)
    labels[1, :3] = (2, 2, 5)  # a repeat needs its blank
    classes, weights = assign.aligned(logits, lengths, labels, label_lengths, frames=frames)
    feasible = ctc.is_feasible(lengths, labels, label_lengths)
    path = ctc.best_path(logits, lengths, labels, label_lengths)
    for b in range(B):
        chosen = np.flatnonzero(weights[b])
        if not feasible[b]:
            assert len(chosen) == 0
            continue
        slots = np.asarray(path[b])[chosen]
        wanted = labels[b, : label_lengths[b]].tolist()
        np.testing.assert_array_equal(np.asarray(classes[b])[chosen], labels[b][slots])
        if frames == "all":
            assert np.unique(slots).tolist() == list(range(label_lengths[b]))
            np.testing.assert_array_equal(chosen, np.flatnonzero(np.asarray(path[b]) >= 0))
            continue
        assert np.asarray(classes[b])[chosen].tolist() == wanted
        runs = [np.flatnonzero(np.asarray(path[b]) == slot) for slot in range(label_lengths[b])]
        pick = {
            "last": lambda run, c: run[-1],
            "first": lambda run, c: run[0],
            "best": lambda run, c, b=b: run[np.argmax(jax.nn.log_softmax(logits[b])[run, c])],
        }[frames]
        assert chosen.tolist() == [pick(run, c) for run, c in zip(runs, wanted, strict=True)]


def test_posterior_weights_sum_to_one_per_slot():
    logits, _, _, lengths, labels, label_lengths = numbers()
    classes, weights = assign.posterior(logits, lengths, labels, label_lengths)
    feasible = ctc.is_feasible(lengths, labels, label_lengths)
    for b in range(B):
        expected = (np.arange(L) < label_lengths[b]) & feasible[b]
        np.testing.assert_allclose(weights[b].sum(0), expected, atol=1e-5)
        assert (classes[b, :, expected] == labels[b, expected][:, None]).all()


def test_accumulate_averages_exactly_recognised_samples():
    logits, features, start, lengths, labels, label_lengths = numbers()
    labels[0, 1] = 5  # now it is read exactly, as is the sample of one frame
    state = centers.zeros(C, D)
    for half in (slice(0, 2), slice(2, None)):  # folded over two batches
        arrays = (a[half] for a in (features, logits, lengths, labels, label_lengths))
        state = jax.jit(centers.accumulate)(state, *arrays)
    best = logits.argmax(-1)
    taken = [(b, t) for b in (0, 3) for t in range(lengths[b])]
    empty = [(2, t) for t in range(lengths[2])] if (best[2, : lengths[2]] == 0).all() else []
    for k in range(C):
        frames = [features[b, t] for b, t in taken + empty if best[b, t] == k]
        assert state.counts[k] == len(frames)
        np.testing.assert_allclose(state.centers[k], np.mean(frames, 0) if frames else np.zeros(D), atol=1e-6)


def test_center_distances_are_clipped_on_both_sides():
    """Of three frames, one on its center, one 5 away, one out of all bounds, which is not pulled at."""
    table = jnp.zeros((2, 2))
    features = jnp.asarray([[[0.0, 0.0], [3.0, 4.0], [3e6, 4e6]]])
    assignment = Assignment(jnp.zeros((1, 3), jnp.int32), jnp.ones((1, 3)))
    value, gradient = jax.value_and_grad(lambda f: losses.center(f, table, assignment, reduction="half_sum"))(features)
    np.testing.assert_allclose(value, (1e-12 + 25 + 1e12) / 2, rtol=1e-6)
    np.testing.assert_allclose(gradient, [[[0, 0], [3, 4], [0, 0]]], rtol=1e-6)
    near = Assignment(assignment.classes, jnp.asarray([[1.0, 0.0, 0.0]]))
    np.testing.assert_allclose(losses.center(features, table, near), 1e-12, rtol=1e-6)


def test_initial_centers():
    kernel = np.random.default_rng(0).normal(size=(D, C)).astype(np.float32)
    np.testing.assert_array_equal(centers.from_head(kernel).centers, kernel.T)
    assert (centers.zeros(C, D).centers == 0).all()
    drawn = centers.normal(jax.random.key(0), 400, 50).centers
    assert abs(float(drawn.mean())) < 0.02
    assert abs(float(drawn.std()) - 1) < 0.02
    for state in (centers.zeros(C, D), centers.normal(jax.random.key(0), C, D), centers.from_head(kernel)):
        assert (state.centers.shape, state.counts.shape) == ((C, D), (C,))
        assert state.centers.dtype == state.counts.dtype == jnp.float32


def test_push_matches_manual_computation():
    start = jnp.asarray([[0.0, 0.0], [1.0, 0.0], [0.0, 3.0]])
    features = jnp.asarray([[[0.5, 0.0], [1.0, 0.0], [9.0, 9.0]]])
    assignment = Assignment(jnp.asarray([[1, 1, 1]]), jnp.asarray([[1.0, 1.0, 0.0]]))
    rivals = jnp.asarray([[0, 2, 0]])
    # 1 + 0.25 - 0.25 for the first; the second is farther than the margin; the third has no weight.
    value, gradient = jax.value_and_grad(lambda f: losses.push(f, start, assignment, rivals))(features)
    np.testing.assert_allclose(value, 0.5)
    np.testing.assert_allclose(
        gradient, [[[-1.0, 0.0], [0.0, 0.0], [0.0, 0.0]]]
    )  # 2 (rival - own) / 2: away from rival
    assert losses.push(features, start, assignment, rivals, margin=3.0, reduction="half_sum") == 1.5
    none = losses.push(features, start, assignment, assignment.classes)
    assert none == 0


def test_top_rival_is_the_most_probable_other_class():
    logits = jnp.asarray([[[9.0, 5.0, 7.0, 1.0], [1.0, 2.0, 3.0, 4.0]]])
    assert diagnostics.lookalikes is diagnostics.top_rival  # its name in version 0.1
    assert diagnostics.top_rival(logits, jnp.asarray([[0, 0]])).tolist() == [[2, 3]]
    assert diagnostics.top_rival(logits, jnp.asarray([[2, 3]]), excluded=(0,)).tolist() == [[1, 2]]
    assert diagnostics.top_rival(logits, jnp.asarray([[2, 3]]), excluded=(0, 1, 2)).tolist() == [[3, 3]]
    several = diagnostics.top_rival(logits, jnp.asarray([[[0, 1], [3, 2]]]))
    assert several.tolist() == [[[2, 0], [2, 3]]]


def test_watch_matches_manual_computation():
    logits, features, start, *labels = numbers()
    assignment = everything("aligned, last")[1](logits, features, start, *labels)["assignment"]
    metrics = jax.jit(diagnostics.watch)(logits, features, start, assignment)
    rows = []
    for b, t in zip(*np.nonzero(assignment.weights), strict=True):
        own = int(assignment.classes[b, t])
        rival = max((c for c in range(C) if c != own), key=lambda c: logits[b, t, c])
        p = np.exp(logits[b, t, own]) / np.exp(logits[b, t]).sum()
        lengths = [
            np.linalg.norm(a)
            for a in (start[own] - start[rival], features[b, t] - start[rival], features[b, t] - start[own])
        ]
        rows.append((lengths[1] - lengths[2], own, rival, p, *lengths))
    rows.sort()
    assert metrics.weight == len(rows)
    np.testing.assert_allclose([metrics.between, metrics.to_lookalike, metrics.to_own], np.sum(rows, 0)[4:], rtol=1e-5)
    for extreme, expected in ((metrics.hardest, rows[:3]), (metrics.easiest, rows[::-1][:3])):
        for i, column in enumerate((extreme.margins, extreme.classes, extreme.rivals, extreme.probabilities)):
            np.testing.assert_allclose(column, [row[i] for row in expected], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda n: assign.counted(n[0], *n[3:], blank=C), f"blank is {C}; expected a class id from 0 to {C - 1}"),
        (lambda n: assign.counted(n[0], *n[3:], ignored=(1, -C - 1)), rf"ignored\[1\] is {-C - 1}"),
        (lambda n: assign.predicted(n[0], n[3], blank=-C - 1), f"blank is {-C - 1}"),
        (lambda n: assign.aligned(n[0], *n[3:], frames="middle"), "'middle'; expected one of last, first, best, all"),
        (lambda n: losses.ace(n[0], *n[3:], variant="ours"), "'ours'; expected one of paper, paddle"),
        (lambda n: losses.center(n[1], n[2][:, :3], some(n)), "features have size 5 but centers have size 3"),
        (lambda n: losses.center(n[1], n[2], some(n), reduction="sum"), "'sum'; expected one of mean, half_sum"),
        (lambda n: centers.delta(CenterState(n[2][:, :2], n[2][:, 0]), n[1], some(n)), "features have size 5"),
        (lambda n: centers.gradient(state_of(n), n[1], some(n), learning_rate=1, reduction="sum"), "'sum'; expected"),
        (lambda n: centers.accumulate(centers.zeros(3, D), n[1], n[0], *n[3:]), f"3 centers for {C} classes"),
    ],
)
def test_invalid_arguments_raise_value_error(call, message):
    with pytest.raises(ValueError, match=message):
        call(numbers())


def some(n):
    return assign.predicted(n[0], n[3])


def state_of(n):
    return CenterState(jnp.asarray(n[2]), jnp.zeros(C))
