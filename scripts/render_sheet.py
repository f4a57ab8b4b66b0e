"""Draws a sheet of rendered lines at each level, a text a row; with --lines, rows of real lines above them.

python scripts/render_sheet.py sheet.png [--fonts FOLDER --charset FILE] [--text FILE] [--lines LABELS]
"""

import argparse
import dataclasses
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from jaxcrnn.charset import Charset
from jaxcrnn.data.images import Limits, fit_height
from jaxcrnn.data.labels import LabelFile
from jaxcrnn.render import atlas, fonts
from jaxcrnn.render.config import LEVELS
from jaxcrnn.render.render import Glyphs, render
from jaxcrnn.render.texts import TextConfig, Texts

WIDTH, GAP, ROWS = 400, 6, 14


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--fonts", type=Path)
    parser.add_argument("--charset", type=Path)
    parser.add_argument("--text", default="lookalikes", help="lookalikes (the default), uniform, or a text file")
    parser.add_argument("--lines", type=Path, help="label file of real lines to show above")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    charset = Charset.from_file(args.charset) if args.charset else Charset(atlas.embedded().characters)
    characters = "".join(charset.characters)
    glyphs = atlas.build(characters, fonts.find(args.fonts)) if args.fonts else atlas.embedded()
    config = TextConfig(source=args.text, shortest=4, longest=14)
    texts = Texts(config, atlas.common(characters, glyphs), args.seed)
    labels, lengths = np.zeros((ROWS, config.longest), np.int32), np.zeros(ROWS, np.int32)
    for b in range(ROWS):
        ids = charset.encode(texts.draw(b))
        labels[b, : len(ids)], lengths[b] = ids, len(ids)
    columns = []
    for look in LEVELS.values():
        images, _ = jax.jit(render, static_argnames="config")(
            jax.random.key(args.seed),
            Glyphs.of(glyphs, charset),
            labels,
            lengths,
            dataclasses.replace(look, width=WIDTH),
        )
        gray = ((np.asarray(images)[..., 0] + 1) * 127.5).astype(np.uint8)
        columns.append(np.pad(gray, ((0, 0), (0, GAP), (0, GAP)), constant_values=255).reshape(-1, WIDTH + GAP))
    sheet = np.concatenate(columns, 1)
    if args.lines:
        sheet = np.concatenate([real(args.lines, sheet.shape[1]), sheet])
    Image.fromarray(sheet).save(args.out)
    print(f"{args.out}: {' | '.join(LEVELS)}" + (", real lines above" if args.lines else ""))


def real(path: Path, width: int) -> np.ndarray:
    """As many real lines as fit into eight rows."""
    rows, row, used = [], np.full((32 + GAP, width), 255, np.uint8), 0
    source, limits = LabelFile(path), Limits()
    for i in range(len(source)):
        gray = fit_height(source[i][0], 32, limits)
        if used + gray.shape[1] > width:
            rows.append(row)
            row, used = np.full((32 + GAP, width), 255, np.uint8), 0
        if len(rows) == 8 or gray.shape[1] > width:
            continue
        row[:32, used : used + gray.shape[1]] = gray
        used += gray.shape[1] + 2 * GAP
    return np.concatenate(rows)


if __name__ == "__main__":
    main()
