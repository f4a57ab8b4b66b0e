"""Beam search, lexicons and n-grams, against every text there is."""

import itertools
import json

import jax
import numpy as np
import pytest

from jaxcrnn import decode
from jaxcrnn.charset import Charset
from jaxcrnn.cli.main import main
from jaxcrnn.ctc import ctc_loss
from jaxcrnn.decoding import automata, beam, ngram
from jaxcrnn.decoding.decoder import Decoder
from jaxcrnn.decoding.evaluate import recognize
from jaxcrnn.runs import config
from jaxcrnn.runs.checkpoint import Checkpoints
from jaxcrnn.runs.folder import create, open_run
from jaxcrnn.train import init_state

T, CHARSET, DIGITS = 5, Charset("ab "), Charset("0123456789")
LINES = ["ab a", "aab", "b ab", "bb", "ba"]
MODEL = ngram.train(LINES, 3)
AUTOMATA = {
    "none": [],
    "only these words": [automata.lexicon(["ab", "a", "bba"], CHARSET)],
    "rather these words": [automata.lexicon(["ab", "ba", "b"], CHARSET, 1.5)],
    "n-grams": [automata.of_ngrams(MODEL, CHARSET, 0.7, 0.2)],
    "both": [automata.of_ngrams(MODEL, CHARSET, 0.7, 0.2), automata.lexicon(["ab", "ba"], CHARSET, 1.5)],
}


def texts_of(log_p, blank=0):
    """Every text, with the log of the summed probability of all its paths."""
    scores = {}
    for path in itertools.product(range(log_p.shape[1]), repeat=len(log_p)):
        text = tuple(c for c, before in zip(path, (-1, *path), strict=False) if c not in (before, blank))
        p = sum(row[c] for row, c in zip(log_p, path, strict=True))
        scores[text] = np.logaddexp(scores.get(text, -np.inf), p)
    return scores


# "both" has what these two have.
PARTS = {"only these words", "n-grams"}


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] if n in PARTS else []) for n in AUTOMATA])
def test_beam_search_matches_exhaustive_search(name):
    extra = AUTOMATA[name]
    rng = np.random.default_rng(0)
    logits, lengths = rng.normal(size=(6, T, 4)).astype(np.float32) * 2, np.asarray([5, 3, 5, 1, 0, 4], np.int32)
    log_p = np.asarray(jax.nn.log_softmax(logits, 2), np.float64)
    result = jax.device_get(beam.search(logits, lengths, width=64, classes=3, best=5, automata=extra))
    for b, length in enumerate(lengths):
        every = {y: p + sum(automata.score(a, y) for a in extra) for y, p in texts_of(log_p[b, :length]).items()}
        best = sorted(every.values(), reverse=True)[:5]
        for k in range(5):
            if k >= len(best) or np.isneginf(best[k]):
                assert np.isneginf(result.scores[b, k])
                continue
            text = tuple(result.ids[b, k, : result.counts[b, k]].tolist())
            assert every[text] == pytest.approx(best[k], abs=1e-4)
            assert result.scores[b, k] == pytest.approx(best[k], abs=1e-4)
            assert not result.ids[b, k, result.counts[b, k] :].any()


@pytest.mark.slow
def test_beam_scores_match_the_loss():
    """Where nothing is dropped, a text's score is its CTC loss."""
    logits = np.random.default_rng(1).normal(size=(3, T, 4)).astype(np.float32)
    lengths = np.full(3, T, np.int32)
    result = beam.search(logits, lengths, width=64, classes=3, blank=3)
    loss = ctc_loss(logits, lengths, result.ids[:, 0], result.counts[:, 0], blank=3)
    np.testing.assert_allclose(-result.log_p[:, 0], loss, atol=1e-4)


