import unicodedata

import pytest

from jaxcrnn import UserError, metrics


@pytest.mark.parametrize(
    ("rule", "prediction", "reference", "same"),
    [
        ("exact", "a b", "ab", False),
        ("paddle", "a b", "ab", True),
        ("paddle", "A", "a", False),
        ("dtrb", "A-b.1未", "aB1", True),
        ("dtrb", "ab", "ac", False),
        ("mmocr", "A-未!", "a未", True),
        ("mmocr", "未", "末", False),
        ("mmocr", "a\u9fa6é", "A", True),
        ("bctr", "Ａ國", "a国", True),
        ("bctr", "Ｚ～９！", "z~9!", True),
        ("bctr", "a\u3000b", "a b", True),
        ("bctr", "未", "末", False),
    ],
)
def test_normalization_rules(rule, prediction, reference, same):
    if rule == "bctr":
        pytest.importorskip("opencc", reason="the report extra is not installed")
    assert metrics.score([prediction], [reference], rule).correct == same


def test_accuracies_and_similarity():
    score = metrics.score(["abc", "ab", "", "xyz"], ["abc", "abcd", "", "a"])
    assert (score.lines, score.correct, score.edits, score.characters) == (4, 2, 5, 8)
    assert score.line_accuracy == 0.5
    assert score.character_accuracy == 1 - 5 / 8
    assert score.normalized_similarity == pytest.approx((1 + 0.5 + 1 + 0) / 4)


def test_predictions_longer_than_the_label():
    """The similarity is by the longer text and so never below 0; the accuracy of characters is by what is written."""
    score = metrics.score(["abcd"], ["a"])
    assert score.normalized_similarity == 0.25
    assert score.character_accuracy == -2
    assert metrics.score(["a"], [""]).character_accuracy == 0


def test_empty_input_scores_zero():
    score = metrics.score([], [])
    assert (score.line_accuracy, score.character_accuracy, score.normalized_similarity) == (0, 1, 0)


def test_unknown_rule_is_rejected():
    with pytest.raises(UserError, match="unknown metric rule 'strict'; expected one of exact, paddle"):
        metrics.score([], [], "strict")


def test_position_accuracy_with_a_missing_character():
    assert metrics.by_position(["acd", "abcd"], ["abcd", "ab"]) == [(2, 2), (2, 1), (1, 1), (1, 1)]


def test_folded_is_compatibility_folding_of_full_width_without_spaces():
    for code in range(0xFF01, 0xFF5F):
        assert metrics.folded(f"未{chr(code)} \u3000x") == "未" + unicodedata.normalize("NFKC", chr(code)) + "x"
    assert metrics.folded("。、“①") == "。、“①"
