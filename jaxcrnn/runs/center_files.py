"""Files of class centers: safetensors, and PaddleOCR's pickle (restricted to arrays)."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from jaxcrnn._files import written_whole
from jaxcrnn._text import first_line
from jaxcrnn.charset import Charset, difference
from jaxcrnn.errors import UserError
from jaxcrnn.types import CenterState

FORMAT = "jaxcrnn centers 1"


def save(path: Path, state: CenterState, charset: Charset) -> None:
    """Write centers with their counts, the charset and its hash.

    Raises:
      UserError: the file cannot be written.
    """
    facts = {
        "format": FORMAT,
        "charset_hash": charset.hash,
        "blank": charset.blank_place,
        "characters": json.dumps(charset.characters, ensure_ascii=False),
    }
    arrays = {name: np.asarray(value, np.float32) for name, value in state._asdict().items()}
    with written_whole(path, SafetensorError) as part:
        save_file(arrays, part, metadata=facts)


def load(path: Path, charset: Charset, size: int, instead: str = "") -> CenterState:
    """Read centers for a charset and a feature size.

    Args:
      path: file written by `save`, or PaddleOCR's ``train_center.pkl``: a dict from class ids to arrays.
      charset: charset of the run.
      size: feature size D.
      instead: alternatives to a file, for error messages.

    Raises:
      UserError: the file is missing or truncated, or was made for another charset (naming characters) or feature size.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected centers made by 'jaxcrnn centers estimate'{instead}")
    with path.open("rb") as file:
        pickled = file.read(1) == b"\x80"
    state = _from_pickle(path, charset) if pickled else _from_safetensors(path, charset)
    if not (jnp.isfinite(state.centers).all() and jnp.isfinite(state.counts).all()):
        raise UserError(f"{path}: non-finite centers; expected finite numbers")
    if state.centers.shape[1] != size:
        raise UserError(
            f"{path}: centers of size {state.centers.shape[1]}; expected {size}, the size of the model's features"
        )
    return state


def _from_safetensors(path: Path, charset: Charset) -> CenterState:
    try:
        with safe_open(path, "numpy") as file:
            facts = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: truncated, or not a safetensors file ({first_line(error)})") from None
    if facts.get("format") != FORMAT or set(arrays) != set(CenterState._fields):
        raise UserError(f"{path}: not a file of centers; expected one made by 'jaxcrnn centers estimate'")
    if facts.get("charset_hash") != charset.hash:
        try:
            reason = f", which {difference(Charset(json.loads(facts['characters']), facts['blank']), charset)}"
        except (KeyError, TypeError, ValueError, RecursionError):
            reason = " (the file does not record which)"
        raise UserError(f"{path}: centers were made for a different charset{reason}")
    return CenterState(*(jnp.asarray(arrays[name], jnp.float32) for name in CenterState._fields))


class _ArraysOnly(pickle.Unpickler):
    """Unpickler for numpy arrays and scalars; rejects everything else before it is called."""

    ALLOWED = frozenset(
        (f"numpy.{core}.{module}", name)
        for core in ("core", "_core")
        for module, name in (("multiarray", "_reconstruct"), ("multiarray", "scalar"), ("numeric", "_frombuffer"))
    ) | {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"refusing to unpickle {module}.{name}: only numpy arrays are allowed")
        return super().find_class(module, name)


def _from_pickle(path: Path, charset: Charset) -> CenterState:
    expected = "expected PaddleOCR's dict from class ids to arrays of numbers"
    if charset.blank != 0:
        raise UserError(f"{path}: PaddleOCR centers have the blank first, but this run has data.blank=last")
    try:
        with path.open("rb") as file:
            content = _ArraysOnly(file).load()
    except Exception as error:  # a broken pickle may raise anything
        raise UserError(f"{path}: cannot be read: {first_line(error)}; {expected}") from None
    try:
        rows = {int(key): np.asarray(value, np.float32).reshape(-1) for key, value in content.items()}
        sizes = {row.size for row in rows.values()}
        (size,) = sizes
    except (AttributeError, TypeError, ValueError):
        raise UserError(f"{path}: {expected}, all of one size") from None
    for key in rows:
        if not 0 <= key < charset.num_classes:
            raise UserError(f"{path}: class {key} is not in the charset; expected 0 to {charset.num_classes - 1}")
    centers, counts = np.zeros((charset.num_classes, size), np.float32), np.zeros(charset.num_classes, np.float32)
    for key, row in rows.items():
        # The file has no frame counts; 1 marks a class that was seen.
        centers[key], counts[key] = row, 1
    return CenterState(jnp.asarray(centers), jnp.asarray(counts))
