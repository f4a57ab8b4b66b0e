"""The mesh of devices: the batch is sharded over one axis, the classes over the other. Shardings of all arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxcrnn.errors import UserError

DATA, MODEL = "data", "model"
# Arrays smaller than this are not worth the collectives that sharing them costs.
_FSDP_FROM = 2**16
# Where the classes are, by the last two names on the way to an array of the state; the optimizer's moments have the
# names of the parameters.
_CLASSES: dict[tuple[str, ...], int] = {
    ("head", "kernel"): 1,
    ("head", "bias"): 0,
    ("centers", "centers"): 0,
    ("centers", "counts"): 0,
}


@dataclass(frozen=True)
class MeshConfig:
    """Over how many devices a run goes. None of it changes what is computed.

    Attributes:
      data: devices that share the batch; 0 for all accelerators there are, or one CPU.
      model: devices that share the classes: head, centers and their moments. The devices are ``data * model``.
      fsdp: share the other large arrays of the state over ``data`` too; they are put together where they are used.
    """

    data: int = 0
    model: int = 1
    fsdp: bool = False

    def __post_init__(self) -> None:
        for name, least in (("data", 0), ("model", 1)):
            if getattr(self, name) < least:
                raise UserError(f"mesh.{name} is {getattr(self, name)}; expected {least} or more")


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """The devices of a run.

    Args:
      config: how many.
      devices: to choose from; default: all of every process.

    Raises:
      UserError: there are not as many, or some process would be left out.
    """
    found = list(jax.devices() if devices is None else devices)
    everyone = len({d.process_index for d in found}) > 1
    data = config.data
    if not data:
        data = len(found) // config.model if everyone or found[0].platform != "cpu" else 1
    wanted = data * config.model
    if not 0 < wanted <= len(found) or (everyone and wanted < len(found)):
        raise UserError(f"mesh.data={config.data} and mesh.model={config.model} make {wanted or config.model} devices; "
                        f"expected {'' if everyone else 'at most '}{len(found)}, which there are")  # fmt: skip
    return jax.make_mesh((data, config.model), (DATA, MODEL), axis_types=(AxisType.Auto,) * 2, devices=found[:wanted])


def axes_of(mesh: Mesh, rows: int) -> tuple[str | None, str | None]:
    """The axes of a mesh that have more than one device, None for one that has not.

    Args:
      mesh: of `make_mesh`.
      rows: length of an array's batch axis; where the devices cannot share it equally, the axis of the batch is None.
    """
    data = DATA if mesh.shape[DATA] > 1 and rows % mesh.shape[DATA] == 0 else None
    return data, MODEL if mesh.shape[MODEL] > 1 else None


def of_state(mesh: Mesh, state: Any, *, fsdp: bool = False) -> Any:
    """Where each array of a state lies: classes over ``model``, the rest on every device.

    Classes that the devices cannot share equally are on every device as well; the fused head shares its work all the
    same.

    Args:
      mesh: of `make_mesh`.
      state: a `jaxcrnn.types.TrainState`, or its shapes.
      fsdp: share large arrays over ``data`` along their longest axis that goes up.

    Returns:
      A tree of ``NamedSharding`` like the state.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: NamedSharding(mesh, _spec(mesh.shape, path, leaf.shape, fsdp)), state
    )


def class_axis(path: tuple[Any, ...]) -> int | None:
    """Which axis of an array of the state the classes are, None for an array without them.

    Args:
      path: to the array, as `jax.tree_util.tree_map_with_path` gives it.
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
    """The sharding of a batch: its rows over ``data``."""
    return NamedSharding(mesh, P(DATA))


def everywhere(mesh: Mesh) -> NamedSharding:
    """On every device."""
    return NamedSharding(mesh, P())


def gathered(mesh: Mesh, tree: Any) -> Any:
    """Parameters as a step uses them: what FSDP shards over ``data`` is gathered, the rest stays as it is."""
    if mesh.size == 1:
        return tree
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jax.lax.with_sharding_constraint(
            leaf, NamedSharding(mesh, _spec(mesh.shape, path, leaf.shape, False))
        ),
        tree,
    )


def each_rows(mesh: Mesh, rows: int) -> int:
    """How many rows of a batch each device of ``data`` has.

    Raises:
      UserError: the devices cannot share the rows equally.
    """
    share = mesh.shape[DATA]
    if rows % share:
        raise UserError(f"data.batch_size is {rows}; expected a multiple of mesh.data={share}")
    return rows // share


def my_rows(mesh: Mesh, rows: int) -> tuple[int, int]:
    """Which rows of a batch this process has to bring: from, to.

    Raises:
      UserError: the devices cannot share the rows equally, or this process's are not side by side.
    """
    each = each_rows(mesh, rows)
    held = NamedSharding(mesh, P(DATA)).addressable_devices_indices_map((rows,)).values()
    starts = sorted({index[0].indices(rows)[0] for index in held if index is not None})
    if starts != list(range(starts[0], starts[-1] + each, each)):
        raise UserError("the devices of a process are not side by side in the mesh; expected mesh.data to be split by "
                        "process")  # fmt: skip
    return starts[0], starts[-1] + each


def place(tree: Any, where: Any) -> Any:
    """Arrays that every process has whole, put where they belong.

    Args:
      tree: of arrays.
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
    """Arrays of which every process has its own rows (`my_rows`), put where they belong."""
    if jax.process_count() == 1:
        return jax.device_put(tree, where)
    return jax.tree.map(lambda a: jax.make_array_from_process_local_data(where, np.asarray(a)), tree)


def fetch(tree: Any) -> Any:
    """Arrays on the host, whole on every process."""
    if all(a.is_fully_addressable or a.is_fully_replicated for a in jax.tree.leaves(tree)):
        return jax.device_get(tree)
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(tree, tiled=True)
