"""``jaxcrnn parity``: check every number against the PyTorch reference."""

from __future__ import annotations

import argparse
import json
import sys

from jaxcrnn.cli import options
from jaxcrnn.errors import UserError

SUMMARY = "check a run's numbers against the PyTorch reference, down to each gradient"
MODULES = options.RUN_MODULES


def add_options(parser: options.Parser) -> None:
    options.add_run(parser)
    options.add_checkpoint(parser)
    options.add_trust(parser)
    parser.add_argument(
        "--dtype",
        default="float64",
        choices=["float64", "float32", "tensorfloat32"],
        help="precision of both; tensorfloat32 allows an NVIDIA GPU to round the inputs of jaxcrnn's products to 10 "
        "bits, as in training; default: float64",
    )
    parser.add_argument(
        "--presets",
        metavar="NAMES",
        help="comma-separated loss presets for the step tests, or none; default: all presets and the run's own loss",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """The exit code is 1 if an error exceeds its tolerance."""
    import jax

    from jaxcrnn.interop.trained import open_trained
    from jaxcrnn.objective import PRESETS, LossConfig
    from jaxcrnn.parity import answers
    from jaxcrnn.parity.ladder import ask_torch, compare, make_task
    from jaxcrnn.report import tables
    from jaxcrnn.runs.compile import for_device, is_nvidia
    from jaxcrnn.train import eval_variables

    if args.dtype == "tensorfloat32" and not is_nvidia(jax.devices()[0]):
        raise UserError("--dtype tensorfloat32 needs an NVIDIA GPU; expected float64 or float32")
    opened = open_trained(args.run, args.trust_code)
    presets = tuple(PRESETS)
    if args.presets:
        presets = () if args.presets == "none" else tuple(args.presets.split(","))
    for name in presets:
        if name not in PRESETS:
            raise UserError(f"--presets {name}: unknown preset; expected some of {', '.join(PRESETS)}, or none")
    state, step = opened.state(args.checkpoint)
    config = opened.train_config
    own = config.loss if args.presets is None and config.loss != LossConfig(config.loss.preset) else None
    task = make_task(for_device(config.model), eval_variables(state), presets=presets, loss=own, dtype=args.dtype)
    theirs = ask_torch(task)
    ladder = compare(answers.answer(task), theirs, args.dtype)
    if args.json:
        print(json.dumps([rung._asdict() | {"holds": rung.holds} for rung in ladder], indent=2))
    else:
        print(f"{opened.described(step)}, {args.dtype}: max|jaxcrnn - torch_ref| / max|torch_ref|\n")
        print(tables.parity_table(ladder))
    broken = sum(not rung.holds for rung in ladder)
    if broken:
        print(f"\n{broken} of {len(ladder)} comparisons exceed their tolerance", file=sys.stderr)
    return 1 if broken else 0