@pytest.mark.slow
def test_beam_search_on_recorded_handwriting(shared):
    """Recorded outputs of a program of others, and what its own beam search read there."""
    folder = shared / "data" / "ctc_matrices"
    charset = Charset(" !\"#&'()*+,-./0123456789:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", "last")
    for name, greedy, best in (
        ("line", "the fak friend of the fomly hae tC", "the fak friend of the fomcly hae tC"),
        ("word", "aircrapt", "aircrapt"),
    ):
        rows = [line.split(";")[:80] for line in (folder / f"{name}.csv").read_text().splitlines()]
        logits = np.asarray(rows, np.float32)[None]
        lengths = np.asarray([logits.shape[1]], np.int32)
        for width, expected in ((1, greedy), (25, best)):
            result = beam.search(logits, lengths, width=width, classes=79, blank=79)
            assert charset.decode(np.asarray(result.ids[0, 0, : int(result.counts[0, 0])]).tolist()) == expected
        ids, counts = decode.greedy(logits, lengths, blank=79)
        assert charset.decode(np.asarray(ids[0, : int(counts[0])]).tolist()) == greedy


@pytest.mark.slow
def test_beam_with_ngrams_beats_greedy():
    """Noisy frames of words whose letters say something about each other."""
    charset, rng = Charset("abcdefgh "), np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefgh"), 4)) for _ in range(6)]
    texts = [" ".join(rng.choice(words, 3)) for _ in range(60)]
    extra = [automata.of_ngrams(ngram.train(texts[20:], 4), charset, 0.8)]
    logits = rng.normal(size=(20, 28, 10)).astype(np.float32)
    for b, text in enumerate(texts[:20]):
        logits[b, np.arange(28), [c for one in charset.encode(text) for c in (one, 0)]] += 2.5
    lengths = np.full(20, 28, np.int32)
    ids, counts = jax.device_get(decode.greedy(logits, lengths))
    result = jax.device_get(beam.search(logits, lengths, width=16, classes=9, automata=extra))
    greedy = [charset.decode(row[:n].tolist()) for row, n in zip(ids, counts, strict=True)]
    read = [charset.decode(row[:n].tolist()) for row, n in zip(result.ids[:, 0], result.counts[:, 0], strict=True)]
    wrong = [sum(text != truth for text, truth in zip(each, texts[:20], strict=True)) for each in (greedy, read)]
    assert wrong[1] <= wrong[0] // 2


def test_lexicon_splits_phrases_into_words():
    charset = Charset("newyorkca ")
    automaton = automata.lexicon(["new york", "new", "car"], charset)
    for text, allowed in (("new car", True), ("car new", True), ("york", True), ("ca", False), ("new ", False)):
        assert np.isfinite(automata.score(automaton, charset.encode(text))) == allowed, text


