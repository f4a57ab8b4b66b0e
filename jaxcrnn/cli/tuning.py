"""The command that finds the weight of look-alike rescoring, ``jaxcrnn lookalikes tune``."""

from __future__ import annotations

import dataclasses
import json
import sys
from argparse import Namespace
from pathlib import Path

import jax.numpy as jnp

from jaxcrnn import _console
from jaxcrnn.cli.decoding import decoder_of
from jaxcrnn.cli.reading import usable_lines, validation_path
from jaxcrnn.cli.scoring import groups_of
from jaxcrnn.decoding.evaluate import evaluate
from jaxcrnn.decoding.rescoring import MOST
from jaxcrnn.errors import UserError
from jaxcrnn.lookalikes import confusions
from jaxcrnn.runs import folder


def run(args: Namespace) -> int:
    """Reads validation lines once for each weight and prints what each gives; the best has the fewest edits."""
    opened = folder.open_run(Path(args.run))
    path = validation_path(opened, args.data)
    weights = sorted({float(weight) for weight in args.weights})
    if not all(0 <= weight <= MOST for weight in weights):
        raise UserError(f"--weights {' '.join(f'{w:g}' for w in weights)}: expected numbers from 0 to {MOST:g}")
    state, step = opened.state(args.checkpoint)
    args.rescore, args.best = 0.0, None
    decoder = decoder_of(args, opened, state)
    shown_on = sys.stderr if args.json else sys.stdout
    corpus = usable_lines(opened, [path], args, keep_text_faults=True, shown_on=shown_on)
    assert decoder is not None and decoder.rescorer is not None  # noqa: PT018
    data, groups, found = opened.config.data, groups_of(args.groups or ""), []
    for weight in weights:
        tried = dataclasses.replace(decoder, rescorer=decoder.rescorer._replace(weight=jnp.float32(weight)))
        read = evaluate(opened.train_config, state, opened.charset, corpus, batch_size=data.batch_size,
                        buckets=data.buckets, decoder=tried)  # fmt: skip
        found.append((weight, confusions.score([line.text for line in read.lines], read.truths, groups).lines))
    edits = {weight: int(counts.edits.sum()) for weight, counts in found}
    best = min(weights, key=lambda weight: (edits[weight], weight))
    if args.json:
        every = [{"weight": weight, "edits": edits[weight],
                  **{name: rate.known for name, rate in confusions.rates(counts).items()}}
                 for weight, counts in found]  # fmt: skip
        facts = {"run": str(opened.folder), "data": path, "step": step, "best": best, "weights": every}
        print(json.dumps(facts, ensure_ascii=False, indent=2))
        return 0
    names = [name for name, _, _ in confusions.rate_rows(found[0][1])]
    rows = [(f"{weight:g}", edits[weight], *(value for _, value, _ in confusions.rate_rows(counts)))
            for weight, counts in found]  # fmt: skip
    print(f"{opened.folder}, checkpoint of step {step}, on {path}: {len(corpus)} lines\n")
    print(_console.table(("weight", "edits", *names), rows), end="\n\n")
    against = f" ({edits[0.0]} without)" if 0.0 in edits else ""
    print(f"fewest edits, {edits[best]}{against}: --rescore {best:g}")
    return 0
