"""Text to render: every line a function of seed and index alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from jaxcrnn._text import read_text
from jaxcrnn.errors import UserError
from jaxcrnn.lookalikes.groups import read_groups

KINDS = ("uniform", "lookalikes")
GROUPS = Path(__file__).parents[1] / "resources" / "groups.txt"


@dataclass(frozen=True)
class TextConfig:
    """Lines rendered while training.

    Attributes:
      share: of every batch that is rendered; 1 trains on rendered lines alone and needs no label file.
      source: ``"uniform"`` over the charset, ``"lookalikes"``, or a UTF-8 text file to take pieces of.
      fonts: ``"embedded"`` for the typefaces in the package (about 360 characters), ``"system"``, or a folder.
      typefaces: names of those to render in, as training prints them; empty for all.
      groups: file of look-alike groups for ``"lookalikes"``; empty for those in the package.
      bias: share of the characters that ``"lookalikes"`` draws from a group, each group as often as another.
      repeat: probability that a character is the one before it again, which CTC must part with a blank.
      shortest: characters of the shortest line.
      longest: of the longest.
      pitch: room for a character in a batch, as a share of the height; a line that needs more is set narrower.
      widths: classes of lengths, each padded to its own width; each costs one compilation.
    """

    share: float = 0.0
    source: str = "uniform"
    fonts: str = "embedded"
    typefaces: tuple[str, ...] = ()
    groups: str = ""
    bias: float = 0.7
    repeat: float = 0.05
    shortest: int = 1
    longest: int = 12
    pitch: float = 0.85
    widths: int = 3

    def __post_init__(self) -> None:
        for name in ("share", "bias", "repeat"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"text.{name} is {getattr(self, name)}; expected 0 to 1")
        if not 1 <= self.shortest <= self.longest:
            raise UserError(
                f"text.shortest and longest are {self.shortest} and {self.longest}; expected 1 <= shortest <= longest"
            )
        if self.longest > 500:
            raise UserError(f"text.longest is {self.longest}; expected 500 or less")
        if self.groups and self.source != "lookalikes":
            raise UserError(f"text.groups is for text.source=lookalikes; the source is {self.source!r}")
        if not (self.source and self.fonts):
            raise UserError("text.source and text.fonts: expected a word or a path, found nothing")
        if self.widths < 1:
            raise UserError(f"text.widths is {self.widths}; expected 1 or more")
        if not 0.1 <= self.pitch <= 4:
            raise UserError(f"text.pitch is {self.pitch}; expected 0.1 to 4, a share of the height")

    def with_whole_paths(self, base: Path = Path()) -> TextConfig:
        """The same from any working folder, paths that are not whole being relative to ``base``."""
        paths = {"source": KINDS, "fonts": ("embedded", "system"), "groups": ("",)}
        given: dict[str, Any] = {name: getattr(self, name) for name in paths}
        whole = {name: str((base / given[name]).resolve()) for name, words in paths.items() if given[name] not in words}
        return replace(self, **(given | whole))


class Texts:
    """Random texts over some characters.

    Args:
      config: what to draw.
      characters: those that can be rendered and spelled.
      seed: two seeds give two sequences.

    Attributes:
      left_out: characters of the groups or of the text file that are not among ``characters``, with their counts.
      too_short: pieces of the text file that are shorter than the shortest line and are not used.

    Raises:
      UserError: nothing can be drawn, or a file cannot be read.
    """

    def __init__(self, config: TextConfig, characters: str, seed: int) -> None:
        self.config, self.characters, self.seed = config, characters, seed
        self._drawable = set(characters)
        self.left_out: dict[str, int] = {}
        self.too_short = 0
        self.groups: Sequence[str] = ()
        self.pieces: list[str] = []
        if not characters:
            raise UserError("no character can be rendered; expected fonts that have the charset's characters")
        if config.source == "lookalikes":
            whole = read_groups(config.groups or GROUPS)
            self.groups = [kept for kept in (self._known(group) for group in whole) if len(kept) > 1]
            if not self.groups:
                raise UserError(f"{config.groups or GROUPS.name}: no group has two characters of the charset")
        elif config.source != "uniform":
            # A character that cannot be drawn parts a line in two: nothing is joined that did not stand together.
            for line in read_text(config.source).split("\n"):
                known = self._known(line.removesuffix("\r"), gap="\n")
                pieces = known.split("\n")
                self.pieces += [piece for piece in pieces if len(piece) >= config.shortest]
                self.too_short += sum(0 < len(piece) < config.shortest for piece in pieces)
            if not self.pieces:
                raise UserError(
                    f"{config.source}: no line of {config.shortest} characters of the charset; expected UTF-8 text, "
                    f"or one of {', '.join(KINDS)}"
                )
            self._ends = np.cumsum([len(piece) for piece in self.pieces])

    def _known(self, text: str, gap: str = "") -> str:
        kept = []
        for c in text:
            if c in self._drawable:
                kept.append(c)
            else:
                self.left_out[c] = self.left_out.get(c, 0) + 1
                kept.append(gap)
        return "".join(kept)

    def draw(self, index: int, shortest: int | None = None, longest: int | None = None) -> str:
        """Text ``index``, of a length between two others than the config's where those are given.

        A piece of a text file may be shorter than that: it is taken whole.
        """
        rng = np.random.default_rng([self.seed, index])
        low, high = shortest or self.config.shortest, longest or self.config.longest
        length = int(rng.integers(low, high + 1))
        if self.pieces:
            piece = self.pieces[int(np.searchsorted(self._ends, rng.integers(self._ends[-1]), side="right"))]
            start = int(rng.integers(max(1, len(piece) - length + 1)))
            return piece[start : start + length]
        text = ""
        for again, grouped in rng.random((length, 2)):
            if text and again < self.config.repeat:
                text += text[-1]
            elif self.groups and grouped < self.config.bias:
                group = self.groups[int(rng.integers(len(self.groups)))]
                text += group[int(rng.integers(len(group)))]
            else:
                text += self.characters[int(rng.integers(len(self.characters)))]
        return text


def length_classes(config: TextConfig) -> list[tuple[int, int]]:
    """The lengths from shortest to longest in about equal parts.

    >>> length_classes(TextConfig(shortest=1, longest=12, widths=3))
    [(1, 4), (5, 8), (9, 12)]
    """
    count = min(config.widths, config.longest - config.shortest + 1)
    edges = np.linspace(config.shortest, config.longest + 1, count + 1).round().astype(int)
    return [(a, b - 1) for a, b in pairwise(edges.tolist())]
