"""Draws a sheet of rendered lines, at each level (a text a row), or many at one level.

python scripts/render_sheet.py sheet.png [--text FILE]                              # the levels side by side
python scripts/render_sheet.py sheet.png --level forms --count 60                   # 60 lines, each with its own text
python scripts/render_sheet.py sheet.png --level forms --lines LABELS --fonts FOLDER  # below each real line, its text

Without --level, --lines draws rows of real lines above the rendered ones.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from jaxcrnn.charset import Charset
from jaxcrnn.data.images import Limits, fit_height
from jaxcrnn.data.labels import LabelFile
from jaxcrnn.render import atlas, fonts
from jaxcrnn.render.config import LEVELS, RenderConfig
from jaxcrnn.render.render import Glyphs, render
from jaxcrnn.render.texts import TextConfig, Texts

HEIGHT, GAP = 32, 6
WIDTH, ROWS = 400, 14  # of a level
SHEET = 960  # width of a sheet of lines at one level
GROUND = 205  # gray between its lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--fonts", type=Path, help="folder of fonts (default: the package's own)")
    parser.add_argument("--charset", type=Path, help="charset file (default: the package's own, or that of --lines)")
    parser.add_argument(
        "--text", default="lookalikes", help="lookalikes (the default), uniform, a text file, or a mixture (*.yaml)"
    )
    parser.add_argument("--level", choices=LEVELS, help="draw many lines at this level only")
    parser.add_argument("--count", type=int, default=60, help="lines with --level (default: 60)")
    parser.add_argument("--longest", type=int, default=14, help="characters of a line (default: 14)")
    parser.add_argument("--lines", type=Path, help="label file of real lines to show, too")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    charset = chosen_charset(args)
    characters = "".join(charset.characters)
    glyphs = atlas.build(characters, fonts.find(args.fonts)) if args.fonts else atlas.embedded()
    if args.level:
        of_level(args, charset, glyphs)
    else:
        of_all(args, charset, glyphs)


def chosen_charset(args: argparse.Namespace) -> Charset:
    if args.charset:
        return Charset.from_file(args.charset)
    if args.level and args.lines:
        source = LabelFile(args.lines)
        return Charset("".join(sorted({c for i in range(len(source)) for c in source.text(i)})))
    return Charset(atlas.embedded().characters)


def drawn(
    texts: Sequence[str], charset: Charset, glyphs: atlas.Atlas, config: RenderConfig, seed: int
) -> list[np.ndarray]:
    """Grays of the rendered texts, each with its own width."""
    labels = np.zeros((len(texts), max(map(len, texts))), np.int32)
    lengths = np.zeros(len(texts), np.int32)
    for b, text in enumerate(texts):
        ids = charset.encode(text)
        labels[b, : len(ids)], lengths[b] = ids, len(ids)
    arguments = jax.random.key(seed), Glyphs.of(glyphs, charset), labels, lengths, config
    images, widths = jax.jit(render, static_argnames="config")(*arguments)
    grays = ((np.asarray(images)[..., 0] + 1) * 127.5).astype(np.uint8)
    return [gray[:, :width] for gray, width in zip(grays, widths.tolist(), strict=True)]


def random_texts(args: argparse.Namespace, characters: str, count: int, shortest: int) -> list[str]:
    texts = Texts(TextConfig(source=args.text, shortest=shortest, longest=args.longest), characters, args.seed)
    return [texts.draw(i) for i in range(count)]


def of_all(args: argparse.Namespace, charset: Charset, glyphs: atlas.Atlas) -> None:
    """A column of lines at each level but the one of forms, which looks best alone."""
    texts = random_texts(args, atlas.common("".join(charset.characters), glyphs), ROWS, 4)
    names = [name for name in LEVELS if name != "forms"]
    columns = []
    for name in names:
        lines = drawn(texts, charset, glyphs, dataclasses.replace(LEVELS[name], width=WIDTH), args.seed)
        padded = [np.pad(g, ((0, GAP), (0, WIDTH + GAP - g.shape[1])), constant_values=255) for g in lines]
        columns.append(np.concatenate(padded))
    sheet = np.concatenate(columns, 1)
    if args.lines:
        above = packed([gray for gray, _ in real_lines(args.lines)], sheet.shape[1], 255, most=8)
        sheet = np.concatenate([above, sheet])
    Image.fromarray(sheet).save(args.out)
    print(f"{args.out}: {' | '.join(names)}" + (", real lines above" if args.lines else ""))


def of_level(args: argparse.Namespace, charset: Charset, glyphs: atlas.Atlas) -> None:
    """Lines at one level; with real lines, each real one and below it its text, rendered."""
    look = dataclasses.replace(LEVELS[args.level], width=SHEET)
    if not args.lines:
        texts = random_texts(args, atlas.common("".join(charset.characters), glyphs), args.count, 1)
        sheet = packed(drawn(texts, charset, glyphs, look, args.seed), SHEET)
    else:
        real = [(gray[:, :SHEET], text) for gray, text in real_lines(args.lines)[: args.count]]
        rendered = drawn([text for _, text in real], charset, glyphs, look, args.seed)
        pairs = []
        for (above, _), below in zip(real, rendered, strict=True):
            pair = np.full((2 * HEIGHT + GAP // 2, max(above.shape[1], below.shape[1])), GROUND, np.uint8)
            pair[:HEIGHT, : above.shape[1]], pair[-HEIGHT:, : below.shape[1]] = above, below
            pairs.append(pair)
        sheet = packed(pairs, SHEET)
    Image.fromarray(sheet).save(args.out, optimize=True)
    print(f"{args.out}: {args.count} lines at {args.level}" + (", each below its real line" if args.lines else ""))


def real_lines(path: Path) -> list[tuple[np.ndarray, str]]:
    source, limits = LabelFile(path), Limits()
    return [(fit_height(source[i][0], HEIGHT, limits), source.text(i)) for i in range(len(source))]


def packed(grays: Sequence[np.ndarray], width: int, ground: int = GROUND, most: int = 1000) -> np.ndarray:
    """Put images of one height next to each other into at most so many rows of a width; wider ones are skipped."""
    height = grays[0].shape[0]
    rows, used = [np.full((height + GAP, width), ground, np.uint8)], 0
    for gray in grays:
        if gray.shape[1] > width:
            continue
        if used + gray.shape[1] > width:
            if len(rows) == most:
                break
            rows.append(np.full((height + GAP, width), ground, np.uint8))
            used = 0
        rows[-1][:height, used : used + gray.shape[1]] = gray
        used += gray.shape[1] + 2 * GAP
    return np.concatenate(rows)


if __name__ == "__main__":
    main()
