"""Streams of rendered batches, and streams that mix several others."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import deque
from collections.abc import Generator, Hashable, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcrnn.charset import Charset
from jaxcrnn.data.buckets import Planned
from jaxcrnn.data.source import Fault, Stream
from jaxcrnn.render.config import RenderConfig
from jaxcrnn.render.render import Glyphs, render
from jaxcrnn.render.texts import Texts, length_classes
from jaxcrnn.types import Batch

AHEAD = 2  # batches whose rendering is dispatched in advance


@partial(jax.jit, static_argnames="config")
def _render(
    seed: jax.Array, indices: jax.Array, glyphs: Glyphs, labels: Any, lengths: Any, config: RenderConfig
) -> Any:
    keys = jax.vmap(lambda i: jax.random.fold_in(seed, i))(indices)
    return render(keys, glyphs, labels, lengths, config)


def _width(config: RenderConfig, pitch: float, longest: int) -> int:
    """Return a width in pixels, a multiple of 16, for lines of up to ``longest`` characters."""
    pixels = config.height * (pitch * longest + 2 * config.margin * config.largest)
    return int(-(-pixels // 16) * 16)


class RenderedBatches:
    """A `Stream` of rendered lines: line ``step * B + b`` is a function of ``(seed, step, b)``.

    All lines of a batch belong to one length class, so that short lines are not padded to the width of long ones.

    Args:
      texts: texts to render.
      charset: charset of the texts.
      glyphs: glyphs of the charset.
      config: rendering parameters; the width is set here.
      batch_size: lines in a batch.
      seed: seed of the rendering and of the order of length classes.
      rows: range of the rows of every batch that this process renders; all of them by default.
    """

    def __init__(
        self,
        texts: Texts,
        charset: Charset,
        glyphs: Glyphs,
        config: RenderConfig,
        batch_size: int,
        seed: int,
        rows: tuple[int, int] | None = None,
    ) -> None:
        self.rows = rows or (0, batch_size)
        self.texts, self.charset, self.glyphs = texts, charset, glyphs
        self.batch_size, self.seed, self.steps_per_epoch = batch_size, seed, 1
        self.lengths = length_classes(texts.config)
        self.slots = tuple(longest for _, longest in self.lengths)
        self.buckets = tuple(_width(config, texts.config.pitch, longest) for longest in self.slots)
        self.configs = [dataclasses.replace(config, width=width) for width in self.buckets]

    @property
    def fingerprint(self) -> str:
        glyphs = hashlib.sha256(np.asarray(self.glyphs.tiles[0]).tobytes() + np.asarray(self.glyphs.present).tobytes())
        parts = {
            "glyphs": glyphs.hexdigest(),
            "text": asdict(self.texts.config),
            "render": self.configs[0].recorded(),
            "seed": self.seed,
        }
        spelled = repr(sorted(parts.items())) + self.charset.hash + self.texts.contents
        return hashlib.sha256(spelled.encode()).hexdigest()

    def training(self, start: int, stop: int) -> Generator[tuple[Planned, Batch], None, None]:
        waiting: deque[tuple[Planned, Batch]] = deque()
        for step in range(start, stop):
            waiting.append(self._batch(step))
            if len(waiting) > AHEAD:
                yield waiting.popleft()
        yield from waiting

    def _batch(self, step: int) -> tuple[Planned, Batch]:
        bucket = int(np.random.default_rng([self.seed, step]).integers(len(self.buckets)))
        first, last = (step * self.batch_size + row for row in self.rows)
        indices = np.arange(first, last, dtype=np.uint32)
        labels, lengths = self.texts.labels(self.charset, indices, *self.lengths[bucket])
        if not len(indices):  # other processes render all lines of this batch
            nothing = np.zeros((0, self.configs[bucket].height, self.buckets[bucket], 1), np.float32)
            return Planned(bucket, indices), Batch(*map(jnp.asarray, (nothing, lengths, labels, lengths)))
        key = jax.random.key(self.seed)
        images, widths = _render(key, indices, self.glyphs, labels, lengths, self.configs[bucket])
        return Planned(bucket, indices), Batch(images, widths, jnp.asarray(labels), jnp.asarray(lengths))


class RenderedLines:
    """A data set (`jaxcrnn.data.source.Source`) of rendered lines: line i is a function of seed and i.

    Args:
      texts: texts to render.
      charset: charset of the texts.
      glyphs: glyphs of the charset.
      config: rendering parameters; the width is set here.
      count: number of lines.
      seed: seed of the rendering.
    """

    def __init__(
        self, texts: Texts, charset: Charset, glyphs: Glyphs, config: RenderConfig, count: int, seed: int
    ) -> None:
        self.faults: list[Fault] = []
        self.count, self.seed = count, seed
        self._texts = [texts.draw(i) for i in range(count)]
        width = _width(config, texts.config.pitch, texts.config.longest)
        self._images: list[np.ndarray] = []
        size = min(count, 64)
        for start in range(0, count, size):
            indices = np.arange(start, start + size, dtype=np.uint32)  # the last batch may render more than needed
            labels, lengths = texts.labels(charset, indices, texts.config.shortest, texts.config.longest)
            look = dataclasses.replace(config, width=width)
            drawn = jax.device_get(_render(jax.random.key(seed), indices, glyphs, labels, lengths, look))
            gray = np.rint((np.asarray(drawn[0])[..., 0] + 1) * 127.5).astype(np.uint8)
            self._images += [g[:, :w] for g, w in zip(gray, drawn[1].tolist(), strict=True)]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[np.ndarray, str]:
        return self._images[index], self._texts[index]

    def text(self, index: int) -> str:
        return self._texts[index]

    def name(self, index: int) -> str:
        return f"line {index}"

    def where(self, index: int) -> str:
        return f"rendered line {index}"

    def identity(self, index: int) -> Hashable:
        return self.seed, index


class MixedBatches:
    """A stream that takes a fixed number of lines from each of several others for every batch.

    Args:
      parts: streams, whose batch sizes add up to that of the mixed stream.
    """

    def __init__(self, parts: Sequence[Stream]) -> None:
        self.parts = list(parts)
        self.buckets = tuple(sorted({width for part in parts for width in part.buckets}))
        self.slots = tuple(self._slots(width) for width in self.buckets)
        self.batch_size = sum(part.batch_size for part in parts)
        self.steps_per_epoch = max(part.steps_per_epoch for part in parts)

    def _slots(self, width: int) -> int:
        return max(
            slots for part in self.parts for w, slots in zip(part.buckets, part.slots, strict=True) if w <= width
        )

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256("".join(part.fingerprint for part in self.parts).encode()).hexdigest()

    def training(self, start: int, stop: int) -> Generator[tuple[Planned, Batch], None, None]:
        with ExitStack() as stack:
            streams = [stack.enter_context(closing(part.training(start, stop))) for part in self.parts]
            for step in zip(*streams, strict=True):
                width = max(part.buckets[planned.bucket] for part, (planned, _) in zip(self.parts, step, strict=True))
                bucket = self.buckets.index(width)
                batches = [_padded(batch, width, self.slots[bucket]) for _, batch in step]
                items = np.concatenate([planned.items for planned, _ in step])
                yield Planned(bucket, items), Batch(*(jnp.concatenate(arrays) for arrays in zip(*batches, strict=True)))


def _padded(batch: Batch, width: int, slots: int) -> Batch:
    """Pad a batch with white to the right and with empty label slots."""
    right, free = width - batch.images.shape[2], slots - batch.labels.shape[1]
    images = jnp.pad(batch.images, ((0, 0), (0, 0), (0, right), (0, 0)), constant_values=1.0)
    return batch._replace(images=images, labels=jnp.pad(batch.labels, ((0, 0), (0, free))))
