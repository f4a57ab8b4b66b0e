"""What was learnt, under another charset."""

import chex
import jax
import numpy as np
import pytest
from small_runs import train_args

from jaxcrnn.charset import Charset
from jaxcrnn.cli.main import main
from jaxcrnn.model import ModelConfig
from jaxcrnn.objective import LossConfig
from jaxcrnn.optim import OptimConfig
from jaxcrnn.runs import charset_transfer
from jaxcrnn.runs.folder import open_run
from jaxcrnn.train import TrainConfig, init_state


@pytest.mark.slow
def test_class_rows_are_transferred_by_character():
    def state(charset, seed):
        model = ModelConfig("tiny", 4, 0.0, num_classes=charset.num_classes, blank=charset.blank)
        config = TrainConfig(model, LossConfig("flow1", start="normal"), OptimConfig(ema=0.9))
        made = init_state(config, jax.random.key(seed))
        return jax.tree.map(lambda a: a + seed if np.issubdtype(a.dtype, np.floating) else a, made)

    old, new = Charset("土士未", "last"), Charset("末士己土", "first")
    before, fresh = state(old, 1), state(new, 2)
    after = charset_transfer.transfer(before, fresh, old, new)
    assert jax.tree.map(np.shape, after) == jax.tree.map(np.shape, fresh)
    places = {"土": (0, 4), "士": (1, 2), "blank": (3, 0)}
    fields = {
        "centers": lambda s: s.centers.centers,
        "counts": lambda s: s.centers.counts,
        "bias": lambda s: s.params["head"]["bias"],
        "kernel": lambda s: s.params["head"]["kernel"].T,
        "first moment": lambda s: s.opt_state.inner[1][0].mu["head"]["kernel"].T,
        "average": lambda s: s.opt_state.average["head"]["kernel"].T,
    }
    for name, of in fields.items():
        for i, j in places.values():
            np.testing.assert_array_equal(of(after)[j], of(before)[i], err_msg=name)
        for j in (1, 3):  # 末 and 己 are new
            np.testing.assert_array_equal(of(after)[j], of(fresh)[j], err_msg=name)
    np.testing.assert_array_equal(after.params["lstm0"]["kernel_h"], before.params["lstm0"]["kernel_h"])
    assert after.step == before.step


@pytest.mark.slow
def test_grown_run_keeps_moments_and_centers():
    """Moments and centers too, where both have them; the schedule begins at 0, a new average with the weights."""

    def state(charset, seed, ema, preset):
        model = ModelConfig("tiny", 4, 0.0, num_classes=charset.num_classes, blank=charset.blank)
        made = init_state(TrainConfig(model, LossConfig(preset), OptimConfig(ema=ema)), jax.random.key(seed))
        return jax.tree.map(lambda a: a + np.asarray(seed, a.dtype), made)

    old, new = Charset("土士未"), Charset("末士己土")
    before, fresh = state(old, 1, 0.9, "flow1"), state(new, 2, 0.9, "flow1")
    after, transferred = charset_transfer.started(before, fresh, old, new)
    assert transferred == ["moments", "centers"]
    expected = charset_transfer.transfer(before, fresh, old, new)
    assert after.step == fresh.step
    chex.assert_trees_all_equal(after.params, expected.params)
    chex.assert_trees_all_equal(after.centers, expected.centers)
    chex.assert_trees_all_equal(after.opt_state.average, expected.opt_state.average)
    counts = {type(p).__name__: int(p.count) for p in _parts(after.opt_state) if "count" in p._fields}
    assert counts == {"ScaleByAdamState": 1, "ScaleByScheduleState": 0}

    plain, fresh = state(old, 1, 0.0, "ctc"), state(new, 2, 0.9, "flow1")
    after, transferred = charset_transfer.started(plain, fresh, old, new)
    assert transferred == []
    chex.assert_trees_all_equal(after.params, charset_transfer.transfer(plain.params, fresh.params, old, new))
    chex.assert_trees_all_equal(after.opt_state.average, after.params)
    chex.assert_trees_all_equal(after.centers, fresh.centers)

    after, transferred = charset_transfer.started(before, state(new, 2, 0.0, "ctc"), old, new)
    assert transferred == []
    assert after.centers is None
    chex.assert_trees_all_equal(
        after.params, charset_transfer.transfer(before.opt_state.average, after.params, old, new)
    )


def _parts(tree):
    """Every named tuple in a tree."""
    parts = [tree] if hasattr(tree, "_fields") else []
    inside = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, tuple) else ()
    return parts + [part for each in inside for part in _parts(each)]


@pytest.mark.slow
def test_run_continues_with_added_characters(lines_file, tmp_path, capsys):
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(train_args(lines_file, first, val=False)) == 0
    (tmp_path / "more.txt").write_text("".join(f"{c}\n" for c in "x0123456789"))
    grow = ["--init-from", str(first), "--charset", str(tmp_path / "more.txt")]
    assert main([*train_args(lines_file, second, steps=1, val=False), *grow]) == 2
    assert "does not match the charset of" in capsys.readouterr().err
    arguments = train_args(lines_file, second, "optim.learning_rate=1e-9", "optim.warmup=0", steps=1, val=False)
    assert main([*arguments, *grow, "--grow"]) == 0
    assert "charset: 10 characters kept, 1 added, 0 removed; transferred weights, moments" in capsys.readouterr().out
    one, two = (open_run(folder).state("latest")[0] for folder in (first, second))
    np.testing.assert_allclose(two.params["head"]["kernel"][:, 2:], one.params["head"]["kernel"][:, 1:], atol=1e-6)
    assert main([*train_args(lines_file, tmp_path / "third"), "--grow"]) == 2
    assert "--grow requires --init-from RUN" in capsys.readouterr().err
