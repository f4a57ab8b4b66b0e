"""Decoding options shared by `evaluate` and `recognize`."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from jaxcrnn._text import read_text
from jaxcrnn.charset import Charset
from jaxcrnn.errors import UserError

if TYPE_CHECKING:
    from jaxcrnn.decoding.automata import Automaton
    from jaxcrnn.decoding.decoder import Decoder

NEEDS = (("lm_weight", "lm"), ("lm_bonus", "lm"), ("lexicon_weight", "lexicon"))


def add_decoding(parser: argparse.ArgumentParser) -> None:
    """Add the options of beam search, lexicon and language model."""
    group = parser.add_argument_group("decoding")
    group.add_argument(
        "--beam",
        type=int,
        metavar="W",
        help="beam search that keeps the W best prefixes of the text; default: no "
        "beam (the best class of each frame), or 16 if an option below needs one",
    )
    group.add_argument("--best", type=int, metavar="N", help="print the N most probable texts")
    group.add_argument("--lexicon", metavar="FILE", help="word list, one per line; only these words are output")
    group.add_argument(
        "--lexicon-weight",
        type=float,
        metavar="X",
        help="allow other words too, and add X to the log probability for each word in the lexicon",
    )
    group.add_argument("--lm", metavar="FILE", help="language model of character n-grams made by 'jaxcrnn lm train'")
    group.add_argument(
        "--lm-weight", type=float, metavar="X", help="weight of the language model's log probabilities; default: 0.5"
    )
    group.add_argument(
        "--lm-bonus",
        type=float,
        metavar="X",
        help="with --lm: added to the log probability for each character; default: 0",
    )


def decodes(args: argparse.Namespace) -> str:
    """Return the first option of `add_decoding` that was given and needs a decoder, such as ``--beam``; else empty.

    Raises:
      UserError: an option is out of range, or requires another one.
    """
    for option, needed in NEEDS:
        if getattr(args, option) is not None and not getattr(args, needed):
            raise UserError(f"--{option.replace('_', '-')} requires --{needed} FILE")
    _check(args)
    values = {"beam": args.beam is not None, "best": args.best is not None, "lexicon": args.lexicon, "lm": args.lm}
    return next((f"--{name}" for name, given in values.items() if given), "")


def decoder_of(args: argparse.Namespace, charset: Charset) -> Decoder | None:
    """Build the decoder that the options of `add_decoding` describe, or None for best-path decoding.

    Args:
      args: values of the options.
      charset: charset of the run.

    Raises:
      UserError: a file cannot be read, or an option is out of range.
    """
    if not decodes(args):
        return None
    from jaxcrnn.decoding.decoder import Decoder

    automata: list[Automaton] = []
    if args.lexicon:
        automata.append(_lexicon(args.lexicon, charset, args.lexicon_weight))
    if args.lm:
        automata.append(_ngrams(args.lm, charset, args.lm_weight, args.lm_bonus))
    needs = bool(automata) or (args.best or 1) > 1
    width = args.beam or (16 if needs else 1)
    return Decoder(max(width, args.best or 1), best=args.best or 1, automata=tuple(automata))


def _check(args: argparse.Namespace) -> None:
    for name, value in (("beam", args.beam), ("best", args.best)):
        if value is not None and not 1 <= value <= 1000:
            raise UserError(f"--{name} {value}: expected 1 to 1000")
    if args.beam is not None and args.best is not None and args.best > args.beam:
        raise UserError(f"--best {args.best}: expected at most the beam width, --beam {args.beam}")
    weights = {"lm-weight": args.lm_weight, "lm-bonus": args.lm_bonus, "lexicon-weight": args.lexicon_weight}
    for name, weight in weights.items():
        if weight is not None and not math.isfinite(weight):
            raise UserError(f"--{name} {weight}: expected a finite number")


def _lexicon(path: str, charset: Charset, weight: float | None) -> Automaton:
    from jaxcrnn.decoding import automata

    words = [line.strip("\r\n") for line in read_text(path).split("\n")]
    unknown = sorted({c for word in words for c in charset.missing(word)})
    unspellable = sum(bool(charset.missing(word)) for word in words)
    if unspellable and unspellable < sum(map(bool, words)):
        print(
            f"{path}: skipped {unspellable} of {sum(map(bool, words))} words with characters outside "
            f"the charset: {' '.join(unknown[:10])}",
            file=sys.stderr,
        )
    try:
        return automata.lexicon(words, charset, weight)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _ngrams(path: str, charset: Charset, weight: float | None, bonus: float | None) -> Automaton:
    from jaxcrnn.decoding import automata, ngram

    model = ngram.load_ngrams(Path(path))
    if not any(c in charset for c in model.characters):
        raise UserError(
            f"{path}: none of its {len(model.characters)} characters is in the run's charset; "
            "expected a model of the run's language"
        )
    return automata.of_ngrams(model, charset, 0.5 if weight is None else weight, bonus or 0.0)
