"""``jaxcrnn centers estimate``: estimate class centers from a trained run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from jaxcrnn.cli import options
from jaxcrnn.errors import UserError

SUMMARY = "estimate the mean features (center) of each character from a trained run, for train --preset flow2"
MODULES = options.RUN_MODULES


def add_options(parser: options.Parser) -> None:
    parser.add_argument(
        "action",
        choices=["estimate"],
        help="average the features of each class over the lines that the run recognises exactly",
    )
    parser.add_argument("--run", required=True, metavar="RUN", help=f"trained recogniser: {options.TRAINED}")
    parser.add_argument("--data", metavar="FILE", help="label file to read; default: the run's training set")
    parser.add_argument("--out", metavar="FILE", help="output file; default: centers.safetensors in the run folder")
    options.add_batch_size(parser)
    options.add_checkpoint(parser)
    options.add_reading(parser, skip_bad="rows with faults")


def run(args: argparse.Namespace) -> int:
    import numpy as np

    from jaxcrnn._files import can_be_written
    from jaxcrnn.decoding.evaluate import estimate_centers
    from jaxcrnn.interop.trained import ExportedRun, open_trained
    from jaxcrnn.runs import center_files, folder
    from jaxcrnn.runs.usable_lines import usable_lines

    opened = open_trained(args.run, args.trust_code)
    data = opened.config.data
    batch_size = options.batch_size(args, data.batch_size)
    paths = [args.data] if args.data else [data.train, *data.more]
    if not all(paths):
        raise UserError(f"{opened.folder}: no training set on record; give --data FILE, a label file of path<TAB>text")
    if isinstance(opened, ExportedRun) and not args.out:
        raise UserError(f"{opened.folder}: an exported model; give --out FILE, a new file for the centers")
    out = Path(args.out or opened.folder / folder.CENTERS)
    can_be_written(out)
    reading = options.reading(args)
    reading["skip_bad"] = args.skip_bad or opened.facts().get("skip_bad", False)
    corpus = usable_lines(opened, paths, keep_text_faults=False, shown_on=sys.stdout, **reading)
    state, step = opened.state(args.checkpoint)
    centers, exact = estimate_centers(
        opened.reader_config, state, corpus, batch_size=batch_size, buckets=data.buckets, workers=data.workers
    )
    if not exact:
        raise UserError(
            f"{opened.folder}: none of {len(corpus)} lines is recognised exactly, so there is nothing to "
            "estimate from; train the run until it reads some lines"
        )
    center_files.save(out, centers, opened.charset)
    counts = np.asarray(centers.counts)
    unseen = [opened.charset.name(int(i)) for i in np.flatnonzero(counts == 0)]
    print(f"{opened.described(step)}, on {', '.join(paths)}")
    print(f"{exact} of {len(corpus)} lines recognised exactly, {int(counts.sum())} frames; {corpus.left_out} skipped")
    print(f"{len(counts) - len(unseen)} of {len(counts)} classes have a center, {len(unseen)} were never seen", end="")
    print((": " + " ".join(unseen[:40]) + (" ..." if len(unseen) > 40 else "")) if unseen else "")
    blank = counts[opened.charset.blank] / counts.sum()
    print(f"{blank:.1%} of the frames are blank")
    print(f"wrote {out}; next: jaxcrnn train --init-from {opened.folder} --centers {out} --preset flow2 --out ...")
    return 0
