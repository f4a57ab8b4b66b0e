"""The command line: options in, exit codes out.

0 is fine, 2 a mistake of the user (one clear line), 1 a fault of ours (a traceback).
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from jaxcrnn import __version__
from jaxcrnn._text import first_line
from jaxcrnn.cli import options
from jaxcrnn.errors import UserError

COMMANDS = {
    "train": (options.train_options, "cli.train.train", "train a recogniser on a label file"),
    "evaluate": (options.evaluate_options, "cli.reading.evaluate_run", "read a data set with a run and score it"),
    "recognize": (
        options.recognize_options,
        "cli.reading.recognize_images",
        "read images with a run: text and confidence",
    ),
    "centers": (options.centers_options, "cli.reading.estimate", "make class centers with a trained run"),
    "lookalikes": (
        options.lookalikes_options,
        "cli.lookalikes.run",
        "find characters that look alike, score how they are read, and tune reading them",
    ),
    "compare": (
        options.compare_options,
        "experiments.run.run",
        "train a grid of losses and seeds, and say which differ",
    ),
    "report": (options.report_options, "report.build.run", "one page that shows a run or a comparison"),
    "lm": (options.lm_options, "decoding.ngram.run", "make a character n-gram model for decoding"),
    "parity": (options.parity_options, "cli.reading.parity_ladder", "compare every number with the PyTorch reference"),
    "bench": (options.bench_options, "bench.run.run", "time a step and its parts beside PyTorch, in turns"),
    "plan": (options.plan_options, "bench.aot.run", "compile the step for a TPU or a mesh, and say what it costs"),
    "convert": (options.convert_options, "interop.importer.run", "make a run folder from another program's checkpoint"),
    "export": (options.export_options, "interop.exporters.run", "write a recogniser for other programs"),
    "data": (options.data_options, "cli.data.run", "audit or convert a data set"),
    "doctor": (
        options.doctor_options,
        "cli.doctor.run",
        "say what is installed, what is not, and what that would enable",
    ),
    "completion": (
        options.completion_options,
        "cli.doctor.completion",
        "print a script that completes commands in a shell",
    ),
    "demo": (
        options.demo_options,
        "cli.demo.run",
        "compare four losses on rendered look-alikes in some minutes, no data needed",
    ),
}


def parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """All commands; the keys of the configuration are listed where ``argv`` asks for a help that has them."""
    whole = options.Parser("jaxcrnn", description="Text recognition that tells look-alike characters apart.")
    whole.add_argument("--version", action="version", version=f"jaxcrnn {__version__}")
    commands = whole.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=options.Parser)
    for name, (add, _, summary) in COMMANDS.items():
        sub = commands.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        add(sub)
        if name in ("train", "demo") and name in argv:
            from jaxcrnn.runs.config import describe

            sub.epilog = "keys of --config and --set, with their defaults:\n" + describe()
    return whole


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit code."""
    if own := argv is None:
        argv = sys.argv[1:]
        gc.disable()
    try:
        # Parsed before jax is imported, so that --help and a mistyped option answer at once.
        args = parser(argv if {"-h", "--help"} & set(argv) else ()).parse_args(argv)
        from jaxcrnn.runs.allocator import keep_freed_memory

        keep_freed_memory()
        from jaxcrnn.runs.compile import cache_programs

        cache_programs()
        module, _, function = COMMANDS[args.command][1].rpartition(".")
        command = getattr(import_module(f"jaxcrnn.{module}"), function)
        if own:  # what the libraries made stays to the end: looking through it again and again is a tenth of a start
            gc.freeze()
            gc.enable()
        return int(command(args))
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


def _failed(message: str) -> int:
    print(f"jaxcrnn: {message}", file=sys.stderr)
    if "jaxcrnn.runs.processes" in sys.modules:
        sys.modules["jaxcrnn.runs.processes"].leave(2)
    return 2


if __name__ == "__main__":
    sys.exit(main())
