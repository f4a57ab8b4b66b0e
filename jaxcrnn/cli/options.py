"""Options that several commands share. Nothing here imports jax, so ``--help`` answers at once."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

# Imported before the garbage collector starts (`jaxcrnn.cli.main`) by commands that use a run.
RUN_MODULES = ("jaxcrnn.runs.folder", "jaxcrnn.decoding.evaluate")


class Parser(argparse.ArgumentParser):
    """A parser that reports a mistake on one line.

    Attributes:
      lists_keys: whether the help ends with every key of the configuration.
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
    """Subcommands, such as ``mine`` in ``jaxcrnn lookalikes mine``."""
    return parser.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=Parser)


def add_checkpoint(parser: argparse.ArgumentParser, default: str | None = "best") -> None:
    """``--checkpoint`` of a run."""
    parser.add_argument(
        "--checkpoint", default=default, metavar="WHICH", help="best (the default), latest, or a step's number"
    )


def add_trust(parser: argparse.ArgumentParser) -> None:
    """``--trust-code``, of every command that opens a run."""
    parser.add_argument(
        "--trust-code", action="store_true", help="import the modules that a run's loss names, which runs their code"
    )


def add_set(parser: argparse.ArgumentParser) -> None:
    """``--set KEY=VALUE``, which may be repeated and takes several."""
    parser.add_argument(
        "--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE", help="override keys: optim.steps=500"
    )


def add_groups(parser: argparse.ArgumentParser) -> None:
    """``--groups`` of look-alikes."""
    parser.add_argument("--groups", metavar="FILE", help="look-alike groups, one a line; default: those in the package")


def add_bounds(parser: argparse.ArgumentParser) -> None:
    """``--max-pixels`` and ``--max-bytes``."""
    for what in ("pixels", "bytes"):
        parser.add_argument(
            f"--max-{what}", type=int, metavar="N",
            help=f"most {what} of an image; default: the run's data.max_{what}, and no more than a new run's",
        )  # fmt: skip


def add_reading(parser: argparse.ArgumentParser, skip_bad: str = "images that cannot be read") -> None:
    """What may be read: ``--skip-bad``, ``--allow-outside`` and the bounds of images.

    Args:
      parser: parser of the command.
      skip_bad: what ``--skip-bad`` leaves out.
    """
    add_trust(parser)
    parser.add_argument("--skip-bad", action="store_true", help=f"leave out, counted, {skip_bad}")
    parser.add_argument(
        "--allow-outside", action="store_true", help="label files may name images outside the folder they are in"
    )
    add_bounds(parser)


def reading(args: argparse.Namespace) -> dict[str, Any]:
    """The values of `add_reading`, as `jaxcrnn.runs.usable_lines.usable_lines` takes them."""
    return {name: getattr(args, name) for name in ("skip_bad", "allow_outside", "max_pixels", "max_bytes")}
