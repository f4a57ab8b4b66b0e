"""Unsure lines are read again at other widths, by both engines and by every command that reads."""

import functools
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from random_readers import reader_of

import jaxcrnn
from jaxcrnn.architecture import ModelConfig
from jaxcrnn.cli.main import main
from jaxcrnn.data.images import ImageError, Limits, fit_height, looks
from jaxcrnn.data.loader import collate
from jaxcrnn.decoding.lines import Character, Line, is_unsure, surest
from jaxcrnn.errors import UserError
from jaxcrnn.interop.exporters import to_safetensors
from jaxcrnn.interop.recognizer import open_model
from jaxcrnn.train import eval_outputs

MODEL = ModelConfig("tiny", recurrent="linear:16", num_classes=11)


def blurred(seed):
    """Return noise as coarse as strokes, so that lines differ."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 19), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((150, 40), Image.Resampling.BICUBIC))


GRAYS = [blurred(seed) for seed in range(12)]


@functools.cache
def random_reader():
    """Return a recogniser with random weights whose mean logits are 0, so that what it reads depends on the image."""
    reader = reader_of(MODEL, "jax")
    batch = collate([fit_height(gray, 32, Limits()) for gray in GRAYS], [np.zeros(0, np.int32)] * 12, 12, 32, 120, 1)
    config, _, state = reader._jax()
    reader.variables["params"]["head"]["bias"] -= np.asarray(eval_outputs(config, state, batch).logits).mean((0, 1))
    return replace(reader)  # without the program of the old bias


@pytest.fixture(params=["jax", "onnx"])
def reader(request):
    if request.param == "onnx":
        pytest.importorskip("onnxruntime", reason="the extra 'onnx' is not installed")
    return replace(random_reader(), engine=request.param)


def rereading(reader, confidence):
    return replace(reader, limits=replace(reader.limits, reread=confidence))


def test_looks_are_the_line_and_the_same_narrower_and_wider():
    gray = GRAYS[0]
    first, narrow, wide = looks(gray, 32, Limits(reread=0.9))
    np.testing.assert_array_equal(first, fit_height(gray, 32, Limits()))
    for line, width in ((narrow, round(120 * 0.85)), (wide, round(120 * 1.2))):  # scaled once, from the image itself
        scaled = Image.fromarray(gray).resize((width, 32), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(line, np.asarray(scaled))
    tall = looks(np.ascontiguousarray(np.rot90(gray, -1)), 32, Limits(reread=0.9, vertical=True))
    assert all(np.array_equal(*pair) for pair in zip(tall, (first, narrow, wide), strict=True))


def test_one_look_without_rereading_or_with_stretched_lines_and_none_above_the_bound():
    assert len(looks(GRAYS[0], 32, Limits())) == 1
    assert [line.shape for line in looks(GRAYS[0], 32, Limits(reread=0.9, stretch=70))] == [(32, 70)]
    assert [line.shape[1] for line in looks(GRAYS[0], 32, Limits(reread=0.9, max_width=130))] == [120, 102]
    with pytest.raises(ImageError, match="120 px wide at height 32; the limit is 119 px"):
        looks(GRAYS[0], 32, Limits(reread=0.9, max_width=119))


def test_surest_reading_has_text_and_positions_of_the_first_look():
    def line(text, confidence):
        characters = tuple(Character(c, 1.0, 12.0 * i, 12.0 * i + 6) for i, c in enumerate(text))
        return Line("a", text, confidence, characters)

    assert surest([line("ab", 0.5), line("", 0.99), line("cd", 0.4)], [100, 85, 120]).text == "ab"
    best = surest([line("ab", 0.5), line("ac", 0.6), line("cd", 0.9)], [100, 85, 120])
    assert [(c.text, c.left, c.right) for c in best.characters] == [("c", 0.0, 5.0), ("d", 10.0, 15.0)]


@pytest.mark.parametrize("characters", [False, True])
def test_unsure_lines_are_read_again(reader, characters):
    named = [(str(i), looks(gray, 32, Limits(reread=0.5))) for i, gray in enumerate(GRAYS)]
    each = [list(reader.lines([(name, look) for look in of], characters=characters)) for name, of in named]
    bound = float(np.median([first.confidence for first, *_ in each]))
    expected = [
        surest(read, [look.shape[1] for look in of]) if read[0].confidence < bound else read[0]
        for read, (_, of) in zip(each, named, strict=True)
    ]
    found = list(rereading(reader, bound).lines(named, batch_size=1, characters=characters))  # in chunks of four lines
    assert [(line.name, line.text) for line in found] == [(line.name, line.text) for line in expected]
    np.testing.assert_allclose([line.confidence for line in found], [line.confidence for line in expected], atol=1e-5)
    assert 0 < sum(line.text != read[0].text for line, read in zip(found, each, strict=True)) <= 6
    if characters:
        spans = [[edge for c in line.characters for edge in (c.left, c.right)] for line in found]
        assert spans == [pytest.approx([e for c in line.characters for e in (c.left, c.right)]) for line in expected]


def test_lines_without_text_are_not_read_again():
    assert is_unsure(Line("", "a", 0.5), 0.6)
    assert not is_unsure(Line("", "a", 0.5), 0.5)
    assert not is_unsure(Line("", "", 0.5), 0.6)


@pytest.fixture
def exported(tmp_path):
    """Return a folder with a recogniser that reads the six least sure lines again, and paths and labels of lines."""
    paths = [str(tmp_path / f"{i:02}.png") for i in range(len(GRAYS))]
    for path, gray in zip(paths, GRAYS, strict=True):
        Image.fromarray(gray).save(path)
    (tmp_path / "labels.txt").write_text("".join(f"{i:02}.png\t123\n" for i in range(len(GRAYS))))
    reader = random_reader()
    bound = float(np.median([line.confidence for line in reader.recognize(paths)]))
    to_safetensors(rereading(reader, bound), tmp_path / "source", tmp_path / "exported")
    return tmp_path / "exported", paths, tmp_path / "labels.txt"


def read_by(capsys, *arguments):
    assert main([*map(str, arguments)]) == 0
    return [json.loads(line)["text"] for line in capsys.readouterr().out.splitlines()]


def test_commands_and_python_read_again_alike(exported, tmp_path, capsys):
    folder, paths, labels = exported
    once = [line.text for line in random_reader().recognize(paths)]
    again = [line.text for line in open_model(folder).recognize(paths)]
    assert 0 < sum(one != other for one, other in zip(once, again, strict=True)) <= 6

    recognize = ("recognize", folder, *paths, "--json")
    for engine in ("jax", "auto"):
        for details in ([], ["--characters"]):
            assert read_by(capsys, *recognize, "--engine", engine, *details) == again
    assert read_by(capsys, *recognize, "--reread", 0) == once
    assert read_by(capsys, *recognize, "--beam", 1) == once

    results = {}
    for name, options in {"again": [], "once": ["--reread", "0"], "beam": ["--beam", "1"]}.items():
        predictions = tmp_path / f"{name}.txt"
        evaluate = ["evaluate", str(folder), "--data", str(labels), "--predictions", str(predictions), "--json"]
        assert main([*evaluate, "--batch-size", "2", *options]) == 0
        read = [row.split("\t")[1] for row in predictions.read_text().splitlines()]
        results[name] = read, json.loads(capsys.readouterr().out)["loss"]
    assert results["again"] == (again, pytest.approx(results["once"][1]))
    assert results["once"][0] == results["beam"][0] == once


@pytest.mark.parametrize("value", ["97", "NaN", "-0.5"])
def test_confidence_out_of_range_is_one_line(exported, value, capsys):
    folder, paths, labels = exported
    for arguments in (["recognize", str(folder), *paths], ["evaluate", str(folder), "--data", str(labels)]):
        assert main([*arguments, f"--reread={value}"]) == 2
        assert f"jaxcrnn: --reread {value.lower()}: expected 0 to 1" in capsys.readouterr().err
    config = folder / "config.json"
    config.write_text(re.sub('"reread": .*,', f'"reread": {value},', config.read_text()))
    with pytest.raises(UserError, match=rf"config.json: images.reread is {value.lower()}; expected 0 to 1"):
        jaxcrnn.load(folder)


def test_exports_without_rereading_are_read_by_earlier_versions(tmp_path):
    to_safetensors(random_reader(), tmp_path / "source", tmp_path / "exported")
    assert "reread" not in (tmp_path / "exported" / "config.json").read_text()
    assert jaxcrnn.load(tmp_path / "exported").limits.reread == 0
