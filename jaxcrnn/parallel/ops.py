"""The operations of a mesh: which of them are sharded, decided once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jaxcrnn.kernels.center_ops import DENSE
from jaxcrnn.kernels.logits import factored
from jaxcrnn.kernels.mesh_ops import LOCAL, Ops, on_all_lines
from jaxcrnn.parallel.mesh import DATA, MODEL, axes_of
from jaxcrnn.parallel.sharded_centers import center_ops
from jaxcrnn.parallel.sharded_head import sharded


@functools.lru_cache(maxsize=16)  # one value for a mesh: functions are static arguments, compared by identity
def ops(mesh: Mesh, classes: int) -> Ops:
    """How a model and a step compute on a mesh.

    Args:
      mesh: of `jaxcrnn.parallel.mesh.make_mesh`.
      classes: C. A table of centers that the devices of ``model`` cannot share equally is whole on each of them.

    Returns:
      The value of `jaxcrnn.train.TrainConfig.ops`; `jaxcrnn.kernels.mesh_ops.LOCAL` for one device.
    """
    if mesh.size == 1:
        return LOCAL
    shards = mesh.shape[MODEL]
    return Ops(
        logits=functools.partial(sharded, mesh) if shards > 1 else factored,
        centers=center_ops(mesh) if shards > 1 and classes % shards == 0 else DENSE,
        shared_batch=mesh.shape[DATA] > 1,
        map_lines=functools.partial(_map_lines, mesh) if mesh.shape[DATA] > 1 else on_all_lines,
    )


def _map_lines(mesh: Mesh, function: Callable[..., Any], lines: tuple[Any, ...], shared: tuple[Any, ...]) -> Any:
    data, _ = axes_of(mesh, len(lines[0]))
    specs = (*(P(data) for _ in lines), *(P() for _ in shared))
    # Gradients of what the devices share are all-reduced, which is what an unsharded input means backwards.
    return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=P(data), check_vma=False)(*lines, *shared)
