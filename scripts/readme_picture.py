"""Draw lines of look-alikes, each with what the pretrained recogniser reads in it.

python scripts/readme_picture.py docs/images/look-alikes.png FONTS

FONTS is a folder with the Debian packages fonts-wqy-zenhei, fonts-arphic-uming and fonts-arphic-ukai, which the
recogniser was not trained on. Each line holds members of one group in random order, rendered at level `easy` from
one seed: nothing is selected by how it is read. Misread characters are red.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from rapidfuzz.distance import Levenshtein

import jaxcrnn
from jaxcrnn.render import atlas, fonts
from jaxcrnn.render.config import LEVELS
from jaxcrnn.render.render import Glyphs, render

FACES = ("uming.ttc", "ukai.ttc", "wqy-zenhei.ttc")
GROUPS = ("未末", "土士", "己已巳", "戊戌戍", "人入", "干千")
LENGTH, LEVEL, SEED = 4, "easy", 0
WIDTH = 176  # of a rendered line, in pixels
ZOOM = 2  # of the rendered lines in the picture
CELL, ROW, MARGIN = 600, 92, 24
INK, RED, PAPER, EDGE = "#0b7285", "#c92a2a", "#ffffff", "#dee2e6"


def texts() -> list[list[str]]:
    """For each typeface a text of each group, every member at least once."""
    rng = np.random.default_rng(SEED)
    return [
        ["".join(rng.permutation([*group, *rng.choice(list(group), LENGTH - len(group))])) for group in GROUPS]
        for _ in FACES
    ]


def lines(written: list[str], face: Path, charset: jaxcrnn.Charset, seed: int) -> list[np.ndarray]:
    """Texts as gray images, 32 pixels high."""
    glyphs = Glyphs.of(atlas.build("".join(GROUPS), [face], cached=False), charset)
    labels = jnp.asarray([charset.encode(text) for text in written], jnp.int32)
    lengths, look = jnp.full(len(written), LENGTH, jnp.int32), replace(LEVELS[LEVEL], width=WIDTH)
    images, widths = jax.jit(render, static_argnums=4)(jax.random.key(seed), glyphs, labels, lengths, look)
    grays = np.clip((np.asarray(images)[..., 0] + 1) * 127.5 + 0.5, 0, 255).astype(np.uint8)
    return [gray[:, :width] for gray, width in zip(grays, np.asarray(widths), strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("fonts", type=Path)
    args = parser.parse_args()
    reader = jaxcrnn.load()
    files = {face.path.name: face.path for face in fonts.find(args.fonts)}
    columns = texts()
    images = [
        image
        for seed, (face, column) in enumerate(zip(FACES, columns, strict=True))
        for image in lines(column, files[face], reader.charset, seed)
    ]
    written = [text for column in columns for text in column]
    read = [line.text for line in reader.recognize(images)]
    sheet(images, written, read, files[FACES[-1]]).save(args.out, optimize=True)
    errors = sum(Levenshtein.distance(text, seen) for text, seen in zip(written, read, strict=True))
    for text, seen in zip(written, read, strict=True):
        print(text, seen, "" if text == seen else "misread")
    print(f"{sum(map(len, written))} characters, {errors} errors")


def sheet(images: list[np.ndarray], written: list[str], read: list[str], font_file: Path) -> Image.Image:
    """A grid with a row for each group and a column for each typeface."""
    size = (CELL * len(FACES) + 2 * MARGIN, ROW * len(GROUPS) + 2 * MARGIN)
    picture, font = Image.new("RGB", size, PAPER), ImageFont.truetype(str(font_file), 46)
    draw = ImageDraw.Draw(picture)
    draw.rounded_rectangle((0, 0, size[0] - 1, size[1] - 1), 16, outline=EDGE, width=2)
    for number, (image, text, seen) in enumerate(zip(images, written, read, strict=True)):
        x = MARGIN + number // len(GROUPS) * CELL
        y = MARGIN + number % len(GROUPS) * ROW
        line = Image.fromarray(image).resize((image.shape[1] * ZOOM, image.shape[0] * ZOOM), Image.Resampling.BICUBIC)
        picture.paste(line, (x + 8, y + (ROW - line.height) // 2))
        wrong = {edit.dest_pos for edit in Levenshtein.editops(text, seen) if edit.tag != "delete"}
        at = x + WIDTH * ZOOM + 32
        draw.text((at - 16, y + ROW / 2), "→", INK, font, "rm")
        for i, character in enumerate(seen):
            draw.text((at, y + ROW / 2), character, RED if i in wrong else INK, font, "lm")
            at += draw.textlength(character, font) + 4
    return picture


if __name__ == "__main__":
    main()
