"""Makes the look-alike benchmark: lines of text in seven typefaces, with a label file and checksums.

    python scripts/fetch.py testing SOURCES
    python scripts/benchmark/make.py SOURCES OUT [--lines 2000] [--seed 2026]

Writes two parts of `--lines` lines each, with the typefaces in turn:

- `OUT/random.txt`: random look-alikes, a random group and then a random member of it, 5 to 12 characters, so that no
  knowledge of the language helps;
- `OUT/natural.txt`: running text (Debian's fortunes-zh), 6 to 24 characters with two or more look-alikes.

Each is a label file, `path<TAB>text`, beside its folder of PNG images. `OUT/manifest.json` has the versions, a SHA-256
of each part's texts, and one of its pixels. The texts depend on the seed alone; the pixels also on the versions of
Pillow and FreeType, so compare results only between readers of the same images.
"""

import argparse
import functools
import hashlib
import io
import json
import multiprocessing
import os
import re
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
from PIL import Image, ImageDraw, ImageFilter, ImageFont, features

from jaxcrnn.charset import Charset
from jaxcrnn.lookalikes.groups import read_groups
from jaxcrnn.render.fonts import code_points

sys.path.append(str(Path(__file__).parents[1]))
from fetch import typefaces

RESOURCES = Path(__file__).resolve().parents[2] / "jaxcrnn" / "resources" / "pretrained"
FONT_FILES = tuple(typeface.file for typeface in typefaces("testing"))
PARTS = ("random", "natural")
ANSI = re.compile(r"\x1b\[[0-9;]*m")
LARGE = 96  # pixels an em while drawing; the line is then reduced to its own size


class Line(NamedTuple):
    """A line of the benchmark: its part, its number in the part, its text and the number of its typeface."""

    part: str
    number: int
    text: str
    face: int


def generator(seed: int, part: str, number: int, purpose: int) -> np.random.Generator:
    """A random stream of its own for each line and purpose, so that lines do not depend on how many there are."""
    return np.random.Generator(np.random.PCG64([seed, PARTS.index(part), number, purpose]))


def find(folder: Path, name: str) -> Path:
    for path in sorted(folder.rglob(name)):
        return path
    sys.exit(f"{folder}: no {name}; run scripts/fetch.py testing first")


def is_han(character: str) -> bool:
    return "\u3400" <= character <= "\u9fff"


def look_alikes() -> list[str]:
    """The groups of Han characters among the shipped look-alikes."""
    groups = ("".join(filter(is_han, group)) for group in read_groups(RESOURCES / "lookalikes.txt"))
    return [group for group in groups if len(group) > 1]


def random_text(rng: np.random.Generator, groups: list[str]) -> str:
    chosen = [groups[rng.integers(len(groups))] for _ in range(rng.integers(5, 13))]
    return "".join(group[rng.integers(len(group))] for group in chosen)


def corpus(path: Path, allowed: frozenset[str]) -> list[str]:
    """Runs of 6 or more allowed characters, at least three quarters of them Han."""
    text = ANSI.sub("", path.read_text(encoding="utf-8"))
    other = re.compile("[^" + re.escape("".join(sorted(allowed))) + "]+")
    runs = (run.strip() for line in text.splitlines() for run in other.split(line))
    return sorted({run for run in runs if len(run) >= 6 and 4 * sum(map(is_han, run)) >= 3 * len(run)})


def natural_text(rng: np.random.Generator, runs: list[str], members: frozenset[str]) -> str:
    while True:
        run = runs[rng.integers(len(runs))]
        length = int(rng.integers(6, 25))
        start = int(rng.integers(max(len(run) - length, 0) + 1))
        text = re.sub(" +", " ", run[start : start + length]).strip()
        if len(text) >= 6 and sum(c in members for c in text) >= 2:
            return text


