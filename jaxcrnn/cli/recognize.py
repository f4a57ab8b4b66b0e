"""``jaxcrnn recognize``: read the text in images."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from jaxcrnn._console import notice, to_json
from jaxcrnn._text import counted
from jaxcrnn.cli import options
from jaxcrnn.cli.decoding import add_decoding, decoder_of, decodes
from jaxcrnn.errors import UserError

if TYPE_CHECKING:
    from jaxcrnn.data.images import Limits
    from jaxcrnn.decoding.lines import Line, NamedLooks

SUMMARY = "read the text in images of single lines, with confidences"
BATCH_SIZE = 16
EXAMPLES = """examples:
  jaxcrnn recognize photo.png                       read with the weights of the package
  jaxcrnn recognize runs/mine photo.png folder/     read with a trained run
  jaxcrnn recognize exported - < list.txt           read with an exported model
"""
_MODELS = ("config.yaml", "run.json", "config.json")  # one of them is in a run folder or an exported folder
_WEIGHTS = (".pth", ".pt", ".ckpt", ".safetensors", ".onnx", ".h5", ".npz", ".pdparams")


def add_options(parser: options.Parser) -> None:
    parser.epilog = EXAMPLES
    parser.gathered = "items"
    parser.usage = "%(prog)s [options] [MODEL] IMAGE [IMAGE ...]"
    parser.add_argument(
        "items",
        nargs="+",
        metavar="IMAGE",
        help="image files, folders of images, or - for one image or a list of paths on stdin. The first one may be the "
        "MODEL instead: 'pretrained' (the weights of the package, the default), a run folder made by 'jaxcrnn train' "
        "or 'jaxcrnn convert', or a folder exported as safetensors",
    )
    parser.add_argument(
        "--engine",
        choices=["auto", "jax", "onnx"],
        default="auto",
        help="program that reads: onnx (onnxruntime, which starts at once; CPUs only; needs the extra 'onnx'), jax, or "
        "auto (the default): onnx if it is installed, the device is a CPU and no option of the group 'decoding' is "
        "given; jax otherwise. Results are equal up to rounding",
    )
    options.add_batch_size(parser)
    options.add_checkpoint(parser)
    options.add_bounds(parser)
    options.add_reread(parser)
    options.add_trust(parser)
    parser.add_argument(
        "--json", action="store_true", help="print a JSON object per image instead of path<TAB>text<TAB>confidence"
    )
    parser.add_argument(
        "--characters",
        action="store_true",
        help="with --json: add each character's confidence, position in pixels, and the others that it may be",
    )
    add_decoding(parser)


def MODULES(args: argparse.Namespace) -> tuple[str, ...] | None:
    """Return the modules that reading imports; None if it runs without jax."""
    from jaxcrnn.interop import engines
    from jaxcrnn.interop.exported import is_exported

    model, _ = _split(args.items)
    is_run = not is_exported(model)
    return options.RUN_MODULES if is_run or engines.choose(args.engine, needs_jax=decodes(args)) == "jax" else None


def run(args: argparse.Namespace) -> int:
    """Report each unreadable image on its own line, and return 2 if there was one."""
    from jaxcrnn.cli.main import prepare
    from jaxcrnn.data.images import noting_pages, pages_note
    from jaxcrnn.interop import engines
    from jaxcrnn.interop.recognizer import open_model

    if args.characters and not args.json:
        raise UserError("--characters requires --json")
    batch_size = options.batch_size(args, BATCH_SIZE)
    model, items = _split(args.items)
    reader = open_model(model, args.checkpoint, trust_code=args.trust_code, engine=args.engine)
    reader = dataclasses.replace(reader, limits=_limits(args, model, reader.limits))
    uses_jax = engines.choose(args.engine, reader.model, decodes(args)) == "jax"
    if uses_jax:
        prepare(options.RUN_MODULES)
    images = _Images(args, reader.model.height, reader.limits)
    files = list(_inputs(items, sys.stdin.buffer, model))
    with noting_pages() as pages:
        read = reader.lines(
            images.scaled(files),
            batch_size=batch_size,
            expected=len(files),
            characters=args.characters,
            decoder=decoder_of(args, reader.charset),
        )
        for line in read:
            place = images.places[line.name]
            print(_as_json(line, place, args.characters) if args.json else _as_text(line), flush=True)
    if pages:
        print(f"jaxcrnn recognize: {pages_note(pages)}", file=sys.stderr)
    if images.failed > 1:
        raise UserError(f"{images.failed} images could not be read; each is named above")
    return 2 if images.failed else 0


def _split(items: list[str]) -> tuple[str, list[str]]:
    """Split the arguments into the model and the images.

    Raises:
      UserError: the first one is neither, or there are no images.
    """
    from jaxcrnn.interop.exported import PACKAGE, located

    first, rest = Path(items[0]), items[1:]
    if _is_model(located(items[0])):
        if not rest:
            raise UserError(f"{items[0]}: is a model; expected images after it (files, folders, or - for stdin)")
        return items[0], rest
    from jaxcrnn.data.folders import image_endings

    expected = "expected a run folder, an exported folder, 'pretrained' or images"
    if first.suffix.lower() in _WEIGHTS:
        raise UserError(
            f"{items[0]}: is not an image; {expected} (import a checkpoint of another program first: jaxcrnn convert "
            f"{items[0]} --charset FILE --out FOLDER)"
        )
    if rest and items[0] != "-" and not first.exists() and first.suffix.lower() not in image_endings():
        raise UserError(f"{items[0]}: no such file or folder; {expected}")
    return str(PACKAGE), items  # also if the current folder contains something named pretrained


def _is_model(folder: Path) -> bool:
    """Return whether a folder is a run or an exported model; other programs also have a ``config.json``."""
    from jaxcrnn.interop.exported import CONFIG, WEIGHTS, states_format

    if any((folder / name).is_file() for name in _MODELS if name != CONFIG):
        return True
    return (folder / CONFIG).is_file() and (states_format(folder) or (folder / WEIGHTS).is_file())


def _limits(args: argparse.Namespace, model: str, own: Limits) -> Limits:
    from jaxcrnn.data.bounds import bounded
    from jaxcrnn.interop.exported import CONFIG, is_exported, located

    folder = located(model)
    place = f"{folder / CONFIG}: images" if is_exported(model) else f"{folder / 'config.yaml'}: data"
    bounds = {name: getattr(args, name) for name in ("max_pixels", "max_bytes", "max_width", "vertical", "reread")}
    return bounded(own, place, **bounds)


class _Images:
    """Images that are read on the way; unreadable ones are reported.

    Attributes:
      failed: number of unreadable images.
      places: by the name of an image, how positions in its scaled line become positions in the image.
    """

    def __init__(self, args: argparse.Namespace, height: int, limits: Limits) -> None:
        self.json, self.height, self.limits = args.json, height, limits
        self.failed = 0
        self.places: dict[str, _Place] = {}

    def scaled(self, files: list[tuple[str, str | bytes]]) -> Iterator[NamedLooks]:
        """Yield the names and the scaled lines of images."""
        from jaxcrnn.data.images import ImageError, looks, read_gray

        for name, file in files:
            try:
                gray = read_gray(file, self.limits, name)
                lines = looks(gray, self.height, self.limits, name)
            except ImageError as error:
                self.failed += 1
                print(f"jaxcrnn recognize: {error}", file=sys.stderr)
                if self.json:
                    print(to_json({"path": name, "error": str(error)}))
                continue
            turned = self.limits.vertical and gray.shape[0] > gray.shape[1]
            self.places[name] = _Place(gray.shape[0 if turned else 1] / lines[0].shape[1], turned)
            yield name, lines


def _as_text(line: Line) -> str:
    others = "".join(f"\t{text}" for text, _ in line.others)
    return f"{line.name}\t{line.text}\t{line.confidence:.4f}{others}"


class _Place(NamedTuple):
    """How positions in a scaled line become positions in its image: by a factor, and down it if it was rotated."""

    scale: float
    turned: bool


def _as_json(line: Line, place: _Place, characters: bool) -> str:
    """Format a line of output; positions are in pixels of the original image."""
    start, end = ("top", "bottom") if place.turned else ("left", "right")
    values: dict[str, Any] = {"path": line.name, "text": line.text, "confidence": round(line.confidence, 4)}
    if characters:
        values["characters"] = [
            {
                "text": c.text,
                "confidence": round(c.confidence, 4),
                start: round(c.left * place.scale, 1),
                end: round(c.right * place.scale, 1),
                "rivals": {text: round(probability, 4) for text, probability in c.rivals},
            }
            for c in line.characters
        ]
    if line.others:
        values["others"] = [{"text": text, "score": round(score, 4)} for text, score in line.others]
    return to_json(values)


def _inputs(items: list[str], stdin: BinaryIO, model: str) -> Iterator[tuple[str, str | bytes]]:
    """Yield names and files: the sorted images of a folder, and for ``-`` the image or the list of paths on stdin."""
    from jaxcrnn._files import walk
    from jaxcrnn.data.folders import image_endings
    from jaxcrnn.interop.exported import PACKAGE

    expected = "files such as .png or .jpg"
    if model == str(PACKAGE):  # perhaps the first one was meant as the model
        expected += ", or a model: a folder with config.yaml (a run) or config.json (an exported model)"
    for item in items:
        path = Path(item)
        if item == "-":
            data = stdin.read()
            if not data.strip():
                raise UserError("-: nothing on stdin; expected an image or a list of paths")
            paths = _paths(data)
            yield from [("stdin", data)] if paths is None else ((path, path) for path in paths)
        elif path.is_dir():
            walked = walk(path)
            images = [p for p in walked.files if p.suffix.lower() in image_endings()]
            others = len(walked.files) - len(images)
            if not images and (other := _not_images(path)):
                raise UserError(f"{item}: {other}")
            if skipped := walked.skipped(path, counted(others, "non-image file") if others else ""):
                notice(skipped)
            if not images:
                raise UserError(f"{item}: no images in this folder; expected {expected}")
            yield from ((str(p), str(p)) for p in images)
        else:
            yield item, item


def _not_images(folder: Path) -> str:
    """Describe a folder that is a model, or inside one; empty if it is neither."""
    if any((folder / name).is_file() for name in _MODELS):
        return "is a model and contains no images; expected it before the images"
    inside = next((one for one in list(folder.parents)[:2] if (one / "run.json").is_file()), None)
    return f"is inside the run folder {inside}; expected that folder, with --checkpoint for a step" if inside else ""


def _paths(data: bytes) -> list[str] | None:
    """Split a list of paths, which need not be UTF-8 if the first one exists; return None for an image."""
    lines = [line.removesuffix(b"\r") for line in data.split(b"\n") if line.strip()]
    try:
        return [line.decode("utf-8") for line in lines]
    except UnicodeDecodeError:
        is_list = b"\0" not in data and os.path.exists(lines[0])
        return [os.fsdecode(line) for line in lines] if is_list else None
