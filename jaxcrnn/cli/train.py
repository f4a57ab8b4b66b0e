"""``jaxcrnn train``: train a recogniser on a label file."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxcrnn.cli import options
from jaxcrnn.errors import UserError

if TYPE_CHECKING:
    from jaxcrnn.runs.config import Config
    from jaxcrnn.runs.extensions import Trust
    from jaxcrnn.runs.folder import Run

SUMMARY = "train a recogniser on a label file"
MODULES = ("jaxcrnn.runs.start",)
STOPPED = 75  # EX_TEMPFAIL of sysexits.h: try again


def add_options(parser: options.Parser) -> None:
    parser.add_argument(
        "--data", nargs="+", metavar="FILE",
        help="training set: a label file of path<TAB>text, or what 'data' reads; of several, data.weights says how "
        "many lines of a batch come from each",
    )  # fmt: skip
    parser.add_argument("--val", metavar="FILE", help="label file of the validation set")
    parser.add_argument("--charset", metavar="FILE", help="one character a line; default: those of the training labels")
    parser.add_argument("--out", metavar="FOLDER", help="new folder for the run")
    parser.add_argument("--config", metavar="FILE", help="YAML file with the keys listed below")
    options.add_set(parser)
    parser.add_argument(
        "--preset", metavar="NAME", help="loss.preset: ctc, flow1, flow1-torch, flow2, aligned, posterior"
    )
    parser.add_argument(
        "--init-from", metavar="RUN", help="start from a run: its weights, charset and configuration, but the loss"
    )
    parser.add_argument("--checkpoint", metavar="WHICH", help="of --init-from: best (the default), latest, or a step")
    parser.add_argument(
        "--grow", action="store_true",
        help="with --init-from: another charset (--charset, or that of the labels); what is known of a character moves "
        "with it",
    )  # fmt: skip
    parser.add_argument(
        "--centers", metavar="WHERE", help="centers to start from: a file of 'centers estimate', head, zeros or normal"
    )
    parser.add_argument("--skip-bad", action="store_true", help="leave out, counted, what the audit finds")
    parser.add_argument("--resume", metavar="FOLDER", help="go on with a run, exactly where it stopped")
    parser.add_argument(
        "--auto-resume", action="store_true",
        help="go on with the run of --out if there is one, start it otherwise: one command for jobs that come back",
    )  # fmt: skip
    options.add_trust(parser)
    parser.add_argument("--print-config", action="store_true", help="print the resolved configuration and stop")
    several = parser.add_argument_group("several processes")
    several.add_argument(
        "--distributed", action="store_true",
        help="this is one process of several; SLURM, Open MPI, Kubernetes and Cloud TPU say which",
    )  # fmt: skip
    several.add_argument("--coordinator", metavar="HOST:PORT", help="elsewhere: where the first process listens")
    several.add_argument("--process-count", type=int, metavar="N", help="how many processes there are")
    several.add_argument("--process-index", type=int, metavar="I", help="which one this is, from 0")
    parser.lists_keys = True


def run(args: argparse.Namespace) -> int:
    """The exit code is 75 if ``--auto-resume`` was stopped before the end."""
    from jaxcrnn.runs import config as configs
    from jaxcrnn.runs import extensions
    from jaxcrnn.runs.folder import CONFIG, open_weights, same_config
    from jaxcrnn.runs.processes import agreed

    _join(args)
    if args.auto_resume and (args.resume or not args.out):
        raise UserError("--auto-resume looks for the run in --out; give --out FOLDER, and no --resume")
    if args.resume:
        return _resume(args)
    # Asked of the first process alone: another one may see the folder later.
    begun = args.auto_resume and agreed((Path(args.out) / CONFIG).is_file())
    if begun and args.init_from and not Path(args.init_from).exists():
        own = _begun(args)
        print(f"{args.init_from} is gone; {args.out}, which began with it, goes on as it is configured")
        return _again(_go_on(own, args))
    origin = open_weights(Path(args.init_from)) if args.init_from else None
    config = _config(args, origin)
    if args.print_config:
        extensions.paths(config.loss)  # nothing is imported: only how they are written is checked
        print(configs.to_yaml(config), end="")
        return 0
    extensions.resolve(config.loss)  # a path that leads nowhere stops it before the data are read
    if begun:
        own = _begun(args)
        same_config(own, config)
        print(f"{args.out} holds this run; going on with it")
        return _again(_go_on(own, args))
    done = _start(args, config, origin)
    return _again(done) if args.auto_resume else 0


def _join(args: argparse.Namespace) -> None:
    """Find the other processes, if there are several."""
    from jaxcrnn.runs import processes

    place = (args.coordinator, args.process_count, args.process_index)
    if args.distributed:
        processes.join(*place)
    elif any(value is not None for value in place):
        raise UserError("--coordinator, --process-count and --process-index are of several processes; give "
                        "--distributed too")  # fmt: skip


def _start(args: argparse.Namespace, config: Config, origin: Run | None) -> bool:
    """Start a new run; whether it finished."""
    from jaxcrnn.runs import datasets, start

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
    charset = start.charset_of(own, config) if own else datasets.charset(config, source)
    first, facts = start.first_state(
        config, charset, origin, checkpoint=args.checkpoint, grow=args.grow, centers=args.centers
    )
    validation = datasets.validation(config)
    return start.begin(config, charset, source, validation, Path(args.out), facts, first, skip_bad=args.skip_bad)


def _begun(args: argparse.Namespace) -> Run:
    """The run in ``--out``, which must have begun with the same ``--init-from`` and ``--checkpoint``."""
    from jaxcrnn.runs.folder import open_run

    own = open_run(Path(args.out), _trust(args))
    began = own.facts().get("init_from") or {"run": None, "step": None}
    asked = str(Path(args.init_from).resolve()) if args.init_from else None
    if began["run"] != asked:
        raise UserError(f"{args.out}: began with {began['run'] or 'fresh weights'}, and --init-from asks for "
                        f"{asked or 'none'}; expected the same, or another --out")  # fmt: skip
    if args.checkpoint and args.checkpoint.isdigit() and int(args.checkpoint) != began["step"]:
        raise UserError(f"{args.out}: began with step {began['step']} of {asked}, and --checkpoint asks for "
                        f"{args.checkpoint}; expected the same, or another --out")  # fmt: skip
    return own


def _trust(args: argparse.Namespace) -> Trust:
    """What a run may import: all with ``--trust-code``, else the paths that the options or their file give again."""
    from jaxcrnn.runs import config as configs
    from jaxcrnn.runs import extensions

    return args.trust_code or extensions.named(args.set, configs.read_yaml(args.config) if args.config else None)


def _again(finished: bool) -> int:
    """The exit code of a job that is started again until it has finished."""
    return 0 if finished else STOPPED


def _config(args: argparse.Namespace, origin: Run | None) -> Config:
    """The whole configuration: the defaults or those of the run to start from, the file, then the options."""
    from jaxcrnn.objective import CHOICES, PRESETS, LossConfig
    from jaxcrnn.runs import config as configs

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
    values: dict[str, Any] = {name: value for name, value in flags.items() if value}
    values |= {"more": tuple(data[1:])} if args.data else {}
    loss = dataclasses.replace(config.loss, start=start) if args.centers else config.loss
    read = dataclasses.replace(config.data, **values).with_whole_paths()
    return dataclasses.replace(config, loss=loss, data=read, text=config.text.with_whole_paths())


def _resume(args: argparse.Namespace) -> int:
    from jaxcrnn.runs import config as configs
    from jaxcrnn.runs import extensions
    from jaxcrnn.runs.folder import CONFIG, open_weights, trusted

    own = open_weights(Path(args.resume))
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
    if configs.load(None, again, own.config).loss != own.config.loss:
        raise UserError(f"--resume continues the run with its own loss; --set {' '.join(again)} differs from "
                        f"{own.folder / CONFIG}")  # fmt: skip
    _go_on(trusted(own, _trust(args)), args)
    return 0


def _go_on(own: Run, args: argparse.Namespace) -> bool:
    """Resume a run; whether it finished."""
    from jaxcrnn.runs import start

    mesh_only = [change for change in args.set if change.startswith("mesh.")]
    return start.resume(own, overrides=mesh_only, charset_file=args.charset, skip_bad=args.skip_bad)
