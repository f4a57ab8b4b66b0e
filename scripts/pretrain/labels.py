"""Labels of the lines to train on: texts of a mixture, in buckets of widths that take turns."""

import collections
import dataclasses
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxcrnn.charset import Charset
from jaxcrnn.nn.layers import HEIGHT
from jaxcrnn.render.config import RenderConfig
from jaxcrnn.render.texts import TextConfig, Texts

CYCLE = (0, 1, 0, 1, 2)  # the order in which the buckets take turns
AHEAD = 3  # batches of texts drawn in advance


class Bucket(NamedTuple):
    """Lines that are rendered at one width.

    Attributes:
      shortest: characters of a text.
      longest: characters of a text.
      width: pixels, for lines of 32 pixels high.
      lines: of a batch on a GPU.
    """

    shortest: int
    longest: int
    width: int
    lines: int


BUCKETS = (Bucket(1, 8, 224, 768), Bucket(6, 20, 512, 384), Bucket(14, 44, 1024, 192))


def scaled(look: RenderConfig, height: int, width: int) -> RenderConfig:
    """The look of lines of a height, given the width for 32 pixels.

    An image has the same resolution, whatever height it is scaled to: the lowest one and the strongest blur therefore
    stay the same in ems. Growth of strokes stays the same in pixels.
    """
    scale = height / HEIGHT
    return dataclasses.replace(
        look, height=height, width=round(width * scale), lowres=look.lowres * scale, blur=look.blur * scale
    )


class Labels:
    """Labels of each step, drawn in a thread beside the training.

    Args:
      data: folder with texts.yaml.
      charset: charset of the model.
      drawable: characters that some typeface has.
      buckets: the buckets, with the lines of their batches.
      cycle: the order in which they take turns.
      seed: seed of the texts.
    """

    def __init__(
        self, data: Path, charset: Charset, drawable: str, buckets: list[Bucket], cycle: Sequence[int], seed: int
    ) -> None:
        self.charset, self.buckets, self.cycle = charset, buckets, cycle
        self.texts = Texts(TextConfig(source=str(data / "texts.yaml"), longest=44), drawable, seed)
        self.waiting: collections.deque[Future[tuple[np.ndarray, np.ndarray]]] = collections.deque()
        self.thread = ThreadPoolExecutor(1)

    def of_step(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Labels and lengths of a step, a function of its number alone."""
        turn, place = divmod(number, len(self.cycle))
        which = self.cycle[place]
        times = turn * self.cycle.count(which) + self.cycle[:place].count(which)  # batches of this bucket before
        shortest, longest, _, lines = self.buckets[which]
        indices = np.arange(times * lines, (times + 1) * lines)
        return self.texts.labels(self.charset, indices, shortest, longest)

    def next(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """`of_step`, while the steps after it are drawn in advance; call it with successive numbers."""
        while len(self.waiting) <= AHEAD:
            self.waiting.append(self.thread.submit(self.of_step, number + len(self.waiting)))
        return self.waiting.popleft().result()
