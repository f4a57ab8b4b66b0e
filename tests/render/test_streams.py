"""Rendered and mixed batches: functions of seed and step, of the right shapes, with the lines they say."""

import dataclasses
import json

import numpy as np
import pytest
from helpers import SyntheticLines

from jaxcrnn.charset import Charset
from jaxcrnn.cli.main import main
from jaxcrnn.data import buckets
from jaxcrnn.data.audit import audit
from jaxcrnn.data.images import Limits
from jaxcrnn.data.labels import LabelFile, write_lines
from jaxcrnn.data.loader import Batches
from jaxcrnn.render.atlas import embedded
from jaxcrnn.render.config import HARD, LEVELS, RenderConfig
from jaxcrnn.render.render import Glyphs
from jaxcrnn.render.streams import MixedBatches, RenderedBatches
from jaxcrnn.render.texts import TextConfig, Texts
from jaxcrnn.runs import datasets
from jaxcrnn.runs.config import load, to_yaml

CHARS = "0123456789土士"
CHARSET = Charset(CHARS)


def rendered(size=4, seed=0, longest=4):
    texts = Texts(TextConfig(longest=longest, widths=2), CHARS, seed)
    return RenderedBatches(texts, CHARSET, Glyphs.of(embedded(), CHARSET), RenderConfig(), size, seed)


def read(lines_file, size=3):
    corpus = audit(LabelFile(lines_file), CHARSET, lambda width: width // 4, 32, Limits(), cache_bytes=1 << 20)
    return Batches(corpus, buckets.choose(corpus.widths, 2), size, seed=1)


def check(stream, planned, batch):
    bucket = planned.bucket
    assert batch.images.shape == (stream.batch_size, 32, stream.buckets[bucket], 1)
    assert batch.labels.shape == (stream.batch_size, stream.slots[bucket])
    assert (np.asarray(batch.widths) <= stream.buckets[bucket]).all()
    assert (np.asarray(batch.label_lengths) <= stream.slots[bucket]).all()
    for image, width in zip(np.asarray(batch.images), np.asarray(batch.widths), strict=True):
        assert (image[:, width:] == 1).all()


@pytest.mark.parametrize("kind", ["rendered", "mixed"])
@pytest.mark.slow
def test_stream_depends_only_on_the_step(kind, lines_file):
    stream = rendered() if kind == "rendered" else MixedBatches([read(lines_file), rendered(2)])
    whole, rest = list(stream.training(0, 6)), list(stream.training(4, 6))
    for planned, batch in whole:
        check(stream, planned, batch)
    for (p, a), (q, b) in zip(whole[4:], rest, strict=True):
        assert p.bucket == q.bucket
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)
    assert len({planned.bucket for planned, _ in whole}) == 2


@pytest.mark.slow
def test_rendered_batches_have_matching_labels():
    stream = rendered(size=2)
    for step, (planned, batch) in enumerate(stream.training(0, 8)):
        low, high = stream.lengths[planned.bucket]
        for b in range(2):
            text = stream.texts.draw(step * 2 + b, low, high)
            length = int(batch.label_lengths[b])
            assert CHARSET.decode(np.asarray(batch.labels)[b, :length].tolist()) == text
            assert low <= length <= high


def test_mixed_batches_contain_both_streams(lines_file):
    files, synthetic = read(lines_file), rendered(2)
    mixed = MixedBatches([files, synthetic])
    assert mixed.batch_size == 5
    pairs = zip(mixed.training(0, 4), files.training(0, 4), synthetic.training(0, 4), strict=True)
    for (_, whole), (_, one), (_, two) in pairs:
        for part, at in ((one, 0), (two, 3)):
            n, width = len(part.widths), part.images.shape[2]
            np.testing.assert_array_equal(whole.images[at : at + n, :, :width], part.images)
            np.testing.assert_array_equal(whole.label_lengths[at : at + n], part.label_lengths)
            np.testing.assert_array_equal(whole.labels[at : at + n, : part.labels.shape[1]], part.labels)
    assert mixed.fingerprint != MixedBatches([files, rendered(2, seed=1)]).fingerprint
    assert rendered().fingerprint == rendered().fingerprint != rendered(longest=5).fingerprint


@pytest.mark.slow
def test_training_on_rendered_and_real_lines(lines_file, tmp_path, capsys):
    out = tmp_path / "run"
    (tmp_path / "chars.txt").write_text("".join(f"{c}\n" for c in CHARS), encoding="utf-8")
    # Lines as `rendered` draws them, whose program is compiled already.
    settings = """
        text.share=0.5 text.longest=2 text.widths=1 data.batch_size=4 data.buckets=1 model.backbone=tiny model.hidden=8
        augment.probability=0 optim.steps=2 run.log_every=1
    """.split()
    settings.append(f"data.charset={tmp_path / 'chars.txt'}")
    assert main(["train", "--data", str(lines_file), "--out", str(out), "--set", *settings]) == 0
    shown = capsys.readouterr().out
    assert "rendering 12 characters in 3 typefaces" in shown
    assert "8 samples seen" in shown
    rows = [json.loads(row) for row in (out / "metrics.jsonl").read_text().splitlines()]
    assert all(row["loss"] > 0 for row in rows)


