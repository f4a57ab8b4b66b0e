"""``jaxcrnn completion``: print a shell completion script."""

from __future__ import annotations

import argparse

from jaxcrnn.cli import options
from jaxcrnn.errors import UserError

SUMMARY = "print a script that completes jaxcrnn commands in your shell"


def add_options(parser: options.Parser) -> None:
    parser.add_argument("shell", choices=["bash", "zsh", "tcsh"], help="shell to complete in")


def run(args: argparse.Namespace) -> int:
    try:
        import shtab
    except ImportError:
        raise UserError("completion needs the package shtab; install the extra 'shell'") from None
    from jaxcrnn.cli.main import parser

    print(shtab.complete(parser(), shell=args.shell))
    return 0
