"""The command that finds look-alikes: ``jaxcrnn lookalikes mine``."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jaxcrnn import _console
from jaxcrnn._files import can_be_written
from jaxcrnn.charset import Charset
from jaxcrnn.cli import scoring
from jaxcrnn.cli.reading import usable_lines, validation_path
from jaxcrnn.decoding.evaluate import evaluate
from jaxcrnn.errors import UserError
from jaxcrnn.lookalikes import confusions
from jaxcrnn.lookalikes.groups import read_table, write_groups
from jaxcrnn.lookalikes.similarity import alike, known_scores, merge, neighbours, similarities
from jaxcrnn.render import atlas as atlases
from jaxcrnn.render.atlas import SIZE, Atlas
from jaxcrnn.runs import folder

TABLED = 0.65  # least score of a table's pair; tables are made by many hands and hold pairs that look nothing alike


def run(args: Namespace) -> int:
    """``jaxcrnn lookalikes ACTION``."""
    return {"mine": mine, "score": scoring.score}[args.action](args)


def mine(args: Namespace) -> int:
    """``jaxcrnn lookalikes mine``: glyphs, tables and a run's confusions, merged into groups."""
    out = _checked(args)
    tables = {Path(path).name: read_table(path) for path in args.table}
    run = folder.open_run(Path(args.run)) if args.run else None
    characters = _characters(args, run)
    index = {c: i for i, c in enumerate(characters)}
    pairs: dict[tuple[int, int], float] = {}
    scores: dict[tuple[int, int], float] = {}
    sources = []
    glyphs = None
    if args.fonts:
        glyphs = _glyphs(args.fonts, characters)
        pairs, scores = _by_glyphs(glyphs, args.similarity)
        sources.append(f"{len(pairs)} pairs by glyphs of {', '.join(glyphs.fonts)}")
    for name, table in tables.items():
        known = sorted(_ordered(*(index[c] for c in p)) for p in table if len(p) == 2 and p <= index.keys())
        taken, why = _tabled(known, glyphs)
        for pair, score in taken.items():
            pairs[pair] = max(pairs.get(pair, 0), score)
            scores[pair] = max(score, args.similarity)
        sources.append(f"{len(taken)} of {len(known)} pairs of {name}{why}")
    if run:
        confused = _confused(args, run, index)
        for pair in confused:
            pairs[pair] = scores[pair] = 1.0
        sources.append(f"{len(confused)} pairs that {run.folder.name} confuses at least {args.least} times")
    unwritable = [p for p in pairs if not all(_can_be_written(characters[i]) for i in p)]
    if unwritable:
        pairs = {pair: score for pair, score in pairs.items() if pair not in set(unwritable)}
        sources.append(f"{len(unwritable)} pairs with a space or '#' left out, which a file of groups cannot hold")
    groups = ["".join(characters[i] for i in group) for group in
              merge(pairs, scores, least=args.similarity, largest=args.largest)]  # fmt: skip
    if not groups:
        raise UserError(f"no look-alikes found among {len(characters)} characters ({'; '.join(sources)})")
    write_groups(out, groups, [f"{len(groups)} groups of look-alikes among {len(characters)} characters", *sources])
    print("\n".join(sources))
    print(f"{len(groups)} groups with {sum(map(len, groups))} characters, written to {out}")
    if args.picture and glyphs is not None:
        picture(glyphs, groups).save(args.picture)
        print(f"drawn as {args.picture}")
    return 0


def _checked(args: Namespace) -> Path:
    """The file to write, after a look at every option, before any work."""
    out, drawn = Path(args.out), Path(args.picture) if args.picture else None
    for path in (out, drawn or out):
        can_be_written(path)
    if not 0 < args.similarity <= 1:
        raise UserError(f"--similarity {args.similarity}: expected more than 0, at most 1")
    for name, value, least in (("largest", args.largest, 2), ("least", args.least, 1)):
        if value < least:
            raise UserError(f"--{name} {value}: expected {least} or more")
    if not (args.fonts or args.table or args.run):
        raise UserError("nothing to find look-alikes by; give --fonts FOLDER, --table FILE or --run RUN")
    if args.data and not args.run:
        raise UserError("--data is what --run reads; give --run RUN")
    if drawn and not args.fonts:
        raise UserError("--picture draws glyphs; give --fonts FOLDER, or --fonts embedded")
    if drawn and drawn.resolve() == out.resolve():
        raise UserError(f"{out}: given to --out and to --picture; expected two files")
    if drawn and drawn.suffix.lower() not in Image.registered_extensions():
        raise UserError(f"{drawn}: no ending of an image; expected a name such as groups.png")
    return out