def texts(sources: Path, fonts: list[Path], count: int, seed: int) -> list[Line]:
    groups = look_alikes()
    members = frozenset("".join(groups))
    charset = frozenset(Charset.from_file(RESOURCES / "charset.txt").characters)
    # One set of characters for all typefaces, or the parts would differ in difficulty by typeface.
    codes = set.intersection(*(code_points(font) for font in fonts))
    drawn = frozenset(c for c in charset if ord(c) in codes)
    groups = [kept for kept in ("".join(c for c in group if c in drawn) for group in groups) if len(kept) > 1]
    runs = corpus(find(sources, "usr/share/games/fortunes/chinese"), drawn | {" "})
    lines = []
    for part in PARTS:
        for number in range(count):
            rng = generator(seed, part, number, 0)
            text = random_text(rng, groups) if part == "random" else natural_text(rng, runs, members)
            lines.append(Line(part, number, text, number % len(FONT_FILES)))
    return lines


def draw(line: Line, fonts: list[Path], seed: int) -> np.ndarray:
    """Draw a line as a document scan or photo may show it: ``[height,width]`` gray."""
    rng = generator(seed, line.part, line.number, 1)
    font = ImageFont.truetype(fonts[line.face], LARGE, layout_engine=ImageFont.Layout.BASIC)
    ink, paper = int(rng.integers(0, 100)), int(rng.integers(170, 256))
    left, right, top, bottom = (int(rng.integers(4, 28)) for _ in range(4))
    box = font.getbbox(line.text, anchor="ls")
    size = (box[2] - box[0] + left + right, box[3] - box[1] + top + bottom)
    image = Image.new("L", size, paper)
    ImageDraw.Draw(image).text((left - box[0], top - box[1]), line.text, fill=ink, font=font, anchor="ls")
    image = image.rotate(rng.uniform(-1, 1), Image.Resampling.BICUBIC, expand=False, fillcolor=paper)
    height = int(rng.integers(24, 57))
    width = max(1, round(size[0] * height / size[1] * rng.uniform(0.75, 1.1)))
    image = image.resize((width, height), Image.Resampling.LANCZOS)
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.9) * height / 48))
    gray = np.asarray(image, np.float64) + rng.normal(0, rng.uniform(0, 12), (height, width))
    gray = np.clip(gray + 0.5, 0, 255).astype(np.uint8)
    if rng.random() < 0.5:
        file = io.BytesIO()
        Image.fromarray(gray).save(file, "JPEG", quality=int(rng.integers(35, 90)))
        gray = np.asarray(Image.open(file))
    return gray


def write(line: Line, fonts: list[Path], seed: int, out: Path) -> bytes:
    gray = draw(line, fonts, seed)
    Image.fromarray(gray).save(out / line.part / f"{line.number:05d}.png")
    return hashlib.sha256(repr(gray.shape).encode() + gray.tobytes()).digest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", type=Path, metavar="SOURCES", help="folder that scripts/fetch.py wrote")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write")
    parser.add_argument("--lines", type=int, default=2000, help="lines of each part (default: 2000)")
    parser.add_argument("--seed", type=int, default=2026, help="random seed (default: 2026)")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes (default: one per CPU)")
    args = parser.parse_args()
    fonts = [find(args.sources, name) for name in FONT_FILES]
    lines = texts(args.sources, fonts, args.lines, args.seed)
    for part in PARTS:
        (args.out / part).mkdir(parents=True, exist_ok=True)
    with multiprocessing.Pool(args.workers) as pool:
        sums = pool.map(functools.partial(write, fonts=fonts, seed=args.seed, out=args.out), lines, 16)
    manifest = {
        "seed": args.seed,
        "lines": args.lines,
        "pillow": PIL.__version__,
        "freetype": features.version("freetype2"),
        "typefaces": FONT_FILES,
        "parts": {},
    }
    for part in PARTS:
        rows = [f"{part}/{line.number:05d}.png\t{line.text}\n" for line in lines if line.part == part]
        (args.out / f"{part}.txt").write_text("".join(rows), encoding="utf-8")
        pixels = hashlib.sha256(b"".join(s for line, s in zip(lines, sums, strict=True) if line.part == part))
        manifest["parts"][part] = {
            "texts": hashlib.sha256("".join(rows).encode()).hexdigest(),
            "pixels": pixels.hexdigest(),
        }
        print(
            f"{part}: {len(rows)} lines, texts {manifest['parts'][part]['texts'][:12]}, "
            f"pixels {manifest['parts'][part]['pixels'][:12]}"
        )
    (args.out / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
