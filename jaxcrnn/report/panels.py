"""Sections of the report page, built from logs and readings."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxcrnn.charset import Charset
from jaxcrnn.data.audit import Corpus
from jaxcrnn.lookalikes import confusions
from jaxcrnn.render.atlas import Atlas
from jaxcrnn.report import charts, html
from jaxcrnn.report.features import Features, Seen, plane, separation
from jaxcrnn.runs import metrics_log

POINTS = 120  # maximum points of a curve; longer logs are averaged
CARDS = 12
SERIES = 8  # maximum series of a chart, the number of colors of the page
MAPPED = 6  # maximum groups on the feature map
MARKS = 260  # maximum characters on the feature map


class Reader(NamedTuple):
    """Readings and features of a recogniser."""

    name: str
    seen: list[Seen]
    features: Features


Log = list[dict[str, Any]]


def logged(folders: Mapping[str, Sequence[Path]]) -> dict[str, list[Log]]:
    """Read ``metrics.jsonl`` of every run of each name."""
    return {
        name: [metrics_log.read(folder / metrics_log.NAME).rows for folder in runs] for name, runs in folders.items()
    }


def over_steps(logged: Mapping[str, Sequence[Log]], key: str) -> dict[str, list[tuple[float, float]]]:
    """Extract one value of the logs over the steps, averaged over the runs of each name."""
    curves = {}
    for name, runs in logged.items():
        values: dict[int, list[float]] = defaultdict(list)
        for row in itertools.chain.from_iterable(runs):
            if (value := metrics_log.number(row, key)) is not None:
                values[row["step"]].append(value)
        points = [(step, float(np.mean(at_step))) for step, at_step in sorted(values.items())]
        if points:
            size = -(-len(points) // POINTS)
            chunks = [points[i : i + size] for i in range(0, len(points), size)]
            curves[name] = [tuple(np.mean(chunk, axis=0)) for chunk in chunks]
    return curves


def curves(logged: Mapping[str, Sequence[Log]], *, alone: bool) -> str:
    """Build charts of loss and accuracy during training.

    Args:
      logged: logs of each name.
      alone: whether the page shows a single run; the center losses of several runs are not comparable.
    """
    measures = (
        ("CTC loss", "ctc", "nats", False),
        ("Line accuracy, training", "line_accuracy", "lines", True),
        ("Line accuracy, validation", "val_line_accuracy", "lines", True),
        ("Center loss", "center", "loss", False),
    )
    figures = []
    for caption, key, unit, percent in measures if alone else measures[:-1]:
        if curve := over_steps(logged, key):
            chart = charts.line_chart(
                curve, title=caption, x_label="step", y_label=unit, percent=percent, zero=percent, order=[*logged]
            )
            figures.append((caption, chart))
    return html.charts(figures) if figures else html.text("There are no training logs.")


def distances(logged: Mapping[str, Sequence[Log]]) -> str:
    """Build charts of the distances from features to their own center and to the look-alike's center."""
    figures = []
    measures = (
        ("To the own center", "distance_to_own"),
        ("To the look-alike's center", "distance_to_lookalike"),
        ("Between both centers", "distance_between"),
    )
    for caption, key in measures:
        if curve := over_steps(logged, key):
            chart = charts.line_chart(
                curve, title=caption, x_label="step", y_label="distance", zero=True, order=[*logged]
            )
            figures.append((caption, chart))
    if not figures:
        return html.text("The loss has no centers, so there are no distances.")
    explained = (
        "Means over the frames that are assigned to a character. The look-alike of a frame is the most probable class "
        "other than its own."
    )
    return html.text(explained) + html.charts(figures)


def confused(
    readers: Sequence[Reader], corpus: Corpus, groups: Sequence[str], glyphs: Atlas, counted: Mapping[str, int]
) -> str:
    """Show the most frequent confusions of the first reader, and how often each reader makes them.

    Args:
      readers: readers, of which the first one's confusions are shown.
      corpus: lines that they read.
      groups: look-alike groups.
      glyphs: glyphs to show characters with.
      counted: numbers of lines by description, for the text.
    """
    texts = corpus.texts
    scored = [confusions.score([s.text for s in r.seen], texts, groups) for r in readers]
    frequent = scored[0].confusions
    if not frequent:
        return html.text(f"No confusions: {readers[0].name} read every character correctly.")
    counts = [{(c.written, c.read): c.times for c in one.confusions} for one in scored]
    head = ["written", "read", "look-alikes", *(r.name for r in readers), "of"]
    rows = [
        [
            confusions.shown(c.written),
            confusions.shown(c.read),
            "yes" if c.alike else "",
            *(count.get((c.written, c.read), 0) for count in counts),
            c.among or "",
        ]
        for c in frequent[:30]
    ]
    first = readers[0]
    items = []
    for c in frequent[:CARDS]:
        if example := _example(first, corpus, texts, (c.written, c.read), groups):
            items.append(_card(c, example, first.seen, corpus, texts, glyphs))
    lines = ", ".join(f"{name}: {count} lines" for name, count in counted.items())
    return (
        html.text(f"The most frequent confusions of {first.name}, each with an example line ({lines}).")
        + html.cards(items)
        + html.table(head, rows, "Confusions by recogniser")
    )


