"""Texts to render, files of groups, and tables of look-alikes."""

from collections import Counter
from itertools import pairwise

import pytest

from jaxcrnn.errors import UserError
from jaxcrnn.lookalikes.groups import read_groups, read_table, write_groups
from jaxcrnn.render.texts import GROUPS, TextConfig, Texts, length_classes


def drawn(config, characters, count=3000, seed=0):
    texts = Texts(config, characters, seed)
    return texts, [texts.draw(i) for i in range(count)]


@pytest.mark.parametrize("source", ["uniform", "lookalikes", "file"])
def test_texts_depend_only_on_seed_and_index(source, tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("未来末日土木\n士兵\n", encoding="utf-8")
    config = TextConfig(source=str(path) if source == "file" else source, shortest=2, longest=5)
    one, texts = drawn(config, "未末土士来日木兵")
    assert texts[7] == one.draw(7) == Texts(config, "未末土士来日木兵", 0).draw(7)
    assert texts != drawn(config, "未末土士来日木兵", seed=1)[1]
    assert {len(text) for text in texts} == {2, 3, 4, 5}
    assert all(len(one.draw(i, 3, 4)) in (2, 3, 4) for i in range(50))


def test_uniform_texts_are_uniform_with_repeats():
    _, texts = drawn(TextConfig(shortest=4, longest=4, repeat=0.2), "abcdefgh")
    counts = Counter("".join(texts))
    assert all(1300 < counts[c] < 1700 for c in "abcdefgh")
    again = sum(a == b for text in texts for a, b in pairwise(text))
    assert 0.27 < again / 9000 < 0.33  # 0.2, and one in eight of the others


def test_lookalike_texts_draw_groups_then_members():
    config = TextConfig(source="lookalikes", shortest=5, longest=5, bias=0.8, repeat=0.0)
    texts, lines = drawn(config, "未末己已巳x")
    assert sorted(texts.groups) == ["己已巳", "未末"]
    counts = Counter("".join(lines))
    share = {c: n / 15000 for c, n in counts.items()}
    # A group as often as another: half of 0.8 for two members or for three, and a sixth of the rest.
    for c, expected in {"未": 0.2, "末": 0.2, "己": 0.8 / 6, "巳": 0.8 / 6, "x": 0.0}.items():
        assert abs(share[c] - expected - 0.2 / 6) < 0.02


def test_texts_are_substrings_of_file_lines(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("abcXdef\r\nXX\nabca\n", encoding="utf-8")
    texts, lines = drawn(TextConfig(source=str(path), shortest=2, longest=9), "abcdef")
    assert texts.left_out == {"X": 3}
    assert sorted(texts.pieces) == ["abc", "abca", "def"]
    assert all(any(text in piece for piece in texts.pieces) for text in lines)
    assert {"abc", "def", "abca"} <= set(lines)


def readable(text):
    return bool(text) and text == text.strip() and not any(a.isspace() and b.isspace() for a, b in pairwise(text))


@pytest.mark.parametrize("source", ["uniform", "lookalikes"])
@pytest.mark.parametrize("repeat", [0.05, 1.0])
def test_spaces_are_drawn_between_characters_only(source, repeat):
    texts, lines = drawn(TextConfig(source=source, repeat=repeat), "未末土士 \u3000\u200b\t", 1000)
    assert texts.characters == "未末土士 \u3000"  # what is neither seen nor a space is not drawn
    assert all(map(readable, lines))
    assert {len(text) for text in lines} == set(range(1, 13))
    assert any(" " in text for text in lines)


def test_readable_texts_are_as_in_version_0_2():
    """As version 0.2 drew them, except for spaces at the ends or in a row."""
    _, lines = drawn(TextConfig(), "0123456789 ", 12)
    assert lines == [
        "77572226845",
        "9011567",
        "0 14320779 1",
        "9247333",
        "924048",
        "4 1881900",
        "490 88",
        "05 439 057",
        "8027",
        "6886",
        "5002",
        "56",
    ]
    _, lines = drawn(TextConfig(), "0123456789", 4)
    assert lines == ["66562226734", "8011457", "091332067899", "8246323"]


@pytest.mark.parametrize(("shortest", "longest"), [(1, 1), (2, 2), (3, 3), (1, 12), (5, 9)])
def test_excerpts_begin_and_end_with_a_character(shortest, longest, tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("the quick  brown\u3000 fox, jumps \n a b c d e f\n\n \nlazy dog. \n", encoding="utf-8")
    texts, lines = drawn(
        TextConfig(source=str(path), shortest=shortest, longest=longest), "abcdefghijklmnopqrstuvwxyz \u3000", 1000
    )
    assert all(map(readable, lines))
    assert {"the quick brown\u3000fox", "lazy dog"} <= set(texts.pieces)
    assert all(len(text) <= longest for text in lines)
    # Every cut of two characters of the second line would end with a space.
    assert all(len(text) >= shortest or (shortest == 2 and text in "abcdef") for text in lines)


@pytest.mark.parametrize(
    ("config", "characters", "message"),
    [
        ({"source": "nowhere.txt"}, "ab", "nowhere.txt: No such file"),
        ({"source": "{short}", "shortest": 3}, "ab", "no line with 3 characters of the charset"),
        ({"source": "lookalikes"}, "ab", "no group has two characters"),
        ({}, "", "no character can be rendered"),
        ({}, " \u200b", "no character can be rendered"),
    ],
)
def test_sources_without_text_are_rejected(config, characters, message, tmp_path):
    (tmp_path / "short.txt").write_text("ab\n")
    options = {k: str(v).format(short=tmp_path / "short.txt") if k == "source" else v for k, v in config.items()}
    with pytest.raises(UserError, match=message):
        Texts(TextConfig(**options), characters, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"share": 2.0}, "text.share is 2.0; expected 0 to 1"),
        ({"shortest": 0}, "text.shortest is 0; expected 1 or more"),
        ({"shortest": 9, "longest": 8}, "expected shortest <= longest"),
        ({"widths": 0}, "text.widths is 0"),
        ({"pitch": 0.0}, "text.pitch is 0.0"),
    ],
)
def test_invalid_values_are_rejected(change, message):
    with pytest.raises(UserError, match=message):
        TextConfig(**change)


