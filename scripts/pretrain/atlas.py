"""Draws every character of the pretrained recogniser in every training typeface, as tiles packed for a small upload.

python scripts/pretrain/atlas.py TRAINING OUT    # TRAINING: the folder that fonts.sh wrote

Writes OUT/charset.txt (one character a line), OUT/atlas.npz (characters, names of the typefaces, advances, which glyphs
are present, shape of the tiles) and OUT/atlas-00.xz, atlas-01.xz, ...: the tiles of four typefaces each, two pixels a
byte.
"""

import argparse
import functools
import glob
import lzma
import multiprocessing
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jaxcrnn.charset import Charset
from jaxcrnn.render.atlas import BASELINE, EM, SIZE, is_space
from jaxcrnn.render.fonts import code_points

SIMPLIFIED = 2  # face of the Noto CJK collections with the glyphs of mainland China; face 0 has those of Japan
PART = 4  # typefaces in a file
LATIN = "L-"  # prefix of typefaces of which only Latin letters, digits and signs are drawn
LAST_LATIN = 0x2FF
SIGNS = (
    "、。·—～…‘’“”《》〈〉「」『』【】〔〕！（），．：；？％＋－／＝＜＞＠＃＆＊￥±×÷≤≥≠≈∞√°′″℃‰§№"
    "①②③④⑤⑥⑦⑧⑨⑩ⅠⅡⅢⅣⅤⅥⅦⅧⅨⅩⅪⅫ○●△▲□■◇◆☆★※→←↑↓々〇€£¥©®™αβγΩμ"
)


class Face(NamedTuple):
    """A typeface to draw.

    Attributes:
      name: its name in the atlas.
      file: name of the font file.
      index: which face of a collection.
      pixels: size of a bitmap font, drawn at that size and then enlarged; 0 for outlines.
    """

    name: str
    file: str
    index: int = 0
    pixels: int = 0


WEIGHTS = ("Light", "Regular", "Bold", "Black")
FACES = (
    Face("gbsn00lp", "gbsn00lp.ttf"),
    Face("gkai00mp", "gkai00mp.ttf"),
    Face("wqy-microhei", "wqy-microhei.ttc"),
    *(Face(f"notosans-{weight.lower()}", f"NotoSansCJK-{weight}.ttc", SIMPLIFIED) for weight in WEIGHTS),
    *(Face(f"notoserif-{weight.lower()}", f"NotoSerifCJK-{weight}.ttc", SIMPLIFIED) for weight in WEIGHTS),
    Face("droid", "DroidSansFallbackFull.ttf"),
    Face("lxgw-regular", "LXGWWenKai-Regular.ttf"),
    Face("lxgw-bold", "LXGWWenKai-Bold.ttf"),
    Face("smiley", "SmileySans-Oblique.ttf"),
    Face("tw-kai", "TW-Kai-98_1.ttf"),
    Face("tw-sung", "TW-Sung-98_1.ttf"),
    Face("zcool-xiaowei", "ZCOOLXiaoWei_400Regular.ttf"),
    Face("zcool-qingke", "ZCOOLQingKeHuangYou_400Regular.ttf"),
    Face("zcool-kuaile", "ZCOOLKuaiLe_400Regular.ttf"),
    Face("mashan", "MaShanZheng_400Regular.ttf"),
    Face("hanamin", "HanaMinA.ttf"),
    Face("cactus", "CactusClassicalSerif_400Regular.ttf"),
    Face("chocolate", "ChocolateClassicalSans_400Regular.ttf"),
    Face("wqy12", "wenquanyi_9pt.pcf", pixels=12),
    Face("wqy15", "wenquanyi_11pt.pcf", pixels=15),
    Face("wqy16", "wenquanyi_12pt.pcf", pixels=16),
    Face("unifont", "unifont.otf", pixels=16),
    Face("cwfs", "cwfs.ttf"),
    Face("cwming", "cwming.ttf"),
    Face("cwheib", "cwheib.ttf"),
    Face("bizudmincho", "BIZUDMincho-Regular.ttf"),
    Face("bizudgothic", "BIZUDGothic-Bold.ttf"),
    Face("klee", "KleeOne-SemiBold.ttf"),
    Face("L-sans", "LiberationSans-Regular.ttf"),
    Face("L-sansb", "LiberationSans-Bold.ttf"),
    Face("L-serif", "LiberationSerif-Regular.ttf"),
    Face("L-serifb", "LiberationSerif-Bold.ttf"),
    Face("L-mono", "LiberationMono-Regular.ttf"),
    Face("L-narrow", "LiberationSansNarrow-Regular.ttf"),
    Face("L-dejavu", "DejaVuSans.ttf"),
    Face("L-dejavumono", "DejaVuSansMono.ttf"),
    Face("L-dejavuserif", "DejaVuSerif.ttf"),
    Face("L-carlito", "Carlito-Regular.ttf"),
    Face("L-caladea", "Caladea-Regular.ttf"),
    Face("L-opensans", "OpenSans-Regular.ttf"),
    Face("L-freemono", "FreeMonoBold.ttf"),
    Face("L-inconsolata", "Inconsolata.otf"),
)


