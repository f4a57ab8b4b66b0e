"""Rendering parameters: the ranges that rendered lines are drawn from, at three levels."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field

import jax

from jaxcrnn.errors import UserError


@jax.tree_util.register_static
@dataclass(frozen=True)
class RenderConfig:
    """Ranges that each rendered line samples from uniformly; unless stated, lengths in ems, black to white is 2.

    An em is the font size.

    Attributes:
      level: preset that sets the other keys: ``"easy"``, ``"medium"`` (the defaults below) or ``"hard"``.
      height: height H of the images in pixels.
      width: width W of the images in pixels, a multiple of 8; longer lines are condensed to fit.
      smallest: smallest font size (1 em), as a share of the image height.
      largest: largest font size (1 em), as a share of the image height.
      narrow: strongest horizontal condensing; 1 is the font's own width.
      size: maximum relative change of each character's size, up or down.
      loose: maximum letter spacing.
      pitch: maximum change of each letter space, up or down.
      baseline: maximum shift of each character, up or down.
      margin: maximum margin left of the first and right of the last character.
      offset: maximum shift of the line, up or down, as a share of the height.
      slant: maximum horizontal shear, as shift per unit of height, to either side.
      rotation: maximum rotation in radians, either way; less for lines so long that their ends would leave the image.
      perspective: maximum relative growth from one end to the other and from top to bottom, either way.
      wave: maximum amplitude of a smooth wave, in both directions.
      bold: maximum growth of strokes in pixels.
      thin: maximum shrinking of strokes in pixels.
      lowres: maximum factor by which a line is downsampled and upsampled again.
      blur: maximum standard deviation of the blur in pixels.
      contrast: minimum contrast between ink and paper.
      texture: maximum standard deviation of the paper's texture.
      noise: maximum standard deviation of the noise.
      blocks: maximum quantization step of the frequencies of 8x8 blocks, as in JPEG.
      rule: probability of each of four straight lines: above, below, left and right of the text.
      invert: probability that black and white are swapped.
    """

    level: str = "medium"
    height: int = field(default=32, metadata={"derived": True})
    width: int = field(default=320, metadata={"derived": True})
    smallest: float = 0.62
    largest: float = 0.86
    narrow: float = 0.6
    size: float = 0.04
    loose: float = 0.2
    pitch: float = 0.03
    baseline: float = 0.03
    margin: float = 0.4
    offset: float = 0.08
    slant: float = 0.05
    rotation: float = 0.015
    perspective: float = 0.05
    wave: float = 0.02
    bold: float = 0.8
    thin: float = 0.1
    lowres: float = 1.7
    blur: float = 0.6
    contrast: float = 0.8
    texture: float = 0.06
    noise: float = 0.06
    blocks: float = 0.2
    rule: float = 0.06
    invert: float = 0.03

    def __post_init__(self) -> None:
        if self.width % 8 or self.height % 8 or self.width < 8 or self.height < 8:
            raise UserError(f"render.width and height are {self.width} and {self.height}; expected multiples of 8")
        if self.level not in ("easy", "medium", "hard"):
            raise UserError(f"render.level is {self.level!r}; expected easy, medium or hard")
        for name, value in asdict(self).items():
            if name != "level" and not 0 <= value < math.inf:
                raise UserError(f"render.{name} is {value}; expected 0 or more")
        for name, most in (("contrast", 2), ("largest", 2), ("margin", 10)):
            if getattr(self, name) > most:
                raise UserError(f"render.{name} is {getattr(self, name)}; expected {most} or less")
        if not 0 < self.smallest <= self.largest or not self.narrow > 0:
            raise UserError("render.smallest, largest and narrow: expected 0 < smallest <= largest and 0 < narrow")


EASY = RenderConfig(
    level="easy",
    narrow=0.9,
    size=0.0,
    loose=0.1,
    pitch=0.0,
    baseline=0.0,
    offset=0.04,
    slant=0.0,
    rotation=0.0,
    perspective=0.0,
    wave=0.0,
    bold=0.4,
    thin=0.0,
    lowres=1.0,
    blur=0.3,
    contrast=1.4,
    texture=0.0,
    noise=0.02,
    blocks=0.0,
    rule=0.0,
    invert=0.0,
)
HARD = RenderConfig(
    level="hard",
    narrow=0.5,
    size=0.08,
    loose=0.35,
    pitch=0.08,
    baseline=0.06,
    offset=0.12,
    slant=0.2,
    rotation=0.04,
    perspective=0.15,
    wave=0.06,
    bold=1.0,
    thin=0.3,
    lowres=2.2,
    blur=1.0,
    contrast=0.5,
    texture=0.15,
    noise=0.12,
    blocks=0.35,
    rule=0.12,
    invert=0.1,
)
LEVELS = {"easy": EASY, "medium": RenderConfig(), "hard": HARD}
