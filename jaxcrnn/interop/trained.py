"""Trained recognisers by name: run folders, folders exported as safetensors, and the weights of the package.

Every command that evaluates, exports or fine-tunes a trained recogniser opens it here.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from jaxcrnn.data.config import DataConfig
from jaxcrnn.errors import UserError
from jaxcrnn.interop.exported import PACKAGE, PRETRAINED, Exported, is_exported, located, open_exported
from jaxcrnn.runs import extensions
from jaxcrnn.runs.config import Config
from jaxcrnn.runs.folder import Run, open_weights, trusted
from jaxcrnn.types import TrainState

SHADOWED = (
    "expected the weights of the package, but the current folder contains something of that name; rename it, or call "
    "the command from another folder"
)
EXPECTED = "expected pretrained, the --out of 'jaxcrnn train', or that of 'jaxcrnn export --format safetensors'"


def place_of(name: str | Path) -> str:
    """Return what a fine-tuned run records of its origin: an absolute path, or ``pretrained``.

    The weights of the package are recorded by name, because another installation has them elsewhere.
    """
    folder = located(name).resolve()
    return PRETRAINED if folder == PACKAGE.resolve() else str(folder)


@dataclass(frozen=True)
class ExportedRun(Run):
    """An exported recogniser in place of a run: it has no checkpoints, no facts and no data sets.

    Attributes:
      variables: ``{"params": ..., "batch_stats": ...}``.
      place: as `place_of`.
    """

    variables: dict[str, Any] = field(default_factory=dict)
    place: str = ""

    def facts(self) -> dict[str, Any]:
        """Return no facts: an export does not record its training."""
        return {}

    def state(self, which: str = "best") -> tuple[TrainState, int]:
        """Return the weights as a state without optimizer and centers, and step 0.

        Raises:
          UserError: a checkpoint other than ``"best"``, the default, was asked for.
        """
        if which != "best":
            raise UserError(f"{self.folder}: an exported model has no checkpoints; drop --checkpoint {which}")
        return TrainState(jnp.int32(0), self.variables["params"], self.variables["batch_stats"], (), None), 0

    def described(self, step: int) -> str:
        """Return the name alone, because there are no steps."""
        return str(self.folder)


def open_trained(name: str | Path, trust: extensions.Trust = False) -> Run:
    """Open a trained recogniser.

    Args:
      name: run folder, folder written by ``jaxcrnn export --format safetensors``, or ``pretrained`` for the weights of
        the package, unless the current folder contains something of that name.
      trust: import paths of the loss of a run that may be imported (`jaxcrnn.runs.folder.open_run`).

    Returns:
      The run; an `ExportedRun` has configuration, charset and weights, but neither data sets nor checkpoints.

    Raises:
      UserError: the folder is neither, is corrupted, or was made for another charset, or its code is not trusted.
    """
    opened = open_untrusted(name)
    return opened if isinstance(opened, ExportedRun) else trusted(opened, trust)


def open_untrusted(name: str | Path) -> Run:
    """Open a trained recogniser for its weights, without importing code of its loss; otherwise as `open_trained`."""
    folder = located(name)
    if not is_exported(name):
        return open_weights(folder, SHADOWED if str(name) == PRETRAINED else EXPECTED)
    exported, place = open_exported(folder), place_of(name)
    shown = Path(PRETRAINED) if place == PRETRAINED else Path(name)  # not the path in this installation
    return ExportedRun(shown, config_of(exported), exported.charset, None, exported.variables, place)


def open_origin(place: str) -> Run | None:
    """Open what a run was fine-tuned from, or return None if it no longer exists.

    Args:
      place: entry ``init_from`` of ``run.json``, written by `jaxcrnn.runs.start.first_state`.
    """
    folder = PACKAGE if place == PRETRAINED else Path(place)
    return open_untrusted(folder) if folder.is_dir() else None


def config_of(exported: Exported) -> Config:
    """Return the configuration that fine-tuning an exported recogniser starts from: its model and how it reads images.

    Everything else has its default.
    """
    names = {field.name for field in fields(DataConfig)}
    limits = {f.name: getattr(exported.limits, f.name) for f in fields(exported.limits) if f.name in names}
    data = DataConfig(**limits, blank=exported.charset.blank_place)
    return Config(model=exported.model, imported=exported.model.imported, data=data)
