"""What is handed to the device: groups of steps of one bucket, and nothing else while they run."""

import numpy as np
import pytest
from small_runs import train_args

import jaxcrnn.runs.trainer
from jaxcrnn.cli.main import main
from jaxcrnn.data.buckets import Planned
from jaxcrnn.parallel.mesh import MeshConfig, make_mesh
from jaxcrnn.runs import compile
from jaxcrnn.types import Batch


def test_groups_are_of_one_bucket_and_the_same_after_a_resume():
    def batches(start, stop):
        for step in range(start, stop):
            yield Planned([0, 0, 1, 1, 0, 1, 1, 1, 0][step], np.zeros(1)), Batch(*(np.full(2, step) for _ in range(4)))

    mesh = make_mesh(MeshConfig())

    def seen(start):
        found = compile.groups(batches(start, 9), start, 2, mesh)
        return [(g.bucket, g.steps, np.asarray(g.batch.widths).reshape(g.steps, -1)[:, 0].tolist()) for g in found]

    assert seen(0) == [(0, 2, [0, 1]), (1, 2, [2, 3]), (0, 1, [4]), (1, 1, [5]), (1, 2, [6, 7]), (0, 1, [8])]
    assert seen(5) == seen(0)[3:]


def test_a_step_may_not_touch_the_host(lines_file, tmp_path, monkeypatch):
    def unsent(batches, start, size, mesh):
        return (compile.Group(p.bucket, batch, 1) for p, batch in batches)

    monkeypatch.setattr(jaxcrnn.runs.trainer, "groups", unsent)
    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        main(train_args(lines_file, tmp_path / "run", val=False))
