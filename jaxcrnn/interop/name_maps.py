"""Maps of names: CRNN checkpoints whose parts have names of their own (``jaxcrnn convert --map``).

A map has one line for each part, ``OURS = THEIRS``, and is expanded to single arrays. The renamed state dict has a
layout like any other.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxcrnn._text import SMALL, listed, read_text
from jaxcrnn.errors import UserError
from jaxcrnn.interop import spelled
from jaxcrnn.interop.checkpoint_layouts import Arrays, Layout, Names, layout_of, numbered
from jaxcrnn.nn.layers import Layer, layers_of, rows

MAPPED, UNUSED = "mapped", "unused"
_NORM = ("weight", "bias", "running_mean", "running_var")
_LSTM = tuple(f"{part}_l0" for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
_ARRAY = re.compile(
    r"backbone\.conv\d{1,3}\.(weight|bias)|backbone\.norm\d{1,3}\.(weight|bias|running_mean|running_var)|"
    r"recurrent\.\d{1,3}\.(weight|bias|(weight|bias)_[ih]h_l0(_reverse)?)|head\.(weight|bias)"
)
_PART = re.compile(r"backbone\.(conv|norm)\d{1,3}|recurrent\.\d{1,3}|head")
_BACKBONES = ("vgg-crnn", "vgg", "vgg-dtrb", "vgg-gitycc", "small", "tiny")  # backbones that differ in their weights
EXPECTED = "backbone.conv0, backbone.norm0, recurrent.0, head (or an array of it, such as head.weight) or unused"


class Renamed(NamedTuple):
    """A renamed state dict.

    Attributes:
      arrays: arrays by our names; batch counters keep their names.
      names: their name of each array, by ours.
      unused: their names of arrays that the map lists as unused.
      lines: places in the map, by our names.
    """

    arrays: dict[str, np.ndarray]
    names: dict[str, str]
    unused: list[str]
    lines: dict[str, str]


def read(path: Path, state: Arrays, source: Path) -> Renamed:
    """Read a map, and rename the arrays of a state dict.

    Args:
      path: path of the map.
      state: names and arrays of the checkpoint.
      source: path of the checkpoint, for messages.

    Raises:
      UserError: a line is invalid, names something unknown or twice, or arrays are missing from the map.
    """
    names: dict[str, str] = {}
    lines: dict[str, str] = {}
    taken: dict[str, str] = {}
    unused = []
    for number, text in enumerate(read_text(path, SMALL).splitlines(), 1):
        line = re.split(r"(?:^|\s)#", text)[0].strip()
        if not line:
            continue
        place = f"{path}, line {number}"
        ours, equals, theirs = (word.strip() for word in line.partition("="))
        if not ours or not equals or not theirs:
            raise UserError(f"{place}: {line[:60]!r}; expected OURS = THEIRS, such as head = classifier")
        for own, name in _expanded(place, ours, theirs, state, source):
            if name in taken:
                raise UserError(f"{place}: duplicate {name} (first on line {taken[name]})")
            if own in lines:
                raise UserError(f"{place}: duplicate {own} (first in {lines[own]})")
            taken[name] = str(number)
            if own == UNUSED:
                unused.append(name)
            else:
                names[own], lines[own] = name, place
    if not names:
        raise UserError(f"{path}: maps no array; expected lines OURS = THEIRS, such as head = classifier")
    left = [name for name in state if name not in taken and not name.endswith(".num_batches_tracked")]
    if left:
        parts = list(dict.fromkeys(name.rpartition(".")[0] or name for name in left))
        raise UserError(
            f"{path}: does not map {len(left)} of {len(state)} arrays of {source}, those of {listed(parts, 8)}; map "
            f"them, or exclude them with lines such as: {UNUSED} = {parts[0]}"
        )
    counters = {k: a for k, a in state.items() if k.endswith(".num_batches_tracked") and k not in unused}
    return Renamed({own: state[name] for own, name in names.items()} | counters, names, unused, lines)


def _expanded(place: str, ours: str, theirs: str, state: Arrays, source: Path) -> Iterable[tuple[str, str]]:
    """Yield our name and their name of every array that a line maps."""
    if ours != UNUSED and not _PART.fullmatch(ours) and not _ARRAY.fullmatch(ours):
        near = difflib.get_close_matches(ours, ("backbone.conv0", "backbone.norm0", "recurrent.0", "head", UNUSED), 1)
        raise UserError(
            f"{place}: unknown name {ours!r}; expected {EXPECTED}" + (f"; did you mean {near[0]}?" if near else "")
        )
    if theirs in state:
        if _PART.fullmatch(ours):
            raise UserError(
                f"{place}: {theirs} is an array and {ours} is a part; expected a name such as {ours}.weight"
            )
        yield ours, theirs
        return
    layer = re.fullmatch(r"(.+)\.\*_l(\d+)", theirs)
    count = 0
    for name in state:
        match = layer and re.fullmatch(rf"{re.escape(layer[1])}\.(\w+?)_l{layer[2]}(_reverse)?", name)
        if match:
            rest = f"{match[1]}_l0{match[2] or ''}"
        elif not layer and name.startswith(f"{theirs}."):
            rest = name.removeprefix(f"{theirs}.")
        else:
            continue
        count += 1
        if ours == UNUSED:
            yield UNUSED, name
        elif rest != "num_batches_tracked":
            if not _ARRAY.fullmatch(f"{ours}.{rest}"):
                raise UserError(
                    f"{place}: {name} does not fit into {ours}; a layer of several is {theirs}.*_l0, and a part inside "
                    f"another needs its full name"
                )
            yield f"{ours}.{rest}", name
    if not count:
        places = {name.rpartition(".")[0] for name in state} | set(state)
        near = difflib.get_close_matches(theirs, sorted(places), 1)
        raise UserError(
            f"{place}: no array {theirs!r} in {source}, and none begins with it"
            + (f"; did you mean {near[0]}?" if near else "")
        )


def layout(renamed: Renamed, path: Path, classes: int, *, height: int = 32, pools: str = "") -> Layout:
    """Build the layout of a renamed state dict.

    Args:
      renamed: state dict that `read` returned.
      path: path of the map, for messages.
      classes: number of classes, with the blank.
      height: height of the model's images in pixels.
      pools: poolings, such as ``2x2,2x2,-,2x1,4x1``; empty for those of a backbone of this shape, or to infer them.

    Raises:
      UserError: arrays are missing, or a shape is wrong (naming the line of the map and both shapes).
    """
    state = renamed.arrays
    convs = _indices(state, r"backbone\.(?:conv|norm)(\d+)\..+")
    recurrent = _indices(state, r"recurrent\.(\d+)\..+")
    kinds = tuple("linear" if f"recurrent.{k}.weight" in state else "lstm" for k in range(recurrent))
    needed = [name for i in range(max(convs, 1)) for name in _of_convolution(state, i)]
    needed += [name for k, kind in enumerate(kinds or ("lstm",)) for name in _of_recurrent(state, k, kind)]
    needed += ["head.weight", "head.bias"]
    _check_missing(path, [n for n in needed if n.split(".")[-1].startswith("weight")], needed, state)
    if unexpected := next((name for name in renamed.names if name not in needed), None):
        raise UserError(
            f"{renamed.lines[unexpected]}: unexpected {unexpected} ({renamed.names[unexpected]}); a recurrent layer is "
            "an LSTM or has one weight and one bias"
        )
    reading = f"recurrent.0.{'weight' if kinds[0] == 'linear' else _LSTM[0]}"
    first = state[reading]
    channels = _check_convolutions(renamed, convs)
    _check_recurrent(renamed, kinds, int(first.shape[-1]), classes)
    _check_missing(path, needed, needed, state)
    features = int(first.shape[-1])
    backbone, poolings = _backbone(renamed, convs, height, pools, max(1, features // channels))
    parts = tuple(f"recurrent.{k}" for k in range(recurrent))
    names = Names(numbered("backbone.conv{}", "backbone.norm{}", convs), parts, "head")
    made = layout_of(MAPPED, state, {"backbone": backbone}, names, kinds)
    left = max(0, rows(backbone, height))
    if left > 1 and features == channels:
        made.model["imported"] = replace(made.model["imported"], rows="mean")
        made.assumed.append(f"the mean of the {left} rows that the convolutions leave (--pools, --height)")
    elif features != channels * left:
        raise UserError(
            f"{renamed.lines[reading]}: {renamed.names[reading]} takes {features} features; expected {channels * left} "
            f"({channels} channels x {left} rows) for images of height {height} (--height) and {poolings}"
        )
    elif left > 1:
        made.assumed.append(f"{left} rows flattened channel by channel, as by permute(0, 3, 1, 2).flatten(2)")
    made.model["height"] = height
    made.assumed.append(f"{poolings}, stride-1 convolutions with size-preserving padding, and ReLU after each")
    return made


def _check_missing(path: Path, names: Iterable[str], needed: Sequence[str], state: Arrays) -> None:
    """Check that some of the arrays are there; the message lists all that are missing."""
    if any(name not in state for name in names):
        missing = [name for name in needed if name not in state]
        raise UserError(f"{path}: missing {len(missing)} of {len(needed)} arrays: {listed(missing, 8)}")


def _indices(state: Arrays, pattern: str) -> int:
    return max((int(match[1]) + 1 for name in state if (match := re.fullmatch(pattern, name))), default=0)


def _of_convolution(state: Arrays, i: int) -> list[str]:
    conv, norm = f"backbone.conv{i}.", f"backbone.norm{i}."
    normed = any(norm + leaf in state for leaf in _NORM)
    biased = not normed or conv + "bias" in state
    return [conv + "weight", *([conv + "bias"] if biased else []), *(norm + leaf for leaf in _NORM if normed)]


def _of_recurrent(state: Arrays, k: int, kind: str) -> list[str]:
    part = f"recurrent.{k}."
    if kind == "linear":
        return [part + "weight", part + "bias"]
    both = any(f"{part}{leaf}_reverse" in state for leaf in _LSTM)
    return [part + leaf + end for end in ("", "_reverse")[: 1 + both] for leaf in _LSTM]


def _expect(renamed: Renamed, name: str, expected: tuple[int | str, ...], why: str) -> None:
    shape = renamed.arrays[name].shape if name in renamed.arrays else expected
    if len(shape) != len(expected) or any(isinstance(n, int) and n != m for n, m in zip(expected, shape, strict=True)):
        raise UserError(
            f"{renamed.lines[name]}: {name} = {renamed.names[name]} has shape {list(shape)}; expected "
            f"[{', '.join(map(str, expected))}], {why}"
        )


def _check_convolutions(renamed: Renamed, count: int) -> int:
    """Check that convolutions form a chain, and return the channels of the last one."""
    channels = 0
    for i in range(count):
        conv, norm = f"backbone.conv{i}", f"backbone.norm{i}"
        weight = renamed.arrays[f"{conv}.weight"]
        if i == 0 and weight.ndim == 4 and weight.shape[1] not in (1, 3):
            _expect(renamed, f"{conv}.weight", ("C", "1 or 3", "H", "W"), "for gray or color images")
        shape = ("C", channels or "K", "H", "W")
        _expect(renamed, f"{conv}.weight", shape, f"{channels} channels of backbone.conv{i - 1}" if i else "C channels")
        channels = int(weight.shape[0])
        for name in (f"{conv}.bias", *(f"{norm}.{leaf}" for leaf in _NORM)):
            if name in renamed.arrays:
                _expect(renamed, name, (channels,), f"the channels of {conv}")
    return channels


def _check_recurrent(renamed: Renamed, kinds: tuple[str, ...], size: int, classes: int) -> None:
    """Check that recurrent layers and the head form a chain."""
    why = "the features of the convolutions"
    for k, kind in enumerate(kinds):
        part = f"recurrent.{k}."
        if kind == "linear":
            _expect(renamed, part + "weight", ("N", size), why)
            size = int(renamed.arrays[part + "weight"].shape[0])
            _expect(renamed, part + "bias", (size,), f"the outputs of {part}weight")
        else:
            directions = ("", "_reverse")[: 1 + (part + _LSTM[0] + "_reverse" in renamed.arrays)]
            _expect(renamed, part + _LSTM[1], ("4N", "N"), "the four gates of an LSTM")
            hidden = int(renamed.arrays[part + _LSTM[1]].shape[1])
            for end in directions:
                _expect(renamed, part + _LSTM[1] + end, (4 * hidden, hidden), "the four gates of an LSTM")
                _expect(renamed, part + _LSTM[0] + end, (4 * hidden, size), why)
                for leaf in _LSTM[2:]:
                    _expect(renamed, part + leaf + end, (4 * hidden,), "the four gates of an LSTM")
            size = hidden * len(directions)
        why = f"the {size} outputs of recurrent.{k}"
    _expect(renamed, "head.weight", (classes, size), f"{classes} classes (the charset and the blank) and {why}")
    _expect(renamed, "head.bias", (classes,), "the classes")


def _backbone(renamed: Renamed, count: int, height: int, pools: str, leave: int) -> tuple[str, str]:
    """Return the backbone, and a description of its poolings."""
    state = renamed.arrays
    names = numbered("backbone.conv{}", "backbone.norm{}", count)
    shapes = [
        (
            int(state[f"{conv}.weight"].shape[0]),
            tuple(state[f"{conv}.weight"].shape[2:]),
            f"{norm}.running_mean" in state,
            f"{conv}.bias" in state,
        )
        for conv, norm in names
    ]
    for backbone in _BACKBONES if not pools else ():
        own = [layer for layer in layers_of(backbone, shapes[-1][0]) if isinstance(layer, Layer)]
        if shapes == [(one.features, one.kernel, one.norm, one.biased or not one.norm) for one in own]:
            return backbone, f"poolings of {backbone} (--pools)"
    return spelled.backbone(state, names, _gaps(renamed, names), height, pools, leave)


def _gaps(renamed: Renamed, names: Iterable[tuple[str, str]]) -> list[bool] | None:
    """Return where an ``nn.Sequential`` has layers without weights other than an activation; None if it is not one."""
    places = []
    for conv, norm in names:
        match = re.fullmatch(r"(.*?)(\d+)\.weight", renamed.names[f"{conv}.weight"])
        if not match or match[1][-1:] not in ("", "."):
            return None
        places.append((match[1], int(match[2]), f"{norm}.running_mean" in renamed.arrays))
    if len({stem for stem, _, _ in places}) > 1:
        return None
    return [n - m - 1 - normed > 1 for (_, m, normed), (_, n, _) in pairwise(places)] + [True]
