"""``jaxcrnn train``: train a recogniser on labelled images of text lines."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxcrnn.cli import options
from jaxcrnn.errors import UserError

if TYPE_CHECKING:
    from jaxcrnn.runs.config import Config
    from jaxcrnn.runs.extensions import Trust
    from jaxcrnn.runs.folder import Run

SUMMARY = "train a recogniser on labelled images of text lines"
MODULES = ("jaxcrnn.runs.start",)
STOPPED = 75  # EX_TEMPFAIL of sysexits.h: not finished, run again
# Keys that --set may not change in a run that is resumed.
FIXED = (
    *("model.", "imported.", "loss.", "data.train=", "data.more=", "data.val=", "data.charset=", "data.blank="),
    *("data.format=", "data.encoding=", "data.root=", "data.vertical=", "data.trim=", "data.invert="),
    "data.normalize=",
)


def add_options(parser: options.Parser) -> None:
    parser.add_argument(
        "--data",
        nargs="+",
        metavar="FILE",
        help="training set: a label file of path<TAB>text lines, or another format that 'jaxcrnn data audit --help' "
        "lists; with several, data.weights sets the share of each in a batch",
    )
    parser.add_argument("--val", metavar="FILE", help="validation set, in the same formats; default: no validation")
    options.add_layout(parser)
    parser.add_argument(
        "--charset",
        metavar="FILE",
        help="characters to recognise, one per line; default: the characters of the training labels",
    )
    parser.add_argument("--out", metavar="FOLDER", help="new folder for the run")
    parser.add_argument("--config", metavar="FILE", help="YAML file with the configuration keys listed below")
    options.add_set(parser)
    parser.add_argument(
        "--preset",
        metavar="NAME",
        help="training loss: ctc, or with center loss flow1, flow1-torch, flow2, aligned or posterior (loss.preset "
        "below); default: ctc",
    )
    parser.add_argument(
        "--init-from",
        metavar="RUN",
        help="fine-tune a trained recogniser (pretrained, a run, or a folder exported as safetensors): start with its "
        "weights, charset and configuration (except the loss); of an exported one only the model is configured",
    )
    parser.add_argument(
        "--checkpoint",
        metavar="WHICH",
        help="checkpoint of a run in --init-from: best (highest validation accuracy), latest or a step; default: best",
    )
    parser.add_argument(
        "--grow",
        action="store_true",
        help="with --init-from: switch to another charset (--charset, or that of the labels); weights and centers of "
        "shared characters are kept",
    )
    parser.add_argument(
        "--centers",
        metavar="WHERE",
        help="initial centers of a center loss: a file made by 'jaxcrnn centers estimate', or head, zeros or normal "
        "(loss.start below); default: set by the preset",
    )
    options.add_vertical(parser)
    parser.add_argument("--skip-bad", action="store_true", help="skip and count rows with faults instead of stopping")
    parser.add_argument(
        "--resume",
        metavar="FOLDER",
        help="resume an interrupted run exactly where it stopped; with --set optim.steps=N, extend it",
    )
    parser.add_argument(
        "--auto-resume",
        action="store_true",
        help="resume the run in --out if it exists, otherwise start it, so that a preempted job can be requeued "
        "unchanged; exit code 75 means not finished",
    )
    options.add_trust(parser)
    parser.add_argument("--print-config", action="store_true", help="print the resolved configuration and exit")
    several = parser.add_argument_group("multiple processes")
    several.add_argument(
        "--distributed",
        action="store_true",
        help="join the other processes of a multi-process run; SLURM, Open MPI, Kubernetes and Cloud TPU need no "
        "further option",
    )
    several.add_argument(
        "--coordinator", metavar="HOST:PORT", help="on other clusters: address on which process 0 listens"
    )
    several.add_argument("--process-count", type=int, metavar="N", help="on other clusters: number of processes")
    several.add_argument(
        "--process-index", type=int, metavar="I", help="on other clusters: index of this process, from 0"
    )
    parser.lists_keys = True


def run(args: argparse.Namespace) -> int:
    """Return 75 if ``--auto-resume`` was interrupted before the end."""
    from jaxcrnn.interop.exported import located
    from jaxcrnn.interop.trained import open_untrusted
    from jaxcrnn.runs import config as configs
    from jaxcrnn.runs import extensions
    from jaxcrnn.runs.folder import CONFIG, same_config
    from jaxcrnn.runs.processes import agreed

    _join(args)
    if args.auto_resume and (args.resume or not args.out):
        raise UserError("--auto-resume resumes the run in --out; give --out FOLDER and drop --resume")
    if args.resume:
        return _resume(args)
    # Process 0 decides for all: on a network file system others may see the folder later.
    exists = args.auto_resume and agreed((Path(args.out) / CONFIG).is_file())
    if exists and args.init_from and not located(args.init_from).exists():
        own = _existing(args)
        print(f"{args.init_from} no longer exists; resuming {args.out} with its own config")
        return _job_code(_go_on(own, args))
    origin = open_untrusted(args.init_from) if args.init_from else None
    config = _config(args, origin)
    if args.print_config:
        extensions.paths(config.loss)  # checks the syntax of import paths without importing anything
        print(configs.to_yaml(config), end="")
        return 0
    extensions.resolve(config.loss)  # fail on an invalid import path before the data are read
    if exists:
        own = _existing(args)
        same_config(own, config)
        print(f"resuming the run in {args.out}")
        return _job_code(_go_on(own, args))
    done = _start(args, config, origin)
    return _job_code(done) if args.auto_resume else 0


def _join(args: argparse.Namespace) -> None:
    """Join the other processes, if there are several."""
    from jaxcrnn.runs import processes

    place = (args.coordinator, args.process_count, args.process_index)
    if args.distributed:
        processes.join(*place)
    elif any(value is not None for value in place):
        raise UserError("--coordinator, --process-count and --process-index require --distributed")


def _start(args: argparse.Namespace, config: Config, origin: Run | None) -> bool:
    """Start a new run, and return whether it finished."""
    from jaxcrnn.runs import datasets, start

    if not config.data.train and config.text.share < 1:
        raise UserError(
            "no training data; give --data FILE, a label file of path<TAB>text, or --set text.share=1 to "
            "train on rendered lines only"
        )
    if args.data and config.text.share >= 1:
        raise UserError(
            f"--data {args.data[0]}: unused, because text.share=1 renders every line; use a smaller "
            "text.share or drop --data"
        )
    if not args.out:
        raise UserError("no output folder; give --out FOLDER")
    source = datasets.source(config)
    if args.grow and not origin:
        raise UserError("--grow requires --init-from RUN")
    own = origin if not args.grow else None
    charset = start.charset_of(own, config) if own else datasets.charset(config, source)
    first, facts = start.first_state(
        config, charset, origin, checkpoint=args.checkpoint, grow=args.grow, centers=args.centers
    )
    validation = datasets.validation(config)
    return start.begin(config, charset, source, validation, Path(args.out), facts, first, skip_bad=args.skip_bad)


def _existing(args: argparse.Namespace) -> Run:
    """Open the run in ``--out``; it must have been initialized from the same ``--init-from`` and ``--checkpoint``."""
    from jaxcrnn.interop.trained import place_of
    from jaxcrnn.runs.folder import open_run

    own = open_run(Path(args.out), _trust(args))
    initial = own.facts().get("init_from") or {"run": None, "step": None}
    wanted = place_of(args.init_from) if args.init_from else None
    if initial["run"] != wanted:
        raise UserError(
            f"{args.out}: was initialized from {initial['run'] or 'fresh weights'}, but --init-from is "
            f"{wanted or 'not given'}; use the same, or another --out"
        )
    if args.checkpoint and args.checkpoint.isdigit() and int(args.checkpoint) != initial["step"]:
        raise UserError(
            f"{args.out}: was initialized from step {initial['step']} of {wanted}, but --checkpoint is "
            f"{args.checkpoint}; use the same, or another --out"
        )
    return own


def _trust(args: argparse.Namespace) -> Trust:
    """Return what a run may import: everything with ``--trust-code``, else the paths in ``--set`` and ``--config``."""
    from jaxcrnn.runs import config as configs
    from jaxcrnn.runs import extensions

    return args.trust_code or extensions.named(args.set, configs.read_yaml(args.config) if args.config else None)


def _job_code(finished: bool) -> int:
    """Return the exit code of a job that is requeued until it has finished."""
    return 0 if finished else STOPPED


def _config(args: argparse.Namespace, origin: Run | None) -> Config:
    """Build the configuration: defaults (or those of ``--init-from``), then the file, then the options."""
    from jaxcrnn.objective import CHOICES, PRESETS, LossConfig
    from jaxcrnn.runs import config as configs

    data = args.data or [""]
    flags = {"train": data[0], "val": args.val, "charset": args.charset}
    if args.checkpoint and not origin:
        raise UserError("--checkpoint requires --init-from RUN")
    sets = [f"loss.preset={args.preset}"] if args.preset else []
    start = args.centers if args.centers in CHOICES["start"] else "estimate"
    # The loss is not inherited: parts of the old one would silently modify another preset.
    base = dataclasses.replace(origin.config, loss=LossConfig()) if origin else None
    if base and args.data:  # which need not be laid out like those of the origin
        base = dataclasses.replace(base, data=dataclasses.replace(base.data, format="auto", encoding="utf-8", root=""))
    config = configs.load(args.config, [*sets, *options.vertical_key(args), *args.set], base)
    if args.centers and config.loss.start not in (None, start):
        raise UserError(f"--centers {args.centers} contradicts loss.start={config.loss.start}; drop one of them")
    if args.centers and not config.loss.has_centers:
        raise UserError(
            f"--centers {args.centers}: the preset {config.loss.preset!r} has no centers; expected another "
            f"--preset, one of {', '.join(list(PRESETS)[1:])}"
        )
    values: dict[str, Any] = {name: value for name, value in flags.items() if value}
    values |= options.layout(args) | ({"more": tuple(data[1:])} if args.data else {})
    loss = dataclasses.replace(config.loss, start=start) if args.centers else config.loss
    read = dataclasses.replace(config.data, **values).with_whole_paths()
    return dataclasses.replace(config, loss=loss, data=read, text=config.text.with_whole_paths())


def _resume(args: argparse.Namespace) -> int:
    from jaxcrnn.runs import config as configs
    from jaxcrnn.runs import extensions
    from jaxcrnn.runs.folder import CONFIG, open_weights, trusted

    own = open_weights(Path(args.resume))
    imports = [change for change in args.set if change.partition("=")[0] in extensions.KEYS]
    if args.config or args.out:
        raise UserError("--resume uses the run's saved config and folder; drop --config and --out")
    if fixed := [change for change in args.set if change.startswith(FIXED) and change not in imports]:
        raise UserError(
            f"--resume continues the run with its own model, loss and data; drop --set {fixed[0]}, or start a new run "
            f"with --init-from {args.resume}"
        )
    for flag in ("init_from", "centers", "preset", "checkpoint", "print_config", "grow"):
        if getattr(args, flag):
            raise UserError(f"--resume continues the run unchanged; drop --{flag.replace('_', '-')}")
    if args.vertical is not None:
        raise UserError("--resume uses the run's own data.vertical; drop --vertical and --no-vertical")
    for flag in ("data", "val", "format", "encoding", "root"):
        if getattr(args, flag):
            raise UserError(f"--resume uses the run's own data; drop --{flag}")
    if configs.load(None, imports, own.config).loss != own.config.loss:
        raise UserError(
            f"--resume uses the run's own loss; --set {' '.join(imports)} differs from {own.folder / CONFIG}"
        )
    sets = [change for change in args.set if not change.startswith("mesh.") and change not in imports]
    _go_on(trusted(own, _trust(args)), args, sets)
    return 0


def _go_on(own: Run, args: argparse.Namespace, sets: Sequence[str] = ()) -> bool:
    """Resume a run with changes to save, and return whether it finished."""
    from jaxcrnn.runs import start

    mesh_only = [change for change in args.set if change.startswith("mesh.")]
    return start.resume(own, sets=sets, overrides=mesh_only, charset_file=args.charset, skip_bad=args.skip_bad)