def test_fingerprint_depends_on_the_glyphs():
    """A font added to the folder changes the lines, so a run that was started without it cannot be gone on with."""
    glyphs = Glyphs.of(embedded(), CHARSET)
    texts = Texts(TextConfig(longest=4, widths=2), CHARS, 0)
    fewer = Glyphs.of(embedded().only(["gbsn00lp", "gkai00mp"]), CHARSET)
    prints = [RenderedBatches(texts, CHARSET, g, RenderConfig(), 4, 0).fingerprint for g in (glyphs, fewer)]
    assert prints[0] != prints[1]


def test_data_sets_are_mixed_by_weight(lines_file, tmp_path, capsys):
    """Each set has its share of every batch, and what is drawn from one does not depend on the other."""
    other = tmp_path / "other"
    other.mkdir()
    second = write_lines(other, SyntheticLines(8, 3, "0123456789", (1, 2)))
    config = load(None, ["data.batch_size=4", "data.weights=[3, 1]", "data.buckets=1"])
    paths = {"train": str(lines_file), "more": (str(second),)}
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, **paths))
    corpora = datasets.audited(config, CHARSET, datasets.source(config), None, skip_bad=False)
    mixed = datasets.stream(config, CHARSET, corpora[0])
    assert f"3 of 4 lines per step from {lines_file} (24 lines)\n1 of 4" in capsys.readouterr().out
    texts = {"first": set(), "second": set()}
    for _, batch in mixed.training(0, 8):
        for b in range(4):
            ids = np.asarray(batch.labels)[b, : int(batch.label_lengths[b])].tolist()
            texts["first" if b < 3 else "second"].add(CHARSET.decode(ids))
    assert texts["first"] == {LabelFile(lines_file).text(i) for i in range(24)}
    assert texts["second"] == {LabelFile(second).text(i) for i in range(3)}
    # Without weights they are one set: 27 lines in 7 steps.
    plain = dataclasses.replace(config, data=dataclasses.replace(config.data, weights=()))
    assert datasets.stream(plain, CHARSET, corpora[0]).steps_per_epoch == 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--data", "{lines}", "--set", "data.weights=[1, 2]"],
            "expected a number above 0 for each of 1 training sets",
        ),
        (
            ["--data", "{lines}", "{lines}", "--set", "data.weights=[1, -2]"],
            "one of the values is -2.0; expected more than 0",
        ),
        (
            ["--data", "{lines}", "{other}", "--set", "data.weights=[1, 99]"],
            "data.weights leave none of 32 lines for {lines}",
        ),
        (["--data", "{lines}", "{lines}"], "24 faults in the data"),
        (["--data", "{lines}", "--set", "text.share=1"], "unused, because text.share=1 renders every line"),
        (
            ["--data", "{lines}", "{lines}", "--set", "data.weights=[1, .nan]"],
            "one of the values is nan; expected more",
        ),
        (["--set", "text.share=1", "text.groups=g.txt"], "text.groups requires text.source=lookalikes"),
        (["--set", "text.share=1", "text.longest=100000"], "text.longest is 100000; expected 1 to 500"),
        (["--set", "text.share=1", "text.typefaces=[Song]"], "unknown typeface 'Song'; expected some of gbsn00lp"),
        (["--set", "render.noise=.nan"], "render.noise is nan; expected 0 or more"),
        (["--set", "render.margin=.inf"], "render.margin is inf; expected 0 to 10"),
        (["--set", "render.contrast=5"], "render.contrast is 5.0; expected 0 to 2"),
        ([], "give --data FILE"),
        (
            ["--data", "{lines}", "--set", "text.share=0.01"],
            "leaves none of the 32 lines of a batch (data.batch_size) to be rendered",
        ),
        (
            ["--data", "{lines}", "--set", "text.share=0.99"],
            "leaves none of the 32 lines of a batch (data.batch_size) to be read",
        ),
        (["--set", "text.share=1", "text.fonts=/nowhere", "data.charset={chars}"], "/nowhere: no such folder"),
        (["--set", "text.share=1", "text.fonts=system"], "no charset to render; give --charset FILE"),
        (["--set", "render.level=harder"], "'harder'; expected easy, medium, hard or forms"),
    ],
)
def test_user_errors_print_one_line(options, message, lines_file, tmp_path, capsys):
    (tmp_path / "chars.txt").write_text("未\n末\n", encoding="utf-8")
    (tmp_path / "other").mkdir()
    other = write_lines(tmp_path / "other", SyntheticLines(8, 2, "0123456789", (1, 2)))
    places = {"lines": lines_file, "chars": tmp_path / "chars.txt", "other": other}
    assert main(["train", "--out", str(tmp_path / "run"), *(o.format(**places) for o in options)]) == 2
    error = capsys.readouterr().err
    assert message.format(**places) in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_render_level_with_overridden_values(tmp_path):
    config = load(None, ["render.level=hard", "render.noise=0"])
    assert config.render.noise == 0
    assert config.render.wave == HARD.wave
    (tmp_path / "c.yaml").write_text(to_yaml(config))
    assert load(tmp_path / "c.yaml") == config
    other = load(None, ["render.level=easy"], config)
    assert (other.render.noise, other.render.wave) == (0, LEVELS["easy"].wave)
