"""Running a comparison: train the missing runs of a grid of losses and seeds, and report the results."""

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
from jaxcrnn.data.normalize import normalized
from jaxcrnn.data.predictions import read_predictions, write_predictions
from jaxcrnn.decoding.evaluate import estimate_centers, evaluate
from jaxcrnn.errors import UserError
from jaxcrnn.experiments.plan import START, Plan
from jaxcrnn.experiments.results import Results, collect
from jaxcrnn.lookalikes.groups import read_groups
from jaxcrnn.render.streams import RenderedLines, Stream
from jaxcrnn.render.texts import GROUPS
from jaxcrnn.runs import center_files, datasets, extensions, usable_lines
from jaxcrnn.runs.checkpoint import Checkpoints
from jaxcrnn.runs.config import Config
from jaxcrnn.runs.folder import CENTERS, CHECKPOINTS, FACTS, Run, create, open_weights, trusted
from jaxcrnn.runs.start import first_state
from jaxcrnn.runs.trainer import fit
from jaxcrnn.runs.unused import removed_if_unused
from jaxcrnn.train import eval_variables, flow_of, for_inference, init_state
from jaxcrnn.types import CenterState, TrainState

RECIPE, PLAN, RESULTS, GROUPS_FILE = "recipe.json", "plan.yaml", "results.json", "groups.txt"
RENDERED = ("full", "lookalike")  # test sets if the plan names no files


def compare(plan: Plan, out: Path, skip_bad: bool = False) -> Results | None:
    """Train the missing runs of a comparison, and print and write the results.

    Args:
      plan: plan of the comparison.
      out: folder of the comparison, new or of the same plan.
      skip_bad: skip and count rows with faults in label files instead of stopping.

    Returns:
      The results, or None if a signal stopped the comparison.

    Raises:
      UserError: the folder contains something else, or runs and test sets of another plan.
    """
    for doubt in plan.warnings:
        print(f"warning: {doubt}")
    with removed_if_unused(out):
        return _compared(plan, out, skip_bad)


