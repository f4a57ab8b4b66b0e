"""The command that trains."""

from __future__ import annotations

import dataclasses
import os
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from jaxcrnn import _console, centers
from jaxcrnn.charset import Charset
from jaxcrnn.data.audit import Corpus
from jaxcrnn.data.labels import Source
from jaxcrnn.errors import UserError
from jaxcrnn.objective import CHOICES, PRESETS, Flow, LossConfig
from jaxcrnn.parallel.mesh import make_mesh, my_rows
from jaxcrnn.render.streams import Stream
from jaxcrnn.runs import center_files, charset_transfer, datasets, extensions, processes
from jaxcrnn.runs import config as configs
from jaxcrnn.runs.checkpoint import agreed, written
from jaxcrnn.runs.folder import (
    CHECKPOINTS,
    CONFIG,
    Run,
    create,
    lock,
    open_run,
    open_weights,
    same_charset,
    same_config,
    same_model,
    say_changes,
    trusted,
    used,
)
from jaxcrnn.runs.trainer import fit
from jaxcrnn.train import TrainConfig, eval_variables, flow_of, init_state
from jaxcrnn.types import CenterState, TrainState

STOPPED = 75  # EX_TEMPFAIL of sysexits.h: try again


def train(args: Namespace) -> int:
    """``jaxcrnn train``."""
    processes.join(args)
    if args.auto_resume and (args.resume or not args.out):
        raise UserError("--auto-resume looks for the run in --out; give --out FOLDER, and no --resume")
    if args.resume:
        return _resume(args)
    # Asked of the first process alone: another one may see the folder later.
    begun = args.auto_resume and agreed((Path(args.out) / CONFIG).is_file())
    if begun and args.init_from and not Path(args.init_from).exists():
        run = _begun(args)
        print(f"{args.init_from} is gone; {args.out}, which began with it, goes on as it is configured")
        return _again(_go_on(run, args))
    origin = open_weights(Path(args.init_from)) if args.init_from else None
    config = _train_config(args, origin)
    if args.print_config:
        print(configs.to_yaml(config), end="")
        return 0
    flow = extensions.resolve(config.loss)
    if begun:
        run = _begun(args)
        same_config(run, config)
        print(f"{args.out} holds this run; going on with it")
        return _again(_go_on(run, args))
    if not config.data.train and config.text.share < 1:
        raise UserError("no training data; give --data FILE, a label file of path<TAB>text, or --set text.share=1 for "
                        "rendered lines alone")  # fmt: skip
    if args.data and config.text.share >= 1:
        raise UserError(f"--data {args.data[0]}: text.share=1 leaves nothing to read; expected a smaller text.share, "
                        "or no --data")  # fmt: skip
    if not args.out:
        raise UserError("no place for the run; give --out FOLDER")
    source = datasets.source(config)
    if args.grow and not origin:
        raise UserError("--grow takes what a run has learnt to another charset; give --init-from RUN")
    own = origin if not args.grow else None
    charset = _charset_of(own, config) if own else datasets.charset(config, source)
    first, facts = _first_state(config, flow, charset, origin, args)
    facts["skip_bad"] = args.skip_bad
    done = _train(config, charset, source, datasets.validation(config), Path(args.out), facts, first)
    return _again(done) if args.auto_resume else 0


def _begun(args: Namespace) -> Run:
    """The run in ``--out``, which must have begun as it was asked for."""
    run = open_run(Path(args.out), _trust(args))
    began = run.facts().get("init_from") or {"run": None, "step": None}
    asked = str(Path(args.init_from).resolve()) if args.init_from else None
    if began["run"] != asked:
        raise UserError(f"{args.out}: began with {began['run'] or 'fresh weights'}, and --init-from asks for "
                        f"{asked or 'none'}; expected the same, or another --out")  # fmt: skip
    if args.checkpoint and args.checkpoint.isdigit() and int(args.checkpoint) != began["step"]:
        raise UserError(f"{args.out}: began with step {began['step']} of {asked}, and --checkpoint asks for "
                        f"{args.checkpoint}; expected the same, or another --out")  # fmt: skip
    return run


def _trust(args: Namespace) -> extensions.Trust:
    """What a run may import: all with ``--trust-code``, else the paths that the options or their file give again."""
    return args.trust_code or extensions.named(args.set, configs.read_yaml(args.config) if args.config else None)


def _again(finished: bool) -> int:
    """Of a job that is started again until it has finished: the exit code says whether it has."""
    return 0 if finished else STOPPED


