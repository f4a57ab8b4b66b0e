"""Properties of a model that only weights converted from other programs need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from jaxcrnn._ranges import Finite, Natural, Range, check
from jaxcrnn.errors import UserError


@dataclass(frozen=True)
class Imported:
    """Properties of models of other programs, set by ``jaxcrnn convert``; do not change them for models trained here.

    Attributes:
      two_biases: keep PyTorch's second LSTM bias, so that weights can be exported back bit for bit.
      channels: output channels of the backbone, with all its layers scaled in proportion, 0 or more; 0 for the
        backbone's own.
      rows: how several remaining rows of the backbone become features: ``"flat"`` concatenates them, ``"mean"``
        averages them.
      colors: input channels, 1 for gray or 3 for color; a gray image is repeated for each channel.
      black: value of a black pixel in the input of the first layer, a finite number.
      white: value of a white pixel, and of the background around a line before the padding is set to 0, a finite number
        other than ``black``.

    Raises:
      UserError: If a value is out of range.
    """

    two_biases: bool = False
    channels: Natural = 0
    rows: str = "flat"
    colors: Annotated[int, Range(1, 3, text="1 for gray or 3 for color")] = 1
    black: Finite = -1.0
    white: Finite = 1.0

    def __post_init__(self) -> None:
        if self.rows not in ("flat", "mean"):
            raise UserError(f"imported.rows is {self.rows!r}; expected one of flat, mean")
        if self.colors not in (1, 3):
            raise UserError(f"imported.colors is {self.colors}; expected 1 for gray or 3 for color")
        check(self, "imported")
        if self.black == self.white:
            raise UserError(f"imported.black and imported.white are both {self.white}; expected two different numbers")
