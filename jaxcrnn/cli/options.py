"""Options shared by several commands. This module does not import jax, so that ``--help`` is fast."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from jaxcrnn.errors import UserError

# Imported before the garbage collector starts (`jaxcrnn.cli.main`) by commands that use a run.
RUN_MODULES = ("jaxcrnn.interop.trained", "jaxcrnn.decoding.evaluate")


class Parser(argparse.ArgumentParser):
    """Argument parser that reports errors on one line.

    Attributes:
      lists_keys: whether the help ends with the list of configuration keys.
      gathered: name of the positional argument that may continue after options; argparse takes only the first group.
    """

    lists_keys = False
    gathered = ""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see '{self.prog} --help'\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Let the command that does not know an argument report it, so that the error names its own help."""
        values, others = super().parse_known_args(args, namespace)
        if self.gathered:
            getattr(values, self.gathered).extend(other for other in others if other == "-" or other[:1] != "-")
            others = [other for other in others if other != "-" and other[:1] == "-"]
        if others and " " in self.prog:
            self.error(f"unrecognized arguments: {' '.join(others)}")
        return values, others

    def format_help(self) -> str:
        if self.lists_keys:
            from jaxcrnn.cli._keys import describe  # imports jax

            self.epilog = describe()
        return super().format_help()


def add_actions(parser: argparse.ArgumentParser) -> Any:
    """Add subcommands, such as ``mine`` in ``jaxcrnn lookalikes mine``."""
    return parser.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=Parser)


TRAINED = "pretrained, the run folder of 'jaxcrnn train' or 'jaxcrnn convert', or a folder exported as safetensors"


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add the positional argument ``run``, for `jaxcrnn.interop.trained.open_trained`."""
    parser.add_argument("run", help=f"trained recogniser: {TRAINED}")


def add_checkpoint(parser: argparse.ArgumentParser, default: str | None = "best") -> None:
    """Add ``--checkpoint``."""
    parser.add_argument(
        "--checkpoint",
        default=default,
        metavar="WHICH",
        help="checkpoint of a run to load: best (highest validation accuracy), latest or a step number; default: best",
    )


def add_batch_size(parser: argparse.ArgumentParser) -> None:
    """Add ``--batch-size``."""
    parser.add_argument(
        "--batch-size", type=int, metavar="N", help="lines in a batch; affects speed and memory, not results"
    )


def batch_size(args: argparse.Namespace, default: int) -> int:
    """Return the option of `add_batch_size`, or its default.

    Raises:
      UserError: it is below 1.
    """
    if args.batch_size is not None and args.batch_size < 1:
        raise UserError(f"--batch-size {args.batch_size}: expected 1 or more")
    return args.batch_size or default


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Add ``--trust-code``, an option of every command that opens a run."""
    parser.add_argument(
        "--trust-code",
        action="store_true",
        help="import and run the Python modules of a loss that is defined outside jaxcrnn (docs/new-loss.md)",
    )


def add_set(parser: argparse.ArgumentParser) -> None:
    """Add ``--set KEY=VALUE ...``, which may be repeated."""
    parser.add_argument(
        "--set",
        action="extend",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="override configuration keys, such as optim.steps=500; 'jaxcrnn train --help' lists them",
    )


def add_groups(parser: argparse.ArgumentParser) -> None:
    """Add ``--groups``."""
    parser.add_argument(
        "--groups", metavar="FILE", help="look-alike groups, one per line; default: the package's own groups"
    )


def add_bounds(parser: argparse.ArgumentParser) -> None:
    """Add ``--max-pixels``, ``--max-bytes``, ``--max-width`` and ``--vertical``."""
    for unit in ("pixels", "bytes"):
        parser.add_argument(
            f"--max-{unit}",
            type=int,
            metavar="N",
            help=f"maximum {unit} of an image; default: the run's data.max_{unit}, but at most that key's default",
        )
    parser.add_argument(
        "--max-width",
        type=int,
        metavar="N",
        help="maximum width in pixels of a line at the model's height; default: the run's data.max_width",
    )
    add_vertical(parser, "; default: as the run was trained (data.vertical)")


def add_vertical(parser: argparse.ArgumentParser, default: str = "; sets data.vertical") -> None:
    """Add ``--vertical`` and ``--no-vertical``.

    Args:
      parser: parser of the command.
      default: end of the help.
    """
    parser.add_argument(
        "--vertical",
        action=argparse.BooleanOptionalAction,
        help=f"rotate lines taller than wide by 90 degrees counterclockwise, for vertical text{default}",
    )


def add_reread(parser: argparse.ArgumentParser) -> None:
    """Add ``--reread``."""
    parser.add_argument(
        "--reread",
        type=float,
        metavar="X",
        help="read lines whose confidence is below X again, narrower and wider, and keep the most confident reading; 0 "
        "for never; default: as the model records (data.reread)",
    )


def vertical_key(args: argparse.Namespace) -> list[str]:
    """Return the configuration override that ``--vertical`` stands for."""
    return [] if args.vertical is None else [f"data.vertical={str(args.vertical).lower()}"]


def add_layout(parser: argparse.ArgumentParser) -> None:
    """Add ``--format``, ``--encoding`` and ``--root``."""
    parser.add_argument(
        "--format",
        metavar="NAME",
        help="format of the data set: labels (path<TAB>text), tsv (the same with texts quoted as in CSV), space (a "
        'space for the tab), icdar (path, "text"), csv, json, lmdb, or names (images named by their texts); default: '
        "detected",
    )
    parser.add_argument(
        "--encoding",
        metavar="NAME",
        help="text encoding of label files, such as gbk or utf-16, and of file names that are not UTF-8; default: "
        "utf-8",
    )
    parser.add_argument(
        "--root",
        metavar="FOLDER",
        help="folder that paths in label files are relative to; default: the folder of the label file",
    )


def layout(args: argparse.Namespace) -> dict[str, str]:
    """Return the options of `add_layout` that were given, as fields of `jaxcrnn.data.layout.Layout`."""
    return {name: getattr(args, name) for name in ("format", "encoding", "root") if getattr(args, name)}


def add_reading(parser: argparse.ArgumentParser, skip_bad: str = "unreadable images") -> None:
    """Add the options that control reading: ``--skip-bad``, ``--allow-outside``, the bounds on images and the layout.

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
    add_layout(parser)


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
    names = ("skip_bad", "allow_outside", "normalize", "max_pixels", "max_bytes", "max_width", "vertical")
    return {name: getattr(args, name) for name in names} | {"layout": layout(args)}
