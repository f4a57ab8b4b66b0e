"""``jaxcrnn recognize``: read the text in images with a trained run."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from jaxcrnn.cli import options
from jaxcrnn.cli.decoding import add_decoding, decoder_of
from jaxcrnn.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from jaxcrnn.decoding.evaluate import Line

SUMMARY = "read the text in images, with confidences"
MODULES = options.RUN_MODULES


def add_options(parser: options.Parser) -> None:
    parser.add_argument("run", help="run folder")
    parser.add_argument(
        "images", nargs="+", help="image files, folders, or - for one image or a list of paths on stdin"
    )
    options.add_checkpoint(parser)
    options.add_bounds(parser)
    options.add_trust(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    parser.add_argument(
        "--characters", action="store_true", help="with --json: add the confidence and position of each character"
    )
    add_decoding(parser)


def run(args: argparse.Namespace) -> int:
    """Report each unreadable image on its own line, and return 2 if there was one."""
    from jaxcrnn.data.images import ImageError, fit_height, read_gray
    from jaxcrnn.decoding.evaluate import recognize
    from jaxcrnn.runs.folder import open_run
    from jaxcrnn.runs.usable_lines import limits_of

    if args.characters and not args.json:
        raise UserError("--characters requires --json")
    opened = open_run(Path(args.run), args.trust_code)
    state, _ = opened.state(args.checkpoint)
    decoder = decoder_of(args, opened.charset)
    limits = limits_of(opened, max_pixels=args.max_pixels, max_bytes=args.max_bytes)
    failed = 0
    stretched: dict[str, float] = {}

    def images() -> Iterator[tuple[str, np.ndarray]]:
        nonlocal failed
        for name, file in _inputs(args.images, sys.stdin.buffer):
            try:
                gray = read_gray(file, limits, name)
                scaled = fit_height(gray, opened.config.model.height, limits, name)
                stretched[name] = gray.shape[1] / scaled.shape[1]
                yield name, scaled
            except ImageError as error:
                failed += 1
                print(f"jaxcrnn recognize: {error}", file=sys.stderr)
                if args.json:
                    print(json.dumps({"path": name, "error": str(error)}, ensure_ascii=False))

    for line in recognize(opened.reader_config, state, opened.charset, images(), decoder=decoder):
        print(_as_json(line, stretched[line.name], args.characters) if args.json else _as_text(line), flush=True)
    if failed > 1:
        raise UserError(f"{failed} images could not be read; each is named above")
    return 2 if failed else 0


def _as_text(line: Line) -> str:
    others = "".join(f"\t{text}" for text, _ in line.others)
    return f"{line.name}\t{line.text}\t{line.confidence:.4f}{others}"


def _as_json(line: Line, scale: float, characters: bool) -> str:
    """Format a line of output; positions are in pixels of the original image."""
    values: dict[str, Any] = {"path": line.name, "text": line.text, "confidence": round(line.confidence, 4)}
    if characters:
        values["characters"] = [
            {
                "text": c.text,
                "confidence": round(c.confidence, 4),
                "left": round(c.left * scale, 1),
                "right": round(c.right * scale, 1),
            }
            for c in line.characters
        ]
    if line.others:
        values["others"] = [{"text": text, "score": round(score, 4)} for text, score in line.others]
    return json.dumps(values, ensure_ascii=False)


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
            if skipped := walked.skipped(path, f"{others} non-image files" if others else ""):
                print(skipped, file=sys.stderr)
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
