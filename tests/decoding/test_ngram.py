"""Character n-grams: estimates, ARPA files, and the automaton against the back-off recursion."""

import itertools
import math

import numpy as np
import pytest

from jaxcrnn.charset import Charset
from jaxcrnn.decoding import automata, ngram
from jaxcrnn.decoding.ngram import BEGIN, END, UNKNOWN
from jaxcrnn.errors import UserError

LINES = ["ab a", "aab", "b ab", "bb", "ba"]
CHARSET = Charset("ab c")  # c is in none of the lines


def log_p(model, context, token):
    """The recursion of the ARPA format, one n-gram after another."""
    if (*context, token) in model.log_p:
        return model.log_p[*context, token]
    return model.backoff.get(context, 0.0) + log_p(model, context[1:], token)


def of_text(model, text):
    row = (BEGIN, *(c if (c,) in model.log_p else UNKNOWN for c in text), END)
    total = 0.0
    for i in range(1, len(row)):
        context = row[max(i - model.order + 1, 0) : i]
        while UNKNOWN in context:  # no n-gram of `lm train` goes on after an unknown character
            context = context[1:]
        total += log_p(model, context, row[i])
    return total


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_probabilities_sum_to_one_after_any_context(order):
    """Over the characters, the end and the unknown; after contexts that were seen and others."""
    model = ngram.train(LINES, order)
    assert max(map(len, model.log_p)) == order
    inner = itertools.chain.from_iterable(itertools.product("ab ", repeat=n) for n in range(order))
    contexts = [c for text in inner for c in (text, (BEGIN, *text)) if len(c) < order]
    assert len(contexts) >= order
    for context in contexts:
        total = sum(math.exp(log_p(model, context, token)) for token in ("a", "b", " ", END, UNKNOWN))
        assert total == pytest.approx(1, abs=1e-9), context


@pytest.mark.parametrize("order", [1, 2, 3])
def test_automaton_matches_the_recursion(order):
    """Every text of up to five characters, one of them unknown; what is left for longer ones makes it a whole."""
    model = ngram.train(LINES, order)
    automaton = automata.of_ngrams(model, CHARSET, 1.0)
    total = 0.0
    for text in itertools.chain.from_iterable(itertools.product("ab c", repeat=n) for n in range(6)):
        score = automata.score(automaton, CHARSET.encode("".join(text)))
        assert score == pytest.approx(of_text(model, text), abs=1e-4)
        total += math.exp(score)
    assert 0.3 < total < 1
    weighted = automata.of_ngrams(model, CHARSET, 0.5, 0.25)
    assert automata.score(weighted, CHARSET.encode("abc")) == pytest.approx(
        0.5 * of_text(model, "abc") + 0.75, abs=1e-5
    )


def test_kneser_ney_matches_manual_computation():
    """Two lines, two characters: every pair occurs twice, so discounts are 1/2, where counts of 1 are lacking."""
    model = ngram.train(["ab", "ab"], 2)
    assert model.characters == "ab"
    automaton = automata.of_ngrams(model, Charset("ab"), 1.0)
    # Pairs seen: (begin, a), (a, b), (b, end). Unigrams continue one context each of three, and half of what is there
    # is shared by a, b, end and unknown: (1 - 1/2) / 3 + 1/2 * 1/4 = 7/24. Pairs: (2 - 1/2) / 2 + 1/4 * 7/24 = 79/96.
    assert automata.score(automaton, [1, 2]) == pytest.approx(3 * np.log(79 / 96), abs=1e-6)
    # Begin, then b: 1/4 * 7/24. After b, the end: 79/96.
    assert automata.score(automaton, [2]) == pytest.approx(np.log(7 / 96 * 79 / 96), abs=1e-6)


def test_saved_model_is_loaded_unchanged(tmp_path):
    """Characters that would look like separators, line ends or markup too."""
    model = ngram.train([*LINES, "<s>\t\u3000", "\\x\r\x85\u2028", "#\u200b"], 4)
    ngram.save_ngrams(tmp_path / "m.lm", model)
    read = ngram.load_ngrams(tmp_path / "m.lm")
    assert read.order == 4
    assert read.characters == model.characters
    for one, two in ((read.log_p, model.log_p), (read.backoff, model.backoff)):
        assert one.keys() == two.keys()
        np.testing.assert_allclose([one[gram] for gram in two], list(two.values()), atol=1e-6)
    text = (tmp_path / "m.lm").read_text(encoding="utf-8")
    assert text.startswith("\\data\\\nngram 1=")
    assert text.endswith("\n\\end\\\n")
    assert "b <space> a" in text
    assert "<U+3000>" in text


