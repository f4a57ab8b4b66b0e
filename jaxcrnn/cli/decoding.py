"""What the decoding options of the commands that read ask for."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

import numpy as np

from jaxcrnn.charset import read_text
from jaxcrnn.decoding import automata, ngram
from jaxcrnn.decoding.automata import Automaton
from jaxcrnn.decoding.decoder import Decoder
from jaxcrnn.errors import UserError
from jaxcrnn.runs.folder import Run
from jaxcrnn.types import TrainState

NEEDS = (("lm_weight", "lm"), ("lm_bonus", "lm"), ("lexicon_weight", "lexicon"))


def decoder_of(args: Namespace, run: Run, state: TrainState) -> Decoder | None:
    """What the decoding options of a command that reads ask for; None where they ask for nothing.

    Raises:
      UserError: a file cannot be read, or an option is out of range.
    """
    charset = run.charset
    for given, needed in NEEDS:
        if getattr(args, given) is not None and getattr(args, needed, "") in (None, ""):
            raise UserError(f"--{given.replace('_', '-')} is for --{needed}; expected --{needed} FILE")
    asked = args.beam is not None or args.best is not None or args.lexicon or args.lm
    if not (asked or getattr(args, "characters", False)):
        return None
    found: list[Automaton] = []
    for name, value in (("beam", args.beam), ("best", args.best)):
        if value is not None and not 1 <= value <= 1000:
            raise UserError(f"--{name} {value}: expected 1 to 1000")
    if args.beam is not None and args.best is not None and args.best > args.beam:
        raise UserError(f"--best {args.best}: expected --beam {args.beam} or fewer")
    weights = {"lm-weight": args.lm_weight, "lm-bonus": args.lm_bonus, "lexicon-weight": args.lexicon_weight}
    for name, weight in weights.items():
        if weight is not None and not np.isfinite(weight):
            raise UserError(f"--{name} {weight}: expected a finite number")
    if args.lexicon:
        words = [line.strip("\r\n") for line in read_text(args.lexicon).split("\n")]
        strange = sorted({c for word in words for c in charset.missing(word)})
        unread = sum(bool(charset.missing(word)) for word in words)
        if unread and unread < sum(map(bool, words)):
            print(f"{args.lexicon}: {unread} of {sum(map(bool, words))} words left out, they have characters outside "
                  f"the charset: {' '.join(strange[:10])}", file=sys.stderr)  # fmt: skip
        try:
            found.append(automata.lexicon(words, charset, args.lexicon_weight))
        except UserError as error:
            raise UserError(f"{args.lexicon}: {error}") from None
    if args.lm:
        model = ngram.load_ngrams(Path(args.lm))
        if not any(c in charset for c in model.characters):
            raise UserError(f"{args.lm}: none of its {len(model.characters)} characters is one of the charset's; "
                            "expected a model of the language that is read")  # fmt: skip
        weight = 0.5 if args.lm_weight is None else args.lm_weight
        found.append(automata.of_ngrams(model, charset, weight, args.lm_bonus or 0.0))
    needs = bool(found) or (args.best or 1) > 1
    width = args.beam or (16 if needs else 1)
    return Decoder(max(width, args.best or 1), best=args.best or 1, automata=tuple(found))
