"""Characters of labels: tabs, invisible and outer characters, forms that look the same, and their normalization."""

import json
import random
import unicodedata

import numpy as np
import pytest
from PIL import Image

from jaxcrnn import Charset, UserError
from jaxcrnn.cli.main import main
from jaxcrnn.data.audit import BROKEN, audit, audit_table
from jaxcrnn.data.config import DataConfig
from jaxcrnn.data.formats import open_source, open_sources
from jaxcrnn.data.images import Limits
from jaxcrnn.data.normalize import OPERATIONS, normalize
from jaxcrnn.data.ragged import Ragged
from jaxcrnn.runs import config as configs
from jaxcrnn.runs import datasets
from jaxcrnn.runs.folder import Run, same_charset
from jaxcrnn.runs.usable_lines import usable_lines


def label_file(folder, *texts, name="labels.txt"):
    for i in range(len(texts)):
        Image.new("L", (200, 32), 255).save(folder / f"{i}.png")
    (folder / name).write_text("".join(f"{i}.png\t{text}\n" for i, text in enumerate(texts)), encoding="utf-8")
    return folder / name


def audited(path, characters=None, **options):
    limits = Limits(**options)
    source = open_source(path, limits)
    texts = [source.text(i) for i in range(len(source))]
    charset = Charset(characters) if characters else Charset.from_labels(texts)
    return audit(source, charset, lambda width: width // 4, 32, limits)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("12\t0.98", "is the last column a score"),
        ("12\t1", "is the last column a score"),
        ("12\t12\t34", "path<TAB>prediction<TAB>truth is for 'jaxcrnn lookalikes score'"),
        ("ab\tab", "path<TAB>prediction<TAB>truth is for 'jaxcrnn lookalikes score'"),
        ("12\t", "data.normalize=space"),
    ],
)
def test_tab_in_a_label_is_a_fault(text, hint, tmp_path):
    corpus = audited(label_file(tmp_path, text, "34"))
    assert corpus.counts() == {BROKEN: 1}
    assert "'\\t' (U+0009)" in corpus.faults[0].detail
    assert hint in corpus.faults[0].detail
    assert "labels.txt, line 1" in corpus.faults[0].where
    # The columns give no classes either.
    assert Charset.from_labels([text, "34"]).characters == ("3", "4")


def test_tab_in_a_label_stops_evaluation(tmp_path):
    source = open_source(label_file(tmp_path, "1\t2", "3"))
    corpus = audit(source, Charset("123\t"), lambda width: width, 32, Limits(), keep_text_faults=True)
    assert corpus.texts == ["3"]


def test_three_columns_are_explained(tmp_path):
    path = label_file(tmp_path, "1\t0.5", "2\t0.75")
    config = configs.load(None, [f"data.train={path}"])
    with pytest.raises(UserError, match=r"line 1: '\\t'.*a score.*\(first of 2 faults\)"):
        datasets.charset(config, datasets.source(config))


def test_line_breaks_in_json_labels(tmp_path):
    label_file(tmp_path, "1", "2")
    (tmp_path / "l.json").write_text(json.dumps({"0.png": "1\n", "1.png": "2\r3"}))
    assert audited(tmp_path / "l.json", "123").counts() == {BROKEN: 2}
    assert audited(tmp_path / "l.json", "123", normalize="space").texts == ["1"]


def test_audit_lists_invisible_characters(tmp_path):
    texts = ["12 ", "56\u200b", "\u300078", "9\ufe0f9", "1  2", "e\u0301", "שלום", "５5", "plain"]
    shown = audit_table("l", audited(label_file(tmp_path, *texts)))
    assert "9 lines, 9 usable" in shown
    for line in (
        "end with a space: 1 (first: ",
        "end with U+200B ZERO WIDTH SPACE (a class of its own): 1",
        "begin with U+3000 IDEOGRAPHIC SPACE (a class of its own): 1",
        "contain U+FE0F VARIATION SELECTOR-16 (a class of its own): 1",
        "contain several spaces in a row: 1",
        "not in composed form (NFC): 1",
        "characters in two widths, which are two classes: 2 ('\\u3000' (U+3000) and ' ' (U+0020), '５' (U+FF15)",
        "use --normalize nfc,width,space",
        "right-to-left text: 1; lines are read from left to right",
    ):
        assert line in shown
    assert audited(label_file(tmp_path, "a b", "未", "é")).notes == ()


def test_kinds_beyond_the_most_frequent_are_counted(tmp_path):
    notes = audited(label_file(tmp_path, *(f"a{chr(code)}b" for code in range(0x2002, 0x200D)))).notes
    assert sum("U+20" in note for note in notes) == 8
    assert "... and 3 more kinds of labels to check" in notes


