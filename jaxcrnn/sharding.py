"""The mesh of devices: the batch over one axis, the classes over the other."""

from __future__ import annotations

import jax

DATA, MODEL = "data", "model"


def axes_of(rows: int) -> tuple[str | None, str | None]:
    """The axes of the mesh in use (`jax.set_mesh`) that have more than one device, None for one that has not.

    Args:
      rows: of the array whose first axis the batch's is part of; where they cannot be shared equally, the axis of the
        batch counts as one that is not there.
    """
    mesh = jax.sharding.get_abstract_mesh()
    sizes = {name: mesh.shape[name] for name in mesh.axis_names if mesh.shape[name] > 1}
    data = DATA if DATA in sizes and rows % sizes[DATA] == 0 else None
    return data, MODEL if MODEL in sizes else None
