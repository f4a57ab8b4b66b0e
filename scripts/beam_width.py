"""What the beam's width changes: accuracy and time of a run on a data set, for docs/open-doors.md.

python scripts/beam_width.py RUN LABELS [--lm FILE --lm-weight X --lm-bonus X] [--lexicon FILE] [--out FILE.json]
"""

import argparse
import dataclasses
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import jax

from jaxcrnn import _console
from jaxcrnn.cli.decoding import add_decoding, decoder_of
from jaxcrnn.data import buckets
from jaxcrnn.data.loader import Batches
from jaxcrnn.decoding.decoder import Decoder
from jaxcrnn.decoding.evaluate import evaluate
from jaxcrnn.errors import UserError
from jaxcrnn.runs import folder
from jaxcrnn.runs.usable_lines import usable_lines


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Format a row of the printed table."""
    lines, edits = f"{row['lines_right']}/{row['lines']}", f"{row['edits']}/{row['characters']}"
    return row["width"], lines, edits, f"{row['ms_a_line']:.2f}", f"{row['over_greedy']:.2f}"


def main() -> int:
    """Reads everything once for accuracy, then interleaved for time, including the model's."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run")
    parser.add_argument("data")
    parser.add_argument("--widths", type=int, nargs="+", default=[2, 4, 8, 16, 32, 64])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--checkpoint", default="best")
    parser.add_argument("--out")
    add_decoding(parser)
    args = parser.parse_args()
    run = folder.open_run(Path(args.run))
    state, step = run.state(args.checkpoint)
    corpus = usable_lines(run, [args.data], keep_text_faults=True, allow_outside=True, shown_on=sys.stderr)
    base_decoder = decoder_of(args, run.charset) or Decoder()
    decoders = {"greedy": Decoder(1)} | {f"{w}": dataclasses.replace(base_decoder, width=w) for w in args.widths}
    config, data = run.reader_config, run.config.data
    planned = Batches(corpus, buckets.choose(corpus.widths, data.buckets), 8, workers=1)
    batches = [batch for _, batch in planned.in_order()]
    scores, times = {}, {name: [] for name in decoders}
    for name, decoder in decoders.items():
        read = evaluate(config, state, run.charset, corpus, batch_size=8, buckets=data.buckets, decoder=decoder)
        scores[name] = read.score()
    for _ in range(args.rounds):
        for name, decoder in decoders.items():
            began = time.perf_counter()
            for batch in batches:
                jax.block_until_ready(decoder.read(config, state, batch))
            times[name].append((time.perf_counter() - began) / len(corpus) * 1000)
    base = statistics.median(times["greedy"])
    rows = []
    for name, score in scores.items():
        milliseconds = statistics.median(times[name])
        row = {
            "width": name,
            "lines_right": score.correct,
            "lines": score.lines,
            "edits": score.edits,
            "characters": score.characters,
            "ms_a_line": milliseconds,
            "over_greedy": milliseconds - base,
        }
        rows.append(row)
    print(f"{args.run}, checkpoint of step {step}, {len(run.charset)} characters, on {args.data}; batches of 8\n")
    print(
        _console.table(("width", "lines right", "edits", "ms a line", "more than greedy"), [cells(row) for row in rows])
    )
    if args.out:
        Path(args.out).write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(f"beam_width.py: {error}")
