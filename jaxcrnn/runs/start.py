"""Starting, fine-tuning and resuming runs."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxcrnn import _console
from jaxcrnn import centers as center_rules
from jaxcrnn.charset import Charset
from jaxcrnn.data.audit import Corpus
from jaxcrnn.data.labels import Source
from jaxcrnn.errors import UserError
from jaxcrnn.model import CRNN, ModelConfig
from jaxcrnn.objective import CHOICES
from jaxcrnn.parallel.mesh import make_mesh, my_rows
from jaxcrnn.render.streams import Stream
from jaxcrnn.runs import center_files, charset_transfer, datasets, extensions, processes
from jaxcrnn.runs import config as configs
from jaxcrnn.runs.checkpoint import written
from jaxcrnn.runs.finer_lines import enlarged, is_finer
from jaxcrnn.runs.folder import (
    CHECKPOINTS,
    Run,
    create,
    open_run,
    same_charset,
    same_model,
    say_changes,
    used,
)
from jaxcrnn.runs.lock import lock
from jaxcrnn.runs.processes import agreed
from jaxcrnn.runs.trainer import fit
from jaxcrnn.runs.unused import removed_if_unused
from jaxcrnn.train import TrainConfig, eval_variables, flow_of, init_state
from jaxcrnn.types import CenterState, TrainState


def charset_of(origin: Run, config: configs.Config) -> Charset:
    """Return the charset of the run to fine-tune.

    Raises:
      UserError: ``config`` has another charset or another blank.
    """
    if config.data.blank != origin.config.data.blank:
        raise UserError(
            f"data.blank is {config.data.blank!r}, but {origin.folder} was trained with data.blank="
            f"{origin.config.data.blank}"
        )
    # The run's original charset file may no longer exist; the run folder has a copy.
    if config.data.charset and config.data.charset != origin.config.data.charset:
        other = Charset.from_file(config.data.charset, config.data.blank)
        same_charset(origin, other, config.data.charset, "; to switch to this charset, use --grow")
    return origin.charset


def first_state(
    config: configs.Config,
    charset: Charset,
    origin: Run | None = None,
    *,
    checkpoint: str | None = None,
    grow: bool = False,
    centers: str | None = None,
) -> tuple[TrainState | None, dict[str, Any]]:
    """Build the initial state (None if training creates it from the seed) and the facts about its origin.

    Args:
      config: configuration of the new run.
      charset: charset of the new run.
      origin: run, or exported recogniser, to load the weights from.
      checkpoint: checkpoint of ``origin``; ``"best"`` by default.
      grow: whether ``charset`` may differ from that of ``origin``.
      centers: file of centers; None or a name of `jaxcrnn.objective.CHOICES` lets ``config.loss`` initialize them.

    Raises:
      UserError: a file cannot be read, or the weights or centers are incompatible with the configuration.
    """
    train_config, variables = config.for_charset(charset, extensions.resolve(config.loss)), None
    extensions.try_out(train_config)
    facts: dict[str, Any] = {"loss": config.loss.parts._asdict()}
    if origin:
        before, step = origin.state(checkpoint or "best")
        same_model(origin, train_config.model)
        facts["init_from"] = {"run": origin.place, "step": step}
        finer = is_finer(train_config.model, origin.train_config.model)
        if not (grow or finer) and (converted := origin.facts().get("converted")):
            facts["converted"] = converted  # the weights can still be exported to that layout
        print(f"initialized from {origin.described(step)}")
        if finer:
            larger = enlarged(eval_variables(before), origin.train_config.model, train_config.model)
            before = before._replace(params=larger["params"], opt_state=())
        variables = eval_variables(before)
    loaded = None
    if centers and centers not in CHOICES["start"]:
        path = Path(centers)
        loaded = center_files.load(path, charset, config.model.features, ", or one of zeros, normal, head")
        unseen = int((loaded.counts == 0).sum())
        facts["centers"] = {"file": str(path.resolve()), "classes_never_seen": unseen}
        print(f"loaded centers from {path}; {unseen} of {charset.num_classes} classes were never seen and start at 0")
    if not (origin or loaded):  # training creates the state itself, from the seed
        center_rules.check_start(flow_of(train_config).rule)
        return None, facts
    key = jax.random.key(config.run.seed)
    if origin and grow:
        return _grown(before, origin.charset, charset, train_config, key, loaded, facts), facts
    return init_state(train_config, key, variables=variables, centers=loaded), facts


@functools.partial(jax.jit, static_argnums=0)
def _new_head(config: ModelConfig, key: jax.Array) -> Any:
    """Return the head of a newly initialized model."""
    images = jnp.zeros((1, config.height, 32, 1), jnp.float32)
    return CRNN(config).init(key, images, jnp.full((1,), 32, jnp.int32))["params"]["head"]


def _grown(
    before: TrainState,
    old: Charset,
    new: Charset,
    config: TrainConfig,
    key: jax.Array,
    centers: CenterState | None,
    facts: dict[str, Any],
) -> TrainState:
    """Transfer a trained state to another charset; ``centers``, if any, replace those of the run."""
    kept = [c for c in new.characters if c in old]
    if not kept:
        raise UserError("--grow: the new charset shares no character with the run's; expected some in common")
    own = before if centers is None else before._replace(centers=None)
    if own.centers is not None and center_rules.is_estimated(flow_of(config).rule):
        # New characters have no estimate; their centers start at 0, like those of classes never seen.
        centers = center_rules.zeros(config.model.num_classes, config.model.features)
    # Only the head of a new model is needed; initializing all of it takes XLA ten seconds to compile.
    variables = eval_variables(before)
    variables["params"] = variables["params"] | {"head": _new_head(config.model, key)}
    state, moved = charset_transfer.started(
        own, init_state(config, key, variables=variables, centers=centers), old, new
    )
    facts["grown"] = {"kept": len(kept), "new": len(new) - len(kept), "gone": len(old) - len(kept), "moved": moved}
    print(
        f"charset: {len(kept)} characters kept, {len(new) - len(kept)} added, {len(old) - len(kept)} removed; "
        f"transferred {', '.join(['weights', *moved])}"
    )
    return state


def begin(
    config: configs.Config,
    charset: Charset,
    source: Source | None,
    validation: Source | None,
    out: Path,
    facts: dict[str, Any],
    first: TrainState | None = None,
    *,
    skip_bad: bool = False,
) -> bool:
    """Create a run folder and train.

    Args:
      config: configuration of the run.
      charset: charset of the run.
      source: lines to train on, or None if all are rendered.
      validation: lines to validate on, or None.
      out: folder to create.
      facts: entries of ``run.json``; those about the data are added.
      first: initial state; created from the seed by default.
      skip_bad: skip rows with faults instead of stopping.

    Returns:
      Whether the run finished; a signal may have stopped it.

    Raises:
      UserError: the data have faults, the folder cannot be created, or training fails.
      OutOfMemory: memory ran out; the folder is removed unless it has a checkpoint to resume from.
    """
    facts["skip_bad"] = skip_bad
    grow = "; to add characters to the charset of the run, use --grow" if "init_from" in facts else ""
    corpora = datasets.audited(config, charset, source, validation, skip_bad, "" if "grown" in facts else grow)
    # Before the folder is created, so that an error leaves nothing behind.
    mesh, batches = _batches(config, charset, corpora[0])
    facts["data"] = datasets.facts(corpora)
    with removed_if_unused(out):
        run = processes.first_makes(
            lambda: create(out, config, charset, facts), lambda: open_run(out, set(extensions.paths(config.loss)))
        )
        return _go(run, mesh, batches, *corpora, first)


def resume(
    run: Run,
    *,
    sets: Sequence[str] = (),
    overrides: Sequence[str] = (),
    charset_file: str | None = None,
    skip_bad: bool = False,
) -> bool:
    """Resume a run where it stopped.

    Args:
      run: run to resume.
      sets: ``key=value`` changes of its configuration, which are saved with the run.
      overrides: ``key=value`` changes for this time only; keys of ``mesh``.
      charset_file: charset file that must match the charset of the run.
      skip_bad: skip rows with faults instead of stopping; always so if the run was started that way.

    Returns:
      Whether the run finished.

    Raises:
      UserError: the checkpoints are missing, the data changed, or a change is incompatible with the checkpoint.
    """
    if not agreed(len(written(run.folder / CHECKPOINTS))) and (initial := run.facts().get("init_from")):
        raise UserError(
            f"{run.folder}: initialized from {initial['run']} but has no checkpoint; restore the "
            "checkpoints, or remove the folder and start again"
        )
    saved, changes = say_changes(run, sets)
    newest = max(written(run.folder / CHECKPOINTS), default=0)
    if sets and agreed(newest) > saved.config.optim.steps:
        raise UserError(
            f"--set optim.steps={saved.config.optim.steps}: {run.folder} is already at step {newest}; expected "
            f"{newest} or more"
        )
    print("".join(f"{line}\n" for line in changes), end="")
    run = dataclasses.replace(saved, config=configs.load(None, overrides, saved.config))
    if charset_file:
        same_charset(run, Charset.from_file(charset_file, run.config.data.blank), charset_file)
    source = datasets.source(run.config)
    skip_bad = skip_bad or bool(run.facts().get("skip_bad"))
    corpora = datasets.audited(run.config, run.charset, source, datasets.validation(run.config), skip_bad)
    mesh, batches = _batches(run.config, run.charset, corpora[0])
    return _go(run, mesh, batches, *corpora, changed=saved if changes else None)


def _batches(config: configs.Config, charset: Charset, corpus: Corpus | None) -> tuple[Mesh, Stream]:
    """Create the mesh and the stream of batches (this process's rows of them)."""
    mesh = make_mesh(config.mesh)
    rows = my_rows(mesh, config.data.batch_size)
    return mesh, datasets.stream(config, charset, corpus, rows)


def _go(
    run: Run,
    mesh: Mesh,
    batches: Stream,
    corpus: Corpus | None,
    val: Corpus | None,
    first: TrainState | None = None,
    changed: Run | None = None,
) -> bool:
    """Train; ``changed`` is the run with the configuration to save, if it changed."""
    loop = run.config.run
    print(f"charset of {len(run.charset)} characters; buckets {', '.join(map(str, batches.buckets))} px", end="; ")
    print(f"{batches.steps_per_epoch} steps per epoch, {run.config.optim.steps} in total")
    if mesh.size > 1:
        print(
            f"{mesh.size} devices: batch sharded over {mesh.shape['data']}, classes over {mesh.shape['model']}; "
            f"{jax.process_count()} processes"
        )
    with _alone(run.folder), _console.make() as shown, _tracker(run.folder) as track:
        if changed and jax.process_index() == 0:
            used(changed)
        done = fit(
            run.train_config,
            loop,
            run.charset,
            batches,
            val,
            run.folder,
            shown,
            track,
            first,
            mesh,
            run.config.mesh.fsdp,
        )
    totals = done.totals
    if done.step > run.config.optim.steps:
        print(f"{run.folder} is at step {done.step}, past optim.steps={run.config.optim.steps}; nothing to do")
        return True
    print(
        f"{'stopped' if done.stopped else 'finished'} at step {done.step}; {totals.samples} samples seen, "
        f"{totals.infeasible_samples} infeasible, {totals.skipped_steps} steps skipped, "
        f"{corpus.left_out if corpus is not None else 0} lines skipped, {done.programs} step programs compiled"
    )
    if totals.worker_restarts:
        print(f"worker processes restarted {totals.worker_restarts} times")
    if done.stopped:
        trust = " --trust-code" if run.config.loss.import_paths else ""
        print(f"resume with: jaxcrnn train --resume {run.folder}{trust}")
    else:
        print(f"run saved to {run.folder}")
    return not done.stopped


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    handle = processes.first_makes(lambda: lock(folder), lambda: -1)
    try:
        yield
    finally:
        if handle >= 0:
            os.close(handle)


class _tracker:
    """Write TensorBoard files next to ``metrics.jsonl`` if tensorboardX is installed."""

    def __init__(self, folder: Path) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            self.writer: Any = None
        else:
            self.writer = SummaryWriter(str(folder / "tensorboard"))

    def __enter__(self) -> Callable[[dict[str, Any]], None]:
        return self.add

    def add(self, row: dict[str, Any]) -> None:
        if self.writer:
            for name, value in row.items():
                if name != "step" and isinstance(value, int | float):
                    self.writer.add_scalar(name, value, row["step"])

    def __exit__(self, *_: object) -> None:
        if self.writer:
            self.writer.close()
