"""Benchmark cases that read lines: data loading, evaluation, recognition and a cold start."""

from __future__ import annotations

import functools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from jaxcrnn.bench.cases import Sizes, Variant, Variants
from jaxcrnn.charset import Charset
from jaxcrnn.data import buckets
from jaxcrnn.data.audit import Corpus, audit
from jaxcrnn.data.images import Limits
from jaxcrnn.data.labels import LabelFile
from jaxcrnn.data.lmdb import LmdbLines, write_lmdb
from jaxcrnn.data.loader import Batches
from jaxcrnn.decoding.evaluate import evaluate, recognize
from jaxcrnn.errors import UserError
from jaxcrnn.render.atlas import embedded
from jaxcrnn.render.config import LEVELS
from jaxcrnn.render.render import Glyphs
from jaxcrnn.render.streams import RenderedBatches, RenderedLines
from jaxcrnn.render.texts import TextConfig, Texts
from jaxcrnn.runs import config as configs
from jaxcrnn.runs.checkpoint import Checkpoints
from jaxcrnn.runs.folder import CHECKPOINTS, create
from jaxcrnn.train import TrainConfig, init_state
from jaxcrnn.types import TrainState

LINES = 1000
MODEL: dict[str, Any] = {"backbone": "small", "hidden": 128, "batch": 16}  # the plate model of docs/real-lines.md
LOOK = LEVELS["medium"]


class Lines:
    """Lines on disk and in memory, and a recogniser with random weights."""

    def __init__(self, data: str) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.folder = Path(self._folder.name)
        try:
            self._open(data)
        except UserError:
            self._folder.cleanup()
            raise

    def _open(self, data: str) -> None:
        self.path = Path(data) if data else self._rendered()
        self.source = LabelFile(self.path)
        self.charset = Charset.from_labels([self.source.text(i) for i in range(len(self.source))])
        sets = [f"model.backbone={MODEL['backbone']}", f"model.hidden={MODEL['hidden']}", "run.keep=1"]
        self.config = configs.load(None, sets)
        self.corpus = self.audited(self.config.data.cache_mb << 20)

    def _rendered(self) -> Path:
        lines = RenderedLines(*_written(), LOOK, LINES, 0)
        rows = []
        for i in range(LINES):
            image, text = lines[i]
            Image.fromarray(image).save(self.folder / f"{i}.png")
            rows.append(f"{i}.png\t{text}\n")
        path = self.folder / "labels.txt"
        path.write_text("".join(rows), encoding="utf-8")
        return path

    def audited(self, cache_bytes: int, source: Any = None) -> Corpus:
        """Audit the lines as the commands do, with a cache for decoded images."""
        model = self.config.model
        corpus = audit(
            source or self.source, self.charset, model.frames, model.height, Limits(), cache_bytes=cache_bytes
        )
        if corpus.faults:
            raise UserError(f"{self.path}: {len(corpus.faults)} faults; list them with 'jaxcrnn data audit'")
        return corpus

    @functools.cached_property
    def trained(self) -> tuple[TrainConfig, TrainState]:
        """Configuration and state of the recogniser."""
        config = self.config.for_charset(self.charset)
        return config, init_state(config, jax.random.key(0))

    @functools.cached_property
    def arrays(self) -> Path:
        """File with all images, for the reference."""
        images = [self.corpus.image(i) for i in range(len(self.corpus))]
        widths = np.asarray([image.shape[1] for image in images])
        whole = np.full((len(images), images[0].shape[0], widths.max()), 255, np.uint8)
        for row, image in zip(whole, images, strict=True):
            row[:, : image.shape[1]] = image
        path = self.folder / "lines.npz"
        np.savez(path, images=whole, widths=widths)
        return path


lines_of = functools.cache(Lines)


def _written() -> tuple[Texts, Charset, Glyphs]:
    """Return texts of seven characters (the length of a licence plate), their charset and glyphs."""
    atlas = embedded()
    charset = Charset(atlas.characters)
    texts = Texts(TextConfig(source="lookalikes", shortest=7, longest=7), atlas.characters, 0)
    return texts, charset, Glyphs.of(atlas, charset)


def reference_sizes(s: Sizes) -> dict[str, Any]:
    """Return what the reference needs to read the same lines with a model of the same size."""
    lines = lines_of(s.data)
    return {**MODEL, "lines": str(lines.arrays), "classes": lines.charset.num_classes, "dtype": "float32"}


def data(s: Sizes) -> Variants:
    """Load batches from files without a cache, and render batches."""
    lines = lines_of(s.data)
    out: Variants = {}
    sources: dict[str, Any] = {"label file": lines.source}
    try:
        write_lmdb(lines.folder / "lmdb", lines.source)
        sources["LMDB"] = LmdbLines(lines.folder / "lmdb")
    except ImportError:
        pass  # the extra `data` is not installed
    for name, source in sources.items():
        corpus = lines.audited(0, source)
        widths = buckets.choose(corpus.widths, 2)
        for how, workers, processes in (("1 thread", 1, 0), ("2 threads", 2, 0), ("2 processes", 1, 2)):
            batches = Batches(corpus, widths, MODEL["batch"], workers=workers, processes=processes)
            out[f"{name}, {how}"] = Variant(functools.partial(_epoch, batches))
    stream = RenderedBatches(*_written(), LOOK, MODEL["batch"], 0)

    def rendered() -> None:
        for _, batch in stream.training(0, -(-len(lines.corpus) // MODEL["batch"])):
            jax.block_until_ready(batch.images)

    return {**out, "rendered": Variant(rendered)}


def _epoch(batches: Batches) -> None:
    for _ in batches.training(0, batches.steps_per_epoch):
        pass


def evaluated(s: Sizes) -> Variants:
    """Evaluate on lines that the audit has decoded."""
    lines = lines_of(s.data)
    config, state = lines.trained
    return {"jaxcrnn": Variant(lambda: evaluate(config, state, lines.charset, lines.corpus, batch_size=MODEL["batch"]))}


def recognized(s: Sizes) -> Variants:
    """Recognize decoded images in order."""
    lines = lines_of(s.data)
    config, state = lines.trained
    images = [(str(i), lines.corpus.image(i)) for i in range(len(lines.corpus))]
    return {
        "jaxcrnn": Variant(lambda: list(recognize(config, state, lines.charset, images, batch_size=MODEL["batch"])))
    }


def cold(s: Sizes) -> Variants:
    """Run ``jaxcrnn recognize`` with jax on one image in a new process; the first run fills the compilation cache."""
    lines = lines_of(s.data)
    folder = lines.folder / "run"
    if not folder.exists():
        create(folder, lines.config, lines.charset, {})
        with Checkpoints(folder / CHECKPOINTS, 1) as checkpoints:
            checkpoints.save(lines.trained[1], {}, None)
    image = lines.folder / "cold.png"
    Image.fromarray(lines.corpus.image(0)).save(image)
    command = [sys.executable, "-m", "jaxcrnn", "recognize", str(folder), str(image), "--engine", "jax"]
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    first = time.perf_counter() - began
    return {"jaxcrnn": Variant(lambda: subprocess.run(command, check=True, capture_output=True), first)}


CASES: dict[str, Callable[[Sizes], Variants]] = {
    "data": data,
    "evaluate": evaluated,
    "recognize": recognized,
    "cold": cold,
}
