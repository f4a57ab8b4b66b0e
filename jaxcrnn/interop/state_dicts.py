"""Files of weights that PyTorch and safetensors write, as numpy arrays; nothing in them is ever run."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxcrnn._files import written_whole
from jaxcrnn._text import first_line
from jaxcrnn.errors import UserError

_WRAPPERS = ("module.", "model.", "net.", "_orig_mod.")  # DataParallel, Lightning and other trainers, torch.compile
_INSIDE = ("state_dict", "model_state_dict", "model", "net", "weights")  # where training scripts put the state dict


def read(path: Path) -> dict[str, np.ndarray]:
    """The state dict of a file: of PyTorch, old and new format, saved on any device, or safetensors.

    A state dict inside a dict of other things is found; what DataParallel, Lightning or torch.compile put before every
    name is left out.

    Raises:
      UserError: no such file, truncated, not weights, or a pickle that asks for more than arrays.
    """
    if not path.is_file():
        what = "a folder" if path.is_dir() else "no such file"
        raise UserError(f"{path}: {what}; expected a checkpoint of PyTorch or safetensors")
    if not path.stat().st_size:
        raise UserError(f"{path}: the file is empty (0 bytes)")
    with path.open("rb") as file:
        head = file.read(9)
    found = _safetensors(path) if head[8:9] == b"{" else _torch(path)
    state, wrapper = found, _wrapper(found)
    while wrapper:
        state = {name.removeprefix(wrapper): value for name, value in state.items()}
        wrapper = _wrapper(state)
    for name, value in state.items():
        if not value.size:
            raise UserError(f"{path}: {name} of shape {list(value.shape)} has no number; expected weights")
        if value.dtype.kind == "f" and not (np.abs(value) <= np.finfo(np.float32).max).all():
            raise UserError(f"{path}: {name} has values that are not finite numbers of float32")
    return state


def hint(names: Collection[str]) -> str:
    """What an error may add where some names have a wrapper before them, and not all."""
    for wrapper in _WRAPPERS:
        others = [name for name in names if not name.startswith(wrapper)]
        if 0 < len(others) < len(names):
            count = len(names) - len(others)
            return (f"; {count} of {len(names)} names begin with {wrapper!r}, which is left out only where all do: "
                    f"{others[0]} does not")  # fmt: skip
    return ""


def _wrapper(names: Collection[str]) -> str:
    return next((w for w in _WRAPPERS if names and all(name.startswith(w) for name in names)), "")


def _safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(f"{path}: truncated, or no safetensors file of numbers ({first_line(error)})") from None


def _torch(path: Path) -> dict[str, np.ndarray]:
    torch = package(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles that torch did not write
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken zip or pickle raises almost anything
        raise UserError(f"{path}: not read as weights alone: {_reason(error)}") from None
    state = _state_in(found, torch)
    if state is None:
        names = f" of {', '.join(map(str, list(found)[:5]))}" if isinstance(found, dict) and found else ""
        kind = f"a {type(found).__name__}{names}"
        raise UserError(f"{path}: holds {kind[:120]}; expected a state dict, names and tensors")
    return {name: _array(path, name, value, torch) for name, value in state.items()}


def _reason(error: Exception) -> str:
    """What is wrong in a few words: torch explains its refusals over a page, which names what the pickle asked for."""
    for line in str(error).splitlines():
        if "Unsupported operand" in line:
            return "a pickle of a kind that torch.save does not write"
        if "GLOBAL" in line or "Unsupported" in line:
            return "it asks for more than arrays, " + line.strip()[:120]
    return f"{type(error).__name__}: {first_line(error)[:120]}"


def _state_in(found: Any, torch: Any) -> Mapping[str, Any] | None:
    for _ in range(3):
        if not isinstance(found, dict):
            return None
        tensors = {name: value for name, value in found.items() if isinstance(name, str) and torch.is_tensor(value)}
        if tensors and len(tensors) == len(found):
            return tensors
        found = next((found[name] for name in _INSIDE if isinstance(found.get(name), dict)), None)
    return None


def _array(path: Path, name: str, value: Any, torch: Any) -> np.ndarray:
    if value.is_meta:
        raise UserError(f"{path}: {name} has a shape and no numbers (device meta); expected weights")
    if value.layout != torch.strided or value.is_complex() or value.is_quantized:
        raise UserError(f"{path}: {name} is {value.layout} {value.dtype}; expected plain real numbers")
    kept = value.untyped_storage().nbytes()
    if value.numel() * value.itemsize > kept:  # one number said to be a billion would take the memory for them
        raise UserError(f"{path}: {name} of shape {list(value.shape)} repeats {kept} bytes; expected each number once")
    # Float32 whatever it was: half precision and bfloat16 go through it without loss.
    value = value.detach().to(torch.float32) if value.is_floating_point() and value.itemsize < 4 else value.detach()
    return np.asarray(value.contiguous().numpy())


def write(path: Path, state: Mapping[str, np.ndarray]) -> None:
    """Writes a state dict that ``torch.load(path, weights_only=True)`` reads.

    Raises:
      UserError: it cannot be written.
    """
    torch = package(path)
    with written_whole(path, RuntimeError) as part:
        torch.save({name: torch.from_numpy(np.array(value)) for name, value in state.items()}, part)


def package(path: Path) -> Any:
    """PyTorch.

    Raises:
      UserError: it is not installed.
    """
    try:
        import torch
    except ImportError:
        raise UserError(f"{path}: files of PyTorch need the package torch; expected the extra 'torch'") from None
    return torch