def _ordered(one: int, two: int) -> tuple[int, int]:
    return min(one, two), max(one, two)


def _can_be_written(character: str) -> bool:
    return not atlases.is_space(character) and character != "#"


def _tabled(known: list[tuple[int, int]], glyphs: Atlas | None) -> tuple[dict[tuple[int, int], float], str]:
    """The pairs of a table that are alike enough to see, with their scores, and what became of the others."""
    if glyphs is None or not known:
        return dict.fromkeys(known, 0.0), ""
    found = similarities(glyphs.tiles, glyphs.present, np.asarray(known))
    taken = {(i, j): float(score) for (i, j), score in zip(known, found, strict=True) if score >= TABLED}
    unseen = int((found < 0).sum())
    return taken, f" ({unseen} with a character that no font has)" if unseen else ""


def _characters(args: Namespace, run: folder.Run | None) -> str:
    if args.charset:
        charset = Charset.from_file(args.charset)
        if run:
            folder.same_charset(run, charset, args.charset)
        return "".join(charset.characters)
    if run:
        return "".join(run.charset.characters)
    if args.fonts == "embedded":
        return atlases.embedded().characters
    raise UserError("no characters to look among; give --charset FILE, one character a line")


def _glyphs(fonts: str, characters: str) -> Atlas:
    glyphs = atlases.of_fonts(fonts, characters)
    for line in glyphs.lacking():
        print(line)
    return glyphs


def _by_glyphs(glyphs: Atlas, similarity: float) -> tuple[dict[tuple[int, int], float], dict[tuple[int, int], float]]:
    # A space looks like every other space, and a number sign would begin a comment in the file of groups.
    wanted = [_can_be_written(c) for c in glyphs.characters]
    inked = glyphs.present & np.asarray(wanted)[None, :]
    with _console.make() as shown:
        found = neighbours(
            glyphs.tiles, inked, progress=lambda done, total: shown.progress(done, total, "characters compared")
        )
    return alike(found, sure=max(0.9, similarity), possible=similarity), known_scores(found)


def _confused(args: Namespace, run: folder.Run, index: dict[str, int]) -> set[tuple[int, int]]:
    path = validation_path(run, args.data)
    corpus = usable_lines(run, [path], args, keep_text_faults=True, shown_on=sys.stderr)
    state, _ = run.state("best")
    data = run.config.data
    result = evaluate(run.train_config, state, run.charset, corpus, batch_size=data.batch_size, buckets=data.buckets)
    scored = confusions.score([line.text for line in result.lines], result.truths, groups=[])
    counts: dict[tuple[int, int], int] = {}
    for c in scored.confusions:
        if c.written in index and c.read in index:
            pair = _ordered(index[c.written], index[c.read])
            counts[pair] = counts.get(pair, 0) + c.times
    return {pair for pair, count in counts.items() if count >= args.least}


def picture(glyphs: Atlas, groups: Sequence[str], columns: int = 8) -> Image.Image:
    """Groups as a sheet: each in a box with a number, every typeface a row of its own."""
    index = {c: i for i, c in enumerate(glyphs.characters)}
    fonts, widest = len(glyphs.fonts), max(map(len, groups))
    wide, high = widest * SIZE + 40, fonts * SIZE + 12
    rows = -(-len(groups) // columns)
    sheet = Image.new("L", (columns * wide, rows * high), 255)
    draw, small = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for number, group in enumerate(groups):
        left, top = number % columns * wide, number // columns * high
        draw.rectangle((left, top, left + wide - 4, top + high - 4), outline=200)
        draw.text((left + 4, top + 4), str(number + 1), fill=110, font=small)
        for k, character in enumerate(group):
            for f in range(fonts):
                tile = Image.fromarray(255 - glyphs.tiles[f, index[character]])
                sheet.paste(tile, (left + 32 + k * SIZE, top + 4 + f * SIZE))
    return sheet
