"""``jaxcrnn export``: write a recogniser for other programs."""

from __future__ import annotations

import argparse
from pathlib import Path

from jaxcrnn.cli import options
from jaxcrnn.errors import UserError

SUMMARY = "write a recogniser for other programs"
MODULES = ("jaxcrnn.interop.exporters",)


def add_options(parser: options.Parser) -> None:
    parser.add_argument("run", help="run folder, or one that was exported as safetensors")
    parser.add_argument(
        "--format", required=True, choices=["safetensors", "stablehlo", "onnx", "torch", "crnn.pytorch", "original"],
        help="safetensors: a folder for a model hub; torch: torch_ref's state dict; original: of a converted run",
    )  # fmt: skip
    parser.add_argument("--out", required=True, metavar="PATH", help="folder to make, or file of a state dict")
    options.add_checkpoint(parser)
    options.add_trust(parser)


def run(args: argparse.Namespace) -> int:
    from jaxcrnn.interop.exporters import export

    if not args.out:
        raise UserError("--out : is there already; expected a new name")
    made = export(Path(args.run), Path(args.out), args.format, args.checkpoint, trust_code=args.trust_code)
    print(f"made {Path(args.out)}: {made}")
    return 0
