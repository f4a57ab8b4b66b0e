"""Properties of a model that only weights converted from other programs need."""

from __future__ import annotations

import math
from dataclasses import dataclass

from jaxcrnn.errors import UserError


@dataclass(frozen=True)
class Imported:
    """Properties of models of other programs, set by ``jaxcrnn convert``; do not change them for models trained here.

    Attributes:
      two_biases: keep PyTorch's second LSTM bias, so that weights can be exported back bit for bit.
      channels: output channels of the backbone, with all its layers scaled in proportion; 0 for the backbone's own.
      rows: how several remaining rows of the backbone become features: ``"flat"`` concatenates them, ``"mean"``
        averages them.
      colors: input channels, 1 for gray or 3 for color; a gray image is repeated for each channel.
      black: value of a black pixel in the input of the first layer.
      white: value of a white pixel, and of the background around a line before the padding is set to 0.

    Raises:
      UserError: If a value is out of range.
    """

    two_biases: bool = False
    channels: int = 0
    rows: str = "flat"
    colors: int = 1
    black: float = -1.0
    white: float = 1.0

    def __post_init__(self) -> None:
        if self.rows not in ("flat", "mean"):
            raise UserError(f"imported.rows is {self.rows!r}; expected one of flat, mean")
        if self.colors not in (1, 3):
            raise UserError(f"imported.colors is {self.colors}; expected 1 for gray or 3 for color")
        if self.channels < 0:
            raise UserError(f"imported.channels is {self.channels}; expected 1 or more, or 0 for the backbone's own")
        if self.black == self.white:
            raise UserError(f"imported.black and imported.white are both {self.white}; expected two different numbers")
        for name in ("black", "white"):
            if not math.isfinite(getattr(self, name)):
                raise UserError(f"imported.{name} is {getattr(self, name)}; expected a finite number")
