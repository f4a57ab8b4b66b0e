"""Rendering parameters: the ranges that rendered lines are drawn from, at four levels."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

import jax

from jaxcrnn._ranges import NonNegative, Positive, Range, Share, check
from jaxcrnn.errors import UserError

Pixels = Annotated[int, Range(8)]
UpTo2 = Annotated[float, Range(0, 2)]
UpToHalf = Annotated[float, Range(0, 0.5)]


# Keys that version 0.2.0 did not have; they are off by default.
LATER = "wide half tight close cut screen hard thermal clean box dashed neighbour stamp dot".split()


@jax.tree_util.register_static
@dataclass(frozen=True)
class RenderConfig:
    """Ranges that each rendered line samples from uniformly; unless stated, lengths in ems, black to white is 2.

    An em is the font size.

    Attributes:
      level: preset that sets the other keys: ``"easy"``, ``"medium"`` (the defaults below), ``"hard"`` or ``"forms"``
        (fitted to scanned and photographed forms).
      height: height H of the images in pixels, a multiple of 8, 8 or more.
      width: width W of the images in pixels, a multiple of 8, 8 or more; longer lines are condensed to fit.
      smallest: smallest font size (1 em), as a share of the image height, more than 0 and at most ``largest``.
      largest: largest font size (1 em), as a share of the image height, 0 to 2.
      narrow: strongest horizontal condensing, more than 0; 1 is the font's own width.
      wide: strongest horizontal stretching, 1 or more; above 1, lines are condensed and stretched equally often.
      half: maximum relative change of half-width characters beside full-width ones, 0 to 0.9: narrower or wider, and
        lower.
      size: maximum relative change of each character's size, up or down, 0 or more.
      loose: maximum letter spacing, 0 or more.
      tight: maximum narrowing of the characters' places, as a share of their widths, 0 to 0.5; neighbours then touch.
      pitch: maximum change of each letter space, up or down, 0 or more.
      baseline: maximum shift of each character, up or down, 0 or more.
      margin: maximum margin left of the first and right of the last character, 0 to 10.
      offset: maximum shift of the line, up or down, as a share of the height, 0 or more.
      close: probability that a line is cropped close to its ink on all sides, so that its ink fills the height, 0 to 1.
      cut: maximum share of the height, and of the first and last characters, that a close crop cuts off, 0 to 0.5.
      slant: maximum horizontal shear, as shift per unit of height, to either side, 0 or more.
      rotation: maximum rotation in radians, either way, 0 or more; less for lines so long that their ends would leave
        the image.
      perspective: maximum relative growth from one end to the other and from top to bottom, either way, 0 or more.
      wave: maximum amplitude of a smooth wave, in both directions, 0 or more.
      bold: maximum growth of strokes in pixels, 0 or more.
      thin: maximum shrinking of strokes in pixels, 0 or more.
      lowres: maximum factor by which a line is downsampled and upsampled again, 0 or more.
      blur: maximum standard deviation of the blur in pixels, 0 or more.
      screen: probability that the text is drawn at 11 to 16 pixels and enlarged, with the softer edges of subpixel
        rendering, as in screenshots, 0 to 1.
      hard: probability that strokes are thresholded, which breaks or thickens them, 0 to 1.
      thermal: probability of faded rows and columns, as in thermal print, 0 to 1.
      contrast: minimum contrast between ink and paper, 0 to 2.
      clean: probability of white paper almost without texture and noise, 0 to 1.
      box: probability of a gray box behind a part of the text, 0 to 1.
      texture: maximum standard deviation of the paper's texture, 0 or more.
      noise: maximum standard deviation of the noise, 0 or more.
      blocks: maximum quantization step of the frequencies of 8x8 blocks, as in JPEG, 0 or more.
      rule: probability of each of four straight lines: above, below, left and right of the text, 0 to 1.
      dashed: probability that such a line is dashed or dotted, 0 to 1.
      neighbour: probability of ink of the neighbouring line at the upper edge, and at the lower edge, 0 to 1.
      stamp: probability of a part of a stamp: a ring of characters around a star, in light and patchy ink, 0 to 1.
      dot: probability of each of three stray dots, 0 to 1.
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
    wide: Annotated[float, Range(1)] = 1.0
    half: Annotated[float, Range(0, 0.9)] = 0.0
    size: NonNegative = 0.04
    loose: NonNegative = 0.2
    tight: UpToHalf = 0.0
    pitch: NonNegative = 0.03
    baseline: NonNegative = 0.03
    margin: Annotated[float, Range(0, 10)] = 0.4
    offset: NonNegative = 0.08
    close: Share = 0.0
    cut: UpToHalf = 0.0
    slant: NonNegative = 0.05
    rotation: NonNegative = 0.015
    perspective: NonNegative = 0.05
    wave: NonNegative = 0.02
    bold: NonNegative = 0.8
    thin: NonNegative = 0.1
    lowres: NonNegative = 1.7
    blur: NonNegative = 0.6
    screen: Share = 0.0
    hard: Share = 0.0
    thermal: Share = 0.0
    contrast: UpTo2 = 0.8
    clean: Share = 0.0
    box: Share = 0.0
    texture: NonNegative = 0.06
    noise: NonNegative = 0.06
    blocks: NonNegative = 0.2
    rule: Share = 0.06
    dashed: Share = 0.0
    neighbour: Share = 0.0
    stamp: Share = 0.0
    dot: Share = 0.0
    invert: Share = 0.03

    def __post_init__(self) -> None:
        check(self, "render")
        if self.width % 8 or self.height % 8:
            raise UserError(f"render.width and height are {self.width} and {self.height}; expected multiples of 8")
        if self.level not in ("easy", "medium", "hard", "forms"):
            raise UserError(f"render.level is {self.level!r}; expected easy, medium, hard or forms")
        if self.smallest > self.largest:
            raise UserError(
                f"render.smallest and largest are {self.smallest} and {self.largest}; expected smallest <= largest"
            )

    def recorded(self) -> dict[str, Any]:
        """Return the values that identify rendered lines; later keys only if they are on, so older runs can resume."""
        return {k: v for k, v in asdict(self).items() if k not in LATER or v != getattr(RenderConfig, k)}


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
FORMS = RenderConfig(
    level="forms",
    smallest=0.48,
    largest=1.0,
    narrow=0.33,
    wide=1.6,
    half=0.25,
    tight=0.25,
    pitch=0.02,
    baseline=0.02,
    margin=0.22,
    offset=0.13,
    close=0.3,
    cut=0.08,
    slant=0.04,
    rotation=0.012,
    perspective=0.03,
    wave=0.015,
    bold=0.8,
    thin=0.3,
    lowres=1.65,
    blur=0.5,
    screen=0.12,
    hard=0.3,
    thermal=0.05,
    contrast=0.6,
    clean=0.8,
    box=0.05,
    texture=0.05,
    blocks=0.15,
    rule=0.1,
    dashed=0.2,
    neighbour=0.1,
    stamp=0.06,
    dot=0.03,
    invert=0.02,
)
LEVELS = {"easy": EASY, "medium": RenderConfig(), "hard": HARD, "forms": FORMS}
