"""Mixtures of texts: every text is as its part says, and a function of seed and index."""

import re
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from jaxcrnn.charset import Charset
from jaxcrnn.errors import UserError
from jaxcrnn.render import mixture as mixtures
from jaxcrnn.render import patterns
from jaxcrnn.render.mixture import BLOCK, Mixture
from jaxcrnn.render.texts import TextConfig, Texts

CHARACTERS = "".join(map(chr, range(32, 127))) + "未末土士己已巳天地人日月年，。：（）《》“”·—、；"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "words.txt").write_text("天地 90\n人 10\n未 5\n外人 70\n", encoding="utf-8")
    (tmp_path / "corpus.txt").write_text("天地人日月，年。 天 地 \n单字\n人人\r\n日", encoding="utf-8")
    (tmp_path / "groups.txt").write_text("未末\n土士\n己已巳\n", encoding="utf-8")
    (tmp_path / "patterns.yaml").write_text(
        'text: ["{date}", " {d*2-3}元?", "第{n}{A}{a}{x} "]\ndate: ["{d*4}年{d}月", "{d}:{d?}"]\n', encoding="utf-8"
    )
    return tmp_path


def made(folder, text, characters=CHARACTERS, seed=0):
    (folder / "mixture.yaml").write_text(text, encoding="utf-8")
    return Mixture(folder / "mixture.yaml", characters, seed)


def drawn(mixture, count=3000, low=1, high=9):
    ids, lengths = mixture.draw(np.arange(count), low, high)
    characters = mixture.alphabet.characters
    return ["".join(characters[i] for i in row[:length]) for row, length in zip(ids, lengths, strict=True)]


ALL = """
- {kind: words, weight: 2, file: words.txt, power: 1, swap: 0.3, groups: groups.txt}
- {kind: running, weight: 1, file: corpus.txt}
- {kind: lookalikes, weight: 1, groups: groups.txt}
- {kind: uniform, weight: 1}
- {kind: patterns, weight: 1, file: patterns.yaml}
"""


def test_text_is_a_function_of_seed_and_index(folder):
    mixture = made(folder, ALL)
    whole, lengths = mixture.draw(np.arange(3 * BLOCK), 2, 9)
    some = np.asarray([5, BLOCK + 1, 7, 2 * BLOCK, 5])
    ids, few = made(folder, ALL).draw(some, 2, 9)
    np.testing.assert_array_equal(ids, whole[some])
    np.testing.assert_array_equal(few, lengths[some])
    assert (made(folder, ALL, seed=1).draw(np.arange(BLOCK), 2, 9)[0] != whole[:BLOCK]).mean() > 0.3
    assert not whole[np.arange(9) >= lengths[:, None]].any()


def test_no_text_is_empty_or_has_a_space_at_an_end_or_two_in_a_row(folder):
    for low, high in ((1, 4), (5, 20)):
        texts = drawn(made(folder, ALL), 3 * BLOCK, low, high)
        assert not [text for text in texts if not text or text != text.strip() or "  " in text or len(text) > high]
        assert any(" " in text for text in texts)


def test_words_follow_their_frequencies(folder):
    mixture = made(folder, "- {kind: words, weight: 1, file: words.txt, power: 1, punctuation: 0}")
    first = Counter(text[0] for text in drawn(mixture, low=4, high=4))
    assert set(first) == {"天", "人", "未"}  # 外人 has a character that cannot be drawn
    assert mixture.left_out == {"外": 1}
    assert 0.8 < first["天"] / 3000 < 0.9  # 90 of 105
    assert all(text.replace("天地", "").replace("人", "").replace("未", "") in ("", "天") for text in drawn(mixture))


def test_signs_follow_words_and_never_each_other(folder):
    texts = drawn(made(folder, "- {kind: words, weight: 1, file: words.txt, punctuation: 0.5}"), high=12)
    signs = set(mixtures.SIGNS)
    assert any(set(text) & signs for text in texts)
    assert not any(text[0] in signs or any(a in signs and b in signs for a, b in pairwise(text)) for text in texts)


