"""``jaxcrnn export``: export a recogniser for other programs."""

from __future__ import annotations

import argparse
from pathlib import Path

from jaxcrnn.cli import options
from jaxcrnn.errors import UserError

SUMMARY = "export a recogniser to ONNX, StableHLO, safetensors or PyTorch"
MODULES = ("jaxcrnn.interop.exporters",)


def add_options(parser: options.Parser) -> None:
    options.add_run(parser)
    parser.add_argument(
        "--format",
        required=True,
        choices=["safetensors", "stablehlo", "onnx", "torch", "crnn.pytorch", "original"],
        help="safetensors: a folder for a model hub; torch: a state dict of torch_ref; original: the layout that a "
        "converted run was imported from",
    )
    parser.add_argument("--out", required=True, metavar="PATH", help="new folder, or new file for a state dict")
    parser.add_argument(
        "--interpolate",
        metavar="START",
        help="export the weights between those of START, which the recogniser was fine-tuned from (pretrained, or a "
        "folder), and its own",
    )
    parser.add_argument(
        "--share",
        type=float,
        metavar="S",
        help="with --interpolate: share of the recogniser's own weights, from 0 (START) to 1; default: 0.5",
    )
    options.add_checkpoint(parser)
    options.add_trust(parser)


def run(args: argparse.Namespace) -> int:
    from jaxcrnn.interop.exporters import export

    if not args.out:
        raise UserError("--out is empty; expected a new file or folder name")
    if args.share is not None and not args.interpolate:
        raise UserError("--share requires --interpolate; expected the recogniser that this one was fine-tuned from")
    share = 0.5 if args.share is None else args.share
    if not 0 <= share <= 1:
        raise UserError(f"--share is {share:g}; expected a number from 0 to 1")
    made = export(
        Path(args.run),
        Path(args.out),
        args.format,
        args.checkpoint,
        trust_code=args.trust_code,
        start=Path(args.interpolate) if args.interpolate else None,
        share=share,
    )
    print(f"wrote {Path(args.out)}: {made}")
    return 0
