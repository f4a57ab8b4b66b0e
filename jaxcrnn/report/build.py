"""Building the report page of a run or a comparison."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
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
from jaxcrnn.interop.trained import ExportedRun, open_origin, open_trained
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
from jaxcrnn.runs.folder import FACTS, Run, open_run
from jaxcrnn.runs.usable_lines import usable_lines, validation_path
from jaxcrnn.train import for_inference
from jaxcrnn.types import TrainState


class Report(NamedTuple):
    """A report page and its sources.

    Attributes:
      html: HTML of the page.
      reader: readings and features of the run in the last sections of the page.
      run: that run.
      corpus: lines that were read.
    """

    html: str
    reader: Reader
    run: Run
    corpus: Corpus


class Opening(NamedTuple):
    """What a page begins with in place of its usual title and first paragraph."""

    title: str
    text: str
    section: Section


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
    max_width: int | None = None,
    vertical: bool | None = None,
    layout: Mapping[str, str] | None = None,
    normalize: str | None = None,
    opening: Opening | None = None,
) -> Report:
    """Read lines with a run, or with the runs of a comparison, and write a page that shows the results.

    Args:
      folder: run folder, or folder of a comparison.
      out: file to write.
      data: data set to read; the validation set of the run or the last test set of the comparison by default.
      groups: file of look-alike groups; those of the comparison or of the package by default.
      checkpoint: ``"best"`` (the default), ``"latest"`` or a step, for a run only.
      trust_code: whether the modules that the loss of a run names may be imported, which runs their code.
      skip_bad: skip unreadable images instead of stopping.
      allow_outside: whether label files may name images outside their folder.
      max_pixels: as in `jaxcrnn.data.bounds.bounded`.
      max_bytes: as in `jaxcrnn.data.bounds.bounded`.
      max_width: as in `jaxcrnn.data.bounds.bounded`.
      vertical: as in `jaxcrnn.data.bounds.bounded`.
      layout: as in `jaxcrnn.runs.usable_lines.usable_lines`.
      normalize: operations that normalize labels; those of the run by default.
      opening: title, first paragraph and first section of the page, for a comparison only.

    Raises:
      UserError: a file cannot be read or written, or ``checkpoint`` was specified for a comparison.
    """
    can_be_written(out)

    def lines(opened: Run, path: str) -> Corpus:
        return usable_lines(
            opened,
            [path],
            keep_text_faults=True,
            skip_bad=skip_bad,
            allow_outside=allow_outside,
            max_pixels=max_pixels,
            max_bytes=max_bytes,
            max_width=max_width,
            vertical=vertical,
            layout=layout,
            normalize=normalize,
        )

    if (folder / "comparison.json").exists():
        if checkpoint:
            raise UserError(
                f"--checkpoint {checkpoint}: {folder} is a comparison, which always uses the last "
                "checkpoints; drop --checkpoint"
            )
        made = _of_comparison(folder, lines, data, groups, trust_code, opening)
    else:
        made = _of_run(folder, lines, data, groups, checkpoint or "best", trust_code)
    with written_whole(out) as part:
        part.write_text(made.html, encoding="utf-8", errors="backslashreplace")
    return made


def _read(name: str, opened: Run, state: TrainState, corpus: Corpus) -> Reader:
    data = opened.config.data
    seen, features = look(*for_inference(opened.reader_config, state), opened.charset, corpus, buckets=data.buckets)
    return Reader(name, seen, features)


def _glyphs(opened: Run) -> Atlas:
    """Load the glyphs of the run's own fonts if it used rendered lines, else the embedded ones."""
    characters = "".join(opened.charset.characters)
    if opened.config.text.share:
        try:
            return datasets.typefaces(opened.config.text, characters)
        except UserError as error:
            print(f"using glyphs of the embedded atlas: {error}")
    return atlas.embedded().select(characters)


def _times(opened: Run, state: TrainState, corpus: Corpus) -> dict[int, float]:
    """Measure the milliseconds per line in a batch of its bucket, without compilation."""
    batches = Batches(corpus, plans.choose(corpus.widths, opened.config.data.buckets), 32)
    config, plain = for_inference(opened.reader_config, state)
    times: dict[int, float] = {}
    for planned, batch in batches.in_order():
        jax.block_until_ready(run_eval(config, plain, batch))
        began = time.perf_counter()
        jax.block_until_ready(run_eval(config, plain, batch))
        each = 1000 * (time.perf_counter() - began) / len(planned.items)
        times |= dict.fromkeys(planned.items.tolist(), each)
    return times