@pytest.mark.parametrize(
    ("text", "characters", "names"),
    [
        ("１２", "12", "width"),
        ("e\u03011", "é1", "nfc"),
        ("12\u200b", "12", "space"),
        ("e\u0301\u200b１", "é1", "nfc,width,space"),
    ],
)
def test_audit_suggests_a_normalization_for_the_charset(text, characters, names, tmp_path):
    path = label_file(tmp_path, text)
    corpus = audited(path, characters)
    assert not len(corpus)
    assert f"labels outside the charset that --normalize {names} brings into it: 1" in "\n".join(corpus.notes)
    corpus = audited(path, characters, normalize=names)
    assert [corpus.source[0][1]] == corpus.texts == [normalize(text, names)]
    assert not corpus.faults
    assert "normalized 1 labels" in corpus.notes[0]
    assert "becomes" in corpus.notes[1]


def test_normalization_operations():
    assert normalize("ｶﾞﾊﾟｱ，Ａ￥", "width") == "ガパア,A¥"
    assert normalize(" a \u00a0\u2003b\u200b\ufeff ", "space") == "a b"
    assert normalize("a\tb\t", "space") == "a\tb"
    assert normalize("カ\ufeffﾞ", "width,space") == "ガ"  # adjacent once the invisible character is dropped
    assert normalize("👩\u200d👧", "nfc,width,space") == "👩\u200d👧"
    assert normalize("ﬁ²Ⅳ", "nfc,width,space") == "ﬁ²Ⅳ"
    with pytest.raises(UserError, match="unknown normalization 'nfk'; expected some of nfc, space, width"):
        normalize("", "nfk")
    with pytest.raises(UserError, match="data.normalize is 'trim'"):
        DataConfig(normalize="trim")
    rng = random.Random(0)
    codes = (*range(0x3200), *range(0xFE00, 0x10000))
    pool = [c for c in map(chr, codes) if unicodedata.decomposition(c) or unicodedata.category(c)[0] in "CZM"]
    for _ in range(300):
        text = "".join(rng.choices([*pool, "e", " ", "\u3000", "ｶ"], k=8))
        for names in (*OPERATIONS, "nfc,width", "space,nfc", "nfc,width,space"):
            once = normalize(text, names)
            assert normalize(once, names) == once


def test_normalization_of_several_sets_is_reported_and_saved(tmp_path, capsys):
    one, two = label_file(tmp_path, "1 ", "２"), label_file(tmp_path, " 3", name="more.txt")
    source = open_sources([one, two], Limits(normalize="width,space"))
    assert [source.text(i) for i in range(3)] == ["1", "2", "3"]
    config = configs.load(None, [f"data.train={one}", "data.normalize=width"])
    assert configs.load(None, [], configs.load(None, [], config)).data.normalize == "width"
    assert datasets.charset(config, datasets.source(config)).characters == (" ", "1", "2")
    assert main(["data", "audit", str(one), "--normalize", "space"]) == 0
    assert "normalized 1 labels (space 1)" in capsys.readouterr().out
    assert main(["data", "audit", str(one), "--normalize", "trim"]) == 2
    assert "unknown normalization 'trim'" in capsys.readouterr().err


def test_conversion_writes_normalized_labels(tmp_path, capsys):
    pytest.importorskip("lmdb")
    path = label_file(tmp_path, "1 ", "２")
    assert main(["data", "convert", str(path), str(tmp_path / "out"), "--normalize", "width,space"]) == 0
    assert "normalized 2 labels" in capsys.readouterr().out
    source = open_source(tmp_path / "out")
    assert [source.text(i) for i in range(2)] == ["1", "2"]


def test_run_normalizes_its_labels(tmp_path, capsys):
    path = label_file(tmp_path, "１２", "2 ")
    run = Run(tmp_path, configs.load(None, ["data.normalize=width"]), Charset("12"))
    assert usable_lines(run, [str(path)], keep_text_faults=True).texts == ["12", "2 "]
    assert usable_lines(run, [str(path)], keep_text_faults=True, normalize="width,space").texts == ["12", "2"]
    assert usable_lines(run, [str(path)], keep_text_faults=True, normalize="").texts == ["１２", "2 "]
    assert capsys.readouterr().out.count("normalized") == 2


def test_changed_charset_error_suggests_grow(tmp_path):
    path = label_file(tmp_path, "12", "3")
    config = configs.load(None, [f"data.train={path}"])
    with pytest.raises(UserError, match=r"--skip-bad; use --grow$"):
        datasets.audited(config, Charset("12"), datasets.source(config), None, False, "; use --grow")
    with pytest.raises(UserError, match=r"lacks '3'; use --grow$"):
        same_charset(Run(tmp_path, config, Charset("123")), Charset("12"), "c.txt", "; use --grow")


def test_ragged_arrays_round_trip():
    arrays = [np.array(values, np.int32) for values in ([1, 2], [], [3])]
    ragged = Ragged.of(arrays)
    assert [each.tolist() for each in ragged] == [[1, 2], [], [3]]
    assert ragged[-1].tolist() == [3]
    assert [len(each) for each in Ragged.of([])] == []
    with pytest.raises(IndexError):
        ragged[3]
