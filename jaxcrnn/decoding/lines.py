"""Readings of lines, and best-path decoding in numpy; imports neither jax nor flax."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxcrnn.charset import Charset
from jaxcrnn.decoding.single_swaps import single_swaps
from jaxcrnn.nn.layers import Grid

RIVALS = 8  # other characters of which the probabilities are computed
LEAST = 0.001  # probability of those that are returned


# The name of a line, and its image at the model's height or several looks at it (`jaxcrnn.data.images.looks`).
NamedLooks = tuple[str, np.ndarray | Sequence[np.ndarray]]


class Character(NamedTuple):
    """One character of a reading.

    Attributes:
      text: the character.
      confidence: its probability among itself and the `RIVALS` most probable other characters in its place, given the
        rest of the text: exact, over all alignments (`jaxcrnn.ctc.single_swaps`).
      left: left edge in the scaled line, in pixels.
      right: right edge in the scaled line, in pixels.
      rivals: the other characters that are at least `LEAST` probable, with their probabilities, highest first.
    """

    text: str
    confidence: float
    left: float
    right: float
    rivals: tuple[tuple[str, float], ...] = ()


class Line(NamedTuple):
    """Reading of one image.

    Attributes:
      name: name of the image.
      text: text that was read.
      confidence: confidence of the reading; see `jaxcrnn.decode.Reading`.
      characters: characters of the text, if requested.
      others: further readings with their log scores, best first, if requested.
    """

    name: str
    text: str
    confidence: float
    characters: tuple[Character, ...] = ()
    others: tuple[tuple[str, float], ...] = ()


def read_line(logits: np.ndarray, charset: Charset, name: str, grid: Grid | None = None) -> Line:
    """Read one line as `jaxcrnn.decode.read` does: the best class of each frame, repeats merged, blanks removed.

    Args:
      logits: ``[T,C]`` float32, the frames of the line without padding.
      charset: charset of the model.
      name: name of the image.
      grid: places of the frames in the scaled line, to return the characters, too.

    Examples:
      >>> import numpy as np
      >>> from jaxcrnn import Charset
      >>> from jaxcrnn.decoding.lines import read_line
      >>> from jaxcrnn.nn.layers import grid
      >>> frames = [[0.2, 0.6, 0.2], [0.05, 0.9, 0.05], [0.8, 0.1, 0.1], [0.2, 0.1, 0.7]]
      >>> line = read_line(np.log(np.array(frames, np.float32)), Charset("ab"), "", grid("small", 16))
      >>> line.text, round(line.confidence, 3), [(c.left, c.right) for c in line.characters]
      ('ab', 0.8, [(0.0, 8.0), (12.0, 16.0)])
    """
    if not len(logits):
        return Line(name, "", 0.0)
    best = logits.argmax(1)
    starts = np.flatnonzero(np.diff(best, prepend=-1))
    ends = np.append(starts[1:], len(best))
    visible = best[starts] != charset.blank
    if not visible.any():
        return Line(name, "", float(_highest(logits).mean()))
    starts, ends = starts[visible], ends[visible]
    text = charset.decode(best[starts].tolist())
    sure = [float(_highest(logits[start:end]).max()) for start, end in zip(starts, ends, strict=True)]
    if grid is None:
        return Line(name, text, float(np.mean(sure)))
    classes = _rivals(logits, best[starts], starts, ends, charset.blank)
    ratios = np.exp(single_swaps(logits, best[starts], classes, blank=charset.blank))
    own = 1 / (1 + ratios.sum(1))
    places = zip(text, own, starts.tolist(), ends.tolist(), classes, ratios * own[:, None], strict=True)
    characters = (
        Character(c, float(p), *grid.span(start, end - 1), listed(charset, *others))
        for c, p, start, end, *others in places
    )
    return Line(name, text, float(np.mean(sure)), tuple(characters))


def is_unsure(line: Line, reread: float) -> bool:
    """Return whether further looks at a line are read: it has text, with a confidence below ``reread``.

    Lines without text are not read again, because text that only another look has is seldom there.
    """
    return bool(line.text) and line.confidence < reread


def surest(lines: Sequence[Line], widths: Sequence[int]) -> Line:
    """Return the most confident reading of several looks at a line.

    A reading without text, however confident, is not returned if another one has text.

    Args:
      lines: readings of the same line, scaled to ``widths`` pixels (`jaxcrnn.data.images.looks`).
      widths: widths of the scaled lines; positions of characters are returned in pixels of the first one.

    Examples:
      >>> line = surest([Line("", "a", 0.5), Line("", "b", 0.8, (Character("b", 0.8, 0, 60),))], [50, 60])
      >>> line.text, line.characters[0].right
      ('b', 50.0)
    """
    best, width = max(zip(lines, widths, strict=True), key=lambda look: (look[0].text != "", look[0].confidence))
    scale = widths[0] / width
    return best._replace(
        characters=tuple(c._replace(left=c.left * scale, right=c.right * scale) for c in best.characters)
    )


def looks_of(image: np.ndarray | Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the looks at a line, of which a single image is one."""
    return [image] if isinstance(image, np.ndarray) else list(image)


def listed(charset: Charset, classes: np.ndarray, probabilities: np.ndarray) -> tuple[tuple[str, float], ...]:
    """Return the rivals of a character that are at least `LEAST` probable, and their probabilities, highest first."""
    order = np.argsort(-probabilities, kind="stable")
    order = order[probabilities[order] >= LEAST]
    return tuple(zip(charset.decode(classes[order].tolist()), probabilities[order].tolist(), strict=True))


def _rivals(logits: np.ndarray, own: np.ndarray, starts: np.ndarray, ends: np.ndarray, blank: int) -> np.ndarray:
    """Return the most probable other classes of each character's most probable frame: ``[L,RIVALS]``, or fewer."""
    frames = [start + int(_highest(logits[start:end]).argmax()) for start, end in zip(starts, ends, strict=True)]
    values = logits[frames]
    values[:, blank] = -np.inf
    values[np.arange(len(own)), own] = -np.inf
    number = max(min(RIVALS, values.shape[1] - 2), 0)
    return np.argsort(-values, 1, kind="stable")[:, :number]


def _highest(logits: np.ndarray) -> np.ndarray:
    """Return the probability of the best class of each frame."""
    return 1 / np.exp(logits - logits.max(1, keepdims=True)).sum(1)
