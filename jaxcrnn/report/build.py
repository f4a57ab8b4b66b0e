"""A page that shows a run or a comparison."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax

from jaxcrnn import metrics
from jaxcrnn._files import can_be_written, written_whole
from jaxcrnn.data import buckets as plans
from jaxcrnn.data.audit import Corpus
from jaxcrnn.data.loader import Batches
from jaxcrnn.decoding.evaluate import run_eval
from jaxcrnn.errors import UserError
from jaxcrnn.experiments import results
from jaxcrnn.lookalikes import confusions
from jaxcrnn.lookalikes.groups import read_groups
from jaxcrnn.render import atlas
from jaxcrnn.render.atlas import Atlas
from jaxcrnn.render.texts import GROUPS
from jaxcrnn.report import charts, panels
from jaxcrnn.report import html as page
from jaxcrnn.report.features import look
from jaxcrnn.report.html import Section
from jaxcrnn.report.panels import Reader
from jaxcrnn.runs import datasets
from jaxcrnn.runs.folder import CONFIG, FACTS, Run, open_run, open_weights
from jaxcrnn.runs.usable_lines import usable_lines, validation_path
from jaxcrnn.types import TrainState


class Report(NamedTuple):
    """A page, and what it was made from.

    Attributes:
      html: the whole page.
      reader: the readings and features of the run that the page ends with.
      run: that run, or the baseline of a comparison.
      corpus: the lines that were read.
    """

    html: str
    reader: Reader
    run: Run
    corpus: Corpus


Lines = Callable[[Run, str], Corpus]


def write(
    folder: Path,
    out: Path,
    *,
    data: str | None = None,
    groups: str | None = None,
    checkpoint: str | None = None,
    trust_code: bool = False,
    skip_bad: bool = False,
    allow_outside: bool = False,
    max_pixels: int | None = None,
    max_bytes: int | None = None,
) -> Report:
    """Read lines with a run, or with the runs of a comparison, and write a page that shows the results.

    Args:
      folder: run folder, or folder of a comparison.
      out: file to write.
      data: data set to read; the validation set of the run or the last test set of the comparison by default.
      groups: file of look-alike groups; those of the comparison or of the package by default.
      checkpoint: ``"best"`` (the default), ``"latest"`` or a step, for a run only.
      trust_code: whether the modules that the loss of a run names may be imported, which runs their code.
      skip_bad: drop images that cannot be read instead of stopping.
      allow_outside: whether label files may name images outside their folder.
      max_pixels: as in `jaxcrnn.runs.usable_lines.limits_of`.
      max_bytes: as in `jaxcrnn.runs.usable_lines.limits_of`.

    Raises:
      UserError: a file cannot be read or written, or ``checkpoint`` was specified for a comparison.
    """
    can_be_written(out)

    def lines(opened: Run, path: str) -> Corpus:
        return usable_lines(opened, [path], keep_text_faults=True, skip_bad=skip_bad, allow_outside=allow_outside,
                            max_pixels=max_pixels, max_bytes=max_bytes)  # fmt: skip

    if (folder / "comparison.json").exists():
        if checkpoint:
            raise UserError(f"--checkpoint {checkpoint}: {folder} is a comparison, whose runs are shown as they ended")
        made = _of_comparison(folder, lines, data, groups, trust_code)
    else:
        made = _of_run(folder, lines, data, groups, checkpoint or "best", trust_code)
    with written_whole(out) as part:
        part.write_text(made.html, encoding="utf-8")
    return made


def _read(name: str, opened: Run, state: TrainState, corpus: Corpus) -> Reader:
    data = opened.config.data
    seen, features = look(opened.reader_config, state, opened.charset, corpus, buckets=data.buckets)
    return Reader(name, seen, features)


def _glyphs(opened: Run) -> Atlas:
    """Glyphs of the run's own fonts where it rendered, else the embedded ones."""
    characters = "".join(opened.charset.characters)
    if opened.config.text.share:
        try:
            return datasets.typefaces(opened.config.text, characters)
        except UserError as error:
            print(f"glyphs are drawn from the embedded atlas: {error}")
    return atlas.embedded().select(characters)


def _times(opened: Run, state: TrainState, corpus: Corpus) -> dict[int, float]:
    """Milliseconds a line takes in a batch of its bucket, compilation not counted."""
    batches = Batches(corpus, plans.choose(corpus.widths, opened.config.data.buckets), 32)
    times: dict[int, float] = {}
    for planned, batch in batches.in_order():
        jax.block_until_ready(run_eval(opened.reader_config, state, batch))
        began = time.perf_counter()
        jax.block_until_ready(run_eval(opened.reader_config, state, batch))
        each = 1000 * (time.perf_counter() - began) / len(planned.items)
        times |= dict.fromkeys(planned.items.tolist(), each)
    return times


