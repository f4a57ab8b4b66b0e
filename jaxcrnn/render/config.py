"""Rendering parameters: the ranges that rendered lines are drawn from, at three levels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import jax

from jaxcrnn._ranges import NonNegative, Positive, Range, Share, check
from jaxcrnn.errors import UserError

Pixels = Annotated[int, Range(8)]
UpTo2 = Annotated[float, Range(0, 2)]


@jax.tree_util.register_static
@dataclass(frozen=True)
class RenderConfig:
    """Ranges that each rendered line samples from uniformly; unless stated, lengths in ems, black to white is 2.

    An em is the font size.

    Attributes:
      level: preset that sets the other keys: ``"easy"``, ``"medium"`` (the defaults below) or ``"hard"``.
      height: height H of the images in pixels, a multiple of 8, 8 or more.
      width: width W of the images in pixels, a multiple of 8, 8 or more; longer lines are condensed to fit.
      smallest: smallest font size (1 em), as a share of the image height, more than 0 and at most ``largest``.
      largest: largest font size (1 em), as a share of the image height, 0 to 2.
      narrow: strongest horizontal condensing, more than 0; 1 is the font's own width.
      size: maximum relative change of each character's size, up or down, 0 or more.
      loose: maximum letter spacing, 0 or more.
      pitch: maximum change of each letter space, up or down, 0 or more.
      baseline: maximum shift of each character, up or down, 0 or more.
      margin: maximum margin left of the first and right of the last character, 0 to 10.
      offset: maximum shift of the line, up or down, as a share of the height, 0 or more.
      slant: maximum horizontal shear, as shift per unit of height, to either side, 0 or more.
      rotation: maximum rotation in radians, either way, 0 or more; less for lines so long that their ends would leave
        the image.
      perspective: maximum relative growth from one end to the other and from top to bottom, either way, 0 or more.
      wave: maximum amplitude of a smooth wave, in both directions, 0 or more.
      bold: maximum growth of strokes in pixels, 0 or more.
      thin: maximum shrinking of strokes in pixels, 0 or more.
      lowres: maximum factor by which a line is downsampled and upsampled again, 0 or more.
      blur: maximum standard deviation of the blur in pixels, 0 or more.
      contrast: minimum contrast between ink and paper, 0 to 2.
      texture: maximum standard deviation of the paper's texture, 0 or more.
      noise: maximum standard deviation of the noise, 0 or more.
      blocks: maximum quantization step of the frequencies of 8x8 blocks, as in JPEG, 0 or more.
      rule: probability of each of four straight lines: above, below, left and right of the text, 0 to 1.
      invert: probability that black and white are swapped, 0 to 1.

    Raises:
      UserError: a value is out of range.
    """

    level: str = "medium"
    height: Pixels = field(default=32, metadata={"derived": True})
    width: Pixels = field(default=320, metadata={"derived": True})
    smallest: Positive = 0.62
    largest: UpTo2 = 0.86
    narrow: Positive = 0.6
    size: NonNegative = 0.04
    loose: NonNegative = 0.2
    pitch: NonNegative = 0.03
    baseline: NonNegative = 0.03
    margin: Annotated[float, Range(0, 10)] = 0.4
    offset: NonNegative = 0.08
    slant: NonNegative = 0.05
    rotation: NonNegative = 0.015
    perspective: NonNegative = 0.05
    wave: NonNegative = 0.02
    bold: NonNegative = 0.8
    thin: NonNegative = 0.1
    lowres: NonNegative = 1.7
    blur: NonNegative = 0.6
    contrast: UpTo2 = 0.8
    texture: NonNegative = 0.06
    noise: NonNegative = 0.06
    blocks: NonNegative = 0.2
    rule: Share = 0.06
    invert: Share = 0.03

    def __post_init__(self) -> None:
        check(self, "render")
        if self.width % 8 or self.height % 8:
            raise UserError(f"render.width and height are {self.width} and {self.height}; expected multiples of 8")
        if self.level not in ("easy", "medium", "hard"):
            raise UserError(f"render.level is {self.level!r}; expected easy, medium or hard")
        if self.smallest > self.largest:
            raise UserError(
                f"render.smallest and largest are {self.smallest} and {self.largest}; expected smallest <= largest"
            )


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
