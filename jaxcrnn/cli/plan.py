"""``jaxcrnn plan``: compile the step for a TPU or a mesh, and report what it costs."""

from __future__ import annotations

import argparse

from jaxcrnn.cli import options

SUMMARY = "compile the step for a TPU or a mesh, and say what it costs"
MODULES = ("jaxcrnn.bench.aot",)


def add_options(parser: options.Parser) -> None:
    parser.add_argument("--device", metavar="KIND:SHAPE", help="v4, v5e, v5p or v6e and a topology, such as v5e:2x2 or "
                        "v5e:16x16 (needs the extra 'tpu', no TPU); default: the devices of this machine")  # fmt: skip
    parser.add_argument("--config", metavar="FILE", help="YAML file, as for train")
    options.add_set(parser)
    parser.add_argument("--charset", metavar="FILE", help="for the number of classes")
    for name, default, what in (("classes", 6941, "C, without a charset"), ("width", 280, "W in pixels"),
                                ("slots", 10, "L, label slots")):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N", help=f"{what}; {default} by default")
    parser.add_argument("--out", metavar="FILE", help="write everything as JSON")


def run(args: argparse.Namespace) -> int:
    """The exit code is 2 if the step does not fit into a device's memory."""
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
        write_json(args.out, {"about": about, **costs})
        print(f"written to {args.out}")
    return 0 if room is None or aot.needed(plan) <= room else 2
