"""Memory traffic of a compiled program, by layer of the model, and the least that the layers need."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from jaxcrnn.architecture import ModelConfig
from jaxcrnn.nn.layers import Block, layers_of, rows_after, width_after

OTHER = "other"
# How to find a layer in the path of an operation, such as jit(step)/transpose(jvp(CRNN))/backbone/conv1/mul.
_LAYERS = (
    (re.compile(r"\b(?:optimizer|opt_state|centers)\b"), "optimizer and centers"),
    (re.compile(r"\bconv\d+\b"), "convolutions"),
    (re.compile(r"\b[Bb]ackbone\b"), "normalization, ReLU, pooling, masks"),
    (re.compile(r"\blstm\d+\b"), "LSTMs"),
    (re.compile(r"\b(?:head|linear\d+)\b"), "linear head"),
    (re.compile(r"\bloss\b"), "loss"),
    (re.compile(r"\baugment\b"), "augmentation"),
)
LAYERS = (*(name for _, name in _LAYERS[1:]), _LAYERS[0][1], OTHER)

_HEAD = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
_SHAPE = r"\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)|\S+"
_OPERATION = re.compile(rf"^\s+(ROOT )?%?([\w.\-]+) = ({_SHAPE}) ([a-z][\w\-]*)\((.*)$")
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+\w*)\[([\d,]*)\](\{[^{}]*\})?")
_CALLED = re.compile(r"(?:calls|to_apply|body)=%?([\w.\-]+)")
_CONDITION = re.compile(r"condition=%?([\w.\-]+)")
_ON_CHIP = re.compile(r"S\(\d+\)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_NAMED = re.compile(r'op_name="([^"]*)"')
# These move nothing: they only name memory.
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id"}


class Cost(NamedTuple):
    """What a layer costs in one step: the bytes that it reads and writes, or its milliseconds.

    Attributes:
      forward: cost of the forward pass.
      backward: cost of the backward pass.
    """

    forward: float
    backward: float


class _Operation(NamedTuple):
    root: bool
    name: str
    shape: str
    kind: str
    operands: list[str]
    rest: str


def layer_of(path: str) -> tuple[str, bool]:
    """Return the layer of an operation (one of `LAYERS`), and whether it belongs to the backward pass.

    Args:
      path: path of the operation (``op_name`` in HLO).

    >>> layer_of("jit(step)/transpose(jvp(CRNN))/backbone/conv1/mul")
    ('convolutions', True)
    """
    name = next((name for pattern, name in _LAYERS if pattern.search(path)), OTHER)
    return name, "transpose(" in path


def by_layer(text: str) -> dict[str, Cost]:
    """Count the bytes that each layer's operations read and write.

    An operation, fused or not, reads its operands from memory and writes its results there. Of an array that it only
    slices or updates, the slice counts. A loop counts as often as it runs, or once if the program does not say.
    Arrays that the compiler keeps on the chip count nothing, but caches are not modelled. An operation belongs to the
    layer of its result (`paths`).

    Args:
      text: HLO of the compiled program.

    Returns:
      The traffic of each layer that has any, in the order of `LAYERS`.
    """
    return _summed(text, lambda count, times: count * times)


def operations(text: str) -> dict[str, Cost]:
    """Count the operations that each layer executes.

    A fusion counts as one, and an operation in a loop as often as the loop runs. On a GPU, each is a kernel or a copy,
    or a call of a library that may execute several; each takes a microsecond or more, whatever it does.

    Args:
      text: HLO of the compiled program.

    Returns:
      The number for each layer that has any, in the order of `LAYERS`.
    """
    return _summed(text, lambda _, times: times)


def _summed(text: str, value: Callable[[int, int], int]) -> dict[str, Cost]:
    """Sum ``value(bytes, runs)`` of all operations by layer."""
    program = _parse(text)
    found = _paths(program)
    totals: dict[tuple[str, bool], int] = defaultdict(int)
    for operation, count, times in _walk(program, _entry(text)):
        totals[layer_of(found[operation.name])] += value(count, times)
    both = {name: Cost(totals[name, False], totals[name, True]) for name in LAYERS}
    return {name: cost for name, cost in both.items() if any(cost)}


def paths(text: str) -> dict[str, str]:
    """Return the path of each operation, for `layer_of`.

    An operation that the compiler added, such as a conversion, has no path. It gets that of an operation that is fused
    with it, or else of one whose result it reads.

    Args:
      text: HLO of the compiled program.
    """
    return _paths(_parse(text))


def _paths(program: Mapping[str, list[_Operation]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for operations in program.values():  # operands come before the operations that read them, and so do fused ones
        for operation in operations:
            called = _CALLED.search(operation.rest) if operation.kind == "fusion" else None
            own = _NAMED.search(operation.rest)
            fused = reversed(program[called[1]]) if called else ()
            candidates = [*([own[1]] if own else []), *(found.get(one.name, "") for one in fused)]
            candidates += [found.get(name, "") for name in operation.operands]
            found[operation.name] = next((path for path in candidates if layer_of(path)[0] != OTHER), "")
    return found


def _entry(text: str) -> str:
    line = next(line for line in text.splitlines() if line.startswith("ENTRY"))
    match = _HEAD.match(line)
    assert match, line
    return match[1]


def _parse(text: str) -> dict[str, list[_Operation]]:
    program: dict[str, list[_Operation]] = {}
    current: list[_Operation] = []
    for line in text.splitlines():
        if head := _HEAD.match(line):
            current = program[head[1]] = []
        elif found := _OPERATION.match(line):
            root, name, shape, kind, rest = found.groups()
            inside = rest[: _closing(rest)]
            current.append(_Operation(bool(root), name, shape, kind, re.findall(r"%([\w.\-]+)", inside), rest))
    return program


def _closing(text: str) -> int:
    depth = 1
    for place, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if not depth:
            return place
    return len(text)


def _walk(program: Mapping[str, list[_Operation]], name: str, times: int = 1) -> Iterator[tuple[_Operation, int, int]]:
    """Yield each operation that moves bytes, with the bytes and how often it runs."""
    here = {operation.name: operation for operation in program[name]}
    shapes = {operation.name: operation.shape for operation in program[name]}
    for operation in program[name]:
        called = _CALLED.search(operation.rest)
        if operation.kind in ("while", "call") and called:
            yield from _walk(program, called[1], times * _runs(operation, program))
        elif operation.kind == "fusion" and called:
            yield operation, _of_fusion(operation, program[called[1]], shapes), times
        elif operation.kind.endswith("-done"):  # an asynchronous move, which counts where it ends
            source = shapes.get(here[operation.operands[0]].operands[0], "")
            count = _bytes(_ON_CHIP.sub("", operation.shape)) if _bytes(source) else 0
            yield operation, _bytes(operation.shape) + count, times
        elif operation.kind not in _FREE and not operation.kind.endswith(("-start", "-update")):
            yield operation, _of_one(operation, shapes), times


def _runs(operation: _Operation, program: Mapping[str, list[_Operation]]) -> int:
    """Return how often a loop runs, from the compiler's note or from the number that its counter is compared with."""
    if known := _TRIPS.search(operation.rest):
        return int(known[1])
    condition = _CONDITION.search(operation.rest)
    there = {one.name: one for one in program[condition[1]]} if condition else {}
    root = next((one for one in there.values() if one.root), None)
    if root is not None and root.kind == "compare" and "direction=LT" in root.rest:
        for name in root.operands:
            if name in there and there[name].kind == "constant" and (number := re.match(r"\d+", there[name].rest)):
                return int(number[0])
    return 1