@pytest.mark.parametrize(("shortest", "longest", "widths"), [(1, 12, 3), (3, 5, 9), (4, 4, 2), (1, 7, 3)])
def test_length_classes_cover_every_length_once(shortest, longest, widths):
    classes = length_classes(TextConfig(shortest=shortest, longest=longest, widths=widths))
    assert [n for low, high in classes for n in range(low, high + 1)] == list(range(shortest, longest + 1))
    assert len(classes) <= widths


def test_groups_file_round_trip(tmp_path):
    groups = read_groups(GROUPS)
    assert "己已巳" in groups
    write_groups(tmp_path / "g.txt", groups, ["a comment"])
    assert read_groups(tmp_path / "g.txt") == groups
    (tmp_path / "edited.txt").write_text("\ufeff# mine\r\n\r\n己 已\u3000巳  # three\r\n", encoding="utf-8")
    assert read_groups(tmp_path / "edited.txt") == ["己已巳"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("未末\n土\n", "line 2: only one character, '土'"),
        ("未末\n土末\n", r"line 2: duplicate '末' \(first on line 1\)"),
        ("# nothing\n", "no groups"),
        ("未未\n", "line 1: duplicate '未'"),
    ],
)
def test_invalid_groups_are_rejected(text, message, tmp_path):
    (tmp_path / "g.txt").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        read_groups(tmp_path / "g.txt")


def test_tables_of_both_formats_are_read(tmp_path):
    (tmp_path / "t.txt").write_text("未\t末\t木\n\n", encoding="utf-8")
    (tmp_path / "s.txt").write_text("土 士工\n啊 \n士 土\n", encoding="utf-8")
    assert read_table(tmp_path / "t.txt") == {frozenset(p) for p in ("未末", "未木", "末木")}
    assert read_table(tmp_path / "s.txt") == {frozenset(p) for p in ("土士", "土工")}
    for text, message in (("未\t末\n未末\n", "line 2: '未末'"), ("啊 \n", "no pairs")):
        (tmp_path / "b.txt").write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=message):
            read_table(tmp_path / "b.txt")


def test_published_tables_are_read(shared):
    counts = {path.name: len(read_table(path)) for path in (shared / "data" / "confusables").iterdir()}
    assert all(count > 2000 for count in counts.values())
