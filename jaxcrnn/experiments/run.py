"""A grid of losses and seeds: runs what is missing and reports which differ."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcrnn import _console
from jaxcrnn._text import read_text
from jaxcrnn.centers import is_estimated
from jaxcrnn.data.audit import Corpus
from jaxcrnn.data.labels import LabelFile, Source, write_lines
from jaxcrnn.data.predictions import read_predictions, write_predictions
from jaxcrnn.decoding.evaluate import estimate_centers, evaluate
from jaxcrnn.errors import UserError
from jaxcrnn.experiments.plan import START, Plan
from jaxcrnn.experiments.results import Results, collect
from jaxcrnn.lookalikes.groups import read_groups
from jaxcrnn.render.streams import RenderedLines, Stream
from jaxcrnn.render.texts import GROUPS
from jaxcrnn.runs import center_files, datasets, extensions, usable_lines
from jaxcrnn.runs.config import Config
from jaxcrnn.runs.folder import CENTERS, FACTS, Run, create, open_weights, trusted
from jaxcrnn.runs.trainer import fit
from jaxcrnn.train import eval_variables, flow_of, init_state
from jaxcrnn.types import CenterState, TrainState

RECIPE, PLAN, RESULTS, GROUPS_FILE = "recipe.json", "plan.yaml", "results.json", "groups.txt"
RENDERED = ("full", "lookalike")  # test sets where the plan names no files


def compare(plan: Plan, out: Path, skip_bad: bool = False) -> Results | None:
    """Runs what is missing of a comparison, and prints and writes what all of it says.

    Args:
      plan: what to compare.
      out: folder of the comparison, new or of the same plan.
      skip_bad: leave out, counted, rows of label files that cannot be used.

    Returns:
      The results, None if it was stopped by a signal.

    Raises:
      UserError: the folder holds something else, or runs and test sets of another plan.
    """
    for doubt in plan.warnings:
        print(f"warning: {doubt}")
    made = _Grid(plan, out, skip_bad)
    arms = [(seed, name) for seed in plan.seeds for name in plan.arms]
    for number, (seed, name) in enumerate(arms, start=1):
        if made.finished(made.folder(name, seed)):
            print(f"[{number}/{len(arms)}] {name}, seed {seed}: finished before")
            continue
        if not made.finished(made.folder(START, seed)):
            print(f"[{number}/{len(arms)}] plain CTC that all arms of seed {seed} go on from")
            if not made.train(START, seed):
                return None
        print(f"[{number}/{len(arms)}] {name}, seed {seed}")
        if not made.train(name, seed):
            return None
    results = collect(out)
    results.save(out / RESULTS)
    (out / "results.md").write_text(results.markdown(), encoding="utf-8")
    print("\n" + results.text())
    return results


class _Grid:
    """A comparison's folder: test sets, starts, runs.

    ``tests/NAME/labels.txt``, ``start/seed-N`` and ``ARM/seed-N``, each a run folder with ``NAME.txt``, the predictions
    on each test set, written when the run is finished.
    """

    def __init__(self, plan: Plan, out: Path, skip_bad: bool) -> None:
        self.plan, self.out, self.skip_bad = plan, out, skip_bad
        self.charset = datasets.charset(plan.start, datasets.source(plan.start))
        self.streams: dict[int, tuple[Stream, Corpus | None]] = {}
        others = [p.name for p in out.iterdir()] if out.exists() and not (out / PLAN).exists() else []
        if others:
            raise UserError(f"{out}: holds {others[0]} and no {PLAN}; expected a new folder, or a comparison's")
        # All that may be wrong with the plan comes first: a plan that is refused leaves the folder as it was.
        self.groups = Path(plan.groups or GROUPS)
        read_groups(self.groups)
        for config in (plan.start, *plan.arms.values()):
            extensions.resolve(config.loss)
        groups = self.groups.read_text(encoding="utf-8")
        recipe, kept = self._recipe(groups), out / "tests" / RECIPE
        if kept.exists() and kept.read_text(encoding="utf-8") != recipe:
            raise UserError(f"{kept}: the test sets there are of another recipe; expected a new folder")
        files = plan.tests.files or {name: f"tests/{name}/labels.txt" for name in RENDERED}
        missing = {} if kept.exists() or plan.tests.files else {name: self._test_lines(name) for name in RENDERED}
        self._check_runs()
        out.mkdir(parents=True, exist_ok=True)
        (out / PLAN).write_text(plan.text, encoding="utf-8")
        (out / GROUPS_FILE).write_text(groups, encoding="utf-8")
        for name, lines in missing.items():
            folder = (out / files[name]).parent
            folder.mkdir(parents=True, exist_ok=True)
            write_lines(folder, lines)
        kept.parent.mkdir(exist_ok=True)
        kept.write_text(recipe, encoding="utf-8")  # last: what is there without it is written again
        self.tests = {name: self._looked_at(LabelFile(out / path), name) for name, path in files.items()}
        self._check_predictions()
        known = {
            "baseline": plan.baseline,
            "seeds": plan.seeds,
            "arms": list(plan.arms),
            "tests": files,
            "set": plan.overrides,
        }
        (out / "comparison.json").write_text(json.dumps(known, ensure_ascii=False), encoding="utf-8")

    def _recipe(self, groups: str) -> str:
        """All that the test sets follow from."""
        tests, config = self.plan.tests, self.plan.test_config
        known: dict[str, Any] = {"tests": dataclasses.asdict(tests) | {"files": None}}
        if tests.files:
            known["files"] = {name: read_text(path) for name, path in tests.files.items()}
        else:
            known |= {"text": dataclasses.asdict(config.text), "render": dataclasses.asdict(config.render)}
        return json.dumps({**known, "groups": groups, "charset": self.charset.hash}, ensure_ascii=False)

    def _planned(self) -> Iterator[tuple[str, Config, Path]]:
        """Name, configuration and folder of every run, the starts too."""
        for name, config in {START: self.plan.start, **self.plan.arms}.items():
            for seed in self.plan.seeds:
                yield name, _seeded(config, seed), self.folder(name, seed)

    def _check_runs(self) -> None:
        """Every run that is there must be what the plan asks for, or two things would stand under one name."""
        for name, config, folder in self._planned():
            if not (folder / FACTS).exists():
                continue
            run = open_weights(folder)
            if run.config.portable != config.portable or run.charset.hash != self.charset.hash:
                raise UserError(f"{folder}: was trained with other settings than the plan has for {name!r}; "
                                "expected another name for the arm, or a new folder")  # fmt: skip

    def _check_predictions(self) -> None:
        for _, _, folder in self._planned():
            for test, corpus in self.tests.items():
                path = folder / f"{test}.txt"
                if path.exists() and read_predictions(path).truths != corpus.texts:
                    raise UserError(f"{path}: predictions of other lines than {test} has; expected the same, or "
                                    "none: without that file the run reads them again")  # fmt: skip

    def folder(self, name: str, seed: int) -> Path:
        return self.out / name / f"seed-{seed}"

    def finished(self, folder: Path) -> bool:
        """Whether a run has been trained and has read every test set."""
        return all((folder / f"{name}.txt").exists() for name in self.tests)

    def _looked_at(self, source: Source, name: str) -> Corpus:
        corpus = usable_lines.audit_lines(self.plan.start, self.charset, source, keep_text_faults=True)
        usable_lines.check_usable(corpus, name, keep_text_faults=True, skip_bad=self.skip_bad)
        return corpus

    def _test_lines(self, kind: str) -> RenderedLines:
        """Rendered lines of the whole charset, or of characters of look-alike groups alone."""
        config, tests = self.plan.test_config, self.plan.tests
        alike: dict[str, Any] = {"source": "lookalikes", "bias": 1.0, "groups": str(self.groups)}
        text = dataclasses.replace(
            config.text, **(alike if kind == "lookalike" else {"source": "uniform", "groups": ""})
        )
        written = datasets.writing(dataclasses.replace(config, text=text), self.charset, tests.seed)
        return RenderedLines(*written, config.render, tests.lines, tests.seed)

    def stream(self, seed: int) -> tuple[Stream, Corpus | None]:
        """What every run of a seed is trained on."""
        if seed not in self.streams:
            config = _seeded(self.plan.start, seed)
            corpus, _ = datasets.audited(config, self.charset, datasets.source(config), None, self.skip_bad)
            self.streams = {seed: (datasets.stream(config, self.charset, corpus), corpus)}
        return self.streams[seed]

    def train(self, name: str, seed: int) -> bool:
        """Trains one run to its end and reads the test sets; False if it was stopped."""
        folder = self.folder(name, seed)
        config = _seeded(self.plan.start if name == START else self.plan.arms[name], seed)
        if folder.exists() and not (folder / FACTS).exists():
            shutil.rmtree(folder)  # stopped while it was made: nothing has been trained
        if folder.exists():
            run = trusted(open_weights(folder), set(extensions.paths(config.loss)))
        else:
            run = create(folder, config, self.charset, {"loss": config.loss.parts._asdict()})
        stream, corpus = self.stream(seed)
        first = None if name == START else self._first(run, seed, corpus)
        with _console.make() as shown:
            done = fit(
                run.train_config, run.config.run, self.charset, stream, None, folder, shown, lambda row: None, first
            )
        if done.stopped:
            return False
        for test, lines in self.tests.items():
            result = evaluate(
                run.reader_config, done.state, self.charset, lines, batch_size=32, buckets=config.data.buckets
            )
            write_predictions(folder / f"{test}.txt", result.predictions())
            score = result.score()
            print(f"  {test}: {score.line_accuracy:.2%} of lines right, {score.character_accuracy:.2%} of characters")
        return True

    def _first(self, run: Run, seed: int, corpus: Corpus | None) -> TrainState:
        """The start's weights, and centers as the arm's loss wants them."""
        start = open_weights(self.folder(START, seed))
        before, _ = start.state("latest")
        given = None
        if is_estimated(flow_of(run.train_config).rule):
            given = self._estimated(start, before, corpus)
        key = jax.random.key(seed)
        return init_state(run.train_config, key, variables=eval_variables(before), centers=given)

    def _estimated(self, start: Run, before: TrainState, corpus: Corpus | None) -> CenterState:
        """Centers from the start's run, made once a seed."""
        path = start.folder / CENTERS
        if not path.exists():
            if corpus is None:
                config = self.plan.start
                seed = start.config.run.seed + 1_000_000_007  # lines that training does not show
                lines = RenderedLines(
                    *datasets.writing(config, self.charset, seed), config.render, self.plan.estimate_lines, seed
                )
                corpus = self._looked_at(lines, "lines to estimate centers on")
            data = start.config.data
            centers, exact = estimate_centers(
                start.reader_config, before, corpus, batch_size=data.batch_size, buckets=data.buckets
            )
            if not exact:
                raise UserError(f"{start.folder}: not one of {len(corpus)} lines is recognised exactly, so no centers "
                                "can be estimated; expected more steps in 'start'")  # fmt: skip
            counts = np.asarray(centers.counts)
            print(f"  centers from {exact} of {len(corpus)} lines; {(counts == 0).sum()} classes never seen")
            center_files.save(path, centers, self.charset)
        return center_files.load(path, self.charset, start.config.model.features)


def _seeded(config: Config, seed: int) -> Config:
    return dataclasses.replace(config, run=dataclasses.replace(config.run, seed=seed))
