"""Operations whose best form depends on how arrays are sharded, as one value.

The numerics take them as an argument and stay functions of their arguments. `LOCAL` is for one device, and correct
anywhere; `jaxcrnn.parallel.ops` makes the counterpart for a mesh of devices. Which convolution and LSTM a device gets
is decided in `jaxcrnn.runs.compile`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxcrnn.kernels.center_ops import DENSE, CenterOps
from jaxcrnn.kernels.logits import factored


def on_all_lines(function: Callable[..., Any], lines: tuple[Any, ...], shared: tuple[Any, ...]) -> Any:
    """``function(*lines, *shared)``: every line is on this device."""
    return function(*lines, *shared)


class Ops(NamedTuple):
    """How a model and a step compute what a mesh of devices would do in another way.

    Attributes:
      logits: ``(features [B,T,D], kernel [D,C], bias [C]) -> logits`` of the fused head.
      centers: distances to centers and sums over the frames of a class.
      shared_batch: whether devices share the batch. Then the frames of a batch are not flattened into one axis, which
        would bring all of them to every device.
      map_lines: ``(function, lines, shared) -> function(*lines, *shared)`` for a function that works line by line, run
        on each device's own lines: for calls that XLA cannot partition.
    """

    logits: Callable[[Any, Any, Any], Any] = factored
    centers: CenterOps = DENSE
    shared_batch: bool = False
    map_lines: Callable[[Callable[..., Any], tuple[Any, ...], tuple[Any, ...]], Any] = on_all_lines


LOCAL = Ops()
