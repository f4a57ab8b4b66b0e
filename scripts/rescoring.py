"""Do distances to centers, or n-grams, tell look-alikes apart when reading? For docs/open-doors.md.

jaxcrnn compare scripts/rescoring.yaml --out COMPARISON
python scripts/rescoring.py scripts/rescoring.yaml COMPARISON --out FOLDER

Every run of the comparison reads three test sets: its own two, whose texts are random, and `words`, made of 300 words
of two look-alikes each, so that a model of language has something to know. Weights are tuned for every arm and set on
as many validation lines, written and rendered with another seed, the n-grams counted on texts of a third.
"""

import argparse
import dataclasses
import itertools
import json
import time
from pathlib import Path

import jax
import numpy as np

from jaxcrnn import decode
from jaxcrnn._console import make
from jaxcrnn.data.audit import audit
from jaxcrnn.data.loader import Batches
from jaxcrnn.decoding import automata, beam, rescoring
from jaxcrnn.decoding.evaluate import estimate_centers
from jaxcrnn.experiments import bootstrap
from jaxcrnn.experiments import plan as grid
from jaxcrnn.lookalikes import confusions
from jaxcrnn.lookalikes.groups import read_groups
from jaxcrnn.render.streams import RenderedLines
from jaxcrnn.render.texts import GROUPS, Texts
from jaxcrnn.runs import datasets, folder
from jaxcrnn.train import read_step
from jaxcrnn.types import CenterState

SETS = ("lookalike", "full", "words")
VALIDATION, LANGUAGE, ESTIMATE = 2_000_003, 3_000_017, 1_000_000_007
RESCORE = (0.0, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 100.0)
NGRAMS = tuple(itertools.product((0.1, 0.2, 0.4, 0.8, 1.6), (0.0, 1.0, 2.0)))
WIDTH, ORDER, LINES_OF_LANGUAGE, BATCH = 16, 3, 20_000, 50
RATES = ("substituted", "recall", "lines", "characters")


class Words(Texts):
    """One to three words, frequent ones (Zipf) oftener, of two characters that look like others."""

    def __init__(self, config, characters, seed):
        super().__init__(config, characters, seed)
        rng = np.random.default_rng(1)
        alike = sorted(c for group in read_groups(GROUPS) for c in group if c in characters)
        pairs = [a + b for a in alike for b in alike if a != b]
        self.words = [pairs[i] for i in rng.choice(len(pairs), 300, replace=False)]
        self.share = 1 / np.arange(1, 301)
        self.share /= self.share.sum()

    def draw(self, index, shortest=None, longest=None):
        del shortest, longest
        rng = np.random.default_rng([self.seed, index])
        return "".join(self.words[i] for i in rng.choice(300, rng.integers(1, 4), p=self.share))


class Material:
    """Test and validation lines, and models of language."""

    def __init__(self, plan, charset, count):
        self.charset, self.plan, self.count = charset, plan, count
        self.lines = {(name, seed): self._lines(name, seed) for name in SETS for seed in (plan.tests.seed, VALIDATION)}
        self.models, self.automata = {}, {}
        for name in SETS:
            texts = self._texts(name, LANGUAGE)[0]
            self.models[name] = automata.train([texts.draw(i) for i in range(LINES_OF_LANGUAGE)], ORDER)

    def automaton(self, name, pair):
        """N-grams with a weight and a bonus."""
        if (name, pair) not in self.automata:
            self.automata[name, pair] = automata.of_ngrams(self.models[name], self.charset, *pair)
        return self.automata[name, pair]

    def _texts(self, name, seed):
        config = self.plan.test_config
        alike = {"source": "lookalikes", "bias": 1.0, "groups": str(self.plan.groups or GROUPS)}
        other = {"source": "uniform", "groups": ""}
        text = dataclasses.replace(config.text, **(alike if name == "lookalike" else other))
        texts, *rest = datasets.writing(dataclasses.replace(config, text=text), self.charset, seed)
        return (Words(text, texts.characters, seed) if name == "words" else texts, *rest)

    def _lines(self, name, seed):
        looks = self.plan.test_config.render
        source = RenderedLines(*self._texts(name, seed), looks, self.count, seed)
        return audited(self.plan.start, self.charset, source)


def audited(config, charset, source):
    return audit(source, charset, config.model.frames, config.model.height, config.data.limits, keep_text_faults=True)


read = jax.jit(lambda config, state, batch: read_step(config, state, batch)[1])


