"""``jaxcrnn plan``: compile the training step for a TPU, a GPU or a device mesh, and report its cost."""

from __future__ import annotations

import argparse

from jaxcrnn.cli import options

SUMMARY = "report memory and communication of a training step on several devices, also if they are not present"
MODULES = ("jaxcrnn.bench.aot",)


def add_options(parser: options.Parser) -> None:
    parser.add_argument(
        "--device",
        metavar="KIND:SHAPE",
        help="TPU generation (v4, v5e, v5p or v6e) and topology, such as v5e:2x2 or v5e:16x16, or GPU (h100 or h200) "
        "and their number, such as h100:8; needs the extra 'tpu' or 'cuda' but no such device; default: the devices "
        "of this machine",
    )
    parser.add_argument("--config", metavar="FILE", help="YAML configuration, as for train")
    options.add_set(parser)
    parser.add_argument("--charset", metavar="FILE", help="take the number of classes from this charset")
    for name, default, what in (
        ("classes", 6941, "number of classes without --charset"),
        ("width", 280, "image width in pixels"),
        ("slots", 10, "label slots"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N", help=f"{what}; default: {default}")
    parser.add_argument("--out", metavar="FILE", help="write all results to this JSON file")


def run(args: argparse.Namespace) -> int:
    """Return 2 if the step does not fit into the memory of a device."""
    from jaxcrnn._files import can_be_written, write_json
    from jaxcrnn.bench import aot
    from jaxcrnn.charset import Charset
    from jaxcrnn.runs import config as configs

    config = configs.load(args.config, args.set)
    if args.out:
        can_be_written(args.out)  # a compilation takes minutes
    classes = Charset.from_file(args.charset, config.data.blank).num_classes if args.charset else args.classes
    about, plan, room = aot.compile_for(config, classes, device=args.device, width=args.width, slots=args.slots)
    print(aot.shown(about, plan, room))
    if args.out:
        costs = plan._asdict() | {"collectives": [c._asdict() for c in plan.collectives], "room": room}
        for name in ("traffic", "operations", "least"):
            costs[name] = {layer: moved._asdict() for layer, moved in costs[name].items()}
        write_json(args.out, {"about": about, **costs})
        print(f"wrote {args.out}")
    return 0 if room is None or aot.needed(plan) <= room else 2
