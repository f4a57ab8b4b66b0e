"""Random texts to render, as a function of only seed and index.

Spaces stand between visible characters only, one at a time: nobody can read how many there are elsewhere.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from jaxcrnn._ranges import Count, Range, Share, check
from jaxcrnn._text import read_text
from jaxcrnn.charset import Charset
from jaxcrnn.errors import UserError
from jaxcrnn.lookalikes.groups import read_groups
from jaxcrnn.render.atlas import is_space
from jaxcrnn.render.mixture import Mixture

KINDS = ("uniform", "lookalikes")
MIXTURES = (".yaml", ".yml")
GROUPS = Path(__file__).parents[1] / "resources" / "groups.txt"


@dataclass(frozen=True)
class TextConfig:
    """Texts of lines rendered during training.

    Attributes:
      share: share of rendered lines in every batch, 0 to 1; 1 trains on rendered lines only and needs no label file.
      source: ``"uniform"`` (random characters of the charset), ``"lookalikes"`` (random look-alikes), a UTF-8 text
        file to take pieces from, or a mixture of several kinds of text, a file named ``*.yaml``.
      fonts: ``"embedded"`` for the typefaces of the package (about 360 characters), ``"system"``, a folder of fonts, a
        font or a face such as ``file.ttc#2``, or an atlas that ``jaxcrnn lookalikes atlas`` wrote (``*.npz``).
      typefaces: names of the typefaces to use, as training prints them; empty for all.
      without: names of typefaces not to use, for example to test on them; empty for none.
      groups: file of look-alike groups for ``"lookalikes"``; empty for the package's own.
      bias: share of the characters that ``"lookalikes"`` draws from groups, with equal probability for each group, 0 to
        1.
      repeat: probability that a character repeats the previous one, which CTC must separate with a blank, 0 to 1.
      shortest: minimum characters of a line, 1 or more and at most ``longest``.
      longest: maximum characters of a line, 1 to 500.
      pitch: width reserved for a character in a batch, as a share of the height, 0.1 to 4; longer lines are condensed
        to fit.
      widths: number of ranges of text length, each padded to its own width, 1 or more; each is compiled once.

    Raises:
      UserError: a value is out of range.
    """

    share: Share = 0.0
    source: str = "uniform"
    fonts: str = "embedded"
    typefaces: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    groups: str = ""
    bias: Share = 0.7
    repeat: Share = 0.05
    shortest: Count = 1
    longest: Annotated[int, Range(1, 500)] = 12
    pitch: Annotated[float, Range(0.1, 4)] = 0.85
    widths: Count = 3

    def __post_init__(self) -> None:
        check(self, "text")
        if self.shortest > self.longest:
            raise UserError(
                f"text.shortest and longest are {self.shortest} and {self.longest}; expected shortest <= longest"
            )
        if self.groups and self.source != "lookalikes":
            raise UserError(f"text.groups requires text.source=lookalikes; the source is {self.source!r}")
        if not (self.source and self.fonts):
            raise UserError("text.source or text.fonts is empty; expected a name or a path")

    def with_whole_paths(self, base: Path = Path()) -> TextConfig:
        """Copy with absolute paths; relative ones are resolved against ``base``."""
        paths = {"source": KINDS, "fonts": ("embedded", "system"), "groups": ("",)}
        own: dict[str, Any] = {name: getattr(self, name) for name in paths}
        whole = {name: str((base / own[name]).resolve()) for name, words in paths.items() if own[name] not in words}
        return replace(self, **(own | whole))


class Texts:
    """Random texts over a set of characters.

    Args:
      config: parameters of the texts.
      characters: characters that can be rendered and encoded.
      seed: seed of the sequence of texts.

    Attributes:
      characters: those of them that can be read: visible ones and spaces, but no control or format characters.
      visible: those that are not spaces.
      left_out: skipped characters of the groups or of the text file, with their counts.
      too_short: number of skipped pieces of the text file that are shorter than ``config.shortest``.

    Raises:
      UserError: no text can be drawn, or a file cannot be read.
    """

    def __init__(self, config: TextConfig, characters: str, seed: int) -> None:
        self.config, self.seed = config, seed
        self.visible = "".join(c for c in characters if not (is_space(c) or c.isspace()))
        self.characters = "".join(c for c in characters if c in self.visible or unicodedata.category(c) == "Zs")
        self._drawable = set(self.characters)
        self.left_out: dict[str, int] = {}
        self.too_short = 0
        self.groups: Sequence[str] = ()
        self.pieces: list[str] = []
        self.mixture: Mixture | None = None
        self._classes: tuple[Charset, np.ndarray] | None = None
        if not self.visible:
            raise UserError("no character can be rendered; expected fonts with characters of the charset")
        if config.source == "lookalikes":
            whole = read_groups(config.groups or GROUPS)
            self.groups = [kept for kept in (self._drawable_part(group) for group in whole) if len(kept) > 1]
            if not self.groups:
                raise UserError(f"{config.groups or GROUPS.name}: no group has two characters of the charset")
        elif config.source.endswith(MIXTURES):
            self.mixture = Mixture(config.source, self.characters, seed)
            self.left_out = self.mixture.left_out
        elif config.source != "uniform":
            # Lines are split at characters that cannot be drawn, so that pieces are contiguous in the file.
            for line in read_text(config.source).split("\n"):
                pieces = list(map(spaced, self._drawable_part(line.removesuffix("\r"), gap="\n").split("\n")))
                self.pieces += [piece for piece in pieces if len(piece) >= config.shortest]
                self.too_short += sum(0 < len(piece) < config.shortest for piece in pieces)
            if not self.pieces:
                raise UserError(
                    f"{config.source}: no line with {config.shortest} characters of the charset; expected UTF-8 text, "
                    f"or one of {', '.join(KINDS)}"
                )
            self._ends = np.cumsum([len(piece) for piece in self.pieces])

    def _drawable_part(self, text: str, gap: str = "") -> str:
        kept = []
        for c in text:
            if c in self._drawable:
                kept.append(c)
            else:
                self.left_out[c] = self.left_out.get(c, 0) + 1
                kept.append(gap)
        return "".join(kept)

    def draw(self, index: int, shortest: int | None = None, longest: int | None = None) -> str:
        """Draw text ``index``, with a length between ``shortest`` and ``longest`` (those of the config by default).

        A piece of a text file that is shorter is used as a whole, and a text is shorter if every cut of this length
        would begin or end with a space.
        """
        low, high = shortest or self.config.shortest, longest or self.config.longest
        if self.mixture:
            ids, lengths = self.mixture.draw(np.asarray([index]), low, high)
            return "".join(self.characters[i] for i in ids[0, : lengths[0]])
        rng = np.random.default_rng([self.seed, index])
        length = int(rng.integers(low, high + 1))
        if self.pieces:
            piece = self.pieces[int(np.searchsorted(self._ends, rng.integers(self._ends[-1]), side="right"))]
            start = int(rng.integers(max(1, len(piece) - length + 1)))
            return _cut(piece, start, length, low, high)
        text = ""
        for again, grouped in rng.random((length, 2)):
            if text and again < self.config.repeat:
                text += text[-1]
            elif self.groups and grouped < self.config.bias:
                group = self.groups[int(rng.integers(len(self.groups)))]
                text += group[int(rng.integers(len(group)))]
            else:
                text += self.characters[int(rng.integers(len(self.characters)))]
        return self._readable(text, rng)

    def _readable(self, text: str, rng: np.random.Generator) -> str:
        """Replace spaces at the ends and after other spaces by visible characters."""
        for i, c in enumerate(text):
            if c.isspace() and (i in (0, len(text) - 1) or text[i - 1].isspace()):
                text = text[:i] + self.visible[int(rng.integers(len(self.visible)))] + text[i + 1 :]
        return text

    def labels(
        self, charset: Charset, indices: np.ndarray, shortest: int, longest: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw texts as labels: ``[N,longest]`` class ids padded with 0, and their lengths ``[N]``."""
        if self.mixture:
            rows = self.mixture.draw(indices, shortest, longest)
            if self._classes is None or self._classes[0] is not charset:  # once, not for every batch
                self._classes = charset, np.asarray(charset.encode(self.characters), np.int32)
            classes = self._classes[1]
            inside = np.arange(longest) < rows.lengths[:, None]
            return np.where(inside, classes[rows.ids], 0), rows.lengths.astype(np.int32)
        labels, lengths = np.zeros((len(indices), longest), np.int32), np.zeros(len(indices), np.int32)
        for row, index in enumerate(indices.tolist()):
            ids = charset.encode(self.draw(index, shortest, longest))
            labels[row, : len(ids)], lengths[row] = ids, len(ids)
        return labels, lengths

    @property
    def contents(self) -> str:
        """Everything read from files that texts depend on, for a fingerprint."""
        return self.mixture.fingerprint if self.mixture else "\n".join(self.pieces or self.groups)


