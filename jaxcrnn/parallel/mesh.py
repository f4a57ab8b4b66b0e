"""The device mesh and the shardings of all arrays.

The batch is sharded over the axis ``data``, the classes over the axis ``model``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxcrnn._ranges import Count, Natural, check
from jaxcrnn.errors import UserError

DATA, MODEL = "data", "model"
# Smaller arrays are not worth the collectives that sharding them costs.
_FSDP_FROM = 2**16
# The class axis of an array of the state, by the last two names of its path; the optimizer's moments have the names of
# the parameters.
_CLASSES: dict[tuple[str, ...], int] = {
    ("head", "kernel"): 1,
    ("head", "bias"): 0,
    ("centers", "centers"): 0,
    ("centers", "counts"): 0,
}


@dataclass(frozen=True)
class MeshConfig:
    """How a run is divided over devices (the mesh), which changes results only by rounding.

    Attributes:
      data: number of devices over which the batch is sharded, 0 or more; 0 for all accelerators, or one CPU.
      model: number of devices over which the classes (head, centers and their moments) are sharded, 1 or more. The mesh
        has ``data * model`` devices.
      fsdp: shard the other large arrays of the state over ``data`` too; they are gathered where they are used.
    """

    data: Natural = 0
    model: Count = 1
    fsdp: bool = False

    def __post_init__(self) -> None:
        check(self, "mesh")


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """Create the mesh of a run.

    Args:
      config: sizes of the axes.
      devices: devices to choose from; by default all devices of every process.

    Raises:
      UserError: If there are too few devices, or a process would have no part in the mesh.
    """
    available = list(jax.devices() if devices is None else devices)
    multi_process = len({d.process_index for d in available}) > 1
    data = config.data
    if not data:
        data = len(available) // config.model if multi_process or available[0].platform != "cpu" else 1
    size = data * config.model
    if not 0 < size <= len(available) or (multi_process and size < len(available)):
        count = len(available)
        limit = f"all {count} must be used" if 0 < size < count else f"only {count} are available"
        raise UserError(
            f"mesh.data={config.data} × mesh.model={config.model} needs {size or config.model} devices; {limit}"
        )
    return jax.make_mesh((data, config.model), (DATA, MODEL), axis_types=(AxisType.Auto,) * 2, devices=available[:size])


def axes_of(mesh: Mesh, rows: int) -> tuple[str | None, str | None]:
    """Return the names of the mesh axes that have more than one device, and None for those that do not.

    Args:
      mesh: mesh from `make_mesh`.
      rows: length of an array's batch axis; if ``data`` does not divide it, the batch axis is None.
    """
    data = DATA if mesh.shape[DATA] > 1 and rows % mesh.shape[DATA] == 0 else None
    return data, MODEL if mesh.shape[MODEL] > 1 else None


def of_state(mesh: Mesh, state: Any, *, fsdp: bool = False) -> Any:
    """Return the sharding of each array of a train state: classes over ``model``, everything else replicated.

    Arrays whose classes ``model`` does not divide are replicated too; the fused head still shards its work.

    Args:
      mesh: mesh from `make_mesh`.
      state: a `jaxcrnn.types.TrainState`, or its shapes.
      fsdp: shard large arrays over ``data`` along the longest axis that it divides.

    Returns:
      A tree of ``NamedSharding`` like the state.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: NamedSharding(mesh, _spec(mesh.shape, path, leaf.shape, fsdp)), state
    )


def class_axis(path: tuple[Any, ...]) -> int | None:
    """Return the class axis of an array of the train state; None for an array without one.

    Args:
      path: path to the array from `jax.tree_util.tree_map_with_path`.
    """
    return _CLASSES.get(tuple(str(getattr(key, "key", getattr(key, "name", ""))) for key in path[-2:]))


def _spec(sizes: Mapping[str, int], path: tuple[Any, ...], shape: tuple[int, ...], fsdp: bool) -> P:
    axes: list[str | None] = [None] * len(shape)
    classes = class_axis(path)
    if classes is not None and len(axes) > classes and shape[classes] % sizes[MODEL] == 0:
        axes[classes] = MODEL
    free = [k for k, size in enumerate(shape) if axes[k] is None and size % sizes[DATA] == 0]
    if fsdp and free and math.prod(shape) >= _FSDP_FROM:
        axes[max(free, key=lambda k: shape[k])] = DATA
    return P(*axes)


def of_batch(mesh: Mesh) -> NamedSharding:
    """Return the sharding of a batch: rows over ``data``."""
    return NamedSharding(mesh, P(DATA))


def everywhere(mesh: Mesh) -> NamedSharding:
    """Return the replicated sharding."""
    return NamedSharding(mesh, P())


def gathered(mesh: Mesh, tree: Any) -> Any:
    """Gather the parameters that FSDP shards over ``data`` for use in a step; other shardings are kept."""
    if mesh.size == 1:
        return tree
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jax.lax.with_sharding_constraint(
            leaf, NamedSharding(mesh, _spec(mesh.shape, path, leaf.shape, False))
        ),
        tree,
    )


def each_rows(mesh: Mesh, rows: int) -> int:
    """Return the number of rows of a batch on each device of ``data``.

    Raises:
      UserError: If ``data`` does not divide the number of rows.
    """
    share = mesh.shape[DATA]
    if rows % share:
        raise UserError(f"data.batch_size is {rows}; expected a multiple of mesh.data={share}")
    return rows // share


def my_rows(mesh: Mesh, rows: int) -> tuple[int, int]:
    """Return the range of a batch's rows that this process provides: start and stop.

    Raises:
      UserError: If ``data`` does not divide the number of rows, or the rows of this process are not contiguous.
    """
    each = each_rows(mesh, rows)
    held = NamedSharding(mesh, P(DATA)).addressable_devices_indices_map((rows,)).values()
    starts = sorted({index[0].indices(rows)[0] for index in held if index is not None})
    if starts != list(range(starts[0], starts[-1] + each, each)):
        raise UserError("the devices of a process are not contiguous in the mesh; mesh.data must be split by process")
    return starts[0], starts[-1] + each


def place(tree: Any, where: Any) -> Any:
    """Put arrays that every process holds as a whole on the mesh.

    Args:
      tree: tree of arrays.
      where: a sharding, or a tree of them.
    """
    if jax.process_count() == 1:
        return jax.device_put(tree, where)
    if isinstance(where, NamedSharding):
        where = jax.tree.map(lambda _: where, tree)

    def put(array: Any, sharding: NamedSharding) -> Any:
        if jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(put(jax.random.key_data(array), sharding), impl=jax.random.key_impl(array))
        host = np.asarray(array)
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    return jax.tree.map(put, tree, where)


def assemble(tree: Any, where: NamedSharding) -> Any:
    """Build global arrays on the mesh from each process's own rows (`my_rows`)."""
    if jax.process_count() == 1:
        return jax.device_put(tree, where)
    return jax.tree.map(lambda a: jax.make_array_from_process_local_data(where, np.asarray(a)), tree)


def fetch(tree: Any) -> Any:
    """Copy whole arrays to the host, on every process."""
    if all(a.is_fully_addressable or a.is_fully_replicated for a in jax.tree.leaves(tree)):
        return jax.device_get(tree)
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(tree, tiled=True)
