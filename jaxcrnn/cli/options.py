"""Options shared by several commands. This module does not import jax, so that ``--help`` is fast."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

# Imported before the garbage collector starts (`jaxcrnn.cli.main`) by commands that use a run.
RUN_MODULES = ("jaxcrnn.runs.folder", "jaxcrnn.decoding.evaluate")


class Parser(argparse.ArgumentParser):
    """Argument parser that reports errors on one line.

    Attributes:
      lists_keys: whether the help ends with the list of configuration keys.
    """

    lists_keys = False

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see '{self.prog} --help'\n")

    def format_help(self) -> str:
        if self.lists_keys:
            from jaxcrnn.cli._keys import describe  # imports jax

            self.epilog = describe()
        return super().format_help()


def add_actions(parser: argparse.ArgumentParser) -> Any:
    """Add subcommands, such as ``mine`` in ``jaxcrnn lookalikes mine``."""
    return parser.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=Parser)


def add_checkpoint(parser: argparse.ArgumentParser, default: str | None = "best") -> None:
    """Add ``--checkpoint``."""
    parser.add_argument(
        "--checkpoint",
        default=default,
        metavar="WHICH",
        help="checkpoint to load: best, latest or a step number; default: best",
    )


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Add ``--trust-code``, an option of every command that opens a run."""
    parser.add_argument(
        "--trust-code",
        action="store_true",
        help="import the Python modules that the run's loss names (runs their code)",
    )


def add_set(parser: argparse.ArgumentParser) -> None:
    """Add ``--set KEY=VALUE ...``, which may be repeated."""
    parser.add_argument(
        "--set",
        action="extend",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="override configuration keys, such as optim.steps=500",
    )


def add_groups(parser: argparse.ArgumentParser) -> None:
    """Add ``--groups``."""
    parser.add_argument(
        "--groups", metavar="FILE", help="look-alike groups, one per line; default: the package's own groups"
    )


def add_bounds(parser: argparse.ArgumentParser) -> None:
    """Add ``--max-pixels`` and ``--max-bytes``."""
    for unit in ("pixels", "bytes"):
        parser.add_argument(
            f"--max-{unit}",
            type=int,
            metavar="N",
            help=f"maximum {unit} of an image; default: the run's data.max_{unit}, capped at the default of new runs",
        )


def add_reading(parser: argparse.ArgumentParser, skip_bad: str = "unreadable images") -> None:
    """Add the options that control reading: ``--skip-bad``, ``--allow-outside`` and the bounds on images.

    Args:
      parser: parser of the command.
      skip_bad: what ``--skip-bad`` skips.
    """
    add_trust(parser)
    parser.add_argument("--skip-bad", action="store_true", help=f"skip and count {skip_bad} instead of stopping")
    parser.add_argument(
        "--allow-outside", action="store_true", help="allow label files to name images outside their own folder"
    )
    add_normalize(parser, "as the run was trained (data.normalize)")
    add_bounds(parser)


def add_normalize(parser: argparse.ArgumentParser, default: str) -> None:
    """Add ``--normalize``, whose default is described by ``default``."""
    parser.add_argument(
        "--normalize",
        metavar="OPERATIONS",
        help="normalize labels and report what changed: some of nfc (compose accents), width (half-width forms instead "
        "of full-width ones) and space (drop outer spaces and invisible characters), separated by commas; default: "
        f"{default}",
    )


def normalize_key(args: argparse.Namespace) -> list[str]:
    """Return the configuration override that ``--normalize`` stands for."""
    return [] if args.normalize is None else [f'data.normalize="{args.normalize}"']


def reading(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options of `add_reading` as arguments of `jaxcrnn.runs.usable_lines.usable_lines`."""
    return {name: getattr(args, name) for name in ("skip_bad", "allow_outside", "normalize", "max_pixels", "max_bytes")}