def _charset_of(origin: Run, config: configs.Config) -> Charset:
    """The charset of the run to go on from; another one that was asked for stops it."""
    if config.data.blank != origin.config.data.blank:
        raise UserError(f"data.blank is {config.data.blank!r}, and {origin.folder} was trained with the blank "
                        f"{origin.config.data.blank}")  # fmt: skip
    # The run's own file may be gone by now; what is in the run's folder is the charset.
    if config.data.charset and config.data.charset != origin.config.data.charset:
        same_charset(origin, Charset.from_file(config.data.charset, config.data.blank), config.data.charset)
    return origin.charset


def _train_config(args: Namespace, origin: Run | None) -> configs.Config:
    """The whole configuration: defaults or those of the run to go on from, the file, then the options."""
    data = args.data or [""]
    flags = {"train": data[0], "val": args.val, "charset": args.charset}
    if args.checkpoint and not origin:
        raise UserError("--checkpoint says which of the run of --init-from is meant; give --init-from RUN")
    sets = [f"loss.preset={args.preset}"] if args.preset else []
    start = args.centers if args.centers in CHOICES["start"] else "estimate"
    # A loss is chosen anew: parts of the earlier one would hide in the middle of another preset.
    base = dataclasses.replace(origin.config, loss=LossConfig()) if origin else None
    config = configs.load(args.config, [*sets, *args.set], base)
    if args.centers and config.loss.start not in (None, start):
        raise UserError(f"--centers {args.centers} and loss.start={config.loss.start} contradict each other; leave one")
    if args.centers and not config.loss.has_centers:
        raise UserError(f"--centers {args.centers}: the preset {config.loss.preset!r} keeps no centers; expected "
                        f"another --preset, one of {', '.join(list(PRESETS)[1:])}")  # fmt: skip
    given: dict[str, Any] = {name: value for name, value in flags.items() if value}
    given |= {"more": tuple(data[1:])} if args.data else {}
    loss = dataclasses.replace(config.loss, start=start) if args.centers else config.loss
    read = dataclasses.replace(config.data, **given).with_whole_paths()
    return dataclasses.replace(config, loss=loss, data=read, text=config.text.with_whole_paths())


def _first_state(
    config: configs.Config, flow: Flow | None, charset: Charset, origin: Run | None, args: Namespace
) -> tuple[TrainState | None, dict[str, Any]]:
    """The state before the first step, None for a fresh one, and where it comes from."""
    train_config, variables = config.for_charset(charset, flow), None
    facts: dict[str, Any] = {"loss": config.loss.parts._asdict()}
    if origin:
        before, step = origin.state(args.checkpoint or "best")
        same_model(origin, train_config.model)
        facts["init_from"] = {"run": str(origin.folder.resolve()), "step": step}
        if not args.grow and (converted := origin.facts().get("converted")):
            facts["converted"] = converted  # the weights still have that layout
        print(f"going on from {origin.folder}, checkpoint of step {step}")
        variables = eval_variables(before)
    given = None
    if args.centers and args.centers not in CHOICES["start"]:
        path = Path(args.centers)
        given = center_files.load(path, charset, config.model.features, ", or one of zeros, normal, head")
        unseen = int((given.counts == 0).sum())
        facts["centers"] = {"file": str(path.resolve()), "classes_never_seen": unseen}
        print(f"centers from {path}; {unseen} of {charset.num_classes} classes were never seen and start at 0")
    if not (origin or given):  # training makes a fresh state itself, from the seed
        centers.check_start(flow_of(train_config).rule)
        return None, facts
    key = jax.random.key(config.run.seed)
    if origin and args.grow:
        return _grown(before, origin.charset, charset, train_config, key, given, facts), facts
    return init_state(train_config, key, variables=variables, centers=given), facts


def _grown(
    before: TrainState,
    old: Charset,
    new: Charset,
    config: TrainConfig,
    key: jax.Array,
    given: CenterState | None,
    facts: dict[str, Any],
) -> TrainState:
    """All that was learnt, under another charset; centers that were given stand for those of the run."""
    kept = [c for c in new.characters if c in old]
    if not kept:
        raise UserError("--grow: the charsets share no character; expected some of the run's in the new one")
    own = before if given is None else before._replace(centers=None)
    if own.centers is not None and centers.is_estimated(flow_of(config).rule):
        # Nothing was estimated for new characters: they start at 0, as classes do that were never seen.
        given = centers.zeros(config.model.num_classes, config.model.features)
    state, besides = charset_transfer.started(own, init_state(config, key, centers=given), old, new)
    facts["grown"] = {"kept": len(kept), "new": len(new) - len(kept), "gone": len(old) - len(kept), "moved": besides}
    print(f"{len(kept)} characters kept, {len(new) - len(kept)} new, {len(old) - len(kept)} gone; moved with them: "
          f"{', '.join(['weights', *besides])}")  # fmt: skip
    return state