def _example(
    reader: Reader, corpus: Corpus, texts: Sequence[str], pair: tuple[str, str], groups: Sequence[str]
) -> tuple[int, float | None] | None:
    """Find the example of a confusion with the highest probability, and return the line and the probability."""
    group = confusions.members(groups)
    best: tuple[int, float | None] | None = None
    for seen in reader.seen:
        if seen.text == texts[seen.item] or (pair[0] and pair[0] not in texts[seen.item]):
            continue
        at = 0
        for written, read in confusions.align(texts[seen.item], seen.text, group):
            if (written, read) == pair:
                sure = seen.probabilities[at] if read else None
                if best is None or (sure or 0) > (best[1] or 0):
                    best = seen.item, sure
            at += bool(read)
    return best


def _card(
    c: confusions.Confusion,
    example: tuple[int, float | None],
    seen: Sequence[Seen],
    corpus: Corpus,
    texts: Sequence[str],
    glyphs: Atlas,
) -> str:
    item, sure = example
    line = html.picture(corpus.image(item), f"image of the line {texts[item]}", "line")
    how = "" if sure is None else f" ({sure:.1%} for {confusions.shown(c.read)})"
    text = (seen[item].text or "(nothing)") + how
    return html.confusion_card(glyph(c.written, glyphs), glyph(c.read, glyphs), line, texts[item], text, _often(c))


def _often(c: confusions.Confusion) -> str:
    counted = f"{c.times} of {c.among} times" if c.written else f"{c.times} times"
    return counted + (", look-alikes" if c.alike else "")


def glyph(character: str, glyphs: Atlas) -> str:
    """Show a character as a picture, or as text if no font has it."""
    index = glyphs.characters.find(character) if character else -1
    there = np.flatnonzero(glyphs.present[:, index]).tolist() if index >= 0 else []
    if there:
        return html.picture(255 - glyphs.tiles[there[0], index], character, "glyph")
    return html.span(confusions.shown(character))


def feature_map(readers: Sequence[Reader], charset: Charset, groups: Sequence[str]) -> str:
    """Build one map of character features for each reader, colored by group."""
    chosen, number = _chosen(readers[-1], charset, groups)
    if not chosen:
        return html.text("No feature map: the data contain no two characters of a look-alike group.")
    classes = {c: n for n, group in enumerate(chosen) for c in group}
    figures = []
    within = [np.flatnonzero(np.isin(r.features.classes, list(classes))) for r in readers]
    planes = plane([r.features.vectors[inside] for r, inside in zip(readers, within, strict=True)])
    for reader, inside, flat in zip(readers, within, planes, strict=True):
        vectors, ids = reader.features.vectors, reader.features.classes
        apart = separation(vectors[inside], ids[inside], chosen)
        # Evenly spaced, because the characters are sorted by the widths of their lines.
        chosen_marks = np.unique(np.linspace(0, len(inside) - 1, MARKS).astype(int))
        points = [
            (float(x), float(y), charset.name(int(c)), classes[int(c)])
            for (x, y), c in zip(flat[chosen_marks], ids[inside][chosen_marks], strict=True)
        ]
        title = f"{reader.name}: separation of look-alikes {apart:.2f}"
        figures.append((title, charts.scatter(points, title=f"Map of character features, {title}")))
    keys = html.group_keys(["".join(charset.name(c) for c in group) for group in chosen])
    explained = (
        "Each character is placed at its feature's projection on the first two principal components of that "
        "recogniser's features, rotated to match the first map. Each group has one color. The separation is computed "
        "in all dimensions: the distance between the means of two look-alikes, divided by the root mean square "
        f"distance of characters to their own mean. {number} At most {MARKS} characters are shown on a map."
    )
    return html.text(explained) + keys + html.charts(figures)


def _chosen(reader: Reader, charset: Charset, groups: Sequence[str]) -> tuple[list[list[int]], str]:
    """Choose the groups with most characters in the data and at least two different ones."""
    ids, counts = np.unique(reader.features.classes, return_counts=True)
    occurrences = dict(zip(ids.tolist(), counts.tolist(), strict=True))
    characters = set(charset.characters)
    scored = []
    for group in groups:
        inside = [c for c in (charset.encode(m)[0] for m in group if m in characters) if occurrences.get(c, 0) > 1]
        if len(inside) > 1:
            scored.append((sum(occurrences[c] for c in inside), inside))
    scored.sort(key=lambda one: -one[0])
    return [inside for _, inside in scored[:MAPPED]], f"{min(len(scored), MAPPED)} of {len(scored)} groups are shown."


def lines(reader: Reader, corpus: Corpus, times: Mapping[int, float], most: int = 8) -> str:
    """Show the hardest lines (misread ones first, sorted by their least probable character) and the slowest lines.

    Args:
      reader: reader of the lines.
      corpus: lines that were read.
      times: milliseconds per line, by item.
      most: number of lines of each kind.
    """
    texts = corpus.texts
    hardest = sorted(reader.seen, key=lambda s: (s.text == texts[s.item], min(s.probabilities, default=0.0)))[:most]
    slowest = sorted(times, key=lambda item: (-times[item], -int(corpus.widths[item])))[:most]

    def card(item: int, what: str) -> str:
        seen = reader.seen[item]
        wrong = None if seen.text == texts[item] else seen.text or "(nothing)"
        picture = html.picture(corpus.image(item), f"image of the line {texts[item]}", "line")
        return html.line_card(picture, texts[item], wrong, what)

    hard = [card(s.item, f"least probable character {min(s.probabilities, default=0.0):.1%}") for s in hardest]
    slow = [card(item, f"{times[item]:.1f} ms in a batch, {corpus.widths[item]} px wide") for item in slowest]
    return (
        html.subheading(f"Hardest for {reader.name}") + html.cards(hard) + html.subheading("Slowest") + html.cards(slow)
    )
