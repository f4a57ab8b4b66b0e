"""Entry point of the command line: parse options, run a command, return its exit code.

Exit codes: 0 success, 2 user error (one line), 1 internal error (a traceback), 75 not finished, run again, 130
interrupted by Ctrl-C.

Each command is a module of this package with the same name. It defines ``SUMMARY``, ``add_options(parser)`` and
``run(args)``, which returns the exit code. Command modules import nothing heavy at the top, so that ``--help`` and
invalid options answer immediately; ``MODULES`` lists what ``run`` imports, or is a function of the arguments that
returns it (None if the command runs without jax).
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from jaxcrnn import __version__, _console
from jaxcrnn._memory import is_out_of_memory, reason
from jaxcrnn._text import first_line
from jaxcrnn.cli.options import Parser
from jaxcrnn.errors import UserError
from jaxcrnn.runs import signals

COMMANDS = (
    "train",
    "evaluate",
    "recognize",
    "centers",
    "lookalikes",
    "compare",
    "report",
    "lm",
    "parity",
    "bench",
    "plan",
    "convert",
    "export",
    "data",
    "doctor",
    "completion",
    "demo",
)


def command(name: str) -> Any:
    """Return the module of a command."""
    return import_module(f"jaxcrnn.cli.{name}")


def parser() -> Parser:
    """Build the parser of all commands."""
    whole = Parser(
        "jaxcrnn",
        description="Train and use recognisers for single lines of text that tell look-alike characters apart.",
        epilog="'jaxcrnn COMMAND --help' describes the options of a command.",
    )
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
      argv: command-line arguments; those of the process by default.
    """
    _console.print_anything()
    if own := argv is None:
        argv = sys.argv[1:]
        gc.disable()
        signals.guard()
    code = _run(argv, own=own)
    if own and (code == signals.INTERRUPTED or signals.must_leave()):
        signals.leave(code=code)
    return code


def _run(argv: Sequence[str], *, own: bool) -> int:
    """Run one command; ``own`` if this is the whole program."""
    try:
        args = parser().parse_args(argv)
        module = command(args.command)
        modules = getattr(module, "MODULES", ())
        prepare(modules(args) if callable(modules) else modules)
        if own:  # objects of the libraries live until the end: collecting them repeatedly takes a tenth of a start
            gc.freeze()
            gc.enable()
        signals.started()
        return int(module.run(args))
    except UserError as error:
        return _failed(" ".join(str(error).split()))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # otherwise Python reports it again at exit
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _failed(f"{where}{error.strerror or first_line(error)}")
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return _failed(f"not enough memory: {reason(error)}; use smaller batches, a smaller model or another device")
    except KeyboardInterrupt:
        print("jaxcrnn: interrupted", file=sys.stderr)
        return signals.INTERRUPTED


def prepare(modules: Sequence[str] | None) -> None:
    """Configure the allocator and the compilation cache, and import the modules of a command; not without jax."""
    if modules is None:
        return
    from jaxcrnn.cli._malloc import keep_freed_memory

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
