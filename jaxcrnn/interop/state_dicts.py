"""Weight files of PyTorch and safetensors as numpy arrays; code in them is never executed."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from jaxcrnn._files import written_whole
from jaxcrnn._text import first_line, listed
from jaxcrnn.errors import UserError
from jaxcrnn.interop import file_kinds

_WRAPPERS = ("module.", "model.", "net.", "_orig_mod.")  # DataParallel, Lightning and other trainers, torch.compile
_NUMBERS = {"BF16", "F16", "F32", "F64", "BOOL"} | {f"{sign}{bits}" for sign in "IU" for bits in (8, 16, 32, 64)}
_DEPTH = 4  # of dicts within dicts that are searched for state dicts


class Weights(NamedTuple):
    """A state dict and where it comes from.

    Attributes:
      arrays: names and arrays, without prefixes that all names share.
      key: where in the file it was, as ``--key`` takes it; empty for the file itself.
      notes: what of the file is not used, one line each.
    """

    arrays: dict[str, np.ndarray]
    key: str
    notes: list[str]


def read(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of `load`."""
    return load(path).arrays


def load(path: Path, key: str = "") -> Weights:
    """Read a state dict of a PyTorch (old or new format, any device) or safetensors file.

    A state dict nested in a checkpoint dict is found. Prefixes that DataParallel, Lightning or torch.compile add to
    every name are removed.

    Args:
      path: path of the file.
      key: keys of the state dict, joined by dots, such as ``ema.model``, or a prefix of names in it; empty if the file
        has only one.

    Raises:
      UserError: the file is missing, truncated, of another kind, a pickle with anything but arrays, contains no
        weights, or contains several state dicts and ``key`` names none of them.
    """
    head = file_kinds.check(path)
    state, key, notes = _safetensors(path, key) if head[8:9] == b"{" else _torch(path, key)
    wrapper = _wrapper(state)
    while wrapper:
        state = {name.removeprefix(wrapper): value for name, value in state.items()}
        wrapper = _wrapper(state)
    for name, value in state.items():
        if not value.size:
            raise UserError(f"{path}: {name} of shape {list(value.shape)} is empty; expected weights")
        if value.dtype.kind == "f" and not (np.abs(value) <= np.finfo(np.float32).max).all():
            raise UserError(f"{path}: {name} has non-finite values or values beyond float32")
    return Weights(state, key, notes)


def hint(weights: Weights) -> str:
    """Return a hint for error messages if some names, but not all, start with a known prefix."""
    names = weights.arrays
    for wrapper in _WRAPPERS:
        others = [name for name in names if not name.startswith(wrapper)]
        if 0 < len(others) < len(names):
            count, key = len(names) - len(others), f"{weights.key}.{wrapper}".strip(".")
            return (
                f"; {count} of {len(names)} names start with {wrapper!r}, which is removed only if all do "
                f"({others[0]} does not); read these alone with --key {key}"
            )
    return ""


def _wrapper(names: Collection[str]) -> str:
    return next((w for w in _WRAPPERS if names and all(name.startswith(w) for name in names)), "")


