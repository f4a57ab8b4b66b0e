"""Ahead-of-time compilation of the training step, for devices that need not be present, and its cost."""

from __future__ import annotations

import dataclasses
import math
import re
import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxcrnn._console import duration, table
from jaxcrnn._text import first_line
from jaxcrnn.bench import described, traffic
from jaxcrnn.bench.traffic import Cost
from jaxcrnn.errors import UserError
from jaxcrnn.parallel.mesh import DATA, MODEL, each_rows, everywhere, make_mesh, of_batch, of_state
from jaxcrnn.runs import config as configs
from jaxcrnn.runs import extensions
from jaxcrnn.runs.compile import compile_step, uncached
from jaxcrnn.train import TrainConfig, state_shapes
from jaxcrnn.types import Batch

_KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_COLLECTIVE = re.compile(rf" = (.*?) ({'|'.join(_KINDS)})(-start)?\(")
_SHAPE = re.compile(r"\b(pred|[a-z]+\d+\w*)\[([\d,]*)\]")


class Collective(NamedTuple):
    """One collective operation of a compiled program.

    Attributes:
      kind: type of the collective, such as ``"all-reduce"``.
      shapes: shapes of the results on each device, in HLO notation.
      bytes: size of the results.
      elements: number of elements of the largest result.
      repeated: whether the collective is inside a loop.
    """

    kind: str
    shapes: tuple[str, ...]
    bytes: int
    elements: int
    repeated: bool


