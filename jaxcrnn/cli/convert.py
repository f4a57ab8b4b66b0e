"""``jaxcrnn convert``: make a run folder from another program's checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path

from jaxcrnn.cli import options

SUMMARY = "make a run folder from another program's checkpoint"
MODULES = ("jaxcrnn.interop.importer",)


def add_options(parser: options.Parser) -> None:
    parser.add_argument(
        "checkpoint", help="of PyTorch (.pth, .pt) or safetensors: crnn.pytorch, deep-text-recognition-benchmark, "
        "EasyOCR, GitYCC's, a sequential one, or torch_ref's",
    )  # fmt: skip
    parser.add_argument(
        "--charset", required=True, metavar="FILE", help="one character a line, in the order of classes"
    )
    parser.add_argument("--out", required=True, metavar="FOLDER", help="run folder to make")
    parser.add_argument(
        "--blank", default="first", choices=["first", "last"], help="where the blank is; last is moved; default: first"
    )
    for name, default, what in (("height", 32, "rows of the images"),
                                ("width", 0, "stretch images to this width; 0 keeps the ratio")):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N", help=f"{what}; default: {default}")
    for name, value in (("black", -1.0), ("white", 1.0)):
        parser.add_argument(
            f"--{name}", type=float, default=value, metavar="X", help=f"what a {name} pixel is; default: {value:g}"
        )
    parser.add_argument(
        "--pools", default="", metavar="LIST", help="of a sequential model, as in 2x2,2x2,-,2x1,4x1; default: a guess"
    )


def run(args: argparse.Namespace) -> int:
    from jaxcrnn.charset import Charset
    from jaxcrnn.interop.importer import import_checkpoint

    out = Path(args.out)
    lines = import_checkpoint(
        Path(args.checkpoint), out, Charset.from_file(args.charset), blank=args.blank, height=args.height,
        width=args.width, black=args.black, white=args.white, pools=args.pools,
    )  # fmt: skip
    print("\n".join(lines))
    print(f"made {out}; read with it: jaxcrnn recognize {out} IMAGES")
    return 0
