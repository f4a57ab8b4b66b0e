"""``jaxcrnn recognize``: read the text in images with a trained run."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from jaxcrnn._console import notice, to_json
from jaxcrnn._text import counted
from jaxcrnn.cli import options
from jaxcrnn.cli.decoding import add_decoding, decoder_of
from jaxcrnn.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from jaxcrnn.decoding.evaluate import Line

SUMMARY = "read the text in images of single lines, with confidences"
MODULES = options.RUN_MODULES
BATCH_SIZE = 16


def add_options(parser: options.Parser) -> None:
    parser.add_argument("run", help="run folder made by 'jaxcrnn train' or 'jaxcrnn convert'")
    parser.add_argument(
        "images", nargs="+", help="image files, folders of images, or - for one image or a list of paths on stdin"
    )
    options.add_batch_size(parser)
    options.add_checkpoint(parser)
    options.add_bounds(parser)
    options.add_trust(parser)
    parser.add_argument(
        "--json", action="store_true", help="print a JSON object per image instead of path<TAB>text<TAB>confidence"
    )
    parser.add_argument(
        "--characters",
        action="store_true",
        help="with --json: add the confidence of each character and its position in pixels",
    )
    add_decoding(parser)


def run(args: argparse.Namespace) -> int:
    """Report each unreadable image on its own line, and return 2 if there was one."""
    from jaxcrnn.data.images import ImageError, fit_height, noting_pages, pages_note, read_gray
    from jaxcrnn.decoding.evaluate import recognize
    from jaxcrnn.runs.folder import open_run
    from jaxcrnn.runs.usable_lines import limits_of

    if args.characters and not args.json:
        raise UserError("--characters requires --json")
    batch_size = options.batch_size(args, BATCH_SIZE)
    opened = open_run(Path(args.run), args.trust_code)
    state, _ = opened.state(args.checkpoint)
    decoder = decoder_of(args, opened.charset)
    limits = limits_of(
        opened,
        max_pixels=args.max_pixels,
        max_bytes=args.max_bytes,
        max_width=args.max_width,
        vertical=args.vertical,
    )
    failed = 0
    places: dict[str, _Place] = {}

    def images() -> Iterator[tuple[str, np.ndarray]]:
        nonlocal failed
        for name, file in _inputs(args.images, sys.stdin.buffer):
            try:
                gray = read_gray(file, limits, name)
                scaled = fit_height(gray, opened.config.model.height, limits, name)
                turned = limits.vertical and gray.shape[0] > gray.shape[1]
                places[name] = _Place(gray.shape[0 if turned else 1] / scaled.shape[1], turned)
                yield name, scaled
            except ImageError as error:
                failed += 1
                print(f"jaxcrnn recognize: {error}", file=sys.stderr)
                if args.json:
                    print(to_json({"path": name, "error": str(error)}))

    with noting_pages() as pages:
        read = recognize(opened.reader_config, state, opened.charset, images(), batch_size=batch_size, decoder=decoder)
        for line in read:
            print(_as_json(line, places[line.name], args.characters) if args.json else _as_text(line), flush=True)
    if pages:
        print(f"jaxcrnn recognize: {pages_note(pages)}", file=sys.stderr)
    if failed > 1:
        raise UserError(f"{failed} images could not be read; each is named above")
    return 2 if failed else 0


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
            }
            for c in line.characters
        ]
    if line.others:
        values["others"] = [{"text": text, "score": round(score, 4)} for text, score in line.others]
    return to_json(values)


def _inputs(items: list[str], stdin: BinaryIO) -> Iterator[tuple[str, str | bytes]]:
    """Yield names and files: the sorted images of a folder, and for ``-`` the image or the list of paths on stdin."""
    from jaxcrnn._files import walk
    from jaxcrnn.data.folders import image_endings

    for item in items:
        path = Path(item)
        if item == "-":
            data = stdin.read()
            paths = _paths(data)
            yield from [("stdin", data)] if paths is None else ((path, path) for path in paths)
        elif path.is_dir():
            walked = walk(path)
            images = [p for p in walked.files if p.suffix.lower() in image_endings()]
            others = len(walked.files) - len(images)
            if skipped := walked.skipped(path, counted(others, "non-image file") if others else ""):
                notice(skipped)
            if not images:
                raise UserError(f"{item}: no images in this folder; expected files such as .png or .jpg")
            yield from ((str(p), str(p)) for p in images)
        else:
            yield item, item


def _paths(data: bytes) -> list[str] | None:
    """Split a list of paths, which need not be UTF-8 if the first one exists; return None for an image."""
    lines = [line.removesuffix(b"\r") for line in data.split(b"\n") if line.strip()]
    try:
        return [line.decode("utf-8") for line in lines]
    except UnicodeDecodeError:
        is_list = b"\0" not in data and os.path.exists(lines[0])
        return [os.fsdecode(line) for line in lines] if is_list else None
