"""Every assignment with every reduction and update, against one list of properties."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tolerances
from absl.testing import parameterized
from variants import ASSIGNMENTS, LOSSES, UPDATES, B, C, D, L, T, close, everything, numbers

from jaxcrnn import centers, losses
from jaxcrnn.types import Assignment, CenterState

every_assignment = pytest.mark.parametrize("name", list(ASSIGNMENTS))
every_loss = pytest.mark.parametrize("name", list(LOSSES))


@pytest.mark.slow  # `TestUpdates` does as much for assignments and updates
@every_assignment
def test_eager_and_jit_agree(name):
    eager, jitted = everything(name)
    close(eager(*map(jnp.asarray, numbers())), jitted(*numbers()))


@every_assignment
def test_padding_does_not_affect_results(name):
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
def test_padded_frames_are_not_assigned(name):
    _, _, _, lengths, *_ = numbers()
    weights = everything(name)[1](*numbers())["assignment"].weights.reshape(B, T, -1)
    assert weights.max() > 0
    for b in range(B):
        assert (weights[b, lengths[b] :] == 0).all()
    assert ((weights >= 0) & (weights <= 1)).all()


@every_assignment
def test_permuting_the_batch_permutes_the_results(name):
    logits, features, start, *labels = numbers()
    order = np.asarray([3, 0, 5, 2, 4, 1])
    one = everything(name)[1](logits, features, start, *labels)
    two = everything(name)[1](logits[order], features[order], start, *(k[order] for k in labels))
    close(jax.tree.map(lambda a: a[order], one.pop("assignment")), two.pop("assignment"))
    for term in [key for key in one if key.startswith(("center", "push"))]:
        (value, (d_f, d_c)), (value2, (d_f2, d_c2)) = one.pop(term), two.pop(term)
        close((value, d_f[order], d_c), (value2, d_f2, d_c2))
    close(one, two)


@every_assignment
def test_features_at_their_centers_have_zero_loss_and_gradient(name):
    logits, features, start, *labels = numbers()
    assignment = everything(name)[1](logits, features, start, *labels)["assignment"]
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


class TestUpdates(chex.TestCase):
    """Un-jitted, as a user may call them, and jitted."""

    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters(*ASSIGNMENTS)
    def test_updates_match_manual_computation(self, name):
        @self.variant
        def move(logits, features, start, *lines):
            assignment = ASSIGNMENTS[name](logits, *lines)
            state = CenterState(start, jnp.zeros(C))
            return assignment, {update: rule(state, features, assignment) for update, rule in UPDATES.items()}

        assignment, moved = move(*map(jnp.asarray, numbers()))
        _, features, start, *_ = numbers()
        classes, weights = (np.asarray(a, np.float64).reshape(B, T, -1) for a in assignment)
        assert weights.sum() > 0
        shares = [np.where(classes == k, weights, 0) for k in range(C)]
        differences = [start[k] - features.astype(np.float64) for k in range(C)]
        away = np.einsum("kbti,kbtd->kd", shares, differences)
        counts = np.asarray([share.sum() for share in shares])
        steps = {
            "fixed": 0 * away,
            "delta": 0.05 * away / (1 + counts)[:, None],
            "gradient, mean": 0.5 * 2 * away / counts.sum(),
            "gradient, half_sum": 0.5 * away,
        }
        assert steps.keys() == moved.keys()
        for update, step in steps.items():
            np.testing.assert_allclose(moved[update].centers, start - step, **tolerances.FLOAT32)
            if update != "fixed":
                np.testing.assert_allclose(moved[update].counts, counts, **tolerances.FLOAT32)


@every_assignment
def test_alpha_zero_does_not_move_centers(name):
    logits, features, start, *labels = numbers()
    assignment = everything(name)[1](logits, features, start, *labels)["assignment"]
    state = CenterState(jnp.asarray(start), jnp.zeros(C))
    np.testing.assert_array_equal(centers.delta(state, features, assignment, alpha=0.0).centers, start)
    moved = centers.gradient(state, features, assignment, learning_rate=0.0)
    np.testing.assert_array_equal(moved.centers, start)


@every_assignment
def test_extreme_logits_stay_finite(name):
    out = everything(name)[1](*numbers(scale=1e4))
    chex.assert_tree_all_finite(out)


@every_assignment
def test_batch_without_assigned_frames_gives_zero_loss(name):
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
def test_batch_of_one_frame(name):
    logits, features, start, lengths, labels, label_lengths = (a[3:4] if a.shape[0] == B else a for a in numbers())
    targets = (lengths, labels[:, :1], label_lengths)
    assignment = jax.jit(ASSIGNMENTS[name])(logits[:, :1], *targets)
    assert assignment.weights.reshape(1, 1, -1).sum() == 1
    assert assignment.classes.reshape(-1)[0] == 4
    assert losses.center(features[:, :1], start, assignment) > 0


@every_loss
def test_losses_ignore_padding_and_stay_finite(name):
    loss = jax.jit(
        lambda x, *targets: (LOSSES[name](x, *targets), jax.grad(lambda x: LOSSES[name](x, *targets).sum())(x))
    )
    logits, _, _, lengths, labels, label_lengths = numbers()
    clean = loss(logits, lengths, labels, label_lengths)
    close(LOSSES[name](*map(jnp.asarray, (logits, lengths, labels, label_lengths))), clean[0])
    order = np.asarray([5, 3, 1, 0, 4, 2])
    close(loss(*(a[order] for a in (logits, lengths, labels, label_lengths))), tuple(a[order] for a in clean))
    noisy, other = logits.copy(), labels.copy()
    for b in range(B):
        noisy[b, lengths[b] :] = np.nan
        other[b, label_lengths[b] :] = (1, 255, -100, C)[b % 4]
    close(loss(noisy, lengths, other, label_lengths), clean)
    chex.assert_tree_all_finite(loss(logits * 1e4, lengths, labels, label_lengths))
    assert clean[0][5] == 0  # four characters in three frames
    assert (clean[1][5] == 0).all()
    assert (clean[0] >= 0).all()


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
def test_no_array_of_frames_by_classes_is_created(name):
    """Neither the loss, its gradient nor an update makes an array of all frames by all classes."""
    logits, features, start, *labels = numbers()
    assignment = ASSIGNMENTS[name](logits, *labels)

    def all_of_it(features, start):
        loss = jax.value_and_grad(lambda f: losses.center(f, start, assignment))(features)
        state = CenterState(start, jnp.zeros(C))
        return loss, [rule(state, features, assignment) for rule in UPDATES.values()]

    made = jax.make_jaxpr(all_of_it)(features, start).jaxpr
    assert all(np.prod(shape) < B * T * C for shape in shapes_in(made) if C in shape[1:] and D not in shape)