def _compared(plan: Plan, out: Path, skip_bad: bool) -> Results | None:
    made = _Grid(plan, out, skip_bad)
    arms = [(seed, name) for seed in plan.seeds for name in plan.arms]
    for number, (seed, name) in enumerate(arms, start=1):
        if made.finished(made.folder(name, seed)):
            print(f"[{number}/{len(arms)}] {name}, seed {seed}: already finished")
            continue
        if not made.finished(made.folder(START, seed)):
            what = f"weights of {plan.origin.folder}" if plan.origin else "plain-CTC start"
            print(f"[{number}/{len(arms)}] {what} for all arms, seed {seed}")
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
    """Folder of a comparison.

    It contains the test sets ``tests/NAME/labels.txt`` and the run folders ``start/seed-N`` and ``ARM/seed-N``. When a
    run is finished, its predictions on each test set are written to ``NAME.txt`` in its folder.
    """

    def __init__(self, plan: Plan, out: Path, skip_bad: bool) -> None:
        self.plan, self.out, self.skip_bad = plan, out, skip_bad
        if not plan.start.data.train and plan.start.text.share < 1:
            raise UserError("no training data; set data.train, or text.share=1 to train on rendered lines only")
        self.charset = datasets.charset(plan.start, datasets.source(plan.start))
        self.streams: dict[Any, tuple[Stream, Corpus | None]] = {}
        others = [p.name for p in out.iterdir()] if out.exists() and not (out / PLAN).exists() else []
        if others:
            raise UserError(
                f"{out}: contains {others[0]} but no {PLAN}; expected a new folder, or that of a comparison"
            )
        # The plan is checked first, so that an invalid one does not change the folder.
        self.groups = Path(plan.groups or GROUPS)
        read_groups(self.groups)
        for config in (plan.start, *plan.arms.values()):
            extensions.resolve(config.loss)
        groups = self.groups.read_text(encoding="utf-8")
        recipe, kept = self._recipe(groups), out / "tests" / RECIPE
        if kept.exists() and kept.read_text(encoding="utf-8") != recipe:
            raise UserError(f"{kept}: the existing test sets were made with other settings; use a new folder")
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
        kept.write_text(recipe, encoding="utf-8")  # last, because test sets without a recipe are written again
        names = plan.start.data.normalize
        opened = {name: normalized(LabelFile(out / path), names) for name, path in files.items()}
        self.tests = {name: self._audited(source, name) for name, source in opened.items()}
        self._check_predictions()
        facts = {
            "baseline": plan.baseline,
            **({"against": plan.against} if plan.against else {}),
            "seeds": plan.seeds,
            "arms": list(plan.arms),
            "tests": files,
            "set": plan.overrides,
            "init_from": plan.origin.place if plan.origin else None,
        }
        (out / "comparison.json").write_text(
            json.dumps(facts, ensure_ascii=False), encoding="utf-8", errors="backslashreplace"
        )

    def _recipe(self, groups: str) -> str:
        """Return everything that determines the test sets, as JSON."""
        tests, config = self.plan.tests, self.plan.test_config
        recipe: dict[str, Any] = {"tests": dataclasses.asdict(tests) | {"files": None}}
        if tests.files:
            recipe["files"] = {name: read_text(path) for name, path in tests.files.items()}
        else:
            recipe |= {"text": dataclasses.asdict(config.text), "render": dataclasses.asdict(config.rendering)}
        return json.dumps({**recipe, "groups": groups, "charset": self.charset.hash}, ensure_ascii=False)

    def _planned(self) -> Iterator[tuple[str, Config, Path]]:
        """Yield name, configuration and folder of every run, including the starts."""
        for name, config in {START: self.plan.start, **self.plan.arms}.items():
            for seed in self.plan.seeds:
                yield name, _seeded(config, seed), self.folder(name, seed)

    def _check_runs(self) -> None:
        """Check that the existing runs have the settings of the plan."""
        for name, config, folder in self._planned():
            if not (folder / FACTS).exists():
                continue
            run = open_weights(folder)
            if run.config.portable != config.portable or run.charset.hash != self.charset.hash:
                raise UserError(
                    f"{folder}: was trained with other settings than the plan's for {name!r}; rename the "
                    "arm or use a new folder"
                )

    def _check_predictions(self) -> None:
        for _, _, folder in self._planned():
            for test, corpus in self.tests.items():
                path = folder / f"{test}.txt"
                if path.exists() and read_predictions(path).truths != corpus.texts:
                    raise UserError(
                        f"{path}: predictions for other lines than those of {test}; remove the file to predict again"
                    )

    def folder(self, name: str, seed: int) -> Path:
        return self.out / name / f"seed-{seed}"

    def finished(self, folder: Path) -> bool:
        """Return whether a run has been trained and evaluated on every test set."""
        return all((folder / f"{name}.txt").exists() for name in self.tests)

    def _audited(self, source: Source, name: str) -> Corpus:
        corpus = usable_lines.audit_lines(self.plan.start, self.charset, source, keep_text_faults=True)
        usable_lines.check_usable(corpus, name, keep_text_faults=True, skip_bad=self.skip_bad)
        return corpus

    def _test_lines(self, kind: str) -> RenderedLines:
        """Render lines of the whole charset, or of characters of look-alike groups only."""
        config, tests = self.plan.test_config, self.plan.tests
        alike: dict[str, Any] = {"source": "lookalikes", "bias": 1.0, "groups": str(self.groups)}
        text = dataclasses.replace(
            config.text, **(alike if kind == "lookalike" else {"source": "uniform", "groups": ""})
        )
        written = datasets.writing(dataclasses.replace(config, text=text), self.charset, tests.seed)
        return RenderedLines(*written, config.rendering, tests.lines, tests.seed)

    def stream(self, config: Config) -> tuple[Stream, Corpus | None]:
        """Return the training data of all runs with these settings and this seed; the last ones are kept."""
        key = config.run.seed, config.data, config.text, config.render
        if key not in self.streams:
            corpus, _ = datasets.audited(config, self.charset, datasets.source(config), None, self.skip_bad)
            self.streams = {key: (datasets.stream(config, self.charset, corpus), corpus)}
        return self.streams[key]

    def train(self, name: str, seed: int) -> bool:
        """Train one run to its end and evaluate it on the test sets; return False if it was stopped."""
        folder = self.folder(name, seed)
        config = _seeded(self.plan.start if name == START else self.plan.arms[name], seed)
        if folder.exists() and not (folder / FACTS).exists():
            shutil.rmtree(folder)  # interrupted while it was created, before training
        with removed_if_unused(folder):
            if folder.exists():
                run = trusted(open_weights(folder), set(extensions.paths(config.loss)))
            elif name == START and self.plan.origin:
                run = self._placed(folder, config, self.plan.origin)
            else:
                run = create(folder, config, self.charset, {"loss": config.loss.parts._asdict()})
            if name == START and self.plan.origin:
                state, _ = run.state("latest")
            elif (trained := self._trained(run, name, seed)) is None:
                return False
            else:
                state = trained
        inference = for_inference(run.reader_config, _unplaced(state))
        for test, lines in self.tests.items():
            result = evaluate(*inference, self.charset, lines, batch_size=32, buckets=config.data.buckets)
            write_predictions(folder / f"{test}.txt", result.predictions())
            score = result.score()
            print(
                f"  {test}: line accuracy {score.line_accuracy:.2%}, character accuracy {score.character_accuracy:.2%}"
            )
        return True

    def _placed(self, folder: Path, config: Config, origin: Run) -> Run:
        """Create a run of the origin's weights, transferred to the charset of the comparison."""
        state, facts = first_state(config, self.charset, origin, grow=True)
        assert state is not None
        made = create(folder, config, self.charset, facts)
        with Checkpoints(folder / CHECKPOINTS, 1) as checkpoints:
            checkpoints.save(state, {}, None)
        return made

    def _trained(self, run: Run, name: str, seed: int) -> TrainState | None:
        """Train a run to its end and return its state, or None if it was stopped."""
        stream, corpus = self.stream(_seeded(self.plan.start if name == START else self.plan.arms[name], seed))
        first = None if name == START else self._first(run, seed, corpus)
        with _console.make() as shown:
            done = fit(
                run.train_config, run.config.run, self.charset, stream, None, run.folder, shown, lambda row: None, first
            )
        return None if done.stopped else done.state

    def _first(self, run: Run, seed: int, corpus: Corpus | None) -> TrainState:
        """Build the initial state: the weights of the start, and centers as the loss of the arm requires."""
        start = open_weights(self.folder(START, seed))
        before, _ = start.state("latest")
        centers = None
        if is_estimated(flow_of(run.train_config).rule):
            centers = self._estimated(start, _unplaced(before), corpus)
        key = jax.random.key(seed)
        return init_state(run.train_config, key, variables=eval_variables(before), centers=centers)

    def _estimated(self, start: Run, before: TrainState, corpus: Corpus | None) -> CenterState:
        """Estimate centers with the start's run, once per seed."""
        path = start.folder / CENTERS
        if not path.exists():
            if corpus is None:
                config = self.plan.start
                seed = start.config.run.seed + 1_000_000_007  # lines that do not occur in training
                lines = RenderedLines(
                    *datasets.writing(config, self.charset, seed), config.rendering, self.plan.estimate_lines, seed
                )
                corpus = self._audited(lines, "lines for estimating centers")
            data = start.config.data
            centers, exact = estimate_centers(
                start.reader_config, before, corpus, batch_size=data.batch_size, buckets=data.buckets
            )
            if not exact:
                raise UserError(
                    f"{start.folder}: none of {len(corpus)} lines is recognised exactly, so there is "
                    "nothing to estimate centers from; use more steps in 'start'"
                )
            counts = np.asarray(centers.counts)
            print(f"  centers estimated from {exact} of {len(corpus)} lines; {(counts == 0).sum()} classes never seen")
            center_files.save(path, centers, self.charset)
        return center_files.load(path, self.charset, start.config.model.features)


def _unplaced(state: TrainState) -> TrainState:
    """Copy a state without its sharding, because each sharding compiles the same program again."""
    return jax.device_put(jax.device_get(state))


def _seeded(config: Config, seed: int) -> Config:
    return dataclasses.replace(config, run=dataclasses.replace(config.run, seed=seed))
