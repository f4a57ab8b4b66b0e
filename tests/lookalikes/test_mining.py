"""Pairs from glyphs, tables and confusions, merged into groups."""

import numpy as np

from jaxcrnn.lookalikes.confusions import Confusion
from jaxcrnn.lookalikes.mining import Candidates, storable


def tiles_of(*columns):
    """One font whose glyphs are vertical bars at these columns; None is a missing glyph."""
    tiles = np.zeros((1, len(columns), 40, 40), np.uint8)
    for tile, column in zip(tiles[0], columns, strict=True):
        if column is not None:
            tile[4:36, column : column + 4] = 255
    return tiles, np.asarray([[column is not None for column in columns]])


def confusion(written, read, times):
    return Confusion(written, read, times, 10, False)


def test_confusions_count_in_both_directions():
    candidates = Candidates("abc", 0.8)
    candidates.add_confusions("run", [confusion("a", "b", 1), confusion("b", "a", 1), confusion("b", "c", 1)], least=2)
    outside = [confusion("a", "z", 9), confusion("", "a", 9)]  # not both of the charset
    candidates.add_confusions("other", outside, least=1)
    assert candidates.pairs == {(0, 1): 1.0}
    assert candidates.groups() == ["ab"]
    assert candidates.sources == [
        "1 pairs that run confuses at least 2 times",
        "0 pairs that other confuses at least 1 times",
    ]


def test_table_pairs_require_similar_glyphs():
    tiles, present = tiles_of(10, 10, None)
    table = [frozenset("ab"), frozenset("ac"), frozenset("az")]
    seen, blind = Candidates("abc", 0.8), Candidates("abc", 0.8)
    seen.add_table("table", table, tiles, present)
    blind.add_table("table", table)
    assert list(seen.pairs) == [(0, 1)]
    assert seen.sources == ["1 of 2 pairs of table (1 with a character that no font has)"]
    assert list(blind.pairs) == [(0, 1), (0, 2)]
    assert blind.sources == ["2 of 2 pairs of table"]


def test_unstorable_pairs_are_dropped():
    assert [storable(c) for c in "a #\u3000\u200b"] == [True, False, False, False, False]
    candidates = Candidates("a#b", 0.8)
    candidates.add_confusions("run", [confusion("a", "#", 3), confusion("a", "b", 3)], least=1)
    assert candidates.groups() == ["ab"]
    assert candidates.sources[1] == "1 pairs with a space or '#' dropped, which a file of groups cannot hold"


def test_glyph_comparison_reports_progress():
    tiles, present = tiles_of(10, 10, 10)
    candidates, calls = Candidates("a b", 0.8), []
    candidates.add_glyphs(tiles, present, ["font"], lambda done, total: calls.append((done, total)))
    assert list(candidates.pairs) == [(0, 2)]  # the space between them is not compared
    assert calls[-1][0] == calls[-1][1]
    assert candidates.sources == ["1 pairs by glyphs of font"]
