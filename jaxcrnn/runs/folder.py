"""A run is a folder: config, charset, code version, checkpoints, metrics. Nothing else is needed to use it."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import yaml

import jaxcrnn
from jaxcrnn._files import written_whole
from jaxcrnn._text import read_text
from jaxcrnn.charset import Charset, difference
from jaxcrnn.errors import UserError
from jaxcrnn.model import ModelConfig
from jaxcrnn.nn.imported import Imported
from jaxcrnn.objective import Flow
from jaxcrnn.runs import changes, extensions
from jaxcrnn.runs.checkpoint import Checkpoints
from jaxcrnn.runs.compile import for_reading
from jaxcrnn.runs.config import Config, build, load, to_yaml, without_removed
from jaxcrnn.runs.seal import Damaged
from jaxcrnn.train import TrainConfig, state_shapes
from jaxcrnn.types import TrainState

# What the weights were made for: fields of the model, and of what it has of other programs.
_SHAPE = ("backbone", "hidden", "standardize", "recurrent", "height")
CONFIG, CHARSET, FACTS, CHECKPOINTS = "config.yaml", "charset.txt", "run.json", "checkpoints"
_USED = "config"  # of the facts: the configuration that training last went on with
# What decides which lines a step sees: changed under way, no line is promised to be seen once an epoch.
_ORDER = ("data.train", "data.more", "data.weights", "data.batch_size", "data.buckets",
          "data.max_width", "data.stretch", "text.share", "run.seed")  # fmt: skip
CENTERS = "centers.safetensors"  # where 'centers estimate' puts them


@dataclass(frozen=True)
class Run:
    """An opened run folder.

    Attributes:
      folder: where it is.
      config: its configuration.
      charset: its characters.
      flow: the functions that its loss names by import paths, None where it names none.
    """

    folder: Path
    config: Config
    charset: Charset
    flow: Flow | None = None

    def facts(self) -> dict[str, Any]:
        """What ``run.json`` holds: versions, devices, counts of the audit."""
        return json.loads(read_text(self.folder / FACTS))

    @property
    def train_config(self) -> TrainConfig:
        """What a step of this run computes."""
        return self.config.for_charset(self.charset, self.flow)

    @property
    def reader_config(self) -> TrainConfig:
        """The same as this machine reads lines with (`jaxcrnn.runs.compile.for_reading`)."""
        return for_reading(self.train_config)

    def state(self, which: str = "best") -> tuple[TrainState, int]:
        """A saved state and its step.

        Args:
          which: ``"best"`` (by validation accuracy; the newest where there was no validation), ``"latest"`` or a step.

        Raises:
          UserError: no such checkpoint.
        """
        with Checkpoints(self.folder / CHECKPOINTS, read_only=True) as checkpoints:
            steps = checkpoints.steps
            if not steps:
                raise UserError(f"{self.folder / CHECKPOINTS}: no checkpoint in it; has the run been trained?")
            shapes = state_shapes(self.train_config)
            if which.isdigit():
                return checkpoints.restore(int(which), shapes)[0], int(which)
            if which not in ("best", "latest"):
                raise UserError(f"checkpoint {which!r}: expected best, latest or one of the steps {steps}")
            try:
                if which == "best" and (best := checkpoints.best()) is not None:
                    return checkpoints.restore(best, shapes)[0], best
            except Damaged as error:
                if len(steps) == 1:
                    raise
                print(f"warning: {error}; going on with the newest that is whole", file=sys.stderr)
            state, _, step = checkpoints.restore_newest(shapes, warn=lambda text: print(text, file=sys.stderr))
            return state, step


def create(folder: Path, config: Config, charset: Charset, facts: dict[str, Any]) -> Run:
    """Makes a run folder.

    What the loss names by import paths is imported: the configuration is the caller's own.

    Raises:
      UserError: the folder holds something already, or cannot be written, or an import path leads nowhere.
    """
    flow = extensions.resolve(config.loss)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        what = "already holds a run; --resume goes on with it" if (folder / CONFIG).exists() else "is not empty"
        raise UserError(f"{folder}: {what}; expected a new folder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Under its own name when it is whole: a run that is killed here leaves no half of a folder in the way.
        made = folder.with_name(f".{folder.name}-{os.getpid()}")
        made.mkdir()
        (made / CONFIG).write_text(to_yaml(config), encoding="utf-8")
        charset.save(made / CHARSET)
        packages = ("jax", "flax", "optax", "orbax-checkpoint", "numpy", "pillow")
        known = {
            "jaxcrnn": jaxcrnn.__version__,
            "python": platform.python_version(),
            "packages": {name: version(name) for name in packages},
            "devices": [d.device_kind for d in jax.devices()],
            "charset_hash": charset.hash,
            "characters": "".join(charset.characters),
            _USED: yaml.safe_load(to_yaml(config)),
        }
        (made / FACTS).write_text(json.dumps(known | facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        made.rename(folder)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror or error}; expected a folder that can be written") from None
    return Run(folder, config, charset, flow)


def open_run(folder: Path, trust: extensions.Trust = False) -> Run:
    """Opens a run folder.

    Args:
      folder: of the run.
      trust: which import paths of its loss may be imported: True for all, some paths, or a mapping from paths to the
        objects that stand for them (`jaxcrnn.runs.extensions`).

    Raises:
      UserError: it is no run folder, its charset is not the one it was trained with, or its loss names code that is
        not trusted.
    """
    return trusted(open_weights(folder), trust)


def trusted(run: Run, trust: extensions.Trust) -> Run:
    """A run with the functions that its loss names; see `open_run`."""
    return dataclasses.replace(run, flow=extensions.resolve(run.config.loss, trust, str(run.folder / CONFIG)))


def open_weights(folder: Path) -> Run:
    """Opens a run folder for its weights, charset and configuration: no code of its loss is imported.

    Raises:
      UserError: it is no run folder, or its charset is not the one it was trained with.
    """
    for name in (CONFIG, CHARSET, FACTS):
        if not (folder / name).is_file():
            raise UserError(f"{folder}: not a run folder, {name} is missing; expected what 'jaxcrnn train --out' made")
    config = load(folder / CONFIG)
    charset = Charset.from_file(folder / CHARSET, config.data.blank)
    try:
        facts = json.loads(read_text(folder / FACTS))
        expected = facts["charset_hash"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / FACTS}: not the facts of a run ({type(error).__name__})") from None
    if charset.hash != expected:
        raise UserError(
            f"{folder / CHARSET}: {_other_charset(charset, facts)}; the run was trained with another charset"
        )
    return Run(folder, config, charset)


def _other_charset(charset: Charset, facts: dict[str, Any]) -> str:
    """In what a charset differs from the one that the facts of a run know."""
    with suppress(UserError, KeyError, TypeError):
        for blank in (charset.blank_place, *({"first", "last"} - {charset.blank_place})):
            trained = Charset(facts["characters"], blank)
            if trained.hash == facts["charset_hash"]:
                return f"it {difference(charset, trained)}"
    return f"{len(charset)} characters with hash {charset.hash} instead of {facts['charset_hash']}"


def lock(folder: Path, patience: float = 5.0) -> int:
    """Keeps other processes from training in a folder until the descriptor is closed, or this process has ended.

    Args:
      folder: of the run.
      patience: seconds that another one is waited for: what a killed one has started may take a moment to end.

    Returns:
      A file descriptor, or -1 where there are no such locks.

    Raises:
      UserError: another process trains in it.
    """
    try:
        import fcntl
    except ImportError:
        return -1
    # On the folder itself, not with the package filelock: its lock file stays in the folder, and where the file system
    # has no locks it falls back to one that can outlive a killed process.
    handle = os.open(folder, os.O_RDONLY)
    until = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return handle
        except BlockingIOError:
            if time.monotonic() > until:
                os.close(handle)
                raise UserError(f"{folder}: another process is training in this folder; stop it, or wait until it ends"
                                ) from None  # fmt: skip
            time.sleep(0.2)
        except OSError:  # a file system without locks
            os.close(handle)
            return -1


def say_changes(run: Run) -> list[str]:
    """The changes of a run's configuration since its last training, as a line for each key; all of them can be used.

    A run made before its facts included the configuration has no changes.

    Raises:
      UserError: the saved state does not fit a change; the message names every key that may be the reason.
    """
    recorded = run.facts().get(_USED)
    if not isinstance(recorded, dict):
        return []
    trained = build([(without_removed(recorded), str(run.folder / FACTS))])
    changed = changes.between(trained, run.config)
    if not changed:
        return []
    file, template = run.folder / CONFIG, "{key} is {now}, was {before}"
    if wrong := changes.unfit(trained, run.config, run.charset, str(file)):
        shown = "; ".join(change.shown(template) for change in wrong)
        raise UserError(f"{file}: the saved state does not fit what was changed: {shown}; expected as it was, or a "
                        "new run (--init-from)")  # fmt: skip
    lines = [f"{file} was changed: {change.shown(template)}" for change in changed]
    if any(change.key in _ORDER for change in changed):
        lines.append(f"{file}: the order of the lines changes with that; some may be seen twice or not in this epoch")
    return lines


def same_config(run: Run, config: Config) -> None:
    """Check that an existing run has the configuration that was asked for.

    Raises:
      UserError: naming the keys that differ; those of ``mesh`` may.
    """
    if changed := changes.between(run.config.portable, config.portable):
        shown = "; ".join(change.shown("{key} is {before} there, {now} here") for change in changed)
        raise UserError(f"{run.folder / CONFIG}: another configuration than the one asked for: {shown}; expected the "
                        "same, or a change of that file, which a resume goes on with if it can")  # fmt: skip


def used(run: Run) -> None:
    """Notes that training goes on with this configuration.

    Raises:
      UserError: the facts cannot be written.
    """
    file = run.folder / FACTS
    facts = run.facts() | {_USED: yaml.safe_load(to_yaml(run.config))}
    with written_whole(file) as part:
        part.write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def same_charset(run: Run, charset: Charset, source: str) -> None:
    """Stops when a charset given for a run is not the run's.

    Raises:
      UserError: naming the characters that differ.
    """
    if charset.hash == run.charset.hash:
        return
    raise UserError(
        f"{source}: does not match the charset of {run.folder} ({len(run.charset)} characters): "
        f"it {difference(charset, run.charset)}"
    )


def same_model(run: Run, model: ModelConfig) -> None:
    """Stops when a model cannot take a run's weights.

    Raises:
      UserError: naming the keys that differ.
    """
    ours = run.train_config.model
    pairs = [(f"model.{name}", getattr(model, name), getattr(ours, name)) for name in _SHAPE]
    names = [field.name for field in fields(Imported)]
    pairs += [(f"imported.{name}", getattr(model.imported, name), getattr(ours.imported, name)) for name in names]
    different = [f"{key} is {theirs!r} instead of {mine!r}" for key, theirs, mine in pairs if theirs != mine]
    if different:
        raise UserError(f"{run.folder}: its weights do not fit this configuration: {', '.join(different)}")
