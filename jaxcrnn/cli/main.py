"""The command line: options in, exit codes out.

0 is fine, 2 a mistake of the user (one clear line), 1 a fault of ours (a traceback), 75 not finished yet, start again.

A command is a module of this package with its name: ``SUMMARY``, ``add_options(parser)`` and ``run(args)``, which
returns the exit code. Nothing heavy is imported at its top, so ``--help`` and a mistyped option answer at once;
``MODULES`` names what ``run`` imports.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from jaxcrnn import __version__
from jaxcrnn._text import first_line
from jaxcrnn.cli.options import Parser
from jaxcrnn.errors import UserError

COMMANDS = (
    "train", "evaluate", "recognize", "centers", "lookalikes", "compare", "report", "lm", "parity", "bench", "plan",
    "convert", "export", "data", "doctor", "completion", "demo",
)  # fmt: skip


def command(name: str) -> Any:
    """The module of a command."""
    return import_module(f"jaxcrnn.cli.{name}")


def parser() -> Parser:
    """The parser of all commands."""
    whole = Parser("jaxcrnn", description="Text recognition that tells look-alike characters apart.")
    whole.add_argument("--version", action="version", version=f"jaxcrnn {__version__}")
    commands = whole.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    for name in COMMANDS:
        module = command(name)
        sub = commands.add_parser(
            name,
            help=module.SUMMARY,
            description=module.SUMMARY[0].upper() + module.SUMMARY[1:] + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_options(sub)
    return whole


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code.

    Args:
      argv: arguments; those of the process by default.
    """
    if own := argv is None:
        argv = sys.argv[1:]
        gc.disable()
    try:
        args = parser().parse_args(argv)
        module = command(args.command)
        _prepare(getattr(module, "MODULES", ()))
        if own:  # what the libraries made stays to the end: looking through it again and again is a tenth of a start
            gc.freeze()
            gc.enable()
        return int(module.run(args))
    except UserError as error:
        return _failed(" ".join(str(error).split()))
    except MemoryError as error:
        return _failed(f"not enough memory: {first_line(error)[:200] or 'no size was said'}")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains once more at exit
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _failed(f"{where}{error.strerror or first_line(error)}")
    except KeyboardInterrupt:
        print("jaxcrnn: interrupted", file=sys.stderr)
        return 130


def _prepare(modules: Sequence[str]) -> None:
    """Set up memory and the compilation cache, and import what a command needs."""
    from jaxcrnn.cli._memory import keep_freed_memory

    keep_freed_memory()
    from jaxcrnn.runs.compile import cache_programs  # imports jax

    cache_programs()
    for name in modules:
        import_module(name)


def _failed(message: str) -> int:
    print(f"jaxcrnn: {message}", file=sys.stderr)
    if "jaxcrnn.runs.processes" in sys.modules:
        sys.modules["jaxcrnn.runs.processes"].leave(2)
    return 2


if __name__ == "__main__":
    sys.exit(main())
