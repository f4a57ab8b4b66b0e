"""``jaxcrnn bench``: time a step and its parts, interleaved with PyTorch."""

from __future__ import annotations

import argparse

from jaxcrnn.cli import options
from jaxcrnn.errors import UserError

SUMMARY = "time a step and its parts beside PyTorch, in turns"
MODULES = ("jaxcrnn.bench.run",)


def add_options(parser: options.Parser) -> None:
    sizes = (("batch", 32, "lines"), ("width", 280, "pixels"), ("classes", 6941, "classes"),
             ("slots", 10, "characters"), ("hidden", 256, "size of an LSTM direction"))  # fmt: skip
    for name, default, what in sizes:
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N", help=f"{what}; default: {default}")
    parser.add_argument("--backbone", default="vgg", metavar="NAME", help="the model's; default: vgg")
    parser.add_argument("--dtype", default="float32", metavar="NAME", help="float32 (the default) or bfloat16")
    parser.add_argument("--lstm", default="scan", metavar="NAME", help="scan (the default) or cudnn, on NVIDIA GPUs")
    parser.add_argument("--data", default="", metavar="FILE", help="label file to read from; default: rendered lines")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="turns of every variant; default: 5")
    parser.add_argument("--only", metavar="CASES", help="product, step, flows, forward, backbone, bilstm, ctc, head, "
                        "center, latency, data, evaluate, recognize, cold; with commas; flows only here")  # fmt: skip
    parser.add_argument("--grow", action="store_true", help="ctc, head and center with 100 to 90,112 classes too; "
                        "steps with other batches and widths")  # fmt: skip
    parser.add_argument("--compile", action="store_true", help="torch.compile, too, which takes a minute")
    parser.add_argument("--no-torch", dest="torch", action="store_false", help="leave the PyTorch reference out")
    parser.add_argument("--out", metavar="FILE", help="write everything as JSON")


def run(args: argparse.Namespace) -> int:
    from jaxcrnn.bench.cases import Sizes
    from jaxcrnn.bench.run import measure

    if args.compile and not args.torch:
        raise UserError("--compile and --no-torch: expected one of them, torch.compile is the reference's")
    fields = ("batch", "width", "classes", "slots", "hidden", "backbone", "dtype", "lstm", "data")
    sizes = Sizes(**{name: getattr(args, name) for name in fields})
    chosen = None if args.only is None else [name.strip() for name in args.only.split(",")]
    measure(sizes, chosen, rounds=args.rounds, grow=args.grow, torch=args.torch, compiled=args.compile, out=args.out)
    return 0
