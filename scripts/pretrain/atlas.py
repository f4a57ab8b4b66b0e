"""Draws every character of the pretrained recogniser in every typeface for training.

python scripts/pretrain/atlas.py PACKAGES OUT    # PACKAGES: the folder that scripts/fetch.py wrote

Writes OUT/charset.txt (one character a line), OUT/atlas.npz (a compact atlas, which `text.fonts` of a configuration
also takes) and OUT/similar.npz (the typefaces in which look-alikes are searched). Typefaces whose package is missing
are skipped.
"""

import argparse
import functools
import multiprocessing
import os
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jaxcrnn.charset import Charset
from jaxcrnn.render import atlas
from jaxcrnn.render.atlas import BASELINE, EM, SIZE, Atlas, is_space
from jaxcrnn.render.fonts import Face, code_points

sys.path.append(str(Path(__file__).parents[1]))
from fetch import Typeface, find, typefaces

LAST_LATIN = 0x2FF
SIGNS = (
    "、。·—～…‘’“”《》〈〉「」『』【】〔〕！（），．：；？％＋－／＝＜＞＠＃＆＊￥±×÷≤≥≠≈∞√°′″℃‰§№"
    "①②③④⑤⑥⑦⑧⑨⑩ⅠⅡⅢⅣⅤⅥⅦⅧⅨⅩⅪⅫ○●△▲□■◇◆☆★※→←↑↓々〇€£¥©®™αβγΩμ"
)


def characters(most: int) -> str:
    """Printable ASCII, common signs and `most` Han characters of GB 2312, level 1 (frequent) before level 2."""
    han = (bytes([row, cell]).decode("gb2312", "ignore") for row in range(0xB0, 0xF8) for cell in range(0xA1, 0xFF))
    return "".join(dict.fromkeys([*map(chr, range(32, 127)), *SIGNS, *[c for c in han if c][:most]]))


def draw(typeface: Typeface, packages: Path, text: str) -> Atlas | None:
    """Draws characters in one typeface; None if its package is missing."""
    path = find(packages, typeface)
    if path is None:
        return None
    drawn = _enlarged(typeface, path, text) if typeface.pixels else atlas.build(text, [Face(path)], cached=False)
    kept = np.asarray([not typeface.latin or ord(c) <= LAST_LATIN for c in text])
    return drawn._replace(tiles=drawn.tiles * kept[:, None, None], present=drawn.present & kept)


def _enlarged(typeface: Typeface, path: Path, text: str) -> Atlas:
    """Glyphs drawn at the size of a font's bitmaps, with the margins of a tile, then enlarged."""
    em = typeface.pixels
    cell = em + em // 4
    font = ImageFont.truetype(str(path), em, layout_engine=ImageFont.Layout.BASIC)
    # fontTools does not read .pcf, so glyphs that such a font lacks are found by the box drawn in their place.
    bitmaps_only = path.suffix == ".pcf"
    have = set() if bitmaps_only else code_points(path)
    box = bytes(font.getmask("\ue777")) if bitmaps_only else b""
    tiles = np.zeros((1, len(text), SIZE, SIZE), np.uint8)
    advances = np.ones((1, len(text)), np.float32)
    present = np.zeros((1, len(text)), bool)
    for i, character in enumerate(text):
        if bytes(font.getmask(character)) == box if bitmaps_only else ord(character) not in have:
            continue
        advance = font.getlength(character)
        image = Image.new("L", (cell, cell))
        place = ((cell - advance) / 2, em * BASELINE / EM)
        ImageDraw.Draw(image).text(place, character, fill=255, font=font, anchor="ls")
        tiles[0, i] = np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BICUBIC))
        advances[0, i] = advance / em
        present[0, i] = bool(tiles[0, i].any()) or is_space(character)
    return Atlas(text, (typeface.name,), tiles, advances, present)


def joined(parts: list[Atlas]) -> Atlas:
    arrays = zip(*((part.tiles, part.advances, part.present) for part in parts), strict=True)
    return Atlas(parts[0].characters, sum((part.fonts for part in parts), ()), *map(np.concatenate, arrays))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", type=Path, help="folder of packages")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--han", type=int, default=6763, help="Han characters of the charset (default: all 6763)")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes (default: one per CPU)")
    args = parser.parse_args()
    text, wanted = characters(args.han), typefaces("training")
    args.out.mkdir(parents=True, exist_ok=True)
    with multiprocessing.get_context("spawn").Pool(args.workers) as pool:
        results = pool.map(functools.partial(draw, packages=args.packages, text=text), wanted, chunksize=1)
    drawn = {typeface: part for typeface, part in zip(wanted, results, strict=True) if part is not None}
    if not any(not typeface.latin for typeface in drawn):
        sys.exit(f"{args.packages}: no typeface with Han characters; run scripts/fetch.py training first")
    for typeface, part in drawn.items():
        print(f"{typeface.name}: {part.present.sum()} of {len(text)} characters")
    print(f"{len(drawn)} of {len(wanted)} typefaces drawn")
    similar = [part for typeface, part in drawn.items() if typeface.groups]
    atlas.save(joined(similar or list(drawn.values())), args.out / "similar.npz")
    Charset(text).save(args.out / "charset.txt")
    atlas.save(joined(list(drawn.values())), args.out / "atlas.npz", compact=True)


if __name__ == "__main__":
    main()
