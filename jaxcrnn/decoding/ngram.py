"""Files of character n-grams, as ``jaxcrnn lm train`` makes them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from jaxcrnn._files import written_whole
from jaxcrnn._text import first_line
from jaxcrnn.decoding.automata import NGrams
from jaxcrnn.errors import UserError

FORMAT = "jaxcrnn ngrams 1"
MAX_ORDER = 8


def save_ngrams(path: Path, model: NGrams) -> None:
    """Writes a model of language.

    Raises:
      UserError: the file cannot be written.
    """
    arrays = {name: getattr(model, name) for name in ("parents", "tokens", "log_p", "backoff")}
    facts = {
        "format": FORMAT,
        "order": str(model.order),
        "characters": json.dumps(model.characters, ensure_ascii=False),
    }
    with written_whole(path) as part:
        part.write_bytes(save(arrays, metadata=facts))


def load_ngrams(path: Path) -> NGrams:
    """Reads a model of language.

    Raises:
      UserError: no such file, truncated, or not one of ``jaxcrnn lm train``.
    """
    expected = "expected one made by 'jaxcrnn lm train'"
    if not path.is_file():
        raise UserError(f"{path}: no such file; {expected}")
    try:
        with safe_open(path, "numpy") as file:
            facts = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if facts.get("format") != FORMAT:
            raise ValueError(f"of format {facts.get('format')!r}")
        characters = json.loads(facts["characters"])
        model = NGrams(
            int(facts["order"]), arrays["parents"], arrays["tokens"], arrays["log_p"], arrays["backoff"], characters
        )
        _check(model)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: no model of language ({first_line(error)}); {expected}") from None
    return model


def _check(model: NGrams) -> None:
    """Whether the arrays are a trie of the order they say."""
    count = len(model.parents)
    sizes = {a.shape for a in (model.parents, model.tokens, model.log_p, model.backoff)}
    whole = isinstance(model.characters, str) and len(set(model.characters)) == len(model.characters)
    if sizes != {(count,)} or not whole or not count or not 1 <= model.order <= MAX_ORDER:
        raise ValueError("sizes that do not fit")
    parents, tokens = np.asarray(model.parents, np.int64), np.asarray(model.tokens, np.int64)
    if (parents[1:] < 0).any() or (parents[1:] >= np.arange(1, count)).any() or parents[0]:
        raise ValueError("n-grams before their beginning")
    if (tokens < 0).any() or (tokens >= len(model.characters) + 2).any():
        raise ValueError("characters it does not have")
    depth = np.zeros(count, np.int64)
    for i in range(1, count):
        depth[i] = depth[parents[i]] + 1
    if depth.max() > model.order or (np.diff(depth) < 0).any():
        raise ValueError("n-grams of a higher order")
    if len({*zip(parents[1:].tolist(), tokens[1:].tolist(), strict=True)}) < count - 1:
        raise ValueError("n-grams that stand twice")
    with np.errstate(all="ignore"):  # of a damaged file: what they turn out to be is looked at
        known, left = np.exp(np.asarray(model.log_p, np.float64)), np.asarray(model.backoff, np.float64)
    if not ((known >= 0) & (known <= 1)).all() or not known.any() or not ((left <= 1e-6) & (left > -1e3)).all():
        raise ValueError("numbers that are no probabilities")