def characters() -> str:
    """Printable ASCII, common signs and all Han characters of GB2312, level 1 (frequent) before level 2."""
    han = (bytes([row, cell]).decode("gb2312", "ignore") for row in range(0xB0, 0xF8) for cell in range(0xA1, 0xFF))
    return "".join(dict.fromkeys([*map(chr, range(32, 127)), *SIGNS, *filter(None, han)]))


def draw(face: Face, folder: Path, text: str) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Draws characters in one typeface.

    Args:
      face: the typeface.
      folder: searched with its subfolders for the font file.
      text: the characters.

    Returns:
      ``[N,40,40]`` tiles, ``[N]`` advances in ems and ``[N]`` which glyphs are present, as `jaxcrnn.render.atlas.Atlas`
      has them; None if the folder lacks the file.
    """
    paths = sorted(glob.glob(f"{glob.escape(str(folder))}/**/{face.file}", recursive=True))
    if not paths:
        return None
    em = face.pixels or EM
    font = ImageFont.truetype(paths[0], em, index=face.index, layout_engine=ImageFont.Layout.BASIC)
    # fontTools does not read .pcf, so glyphs that such a font lacks are found by the box drawn in their place.
    bitmaps_only = face.file.endswith(".pcf")
    drawable = None if bitmaps_only else code_points(Path(paths[0]), face.index)
    box = _mask(font, "\ue777") if bitmaps_only else None
    tiles = np.zeros((len(text), SIZE, SIZE), np.uint8)
    advances = np.ones(len(text), np.float32)
    present = np.zeros(len(text), bool)
    for i, character in enumerate(text):
        if face.name.startswith(LATIN) and ord(character) > LAST_LATIN:
            continue
        if drawable is not None and ord(character) not in drawable:
            continue
        advances[i] = font.getlength(character) / em
        if box is not None and _mask(font, character) == box:
            continue
        tiles[i] = _enlarged(font, character, em) if face.pixels else _outline(font, character, advances[i])
        present[i] = bool(tiles[i].any()) or is_space(character)
    return tiles, advances, present


def _mask(font: ImageFont.FreeTypeFont, character: str) -> tuple[bytes, tuple[int, int]]:
    mask = font.getmask(character)
    return bytes(mask), mask.size


def _outline(font: ImageFont.FreeTypeFont, character: str, advance: np.float32) -> np.ndarray:
    image = Image.new("L", (SIZE, SIZE))
    place = ((SIZE - advance * EM) / 2, BASELINE)
    ImageDraw.Draw(image).text(place, character, fill=255, font=font, anchor="ls")
    return np.asarray(image)


def _enlarged(font: ImageFont.FreeTypeFont, character: str, em: int) -> np.ndarray:
    """A glyph drawn at the size of its bitmaps, with the margins of a tile, then enlarged."""
    cell = em + em // 4
    image = Image.new("L", (cell, cell))
    place = ((cell - font.getlength(character)) / 2, em * BASELINE / EM)
    ImageDraw.Draw(image).text(place, character, fill=255, font=font, anchor="ls")
    return np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def packed(tiles: np.ndarray) -> np.ndarray:
    """Rounds gray values to 4 bits and puts two neighbours along a row into a byte, the left one in the upper half."""
    four_bits = ((tiles.astype(np.uint16) + 8) // 17).astype(np.uint8)
    return four_bits[..., ::2] << 4 | four_bits[..., 1::2]


def write_compressed(path: Path, part: np.ndarray) -> None:
    with lzma.open(path, "wb", preset=4) as file:
        file.write(part.tobytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fonts", type=Path, metavar="TRAINING", help="folder that fonts.sh wrote")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes (default: one per CPU)")
    args = parser.parse_args()
    text = characters()
    args.out.mkdir(parents=True, exist_ok=True)
    with multiprocessing.Pool(args.workers) as pool:
        results = pool.map(functools.partial(draw, folder=args.fonts, text=text), FACES, chunksize=1)
        drawn = {face.name: glyphs for face, glyphs in zip(FACES, results, strict=True) if glyphs is not None}
        for face in FACES:
            print(f"{face.name}: {drawn[face.name][2].sum()} glyphs" if face.name in drawn else f"no {face.file}")
        if not drawn:
            raise SystemExit(f"{args.fonts}: none of the typefaces found; run fonts.sh first")
        tiles, advances, present = (np.stack(parts) for parts in zip(*drawn.values(), strict=True))
        parts = np.split(packed(tiles), range(PART, len(tiles), PART))
        paths = [args.out / f"atlas-{number:02d}.xz" for number in range(len(parts))]
        pool.starmap(write_compressed, zip(paths, parts, strict=True), chunksize=1)
    np.savez_compressed(
        args.out / "atlas.npz",
        characters=text,
        fonts=list(drawn),
        advances=advances,
        present=present,
        shape=tiles.shape,
    )
    Charset(text).save(args.out / "charset.txt")


if __name__ == "__main__":
    main()
