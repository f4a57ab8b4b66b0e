"""Explains which look-alikes a reader still confuses on the benchmark: by similarity, frequency and typeface.

    python scripts/benchmark/pairs.py random READER-random.txt SOURCES --words WORDS [--picture pairs.png]

The predictions are those of `score.py`, SOURCES is the folder of `fetch.py testing`, and WORDS a file of words and
their frequencies (`words.txt` of `make pretrain`). For each occurrence of a look-alike, the member of its group that
is hardest to tell apart in the testing typefaces counts, at 22 pixels an em, which is what lines of 32 pixels hold. Its
distance is the squared difference of the ink, with the two glyphs shifted by up to one pixel, as a share of their ink:
0 for the same pixels, 1 for glyphs without common ink. The picture shows the pairs confused most often, the true
character on the left, in each testing typeface.
"""

import argparse
import functools
import itertools
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from make import FONT_FILES, find, look_alikes
from PIL import Image, ImageDraw, ImageFont

from jaxcrnn.data.predictions import read_predictions
from jaxcrnn.errors import UserError
from jaxcrnn.experiments.bootstrap import rate
from jaxcrnn.lookalikes.confusions import align, members
from jaxcrnn.metrics import folded

EM = 22  # pixels an em in a line of 32 pixels
CELL = 28  # pixels of a glyph's tile
DISTANCES = (0.1, 0.2, 0.3, 0.4)  # bounds of the rows
TIMES = (0.01, 0.1, 1.0, 10.0)  # bounds of the true character's frequency over its look-alike's
SHOWN, ZOOM = 24, 2  # pairs in the picture, and its scale


class Occurrence(NamedTuple):
    """A look-alike in the true texts: its line, the character, and the member of its group read instead, if any."""

    line: int
    true: str
    read: str | None


def occurrences(read: list[str], truths: list[str], groups: list[str]) -> list[Occurrence]:
    group = members(groups)
    found = []
    for number, (text, truth) in enumerate(zip(read, truths, strict=True)):
        for true, seen in align(truth, text, group):
            if true in group:
                swapped = seen != true and group.get(seen) == group[true]
                found.append(Occurrence(number, true, seen if swapped else None))
    return found


