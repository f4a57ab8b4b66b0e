"""The choice of sharded operations for a mesh."""

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


@functools.lru_cache(maxsize=16)  # functions are static arguments, compared by identity
def ops(mesh: Mesh, classes: int) -> Ops:
    """Return the operations of a model and a step on a mesh.

    Args:
      mesh: mesh from `jaxcrnn.parallel.mesh.make_mesh`.
      classes: number of classes C; the table of centers is replicated if ``model`` does not divide it.

    Returns:
      The value for `jaxcrnn.train.TrainConfig.ops`; `jaxcrnn.kernels.mesh_ops.LOCAL` for one device.
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
    # An unsharded input is replicated, so its gradients are all-reduced.
    return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=P(data), check_vma=False)(*lines, *shared)