def test_exchanged_characters_stay_in_their_group(folder):
    (folder / "words.txt").write_text("未天己\n", encoding="utf-8")
    mixture = made(
        folder, "- {kind: words, weight: 1, file: words.txt, punctuation: 0, swap: 0.25, groups: groups.txt}"
    )
    texts = drawn(mixture, low=3, high=3)
    assert {text[1] for text in texts} == {"天"}
    firsts, thirds = Counter(text[0] for text in texts), Counter(text[2] for text in texts)
    assert set(firsts) == {"未", "末"}
    assert set(thirds) == {"己", "已", "巳"}
    assert 0.2 < firsts["末"] / 3000 < 0.3
    assert abs(thirds["已"] - thirds["巳"]) < 120


def test_running_text_is_never_joined_over_a_gap(folder):
    texts = drawn(made(folder, "- {kind: running, weight: 1, file: corpus.txt}"), high=12)
    whole = "天地人日月，年。 天 地"
    assert all(text in whole or text in "人人" for text in texts)
    assert whole in texts
    assert "人人" in texts


def test_groups_and_their_members_are_equally_probable(folder):
    mixture = made(folder, "- {kind: lookalikes, weight: 1, groups: groups.txt, share: 1}")
    counts = Counter("".join(drawn(mixture, 6000, 5, 5)))
    assert set(counts) == set("未末土士己已巳")
    for character, share in (("未", 1 / 6), ("士", 1 / 6), ("巳", 1 / 9)):
        assert abs(counts[character] / counts.total() - share) < 0.01


def test_placeholders_are_filled_for_every_text(folder, monkeypatch):
    monkeypatch.setattr(patterns, "TEMPLATES", 50)
    mixture = made(folder, "- {kind: patterns, weight: 1, file: patterns.yaml}")
    texts = drawn(mixture, 3000, 1, 9)
    dates = {text for text in texts if text.endswith("月")}
    assert all(text[4] == "年" and text[:4].isdigit() and len(text) == 7 for text in dates)
    assert len(dates) > 500
    assert not any("元" in text for text in texts)  # neither 元 nor 第 can be drawn
    assert mixture.left_out.keys() == {"元", "第"}


def test_bundled_patterns_stay_within_the_length(folder):
    mixture = made(folder, "- {kind: patterns, weight: 1}")
    assert {len(text) for text in drawn(mixture, BLOCK, 3, 6)} <= {1, 2, 3, 4, 5, 6}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "expected a list of parts"),
        ("- [", "invalid YAML"),
        ("- {kind: wrds, weight: 1}", "part 1: kind is 'wrds'; expected one of words, running"),
        ("- {kind: uniform}", r"part 1 \(uniform\): missing key 'weight'"),
        ("- {kind: uniform, weight: 0}", "weight is 0"),
        ("- {kind: uniform, weight: -1}", "weight is -1; expected a number from 0"),
        ("- {kind: uniform, weight: .nan}", "weight is nan"),
        ("- {kind: uniform, weight: 1}\n- {kind: running, weight: 1}", r"part 2 \(running\): missing key 'file'"),
        ("- {kind: uniform, weight: 1, shrae: 1}", "unknown key 'shrae'"),
        ("- {kind: words, weight: 1, file: words.txt, swap: 2}", "swap is 2; expected a number from 0 to 1"),
        ("- {kind: uniform, weight: 1, characters: 丠}", "none of its characters can be drawn"),
        ("- {kind: running, weight: 1, file: none.txt}", "none.txt: No such file"),
        ("- {kind: words, weight: 1, file: bad.txt}", "bad.txt, line 1: '天 x'; expected a word and its frequency"),
        ("- {kind: patterns, weight: 1, file: rules.yaml}", r"rule 'text': \{dat\} names no rule"),
        ("- {kind: patterns, weight: 1, file: loop.yaml}", "nested more than 30 times"),
        ("- {kind: patterns, weight: 1, file: number.yaml}", "rule 'text': expected a list of texts; quote numbers"),
    ],
)
def test_invalid_mixtures_are_refused_in_one_line(folder, text, message):
    (folder / "bad.txt").write_text("天 x\n", encoding="utf-8")
    (folder / "rules.yaml").write_text('text: ["{dat}"]\n', encoding="utf-8")
    (folder / "loop.yaml").write_text('text: ["{text}1"]\n', encoding="utf-8")
    (folder / "number.yaml").write_text("text: [1]\n", encoding="utf-8")
    with pytest.raises(UserError, match=message) as error:
        made(folder, text)
    assert "\n" not in str(error.value)


