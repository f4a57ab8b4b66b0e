"""Texts from a weighted mixture: words, running text, look-alikes, uniform characters and patterns such as dates.

A mixture is a YAML file, a list of parts, each with a ``kind`` and a ``weight``:

.. code-block:: yaml

    - {kind: words, weight: 18, file: words.txt, power: 0.55, punctuation: 0.1, swap: 0.1}
    - {kind: running, weight: 16, file: corpus.txt}
    - {kind: lookalikes, weight: 22, groups: groups.txt, share: 0.7}
    - {kind: uniform, weight: 11}
    - {kind: patterns, weight: 31}

Files are relative to the mixture. Text ``i`` is a function of the seed, of ``i`` and of the range of lengths: texts are
drawn in blocks of `BLOCK` with array operations, because a GPU trains on more lines than a loop over characters draws.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from jaxcrnn._text import read_text
from jaxcrnn.errors import UserError
from jaxcrnn.lookalikes.groups import read_groups
from jaxcrnn.render.atlas import is_space
from jaxcrnn.render.mixture_files import read_mixture
from jaxcrnn.render.patterns import PLACEHOLDERS, Pool, template_pool

BLOCK = 2048  # texts drawn at once
RESOURCES = Path(__file__).parents[1] / "resources"
SIGNS = "，。、：；（）《》“”·—:,.()-/"


class Rows(NamedTuple):
    """Texts as arrays: ``ids [N,L]`` of characters, whatever beyond ``lengths [N]``."""

    ids: np.ndarray
    lengths: np.ndarray


class Drawer(Protocol):
    """One part of a mixture: draws N texts of up to ``lengths [N]`` characters."""

    def __call__(self, rng: np.random.Generator, lengths: np.ndarray, low: int, high: int) -> Rows: ...


class Alphabet:
    """Characters that can be drawn, by number, and a count of those that cannot.

    Args:
      characters: characters that can be rendered and encoded.
    """

    def __init__(self, characters: str) -> None:
        self.characters = characters
        self.number = {c: i for i, c in enumerate(characters)}
        self.spaces = np.asarray([is_space(c) for c in characters])
        self.left_out: Counter[str] = Counter()

    def ids(self, text: str) -> np.ndarray | None:
        """Numbers of the characters of a text; None, and the others counted, if it has others."""
        missing = [c for c in text if c not in self.number]
        self.left_out.update(missing)
        return None if missing else np.asarray([self.number[c] for c in text], np.int32)


class Tokens(NamedTuple):
    """Many short texts as one array: token ``k`` is ``ids[starts[k] : starts[k] + lengths[k]]``."""

    ids: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray

    @staticmethod
    def of(parts: Sequence[np.ndarray]) -> Tokens:
        lengths = np.asarray([len(part) for part in parts], np.int64)
        return Tokens(np.concatenate(parts), np.cumsum(lengths) - lengths, lengths)

    def joined(self, chosen: np.ndarray, longest: int) -> Rows:
        """Concatenate the tokens ``chosen [N,K]`` of each row, cut at ``longest`` characters."""
        count = self.lengths[chosen]
        ends = np.cumsum(count, axis=1)
        begins = ends - count
        count = np.clip(longest - begins, 0, count)
        flat = count.ravel()
        token = np.repeat(np.arange(flat.size), flat)
        within = np.arange(len(token)) - np.repeat(np.cumsum(flat) - flat, flat)
        ids = np.zeros((len(chosen), longest), np.int32)
        ids[token // chosen.shape[1], begins.ravel()[token] + within] = self.ids[
            self.starts[chosen.ravel()[token]] + within
        ]
        return Rows(ids, np.minimum(ends[:, -1], longest))


class Groups:
    """Look-alike groups among the characters of an alphabet.

    Args:
      path: file of groups.
      alphabet: characters that can be drawn; the others are counted.
    """

    def __init__(self, path: Path, alphabet: Alphabet) -> None:
        kept = []
        for group in read_groups(path):
            alphabet.left_out.update(c for c in group if c not in alphabet.number)
            members = [alphabet.number[c] for c in group if c in alphabet.number]
            if len(members) > 1:
                kept.append(np.asarray(members, np.int32))
        if not kept:
            raise UserError(f"{path}: no group has two characters that can be drawn")
        self.tokens = Tokens.of(kept)
        # Group and place within it of each character; -1 for characters without look-alikes.
        self.of = np.full(len(alphabet.characters), -1, np.int64)
        self.place = np.zeros(len(alphabet.characters), np.int64)
        self.of[self.tokens.ids] = np.repeat(np.arange(len(kept)), self.tokens.lengths)
        self.place[self.tokens.ids] = np.arange(len(self.tokens.ids)) - self.tokens.starts[self.of[self.tokens.ids]]

    def members(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """A random member of a random group."""
        group = rng.integers(len(self.tokens.starts), size=shape)
        return self.tokens.ids[self.tokens.starts[group] + rng.integers(self.tokens.lengths[group])]

    def exchanged(self, rng: np.random.Generator, ids: np.ndarray, probability: float) -> np.ndarray:
        """Exchange characters that have look-alikes for one of them, each with some probability."""
        group = self.of[ids]
        chosen = (group >= 0) & (rng.random(ids.shape) < probability)
        rows = group[chosen]
        step = 1 + rng.integers(self.tokens.lengths[rows] - 1)
        place = (self.place[ids[chosen]] + step) % self.tokens.lengths[rows]
        ids = ids.copy()
        ids[chosen] = self.tokens.ids[self.tokens.starts[rows] + place]
        return ids


class Words:
    """Words by frequency to some power, some followed by a sign, some characters exchanged for look-alikes."""

    def __init__(
        self, path: Path, alphabet: Alphabet, power: float, punctuation: float, swap: float, groups: Groups | None
    ) -> None:
        words, weights = [], []
        for number, line in enumerate(read_text(path).split("\n"), start=1):
            fields = line.split()
            if not fields:
                continue
            try:
                frequency = float(fields[1]) if len(fields) > 1 else 1.0
            except ValueError:
                raise UserError(f"{path}, line {number}: {line[:40]!r}; expected a word and its frequency") from None
            ids = alphabet.ids(fields[0])
            if ids is not None and frequency > 0:
                words.append(ids)
                weights.append(frequency)
        if not words:
            raise UserError(f"{path}: no word consists of characters that can be drawn")
        self.signs = alphabet_part(SIGNS, alphabet)
        self.words, self.punctuation = len(words), punctuation if len(self.signs) else 0.0
        self.tokens = Tokens.of([*words, *self.signs[:, None]])
        self.ends = np.cumsum(np.asarray(weights) ** power)
        self.swap, self.groups = swap, groups

    def __call__(self, rng: np.random.Generator, lengths: np.ndarray, low: int, high: int) -> Rows:
        chosen = np.searchsorted(self.ends, rng.random((len(lengths), high)) * self.ends[-1], side="right")
        signs = rng.random(chosen.shape) < self.punctuation
        signs[:, 0] = False
        signs[:, 1:] &= ~signs[:, :-1]  # never two in a row
        chosen[signs] = self.words + rng.integers(max(len(self.signs), 1), size=int(signs.sum()))
        rows = self.tokens.joined(chosen, high)
        ids = self.groups.exchanged(rng, rows.ids, self.swap) if self.groups else rows.ids
        return Rows(ids, np.minimum(rows.lengths, lengths))


class Running:
    """Pieces of the lines of a text file, cut at characters that cannot be drawn."""

    def __init__(self, path: Path, alphabet: Alphabet) -> None:
        codes = np.frombuffer(read_text(path).encode("utf-32-le"), np.uint32)
        table = np.full(0x110000, -1, np.int32)
        table[[ord(c) for c in alphabet.characters]] = np.arange(len(alphabet.characters))
        numbers = table[codes]
        missing, counts = np.unique(codes[numbers < 0], return_counts=True)
        alphabet.left_out.update({chr(c): int(n) for c, n in zip(missing, counts, strict=True) if chr(c) not in "\r\n"})
        piece = np.cumsum(numbers < 0)[numbers >= 0]
        self.ids = numbers[numbers >= 0]
        starts = np.flatnonzero(np.diff(piece, prepend=-1))
        sizes = np.diff(starts, append=len(piece))
        self.first = np.repeat(starts, sizes)
        self.last = np.repeat(starts + sizes, sizes)
        # A character alone is no running text, and a space alone no text at all.
        self.places = np.flatnonzero((self.last - self.first > 1) & ~alphabet.spaces[self.ids])
        if not len(self.places):
            raise UserError(f"{path}: no line has two characters in a row that can be drawn; expected UTF-8 text")

    def __call__(self, rng: np.random.Generator, lengths: np.ndarray, low: int, high: int) -> Rows:
        at = self.places[rng.integers(len(self.places), size=len(lengths))]
        last = self.last[at]
        start = np.maximum(np.minimum(at, last - lengths), self.first[at])
        lengths = np.minimum(lengths, last - start)
        place = start[:, None] + np.minimum(np.arange(high), lengths[:, None] - 1)
        return Rows(self.ids[place], lengths)


class Uniform:
    """Characters drawn uniformly, or look-alikes among them with some probability."""

    def __init__(self, ids: np.ndarray, groups: Groups | None = None, share: float = 0.0) -> None:
        self.ids, self.groups, self.share = ids, groups, share

    def __call__(self, rng: np.random.Generator, lengths: np.ndarray, low: int, high: int) -> Rows:
        shape = (len(lengths), high)
        ids = self.ids[rng.integers(len(self.ids), size=shape)]
        if self.groups:
            ids = np.where(rng.random(shape) < self.share, self.groups.members(rng, shape), ids)
        return Rows(ids, lengths)


class Patterns:
    """Texts of a pool of templates whose placeholders are filled again for each text."""

    def __init__(self, pool: Pool, alphabet: Alphabet) -> None:
        order = np.argsort(pool.lengths, kind="stable")
        self.rows, self.lengths = pool.rows[order], pool.lengths[order]
        self.fillings = [alphabet_part(characters, alphabet) for characters in PLACEHOLDERS.values()]

    def __call__(self, rng: np.random.Generator, lengths: np.ndarray, low: int, high: int) -> Rows:
        first, last = np.searchsorted(self.lengths, [low, high + 1])
        if first == last:  # no template fits: cut longer ones
            first, last = min(first, len(self.lengths) - 1), len(self.lengths)
        chosen = rng.integers(first, last, size=len(lengths))
        width = min(high, self.rows.shape[1])
        ids = np.zeros((len(lengths), high), np.int32)
        ids[:, :width] = self.rows[chosen, :width]
        for number, filling in enumerate(self.fillings, start=1):
            places = ids == -number
            ids[places] = filling[rng.integers(len(filling), size=int(places.sum()))]
        return Rows(ids, np.minimum(self.lengths[chosen], high))


def alphabet_part(characters: Iterable[str], alphabet: Alphabet) -> np.ndarray:
    return np.asarray([alphabet.number[c] for c in characters if c in alphabet.number], np.int32)


def tidy(rows: Rows, spaces: np.ndarray) -> Rows:
    """Remove spaces at both ends and all but the first of several in a row, which nobody can read.

    Args:
      rows: texts.
      spaces: ``[C]``, whether each character is a space.
    """
    ids, lengths = rows
    inside = np.arange(ids.shape[1]) < lengths[:, None]
    ink = inside & ~spaces[ids]
    keep = ink.copy()
    # A space stays if the character before it has ink and any after it has.
    keep[:, 1:] |= inside[:, 1:] & ink[:, :-1] & (np.cumsum(ink[:, ::-1], axis=1)[:, ::-1][:, 1:] > 0)
    if (keep == inside).all():
        return rows
    place = np.cumsum(keep, axis=1) - 1
    row, column = np.nonzero(keep)
    packed = np.zeros_like(ids)
    packed[row, place[row, column]] = ids[row, column]
    return Rows(packed, keep.sum(axis=1))


class Mixture:
    """Texts of a mixture file over a set of characters.

    Args:
      path: YAML file of the mixture.
      characters: characters that can be rendered and encoded.
      seed: seed of the sequence of texts.

    Attributes:
      left_out: characters that cannot be drawn, with their counts; a word or pattern with one is not drawn.
      fingerprint: SHA-256 of the mixture and of every file that it names.

    Raises:
      UserError: the file or one that it names is invalid; the message names the part.
    """

    def __init__(self, path: str | Path, characters: str, seed: int) -> None:
        self.path, self.seed = Path(path), seed
        self.alphabet = Alphabet(characters)
        parts = read_mixture(self.path)
        self._read = {self.path}
        self.drawers = [self._drawer(part) for part in parts]
        weights = np.asarray([part["weight"] for part in parts], float)
        self.ends = np.cumsum(weights) / weights.sum()
        self.ink = np.flatnonzero(~self.alphabet.spaces)
        self.left_out = dict(self.alphabet.left_out)
        self.fingerprint = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(self._read))).hexdigest()
        self.block = lru_cache(maxsize=8)(self._block)

    def _file(self, name: str, default: str) -> Path:
        path = self.path.parent / name if name else RESOURCES / default
        self._read.add(path)
        return path

    def _drawer(self, part: dict[str, Any]) -> Drawer:
        kind, alphabet = part["kind"], self.alphabet
        if kind == "words":
            groups = Groups(self._file(part["groups"], "groups.txt"), alphabet) if part["swap"] else None
            words = self._file(part["file"], "")
            return Words(words, alphabet, part["power"], part["punctuation"], part["swap"], groups)
        if kind == "running":
            return Running(self._file(part["file"], ""), alphabet)
        if kind == "patterns":
            file = self._file(part["file"], "patterns.yaml")
            return Patterns(template_pool(file, alphabet.number, alphabet.left_out, part["rule"]), alphabet)
        everything = np.arange(len(alphabet.characters), dtype=np.int32)
        ids = alphabet_part(part["characters"], alphabet) if part["characters"] else everything
        if not len(ids):
            raise UserError(f"{self.path}: part {kind!r}: none of its characters can be drawn")
        if kind == "lookalikes":
            return Uniform(ids, Groups(self._file(part["groups"], "groups.txt"), alphabet), part["share"])
        return Uniform(ids)

    def draw(self, indices: np.ndarray, shortest: int, longest: int) -> Rows:
        """Draw the texts of ``indices [N]``, each with at most ``longest`` characters.

        Returns:
          ``ids [N,longest]``, numbers of characters padded with 0, and ``lengths [N]``, at least 1.
        """
        ids = np.zeros((len(indices), longest), np.int32)
        lengths = np.zeros(len(indices), np.int64)
        blocks = np.asarray(indices, np.int64) // BLOCK
        for block in np.unique(blocks):
            here = blocks == block
            rows = self.block(int(block), shortest, longest)
            inside = np.asarray(indices)[here] % BLOCK
            ids[here], lengths[here] = rows.ids[inside], rows.lengths[inside]
        return Rows(ids, lengths)

    def _block(self, block: int, shortest: int, longest: int) -> Rows:
        rng = np.random.default_rng([self.seed, block, shortest, longest])
        wanted = rng.integers(shortest, longest + 1, size=BLOCK)
        kinds = np.searchsorted(self.ends, rng.random(BLOCK), side="right")
        ids, lengths = np.zeros((BLOCK, longest), np.int32), np.zeros(BLOCK, np.int64)
        for kind, drawer in enumerate(self.drawers):
            here = np.flatnonzero(kinds == kind)
            if len(here):
                ids[here], lengths[here] = tidy(drawer(rng, wanted[here], shortest, longest), self.alphabet.spaces)
        empty = np.flatnonzero(lengths == 0)  # only spaces were drawn
        ids[empty, 0], lengths[empty] = rng.choice(self.ink, size=len(empty)), 1
        ids[np.arange(longest) >= lengths[:, None]] = 0
        return Rows(ids, lengths)
