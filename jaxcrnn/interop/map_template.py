"""A map of names to fill in (`jaxcrnn.interop.name_maps`), as complete as shapes and numbers allow."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from jaxcrnn.interop.checkpoint_layouts import Arrays

_HEADER = (
    "# Names for 'jaxcrnn convert --map FILE', one part a line: OURS = THEIRS. A part stands for all arrays in it.",
    "# Parts are filled in where shapes, and the numbers in names, leave one possibility.",
    "# Complete the other lines and remove their first '#'; layers without normalization need no such line.",
)
_ORDERS, _STEPS, _DEPTH = 200, 5_000, 200  # limits of the search


class Part(NamedTuple):
    """A layer of a checkpoint.

    Attributes:
      name: its name, as a map takes it.
      kind: ``"conv"``, ``"norm"``, ``"lstm"`` or ``"linear"``; the kind of anything else is its description.
      size: number of inputs.
      out: number of outputs.
      shape: the shape of its weight.
    """

    name: str
    kind: str
    size: int
    out: int
    shape: tuple[int, ...]


class Template(NamedTuple):
    """A map to fill in.

    Attributes:
      text: lines of the map; empty if the checkpoint is not a CRNN.
      filled: number of parts that are filled in.
      total: number of parts.
      lacking: what a CRNN has and the checkpoint does not.
    """

    text: str
    filled: int
    total: int
    lacking: str


def template(state: Arrays, classes: int) -> Template:
    """Write a map to fill in for a state dict.

    Args:
      state: names and arrays.
      classes: number of classes, with the blank.
    """
    parts = parts_of(state)
    of = {kind: [part for part in parts if part.kind == kind] for kind in ("conv", "norm", "lstm", "linear")}
    if lacking := _lacking(parts, of):
        return Template("", 0, 0, lacking)
    lines = _convolutions(of["conv"], of["norm"]) + _recurrent(of["lstm"] + of["linear"], of["conv"], parts, classes)
    lines += [f"# unused = {part.name}  # {part.kind} {list(part.shape)}" for part in parts if part.kind not in of]
    filled = sum(not line.startswith("#") for line in lines)
    return Template("\n".join([*_HEADER, *lines]), filled, len(lines), "")


def parts_of(state: Arrays) -> list[Part]:
    """Return the layers of a state dict, in its order."""
    parts, taken = [], set()
    for key, value in state.items():
        stem, _, leaf = key.rpartition(".")
        layer = re.fullmatch(r"weight_hh_l(\d+)", leaf)
        if layer and value.ndim == 2:
            parts.append(_recurrent_part(state, stem, int(layer[1])))
            ends = (f"_l{layer[1]}", f"_l{layer[1]}_reverse")
            taken |= {
                f"{stem}.{which}{end}" for which in ("weight_ih", "weight_hh", "bias_ih", "bias_hh") for end in ends
            }
        elif leaf == "weight" and value.ndim in (1, 2, 4):
            kind = {1: "norm" if f"{stem}.running_mean" in state else "a layer", 2: "linear", 4: "conv"}[value.ndim]
            parts.append(Part(stem, kind, int(value.shape[value.ndim > 1]), int(value.shape[0]), value.shape))
            taken |= {f"{stem}.{which}" for which in ("weight", "bias", "running_mean", "running_var")}
    others = [key for key in state if key not in taken and not key.endswith(".num_batches_tracked")]
    return parts + [Part(key, "an array", 0, 0, state[key].shape) for key in others]


def _recurrent_part(state: Arrays, stem: str, layer: int) -> Part:
    weight, inputs = state[f"{stem}.weight_hh_l{layer}"], state.get(f"{stem}.weight_ih_l{layer}")
    hidden = int(weight.shape[1])
    both = f"{stem}.weight_hh_l{layer}_reverse" in state
    kind = {4: "lstm", 3: "a GRU", 1: "a plain RNN"}.get(weight.shape[0] // max(hidden, 1), "a recurrent layer")
    name = f"{stem}.*_l{layer}" if f"{stem}.weight_hh_l1" in state else stem
    return Part(name, kind, int(inputs.shape[-1]) if inputs is not None else 0, hidden * (1 + both), weight.shape)


def _lacking(parts: Sequence[Part], of: dict[str, list[Part]]) -> str:
    other = next((part for part in parts if part.kind in ("a GRU", "a plain RNN", "a recurrent layer")), None)
    if other:
        return f"{other.name} is {other.kind} (weight_hh {list(other.shape)}), and only LSTMs are supported"
    names = {"conv": "convolutions", "lstm": "LSTMs (weight_hh_l0)", "linear": "linear layers"}
    lacking = [name for kind, name in names.items() if not of[kind]]
    return f"it is not a CRNN: no {' and no '.join(lacking)}" if lacking else ""


@functools.lru_cache(maxsize=4096)
def _order(name: str) -> tuple[str, tuple[int, ...]]:
    """Split a name into its words and its numbers."""
    return re.sub(r"\d+", "#", name), tuple(int(number) for number in re.findall(r"\d+", name))


def _chains(
    parts: Sequence[Part], first: Callable[[Part], bool], last: Callable[[Part], bool]
) -> list[tuple[Part, ...]]:
    """Return the orders of all parts in which each takes what the one before gives.

    Parts whose names differ in numbers only keep the order of these numbers.
    """
    chains: list[tuple[Part, ...]] = []
    steps = 0

    def search(chain: tuple[Part, ...], left: tuple[Part, ...]) -> None:
        nonlocal steps
        steps += 1
        if steps > _STEPS or len(chains) >= _ORDERS:
            return
        if not left:
            if last(chain[-1]):
                chains.append(chain)
            return
        numbers = [_order(part.name) for part in left]
        for part, (stem, number) in zip(left, numbers, strict=True):
            fits = part.size == chain[-1].out if chain else first(part)
            if fits and not any(other == stem and smaller < number for other, smaller in numbers):
                search((*chain, part), tuple(other for other in left if other is not part))

    if len(parts) <= _DEPTH:
        search((), tuple(parts))
    return chains


def _choices(chains: Sequence[tuple[Part, ...]], parts: Sequence[Part]) -> list[list[Part]]:
    """Return what fits at each place, the part that is there in the order of the file first."""
    if not chains:
        return [[part, *(other for other in parts if other is not part)] for part in parts]
    places = []
    for i, part in enumerate(parts):
        fit = list(dict.fromkeys(chain[i] for chain in chains))
        places.append(sorted(fit, key=lambda one, part=part: one is not part))  # type: ignore[misc]
    return places


def _line(ours: str, fit: Sequence[Part], sure: bool = True) -> str:
    others = f"; or {', '.join(part.name for part in fit[1:8])}" if len(fit) > 1 else ""
    return f"{'' if sure and not others else '# '}{ours} = {fit[0].name}  # {list(fit[0].shape)}{others}"


def _convolutions(convs: Sequence[Part], norms: Sequence[Part]) -> list[str]:
    chains = _chains(convs, lambda part: part.size in (1, 3), lambda part: True)
    places = _choices(chains, convs)
    sure = {i: _norm_of(fit[0], norms) for i, fit in enumerate(places) if len(fit) == 1}
    taken = {norm for norm in sure.values() if norm}
    lines = []
    for i, fit in enumerate(places):
        lines.append(_line(f"backbone.conv{i}", fit))
        free = [norm for norm in norms if norm not in taken and norm.size in {conv.out for conv in fit}]
        if norm := sure.get(i):
            lines.append(_line(f"backbone.norm{i}", [norm]))
        elif free:
            only = len(free) == 1 and sum(conv.out == free[0].size for conv in convs) == 1
            lines.append(_line(f"backbone.norm{i}", free, sure=only))
    return lines


def _norm_of(conv: Part, norms: Sequence[Part]) -> Part | None:
    """Return the normalization that belongs to a convolution by its number."""
    (words, numbers), fits = _order(conv.name), []
    parent = conv.name.rpartition(".")[0]
    for norm in norms:
        other_words, other_numbers = _order(norm.name)
        same_parent = norm.name.rpartition(".")[0] == parent
        follows = words == other_words and other_numbers == (*numbers[:-1], numbers[-1] + 1) if numbers else False
        numbered = numbers == other_numbers and words != other_words and conv.name[-1:].isdigit()
        if norm.size == conv.out and same_parent and (follows or numbered):
            fits.append(norm)
    return fits[0] if len(fits) == 1 else None


def _recurrent(layers: Sequence[Part], convs: Sequence[Part], parts: Sequence[Part], classes: int) -> list[str]:
    ends = {conv.out for conv in convs}
    heads = [part for part in layers if part.kind == "linear" and part.out == classes]
    order = sorted(layers, key=parts.index)

    def first(part: Part) -> bool:
        return any(part.size % out == 0 for out in ends)

    def last(part: Part) -> bool:
        return part in heads if heads else part.kind == "linear"

    chains = _chains(order, first, last)
    widest = [chain for chain in chains if chain[0].size % convs[-1].out == 0]
    places = _choices(widest or chains, order)
    lines = [_line(f"recurrent.{k}", fit) for k, fit in enumerate(places[:-1])]
    head = _line("head", places[-1])
    if not heads:
        names = ", ".join(f"{part.name} {list(part.shape)}" for part in layers if part.kind == "linear")
        head = f"# head = {places[-1][0].name}  # no layer has the charset's {classes} classes; linear layers: {names}"
    return [*lines, head]
