"""The loss of every preset, its gradients and its centers, on one device and on eight. The model is left out."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tolerances
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxcrnn import decode, diagnostics, objective
from jaxcrnn.kernels import chunked_head
from jaxcrnn.kernels.mesh_ops import LOCAL
from jaxcrnn.nn.lstm import BiLSTM
from jaxcrnn.objective import PRESETS, LossConfig
from jaxcrnn.parallel.mesh import MeshConfig, make_mesh
from jaxcrnn.parallel.ops import ops
from jaxcrnn.types import Batch, CenterState, Outputs

B, T, L, D, C = 8, 9, 6, 6, 16
MESHES = [pytest.param(8, 1, marks=pytest.mark.slow), pytest.param(4, 2), pytest.param(2, 4)]
# Each preset on every mesh, and the fused head on another mesh from one preset to the next.
CASES = [
    pytest.param(preset, "fused" if (i + j) % 2 else "dense", *mesh.values, marks=mesh.marks)
    for i, preset in enumerate(PRESETS)
    for j, mesh in enumerate(MESHES)
]
PLACES = (P("data"), P(None, "model"), P("model"), CenterState(P("model"), P("model")), P("data"), P("data"))


def numbers():
    """Lines of all lengths, one that only fills the batch, some read with as many characters as they have."""
    rng = np.random.default_rng(0)
    features, table = (rng.normal(size=shape).astype(np.float32) for shape in ((B, T, D), (C, D)))
    kernel, bias = rng.normal(size=(D, C)).astype(np.float32) * 2, rng.normal(size=C).astype(np.float32)
    lengths = np.asarray([9, 7, 9, 1, 0, 9, 3, 5], np.int32)
    labels = rng.integers(1, C, (B, L)).astype(np.int32)
    labels[6] = labels[6, 0]  # three times the same in three frames: no path
    counts = np.asarray(decode.greedy(features @ kernel + bias, lengths)[1])
    label_lengths = np.where(counts <= L, counts, 2).astype(np.int32)
    label_lengths[6] = 3
    batch = Batch(np.zeros((B, 1, 1, 1), np.float32), lengths * 4, labels, label_lengths)
    return features, kernel, bias, CenterState(table, np.zeros(C, np.float32)), lengths, batch


def compute(config, head, on, features, kernel, bias, state, lengths, batch):
    """The loss with what is counted, its gradients by features and head, and the centers afterwards.

    ``on`` is what the devices change: `jaxcrnn.kernels.mesh_ops.Ops`.
    """
    flow = objective.flow(config)
    centers = state if config.has_centers else None

    def loss_of(features, kernel, bias):
        logits = on.logits(features, kernel, bias) if head == "fused" else features @ kernel + bias[None, None]
        outputs = Outputs(logits, features, lengths)
        loss, (info, assignment) = objective.loss_terms(flow, outputs, batch, centers, ops=on.centers)
        info |= diagnostics.train_metrics(outputs, batch, assignment)
        return loss, (info, assignment, outputs)

    (loss, (info, assignment, outputs)), grads = jax.value_and_grad(loss_of, argnums=(0, 1, 2), has_aux=True)(
        features, kernel, bias
    )
    moved = objective.move_centers(flow, centers, outputs, assignment, ops=on.centers)
    return (loss, info, grads), moved


def config_of(preset):
    return LossConfig(preset, weight=0.1 if preset != "ctc" else None, push=0.1 * (preset == "aligned"))


@functools.cache
def on_one(preset):
    program = jax.jit(functools.partial(compute, config_of(preset), "dense", LOCAL))
    return jax.device_get(program(*numbers()))


@pytest.mark.parametrize(("preset", "head", "data", "model"), CASES)
def test_loss_and_centers_match_one_device(preset, head, data, model, monkeypatch):
    monkeypatch.setattr(chunked_head, "CHUNK", 3)
    mesh = make_mesh(MeshConfig(data, model))
    arrays = jax.tree.map(
        lambda place, tree: jax.tree.map(lambda a: jax.device_put(a, NamedSharding(mesh, place)), tree),
        PLACES,
        numbers(),
        is_leaf=lambda x: isinstance(x, P),
    )
    program = jax.jit(functools.partial(compute, config_of(preset), head, ops(mesh, C)))
    (loss, info, grads), moved = program(*arrays)
    expected, centers = on_one(preset)
    chex.assert_trees_all_close(jax.device_get((loss, info, grads)), expected, **tolerances.STEP)
    if preset == "ctc":
        assert moved is None
        return
    assert moved.centers.addressable_shards[0].data.shape == (C // model, D)
    chex.assert_trees_all_close(jax.device_get(moved), centers, **tolerances.CENTERS)
    assert info["assigned_samples"] >= 2
    still = (centers.centers == numbers()[3].centers).all()
    assert still == (preset == "flow2")


def test_batch_has_two_infeasible_lines():
    assert on_one("ctc")[0][1]["infeasible"] == 2
    assert jnp.isfinite(on_one("ctc")[0][0])


def test_unrolled_lstm_matches_one_device():
    """Batch on four devices, weights on all: the same numbers, and no collective within the loop."""
    mesh = make_mesh(MeshConfig(4, 2))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(B, T, D)).astype(np.float32))
    lengths = np.asarray([9, 7, 9, 1, 0, 9, 3, 5], np.int32)
    params = BiLSTM(4).init(jax.random.key(0), x, lengths)

    def total(on, params, x):
        out = BiLSTM(4, kind="unrolled", ops=on).apply(params, x, lengths)
        return (out * jnp.arange(float(out.size)).reshape(out.shape)).sum()

    expected = jax.jit(jax.value_and_grad(functools.partial(total, LOCAL), argnums=(0, 1)))(params, x)
    placed = jax.device_put((params, x), (NamedSharding(mesh, P()), NamedSharding(mesh, P("data"))))
    sharded = (
        jax.jit(jax.value_and_grad(functools.partial(total, ops(mesh, C)), argnums=(0, 1))).lower(*placed).compile()
    )
    chex.assert_trees_all_close(sharded(*placed), expected, **tolerances.LSTM)
    assert not [line for line in sharded.as_text().splitlines() if "all-reduce" in line and "/while/" in line]
