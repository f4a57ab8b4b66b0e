"""Evaluates a recogniser on real lines and on rendered lines in typefaces that it was not trained on.

python scripts/pretrain/evaluate.py MODEL --labels fund_lines/train.txt --packages PACKAGES --data DATA
python scripts/pretrain/evaluate.py MODEL --beside pretrained --packages PACKAGES --data DATA    # which one is better?

MODEL and OTHER are folders that `jaxcrnn.load` reads, or "pretrained". They read the same lines:

- real: those of `--labels`, a label file (path<TAB>text);
- look-alikes: random look-alikes of DATA/groups.txt, at level `medium` of the renderer, in the typefaces for testing of
  PACKAGES (`scripts/fetch.py testing`);
- forms: texts of DATA/texts.yaml drawn with another seed than in training, in the same typefaces, at level `forms`.

Printed for each: the shares of characters and lines read right and of look-alikes read as another of their group, and
the characters read right by kind, with 95 % intervals over lines; with `--beside` also the differences. Spaces are
removed and full-width forms folded to half width first, since print does not distinguish them reliably. With
`--beside`, the last line names the better one: the one that reads more characters, in the mean over the sets of lines.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from kinds import counted, kind_of

import jaxcrnn
from jaxcrnn._text import read_text
from jaxcrnn.charset import Charset
from jaxcrnn.errors import UserError
from jaxcrnn.experiments.bootstrap import Interval, difference, rate
from jaxcrnn.interop.recognizer import Recognizer
from jaxcrnn.lookalikes.confusions import score
from jaxcrnn.lookalikes.groups import read_groups
from jaxcrnn.metrics import folded
from jaxcrnn.render import atlas
from jaxcrnn.render.config import LEVELS
from jaxcrnn.render.fonts import Face
from jaxcrnn.render.render import Glyphs, render
from jaxcrnn.render.texts import TextConfig, Texts

sys.path.append(str(Path(__file__).parents[1]))
from fetch import find, typefaces

SHORTEST, LONGEST = 5, 10  # characters of a line of look-alikes
LONG = 20  # characters of a line of a form
WIDTHS = {LONGEST: 320, LONG: 512}
BATCH = 50
SEED = 1_000_003  # of texts; training uses another
MOST = 30  # confusions and misread lines to print


class Lines(NamedTuple):
    """Lines to read: images (paths or gray arrays), their texts, and whether misread ones are printed."""

    images: list[Any]
    texts: list[str]
    shown: bool = False


def real_lines(path: Path) -> Lines:
    rows = [line.split("\t") for line in read_text(path).splitlines() if line]
    if bad := next((n for n, row in enumerate(rows, start=1) if len(row) != 2), None):
        raise UserError(f"{path}, line {bad}: expected path<TAB>text")
    return Lines([path.parent / name for name, _ in rows], [text for _, text in rows], True)


def held_out(packages: Path, charset: Charset) -> atlas.Atlas:
    """The typefaces for testing."""
    places = {typeface.name: find(packages, typeface) for typeface in typefaces("testing")}
    if missing := [name for name, path in places.items() if path is None]:
        print(f"{packages}: without the typefaces {', '.join(missing)}")
    faces = [Face(path) for path in places.values() if path]
    if not faces:
        raise UserError(f"{packages}: none of the typefaces for testing; run scripts/fetch.py testing first")
    return atlas.build("".join(charset.characters), faces)


def look_alikes(groups: list[str], count: int) -> list[str]:
    """Random members of random groups."""
    rng = np.random.default_rng(11)
    texts = []
    for length in rng.integers(SHORTEST, LONGEST + 1, count):
        chosen = [groups[rng.integers(len(groups))] for _ in range(length)]
        texts.append("".join(group[rng.integers(len(group))] for group in chosen))
    return texts


def drawn(texts: list[str], charset: Charset, glyphs: Glyphs, level: str, longest: int) -> Lines:
    """Renders texts of up to `longest` characters."""
    labels, lengths = np.zeros((len(texts), longest), np.int32), np.asarray([len(text) for text in texts], np.int32)
    for row, text in zip(labels, texts, strict=True):
        row[: len(text)] = charset.encode(text)
    draw, look = jax.jit(render, static_argnums=4), replace(LEVELS[level], width=WIDTHS[longest])
    images = []
    for start in range(0, len(texts), BATCH):
        here = slice(start, start + BATCH)
        key = jax.random.fold_in(jax.random.key(99), start)
        batch, widths = jax.device_get(draw(key, glyphs, labels[here], lengths[here], look))
        grays = np.clip((batch[..., 0] + 1) * 127.5 + 0.5, 0, 255).astype(np.uint8)
        images += [gray[:, :width] for gray, width in zip(grays, widths, strict=True)]
    return Lines(images, texts)


def sets(args: argparse.Namespace, charset: Charset, groups: list[str]) -> Iterator[tuple[str, Lines]]:
    """The sets of lines to read, by name."""
    if args.labels:
        yield "real", real_lines(args.labels)
    if not args.packages:
        return
    typeface = held_out(args.packages, charset)
    glyphs, can = Glyphs.of(typeface, charset), atlas.common(charset.characters, typeface)
    kept = ["".join(c for c in group if c in can and kind_of(c) == "Han") for group in groups]
    texts = look_alikes([group for group in kept if len(group) > 1], args.count)
    yield "look-alikes", drawn(texts, charset, glyphs, "medium", LONGEST)
    writer = Texts(TextConfig(source=str(args.data / "texts.yaml"), longest=LONG), can, SEED)
    yield "forms", drawn([writer.draw(i) for i in range(args.count)], charset, glyphs, args.level, LONG)


def percent(value: Interval, difference: bool = False) -> str:
    sign = "+" if difference else ""
    return f"{100 * value.value:{sign}.2f} % ({100 * value.low:{sign}.2f} to {100 * value.high:{sign}.2f})"


def report(name: str, lines: Lines, readers: dict[str, Recognizer], groups: list[str]) -> dict[str, Any]:
    """Prints the scores of one set of lines, and returns them."""
    truths = [folded(text) for text in lines.texts]
    read = {
        model: [folded(line.text) for line in reader.recognize(lines.images, batch_size=BATCH)]
        for model, reader in readers.items()
    }
    counts = {model: counted(texts, truths, groups) for model, texts in read.items()}
    first, *others = counts
    print(f"\n{name}: {len(truths)} lines, {sum(map(len, truths))} characters\n")
    print("| | " + " | ".join([*counts, *(f"{first} minus {other}" for other in others)]) + " |")
    print("|---" * (1 + len(counts) + len(others)) + "|")
    scores: dict[str, Any] = {}
    for column, pair in counts[first].items():
        values = {model: rate(*count[column]) for model, count in counts.items()}
        apart = [difference(*pair, *counts[other][column]) for other in others]
        cells = [*map(percent, values.values()), *(percent(value, True) for value in apart)]
        print(f"| {column} | {' | '.join(cells)} |")
        scores[column] = {model: list(value) for model, value in values.items()}
    for model, texts in read.items():
        alike = [c for c in score(texts, truths, groups).confusions if c.alike][:MOST]
        print(f"\n{model}, look-alikes: " + (" ".join(f"{c.written}→{c.read}:{c.times}" for c in alike) or "none"))
        wrong = [pair for pair in zip(lines.texts, lines.images, texts, truths, strict=True) if pair[2] != pair[3]]
        for text, image, got, _ in wrong[:MOST] if lines.shown else ():
            print(f"  {Path(image).name} | {text} | {got}")
    return {"lines": len(truths), "characters": sum(map(len, truths)), "scores": scores}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder that jaxcrnn.load reads, or pretrained")
    parser.add_argument("--beside", metavar="OTHER", help="second recogniser, to compare with")
    parser.add_argument("--labels", type=Path, help="label file of real lines, path<TAB>text a line")
    parser.add_argument("--packages", type=Path, help="folder of scripts/fetch.py, with the typefaces for testing")
    parser.add_argument("--data", type=Path, help="folder with groups.txt and texts.yaml; needed with --packages")
    parser.add_argument("--groups", type=Path, help="file of look-alikes (default: DATA/groups.txt)")
    parser.add_argument("--level", choices=LEVELS, default="forms", help="look of the forms (default: forms)")
    parser.add_argument("--count", type=int, default=600, help="rendered lines of each set (default: 600)")
    parser.add_argument("--json", type=Path, help="also write the scores to this file")
    args = parser.parse_args()
    if not (args.labels or args.packages) or bool(args.packages) != bool(args.data):
        parser.error("give --labels, or --packages with --data, or all three")
    try:
        readers = {name: jaxcrnn.load(name) for name in dict.fromkeys([args.model, *filter(None, [args.beside])])}
        groups_file = args.groups or (args.data / "groups.txt" if args.data else None)
        groups = list(read_groups(groups_file)) if groups_file else []
        charset = next(iter(readers.values())).charset
        results = {name: report(name, lines, readers, groups) for name, lines in sets(args, charset, groups)}
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    if args.beside:
        means = {
            model: float(np.mean([result["scores"]["characters right"][model][0] for result in results.values()]))
            for model in readers
        }
        best = max(means, key=lambda model: means[model])
        print(f"\nbetter: {best}, " + ", ".join(f"{model} {mean:.2%}" for model, mean in means.items()))
    if args.json:
        args.json.write_text(json.dumps(results, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
