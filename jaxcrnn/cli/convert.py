"""``jaxcrnn convert``: import another program's checkpoint as a run folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from jaxcrnn.cli import options

SUMMARY = "import another program's checkpoint as a run folder"
MODULES = ("jaxcrnn.interop.importer",)


def add_options(parser: options.Parser) -> None:
    parser.add_argument(
        "checkpoint",
        help="PyTorch (.pth, .pt) or safetensors file of crnn.pytorch, deep-text-recognition-benchmark, "
        "EasyOCR, GitYCC, a sequential CRNN, torch_ref, or another CRNN (--map)",
    )
    parser.add_argument("--charset", required=True, metavar="FILE", help="one character per line, in class order")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="run folder to create")
    parser.add_argument(
        "--blank",
        default="first",
        choices=["first", "last"],
        help="position of the blank among the checkpoint's classes; last is moved to first; default: first",
    )
    for name, default, what in (
        ("height", 32, "image height in pixels"),
        ("width", 0, "stretch images to this width; 0 keeps the aspect ratio"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N", help=f"{what}; default: {default}")
    for name, value in (("black", -1.0), ("white", 1.0)):
        parser.add_argument(
            f"--{name}",
            type=float,
            default=value,
            metavar="X",
            help=f"input value of {name} pixels; default: {value:g}",
        )
    parser.add_argument(
        "--key",
        default="",
        metavar="KEY",
        help="state dict to read, if the file has several: its keys joined by dots, such as ema.model, or a prefix of "
        "names; default: the only one",
    )
    parser.add_argument(
        "--map",
        metavar="FILE",
        help="names of the parts of a CRNN with names of its own, one OURS = THEIRS per line; without it, convert "
        "prints such a file to fill in",
    )
    parser.add_argument(
        "--pools",
        default="",
        metavar="LIST",
        help="poolings of a sequential or mapped CRNN, such as 2x2,2x2,-,2x1,4x1; default: inferred",
    )


def run(args: argparse.Namespace) -> int:
    from jaxcrnn.charset import Charset
    from jaxcrnn.interop.importer import NeedsMap, import_checkpoint

    out = Path(args.out)
    try:
        lines = import_checkpoint(
            Path(args.checkpoint),
            out,
            Charset.from_file(args.charset),
            blank=args.blank,
            height=args.height,
            width=args.width,
            black=args.black,
            white=args.white,
            pools=args.pools,
            key=args.key,
            names=Path(args.map) if args.map else None,
        )
    except NeedsMap as error:
        print(error.template)
        raise
    print("\n".join(lines))
    print(f"wrote {out}; read images with: jaxcrnn recognize {out} IMAGES")
    return 0
