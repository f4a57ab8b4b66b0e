"""Lines rendered from the font that Pillow brings, for tests and scripts that need data and have none."""

from __future__ import annotations

from collections.abc import Hashable
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jaxcrnn.data.source import Fault

CHARACTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@lru_cache(maxsize=32)
def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


class SyntheticLines:
    """Random strings as a `Source`; line ``i`` is a function of ``(seed, i)`` alone.

    Args:
      seed: two seeds share no line by construction.
      count: number of lines.
      characters: characters to draw from, all in Pillow's own font.
      lengths: shortest and longest line in characters.
    """

    def __init__(self, seed: int, count: int, characters: str = CHARACTERS, lengths: tuple[int, int] = (3, 7)) -> None:
        self.seed, self.count, self.characters, self.lengths = seed, count, characters, lengths
        self.faults: list[Fault] = []

    def __len__(self) -> int:
        return self.count

    def _rng(self, index: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, index])

    def _draw_text(self, rng: np.random.Generator) -> str:
        length = int(rng.integers(self.lengths[0], self.lengths[1] + 1))
        return "".join(rng.choice(list(self.characters), length))

    def text(self, index: int) -> str:
        return self._draw_text(self._rng(index))

    def name(self, index: int) -> str:
        return f"rendered-{self.seed}-{index}"

    def where(self, index: int) -> str:
        return f"rendered line {index} of seed {self.seed}"

    def identity(self, index: int) -> Hashable:
        return self.name(index)

    def __getitem__(self, index: int) -> tuple[np.ndarray, str]:
        rng = self._rng(index)
        text = self._draw_text(rng)
        font = _font(int(rng.integers(20, 33)))
        left, top, right, bottom = font.getbbox(text)
        margin = rng.integers(1, 7, 4)
        size = int(right - left + margin[0] + margin[1]), int(bottom - top + margin[2] + margin[3])
        image = Image.new("L", size, 255)
        ImageDraw.Draw(image).text((margin[0] - left, margin[2] - top), text, fill=0, font=font)
        image = image.rotate(rng.uniform(-2, 2), Image.Resampling.BILINEAR, fillcolor=255)
        ink, paper = rng.uniform(0, 110), rng.uniform(150, 255)
        gray = ink + (paper - ink) * np.asarray(image, np.float32) / 255 + rng.normal(0, rng.uniform(0, 12), size[::-1])
        return np.clip(gray, 0, 255).astype(np.uint8), text
