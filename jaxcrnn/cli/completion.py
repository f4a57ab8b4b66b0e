"""``jaxcrnn completion``: print a script that completes commands in a shell."""

from __future__ import annotations

import argparse

from jaxcrnn.cli import options
from jaxcrnn.errors import UserError

SUMMARY = "print a script that completes commands in a shell"


def add_options(parser: options.Parser) -> None:
    parser.add_argument("shell", choices=["bash", "zsh", "tcsh"], help="whose script to print")


def run(args: argparse.Namespace) -> int:
    try:
        import shtab
    except ImportError:
        raise UserError("completion needs the package shtab; expected the extra 'shell'") from None
    from jaxcrnn.cli.main import parser

    print(shtab.complete(parser(), shell=args.shell))
    return 0
