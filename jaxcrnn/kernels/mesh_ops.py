"""Operations whose best implementation depends on how arrays are sharded, as one value.

The numerics take it as an argument and stay functions of their arguments. `LOCAL` is for one device, and correct on any
mesh; `jaxcrnn.parallel.ops` builds the counterpart for a mesh. `jaxcrnn.runs.compile` chooses the convolution and the
LSTM of a device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxcrnn.kernels.center_ops import DENSE, CenterOps
from jaxcrnn.kernels.logits import factored


def on_all_lines(function: Callable[..., Any], lines: tuple[Any, ...], shared: tuple[Any, ...]) -> Any:
    """Call ``function(*lines, *shared)``: all lines are on this device."""
    return function(*lines, *shared)


class Ops(NamedTuple):
    """Implementations of the operations that depend on the mesh.

    Attributes:
      logits: ``(features [B,T,D], kernel [D,C], bias [C]) -> logits`` of the fused head.
      centers: distances to centers and sums over the frames of a class.
      shared_batch: whether the batch is sharded. If so, frames are not flattened into one axis, which would gather all
        of them on every device.
      map_lines: ``(function, lines, shared) -> function(*lines, *shared)`` for a function that treats lines
        independently; it runs on each device's own lines, for calls that XLA cannot partition.
    """

    logits: Callable[[Any, Any, Any], Any] = factored
    centers: CenterOps = DENSE
    shared_batch: bool = False
    map_lines: Callable[[Callable[..., Any], tuple[Any, ...], tuple[Any, ...]], Any] = on_all_lines


LOCAL = Ops()
