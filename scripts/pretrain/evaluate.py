"""Evaluates a recogniser on real lines and on rendered look-alikes in typefaces that it was not trained on.

python scripts/pretrain/evaluate.py MODEL --labels DATA/fund_lines/train.txt
python scripts/pretrain/evaluate.py MODEL --fonts TESTING --groups DATA/groups.txt    # TESTING: folder of fonts.sh

With `--labels`, prints each misread line, then the share of characters and of lines read right. Spaces are removed and
full-width forms are folded to half width first, since print does not distinguish them reliably.

With `--fonts`, reads random lines of 5 to 10 look-alikes rendered at level `medium`, and prints the share of characters
read right and how many were read as another member of their group, with the most frequent of these pairs.
"""

import argparse
from collections import Counter
from dataclasses import replace
from pathlib import Path

import atlas
import jax
import jax.numpy as jnp
import numpy as np
from rapidfuzz.distance import Levenshtein

import jaxcrnn
from jaxcrnn import metrics
from jaxcrnn.interop.recognizer import Recognizer
from jaxcrnn.lookalikes.groups import read_groups
from jaxcrnn.render.atlas import Atlas
from jaxcrnn.render.config import LEVELS
from jaxcrnn.render.render import Glyphs, render

FANDOL = ("FandolSong-Regular", "FandolHei-Regular", "FandolKai-Regular", "FandolFang-Regular")
HELD_OUT = (
    atlas.Face("zenhei", "wqy-zenhei.ttc"),
    atlas.Face("uming", "uming.ttc"),
    atlas.Face("ukai", "ukai.ttc"),
    *(atlas.Face(name, f"{name}.otf") for name in FANDOL),
)
SHORTEST, LONGEST = 5, 10  # characters of a rendered line
WIDTH = 320
BATCH = 50
FIRST_HAN = 0x3400  # full-width signs lie above it too
FOLDED = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {ord(" "): None, 0x3000: None}


def real_lines(reader: Recognizer, path: Path) -> None:
    """Prints how well the lines of a label file are read."""
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
    read = [line.text for line in reader.recognize([path.parent / name for name, _ in rows])]
    for (name, label), text in zip(rows, read, strict=True):
        if label.translate(FOLDED) != text.translate(FOLDED):
            print(f"{name} | {label} | {text}")
    score = metrics.score([text.translate(FOLDED) for text in read], [label.translate(FOLDED) for _, label in rows])
    print(
        f"{score.characters} characters, {score.edits} errors: {score.character_accuracy:.2%} of characters, "
        f"{score.line_accuracy:.1%} of {score.lines} lines read right"
    )


def held_out_glyphs(reader: Recognizer, fonts: Path) -> Glyphs:
    text = "".join(reader.charset.characters)
    drawn = [atlas.draw(face, fonts, text) for face in HELD_OUT]
    for face, glyphs in zip(HELD_OUT, drawn, strict=True):
        if glyphs is None:
            raise SystemExit(f"{fonts}: no {face.file}; run fonts.sh first")
    tiles, advances, present = (np.stack(parts) for parts in zip(*drawn, strict=True))
    return Glyphs.of(Atlas(text, tuple(face.name for face in HELD_OUT), tiles, advances, present), reader.charset)


def random_labels(reader: Recognizer, groups: list[str], count: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels ``[count,10]`` of random members of random groups, and their lengths."""
    rng = np.random.default_rng(11)
    labels, lengths = np.zeros((count, LONGEST), np.int32), rng.integers(SHORTEST, LONGEST + 1, count)
    for row, length in zip(labels, lengths, strict=True):
        for i in range(length):
            group = groups[rng.integers(len(groups))]
            row[i] = reader.charset.encode(group[rng.integers(len(group))])[0]
    return labels, lengths.astype(np.int32)


def look_alikes(reader: Recognizer, fonts: Path, groups_file: Path, count: int) -> None:
    """Prints how well random look-alikes are read."""
    in_charset = (
        "".join(c for c in group if c in reader.charset and ord(c) > FIRST_HAN) for group in read_groups(groups_file)
    )
    groups = [group for group in in_charset if len(group) > 1]
    group_of = {character: group for group in groups for character in group}
    glyphs = held_out_glyphs(reader, fonts)
    labels, lengths = random_labels(reader, groups, count)
    draw = jax.jit(render, static_argnums=4)
    look = replace(LEVELS["medium"], width=WIDTH)
    errors = characters = 0
    swapped: Counter[str] = Counter()
    for start in range(0, count, BATCH):
        here = slice(start, start + BATCH)
        key = jax.random.fold_in(jax.random.key(99), start)
        images, widths = draw(key, glyphs, jnp.asarray(labels[here]), jnp.asarray(lengths[here]), look)
        grays = np.clip((np.asarray(images)[..., 0] + 1) * 127.5 + 0.5, 0, 255).astype(np.uint8)
        lines = [gray[:, :width] for gray, width in zip(grays, np.asarray(widths), strict=True)]
        for label, length, line in zip(
            labels[here], lengths[here], reader.recognize(lines, batch_size=BATCH), strict=True
        ):
            truth = reader.charset.decode(label[:length])
            edits = Levenshtein.editops(truth, line.text)
            errors += len(edits)
            characters += len(truth)
            for edit in edits:
                if edit.tag == "replace":
                    written, read = truth[edit.src_pos], line.text[edit.dest_pos]
                    if read in group_of[written]:
                        swapped[written + read] += 1
    total = swapped.total()
    print(f"{characters} characters, {errors} errors: {1 - errors / characters:.2%} of characters read right")
    print(f"read as another member of their group: {total} ({total / characters:.2%})")
    print(" ".join(f"{pair[0]}→{pair[1]}:{times}" for pair, times in swapped.most_common(30)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder that jaxcrnn.load reads")
    parser.add_argument("--labels", type=Path, help="label file of real lines, path<TAB>text a line")
    parser.add_argument("--fonts", type=Path, help="folder of the typefaces for testing")
    parser.add_argument("--groups", type=Path, help="file of look-alike groups; needed with --fonts")
    parser.add_argument("--count", type=int, default=600, help="rendered lines (default: 600)")
    args = parser.parse_args()
    if not (args.labels or args.fonts) or bool(args.fonts) != bool(args.groups):
        parser.error("give --labels, or --fonts with --groups, or all three")
    reader = jaxcrnn.load(args.model)
    if args.labels:
        real_lines(reader, args.labels)
    if args.fonts:
        look_alikes(reader, args.fonts, args.groups, args.count)


if __name__ == "__main__":
    main()