def _score_tables(reader: Reader, corpus: Corpus, groups: Sequence[str]) -> str:
    texts, read = corpus.texts, [seen.text for seen in reader.seen]
    scored, absent = metrics.scores(read, texts)
    rows = [
        [
            rule,
            f"{s.line_accuracy:.2%}",
            f"{s.character_accuracy:.2%}",
            f"{s.normalized_similarity:.4f}",
            f"{s.correct}/{s.lines}",
        ]
        for rule, s in scored.items()
    ]
    rows += [[rule, f"not measured: {why}", "", "", ""] for rule, why in absent.items()]
    head = ["rule", "line accuracy", "character accuracy", "1-NED", "lines"]
    of_groups = confusions.rate_rows(confusions.score(read, texts, groups).lines)
    return page.table(head, rows, "Scores under every rule") + page.table(
        ["look-alikes", "", "of"], of_groups, "Scores for look-alikes"
    )


def _of_run(
    folder: Path, lines: Lines, data: str | None, groups_file: str | None, checkpoint: str, trust: bool
) -> Report:
    opened = open_trained(folder, trust)
    path = validation_path(opened, data)
    corpus = lines(opened, path)
    groups = read_groups(groups_file or GROUPS)
    state, step = opened.state(checkpoint)
    after = _read("this run", opened, state, corpus)
    readers = [after]
    origin = opened.facts().get("init_from", {}).get("run")
    before = open_origin(origin) if origin else None
    if before and before.charset.hash == opened.charset.hash:
        readers.insert(0, _read("before", before, before.state("best")[0], corpus))
    logged = panels.logged({folder.name: [folder]})
    facts = [
        ("recogniser", opened.described(step)),
        *([("fine-tuned from", origin)] if origin else []),
        ("lines read", f"{len(corpus)} of {path}, {corpus.left_out} skipped"),
        ("charset", f"{len(opened.charset)} characters"),
    ]
    if not isinstance(opened, ExportedRun):
        facts += [
            ("loss preset", opened.config.loss.preset),
            ("weight of the center loss", opened.config.loss.parts.weight),
            ("scheduled steps", opened.config.optim.steps),
            ("seed", opened.config.run.seed),
        ]
    sections = [
        Section("accuracy", "Accuracy", _score_tables(after, corpus, groups)),
        Section("curves", "Training curves", panels.curves(logged, alone=True)),
        Section(
            "confusions",
            "Confusions",
            panels.confused([after, *readers[:-1]], corpus, groups, _glyphs(opened), {"read": len(corpus)}),
        ),
        Section("distances", "Distances to centers", panels.distances(logged)),
        Section("features", "Character features", panels.feature_map(readers, opened.charset, groups)),
        Section("lines", "Hardest and slowest lines", panels.lines(after, corpus, _times(opened, state, corpus))),
    ]
    lead = page.table(["", ""], facts, "Summary of the run")
    return Report(page.page(f"Run {folder.name}", lead, sections), after, opened, corpus)


def _of_comparison(
    folder: Path, lines: Lines, data: str | None, groups_file: str | None, trust: bool, opening: Opening | None = None
) -> Report:
    facts = results.description(folder)
    compared = results.collect(folder)
    baseline = compared.baseline
    groups = read_groups(groups_file or folder / "groups.txt")
    test = list(compared.arms)[-1]
    path = data or str(folder / facts["tests"][test])
    arms = {arm: [folder / arm / f"seed-{seed}" for seed in facts["seeds"]] for arm in facts["arms"]}
    arms = {arm: there for arm, places in arms.items() if (there := [p for p in places if (p / FACTS).exists()])}
    best = _best(compared, test)
    drawn = _drawn(compared, test, list(arms))
    logged = panels.logged({arm: arms[arm] for arm in drawn})
    seed, opened = _opened(folder, list(dict.fromkeys(["start", baseline, best])), facts["seeds"], trust)
    corpus = lines(opened[baseline], path)
    states = {name: one.state("latest")[0] for name, one in opened.items()}
    readers = {name: _read(name, one, states[name], corpus) for name, one in opened.items()}
    order = [readers[baseline], *(r for name, r in readers.items() if name != baseline)]
    one = opened[baseline]
    last = best if best in opened else baseline
    shown = f"{Path(path).name if data else test}, seed {seed} of {', '.join(opened)}"
    chosen = f"{best} is the arm with the fewest misread look-alikes on {test}, selected on these same lines."
    few = f"{len(drawn)} of {len(arms)} arms are shown: {baseline} and those with the fewest misread look-alikes."
    why = page.text(chosen) if best != baseline else ""
    fewer = page.text(few) if len(drawn) < len(arms) else ""
    sections = [
        Section("accuracy", "Accuracy", _accuracy(compared)),
        Section("intervals", "Differences", _differences(compared)),
        Section("curves", "Training curves", fewer + panels.curves(logged, alone=False)),
        Section("confusions", "Confusions", panels.confused(order, corpus, groups, _glyphs(one), {shown: len(corpus)})),
        Section("distances", "Distances to centers", fewer + panels.distances(logged)),
        Section(
            "features",
            "Character features before and after",
            why + panels.feature_map(list(readers.values()), one.charset, groups),
        ),
        Section(
            "lines",
            "Hardest and slowest lines",
            why + panels.lines(readers[last], corpus, _times(opened[last], states[last], corpus)),
        ),
    ]
    seeds = len(facts["seeds"])
    weights = f"weights ({facts['init_from']})" if facts.get("init_from") else "plain-CTC weights"
    about = (
        f"{len(facts['arms'])} losses fine-tuned from the same {weights}, each with {seeds} "
        f"seed{'s' if seeds > 1 else ''}, compared with {baseline} on {', '.join(compared.arms)}."
    )
    if opening:
        sections = [opening.section, *sections]
        made = page.page(opening.title, page.text(opening.text), sections)
    else:
        made = page.page(f"Comparison {folder.resolve().name}", page.text(about), sections)
    return Report(made, readers[last], opened[last], corpus)


