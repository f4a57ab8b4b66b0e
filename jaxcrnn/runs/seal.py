"""Checkpoint verification without reading arrays: checksum manifest, shapes and metadata.

The manifest is written after the last file of a checkpoint, and verified before the checkpoint is loaded.
"""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import Any

import jax

from jaxcrnn.errors import UserError
from jaxcrnn.types import TrainState

MANIFEST, SHAPES = "files.json", "shapes"
# Folders whose files must all be in the manifest; orbax and users may leave other files next to them.
_FOLDERS = ("state", "extra")


class Damaged(UserError):
    """A checkpoint is unreadable, or its files do not match their checksums."""


def seal(folder: Path) -> None:
    """Write the checksum manifest of a checkpoint: size and CRC-32 of each of its files.

    Args:
      folder: folder of the checkpoint.

    Raises:
      OSError: a file cannot be read, or the manifest cannot be written.
    """
    new = folder / f"{MANIFEST}.new"
    new.write_text(json.dumps(_files(folder)), encoding="utf-8")
    new.rename(folder / MANIFEST)


def is_sealed(folder: Path) -> bool:
    """Return whether a checkpoint has a manifest; a save killed after its last file is complete without one."""
    return (folder / MANIFEST).exists()


def verify(folder: Path) -> None:
    """Compare the files of a checkpoint with its manifest; does nothing without a manifest (see `is_sealed`).

    Args:
      folder: folder of the checkpoint.

    Raises:
      Damaged: a file is missing, unexpected or changed, or the manifest cannot be read.
    """
    if not is_sealed(folder):
        return
    try:
        saved = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files = _files(folder)
        wrong = [name for name, entry in saved.items() if files.get(name) != entry]
        wrong += [name for name in files if name not in saved and name.split(os.sep)[0] in _FOLDERS]
    except (OSError, ValueError, AttributeError):
        raise Damaged(f"{folder}: damaged: {MANIFEST} cannot be read") from None
    if wrong:
        name = wrong[0]
        if name not in saved:
            what = f"is not listed in {MANIFEST}"
        elif name not in files:
            what = "is missing"
        elif files[name][0] != saved[name][0]:
            what = f"has {files[name][0]} bytes instead of {saved[name][0]}"
        else:
            what = "does not match its checksum"
        more = f" ({len(wrong)} damaged files in total)" * (len(wrong) > 1)
        raise Damaged(f"{folder}: damaged: {name} {what}{more}")


def _files(folder: Path) -> dict[str, list[int]]:
    """Compute size and CRC-32 of every file of a checkpoint except its manifest."""
    paths = (p for p in sorted(folder.rglob("*")) if p.is_file() and not p.name.startswith(MANIFEST))
    return {str(p.relative_to(folder)): [p.stat().st_size, _crc(p)] for p in paths}


def _crc(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            crc = zlib.crc32(block, crc)
    return crc


def shapes_of(state: TrainState) -> dict[str, list[int]]:
    """Return the shape of every array of a state, by its path."""
    return {jax.tree_util.keystr(path): list(leaf.shape) for path, leaf in jax.tree_util.tree_leaves_with_path(state)}


def facts_for(folder: Path, template: TrainState) -> dict[str, Any]:
    """Load the facts saved with a state, after comparing its shapes with the expected ones.

    Args:
      folder: folder of the checkpoint.
      template: state with the expected shapes.

    Raises:
      UserError: an array has an unexpected shape.
      Exception: the file cannot be read; the type depends on its content.
    """
    facts: dict[str, Any] = json.loads((folder / "extra" / "metadata").read_bytes())
    saved, expected = facts.pop(SHAPES), shapes_of(template)
    for name in sorted(saved.keys() | expected.keys()):
        if saved.get(name) != expected.get(name):
            raise UserError(
                f"{folder}: not a checkpoint of this run's model: {name} has shape {saved.get(name)}; "
                f"expected {expected.get(name)} from the configuration"
            )
    return facts


def accuracy(folder: Path) -> float | None:
    """Read the validation accuracy saved with a checkpoint; None if there was no validation.

    Raises:
      Damaged: the file cannot be read.
    """
    file = folder / "metrics" / "metrics"
    try:
        return float(json.loads(file.read_bytes())["accuracy"]) if file.exists() else None
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise Damaged(f"{folder}: damaged: its metrics cannot be read") from error


def check_metadata(folder: Path) -> None:
    """Check orbax's own metadata of a checkpoint, if present.

    Raises:
      Damaged: the metadata are not a JSON object.
    """
    file = folder / "_CHECKPOINT_METADATA"
    try:
        if file.exists() and not isinstance(json.loads(file.read_bytes()), dict):
            raise ValueError
    except (OSError, ValueError, RecursionError):
        raise Damaged(f"{folder}: damaged: {file.name} cannot be read") from None


def put_aside(folder: Path) -> None:
    """Quarantine a damaged checkpoint: move it to ``damaged-STEP`` in the run folder."""
    run, name, number = folder.parent.parent, f"damaged-{folder.name}", 1
    place = run / name
    while place.exists():
        place, number = run / f"{name}-{number}", number + 1
    folder.rename(place)