def glyph(font: ImageFont.FreeTypeFont, character: str) -> np.ndarray:
    """Ink of a character, 0 to 1: ``[CELL,CELL]``."""
    tile = Image.new("L", (CELL, CELL))
    ImageDraw.Draw(tile).text((CELL // 2, CELL // 2), character, fill=255, font=font, anchor="mm")
    return np.asarray(tile, np.float64) / 255


def distance(one: np.ndarray, other: np.ndarray) -> float:
    shifts = ((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1))
    apart = min(((np.roll(one, shift, (0, 1)) - other) ** 2).sum() for shift in shifts)
    return float(apart / max((one**2).sum() + (other**2).sum(), 1e-9))


def table(title: str, rows: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Print the share of substituted look-alikes of each row, from its counts in each line."""
    print(f"\n| {title} | look-alikes | substituted |\n|---|---|---|")
    for name, (over, under) in rows.items():
        share = rate(over[None], under[None])
        print(f"| {name} | {under.sum():,} | {over.sum()} ({share.value:.2%}, {share.low:.2%} to {share.high:.2%}) |")


def between(value: float, bounds: tuple[float, ...]) -> int:
    return int(np.searchsorted(bounds, value, side="right"))


def spans(bounds: tuple[float, ...]) -> list[str]:
    inner = [f"{low:g} to {high:g}" for low, high in itertools.pairwise(bounds)]
    return [f"below {bounds[0]:g}", *inner, f"{bounds[-1]:g} or more"]


def picture(pairs: list[tuple[str, str]], fonts: list[ImageFont.FreeTypeFont]) -> Image.Image:
    """A row for each pair: the true character and the one read instead, in each typeface."""
    rows = [
        np.concatenate([np.concatenate([glyph(font, true), glyph(font, seen)], 1) for font in fonts], 1)
        for true, seen in pairs
    ]
    half = len(rows) // 2
    ink = np.concatenate([np.concatenate(rows[:half]), np.concatenate(rows[half : 2 * half])], 1)
    image = Image.fromarray(np.uint8(255 - 255 * ink))
    image = image.resize((image.width * ZOOM, image.height * ZOOM), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(image)
    for x in range(2 * CELL * ZOOM, image.width, 2 * CELL * ZOOM):
        draw.line((x, 0, x, image.height), fill=170, width=4 if x == image.width // 2 else 1)
    for y in range(CELL * ZOOM, image.height, CELL * ZOOM):
        draw.line((0, y, image.width, y), fill=225)
    return image


def frequencies(path: Path) -> Counter[str]:
    """How often each character occurs in a list of words and their frequencies."""
    counts: Counter[str] = Counter()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        word, _, times = line.rpartition(" ")
        if not word or not times.isdigit():
            sys.exit(f"{path}:{number}: expected a word, a space and its frequency")
        for character in word:
            counts[character] += int(times)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", help="name of the part, for the title")
    parser.add_argument("predictions", type=Path)
    parser.add_argument("sources", type=Path)
    parser.add_argument("--words", type=Path, required=True, help="words and their frequencies, one a line")
    parser.add_argument("--picture", type=Path, help="write the pairs confused most often to this image")
    args = parser.parse_args()
    try:
        lines = read_predictions(args.predictions)
    except UserError as error:
        sys.exit(str(error))
    groups = look_alikes()
    group = members(groups)
    found = occurrences([folded(x) for x in lines.read], [folded(x) for x in lines.truths], groups)
    fonts = [ImageFont.truetype(find(args.sources, name), EM) for name in FONT_FILES]
    draw = functools.cache(glyph)
    often = frequencies(args.words)

    @functools.cache
    def apart(one: str, other: str) -> float:
        return float(np.mean([distance(draw(font, one), draw(font, other)) for font in fonts]))

    @functools.cache
    def nearest(true: str) -> tuple[str, float]:
        others = {other: apart(*sorted((true, other))) for other in groups[group[true]] if other != true}
        return min(others.items(), key=lambda item: item[1])

    def counted(row_of: dict[str, int], names: list[str]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        counts = np.zeros((2, len(names), len(lines.truths)), np.int64)
        for o in found:
            counts[1, row_of[o.true], o.line] += 1
            counts[0, row_of[o.true], o.line] += o.read is not None
        return {name: (counts[0, i], counts[1, i]) for i, name in enumerate(names)}

    characters = {o.true for o in found}
    wrong = sum(o.read is not None for o in found)
    print(f"{args.part}: {len(found):,} look-alikes, {wrong} substituted by a member of their group")
    near = {true: between(nearest(true)[1], DISTANCES) for true in characters}
    table("distance to the nearest look-alike", counted(near, spans(DISTANCES)))
    ratio = {true: between((often[true] + 1) / (often[nearest(true)[0]] + 1), TIMES) for true in characters}
    table("frequency in words, as a multiple of the nearest look-alike's", counted(ratio, spans(TIMES)))
    print("\n| typeface | look-alikes | substituted |\n|---|---|---|")
    for face, name in enumerate(FONT_FILES):
        here = [o.read is not None for o in found if o.line % len(FONT_FILES) == face]
        print(f"| {name} | {len(here):,} | {sum(here)} ({sum(here) / max(len(here), 1):.2%}) |")
    swapped = Counter((o.true, o.read) for o in found if o.read)
    among = Counter(o.true for o in found)
    print("\n| true→read | times | distance | frequency of the true one over that of the other |\n|---|---|---|---|")
    for (true, seen), times in swapped.most_common(SHOWN):
        far, multiple = apart(*sorted((true, seen))), (often[true] + 1) / (often[seen] + 1)
        print(f"| {true}→{seen} | {times} of {among[true]} | {far:.2f} | {multiple:.2g} |")
    if args.picture:
        picture([pair for pair, _ in swapped.most_common(SHOWN)], fonts).save(args.picture, optimize=True)


if __name__ == "__main__":
    main()