@pytest.mark.slow
def test_character_spans_and_confidences():
    logits = np.full((1, 8, 4), -4.0, np.float32)
    for t, c in enumerate((0, 1, 1, 0, 2, 0, 1, 0)):
        logits[0, t, c] = 4.0
    lengths, ids, counts = (np.asarray(a, np.int32) for a in ([8], [[1, 2, 1, 0]], [3]))
    characters = jax.device_get(decode.characters(logits, lengths, ids, counts))
    assert characters.first[0, :3].tolist() == [1, 4, 6]
    assert characters.last[0, :3].tolist() == [2, 4, 6]
    np.testing.assert_allclose(characters.confidence[0], [1 / (1 + 3 * np.exp(-8))] * 3 + [0], rtol=1e-5)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A run that was never trained: it reads something, if nothing that is right."""
    settings = ["model.backbone=tiny", "model.hidden=8", "data.buckets=1", "data.batch_size=4", "optim.warmup=1"]
    made = create(tmp_path_factory.mktemp("runs") / "run", config.load(overrides=settings), DIGITS, {})
    with Checkpoints(made.folder / "checkpoints") as checkpoints:
        checkpoints.save(init_state(made.train_config, jax.random.key(0)), {}, None)
    return made.folder


@pytest.mark.slow
def test_recognize_and_evaluate_with_lm_and_lexicon(run_folder, lines_file, tmp_path, capsys):
    """A model of the labels and a lexicon, in both commands that read."""
    assert main(["lm", "train", str(lines_file), "--labels", "--order", "3", "--out", str(tmp_path / "m.lm")]) == 0
    texts = [row.split("\t")[1] for row in lines_file.read_text().splitlines()]
    assert f"from {len(texts)} lines and" in capsys.readouterr().out
    (tmp_path / "words.txt").write_text("".join(f"{text}\n" for text in texts[:5]) + "xyz\n")
    name = next(iter(lines_file.parent.glob("*.png")))
    options = ["--lm", str(tmp_path / "m.lm"), "--best", "3", "--beam", "8", "--lexicon", str(tmp_path / "words.txt")]
    assert main(["recognize", str(run_folder), str(name), "--json", "--characters", *options]) == 0
    captured = capsys.readouterr()
    assert "skipped 1 of 6 words with characters outside the charset: x y z" in captured.err
    line = json.loads(captured.out)
    assert line["text"] in texts[:5]
    assert len(line["characters"]) == len(line["text"])
    assert all(other["text"] in texts[:5] for other in line["others"])


@pytest.mark.slow
def test_evaluate_accepts_decoding_options(run_folder, lines_file, tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("".join(row.split("\t")[1] + "\n" for row in lines_file.read_text().splitlines()))
    predictions = []
    for options in ([], ["--beam", "1"], ["--lexicon", str(words)]):
        arguments = ["evaluate", str(run_folder), "--data", str(lines_file), "--predictions", str(tmp_path / "p.txt")]
        assert main([*arguments, *options]) == 0
        predictions.append([row.split("\t")[1] for row in (tmp_path / "p.txt").read_text().splitlines()])
    assert predictions[0] == predictions[1]
    assert set(predictions[2]) <= set(words.read_text().split())
    assert not set(predictions[0]) <= set(words.read_text().split())


@pytest.mark.slow
def test_greedy_with_details_gives_the_same_text(run_folder):
    run = open_run(run_folder)
    state, _ = run.state()
    images = [(str(i), np.random.default_rng(i).integers(0, 255, (32, 64), np.uint8)) for i in range(4)]
    plain = list(recognize(run.train_config, state, run.charset, images))
    detailed = list(recognize(run.train_config, state, run.charset, images, decoder=Decoder(width=1)))
    assert [line.text for line in detailed] == [line.text for line in plain]
    for line, other in zip(detailed, plain, strict=True):
        assert "".join(c.text for c in line.characters) == line.text
        if line.text:
            assert line.confidence == pytest.approx(other.confidence, abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lm", "train", "{none}", "--out", "{new}"], "expected a readable UTF-8 text file"),
        (["lm", "train", "{empty}", "--out", "{new}"], "all lines are empty"),
        (["lm", "train", "{text}", "--order", "0", "--out", "{new}"], "--order 0: expected 1 to 8"),
        (["lm", "train", "{text}", "--out", "{none}/x"], "a new file in an existing folder"),
        (["lm", "train", "{text}", "--out", "{text}"], "a new file in an existing folder"),
        (["recognize", "{run}", "{text}", "--characters"], "--characters requires --json"),
        (["recognize", "{run}", "{text}", "--lm-weight", "2"], "--lm-weight requires --lm"),
        (["recognize", "{run}", "{text}", "--beam", "2", "--best", "3"], "--best 3: expected at most the beam width"),
        (["recognize", "{run}", "{text}", "--beam", "0"], "--beam 0: expected 1 to 1000"),
        (["recognize", "{run}", "{text}", "--lexicon", "{none}"], "expected a readable UTF-8 text file"),
        (["recognize", "{run}", "{text}", "--lexicon", "{text}"], "no word of the lexicon consists of"),
        (
            ["recognize", "{run}", "{text}", "--lm", "{text}"],
            "expected n-grams in the ARPA format",
        ),
    ],
)
def test_invalid_options_print_one_line(arguments, message, run_folder, tmp_path, capsys):
    (tmp_path / "text").write_text("xyz\n")
    (tmp_path / "empty").write_text("\n\n")
    names = {"run": run_folder, **{name: tmp_path / name for name in ("none", "new", "text", "empty")}}
    assert main([a.format(**names) for a in arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