def spaced(text: str) -> str:
    """Remove the spaces at the ends of a text, and all but the first of several in a row."""
    return re.sub(r"(\s)\s+", r"\1", text.strip())


def _cut(piece: str, start: int, length: int, low: int, high: int) -> str:
    """Cut a text of ``length`` characters at ``start``, or the nearest that has no space at its ends.

    Cuts of ``low`` to ``high`` characters are preferred to shorter ones.
    """
    first = piece[start : start + length]
    if first == first.strip():
        return first
    for size in sorted(range(1, high + 1), key=lambda n: (n < low, abs(n - length))):
        for step in range(64):  # far enough in all but strange texts, such as one of alternating spaces
            for at in (start - step, start + step):
                text = piece[at : at + size] if at >= 0 else ""
                if text and text == text.strip() and (len(text) == size or len(piece) < size):
                    return text
    raise AssertionError(f"{piece!r} has spaces at its ends or two in a row")


def length_classes(config: TextConfig) -> list[tuple[int, int]]:
    """Split the lengths from shortest to longest into classes of about equal size.

    >>> length_classes(TextConfig(shortest=1, longest=12, widths=3))
    [(1, 4), (5, 8), (9, 12)]
    """
    count = min(config.widths, config.longest - config.shortest + 1)
    edges = np.linspace(config.shortest, config.longest + 1, count + 1).round().astype(int)
    return [(a, b - 1) for a, b in pairwise(edges.tolist())]
