"""Training and validation data of a run: open sources, audit them, and build batches."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from jaxcrnn.charset import Charset, breaks
from jaxcrnn.data import buckets as plans
from jaxcrnn.data.audit import UNKNOWN, Corpus, audit_table, broken_label
from jaxcrnn.data.formats import Joined, open_source, open_sources
from jaxcrnn.data.labels import Source
from jaxcrnn.data.loader import Batches
from jaxcrnn.errors import UserError
from jaxcrnn.render import atlas
from jaxcrnn.render.render import Glyphs
from jaxcrnn.render.streams import MixedBatches, RenderedBatches, Stream
from jaxcrnn.render.texts import TextConfig, Texts
from jaxcrnn.runs import config as configs
from jaxcrnn.runs.usable_lines import audit_lines

Corpora = tuple[Corpus | None, Corpus | None]


def source(config: configs.Config) -> Source | None:
    """Open the training sets as one joined source; None if all lines are rendered.

    Raises:
      UserError: a data set cannot be opened, or the number of weights is wrong.
    """
    if config.text.share >= 1:
        return None
    weights, count = config.data.weights, 1 + len(config.data.more)
    if weights and (len(weights) != count or not all(0 < weight < math.inf for weight in weights)):
        raise UserError(
            f"data.weights are {list(weights)}; expected a number above 0 for each of {count} training "
            "sets (--data A B, or data.train and data.more)"
        )
    return open_sources((config.data.train, *config.data.more), config.data.limits, config.data.layout)


def validation(config: configs.Config) -> Source | None:
    """Open the validation set, or return None without one."""
    data = config.data
    return open_source(data.val, data.limits, data.layout) if data.val else None


def charset(config: configs.Config, source: Source | None) -> Charset:
    """Return the charset of a new run: from its file, from the labels, or of the embedded atlas.

    Raises:
      UserError: none of them is available.
    """
    if config.data.charset:
        return Charset.from_file(config.data.charset, config.data.blank)
    if source is None:
        if config.text.fonts != "embedded":
            raise UserError("no charset to render; give --charset FILE, one character per line")
        return Charset(atlas.embedded().characters, config.data.blank)
    texts = [source.text(i) for i in range(len(source))]
    if not any(text and not breaks(text) for text in texts):
        faults = [(fault.where, fault.detail) for fault in source.faults]
        faults += [(source.where(i), broken_label(text)) for i, text in enumerate(texts) if text]
        first = f"{faults[0][0]}: {faults[0][1]} (first of {len(faults)} faults)" if faults else ""
        raise UserError(first or f"{config.data.train}: all labels are empty; expected path<TAB>text")
    return Charset.from_labels(texts, config.data.blank)


def facts(corpora: Corpora) -> dict[str, Any]:
    """Return the entries of ``run.json`` about the data."""
    return {
        name: {"lines": len(corpus), "left_out": corpus.left_out, "faults": corpus.counts()}
        for name, corpus in zip(("train", "val"), corpora, strict=True)
        if corpus is not None
    }


def audited(
    config: configs.Config,
    charset: Charset,
    train: Source | None,
    val: Source | None,
    skip_bad: bool,
    other_charset: str = "",
) -> Corpora:
    """Audit both sets and print a table for each.

    Args:
      config: configuration of the run.
      charset: charset of the run.
      train: lines to train on, or None.
      val: lines to validate on, or None.
      skip_bad: skip rows with faults instead of stopping.
      other_charset: how to train with another charset, for the error if characters are outside it.

    Raises:
      UserError: there are faults and ``skip_bad`` is not set, or no line is usable.
    """
    corpus = audit_lines(config, charset, train, keep_text_faults=False) if train is not None else None
    if corpus is not None:
        print(audit_table("training set", corpus))
    # Validation lines with characters outside the charset count as errors; skipping them would inflate the accuracy.
    validated = audit_lines(config, charset, val, keep_text_faults=skip_bad) if val is not None else None
    if validated is not None:
        print(audit_table("validation set", validated))
        used = {corpus.source.identity(int(i)) for i in corpus.indices} if corpus is not None else set()
        shared = used & {validated.source.identity(int(i)) for i in validated.indices}
        if shared:
            print(f"warning: {len(shared)} images are in both sets; validation scores will be too optimistic")
    bad = sum(len(audited.faults) for audited in (corpus, validated) if audited is not None)
    if bad and not skip_bad:
        unknown = any(
            fault.kind == UNKNOWN for each in (corpus, validated) if each is not None for fault in each.faults
        )
        hint = other_charset if unknown else ""
        raise UserError(f"{bad} faults in the data, listed above; fix them, or skip those rows with --skip-bad{hint}")
    if corpus is not None and not len(corpus):
        raise UserError("no usable lines in the training set")
    if validated is not None and not len(validated):
        raise UserError("no usable lines in the validation set")
    return corpus, validated


Rows = tuple[int, int]


def stream(config: configs.Config, charset: Charset, corpus: Corpus | None, rows: Rows | None = None) -> Stream:
    """Build the batches of a run: lines read from one or several weighted data sets, rendered lines, or both.

    Args:
      config: configuration of the run.
      charset: charset of the run.
      corpus: lines to read, or None.
      rows: range of the rows of every batch that this process builds; all of them by default.

    Raises:
      UserError: a part would have no line in a batch.
    """
    data, text = config.data, config.text
    rows = rows or (0, data.batch_size)
    rendered = round(text.share * data.batch_size)
    parts: list[Stream] = []
    if corpus is not None:
        if rendered == data.batch_size or (text.share and not rendered):
            raise UserError(
                f"text.share is {text.share}, which leaves none of the {data.batch_size} lines of a batch "
                f"(data.batch_size) to be {'read' if rendered else 'rendered'}"
            )
        parts += _read(config, corpus, data.batch_size - rendered, rows)
    if rendered:
        parts.append(_rendered(config, charset, rendered, _of_part(rows, data.batch_size - rendered, rendered)))
    return parts[0] if len(parts) == 1 else MixedBatches(parts)


def _of_part(rows: Rows, start: int, count: int) -> Rows:
    """Intersect ``rows`` of the batch with a part of ``count`` rows that begins at row ``start``."""
    first, last = (min(max(row - start, 0), count) for row in rows)
    return first, last


def _read(config: configs.Config, corpus: Corpus, count: int, rows: Rows) -> list[Stream]:
    """Build the batches of lines read: one stream, or one for each weight."""
    data = config.data
    widths = plans.choose(corpus.widths, data.buckets)
    mixed = bool(config.text.share) or (bool(data.weights) and len(data.more) > 0)
    how: dict[str, Any] = {
        "seed": config.run.seed,
        "workers": data.workers,
        "processes": data.processes,
        "full": mixed,
    }
    if not (data.more and data.weights and isinstance(corpus.source, Joined)):
        return [Batches(corpus, widths, count, **how, rows=_of_part(rows, 0, count))]
    lines, paths = plans.shares(data.weights, count), (data.train, *data.more)
    parts: list[Stream] = []
    start = 0
    of_part = np.searchsorted(corpus.source.ends, corpus.indices, side="right")
    for number, (path, each) in enumerate(zip(paths, lines, strict=True)):
        own = corpus.only(np.flatnonzero(of_part == number))
        if not each or not len(own):
            reason = f"no usable lines in {path}" if each else f"data.weights leave none of {count} lines for {path}"
            raise UserError(f"{reason}; expected at least one line of each training set in a batch")
        print(f"{each} of {count} lines per step from {path} ({len(own)} lines)")
        parts.append(Batches(own, widths, each, **how, rows=_of_part(rows, start, each)))
        start += each
    return parts


def typefaces(text: TextConfig, characters: str) -> atlas.Atlas:
    """Load the glyphs to render with."""
    glyphs = atlas.of_fonts(text.fonts, characters)
    return glyphs.only(text.typefaces, text.without)


def writing(
    config: configs.Config, charset: Charset, seed: int, glyphs: atlas.Atlas | None = None
) -> tuple[Texts, Charset, Glyphs]:
    """Return what rendered lines need: the texts of a seed, the charset, and the glyphs (by default the configured)."""
    characters = "".join(charset.characters)
    glyphs = glyphs or typefaces(config.text, characters)
    return Texts(config.text, atlas.common(characters, glyphs), seed), charset, Glyphs.of(glyphs, charset)


def _rendered(config: configs.Config, charset: Charset, count: int, rows: Rows) -> Stream:
    text, look, characters = config.text, config.rendering, "".join(charset.characters)
    glyphs = typefaces(text, characters)
    written = writing(config, charset, config.run.seed, glyphs)
    texts = written[0]
    print(f"rendering {len(texts.characters)} characters in {len(glyphs.fonts)} typefaces: {', '.join(glyphs.fonts)}")
    for line in glyphs.lacking():
        print(f"  {line}")
    if len(texts.characters) < len(characters):
        lost = len(characters) - len(texts.characters)
        print(f"  {lost} characters are missing in all typefaces or invisible, and never rendered")
    if texts.left_out:
        print(f"  skipped {sum(texts.left_out.values())} characters of {text.source} outside the charset or typefaces")
    if texts.too_short:
        print(f"  skipped {texts.too_short} pieces of {text.source} shorter than {text.shortest} (text.shortest)")
    return RenderedBatches(*written, look, count, config.run.seed, rows)
