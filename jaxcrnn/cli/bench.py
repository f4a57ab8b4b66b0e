"""``jaxcrnn bench``: time a training step and its parts, interleaved with PyTorch."""

from __future__ import annotations

import argparse
import dataclasses

from jaxcrnn.cli import options
from jaxcrnn.errors import UserError

SUMMARY = "time a training step and its parts, interleaved with PyTorch"
MODULES = ("jaxcrnn.bench.run",)


def add_options(parser: options.Parser) -> None:
    sizes = (
        ("batch", 32, "lines in a batch"),
        ("width", 280, "image width in pixels"),
        ("classes", 6941, "number of classes"),
        ("slots", 10, "label slots (characters in a line)"),
        ("hidden", 256, "hidden size of each LSTM direction"),
        ("matrix", 2048, "size of the matrices of the case product; 8192 for the peak rate of a GPU"),
    )
    for name, default, what in sizes:
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N", help=f"{what}; default: {default}")
    parser.add_argument("--backbone", default="vgg", metavar="NAME", help="backbone of the model; default: vgg")
    parser.add_argument("--dtype", default="float32", metavar="NAME", help="float32 or bfloat16; default: float32")
    parser.add_argument("--lstm", default="auto", metavar="NAME", help="scan, unrolled, cudnn or auto; default: auto")
    parser.add_argument("--ctc", default="auto", metavar="NAME", help="scan, unrolled, pallas or auto; default: auto")
    parser.add_argument(
        "--data", default="", metavar="FILE", help="label file for the data cases; default: rendered lines"
    )
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="measurements per variant; default: 5")
    parser.add_argument(
        "--only",
        metavar="CASES",
        help="comma-separated cases to run: product, step, flows, forward, "
        "backbone, bilstm, ctc, swaps, head, center, latency, data, evaluate, recognize, cold; "
        "flows and swaps run only if listed here",
    )
    parser.add_argument(
        "--grow",
        action="store_true",
        help="also time ctc, head and center with 100 to 90,112 "
        "classes, and the step with other batch sizes and widths",
    )
    parser.add_argument("--compile", action="store_true", help="also time torch.compile, which takes a minute")
    parser.add_argument(
        "--layers",
        action="store_true",
        help="also add up by layer the time of step, flows and backbone, from a trace, and their memory traffic",
    )
    parser.add_argument(
        "--quick-compile", dest="quick", action="store_true", help="compile step and flows as with run.quick_compile"
    )
    parser.add_argument("--no-torch", dest="torch", action="store_false", help="skip the PyTorch reference")
    parser.add_argument("--out", metavar="FILE", help="write all results to this JSON file")


def run(args: argparse.Namespace) -> int:
    from jaxcrnn.bench.cases import Sizes
    from jaxcrnn.bench.run import measure

    if args.compile and not args.torch:
        raise UserError("--compile times the PyTorch reference and cannot be combined with --no-torch; drop one")
    sizes = Sizes(**{field.name: getattr(args, field.name) for field in dataclasses.fields(Sizes)})
    chosen = None if args.only is None else [name.strip() for name in args.only.split(",")]
    measure(
        sizes,
        chosen,
        rounds=args.rounds,
        grow=args.grow,
        torch=args.torch,
        compiled=args.compile,
        layers=args.layers,
        out=args.out,
    )
    return 0