def collectives(text: str) -> list[Collective]:
    """Extract the collectives of a compiled program.

    Args:
      text: HLO of the program.
    """
    operations = []
    for line in text.splitlines():
        match = _COLLECTIVE.search(line)
        if not match:
            continue
        result, kind, start = match.groups()
        shapes = _SHAPE.findall(result)
        if start and kind != "all-reduce":  # operands are listed first, then results, then transfer ids
            shapes = [shape for shape in shapes if shape[1] or kind != "collective-permute"]
            shapes = shapes[len(shapes) // 2 :]
        sizes = [traffic.elements(dims) for _, dims in shapes]
        total = sum(size * traffic.itemsize(dtype) for size, (dtype, _) in zip(sizes, shapes, strict=True))
        spelled = tuple(f"{dtype}[{dims}]" for dtype, dims in shapes)
        operations.append(Collective(kind, spelled, int(total), max(sizes, default=0), "/while/" in line))
    return operations


class Plan(NamedTuple):
    """Cost of a step for each device.

    Attributes:
      state: bytes of the train state.
      arguments: bytes of all arguments, including the state.
      temporaries: bytes of temporary buffers.
      gradients: bytes of the gradients, which are as large as the parameters.
      collectives: collectives of the compiled step.
      traffic: memory traffic by layer (`jaxcrnn.bench.traffic.by_layer`).
      operations: operations executed by layer (`jaxcrnn.bench.traffic.operations`).
      least: the traffic that the layers need (`jaxcrnn.bench.traffic.least`); empty where classes are sharded.
      seconds: compilation time.
    """

    state: int
    arguments: int
    temporaries: int
    gradients: int
    collectives: list[Collective]
    traffic: dict[str, Cost]
    operations: dict[str, Cost]
    least: dict[str, Cost]
    seconds: float


def make(
    config: TrainConfig, mesh: Mesh, batch: int, width: int, slots: int, *, fsdp: bool = False, quick: bool = False
) -> Plan:
    """Compile a step for a mesh.

    Args:
      config: configuration of the step, with ``model.num_classes`` set.
      mesh: mesh of present or described devices.
      batch: global batch size.
      width: image width W in pixels.
      slots: number of label slots L.
      fsdp: as in `jaxcrnn.parallel.mesh.MeshConfig.fsdp`.
      quick: as in `jaxcrnn.runs.trainer.LoopConfig.quick_compile`.

    Raises:
      UserError: the batch cannot be sharded evenly, or the step needs more memory than the devices have.
    """
    each_rows(mesh, batch)
    shapes = state_shapes(config)
    state = _placed(shapes, of_state(mesh, shapes, fsdp=fsdp))
    arrays: Any = [
        jax.ShapeDtypeStruct((batch, config.model.height, width, 1), jnp.float32),
        jax.ShapeDtypeStruct((batch,), jnp.int32),
        jax.ShapeDtypeStruct((batch, slots), jnp.int32),
        jax.ShapeDtypeStruct((batch,), jnp.int32),
    ]
    whole = Batch(*arrays)
    lines = _placed(whole, jax.tree.map(lambda _: of_batch(mesh), whole))
    key = _placed(jax.eval_shape(lambda: jax.random.key(0)), everywhere(mesh))
    began = time.perf_counter()
    try:
        program: Any = compile_step(config, state, lines, key, mesh, quick=quick)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        used = re.search(r"Used \S+ of \S+ hbm", str(error))
        raise UserError(
            f"the step does not fit in memory: {used.group() if used else first_line(error)[:200]}"
        ) from None
    seconds = time.perf_counter() - began
    memory: Any = program.memory_analysis()
    text = program.as_text()
    return Plan(
        _on_one(state),
        int(memory.argument_size_in_bytes),
        int(memory.temp_size_in_bytes),
        _on_one(state.params),
        collectives(text),
        traffic.by_layer(text),
        traffic.operations(text),
        traffic.least(config.model, batch // mesh.shape[DATA], width) if mesh.shape[MODEL] == 1 else {},
        seconds,
    )


def _placed(shapes: Any, places: Any) -> Any:
    return jax.tree.map(lambda a, p: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=p), shapes, places)


def _on_one(tree: Any) -> int:
    """Return the bytes of a tree on one device."""
    return sum(math.prod(a.sharding.shard_shape(a.shape)) * a.dtype.itemsize for a in jax.tree.leaves(tree))


def compile_for(
    config: configs.Config, classes: int, *, device: str | None = None, width: int = 280, slots: int = 10
) -> tuple[dict[str, Any], Plan, int | None]:
    """Compile the training step of a configuration, for devices that need not be present.

    Args:
      config: model, loss, optimizer, batch size and mesh.
      classes: number of classes C.
      device: described devices, such as ``"v5e:2x2"`` or ``"h100"``; the devices of this machine by default.
      width: width W of the images in pixels.
      slots: number of label slots L.

    Returns:
      Facts about the compiled step, its cost, and the memory of a device in bytes, or None if unknown.

    Raises:
      UserError: an argument is out of range, the device is unknown, or the step needs more memory than it has.
    """
    for name, value, least in (("classes", classes, 2), ("width", width, 16), ("slots", slots, 1)):
        if value < least:
            raise UserError(f"--{name} {value}: expected {least} or more")
    devices, room = described.find(device)
    mesh = make_mesh(config.mesh, devices)
    model = dataclasses.replace(config.model, num_classes=classes)
    step = TrainConfig(model, config.loss, config.optim, config.augment, extensions.resolve(config.loss))
    config.loss.check_classes(classes)
    if device and model.lstm == "cudnn":
        raise UserError(
            f"--device {device}: model.lstm=cudnn needs a GPU that is present; expected auto, scan or unrolled"
        )
    # Programs for devices that are not present could be cached, but not loaded again.
    with uncached() if device else nullcontext():
        plan = make(
            step, mesh, config.data.batch_size, width, slots, fsdp=config.mesh.fsdp, quick=config.run.quick_compile
        )
    about = {
        "device": device or devices[0].device_kind,
        "devices": mesh.size,
        "mesh_data": mesh.shape[DATA],
        "mesh_model": mesh.shape[MODEL],
        "batch": config.data.batch_size,
        "height": model.height,
        "width": width,
        "slots": slots,
        "classes": classes,
        "backbone": model.backbone,
        "hidden": model.hidden,
        "dtype": model.dtype,
        "head": model.head,
        "preset": config.loss.preset,
    }
    return about, plan, room


def needed(plan: Plan) -> int:
    """Return the bytes of memory that a device needs; results reuse the memory of arguments."""
    return plan.arguments + plan.temporaries


def shown(about: dict[str, Any], plan: Plan, room: int | None) -> str:
    """Format the output of ``jaxcrnn plan``."""
    per = about["batch"] // about["mesh_data"]
    lines = [
        f"{about['device']}: {about['devices']} devices, batch sharded over {about['mesh_data']}, classes over "
        f"{about['mesh_model']}; compiled in {duration(plan.seconds)}",
        f"{about['batch']} lines per step ({per} per device) of {about['height']} x {about['width']} px, "
        f"{about['classes']} classes, {about['backbone']}, H={about['hidden']}, {about['dtype']}, "
        f"head {about['head']}, {about['preset']}",
        f"memory per device: state {_mb(plan.state)}, batch {_mb(plan.arguments - plan.state)}, temporaries "
        f"{_mb(plan.temporaries)}; {_mb(needed(plan))} in total"
        + ("" if room is None else f" of {_mb(room)}: {'fits' if needed(plan) <= room else 'does not fit'}"),
    ]
    rows = []
    for kind in _KINDS:
        of = [c for c in plan.collectives if c.kind == kind]
        if of:
            largest = max(of, key=lambda c: c.bytes)
            in_loops = sum(c.repeated for c in of)
            rows.append(
                (kind, str(len(of)), str(in_loops), f"{sum(c.bytes for c in of) / 1e6:.2f}", _short(largest.shapes))
            )
    if rows:
        lines += ["", table(("collective", "count", "in loops", "MB", "largest"), rows), ""]
    else:
        lines.append("no collectives")
    reduced = sum(c.bytes for c in plan.collectives if c.kind in ("all-reduce", "reduce-scatter"))
    if reduced:
        lines.append(
            f"all-reduce traffic: {reduced / plan.gradients:.2f}x the size of the gradients ({_mb(plan.gradients)})"
        )
    return "\n".join([*lines, "", _shown_traffic(plan)])


def _shown_traffic(plan: Plan) -> str:
    """Format the memory traffic of each layer, and what it needs at least."""

    def row(name: str, moved: Cost, need: Cost | None, count: Cost) -> tuple[str, ...]:
        least = ("", "") if need is None else (f"{need.forward / 1e6:.1f}", f"{need.backward / 1e6:.1f}")
        sizes = f"{moved.forward / 1e6:.1f}", least[0], f"{moved.backward / 1e6:.1f}", least[1]
        return name, *sizes, f"{count.forward:.0f}", f"{count.backward:.0f}"

    rows = [
        row(name, plan.traffic.get(name, Cost(0, 0)), plan.least.get(name), count)
        for name, count in plan.operations.items()
    ]
    rows.append(row("total", _total(plan.traffic), None, _total(plan.operations)))
    heads = ("memory traffic per device", "forward MB", "at least", "backward MB", "at least")
    return table((*heads, "forward operations", "backward"), rows)


def _total(costs: dict[str, Cost]) -> Cost:
    return Cost(sum(cost.forward for cost in costs.values()), sum(cost.backward for cost in costs.values()))


def _short(shapes: Sequence[str]) -> str:
    return ", ".join(shapes[:2]) + (f" and {len(shapes) - 2} more" if len(shapes) > 2 else "")


def _mb(size: float) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
