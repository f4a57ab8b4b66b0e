"""``jaxcrnn lookalikes mine``, ``atlas`` and ``score``: find look-alikes, draw their glyphs, and count confusions."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from jaxcrnn.cli import options
from jaxcrnn.errors import UserError

if TYPE_CHECKING:
    from jaxcrnn.lookalikes.confusions import Confusion, Scores
    from jaxcrnn.render.atlas import Atlas
    from jaxcrnn.runs.folder import Run

SUMMARY = "find characters that look alike, and count how often they are confused"
MODULES = options.RUN_MODULES


def add_options(parser: options.Parser) -> None:
    actions = options.add_actions(parser)
    mine = actions.add_parser(
        "mine",
        help="find groups of look-alikes",
        description="Find groups of look-alikes, from at least one of --fonts, --table and --run.",
    )
    mine.add_argument(
        "--charset",
        metavar="FILE",
        help="characters to search, one per line; default: the run's, or those of the embedded fonts",
    )
    mine.add_argument(
        "--fonts",
        metavar="FOLDER",
        help="compare the characters' shapes in the fonts of this folder, or in 'system' or 'embedded' fonts",
    )
    mine.add_argument(
        "--table",
        action="append",
        default=[],
        metavar="FILE",
        help="add the pairs of a published table (docs/look-alikes.md has the formats); repeatable",
    )
    mine.add_argument(
        "--run",
        metavar="RUN",
        help="add the characters that a trained recogniser (a run, an exported model or pretrained) confuses on --data",
    )
    mine.add_argument("--data", metavar="FILE", help="label file for --run; default: the run's validation set")
    mine.add_argument(
        "--least", type=int, default=2, metavar="N", help="with --run: minimum confusions of a pair; default: 2"
    )
    mine.add_argument(
        "--similarity",
        type=float,
        default=0.8,
        metavar="X",
        help="minimum glyph similarity (1 is identical; higher finds fewer pairs); default: 0.8",
    )
    mine.add_argument("--largest", type=int, default=6, metavar="N", help="maximum characters in a group; default: 6")
    mine.add_argument("--out", required=True, metavar="FILE", help="text file to write, one group per line")
    mine.add_argument("--picture", metavar="FILE", help="also draw the groups to this image file")
    options.add_reading(mine, skip_bad="unreadable images of --data")
    draw = actions.add_parser(
        "atlas",
        help="draw every character of a charset in many typefaces, for machines without the fonts",
        description="Draw an atlas of glyphs, a file that text.fonts takes instead of a folder of fonts.",
    )
    draw.add_argument("--charset", required=True, metavar="FILE", help="characters to draw, one per line")
    draw.add_argument(
        "--fonts",
        required=True,
        action="append",
        metavar="FONTS",
        help="folder of fonts, a font, or a face of a collection such as file.ttc#2; by default, the face for the "
        "script of the charset is drawn; repeatable",
    )
    draw.add_argument("--typefaces", nargs="+", default=[], metavar="NAME", help="draw only these; default: all")
    draw.add_argument(
        "--without", nargs="+", default=[], metavar="NAME", help="typefaces to exclude, for example to test on them"
    )
    draw.add_argument(
        "--compact",
        action="store_true",
        help="store 16 instead of 256 shades of gray and compress harder, to about a third of the size",
    )
    draw.add_argument("--out", required=True, metavar="FILE.npz", help="atlas to write")
    score = actions.add_parser(
        "score",
        help="count confusions in the predictions of any program",
        description="Count the confusions in the predictions of any program.",
    )
    score.add_argument(
        "--predictions",
        required=True,
        metavar="FILE",
        help="file of path<TAB>prediction<TAB>truth lines, as 'evaluate --predictions' writes; lines of the form index "
        "[prediction] [truth], from other programs, are read too",
    )
    options.add_groups(score)
    score.add_argument("--most", type=int, default=20, metavar="N", help="number of confusions to show; default: 20")
    score.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    return {"mine": _mine, "atlas": _atlas, "score": _score}[args.action](args)


def _mine(args: argparse.Namespace) -> int:
    """Merge glyph similarities, tables and a run's confusions into groups."""
    from jaxcrnn import _console
    from jaxcrnn.interop.trained import open_trained
    from jaxcrnn.lookalikes.groups import read_table, write_groups
    from jaxcrnn.lookalikes.mining import Candidates
    from jaxcrnn.report.sheet import glyph_sheet

    out = _checked(args)
    tables = {Path(path).name: read_table(path) for path in args.table}
    opened = open_trained(args.run, args.trust_code) if args.run else None
    candidates = Candidates(_characters(args, opened), args.similarity)
    glyphs = None
    if args.fonts:
        glyphs = _glyphs(args.fonts, candidates.characters)
        with _console.make() as shown:
            candidates.add_glyphs(
                glyphs.tiles,
                glyphs.present,
                glyphs.fonts,
                lambda done, total: shown.progress(done, total, "characters compared"),
            )
    for name, table in tables.items():
        if glyphs is None:
            candidates.add_table(name, table)
        else:
            candidates.add_table(name, table, glyphs.tiles, glyphs.present)
    if opened:
        candidates.add_confusions(opened.folder.name, _confused(args, opened), args.least)
    groups = candidates.groups(args.largest)
    characters = f"{len(candidates.characters)} characters"
    if not groups:
        raise UserError(f"no look-alikes found among {characters} ({'; '.join(candidates.sources)})")
    write_groups(out, groups, [f"{len(groups)} groups of look-alikes among {characters}", *candidates.sources])
    print("\n".join(candidates.sources))
    print(f"{len(groups)} groups with {sum(map(len, groups))} characters, written to {out}")
    if args.picture and glyphs is not None:
        glyph_sheet(glyphs, groups).save(args.picture)
        print(f"drew them to {args.picture}")
    return 0