def _of_one(operation: _Operation, shapes: Mapping[str, str]) -> int:
    if operation.kind in ("dynamic-slice", "slice", "gather"):
        return 2 * _bytes(operation.shape)
    if operation.kind == "dynamic-update-slice":
        return 2 * _bytes(shapes.get(operation.operands[1], ""))
    return _bytes(operation.shape) + sum(_bytes(shapes.get(name, "")) for name in operation.operands)


def _of_fusion(operation: _Operation, fused: list[_Operation], shapes: Mapping[str, str]) -> int:
    """Count the operands as far as the fused operations read them, and the results as far as they change."""
    inside = {one.name: one for one in fused}
    users: dict[str, list[_Operation]] = defaultdict(list)
    for one in fused:
        for name in one.operands:
            users[name].append(one)
    total = 0
    for one in fused:
        if one.kind == "parameter":
            whole = _bytes(shapes.get(operation.operands[int(one.rest.split(")")[0])], ""))
            total += min(whole, sum(_read(one.name, user, whole, users) for user in users[one.name]))
    root = next(one for one in fused if one.root)
    results = [inside[name] for name in root.operands] if root.kind == "tuple" else [root]
    written = sum(_written(one, inside) for one in results)
    return total + min(written, _bytes(operation.shape))


def _read(name: str, user: _Operation, whole: int, users: Mapping[str, list[_Operation]]) -> int:
    """Return how much of an array inside a fusion one of its users reads."""
    if user.kind == "gather" and user.operands[0] == name:
        return _bytes(user.shape)
    if user.kind in ("dynamic-update-slice", "scatter") and user.operands[0] == name:
        return 0  # updated in place
    if user.kind in ("dynamic-slice", "slice") and user.operands[0] == name:
        whole = _bytes(user.shape)
    elif user.kind != "bitcast":
        return whole
    after = sum(_read(user.name, one, whole, users) for one in users[user.name])
    return min(whole, after) if users[user.name] else whole  # without users, it is the result


