"""Run folders: config, charset, versions, checkpoints and metrics in one self-contained folder."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import yaml

import jaxcrnn
from jaxcrnn import optim
from jaxcrnn._files import printable, written_whole
from jaxcrnn._text import read_text
from jaxcrnn.charset import Charset, difference
from jaxcrnn.errors import UserError
from jaxcrnn.model import ModelConfig
from jaxcrnn.nn.imported import Imported
from jaxcrnn.nn.layers import rows
from jaxcrnn.objective import Flow
from jaxcrnn.runs import changes, extensions
from jaxcrnn.runs.checkpoint import Checkpoints, written
from jaxcrnn.runs.compile import for_reading
from jaxcrnn.runs.config import Config, build, load, to_yaml, without_removed
from jaxcrnn.runs.finer_lines import is_finer
from jaxcrnn.runs.seal import Damaged
from jaxcrnn.train import TrainConfig, state_shapes
from jaxcrnn.types import TrainState

# Fields of the model that the shapes of the weights depend on; those of ``imported`` are checked in addition.
_SHAPE = ("backbone", "hidden", "standardize", "recurrent", "height")
CONFIG, CHARSET, FACTS, CHECKPOINTS = "config.yaml", "charset.txt", "run.json", "checkpoints"
_USED = "config"  # key of ``run.json``: the configuration of the last training
# Keys that determine the sample order: after a change during an epoch, its lines may be repeated or skipped.
_ORDER = (
    "data.train",
    "data.more",
    "data.weights",
    "data.batch_size",
    "data.buckets",
    "data.max_width",
    "data.stretch",
    "data.vertical",
    "data.trim",
    "text.share",
    "run.seed",
)
EXPECTED = "expected the --out of 'jaxcrnn train'"
CENTERS = "centers.safetensors"  # default output of 'centers estimate'


@dataclass(frozen=True)
class Run:
    """An opened run folder.

    Attributes:
      folder: path of the folder.
      config: configuration of the run.
      charset: charset of the run.
      flow: functions that the loss names by import paths, or None.
    """

    folder: Path
    config: Config
    charset: Charset
    flow: Flow | None = None

    def facts(self) -> dict[str, Any]:
        """Read ``run.json``: versions, devices, audit counts."""
        return json.loads(read_text(self.folder / FACTS))

    @property
    def place(self) -> str:
        """Where the weights are, as recorded by runs that are fine-tuned from them."""
        return str(self.folder.resolve())

    def described(self, step: int) -> str:
        """Name the run and the step of its checkpoint."""
        return f"{self.folder}, checkpoint of step {step}"

    @property
    def train_config(self) -> TrainConfig:
        """Configuration of a train step of this run."""
        return self.config.for_charset(self.charset, self.flow)

    @property
    def reader_config(self) -> TrainConfig:
        """Configuration for inference on this machine (`jaxcrnn.runs.compile.for_reading`)."""
        return for_reading(self.train_config)

    def state(self, which: str = "best") -> tuple[TrainState, int]:
        """Load a saved state, and return it with its step.

        Args:
          which: ``"best"`` (by validation accuracy; the newest if there was no validation), ``"latest"`` or a step.

        Raises:
          UserError: no such checkpoint.
        """
        with Checkpoints(self.folder / CHECKPOINTS, read_only=True) as checkpoints:
            steps = checkpoints.steps
            if not steps:
                raise UserError(f"{self.folder / CHECKPOINTS}: no checkpoints; has the run been trained?")
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
                print(f"warning: {error}; falling back to the newest intact checkpoint", file=sys.stderr)
            state, _, step = checkpoints.restore_newest(shapes, warn=lambda text: print(text, file=sys.stderr))
            return state, step


def create(folder: Path, config: Config, charset: Charset, facts: dict[str, Any]) -> Run:
    """Create a run folder.

    Import paths of the loss are imported, because the configuration is the caller's own.

    Raises:
      UserError: the folder is not empty or cannot be written, or an import path cannot be resolved.
    """
    flow = extensions.resolve(config.loss)
    _check_name(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        if (folder / CONFIG).exists():
            raise UserError(f"{folder}: already contains a run; use --resume to continue it, or choose a new folder")
        raise UserError(f"{folder}: is not empty; expected a new folder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Renamed when complete, so that a process killed here leaves no partial run folder.
        made = folder.with_name(f".{folder.name}-{os.getpid()}")
        made.mkdir()
        (made / CONFIG).write_text(to_yaml(config), encoding="utf-8")
        charset.save(made / CHARSET)
        packages = ("jax", "flax", "optax", "orbax-checkpoint", "numpy", "pillow")
        basics = {
            "jaxcrnn": jaxcrnn.__version__,
            "python": platform.python_version(),
            "packages": {name: version(name) for name in packages},
            "devices": [d.device_kind for d in jax.devices()],
            "charset_hash": charset.hash,
            "characters": "".join(charset.characters),
            _USED: yaml.safe_load(to_yaml(config)),
        }
        _write_facts(made / FACTS, basics | facts)
        made.rename(folder)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror or error}; expected a writable folder") from None
    return Run(folder, config, charset, flow)


def _check_name(folder: Path) -> None:
    """Check that a path can be passed to the library of the checkpoints.

    Raises:
      UserError: it is not UTF-8.
    """
    try:
        os.path.abspath(folder).encode()
    except UnicodeEncodeError:
        raise UserError(
            f"{printable(os.path.abspath(folder))}: the path is not UTF-8, as checkpoints require; expected a run "
            "folder with another name"
        ) from None


def _write_facts(path: Path, facts: dict[str, Any]) -> None:
    """Write ``run.json``; bytes of file names that are not UTF-8 become JSON escapes."""
    text = json.dumps(facts, indent=2, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


def open_run(folder: Path, trust: extensions.Trust = False) -> Run:
    """Open a run folder.

    Args:
      folder: path of the run folder.
      trust: import paths of the loss that may be imported: True for all, a collection of paths, or a mapping from
        paths to replacement objects (`jaxcrnn.runs.extensions`).

    Raises:
      UserError: not a run folder, its charset was edited after training, or its loss names untrusted code.
    """
    return trusted(open_weights(folder), trust)


def trusted(run: Run, trust: extensions.Trust) -> Run:
    """Return a run with the functions that its loss names; see `open_run`."""
    return dataclasses.replace(run, flow=extensions.resolve(run.config.loss, trust, str(run.folder / CONFIG)))


def open_weights(folder: Path, expected: str = EXPECTED) -> Run:
    """Open a run folder for its weights, charset and configuration, without importing code of its loss.

    Args:
      folder: path of the run folder.
      expected: what was expected, for the error if it is not a run folder.

    Raises:
      UserError: not a run folder, or its charset was edited after training.
    """
    for name in (CONFIG, CHARSET, FACTS):
        if not (folder / name).is_file():
            raise UserError(f"{folder}: {_not_a_run(folder, name, expected)}")
    _check_name(folder)
    config = load(folder / CONFIG)
    charset = Charset.from_file(folder / CHARSET, config.data.blank)
    try:
        facts = json.loads(read_text(folder / FACTS))
        trained = facts["charset_hash"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder / FACTS}: corrupted ({type(error).__name__}); expected JSON with charset_hash"
        ) from None
    if charset.hash != trained:
        raise UserError(
            f"{folder / CHARSET}: does not match the charset of the training: {_other_charset(charset, facts)}"
        )
    return Run(folder, config, charset)


def _not_a_run(folder: Path, missing: str, expected: str) -> str:
    """Describe a path that is not a run folder, and what was expected."""
    if folder.is_file():
        return (
            f"is a file, not a run folder; {expected} (import a checkpoint of another program first: jaxcrnn convert "
            f"{folder} --charset FILE --out FOLDER)"
        )
    if not folder.is_dir():
        return f"not a run folder, there is no such folder; {expected}"
    if inside := next((one for one in list(folder.parents)[:2] if (one / FACTS).is_file()), None):
        return f"is inside the run folder {inside}; {expected}, with --checkpoint for a step"
    if (folder / "config.json").is_file():
        return f"not a run folder, {missing} is missing; it looks like an exported model; {expected}"
    runs = sorted(one.name for one in folder.iterdir() if (one / FACTS).is_file())
    shown = f"; it contains the runs {', '.join(runs[:5])}" if runs else ""
    return f"not a run folder, {missing} is missing{shown}; {expected}"


def _other_charset(charset: Charset, facts: dict[str, Any]) -> str:
    """Describe how a charset differs from the one recorded in ``run.json``."""
    with suppress(UserError, KeyError, TypeError):
        for blank in (charset.blank_place, *({"first", "last"} - {charset.blank_place})):
            trained = Charset(facts["characters"], blank)
            if trained.hash == facts["charset_hash"]:
                return difference(charset, trained)
    return f"{len(charset)} characters with hash {charset.hash} instead of {facts['charset_hash']}"


def say_changes(run: Run, sets: Sequence[str] = ()) -> tuple[Run, list[str]]:
    """Describe the changes of a run's configuration since its last training, one line for each key.

    Edits of the file are known only for versions that recorded the configuration.

    Args:
      run: run to resume.
      sets: ``section.key=value`` changes to make now.

    Returns:
      The run with the changes of ``sets``, and the lines.

    Raises:
      UserError: the checkpoint is incompatible with a change; the message names every key that may be the reason.
    """
    recorded = run.facts().get(_USED)
    trained = run.config
    if isinstance(recorded, dict):
        trained = build([(without_removed(recorded), str(run.folder / FACTS))])
    run = dataclasses.replace(run, config=load(None, sets, run.config))
    changed = changes.between(trained, run.config)
    if not changed:
        return run, []
    file, template = run.folder / CONFIG, "{key} is {now}, was {before}"
    if wrong := changes.unfit(trained, run.config, run.charset, str(file)):
        shown = "; ".join(change.shown(template) for change in wrong)
        raise UserError(
            f"{file}: the checkpoint is incompatible with the edited config: {shown}; revert the change or "
            "start a new run with --init-from"
        )
    now = [change.partition("=")[0] for change in sets]
    lines = [f"{'--set' if c.key in now else f'{file} was edited'}: {c.shown(template)}" for c in changed]
    if any(change.key.split(".")[0] == "optim" for change in changed):
        lines += _schedule_line(run, trained)
    if any(change.key in _ORDER for change in changed):
        lines.append(
            f"{file}: this changes the sample order; some lines may be repeated or skipped in the current epoch"
        )
    return run, lines


def _schedule_line(run: Run, trained: Config) -> Iterator[str]:
    """Describe how the learning rate changes where the run is resumed."""
    step = max(written(run.folder / CHECKPOINTS), default=0)
    before, now = (float(optim.schedule(config.optim)(step)) for config in (trained, run.config))
    steps = run.config.optim.steps
    if before != now and step < steps:
        end = float(optim.schedule(run.config.optim)(steps))
        yield f"learning rate at step {step}: {now:.3g}, was {before:.3g}; it ends at {end:.3g} in step {steps}"


def same_config(run: Run, config: Config) -> None:
    """Check that an existing run has the requested configuration.

    Raises:
      UserError: the configurations differ (naming the keys); keys of ``mesh`` may differ.
    """
    if changed := changes.between(run.config.portable, config.portable):
        shown = "; ".join(change.shown("{key} is {before} there, {now} here") for change in changed)
        raise UserError(
            f"{run.folder / CONFIG}: differs from the requested configuration: {shown}; use the same "
            f"values, or change the run with --resume {run.folder} --set KEY=VALUE"
        )


def used(run: Run) -> None:
    """Record the configuration as that of the last training, and write it to ``config.yaml`` if it changed.

    Raises:
      UserError: a file cannot be written.
    """
    if load(run.folder / CONFIG) != run.config:
        with written_whole(run.folder / CONFIG) as part:
            part.write_text(to_yaml(run.config), encoding="utf-8")
    file = run.folder / FACTS
    facts = run.facts() | {_USED: yaml.safe_load(to_yaml(run.config))}
    with written_whole(file) as part:
        _write_facts(part, facts)


def same_charset(run: Run, charset: Charset, source: str, hint: str = "") -> None:
    """Check that a charset is the run's.

    Args:
      run: run with the expected charset.
      charset: charset to check.
      source: file of ``charset``.
      hint: end of the error.

    Raises:
      UserError: it is not (naming the characters that differ).
    """
    if charset.hash == run.charset.hash:
        return
    raise UserError(
        f"{source}: does not match the charset of {run.folder} ({len(run.charset)} characters): "
        f"{difference(charset, run.charset)}{hint}"
    )


def same_model(run: Run, model: ModelConfig) -> None:
    """Check that a model can load a run's weights.

    Its height may differ if its frames have as many features, or if it is the run's model for lines of twice the
    height (`jaxcrnn.runs.finer_lines`).

    Raises:
      UserError: it cannot (naming the keys that differ).
    """
    ours = run.train_config.model
    shape = [name for name in _SHAPE if not (name in ("backbone", "height") and is_finer(model, ours))]
    pairs = [(f"model.{name}", getattr(model, name), getattr(ours, name)) for name in shape]
    names = [field.name for field in fields(Imported)]
    pairs += [(f"imported.{name}", getattr(model.imported, name), getattr(ours.imported, name)) for name in names]
    different = {key: f"{key} is {theirs!r} instead of {mine!r}" for key, theirs, mine in pairs if theirs != mine}
    if different.keys() <= {"model.height", "imported.rows"}:
        if _rows(model) == _rows(ours):
            return
        if _rows(ours) == 1 and "model.height" in different:
            different["model.height"] += (
                " (to fine-tune at another height, add imported.rows=mean, or at 64 model.backbone=vgg-fine)"
            )
    if different:
        found = ", ".join(different.values())
        raise UserError(f"{run.folder}: weights are incompatible with this configuration: {found}")


def _rows(model: ModelConfig) -> int:
    """Return how many rows of the backbone's output are concatenated in a frame."""
    return rows(model.backbone, model.height) if model.imported.rows == "flat" else 1