def _best(compared: results.Results, test: str) -> str:
    """Return the arm, other than the baseline, with the fewest misread look-alikes."""
    return next(iter(_ranked(compared, test)), compared.baseline)


def _drawn(compared: results.Results, test: str, arms: Sequence[str]) -> list[str]:
    """Choose the arms whose curves are shown, at most as many as there are colors."""
    chosen = {compared.baseline, *_ranked(compared, test)[: panels.SERIES - 1]}
    return [arm for arm in arms if arm in chosen]


def _ranked(compared: results.Results, test: str) -> list[str]:
    """Sort the arms other than the baseline by misread look-alikes, fewest first."""
    rated = compared.arms[test]
    others = [arm for arm in rated if arm not in (compared.baseline, "start")]
    return sorted(others, key=lambda arm: rated[arm]["substituted"].rate.value)


def _opened(folder: Path, names: Sequence[str], seeds: Sequence[int], trust: bool) -> tuple[int, dict[str, Run]]:
    """Open the runs of one seed: the first that all arms have, else the first of the baseline (the second name)."""

    def there(seed: int) -> list[str]:
        return [name for name in names if (folder / name / f"seed-{seed}" / FACTS).exists()]

    seed = max(seeds, key=lambda seed: (names[1] in there(seed), len(there(seed))))
    if names[1] not in there(seed):
        raise UserError(f"{folder}: missing run folders of {names[1]}; expected at least one to read lines with")
    return seed, {name: open_run(folder / name / f"seed-{seed}", trust) for name in there(seed)}


def _accuracy(compared: results.Results) -> str:
    """Build the caveats, a summary of differences, the tables, and a collapsed list of all verdicts."""
    brief = []
    for arm in compared.seeds:
        if arm not in (compared.baseline, "start"):
            verdicts = compared.verdicts(arm)
            clear = [f"{name}: {', '.join(verdicts[name])}" for name in ("better", "worse") if verdicts[name]]
            brief.append(f"{arm}: {'; '.join(clear) or 'not distinguishable on any score'}")
    made = page.text(*compared.warnings()) + page.bullets(brief)
    for name in compared.arms:
        head, rows = compared.rows(name)
        # Differences are placed below their rates, because eight columns would not fit on a screen.
        pairs = range(2, len(head) - 1, 2)
        short = [*head[:2], *(head[i] for i in pairs), head[-1]]
        cells = [[*row[:2], *(f"{row[i]}\n{row[i + 1]}" for i in pairs), row[-1]] for row in rows]
        made += page.subheading(name) + page.table(short, cells, f"Arms on the test set {name}")
    others = " unless another arm is named" if compared.against else ""
    made += page.text(f"Below each rate: its difference from that of {compared.baseline}{others}, with the interval.")
    return made + page.details("All verdicts", page.bullets(compared.sentences()))


def _differences(compared: results.Results) -> str:
    """Build one chart of intervals for each rate."""
    figures = []
    for test, arms in compared.arms.items():
        for key in results.JUDGED:
            bars = {arm: rated[key].gain for arm, rated in arms.items() if rated[key].gain}
            one = next(iter(arms.values()))[key]
            others = " (or its own baseline)" if compared.against else ""
            caption = f"{one.name}, {test}, vs {compared.baseline}{others}"
            figures.append(
                (
                    caption,
                    charts.intervals(
                        {arm: (g.value, g.low, g.high) for arm, g in bars.items() if g},
                        title=caption,
                        x_label=f"percentage points ({'right' if one.better > 0 else 'left'} is better)",
                    ),
                )
            )
    return page.text("A bar that crosses 0 means that the difference is not distinguishable.") + page.charts(figures)
