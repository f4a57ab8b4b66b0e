"""Loss variants as values: each part from outside, and what a redefined function does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from variants import B, C, D, close, numbers

from jaxcrnn import assign, centers, ctc, losses, objective
from jaxcrnn.augment import AugmentConfig
from jaxcrnn.errors import UserError
from jaxcrnn.model import ModelConfig
from jaxcrnn.objective import PRESETS, CenterRule, Flow, LossConfig, Term, flow, loss_terms
from jaxcrnn.optim import OptimConfig
from jaxcrnn.train import TrainConfig, flow_of, init_state, state_shapes, train_step
from jaxcrnn.types import Assignment, Batch, CenterState, Outputs

LOGITS, FEATURES, START, *LABELS = map(jnp.asarray, numbers())
OUTPUTS = Outputs(LOGITS, FEATURES, LABELS[0])
BATCH = Batch(jnp.zeros((B, 1, 1, 1)), jnp.asarray([1, 1, 1, 1, 1, 0]), LABELS[1], LABELS[2])  # the last is padding
STATE = CenterState(START, jnp.zeros(C))
KERNEL = jnp.zeros((D, C))


def every_frame(logits, lengths, labels, label_lengths, *, blank):
    return Assignment(jnp.full(logits.shape[:2], 3), jnp.ones(logits.shape[:2]))


def ones(outputs, batch, assignment, state, *, blank):
    return jnp.ones(len(batch.widths))


def loss_of(config):
    """The loss as a training step has it: jitted, the config static."""
    return jax.jit(
        lambda config, logits: loss_terms(flow_of(config), OUTPUTS._replace(logits=logits), BATCH, STATE)[0]
    )(config, LOGITS)


def test_presets_and_built_in_parts_are_read_only():
    for table in (PRESETS, assign.ASSIGNMENTS, centers.STARTS, centers.UPDATES):
        with pytest.raises(TypeError):
            table["mine"] = table[next(iter(table))]
    with pytest.raises(AttributeError):
        PRESETS["flow1"].weight = 1.0


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_map_configs_to_flows(preset):
    config = LossConfig(preset)
    made = PRESETS[preset](config)
    assert made == flow(config) == flow_of(TrainConfig(loss=config))
    assert (made.assign is None) == (made.rule is None) == (preset == "ctc")
    assert PRESETS[preset](LossConfig(preset, assignment="aligned")).assign.func is assign.aligned


def test_redefined_function_is_traced_again():
    traced = []

    def define(value):
        def mine(outputs, batch, assignment, state, *, blank):
            traced.append(value)
            return jnp.asarray(value)

        return mine

    run = jax.jit(lambda config: loss_terms(flow_of(config), OUTPUTS, BATCH, None)[1][0]["mine"])
    one, two = define(1.0), define(2.0)
    for function, expected in ((one, 1), (one, 1), (two, 2), (one, 1)):
        config = TrainConfig(flow=flow(LossConfig(), terms=[Term("mine", 1.0, function)]))
        assert hash(config) == hash(TrainConfig(flow=flow(LossConfig(), terms=[Term("mine", 1.0, function)])))
        assert run(config) == expected
    assert traced == [1, 2]


def test_custom_assignment_is_used():
    config = LossConfig("aligned", weight=1.0)
    made = flow(config, assignment=every_frame)
    _, (info, assignment) = loss_terms(made, OUTPUTS, BATCH, STATE)
    assert (assignment.classes == 3).all()
    close(info["center"], losses.center(FEATURES, START, assignment))
    assert loss_of(TrainConfig(loss=config, flow=made)) != loss_of(TrainConfig(loss=config))


def test_custom_assignment_stops_gradients():
    def soft(logits, lengths, labels, label_lengths, *, blank):
        return Assignment(jnp.full(logits.shape[:2], 3), jax.nn.softmax(logits)[:, :, 3])

    def center(outputs, batch, assignment, state, *, blank):
        return losses.center(outputs.features, state.centers, assignment)

    made = Flow(soft, CenterRule(), (Term("center", 1.0, center),))
    grown = jax.grad(lambda x: loss_terms(made, OUTPUTS._replace(logits=x), BATCH, STATE)[0])(LOGITS)
    assert (grown == 0).all()


def test_custom_initialization_and_update_are_used():
    def sevens(key, kernel):
        return CenterState(jnp.full(kernel.shape[::-1], 7.0), jnp.zeros(kernel.shape[1]))

    def doubled(state, features, assignment):
        return state._replace(centers=2 * state.centers)

    made = flow(LossConfig("flow1"), rule=CenterRule(sevens, doubled))
    state = centers.start(made.rule, jax.random.key(0), KERNEL)
    assert (state.centers == 7).all()
    assignment = made.assign(LOGITS, *LABELS, blank=0)
    assert (objective.move_centers(made, state, OUTPUTS, assignment).centers == 14).all()
    half = flow(LossConfig("flow1"), rule=CenterRule(init=sevens))  # the update stays the preset's
    assert half.rule.init is sevens
    assert half.rule.update.func is centers.delta
    with pytest.raises(UserError, match=r"returned centers of shape \(5, 7\).*expected \(7, 5\)"):
        centers.start(CenterRule(lambda key, kernel: CenterState(kernel, kernel[0])), jax.random.key(0), KERNEL)


def test_custom_terms_are_added_and_logged():
    def both(outputs, batch, assignment, state, *, blank):
        return jnp.square(outputs.features[:, 0, 0]), {"mean": outputs.features[0].mean()}

    plain = flow(LossConfig())
    made = flow(LossConfig(), terms=[Term("ones", 0.5, ones), Term("both", 2.0, both), Term("logged", 0.0, ones)])
    before, _ = loss_terms(plain, OUTPUTS, BATCH, None)
    after, (info, assignment) = loss_terms(made, OUTPUTS, BATCH, None)
    assert assignment is None
    assert (info["ones_sum"], info["logged_sum"]) == (5, 5)  # of six samples one is padding
    close(info["mean"], FEATURES[0].mean())
    close(after, before + 0.5 + 2 * jnp.square(FEATURES[:5, 0, 0]).mean())
    assert {"ctc_sum", "both_sum"} < info.keys()


def test_term_of_weight_zero_is_not_differentiated():
    def broken(outputs, batch, assignment, state, *, blank):
        return jnp.sqrt(0 * outputs.features).sum()  # its gradient is not finite

    made = flow(LossConfig(), terms=[Term("broken", 0.0, broken)])
    grown = jax.grad(lambda f: loss_terms(made, OUTPUTS._replace(features=f), BATCH, None)[0])(FEATURES)
    assert (grown == 0).all()


def test_focal_ctc_computes_ctc_once(monkeypatch):
    calls, plain = [], ctc.ctc_loss
    monkeypatch.setattr(ctc, "ctc_loss", lambda *args, **named: calls.append(1) or plain(*args, **named))
    _, (info, _) = loss_terms(flow(LossConfig(focal=True)), OUTPUTS, BATCH, None)
    assert info.keys() == {"ctc_sum", "focal_sum"}
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: flow(LossConfig(), rule=CenterRule(centers.zeros)), "a center rule requires an assignment"),
        (lambda: flow(LossConfig(), terms=[Term("ctc", 1.0, ones)]), "duplicate name 'ctc'"),
        (lambda: flow(LossConfig(), terms=[Term("loss", 1.0, ones)]), "duplicate name 'loss'"),
        (lambda: flow(LossConfig(assignment="a:b")), "loss.assignment is a:b, which has not been imported"),
        (lambda: flow(LossConfig(terms=("a:b",))), "loss.terms is a:b, which has not been imported"),
        (lambda: LossConfig(assignment="sure"), "posterior, or module:function"),
        (lambda: LossConfig(rule="a:b"), "loss.rule requires an assignment"),
        (
            lambda: loss_terms(Flow(None, None, (Term("x", 1.0, lambda *_, blank: FEATURES),)), OUTPUTS, BATCH, None),
            r"term 'x' has shape \(6, 9, 5\)",
        ),
    ],
)
def test_invalid_losses_are_rejected(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.slow
def test_step_with_nonfinite_centers_is_skipped():
    def broken(state, features, assignment):
        return state._replace(centers=state.centers.at[2, 0].set(jnp.nan))

    loss = LossConfig("aligned")
    config = TrainConfig(
        ModelConfig("tiny", hidden=8, dropout=0.0, num_classes=4),
        loss,
        OptimConfig(steps=5, warmup=0),
        AugmentConfig(probability=0.0),
        flow(loss, rule=CenterRule(update=broken)),
    )
    state = init_state(config, jax.random.key(0))
    assert jax.tree.map(lambda a: (a.shape, a.dtype), state) == jax.tree.map(
        lambda a: (a.shape, a.dtype), state_shapes(config)
    )
    labels = np.asarray([[1, 2, 3]], np.int32)
    batch = Batch(np.ones((1, 32, 32, 1), np.float32), np.asarray([32], np.int32), labels, np.asarray([3], np.int32))
    kept, info = jax.jit(train_step)(config, state, batch, jax.random.key(1))
    assert info["skipped"] == 1
    assert not info["nonfinite"].any()
    jax.tree.map(np.testing.assert_array_equal, kept._replace(step=state.step), state)
