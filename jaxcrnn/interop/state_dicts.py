"""Weight files of PyTorch and safetensors as numpy arrays; code in them is never executed."""

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
_INSIDE = ("state_dict", "model_state_dict", "model", "net", "weights")  # keys under which scripts save state dicts


def read(path: Path) -> dict[str, np.ndarray]:
    """Read the state dict of a PyTorch (old or new format, any device) or safetensors file.

    A state dict nested in a checkpoint dict is found. Prefixes that DataParallel, Lightning or torch.compile add to
    every name are removed.

    Raises:
      UserError: the file is missing, truncated, contains no weights, or is a pickle with anything but arrays.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "no such file"
        raise UserError(f"{path}: {what}; expected a PyTorch or safetensors checkpoint")
    if not path.stat().st_size:
        raise UserError(f"{path}: empty file (0 bytes)")
    with path.open("rb") as file:
        head = file.read(9)
    state = _safetensors(path) if head[8:9] == b"{" else _torch(path)
    wrapper = _wrapper(state)
    while wrapper:
        state = {name.removeprefix(wrapper): value for name, value in state.items()}
        wrapper = _wrapper(state)
    for name, value in state.items():
        if not value.size:
            raise UserError(f"{path}: {name} of shape {list(value.shape)} is empty; expected weights")
        if value.dtype.kind == "f" and not (np.abs(value) <= np.finfo(np.float32).max).all():
            raise UserError(f"{path}: {name} has non-finite values or values beyond float32")
    return state


def hint(names: Collection[str]) -> str:
    """Return a hint for error messages if some names, but not all, start with a known prefix."""
    for wrapper in _WRAPPERS:
        others = [name for name in names if not name.startswith(wrapper)]
        if 0 < len(others) < len(names):
            count = len(names) - len(others)
            return (
                f"; {count} of {len(names)} names start with {wrapper!r}, which is removed only if all do "
                f"({others[0]} does not)"
            )
    return ""


def _wrapper(names: Collection[str]) -> str:
    return next((w for w in _WRAPPERS if names and all(name.startswith(w) for name in names)), "")


def _safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(f"{path}: truncated, or not a safetensors file of numbers ({first_line(error)})") from None


def _torch(path: Path) -> dict[str, np.ndarray]:
    torch = package(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles that torch did not write
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken zip or pickle may raise anything
        raise UserError(f"{path}: cannot be read as weights: {_reason(error)}") from None
    state = _state_in(content, torch)
    if state is None:
        names = f" of {', '.join(map(str, list(content)[:5]))}" if isinstance(content, dict) and content else ""
        kind = f"a {type(content).__name__}{names}"
        raise UserError(f"{path}: contains {kind[:120]}; expected a state dict of names and tensors")
    return {name: _array(path, name, value, torch) for name, value in state.items()}


def _reason(error: Exception) -> str:
    """Summarize an error of ``torch.load``, whose message fills a page."""
    for line in str(error).splitlines():
        if "Unsupported operand" in line:
            return "the pickle was not written by torch.save"
        if "GLOBAL" in line or "Unsupported" in line:
            return "the pickle contains more than arrays, " + line.strip()[:120]
    return f"{type(error).__name__}: {first_line(error)[:120]}"


def _state_in(content: Any, torch: Any) -> Mapping[str, Any] | None:
    for _ in range(3):
        if not isinstance(content, dict):
            return None
        tensors = {name: value for name, value in content.items() if isinstance(name, str) and torch.is_tensor(value)}
        if tensors and len(tensors) == len(content):
            return tensors
        content = next((content[name] for name in _INSIDE if isinstance(content.get(name), dict)), None)
    return None


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