def _atlas(args: argparse.Namespace) -> int:
    """Draw the characters of a charset in fonts and write the atlas."""
    from jaxcrnn import _console
    from jaxcrnn._files import can_be_written
    from jaxcrnn.charset import Charset
    from jaxcrnn.render import atlas, fonts

    out = Path(args.out)
    if out.suffix != ".npz":
        raise UserError(f"{out}: expected a name that ends with .npz")
    can_be_written(out)
    characters = "".join(Charset.from_file(args.charset).characters)
    faces = fonts.named([face for place in args.fonts for face in fonts.find(place)], args.typefaces, args.without)
    with _console.make() as shown:
        made = atlas.build(
            characters, faces, cached=False, progress=lambda done, total: shown.progress(done, total, "fonts drawn")
        )
    for line in made.lacking():
        print(line)
    atlas.save(made, out, compact=args.compact)
    print(f"{len(characters)} characters in {len(made.fonts)} typefaces, written to {out}: {', '.join(made.fonts)}")
    return 0


def _checked(args: argparse.Namespace) -> Path:
    """Check every option before any work, and return the output path."""
    from PIL import Image

    from jaxcrnn._files import can_be_written

    out, drawn = Path(args.out), Path(args.picture) if args.picture else None
    for path in (out, drawn or out):
        can_be_written(path)
    if not 0 < args.similarity <= 1:
        raise UserError(f"--similarity {args.similarity}: expected more than 0, at most 1")
    for name, value, least in (("largest", args.largest, 2), ("least", args.least, 1)):
        if value < least:
            raise UserError(f"--{name} {value}: expected {least} or more")
    if not (args.fonts or args.table or args.run):
        raise UserError("no source of look-alikes; give --fonts FOLDER, --table FILE or --run RUN")
    if args.data and not args.run:
        raise UserError("--data requires --run RUN, the run that reads it")
    if drawn and not args.fonts:
        raise UserError("--picture requires --fonts FOLDER or --fonts embedded")
    if drawn and drawn.resolve() == out.resolve():
        raise UserError(f"{out}: used for both --out and --picture; expected two files")
    if drawn and drawn.suffix.lower() not in Image.registered_extensions():
        raise UserError(f"{drawn}: unknown image suffix; expected a name such as groups.png")
    return out


