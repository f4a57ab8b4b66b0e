"""Several steps in one call of the device: fewer calls where a step is short, the same steps in the same order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from jaxcrnn.data.buckets import Planned
from jaxcrnn.parallel.mesh import assemble, everywhere, of_batch
from jaxcrnn.train import TrainConfig, train_step
from jaxcrnn.types import Batch, TrainState


class Group(NamedTuple):
    """Steps that one program takes.

    Attributes:
      bucket: the width bucket of all of them.
      batch: of the only step, or, of several, with a leading axis of steps.
      steps: how many.
    """

    bucket: int
    batch: Batch
    steps: int


def groups(batches: Iterable[tuple[Planned, Batch]], start: int, size: int, mesh: Mesh) -> Iterator[Group]:
    """Batches of consecutive steps side by side.

    Steps ``k * size`` to ``(k + 1) * size - 1`` are one group if they are of one bucket, and groups of one step
    otherwise; so a resumed run makes the same groups.

    Args:
      batches: of the steps from ``start`` on, each with this process's rows.
      start: number of the first step.
      size: steps of a group, 1 for no groups at all.
      mesh: that the batches are put on: here and not by the step itself, which may not touch the host.
    """
    waiting: list[tuple[Planned, Batch]] = []
    for step, pair in enumerate(batches, start):
        waiting.append(pair)
        if (step + 1) % size == 0:
            yield from _together(waiting, size, mesh)
            waiting = []
    yield from _together(waiting, size, mesh)


def _together(waiting: list[tuple[Planned, Batch]], size: int, mesh: Mesh) -> Iterator[Group]:
    buckets = {planned.bucket for planned, _ in waiting}
    if 1 < size == len(waiting) and len(buckets) == 1:
        stacked = jax.tree.map(lambda *arrays: jax.numpy.stack(arrays), *(batch for _, batch in waiting))
        yield Group(buckets.pop(), assemble(stacked, of_batch(mesh, leading=True)), size)
    else:
        for planned, batch in waiting:
            yield Group(planned.bucket, assemble(batch, of_batch(mesh)), 1)


def train_steps(config: TrainConfig, state: TrainState, batches: Batch, key: jax.Array) -> tuple[TrainState, Any]:
    """`jaxcrnn.train.train_step` for each batch of a leading axis; ``info`` has that axis too."""
    return jax.lax.scan(lambda state, batch: train_step(config, state, batch, key), state, batches)


def compile_step(config: TrainConfig, state: TrainState, group: Group, key: jax.Array, mesh: Mesh) -> Any:
    """The program of one group's shapes: the one place where the step meets the compiler.

    The new state takes the old one's memory and lies where it does, ``info`` on every device.

    Args:
      config: what a step computes.
      state: arrays, or shapes with shardings.
      group: of the shapes to compile for.
      key: the run's.
      mesh: the run's.
    """
    places = jax.tree.map(lambda a: a.sharding, state), everywhere(mesh)
    step = train_step if group.steps == 1 else train_steps
    with jax.set_mesh(mesh):
        jitted = jax.jit(step, donate_argnames="state", out_shardings=places)
        return jitted.lower(config, state, group.batch, key).compile()
