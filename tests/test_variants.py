"""Every assignment with every reduction and update, against one list of properties; then what is special to each."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcrnn import assign, centers, ctc, decode, diagnostics, losses
from jaxcrnn.types import Assignment, CenterState

B, T, L, C, D = 6, 9, 4, 7, 5
ASSIGNMENTS = {
    "counted": assign.counted,
    "counted, one ignored": functools.partial(assign.counted, ignored=(2,)),
    "predicted": lambda logits, lengths, labels, label_lengths: assign.predicted(logits, lengths),
    "predicted, no blank": lambda logits, lengths, labels, label_lengths: assign.predicted(
        logits, lengths, skip_blank=True
    ),
    **{f"aligned, {f}": functools.partial(assign.aligned, frames=f) for f in assign.FRAMES},
    "posterior": assign.posterior,
}
LOSSES = {
    "ctc": ctc.ctc_loss,
    "focal": losses.focal_ctc,
    "focal, gamma 0.5": functools.partial(losses.focal_ctc, gamma=0.5),
    "ace": losses.ace,
    "ace of paddle": functools.partial(losses.ace, variant="paddle"),
}
UPDATES = {
    "fixed": centers.fixed,
    "delta": centers.delta,
    "gradient, mean": functools.partial(centers.gradient, learning_rate=0.5),
    "gradient, half_sum": functools.partial(centers.gradient, learning_rate=0.5, reduction="half_sum"),
}


@functools.cache
def everything(name):
    """All that follows from one assignment, un-jitted and jitted."""

    def compute(logits, features, start, lengths, labels, label_lengths):
        assignment = ASSIGNMENTS[name](logits, lengths, labels, label_lengths)
        rivals = diagnostics.lookalikes(logits, assignment.classes, excluded=(0,))
        out = {"assignment": assignment, "watch": diagnostics.watch(logits, features, start, assignment)}
        for reduction in losses.REDUCTIONS:
            for term, of in (
                ("center", functools.partial(losses.center, assignment=assignment)),
                ("push", functools.partial(losses.push, assignment=assignment, rivals=rivals)),
            ):
                value = jax.value_and_grad(lambda f, c, of=of, r=reduction: of(f, c, reduction=r), argnums=(0, 1))
                out[f"{term}, {reduction}"] = value(features, start)
        state = CenterState(start, jnp.zeros(len(start)))
        out |= {update: rule(state, features, assignment) for update, rule in UPDATES.items()}
        return out

    return compute, jax.jit(compute)


def numbers(seed=0, scale=2.0):
    """Six samples: read right, read wrong, an empty label, one frame, no frame, and too few frames."""
    rng = np.random.default_rng(seed)
    logits = (rng.normal(size=(B, T, C)) * scale).astype(np.float32)
    lengths = np.asarray([T, T - 2, T, 1, 0, 3], np.int32)
    logits[:, :, 1] = -20 * scale  # a class that never occurs
    labels = rng.integers(2, C, (B, L)).astype(np.int32)
    label_lengths = np.asarray([2, 3, 0, 1, 0, 4], np.int32)
    for b, read in ((0, [0, 3, 3, 0, 0, 5, 0, 0, 0]), (3, [4] * T)):  # what these two are read as
        logits[b] += 6 * scale * np.eye(C, dtype=np.float32)[read]
        label_lengths[b] = len(set(read) - {0})
    labels[0, :2], labels[3, 0] = (3, 6), 4  # the second character of the first is wrong, and still counted
    features, start = (rng.normal(size=shape).astype(np.float32) for shape in ((B, T, D), (C, D)))
    return logits, features, start, lengths, labels, label_lengths


def close(a, b, tolerance=1e-5):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if np.issubdtype(np.asarray(x).dtype, np.integer):
            np.testing.assert_array_equal(x, y)
        else:
            np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


every_assignment = pytest.mark.parametrize("name", list(ASSIGNMENTS))
every_loss = pytest.mark.parametrize("name", list(LOSSES))


@pytest.mark.parametrize("name", [
    pytest.param(n, marks=() if n in ("counted", "predicted", "aligned, best", "posterior") else pytest.mark.slow)
    for n in ASSIGNMENTS
])  # fmt: skip
def test_eager_is_jit(name):
    eager, jitted = everything(name)
    close(eager(*map(jnp.asarray, numbers())), jitted(*numbers()))


@every_assignment
def test_padding_changes_nothing(name):
    logits, features, start, lengths, labels, label_lengths = numbers()
    clean = everything(name)[1](logits, features, start, lengths, labels, label_lengths)
    for b in range(B):
        logits[b, lengths[b] :] = np.random.default_rng(1).normal(size=C) * 50
        features[b, lengths[b] :] = np.nan
        labels[b, label_lengths[b] :] = (1, 255, -100, C)[b % 4]
    noisy = everything(name)[1](logits, features, start, lengths, labels, label_lengths)
    weights = clean["assignment"].weights
    np.testing.assert_array_equal(weights, noisy["assignment"].weights)
    used = weights > 0
    np.testing.assert_array_equal(
        jnp.where(used, clean["assignment"].classes, 0), jnp.where(used, noisy["assignment"].classes, 0)
    )
    for out in (clean, noisy):
        out.pop("assignment")
    close(clean, noisy)


@every_assignment
def test_no_frame_is_assigned_outside_its_length(name):
    _, _, _, lengths, *_ = numbers()
    weights = everything(name)[1](*numbers())["assignment"].weights.reshape(B, T, -1)
    assert weights.max() > 0
    for b in range(B):
        assert (weights[b, lengths[b] :] == 0).all()
    assert ((weights >= 0) & (weights <= 1)).all()


@every_assignment
def test_a_permuted_batch_permutes_the_result(name):
    logits, features, start, *known = numbers()
    order = np.asarray([3, 0, 5, 2, 4, 1])
    one = everything(name)[1](logits, features, start, *known)
    two = everything(name)[1](logits[order], features[order], start, *(k[order] for k in known))
    close(jax.tree.map(lambda a: a[order], one.pop("assignment")), two.pop("assignment"))
    for term in [key for key in one if key.startswith(("center", "push"))]:
        (value, (d_f, d_c)), (value2, (d_f2, d_c2)) = one.pop(term), two.pop(term)
        close((value, d_f[order], d_c), (value2, d_f2, d_c2))
    close(one, two)


@every_assignment
def test_features_on_their_centers_are_at_rest(name):
    logits, features, start, *known = numbers()
    assignment = everything(name)[1](logits, features, start, *known)["assignment"]
    if assignment.classes.ndim == 3:  # a frame of two characters cannot be on both
        most = jnp.argmax(assignment.weights, -1, keepdims=True)
        assignment = Assignment(
            jnp.take_along_axis(assignment.classes, most, -1), jnp.take_along_axis(assignment.weights, most, -1)
        )
    classes = assignment.classes.reshape(B, T, -1)[..., 0]
    on = jnp.asarray(start)[classes]
    for reduction in losses.REDUCTIONS:
        value, gradient = jax.value_and_grad(lambda f, r=reduction: losses.center(f, start, assignment, reduction=r))(
            on
        )
        assert value < 1e-10
        assert (gradient == 0).all()
    state = CenterState(jnp.asarray(start), jnp.zeros(C))
    for rule in UPDATES.values():
        np.testing.assert_array_equal(rule(state, on, assignment).centers, start)


@every_assignment
def test_only_centers_of_assigned_classes_move(name):
    _, _, start, *_ = numbers()
    out = everything(name)[1](*numbers())
    classes, weights = out["assignment"]
    present = np.unique(np.asarray(classes)[np.asarray(weights) > 0])
    absent = np.setdiff1d(np.arange(C), present)
    assert len(present) > 0
    assert len(absent) > 0
    for update in UPDATES:
        moved = out[update]
        np.testing.assert_array_equal(moved.centers[absent], start[absent])
        assert (moved.counts[absent] == 0).all()
        if update == "fixed":
            np.testing.assert_array_equal(moved.centers, start)
        else:
            assert (moved.centers[present] != start[present]).any(1).all()
            np.testing.assert_allclose(moved.counts.sum(), weights.sum(), rtol=1e-6)


@every_assignment
def test_updates_move_towards_the_features_by_hand(name):
    logits, features, start, *_ = numbers()
    out = everything(name)[1](*numbers())
    classes, weights = (np.asarray(a, np.float64).reshape(B, T, -1) for a in out["assignment"])
    total = weights.sum()
    for k in range(C):
        share = np.where(classes == k, weights, 0)
        away = (share.sum(-1)[..., None] * (start[k] - features.astype(np.float64))).sum((0, 1))
        np.testing.assert_allclose(out["delta"].centers[k], start[k] - 0.05 * away / (1 + share.sum()), atol=1e-6)
        np.testing.assert_allclose(out["gradient, mean"].centers[k], start[k] - 0.5 * 2 * away / total, atol=1e-5)
        np.testing.assert_allclose(out["gradient, half_sum"].centers[k], start[k] - 0.5 * away, atol=1e-5)


@every_assignment
def test_alpha_zero_leaves_the_centers(name):
    logits, features, start, *known = numbers()
    assignment = everything(name)[1](logits, features, start, *known)["assignment"]
    state = CenterState(jnp.asarray(start), jnp.zeros(C))
    np.testing.assert_array_equal(centers.delta(state, features, assignment, alpha=0.0).centers, start)
    moved = centers.gradient(state, features, assignment, learning_rate=0.0)
    np.testing.assert_array_equal(moved.centers, start)


@every_assignment
def test_extreme_logits_stay_finite(name):
    out = everything(name)[1](*numbers(scale=1e4))
    chex.assert_tree_all_finite(out)


@every_assignment
def test_a_batch_of_nothing_gives_nothing(name):
    """No label fits: nothing passes the gate, nothing is feasible; flow two goes by what is read, and reads blanks."""
    logits, features, start, lengths, labels, label_lengths = numbers()
    lengths, label_lengths = np.minimum(lengths, 2), np.full(B, L, np.int32)
    if name == "predicted":
        lengths = np.zeros(B, np.int32)
    if name == "predicted, no blank":
        logits[:, :, 0] = 100
    out = everything(name)[1](logits, features, start, lengths, labels, label_lengths)
    assert (out["assignment"].weights == 0).all()
    for key, value in out.items():
        if key.startswith(("center", "push")):
            assert all((leaf == 0).all() for leaf in jax.tree.leaves(value))
        elif key in UPDATES:
            np.testing.assert_array_equal(value.centers, start)
    assert (out["watch"].hardest.classes == -1).all()


@every_assignment
def test_one_sample_of_one_frame(name):
    logits, features, start, lengths, labels, label_lengths = (a[3:4] if a.shape[0] == B else a for a in numbers())
    known = (lengths, labels[:, :1], label_lengths)
    assignment = jax.jit(ASSIGNMENTS[name])(logits[:, :1], *known)
    assert assignment.weights.reshape(1, 1, -1).sum() == 1
    assert assignment.classes.reshape(-1)[0] == 4
    assert losses.center(features[:, :1], start, assignment) > 0


@every_loss
def test_losses_ignore_padding_and_stay_finite(name):
    loss = jax.jit(lambda x, *known: (LOSSES[name](x, *known), jax.grad(lambda x: LOSSES[name](x, *known).sum())(x)))
    logits, _, _, lengths, labels, label_lengths = numbers()
    clean = loss(logits, lengths, labels, label_lengths)
    close(LOSSES[name](*map(jnp.asarray, (logits, lengths, labels, label_lengths))), clean[0])
    order = np.asarray([5, 3, 1, 0, 4, 2])
    close(loss(*(a[order] for a in (logits, lengths, labels, label_lengths))), [a[order] for a in clean])
    noisy, other = logits.copy(), labels.copy()
    for b in range(B):
        noisy[b, lengths[b] :] = np.nan
        other[b, label_lengths[b] :] = (1, 255, -100, C)[b % 4]
    close(loss(noisy, lengths, other, label_lengths), clean)
    chex.assert_tree_all_finite(loss(logits * 1e4, lengths, labels, label_lengths))
    assert clean[0][5] == 0  # four characters in three frames
    assert (clean[1][5] == 0).all()
    assert (clean[0] >= 0).all()


def test_focal_of_gamma_zero_is_ctc():
    logits, _, _, *known = numbers()
    np.testing.assert_array_equal(losses.focal_ctc(logits, *known, gamma=0.0), ctc.ctc_loss(logits, *known))
    np.testing.assert_allclose(
        losses.focal_ctc(logits, *known, alpha=3.0, gamma=0.0), 3 * ctc.ctc_loss(logits, *known), rtol=1e-6
    )


def test_ace_by_hand():
    logits, _, _, lengths, labels, label_lengths = numbers()
    found = losses.ace(logits, lengths, labels, label_lengths)
    for b in (0, 1, 2, 3):
        frames = np.exp(logits[b, : lengths[b]].astype(np.float64))
        mean = (frames / frames.sum(1, keepdims=True)).mean(0)
        counts = np.bincount(labels[b, : label_lengths[b]], minlength=C)
        counts[0] = lengths[b] - label_lengths[b]
        np.testing.assert_allclose(found[b], -(counts / lengths[b] * np.log(mean)).sum(), rtol=1e-5, atol=1e-6)


def test_counted_takes_true_labels_where_the_count_is_right_and_nothing_elsewhere():
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
        pick = {"last": lambda run, c: run[-1], "first": lambda run, c: run[0],
                "best": lambda run, c, b=b: run[np.argmax(jax.nn.log_softmax(logits[b])[run, c])]}[frames]  # fmt: skip
        assert chosen.tolist() == [pick(run, c) for run, c in zip(runs, wanted, strict=True)]


def test_posterior_weights_sum_to_one_per_slot():
    logits, _, _, lengths, labels, label_lengths = numbers()
    classes, weights = assign.posterior(logits, lengths, labels, label_lengths)
    feasible = ctc.is_feasible(lengths, labels, label_lengths)
    for b in range(B):
        expected = (np.arange(L) < label_lengths[b]) & feasible[b]
        np.testing.assert_allclose(weights[b].sum(0), expected, atol=1e-5)
        assert (classes[b, :, expected] == labels[b, expected][:, None]).all()


def test_accumulate_is_the_mean_over_exactly_read_samples():
    logits, features, start, lengths, labels, label_lengths = numbers()
    labels[0, 1] = 5  # now it is read exactly, as is the sample of one frame
    state = centers.zeros(C, D)
    for half in (slice(0, 2), slice(2, None)):  # folded over two batches
        known = (a[half] for a in (features, logits, lengths, labels, label_lengths))
        state = centers.accumulate(state, *known)
    best = logits.argmax(-1)
    taken = [(b, t) for b in (0, 3) for t in range(lengths[b])]
    empty = [(2, t) for t in range(lengths[2])] if (best[2, : lengths[2]] == 0).all() else []
    for k in range(C):
        frames = [features[b, t] for b, t in taken + empty if best[b, t] == k]
        assert state.counts[k] == len(frames)
        np.testing.assert_allclose(state.centers[k], np.mean(frames, 0) if frames else np.zeros(D), atol=1e-6)


def test_starts():
    kernel = np.random.default_rng(0).normal(size=(D, C)).astype(np.float32)
    np.testing.assert_array_equal(centers.from_head(kernel).centers, kernel.T)
    assert (centers.zeros(C, D).centers == 0).all()
    drawn = centers.normal(jax.random.key(0), 400, 50).centers
    assert abs(float(drawn.mean())) < 0.02
    assert abs(float(drawn.std()) - 1) < 0.02
    for state in (centers.zeros(C, D), centers.normal(jax.random.key(0), C, D), centers.from_head(kernel)):
        assert (state.centers.shape, state.counts.shape) == ((C, D), (C,))
        assert state.centers.dtype == state.counts.dtype == jnp.float32


def test_push_by_hand():
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


def test_lookalikes_are_the_most_probable_others():
    logits = jnp.asarray([[[9.0, 5.0, 7.0, 1.0], [1.0, 2.0, 3.0, 4.0]]])
    assert diagnostics.lookalikes(logits, jnp.asarray([[0, 0]])).tolist() == [[2, 3]]
    assert diagnostics.lookalikes(logits, jnp.asarray([[2, 3]]), excluded=(0,)).tolist() == [[1, 2]]
    assert diagnostics.lookalikes(logits, jnp.asarray([[2, 3]]), excluded=(0, 1, 2)).tolist() == [[3, 3]]
    several = diagnostics.lookalikes(logits, jnp.asarray([[[0, 1], [3, 2]]]))
    assert several.tolist() == [[[2, 0], [2, 3]]]


def test_watch_by_hand():
    logits, features, start, *known = numbers()
    assignment = everything("aligned, last")[1](logits, features, start, *known)["assignment"]
    found = diagnostics.watch(logits, features, start, assignment)
    rows = []
    for b, t in zip(*np.nonzero(assignment.weights), strict=True):
        own = int(assignment.classes[b, t])
        rival = max((c for c in range(C) if c != own), key=lambda c: logits[b, t, c])
        p = np.exp(logits[b, t, own]) / np.exp(logits[b, t]).sum()
        lengths = [np.linalg.norm(a) for a in (start[own] - start[rival], features[b, t] - start[rival],
                                               features[b, t] - start[own])]  # fmt: skip
        rows.append((lengths[1] - lengths[2], own, rival, p, *lengths))
    rows.sort()
    assert found.weight == len(rows)
    np.testing.assert_allclose([found.between, found.to_lookalike, found.to_own], np.sum(rows, 0)[4:], rtol=1e-5)
    for extreme, expected in ((found.hardest, rows[:3]), (found.easiest, rows[::-1][:3])):
        for i, column in enumerate((extreme.margins, extreme.classes, extreme.rivals, extreme.probabilities)):
            np.testing.assert_allclose(column, [row[i] for row in expected], rtol=1e-4, atol=1e-6)


def shapes_in(jaxpr):
    for equation in jaxpr.eqns:
        for variable in equation.outvars:
            yield variable.aval.shape
        for value in equation.params.values():
            for inner in value if isinstance(value, list | tuple) else [value]:
                if hasattr(inner, "jaxpr"):
                    inner = inner.jaxpr
                if hasattr(inner, "eqns"):
                    yield from shapes_in(inner)


@every_assignment
def test_centers_are_gathered_never_multiplied_out(name):
    """Neither the loss, its gradient nor an update makes an array of all frames by all classes."""
    logits, features, start, *known = numbers()
    assignment = ASSIGNMENTS[name](logits, *known)

    def all_of_it(features, start):
        loss = jax.value_and_grad(lambda f: losses.center(f, start, assignment))(features)
        state = CenterState(start, jnp.zeros(C))
        return loss, [rule(state, features, assignment) for rule in UPDATES.values()]

    made = jax.make_jaxpr(all_of_it)(features, start).jaxpr
    assert all(np.prod(shape) < B * T * C for shape in shapes_in(made) if C in shape[1:] and D not in shape)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda n: assign.counted(n[0], *n[3:], blank=C), f"blank is class {C}; expected one of the {C} classes"),
        (lambda n: assign.counted(n[0], *n[3:], ignored=(1, -1)), r"ignored\[1\] is class -1"),
        (lambda n: assign.predicted(n[0], n[3], blank=-1), "blank is class -1"),
        (lambda n: assign.aligned(n[0], *n[3:], frames="middle"), "'middle'; expected one of last, first, best, all"),
        (lambda n: losses.ace(n[0], *n[3:], variant="ours"), "'ours'; expected one of paper, paddle"),
        (lambda n: losses.center(n[1], n[2][:, :3], some(n)), "features have size 5, centers 3"),
        (lambda n: losses.center(n[1], n[2], some(n), reduction="sum"), "'sum'; expected one of mean, half_sum"),
        (lambda n: centers.delta(CenterState(n[2][:, :2], n[2][:, 0]), n[1], some(n)), "features have size 5"),
        (lambda n: centers.gradient(state_of(n), n[1], some(n), learning_rate=1, reduction="sum"), "'sum'; expected"),
        (lambda n: centers.accumulate(centers.zeros(3, D), n[1], n[0], *n[3:]), f"3 centers for {C} classes"),
    ],
)  # fmt: skip
def test_wrong_use_gets_a_clear_error(call, message):
    with pytest.raises(ValueError, match=message):
        call(numbers())


def some(n):
    return assign.predicted(n[0], n[3])


def state_of(n):
    return CenterState(jnp.asarray(n[2]), jnp.zeros(C))