def _resume(args: Namespace) -> int:
    run = open_weights(Path(args.resume))
    again = [change for change in args.set if change.partition("=")[0] in extensions.KEYS]
    if args.config or args.out or not all(change.startswith("mesh.") or change in again for change in args.set):
        raise UserError("--resume goes on with the run's own configuration; leave out --config, --set (but of mesh.*) "
                        "and --out")  # fmt: skip
    for flag in ("init_from", "centers", "preset", "checkpoint", "print_config", "grow"):
        if getattr(args, flag):
            raise UserError(f"--resume goes on with the run as it is; leave out --{flag.replace('_', '-')}")
    for flag in ("data", "val"):
        if getattr(args, flag):
            raise UserError(f"--resume goes on with the run's own data; leave out --{flag}")
    if configs.load(None, again, run.config).loss != run.config.loss:
        raise UserError(f"--resume continues the run with its own loss; --set {' '.join(again)} differs from "
                        f"{run.folder / CONFIG}")  # fmt: skip
    _go_on(trusted(run, _trust(args)), args)
    return 0


def _go_on(run: Run, args: Namespace) -> bool:
    if not agreed(len(written(run.folder / CHECKPOINTS))) and (began := run.facts().get("init_from")):
        raise UserError(f"{run.folder}: began with the weights of {began['run']} and has no checkpoint; expected one: "
                        "move it back, or remove the folder and start again")  # fmt: skip
    changes = say_changes(run)
    print("".join(f"{line}\n" for line in changes), end="")
    mesh_only = [change for change in args.set if change.startswith("mesh.")]
    run = dataclasses.replace(run, config=configs.load(None, mesh_only, run.config))
    if args.charset:
        same_charset(run, Charset.from_file(args.charset, run.config.data.blank), args.charset)
    source = datasets.source(run.config)
    skip_bad = args.skip_bad or bool(run.facts().get("skip_bad"))
    corpora = datasets.audited(run.config, run.charset, source, datasets.validation(run.config), skip_bad)
    mesh, batches = _batches(run.config, run.charset, corpora[0])
    if changes and jax.process_index() == 0:
        used(run)
    return _go(run, mesh, batches, *corpora)


def _batches(config: configs.Config, charset: Charset, corpus: Corpus | None) -> tuple[Mesh, Stream]:
    """The devices, and the batches, or this process's rows of them."""
    mesh = make_mesh(config.mesh)
    rows = my_rows(mesh, config.data.batch_size)
    return mesh, datasets.stream(config, charset, corpus, rows)


def _train(
    config: configs.Config,
    charset: Charset,
    source: Source | None,
    validation: Source | None,
    out: Path,
    facts: dict[str, Any],
    first: TrainState | None = None,
) -> bool:
    corpora = datasets.audited(config, charset, source, validation, facts["skip_bad"])
    # Before the folder: what stops it leaves nothing behind.
    mesh, batches = _batches(config, charset, corpora[0])
    facts["data"] = datasets.facts(corpora)
    run = processes.first_makes(
        lambda: create(out, config, charset, facts), lambda: open_run(out, set(extensions.paths(config.loss)))
    )
    return _go(run, mesh, batches, *corpora, first)


def _go(
    run: Run,
    mesh: Mesh,
    batches: Stream,
    corpus: Corpus | None,
    val: Corpus | None,
    first: TrainState | None = None,
) -> bool:
    loop = run.config.run
    print(f"charset of {len(run.charset)} characters; buckets {', '.join(map(str, batches.buckets))} px", end="; ")
    print(f"{batches.steps_per_epoch} steps an epoch, {run.config.optim.steps} in all")
    if mesh.size > 1:
        print(f"{mesh.size} devices: the batch over {mesh.shape['data']}, the classes over {mesh.shape['model']}; "
              f"{jax.process_count()} processes")  # fmt: skip
    with _alone(run.folder), _console.make() as shown, _tracker(run.folder) as track:
        done = fit(run.train_config, loop, run.charset, batches, val, run.folder, shown, track, first,
                   mesh, run.config.mesh.fsdp)  # fmt: skip
    totals = done.totals
    if done.step > run.config.optim.steps:
        print(f"{run.folder} is at step {done.step}, beyond optim.steps={run.config.optim.steps}: nothing to do")
        return True
    print(
        f"{'stopped' if done.stopped else 'finished'} at step {done.step}; {totals.samples} samples seen, "
        f"{totals.infeasible_samples} infeasible, {totals.skipped_steps} steps skipped, "
        f"{corpus.left_out if corpus is not None else 0} lines left out, {done.programs} step programs compiled"
    )
    if totals.worker_restarts:
        print(f"worker processes were started anew {totals.worker_restarts} times")
    if done.stopped:
        print(f"go on with: jaxcrnn train --resume {run.folder}")
    else:
        print(f"the run is in {run.folder}")
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
    """TensorBoard files next to ``metrics.jsonl``, where tensorboardX is installed."""

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
