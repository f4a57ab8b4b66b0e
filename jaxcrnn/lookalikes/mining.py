"""Mining of look-alikes: pairs from glyphs, published tables and confusions, merged into groups."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from jaxcrnn.lookalikes.confusions import Confusion
from jaxcrnn.lookalikes.similarity import alike, known_scores, merge, neighbours, similarities

TABLED = 0.65  # lowest score of a table's pair; published tables also contain pairs that do not look alike

Pair = tuple[int, int]


def storable(character: str) -> bool:
    """Check whether a file of groups can hold a character: spaces are ignored there, and ``#`` starts a comment.

    Examples:
      >>> from jaxcrnn.lookalikes.mining import storable
      >>> storable("未"), storable(" "), storable("#")
      (True, False, False)
    """
    return unicodedata.category(character) not in ("Zs", "Cf", "Cc") and character != "#"


class Candidates:
    """Pairs of characters that may look alike, collected from several sources.

    Args:
      characters: the characters to search.
      similarity: lowest similarity of glyphs, where identical ones have 1.

    Attributes:
      pairs: pairs of indices into ``characters``, with scores that determine the order in which they are merged.
      scores: similarity of each compared pair.
      sources: one line of text per source, with what it contributed.

    Examples:
      >>> from jaxcrnn.lookalikes.mining import Candidates
      >>> candidates = Candidates("未末土士", similarity=0.8)
      >>> candidates.add_table("a table", [frozenset("未末")])
      >>> candidates.groups(), candidates.sources
      (['未末'], ['1 of 1 pairs of a table'])
    """

    def __init__(self, characters: str, similarity: float) -> None:
        self.characters, self.similarity = characters, similarity
        self.index = {c: i for i, c in enumerate(characters)}
        self.pairs: dict[Pair, float] = {}
        self.scores: dict[Pair, float] = {}
        self.sources: list[str] = []

    def add_glyphs(
        self, tiles: np.ndarray, present: np.ndarray, fonts: Sequence[str], progress: Callable[[int, int], None]
    ) -> None:
        """Add pairs whose glyphs are similar.

        Args:
          tiles: ``[F,N,S,S]`` uint8, glyphs of F fonts and N characters.
          present: ``[F,N]`` bool, which fonts have which characters.
          fonts: names of the fonts.
          progress: called with the number of characters compared and the total.
        """
        # Spaces all look alike, and a number sign would start a comment in the file of groups.
        inked = present & np.asarray([storable(c) for c in self.characters])[None, :]
        nearest = neighbours(tiles, inked, progress=progress)
        self.pairs |= alike(nearest, sure=max(0.9, self.similarity), possible=self.similarity)
        self.scores |= known_scores(nearest)
        self.sources.append(f"{len(self.pairs)} pairs by glyphs of {', '.join(fonts)}")

    def add_table(
        self,
        name: str,
        table: Iterable[frozenset[str]],
        tiles: np.ndarray | None = None,
        present: np.ndarray | None = None,
    ) -> None:
        """Add the pairs of a published table; with glyphs, only those that are similar enough.

        Args:
          name: name of the table.
          table: pairs, as `jaxcrnn.lookalikes.groups.read_table` returns them.
          tiles: ``[F,N,S,S]`` uint8 glyphs, or None.
          present: ``[F,N]`` bool, which fonts have which characters, or None.
        """
        own = sorted(_ordered(*(self.index[c] for c in p)) for p in table if len(p) == 2 and p <= self.index.keys())
        taken, note = dict.fromkeys(own, 0.0), ""
        if tiles is not None and present is not None and own:
            similarity = similarities(tiles, present, np.asarray(own))
            taken = {(i, j): float(score) for (i, j), score in zip(own, similarity, strict=True) if score >= TABLED}
            unseen = int((similarity < 0).sum())
            note = f" ({unseen} with a character that no font has)" if unseen else ""
        for pair, score in taken.items():
            self.pairs[pair] = max(self.pairs.get(pair, 0), score)
            self.scores[pair] = max(score, self.similarity)
        self.sources.append(f"{len(taken)} of {len(own)} pairs of {name}{note}")

    def add_confusions(self, name: str, confusions: Iterable[Confusion], least: int) -> None:
        """Add the pairs that a recogniser confuses, in either direction.

        Args:
          name: name of the run.
          confusions: its confusions.
          least: lowest number of times, 1 or more.
        """
        counts: dict[Pair, int] = {}
        for c in confusions:
            if c.written in self.index and c.read in self.index:
                pair = _ordered(self.index[c.written], self.index[c.read])
                counts[pair] = counts.get(pair, 0) + c.times
        confused = [pair for pair, count in counts.items() if count >= least]
        for pair in confused:
            self.pairs[pair] = self.scores[pair] = 1.0
        self.sources.append(f"{len(confused)} pairs that {name} confuses at least {least} times")

    def groups(self, largest: int = 6) -> list[str]:
        """Merge the pairs into groups; pairs that a file of groups cannot hold are dropped.

        Args:
          largest: maximum number of characters in a group.
        """
        kept = {pair: score for pair, score in self.pairs.items() if all(storable(self.characters[i]) for i in pair)}
        if len(kept) < len(self.pairs):
            self.sources.append(
                f"{len(self.pairs) - len(kept)} pairs with a space or '#' dropped, which a file of groups cannot hold"
            )
        merged = merge(kept, self.scores, least=self.similarity, largest=largest)
        return ["".join(self.characters[i] for i in group) for group in merged]


def _ordered(one: int, two: int) -> Pair:
    return min(one, two), max(one, two)
