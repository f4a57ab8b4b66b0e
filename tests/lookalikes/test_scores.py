"""Scores for look-alikes on hand-made cases."""

import json

import numpy as np
import pytest
from rapidfuzz.distance import Levenshtein

from jaxcrnn.cli.main import main
from jaxcrnn.data.predictions import Predictions, read_predictions, write_predictions
from jaxcrnn.lookalikes.confusions import align, members, rates, score, shown

GROUPS = ["未末", "土士", "己已巳"]
GROUP = members(GROUPS)

CASES = {
    # truth, read: members, recalled, substituted, edits
    "right": ("未末", "未末", 2, 2, 0, 0),
    "a look-alike": ("未来", "末来", 1, 0, 1, 1),
    "another character": ("未来", "日来", 1, 0, 0, 1),
    "a look-alike of another group": ("未来", "士来", 1, 0, 0, 1),
    "no look-alike misread": ("中未", "十未", 1, 1, 0, 1),
    "deleted before": ("中未土", "末土", 2, 1, 1, 2),
    "deleted itself": ("中未土", "中土", 2, 1, 0, 1),
    "deleted after": ("未中土", "末土", 2, 1, 1, 2),
    "inserted before": ("未土", "中末土", 2, 1, 1, 2),
    "inserted after": ("未土", "末中土", 2, 1, 1, 2),
    "inserted twice": ("未土", "未未土", 2, 2, 0, 1),
    "deleted and inserted": ("一未二三", "未二三四", 1, 1, 0, 2),
    "repeated": ("己己己", "己已己", 3, 2, 1, 1),
    "repeated, one lost": ("己己己", "己己", 3, 2, 0, 1),
    "repeated, one lost and one misread": ("己己己", "巳己", 3, 1, 1, 2),
    "exchanged": ("未末", "末未", 2, 0, 2, 2),
    "moved around": ("己已巳", "已巳己", 3, 2, 0, 2),
    "empty prediction": ("未土", "", 2, 0, 0, 2),
    "empty truth": ("", "未", 0, 0, 0, 1),
    "both empty": ("", "", 0, 0, 0, 0),
    "no members": ("中文", "中又", 0, 0, 0, 1),
}


@pytest.mark.parametrize("name", CASES)
def test_counts_per_line(name):
    truth, read, inside, recalled, substituted, edits = CASES[name]
    lines = score([read], [truth], GROUPS).lines
    counts = {field: int(values[0]) for field, values in lines._asdict().items()}
    assert counts == {
        "correct": int(truth == read),
        "edits": edits,
        "characters": len(truth),
        "members": inside,
        "recalled": recalled,
        "substituted": substituted,
        "alike": int(bool(truth) and inside == len(truth)),
    }


def test_alignments_are_minimal_and_complete():
    rng = np.random.default_rng(0)
    for _ in range(300):
        truth, read = ("".join(rng.choice(list("未末土中"), n)) for n in rng.integers(0, 7, 2))
        pairs = align(truth, read, GROUP)
        assert "".join(a for a, _ in pairs) == truth
        assert "".join(b for _, b in pairs) == read
        assert sum(a != b for a, b in pairs) == Levenshtein.distance(truth, read)
        assert ("", "") not in pairs


def test_rates_and_confusions():
    scored = score(["末来", "末未", "土", "十未"], ["未来", "未未", "士", "中未"], GROUPS)
    values = {name: rate.value for name, rate in rates(scored.lines).items()}
    # 7 characters, 4 of them wrong; 5 members, 3 of them read as the other; two lines of look-alikes alone.
    assert values == pytest.approx({"lines": 0, "characters": 3 / 7, "recall": 2 / 5, "substituted": 3 / 5, "alike": 0})
    assert scored.confusions[0] == ("未", "末", 2, 4, True)
    assert {c[:3] for c in scored.confusions[1:]} == {("士", "土", 1), ("中", "十", 1)}
    assert rates(score([], [], GROUPS).lines)["lines"].value == 0