def _score_tables(reader: Reader, corpus: Corpus, groups: Sequence[str]) -> str:
    texts, read = corpus.texts, [seen.text for seen in reader.seen]
    scored, absent = metrics.scores(read, texts)
    rows = [[rule, f"{s.line_accuracy:.2%}", f"{s.character_accuracy:.2%}", f"{s.normalized_similarity:.4f}",
             f"{s.correct}/{s.lines}"] for rule, s in scored.items()]  # fmt: skip
    rows += [[rule, f"not measured: {why}", "", "", ""] for rule, why in absent.items()]
    head = ["rule", "lines right", "characters right", "1-NED", "lines"]
    of_groups = confusions.rate_rows(confusions.score(read, texts, groups).lines)
    return page.table(head, rows, "Scores under every rule") + page.table(
        ["look-alikes", "", "of"], of_groups, "Scores for look-alikes"
    )


def _of_run(
    folder: Path, lines: Lines, data: str | None, groups_file: str | None, checkpoint: str, trust: bool
) -> Report:
    opened = open_run(folder, trust)
    path = validation_path(opened, data)
    corpus = lines(opened, path)
    groups = read_groups(groups_file or GROUPS)
    state, step = opened.state(checkpoint)
    after = _read("this run", opened, state, corpus)
    readers = [after]
    origin = opened.facts().get("init_from", {}).get("run")
    if origin and (Path(origin) / CONFIG).exists():
        before = open_weights(Path(origin))
        if before.charset.hash == opened.charset.hash:
            readers.insert(0, _read("before", before, before.state("best")[0], corpus))
    logged = panels.logged({folder.name: [folder]})
    parts = opened.config.loss.parts
    facts = [
        ("checkpoint of step", step), ("lines read", f"{len(corpus)} of {path}, {corpus.left_out} left out"),
        ("charset", f"{len(opened.charset)} characters"), ("loss", opened.config.loss.preset),
        ("weight of the center loss", parts.weight), ("steps asked for", opened.config.optim.steps),
        ("seed", opened.config.run.seed),
    ]  # fmt: skip
    sections = [
        Section("accuracy", "Accuracy", _score_tables(after, corpus, groups)),
        Section("curves", "Curves", panels.curves(logged, alone=True)),
        Section("confusions", "Confusions", panels.confused(
            [after, *readers[:-1]], corpus, groups, _glyphs(opened), {"read": len(corpus)})),
        Section("distances", "Distances to centers", panels.distances(logged)),
        Section("features", "Features of characters", panels.feature_map(readers, opened.charset, groups)),
        Section("lines", "Hardest and slowest lines", panels.lines(after, corpus, _times(opened, state, corpus))),
    ]  # fmt: skip
    lead = page.table(["", ""], facts, "Facts about the run")
    return Report(page.page(f"Run {folder.name}", lead, sections), after, opened, corpus)


def _of_comparison(folder: Path, lines: Lines, data: str | None, groups_file: str | None, trust: bool) -> Report:
    known = results.description(folder)
    found = results.collect(folder)
    groups = read_groups(groups_file or folder / "groups.txt")
    test = list(found.arms)[-1]
    path = data or str(folder / known["tests"][test])
    arms = {arm: [folder / arm / f"seed-{seed}" for seed in known["seeds"]] for arm in known["arms"]}
    arms = {arm: there for arm, places in arms.items() if (there := [p for p in places if (p / FACTS).exists()])}
    best = _best(found, test)
    drawn = _drawn(found, test, list(arms))
    logged = panels.logged({arm: arms[arm] for arm in drawn})
    seed, opened = _opened(folder, list(dict.fromkeys(["start", found.baseline, best])), known["seeds"], trust)
    corpus = lines(opened[found.baseline], path)
    states = {name: one.state("latest")[0] for name, one in opened.items()}
    readers = {name: _read(name, one, states[name], corpus) for name, one in opened.items()}
    order = [readers[found.baseline], *(r for name, r in readers.items() if name != found.baseline)]
    one = opened[found.baseline]
    last = best if best in opened else found.baseline
    shown = f"{Path(path).name if data else test}, seed {seed} of {', '.join(opened)}"
    chosen = f"{best} is the arm that misreads the fewest look-alikes of {test}; that was chosen by these very lines."
    few = f"{len(drawn)} of {len(arms)} arms are drawn: {found.baseline} and those that misread the fewest look-alikes."
    why = page.text(chosen) if best != found.baseline else ""
    fewer = page.text(few) if len(drawn) < len(arms) else ""
    sections = [
        Section("accuracy", "Accuracy", _accuracy(found)),
        Section("intervals", "Differences", _differences(found)),
        Section("curves", "Curves", fewer + panels.curves(logged, alone=False)),
        Section("confusions", "Confusions", panels.confused(order, corpus, groups, _glyphs(one), {shown: len(corpus)})),
        Section("distances", "Distances to centers", fewer + panels.distances(logged)),
        Section("features", "Features before and after", why + panels.feature_map(
            list(readers.values()), one.charset, groups)),
        Section("lines", "Hardest and slowest lines", why + panels.lines(
            readers[last], corpus, _times(opened[last], states[last], corpus))),
    ]  # fmt: skip
    seeds = len(known["seeds"])
    lead = page.text(
        f"{len(known['arms'])} ways of going on from plain CTC, each with {seeds} seed{'s' if seeds > 1 else ''}, "
        f"compared with {found.baseline}, on {', '.join(found.arms)}."
    )
    return Report(page.page(f"Comparison {folder.resolve().name}", lead, sections), readers[last], opened[last], corpus)