def test_labels_are_the_classes_of_the_drawn_texts(folder):
    (folder / "mixture.yaml").write_text(ALL, encoding="utf-8")
    texts = Texts(TextConfig(source=str(folder / "mixture.yaml")), CHARACTERS, 0)
    charset = Charset(CHARACTERS)
    labels, lengths = texts.labels(charset, np.arange(50), 1, 9)
    for i in range(50):
        assert charset.decode(labels[i, : lengths[i]]) == texts.draw(i, 1, 9)
        assert not labels[i, lengths[i] :].any()


def test_patterns_start_at_the_rule_that_a_part_names(folder):
    texts = drawn(made(folder, "- {kind: patterns, weight: 1, file: patterns.yaml, rule: date}"), 300)
    assert all(re.fullmatch(r"\d{4}年\d月|\d:\d?", text) for text in texts)
    assert {len(text) for text in texts} == {2, 3, 7}
    with pytest.raises(UserError, match=r"patterns.yaml: no rule 'day'; expected one of text, date"):
        made(folder, "- {kind: patterns, weight: 1, file: patterns.yaml, rule: day}")


def test_look_alikes_can_stand_among_chosen_characters(folder):
    part = '- {kind: lookalikes, weight: 1, groups: groups.txt, share: 0.5, characters: ",.：𠀀"}'
    characters = "".join(drawn(made(folder, part)))
    counts = Counter(characters)
    assert counts.keys() == set("未末土士己已巳,.：")
    assert sum(counts[c] for c in ",.：") / len(characters) == pytest.approx(0.5, abs=0.02)
    with pytest.raises(UserError, match="part 'lookalikes': none of its characters can be drawn"):
        made(folder, '- {kind: lookalikes, weight: 1, groups: groups.txt, characters: "𠀀"}')


@pytest.mark.slow
def test_bundled_patterns_have_the_texts_of_forms(tmp_path):
    """Texts that forms consist of, and that recognisers misread most."""
    (tmp_path / "mixture.yaml").write_text("- {kind: patterns, weight: 1}", encoding="utf-8")
    charset = "".join(map(chr, range(32, 127))) + "".join(
        bytes([row, cell]).decode("gb2312", "ignore")
        for row in (*range(0xA1, 0xA4), *range(0xB0, 0xD8))
        for cell in range(0xA1, 0xFF)
    )
    mixture = Mixture(tmp_path / "mixture.yaml", "".join(dict.fromkeys(charset)), 0)
    short, long = drawn(mixture, 4 * BLOCK, 1, 8), drawn(mixture, 4 * BLOCK, 14, 44)
    wanted = (
        r"\d",
        r"[A-Z]",
        r"\d\.",
        r"0\.",
        r"\d\d\.\d\d",
        r"[（(]\d[)）]",
        r"\*{1,4}",
        r"[-—]{1,2}",
        r"[一-龥]+：",
        r"[一-龥]+:",
        r"\d\d?/\d\d?",
        r"[一-龥]+[A-Z]+",
        r"[A-Z]+[一-龥]+",
        r"\[\d+\]",
        r"【\w+】",
    )
    for pattern in wanted:
        assert any(re.fullmatch(pattern, text) for text in short), pattern
    for pattern in (r"\d{4}年\d+月\d+日 \d\d[:：].*", r"[一-龥]+ [一-龥]+ [一-龥]+", r"[一-龥]+[（(].+[)）][：:].+"):
        assert any(re.fullmatch(pattern, text) for text in long), pattern
    assert max(map(len, long)) > 36
    assert sum(len(text) == 1 for text in short) > len(short) / 20