OTHERS = """made by another program

\\data\\
ngram 1=6
ngram 2=4

\\1-grams:
-99 <s> -0.5
-0.5 </s>
-2 <unk> 0
-0.6 a -0.25
-0.7\tb\t0.1
-0.8 <space>

\\2-grams:
-0.1 <s> a
-0.2 a b
-0.3 b <space>
-0.4\t<space> a

\\end\\
ignored
"""


def test_arpa_file_of_another_program(tmp_path):
    (tmp_path / "m.arpa").write_bytes(OTHERS.replace("\n", "\r\n").encode())
    model = ngram.load_ngrams(tmp_path / "m.arpa")
    automaton = automata.of_ngrams(model, CHARSET, 1.0)
    # b after the beginning and the end after b are not there: weights of <s> and b; c is unknown.
    for text, expected in (
        ("ab", -0.1 - 0.2 + 0.1 - 0.5),
        ("b a", -0.5 - 0.7 - 0.3 - 0.4 - 0.25 - 0.5),
        ("c", -0.5 - 2 - 0.5),
    ):
        assert automata.score(automaton, CHARSET.encode(text)) == pytest.approx(expected * math.log(10), abs=1e-5), text
        assert of_text(model, text) == pytest.approx(expected * math.log(10), abs=1e-9)


def changed(old, new):
    assert OTHERS.count(old) == 1
    return OTHERS.replace(old, new)


WRONG = {
    "none": (None, r"m.lm: no such file; expected n-grams in the ARPA format, as written by 'jaxcrnn lm train'"),
    "empty": ("", r"m.lm: no line \\data\\; expected n-grams in the ARPA format"),
    "of version 0.1": (
        b'\x10\x00\x00\x00\x00\x00\x00\x00{"__metadata__":{"format":"jaxcrnn ngrams 1"}}\xff\xfe',
        "m.lm: n-grams in the format of version 0.1; retrain with 'jaxcrnn lm train'",
    ),
    "no UTF-8": (b"\\data\\\n\xff", "m.lm, line 2: byte 0xff is not UTF-8"),
    "cut short": (OTHERS[: OTHERS.index("-0.3")], r"no line \\end\\; .*; is the file truncated\?"),
    "a line less": (changed("-0.3 b <space>\n", ""), "3 n-grams of order 2, but 'ngram 2=4'; is the file truncated"),
    "no n-grams": ("\\data\\\n\\end\\\n", "no n-grams; expected"),
    "no count": (changed("ngram 2=4", "ngram 2=x"), "line 5: 'ngram 2=x'; expected 'ngram 2=COUNT', at most 8 orders"),
    "too many orders": (changed("ngram 2=4", "".join(f"ngram {n}=0\n" for n in range(2, 10))), "line 12: 'ngram 9=0'"),
    "sections swapped": (changed("\\2-grams:", "\\3-grams:"), r"line 15: \\3-grams:; expected \\2-grams: or \\end"),
    "words": (changed("-0.7\tb", "-0.7\tbanana"), "line 12: 'banana' is not a single character; expected"),
    "a token less": (changed("-0.2 a b", "-0.2 a"), "line 17: '-0.2 a'; expected a log probability, 2 tokens"),
    "no number": (changed("-0.2 a b", "x a b"), "line 17: could not convert string to float: 'x'"),
    "more than 1": (changed("-0.2 a b", "0.2 a b"), "line 17: '0.2 a b': expected log10 of a probability"),
    "not a number": (changed("-0.25", "nan"), "line 11: '-0.6 a nan': expected .* a finite back-off weight"),
    "duplicate": (changed("-0.2 a b", "-0.2 <s> a"), "line 17: duplicate n-gram '-0.2 <s> a'"),
    "beyond Unicode": (changed("-0.7\tb", "-0.7\t<U+FFFFFF>"), "line 12: '<U.FFFFFF>' is not a single character"),
}


@pytest.mark.parametrize("name", WRONG)
def test_invalid_files_print_one_line(name, tmp_path):
    text, message = WRONG[name]
    if text is not None:
        (tmp_path / "m.lm").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=message) as caught:
        ngram.load_ngrams(tmp_path / "m.lm")
    assert "\n" not in str(caught.value)