def _best(found: results.Results, test: str) -> str:
    """The arm besides the baseline with the fewest look-alikes misread."""
    return next(iter(_ranked(found, test)), found.baseline)


def _drawn(found: results.Results, test: str, arms: Sequence[str]) -> list[str]:
    """The arms whose curves are drawn: as many as there are colors."""
    wanted = {found.baseline, *_ranked(found, test)[: panels.SERIES - 1]}
    return [arm for arm in arms if arm in wanted]


def _ranked(found: results.Results, test: str) -> list[str]:
    """The arms besides the baseline, those that misread the fewest look-alikes first."""
    rated = found.arms[test]
    others = [arm for arm in rated if arm not in (found.baseline, "start")]
    return sorted(others, key=lambda arm: rated[arm]["substituted"].rate.value)


def _opened(folder: Path, names: Sequence[str], seeds: Sequence[int], trust: bool) -> tuple[int, dict[str, Run]]:
    """The runs of one seed: the first that all have, else the first that the baseline, the second name, has."""

    def there(seed: int) -> list[str]:
        return [name for name in names if (folder / name / f"seed-{seed}" / FACTS).exists()]

    seed = max(seeds, key=lambda seed: (names[1] in there(seed), len(there(seed))))
    if names[1] not in there(seed):
        raise UserError(f"{folder}: no run of {names[1]} is there to read lines with; expected its run folders")
    return seed, {name: open_run(folder / name / f"seed-{seed}", trust) for name in there(seed)}


def _accuracy(found: results.Results) -> str:
    """What must be known first, what differs, the tables, and every verdict folded away."""
    brief = []
    for arm in found.seeds:
        if arm not in (found.baseline, "start"):
            said = found.verdicts(arm)
            told = [f"{verdict}: {', '.join(said[verdict])}" for verdict in ("better", "worse") if said[verdict]]
            brief.append(f"{arm}: {'; '.join(told) or 'not distinguishable in anything'}")
    made = page.text(*found.warnings()) + page.bullets(brief)
    for name in found.arms:
        head, rows = found.rows(name)
        # A rate and its difference below each other: side by side, four of them fit no screen.
        pairs = range(2, len(head) - 1, 2)
        short = [*head[:2], *(head[i] for i in pairs), head[-1]]
        cells = [[*row[:2], *(f"{row[i]}\n{row[i + 1]}" for i in pairs), row[-1]] for row in rows]
        made += page.subheading(name) + page.table(short, cells, f"Arms on the test set {name}")
    made += page.text(f"Below each rate: how far it is from that of {found.baseline}, with its interval.")
    return made + page.details("Every verdict, with what cannot be told", page.bullets(found.sentences()))


def _differences(found: results.Results) -> str:
    """Intervals as a chart a rate, arms below each other."""
    figures = []
    for test, arms in found.arms.items():
        for key in results.JUDGED:
            bars = {arm: rated[key].gain for arm, rated in arms.items() if rated[key].gain}
            one = next(iter(arms.values()))[key]
            caption = f"{one.name}, {test}, against {found.baseline}"
            figures.append((caption, charts.intervals(
                {arm: (g.value, g.low, g.high) for arm, g in bars.items() if g}, title=caption,
                x_label=f"points; {'right' if one.better > 0 else 'left'} is better",
            )))  # fmt: skip
    return page.text("A bar that crosses the line at 0 tells nothing apart.") + page.charts(figures)