def _safetensors(path: Path, key: str) -> tuple[dict[str, np.ndarray], str, list[str]]:
    import ml_dtypes  # noqa: F401  # teaches numpy bfloat16
    from safetensors import SafetensorError, safe_open
    from safetensors.numpy import load_file

    try:
        with safe_open(path, "np") as file:
            kinds = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
        odd = next((name for name, kind in kinds.items() if kind not in _NUMBERS), None)
        if odd is not None:
            raise UserError(f"{path}: {odd} is {kinds[odd]}; expected numbers of type F16, BF16, F32 or F64")
        content = load_file(path)
    except UserError:
        raise
    except (SafetensorError, OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(f"{path}: truncated, or not a safetensors file of numbers ({first_line(error)})") from None
    state, key, notes = _chosen(path, {"": content}, key)
    half = {name: str(value.dtype) for name, value in state.items() if value.dtype.name in ("float16", "bfloat16")}
    state = {name: value.astype(np.float32) if name in half else value for name, value in state.items()}
    return state, key, notes + _widened(half.values())


def _torch(path: Path, key: str) -> tuple[dict[str, np.ndarray], str, list[str]]:
    torch = package(path)
    # Options of a training script, read as plain attributes.
    options = [(SimpleNamespace, "argparse.Namespace")]
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(options):
            warnings.simplefilter("ignore")  # about pickles that torch did not write
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken zip or pickle may raise anything
        raise UserError(f"{path}: {file_kinds.reason(path, error, key)}") from None
    state, key, notes = _chosen(path, _state_dicts(content, torch), key, content)
    half = (str(a.dtype).removeprefix("torch.") for a in state.values() if a.is_floating_point() and a.itemsize < 4)
    notes += _widened(half)
    return {name: _array(path, name, value, torch) for name, value in state.items()}, key, notes


def _widened(kinds: Iterable[str]) -> list[str]:
    return [f"{', '.join(names)} weights are converted to float32"] if (names := sorted(set(kinds))) else []


def _state_dicts(content: Any, torch: Any) -> dict[str, dict[str, Any]]:
    """Return the dicts of names and tensors in a checkpoint, by their keys joined by dots."""
    all_dicts: dict[str, dict[str, Any]] = {}

    def search(value: dict[Any, Any], place: str, depth: int) -> None:
        named = {name: inner for name, inner in value.items() if isinstance(name, str)}
        tensors = {name: inner for name, inner in named.items() if torch.is_tensor(inner)}
        if tensors and (len(tensors) == len(value) or any(inner.ndim > 1 for inner in tensors.values())):
            all_dicts[place] = tensors
        for name, inner in named.items():
            if isinstance(inner, dict) and depth < _DEPTH:
                search(inner, f"{place}.{name}".removeprefix("."), depth + 1)

    if isinstance(content, dict):
        search(content, "", 0)
    weights = {place: state for place, state in all_dicts.items() if any(a.ndim > 1 for a in state.values())}
    return weights or all_dicts


def _chosen(
    path: Path, state_dicts: Mapping[str, dict[str, Any]], key: str, content: Any = None
) -> tuple[dict[str, Any], str, list[str]]:
    """Choose a state dict, and note what is not used."""
    if not state_dicts:
        raise UserError(f"{path}: {_described(content)}; expected a state dict of names and tensors")
    place = key
    if not key:
        convolutional = [name for name, state in state_dicts.items() if any(a.ndim == 4 for a in state.values())]
        places = convolutional if len(convolutional) == 1 else list(state_dicts)
        if len(places) > 1:
            raise UserError(
                f"{path}: contains {len(places)} state dicts: {_listed(state_dicts)}; choose one with --key, such as "
                f"--key {places[0] or places[1]}"
            )
        place = places[0]
    if place in state_dicts:
        state = state_dicts[place]
        return state, place, _unused(content, place, state)
    for start in sorted(state_dicts, key=len, reverse=True):
        prefix = place.removeprefix(f"{start}." if start else "") + "."
        state = {name.removeprefix(prefix): a for name, a in state_dicts[start].items() if name.startswith(prefix)}
        if state and place.startswith(start):
            others = [name for name in state_dicts[start] if not name.startswith(prefix)]
            notes = _unused(content, start, state_dicts[start])
            if others:
                notes.insert(0, f"not used: {_arrays(len(others))} without the prefix {prefix} ({listed(others, 5)})")
            return state, place, notes
    near = difflib.get_close_matches(key, list(state_dicts), 1)
    raise UserError(
        f"{path}: no state dict under --key {key}; the file contains {_listed(state_dicts)}"
        + (f"; did you mean {near[0]}?" if near else "")
    )


def _arrays(count: int) -> str:
    return f"{count} array{'s' * (count != 1)}"


def _listed(state_dicts: Mapping[str, dict[str, Any]]) -> str:
    return ", ".join(f"{place or 'the file itself'} ({_arrays(len(s))})" for place, s in list(state_dicts.items())[:8])


def _unused(content: Any, place: str, state: Mapping[str, Any]) -> list[str]:
    """Note the other entries of a checkpoint, by their outermost keys."""
    first = place.partition(".")[0]
    others = [name for name in content or () if name != first and (place or name not in state)]
    notes = [f"read from key {place!r} of the file"] if place else []
    return [*notes, *([f"not used: {listed(others, 5)}"] if others else [])]


def _described(content: Any) -> str:
    """Describe a checkpoint without a state dict."""
    if isinstance(content, dict) and {"param_groups", "state"} <= content.keys():
        return "contains only the state of an optimizer (state, param_groups)"
    inner = content.items() if isinstance(content, dict) else ()
    if optimizer := next((name for name, value in inner if isinstance(value, dict) and "param_groups" in value), None):
        return f"contains the state of an optimizer ({optimizer}) and no weights"
    names = f" of {', '.join(map(str, list(content)[:5]))}" if isinstance(content, dict) and content else ""
    return f"contains a {type(content).__name__}{names}"[:130]


def _array(path: Path, name: str, value: Any, torch: Any) -> np.ndarray:
    if value.is_meta:
        raise UserError(f"{path}: {name} has a shape but no values (device meta); expected weights")
    if value.layout != torch.strided or value.is_complex() or value.is_quantized:
        raise UserError(f"{path}: {name} is {value.layout} {value.dtype}; expected dense real numbers")
    stored = value.untyped_storage().nbytes()
    if value.numel() * value.itemsize > stored:  # an expanded tensor could take up all memory
        raise UserError(
            f"{path}: {name} of shape {list(value.shape)} repeats {stored} bytes; expected each number once"
        )
    # Half precision and bfloat16 convert to float32 without loss.
    value = value.detach().to(torch.float32) if value.is_floating_point() and value.itemsize < 4 else value.detach()
    return np.asarray(value.contiguous().numpy())


def write(path: Path, state: Mapping[str, np.ndarray]) -> None:
    """Write a state dict that ``torch.load(path, weights_only=True)`` reads.

    Raises:
      UserError: the file cannot be written.
    """
    torch = package(path)
    with written_whole(path, RuntimeError) as part:
        torch.save({name: torch.from_numpy(np.array(value)) for name, value in state.items()}, part)


def package(path: Path) -> Any:
    """Import PyTorch.

    Raises:
      UserError: PyTorch is not installed.
    """
    try:
        import torch
    except ImportError:
        raise UserError(f"{path}: PyTorch files need the package torch; install the extra 'torch'") from None
    return torch