def _characters(args: argparse.Namespace, opened: Run | None) -> str:
    from jaxcrnn.charset import Charset
    from jaxcrnn.render import atlas
    from jaxcrnn.runs.folder import same_charset

    if args.charset:
        charset = Charset.from_file(args.charset)
        if opened:
            same_charset(opened, charset, args.charset)
        return "".join(charset.characters)
    if opened:
        return "".join(opened.charset.characters)
    if args.fonts == "embedded":
        return atlas.embedded().characters
    raise UserError("no charset to search; give --charset FILE, one character per line")


def _glyphs(fonts: str, characters: str) -> Atlas:
    from jaxcrnn.render import atlas

    glyphs = atlas.of_fonts(fonts, characters)
    for line in glyphs.lacking():
        print(line)
    return glyphs


def _confused(args: argparse.Namespace, opened: Run) -> list[Confusion]:
    """Read a data set with a run and return its confusions."""
    from jaxcrnn.decoding.evaluate import evaluate
    from jaxcrnn.lookalikes import confusions
    from jaxcrnn.runs.usable_lines import usable_lines, validation_path

    path = validation_path(opened, args.data)
    corpus = usable_lines(opened, [path], keep_text_faults=True, shown_on=sys.stderr, **options.reading(args))
    state, _ = opened.state("best")
    data = opened.config.data
    result = evaluate(
        opened.reader_config, state, opened.charset, corpus, batch_size=data.batch_size, buckets=data.buckets
    )
    return confusions.score([line.text for line in result.lines], result.truths, groups=[]).confusions


def _score(args: argparse.Namespace) -> int:
    from jaxcrnn._console import table
    from jaxcrnn.data.predictions import read_predictions, with_confidences
    from jaxcrnn.lookalikes import confusions
    from jaxcrnn.lookalikes.groups import read_groups
    from jaxcrnn.render.texts import GROUPS

    if args.most < 1:
        raise UserError(f"--most {args.most}: expected 1 or more")
    predictions = read_predictions(args.predictions)
    if with_confidences(predictions):
        print(
            f"warning: {args.predictions}: the third column looks like confidences, as 'jaxcrnn recognize' prints; "
            "expected the true texts (path<TAB>prediction<TAB>truth)",
            file=sys.stderr,
        )
    groups = read_groups(args.groups or GROUPS)
    scores = confusions.score(predictions.read, predictions.truths, groups)
    if args.json:
        print(_as_json(scores, {"predictions": str(args.predictions), "groups": len(groups)}))
        return 0
    print(f"{args.predictions}: {len(predictions.names)} lines; {len(groups)} groups of look-alikes\n")
    print(table(("score", "", "of"), confusions.rate_rows(scores.lines)), end="\n\n")
    print(_confusion_table(scores.confusions, args.most))
    return 0


def _confusion_table(confusions: list[Confusion], most: int) -> str:
    """Format the most frequent confusions as a table."""
    from jaxcrnn._console import table
    from jaxcrnn.lookalikes.confusions import shown

    if not confusions:
        return "no confusions: every character was read correctly"
    rows = [
        (shown(c.written), shown(c.read), c.times, c.among or "", "look-alikes" if c.alike else "")
        for c in confusions[:most]
    ]
    rest = f"\n... and {len(confusions) - most} more kinds" if len(confusions) > most else ""
    return table(("written", "read", "times", "of", ""), rows) + rest


def _as_json(scores: Scores, facts: dict[str, object]) -> str:
    """Format all scores as JSON."""
    from jaxcrnn._console import to_json
    from jaxcrnn.lookalikes import confusions

    rates = {
        name: {"rate": rate.known, "count": int(rate.over.sum()), "of": int(rate.under.sum())}
        for name, rate in confusions.rates(scores.lines).items()
    }
    confused = [
        {"written": c.written, "read": c.read, "count": c.times, "of": c.among, "alike": c.alike}
        for c in scores.confusions
    ]
    return to_json({**facts, "rates": rates, "confusions": confused}, indent=2)
