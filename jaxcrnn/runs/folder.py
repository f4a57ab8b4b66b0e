"""A run is a folder: config, charset, code version, checkpoints, metrics. Nothing else is needed to use it."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import yaml

import jaxcrnn
from jaxcrnn._files import written_whole
from jaxcrnn.charset import Charset, difference, read_text
from jaxcrnn.errors import UserError
from jaxcrnn.model import ModelConfig
from jaxcrnn.runs.checkpoint import Checkpoints, Damaged
from jaxcrnn.runs.config import Config, build, load, to_yaml, without_removed
from jaxcrnn.train import TrainConfig, state_shapes
from jaxcrnn.types import TrainState

# What the weights were made for.
_SHAPE = ("backbone", "hidden", "standardize", "recurrent", "two_biases", "channels", "rows", "height", "colors",
          "black", "white")  # fmt: skip
CONFIG, CHARSET, FACTS, CHECKPOINTS = "config.yaml", "charset.txt", "run.json", "checkpoints"
_USED = "config"  # of the facts: the configuration that training last went on with
# What decides which lines a step sees: changed under way, no line is promised to be seen once an epoch.
_ORDER = ("data.train", "data.more", "data.weights", "data.batch_size", "data.buckets",
          "data.repeat_rare", "data.max_width", "data.stretch", "text.share", "run.seed")  # fmt: skip
CENTERS = "centers.safetensors"  # where 'centers estimate' puts them


@dataclass(frozen=True)
class Run:
    """An opened run folder."""

    folder: Path
    config: Config
    charset: Charset

    def facts(self) -> dict[str, Any]:
        """What ``run.json`` holds: versions, devices, counts of the audit."""
        return json.loads(read_text(self.folder / FACTS))

    @property
    def train_config(self) -> TrainConfig:
        """What a step of this run computes."""
        return self.config.for_charset(self.charset)

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

    Raises:
      UserError: the folder holds something already, or cannot be written.
    """
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
    return Run(folder, config, charset)


def open_run(folder: Path) -> Run:
    """Opens a run folder.

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
    """What was changed in a run's configuration since it was last trained, a line for each key; all of it can be used.

    Where the devices are (``mesh``) is not compared: that may change with every resume. A run that was made before its
    facts knew the configuration has no changes.

    Raises:
      UserError: a change that the saved state does not fit, naming every key that may be why.
    """
    before = run.facts().get(_USED)
    if not isinstance(before, dict):
        return []
    changes = _differences(without_removed(before, defaults_only=True), run.config)
    said = [f"{key} is {json.dumps(new)}, was {json.dumps(old)}" for key, (old, new) in changes.items()]
    if not said:
        return []
    trained = build([(without_removed(before, defaults_only=False), str(run.folder / FACTS))])
    here = str(run.folder / CONFIG)
    if not _same_state(trained, run.config, run.charset):
        wrong = [one for key, one in zip(changes, said, strict=True) if _alone_unfit(run, trained, key)] or said
        raise UserError(f"{here}: the saved state does not fit what was changed: {'; '.join(wrong)}; expected as it "
                        "was, or a new run (--init-from)")  # fmt: skip
    lines = [f"{here} was changed: {each}" for each in said]
    if any(key in _ORDER for key in changes):
        lines.append(f"{here}: the order of the lines changes with that; some may be seen twice or not in this epoch")
    return lines


def _alone_unfit(run: Run, trained: Config, key: str) -> bool:
    """Whether one key, as it is now, would do with all others as they were."""
    section, name = key.split(".")
    value = yaml.safe_load(to_yaml(run.config))[section].get(name)
    try:
        alone = build([({section: {name: value}}, str(run.folder / CONFIG))], base=trained)
        return not _same_state(trained, alone, run.charset)
    except UserError:  # only together with another
        return True


def _differences(before: dict[str, Any], config: Config) -> dict[str, tuple[Any, Any]]:
    """The keys that differ, but for those of the mesh: what they were, what they are."""
    now = yaml.safe_load(to_yaml(config))
    return {
        f"{section}.{key}": (before.get(section, {}).get(key), now.get(section, {}).get(key))
        for section in sorted({*before, *now} - {"mesh"})
        for key in sorted({*before.get(section, {}), *now.get(section, {})})
        if before.get(section, {}).get(key) != now.get(section, {}).get(key)
    }


def same_config(run: Run, config: Config) -> None:
    """Stops when a run that is there is not the one that was asked for.

    Raises:
      UserError: naming the keys that differ; those of ``mesh`` may.
    """
    different = _differences(yaml.safe_load(to_yaml(run.config)), config)
    if different:
        said = "; ".join(f"{key} is {json.dumps(old)} there, {json.dumps(new)} here"
                         for key, (old, new) in different.items())  # fmt: skip
        raise UserError(f"{run.folder / CONFIG}: another configuration than the one asked for: {said}; expected the "
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


def _same_state(one: Config, two: Config, charset: Charset) -> bool:
    shapes = (state_shapes(config.for_charset(charset)) for config in (one, two))
    first, second = ([(path, a.shape, a.dtype) for path, a in jax.tree_util.tree_leaves_with_path(s)] for s in shapes)
    return first == second


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
    different = [
        f"model.{name} is {getattr(model, name)!r} instead of {getattr(ours, name)!r}"
        for name in _SHAPE
        if getattr(model, name) != getattr(ours, name)
    ]
    if different:
        raise UserError(f"{run.folder}: its weights do not fit this configuration: {', '.join(different)}")
