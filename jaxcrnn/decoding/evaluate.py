"""Evaluation and recognition: running a model over data sets and images."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from jaxcrnn import decode, metrics
from jaxcrnn._memory import explained
from jaxcrnn.centers import accumulate, zeros
from jaxcrnn.charset import Charset
from jaxcrnn.data import buckets as plans
from jaxcrnn.data.audit import Corpus
from jaxcrnn.data.buckets import Planned
from jaxcrnn.data.loader import Batches, collate
from jaxcrnn.data.predictions import Predictions
from jaxcrnn.decoding.decoder import Decoder
from jaxcrnn.decoding.lines import Character, Line, NamedLooks, is_unsure, listed, looks_of, surest
from jaxcrnn.model import ModelConfig
from jaxcrnn.nn.layers import grid
from jaxcrnn.parallel.mesh import assemble, fetch, my_rows, of_batch
from jaxcrnn.train import TrainConfig, eval_outputs, eval_step
from jaxcrnn.types import Batch, CenterState, Outputs, TrainState


def read_step(config: TrainConfig, state: TrainState, batch: Batch) -> tuple[decode.Reading, Outputs]:
    """Read a batch, ignoring its labels; return the readings and the outputs of the model."""
    outputs = eval_outputs(config, state, batch)
    return decode.read(outputs.logits, outputs.lengths, blank=config.model.blank), outputs


def estimate_step(
    config: TrainConfig, state: TrainState, centers: CenterState, batch: Batch
) -> tuple[CenterState, jax.Array]:
    """Add the features of a batch to running class means (`jaxcrnn.centers.accumulate`).

    Returns:
      The updated means, and the number of lines that were recognised exactly and therefore used.
    """
    out = eval_outputs(config, state, batch)
    labels = (out.logits, out.lengths, batch.labels, batch.label_lengths)
    grown = accumulate(centers, out.features, *labels, blank=config.model.blank)
    ids, counts = decode.greedy(out.logits, out.lengths, blank=config.model.blank)
    exact = decode.exact(ids, counts, batch.labels, batch.label_lengths) & (batch.widths > 0)
    return grown, exact.sum(dtype=jax.numpy.int32)


run_eval = jax.jit(eval_step)
run_read = jax.jit(lambda config, state, batch: read_step(config, state, batch)[0]._asdict())
run_estimate = jax.jit(estimate_step)

# Buckets for images of any width: each costs one compilation, and a line is padded by at most half its width.
LADDER = tuple(int(64 * factor * 2**power) for power in range(20) for factor in (1, 1.5))
# For so few lines, compiling fast matters more than reading fast (docs/speed.md); batches are seldom full then.
FEW, FEW_ROWS = 512, 4


class Evaluation(NamedTuple):
    """Results of a recogniser on a data set.

    Attributes:
      lines: N readings, in the order of the data set.
      truths: N true texts.
      loss: mean CTC loss in nats over the lines whose label is in the charset and feasible for their frames.
      spelled: number of those lines.
    """

    lines: list[Line]
    truths: list[str]
    loss: float
    spelled: int

    def predictions(self) -> Predictions:
        """Return names, readings and true texts."""
        return Predictions([line.name for line in self.lines], [line.text for line in self.lines], list(self.truths))

    def score(self, rule: str = "exact") -> metrics.Score:
        """Score the readings under a rule."""
        return metrics.score([line.text for line in self.lines], self.truths, rule)

    def scores(self) -> tuple[dict[str, metrics.Score], dict[str, str]]:
        """Score the readings under every rule; return the scores, and the reasons for missing ones."""
        return metrics.scores([line.text for line in self.lines], self.truths)


def evaluate(
    config: TrainConfig,
    state: TrainState,
    charset: Charset,
    corpus: Corpus,
    *,
    batch_size: int = 32,
    buckets: int = 6,
    workers: int = 2,
    progress: Callable[[int], None] = lambda done: None,
    mesh: Mesh | None = None,
    decoder: Decoder | None = None,
    reread: float = 0.0,
) -> Evaluation:
    """Read every line of a corpus; the batch size affects speed, not results.

    Args:
      config: configuration of the run.
      state: state of the run.
      charset: charset of the run.
      corpus: lines, audited with ``keep_text_faults``, so that texts with characters outside the charset count as
        errors.
      batch_size: lines in a batch.
      buckets: number of width buckets; each costs one compilation.
      workers: number of threads that read images.
      progress: called with the number of lines done.
      mesh: mesh of the state if it is on several devices; lines are sharded over its ``data`` axis.
      decoder: decoder to use; best-path decoding by default.
      reread: confidence below which a line is read again at other widths (`jaxcrnn.data.images.looks`), without a
        decoder and on one device. The loss is that of the first look.

    Raises:
      OutOfMemory: memory ran out; the message names the batch and what to lower.
    """
    count = len(corpus)
    lines: list[Line | None] = [None] * count
    losses = np.full(count, np.nan)
    done = 0
    if count:
        rows = my_rows(mesh, batch_size) if mesh else None
        batches = Batches(corpus, plans.choose(corpus.widths, buckets), batch_size, workers=workers, rows=rows)
        for planned, batch in _within_memory(batches, decoder):
            with _reading(batch, decoder):
                out = decoder.read(config, state, batch) if decoder else _evaluated(config, state, batch, mesh)
            for row, item in enumerate(planned.items):
                name, width = corpus.source.name(int(corpus.indices[item])), int(corpus.widths[item])
                lines[item] = _line(charset, out, row, name, config.model, width)
                if len(corpus.labels[item]) and out["feasible"][row]:
                    losses[item] = out["loss"][row]
            done += len(planned.items)
            progress(done)
    unsure = [(item, line) for item, line in enumerate(lines) if line and is_unsure(line, reread)]
    read = functools.partial(recognize, config, state, charset, batch_size=batch_size)
    for start in range(0, len(unsure), batch_size):
        some = unsure[start : start + batch_size]
        looks = [corpus.looks(item) for item, _ in some]
        for (item, _), line in zip(some, _reread([line for _, line in some], looks, reread, read), strict=True):
            lines[item] = line
    spelled = int(np.count_nonzero(~np.isnan(losses)))
    loss = float(np.nansum(losses) / spelled) if spelled else 0.0
    return Evaluation([line for line in lines if line], corpus.texts, loss, spelled)


def _evaluated(config: TrainConfig, state: TrainState, batch: Batch, mesh: Mesh | None) -> dict[str, np.ndarray]:
    if mesh is None:
        return jax.device_get(run_eval(config, state, batch))
    return fetch(run_eval(config, state, assemble(batch, of_batch(mesh))))


def estimate_centers(
    config: TrainConfig, state: TrainState, corpus: Corpus, *, batch_size: int = 32, buckets: int = 6, workers: int = 2
) -> tuple[CenterState, int]:
    """Compute the mean feature of each class over the lines of a corpus that are recognised exactly.

    Args:
      config: configuration of the run.
      state: state of the run.
      corpus: audited lines, usually those that the run was trained on.
      batch_size: lines in a batch.
      buckets: number of width buckets; each costs one compilation.
      workers: number of threads that read images.

    Returns:
      Means and frame counts (both 0 for classes never seen), and the number of lines used.
    """
    centers = zeros(config.model.num_classes, config.model.features)
    exact = 0
    batches = Batches(corpus, plans.choose(corpus.widths, buckets), batch_size, workers=workers)
    for _, batch in _within_memory(batches):
        with _reading(batch):
            centers, right = run_estimate(config, state, centers, batch)
            exact += int(right)
    return centers, exact


def _within_memory(batches: Batches, decoder: Decoder | None = None) -> Iterator[tuple[Planned, Batch]]:
    """Yield the batches; if memory runs out while one is assembled, the error names what to lower."""
    made = batches.in_order()
    while True:
        with explained(lambda: (f"a batch of {batches.batch_size} lines", _advice(decoder))):
            item = next(made, None)
        if item is None:
            return
        yield item


def _reading(batch: Batch, decoder: Decoder | None = None) -> AbstractContextManager[None]:
    """Context in which a batch is read; if memory runs out, the error names its size and what to lower."""
    lines, _, width = batch.images.shape[:3]
    return explained(lambda: (f"reading {lines} lines of width {width} at a time", _advice(decoder)))


def _advice(decoder: Decoder | None) -> str:
    beam = ", or --beam" if decoder is not None and decoder.width > 1 else ""
    return f"lower --batch-size (data.batch_size in a configuration){beam}, or use narrower images"


def _line(charset: Charset, out: dict[str, np.ndarray], row: int, name: str, model: ModelConfig, width: int) -> Line:
    if "first" not in out:
        text = charset.decode(out["ids"][row, : out["counts"][row]].tolist())
        return Line(name, text, float(out["confidence"][row]))
    texts = [
        charset.decode(ids[:count].tolist())
        for ids, count, score in zip(out["ids"][row], out["counts"][row], out["scores"][row], strict=True)
        if np.isfinite(score)
    ]
    places = grid(model.backbone, width)
    sure, first, last = out["confidence"][row], out["first"][row], out["last"][row]
    characters = tuple(
        Character(
            c,
            float(sure[k]),
            *places.span(int(first[k]), int(last[k])),
            listed(charset, out["rivals"][row, k], out["probability"][row, k]),
        )
        for k, c in enumerate(texts[0] if texts else "")
    )
    empty = float(out["blank"][row]) if texts else 0.0
    mean = float(np.mean(out["highest"][row, : len(characters)])) if characters else empty
    others = tuple(zip(texts[1:], map(float, out["scores"][row, 1:]), strict=False))
    return Line(name, texts[0] if texts else "", mean, characters, others)


def recognize(
    config: TrainConfig,
    state: TrainState,
    charset: Charset,
    images: Iterable[NamedLooks],
    *,
    batch_size: int = 16,
    decoder: Decoder | None = None,
    start: TrainConfig | None = None,
    reread: float = 0.0,
) -> Iterator[Line]:
    """Read a stream of images, and yield the lines in their order.

    Args:
      config: configuration of the run.
      state: state of the run.
      charset: charset of the run.
      images: names, and gray uint8 images ``[H, w]`` of the model's height, or several looks at a line
        (`jaxcrnn.data.images.looks`).
      batch_size: lines in a batch; lines are read in chunks of at least four batches.
      decoder: decoder to use; by default best-path decoding, without details of the characters.
      start: configuration for the first `FEW` lines, which compiles faster (`jaxcrnn.runs.compile.for_few`); they are
        padded to fewer widths, too. None for ``config``.
      reread: confidence below which the further looks at a line are read, too.
    """
    done, size = 0, batch_size * 4
    rest = iter(images)
    while chunk := list(itertools.islice(rest, size)):
        few = start is not None and done < FEW
        rows = 1 if done == 0 and len(chunk) == 1 else min(batch_size, FEW_ROWS) if few else batch_size
        plan = _Plan(start if few and start else config, LADDER[::2] if few else LADDER, rows, decoder)
        looks = [looks_of(image) for _, image in chunk]
        lines = _chunk(
            plan, state, charset, [(name, first) for (name, _), (first, *_) in zip(chunk, looks, strict=True)]
        )
        read = functools.partial(_chunk, plan, state, charset)
        yield from _reread(list(lines), looks, reread, read) if reread else lines
        done += len(chunk)


class _Plan(NamedTuple):
    """How lines are read: the configuration, the widths that they are padded to, and the lines in a batch."""

    config: TrainConfig
    ladder: Sequence[int]
    rows: int
    decoder: Decoder | None


def _reread(
    lines: Sequence[Line],
    looks: Sequence[list[np.ndarray]],
    reread: float,
    read: Callable[[Sequence[tuple[str, np.ndarray]]], Iterator[Line]],
) -> Iterator[Line]:
    """Yield lines that were read in their first look; of those less confident than ``reread``, the surest reading."""
    used = [of if is_unsure(line, reread) else of[:1] for line, of in zip(lines, looks, strict=True)]
    others = read([(line.name, look) for line, of in zip(lines, used, strict=True) for look in of[1:]])
    for line, of in zip(lines, used, strict=True):
        yield surest([line, *itertools.islice(others, len(of) - 1)], [look.shape[1] for look in of])


def _chunk(plan: _Plan, state: TrainState, charset: Charset, chunk: Sequence[tuple[str, np.ndarray]]) -> Iterator[Line]:
    """Read lines, those of each width in a thread, so that the compiler works on two programs at a time."""
    widths = np.asarray([image.shape[1] for _, image in chunk], np.int32)
    batches = plans.in_order(widths, plan.ladder, plan.rows)
    by_width = [list(group) for _, group in itertools.groupby(batches, lambda planned: planned.bucket)]
    by_width.sort(key=lambda group: int(group[0].items[0]))  # the first lines first

    def read(group: list[Planned]) -> dict[int, Line]:
        lines = {}
        for planned in group:
            out = _read(plan, state, [chunk[i][1] for i in planned.items], plan.ladder[planned.bucket])
            for row, item in enumerate(planned.items):
                name, image = chunk[item]
                lines[int(item)] = _line(charset, out, row, name, plan.config.model, image.shape[1])
        return lines

    lines: dict[int, Line] = {}
    place = 0
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(read, group) for group in by_width]:
            lines |= done.result()
            while place in lines:
                yield lines.pop(place)
                place += 1


def _read(plan: _Plan, state: TrainState, images: Sequence[np.ndarray], width: int) -> dict[str, np.ndarray]:
    none = [np.zeros(0, np.int32)] * len(images)
    with explained(lambda: (f"{plan.rows} images of width {width}", _advice(plan.decoder))):
        batch = collate(images, none, plan.rows, plan.config.model.height, width, 1)
    with _reading(batch, plan.decoder):
        if plan.decoder:
            return plan.decoder.read(plan.config, state, batch)
        return jax.device_get(run_read(plan.config, state, batch))