PREDICTIONS = {
    "ours": "a.png\t末来\t未来\nb.png\t土\t土\n",
    "published": "0 [末来] [未来]\n1 [土] [土]\n",
    "published, with tabs": "0\t[末来]\t[未来]\n1\t[土]\t[土]\n",
}


def test_invisible_characters_are_shown_as_escapes():
    names = {
        "": "(nothing)",
        " ": "' '",
        "\u200b": "'\\u200b'",
        "\x1b": "'\\x1b'",
        "\u3000": "'\\u3000'",
        "未": "未",
    }
    assert {character: shown(character) for character in names} == names


@pytest.mark.parametrize("layout", PREDICTIONS)
def test_score_command_reads_each_layout(layout, tmp_path, capsys):
    path, groups = tmp_path / "p.txt", tmp_path / "g.txt"
    path.write_text(PREDICTIONS[layout], encoding="utf-8")
    groups.write_text("\n".join(GROUPS), encoding="utf-8")
    assert main(["lookalikes", "score", "--predictions", str(path), "--groups", str(groups)]) == 0
    shown = capsys.readouterr().out
    assert "read as a look-alike" in shown
    assert "50.00%" in shown
    assert "未" in shown
    assert main(["lookalikes", "score", "--predictions", str(path), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["rates"]["substituted"] == {"rate": 0.5, "count": 1, "of": 2}
    assert report["confusions"][0] == {"written": "未", "read": "末", "count": 1, "of": 1, "alike": True}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.png\t末\n", "line 1: 'a.png\\t末'; expected path<TAB>prediction<TAB>truth"),
        ("a.png\t末\t未\n0 [a] [b\n", "line 2: '0 [a] [b'"),
        ("0 [a] [b] [c]\n", "line 1: '0 [a] [b] [c]' is ambiguous"),
        ("", "no lines; expected"),
    ],
)
def test_invalid_predictions_print_one_line(text, message, tmp_path, capsys):
    (tmp_path / "p.txt").write_text(text, encoding="utf-8")
    assert main(["lookalikes", "score", "--predictions", str(tmp_path / "p.txt")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "read", "truths"),
    [
        ("1155 [][上] [][上]\n", ["][上"], ["][上"]),
        ("0 [a] [b]\n1 [][上] [][上]\n", ["a", "][上"], ["b", "][上"]),
        ("0 [a][b]\n1 [x] [y][z]\n", ["a", "x] [y"], ["b", "z"]),
        ("0 [[a]] [[b]]\n", ["[a]"], ["[b]"]),
        ("a.png\t[a]\t[b]\n", ["[a]"], ["[b]"]),
    ],
)
def test_predictions_with_brackets_are_parsed(text, read, truths, tmp_path):
    (tmp_path / "p.txt").write_text(text, encoding="utf-8")
    predictions = read_predictions(tmp_path / "p.txt")
    assert (predictions.read, predictions.truths) == (read, truths)


def test_written_predictions_round_trip(tmp_path):
    """Names and texts of any characters, also those that end a column or a line, or look like the published format."""
    names = ["0", "a\tb.png", "c\n.png", "\udcff.png", "5"]
    texts = ["[x]", "[\t]", "[]", "[[\u2028]]", "[]"]
    for read in (texts, ["", "a ", " b", "\u200b", "]["]):
        write_predictions(tmp_path / "p.txt", Predictions(names, read, texts))
        predictions = read_predictions(tmp_path / "p.txt")
        assert predictions.read == [text.replace("\t", "␉") for text in read]
        assert predictions.truths == [text.replace("\t", "␉") for text in texts]
        assert predictions.names[1:4] == ["a␉b.png", "c␊.png", "\\udcff.png"]


def test_recognize_output_used_as_predictions_gives_a_warning(tmp_path, capsys):
    (tmp_path / "p.txt").write_text("a.png\t12\t0.9812\nb.png\t3\t1.0000\n")
    assert main(["lookalikes", "score", "--predictions", str(tmp_path / "p.txt")]) == 0
    assert "the third column looks like confidences, as 'jaxcrnn recognize' prints" in capsys.readouterr().err