def _written(one: _Operation, inside: Mapping[str, _Operation]) -> int:
    while one.kind == "bitcast" and one.operands[0] in inside:
        one = inside[one.operands[0]]
    update = {"dynamic-update-slice": 1, "scatter": 2}.get(one.kind)
    if update and len(one.operands) > update and one.operands[update] in inside:
        return _bytes(inside[one.operands[update]].shape)
    return _bytes(one.shape)


def _bytes(shape: str) -> int:
    """Return the bytes of all arrays of a shape in the device's main memory."""
    total = 0.0
    for kind, sizes, layout in _ARRAY.findall(shape):
        if "S(" not in layout:  # S(1) and so on: memory on the chip
            total += elements(sizes) * itemsize(kind)
    return int(total)


def elements(sizes: str) -> int:
    """Return the number of elements of an array in HLO from its sizes, such as ``"4,2"``."""
    return math.prod(int(size) for size in sizes.split(",") if size)


def itemsize(dtype: str) -> float:
    """Return the bytes of an element of a dtype in HLO, such as ``"bf16"``."""
    bits = re.search(r"\d+", dtype)
    return int(bits.group()) / 8 if bits else 1


def least(model: ModelConfig, batch: int, width: int) -> dict[str, Cost]:
    """Return the traffic that a step needs if nothing but the layers' results goes through memory.

    Forward, each layer reads its input and writes its output, after normalization, ReLU and pooling, which cost
    nothing more. Backward, it reads the gradient of its output, once for each of its two products, and its input, and
    writes the gradient of its input. The logits are float32. Weights and optimizer, which are small beside a batch of
    lines, are not counted.

    Args:
      model: configuration of the model.
      batch: number of lines B.
      width: width W of the images in pixels.

    Returns:
      Bytes of the convolutions, and of a dense head and its CTC; other layers are not estimated.
    """
    size = 2 if model.dtype == "bfloat16" else 4
    height, before, forward, backward = model.height, batch * model.height * width, 0, 0
    for i, layer in enumerate(layers_of(model.backbone, model.imported.channels)):
        height, width = rows_after(layer, height), int(width_after(layer, np.asarray(width), np.where))
        after = batch * height * width * layer.features
        for inputs in (before, after) if isinstance(layer, Block) else (before,):
            forward += size * (inputs + after)
            backward += size * (inputs * (2 if i else 1) + 2 * after)
        before = after
    convolutions = {LAYERS[0]: Cost(forward, backward)}
    if model.head != "dense":
        return convolutions
    features, logits = size * batch * width * model.features, 4 * batch * width * model.num_classes
    return convolutions | {
        "linear head": Cost(features + logits, 2 * (features + logits)),
        "loss": Cost(logits, 2 * logits),
    }