class Seen:
    """What a run sees in a set of lines: logits and features, kept, so that only decoding is done again and again."""

    def __init__(self, run, state, corpus):
        width = int(-(-max(corpus.widths) // 32) * 32)
        self.truths, self.charset, self.batches = corpus.texts, run.charset, []
        planned = list(Batches(corpus, [width], BATCH, workers=1).in_order())
        for again in (False, True):  # the first time compiles
            began, self.batches = time.perf_counter(), []
            for plan, batch in planned:
                out = jax.block_until_ready(read(run.train_config, state, batch))
                self.batches.append((plan.items, out.logits, out.lengths, out.features))
            self.model_ms = (time.perf_counter() - began) / len(corpus) * 1000 if again else 0.0

    def read(self, groups, rescorer=None, automaton=None, width=1):
        """Counts of each line, and milliseconds of decoding a line."""
        texts, took = [""] * len(self.truths), 0.0
        for items, logits, lengths, features in self.batches:
            began = time.perf_counter()
            if rescorer is not None:
                logits = rescored(logits, lengths, features, rescorer)
            if width > 1:
                found = beam.search(logits, lengths, width=width, automata=[automaton] if automaton else [])
                ids, counts = found.ids[:, 0], found.counts[:, 0]
            else:
                ids, counts = greedy(logits, lengths)
            ids, counts = np.asarray(ids), np.asarray(counts)
            took += time.perf_counter() - began
            for row, item in enumerate(items):
                texts[item] = self.charset.decode(ids[row, : counts[row]].tolist())
        return confusions.score(texts, self.truths, groups).lines, took / len(texts) * 1000


rescored, greedy = jax.jit(rescoring.rescore), jax.jit(decode.greedy)


def centers_of(run, state, corpus):
    """The run's centers, or estimated ones where it has none."""
    if state.centers is not None:
        return CenterState(*map(np.asarray, state.centers))
    return estimate_centers(run.train_config, state, corpus, batch_size=16, buckets=1)[0]


def methods(material, name, made, weights):
    """Rescorer, automaton and beam width of each way of reading, from its tuned weights."""

    w = weights
    return {
        "greedy": (None, None, 1),
        "rescoring": (made._replace(weight=np.float32(w["rescoring"])), None, 1),
        "nearest center": (made._replace(weight=np.float32(100)), None, 1),
        "beam": (None, None, WIDTH),
        "n-grams": (None, material.automaton(name, w["n-grams"]), WIDTH),
        "both": (made._replace(weight=np.float32(w["both"])), material.automaton(name, w["n-grams"]), WIDTH),
    }


def tuned(material, name, runs_of_arm, groups):
    """Weights with the fewest edits on the validation lines of all seeds together, of several the smallest."""

    def fewest(options, read_with):
        edits = [
            sum(int(read_with(seen, made, option)[0].edits.sum()) for seen, made in runs_of_arm) for option in options
        ]
        return options[int(np.argmin(edits))], edits

    alone, one = fewest(RESCORE, lambda seen, made, w: seen.read(groups, made._replace(weight=np.float32(w))))
    ngrams, two = fewest(NGRAMS, lambda seen, made, p: seen.read(groups, None, material.automaton(name, p), WIDTH))
    both, three = fewest(
        RESCORE,
        lambda seen, made, w: seen.read(
            groups, made._replace(weight=np.float32(w)), material.automaton(name, ngrams), WIDTH
        ),
    )
    return {"rescoring": alone, "n-grams": ngrams, "both": both}, {"rescoring": one, "n-grams": two, "both": three}


def compared(counts, base):
    """Rates of an arm's way of reading with their intervals, and their differences from reading greedily."""
    mine, theirs = ([confusions.rates(c) for c in group] for group in (counts, base))
    found = {}
    for key in RATES:
        over, under, base_over, base_under = (
            np.stack([getattr(r[key], part) for r in rates]) for rates in (mine, theirs) for part in ("over", "under")
        )
        found[key] = {
            "rate": bootstrap.rate(over, under, replicates=10_000)._asdict(),
            "gain": bootstrap.difference(over, under, base_over, base_under, replicates=10_000)._asdict(),
        }
    return found


def row(found):
    def points(gain):
        return f"{100 * gain['value']:+.2f} [{100 * gain['low']:+.2f}, {100 * gain['high']:+.2f}]"

    return " | ".join(f"{found[k]['rate']['value']:.2%} | {points(found[k]['gain'])}" for k in RATES)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan")
    parser.add_argument("comparison", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    plan = grid.read(args.plan)
    groups = read_groups(plan.groups or GROUPS)
    charset = datasets.charset(plan.start, None)
    args.out.mkdir(parents=True, exist_ok=True)
    material = Material(plan, charset, plan.tests.lines)
    written = datasets.writing(plan.start, charset, ESTIMATE)
    estimate = audited(plan.start, charset, RenderedLines(*written, plan.start.render, plan.estimate_lines, ESTIMATE))
    results = []
    with make() as shown:
        for arm, name in itertools.product(plan.arms, SETS):
            tests, validation = [], []
            for seed in plan.seeds:
                run = folder.open_run(args.comparison / arm / f"seed-{seed}")
                state, _ = run.state("latest")
                made = rescoring.make(centers_of(run, state, estimate), groups, charset, 0.0)
                tests.append((Seen(run, state, material.lines[name, plan.tests.seed]), made))
                validation.append((Seen(run, state, material.lines[name, VALIDATION]), made))
            weights, edits = tuned(material, name, validation, groups)
            shown.line(f"{arm}, {name}: {weights}, pairs {rescoring.pairs(made)}, {edits}")
            base = None
            for method in methods(material, name, made, weights):
                counts, ms = [], []
                for seen, own in tests:
                    way = methods(material, name, own, weights)[method]
                    seen.read(groups, *way)  # compiles
                    line_counts, took = seen.read(groups, *way)
                    counts.append(line_counts)
                    ms.append(took)
                base = base or counts
                found = compared(counts, base)
                results.append({"arm": arm, "set": name, "method": method, "weights": weights, "rates": found,
                                "decoding_ms": float(np.median(ms)), "model_ms": tests[0][0].model_ms})  # fmt: skip
                print(f"| `{arm}` | `{name}` | {method} | {row(found)} | {np.median(ms):.2f} |", flush=True)
            (args.out / "rescoring.json").write_text(json.dumps(results, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
