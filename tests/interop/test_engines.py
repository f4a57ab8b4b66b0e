"""Reading with onnxruntime: the same results as jax, without importing it."""

import multiprocessing
import os
import pickle
import subprocess
import sys
from dataclasses import replace

import jax
import numpy as np
import pytest
from random_readers import reader_of

import jaxcrnn
from jaxcrnn.architecture import ModelConfig
from jaxcrnn.cli.main import main
from jaxcrnn.data.images import Limits
from jaxcrnn.decoding.lines import LEAST
from jaxcrnn.errors import UserError
from jaxcrnn.interop import engines, exporters, weights
from jaxcrnn.nn.imported import Imported
from jaxcrnn.nn.layers import BACKBONES

TINY = ModelConfig("tiny", hidden=6, num_classes=11)
MODELS = {
    name: ModelConfig(
        name, hidden=5, num_classes=11, height=64 if name == "vgg-fine" else 32, imported=Imported(channels=32)
    )
    for name in BACKBONES
} | {
    "spelled": ModelConfig(
        "8p2x2 12nbp2x2 16k2x4 9nk3x2",
        recurrent="linear:5 lstm:7 linear:4",
        height=24,
        num_classes=11,
        blank=10,
        imported=Imported(two_biases=True, rows="mean", colors=3, black=1.0, white=0.0),
    ),
    "rows": ModelConfig(
        "tiny", hidden=5, standardize=True, height=40, num_classes=11, imported=Imported(black=0.0, white=255.0)
    ),
    "padded pooling": ModelConfig("8p2x1s1a1 6nvp2x2s3a1", recurrent="bilstm lstm linear", hidden=5, num_classes=11),
}


def lines_of(height, widths=(3, 17, 61, 64, 97)):
    return [np.random.default_rng(w).integers(0, 256, (height, w), np.uint8) for w in widths]


@pytest.fixture(scope="module", autouse=True)
def packages():
    for name in engines.PACKAGES:
        pytest.importorskip(name, reason="the extra 'onnx' is not installed")


def assert_same_lines(reader, images, **options):
    named = list(zip("abcde", images, strict=False))
    ours, theirs = (list(replace(reader, engine=e).lines(named, **options)) for e in ("onnx", "jax"))
    assert [line.text for line in ours] == [line.text for line in theirs]
    assert any(line.text for line in ours)
    for one, other in zip(ours, theirs, strict=True):
        assert one.confidence == pytest.approx(other.confidence, abs=1e-4)
        assert len(one.characters) == len(other.characters)
        for mine, its in zip(one.characters, other.characters, strict=True):
            assert mine[:4] == (its.text, *(pytest.approx(value, abs=1e-4) for value in its[1:4]))
            others = dict(mine.rivals), dict(its.rivals)
            for rival in others[0] | others[1]:  # one that is almost too improbable to be returned may be in one only
                assert others[0].get(rival, LEAST) == pytest.approx(others[1].get(rival, LEAST), abs=2e-4)
    return ours


def test_engines_read_the_same():
    reader, images = reader_of(TINY), lines_of(32)
    assert_same_lines(reader, images)
    lines = assert_same_lines(reader, images, characters=True)
    for character in (c for line in lines for c in line.characters):
        probabilities = [p for _, p in character.rivals]
        assert probabilities == sorted(probabilities, reverse=True)
        assert character.text not in dict(character.rivals)
        assert 0.9 < character.confidence + sum(probabilities) <= 1.0001  # with 8 rivals of 9, little is left
    assert max(len(c.rivals) for line in lines for c in line.characters) > 2


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_engines_read_the_same_with_every_model(name):
    """Logits, texts, confidences and characters, and the shapes of all weights."""
    reader = reader_of(MODELS[name])
    model, images = reader.model, lines_of(reader.model.height)
    init = exporters.CRNN(model).init
    shapes = jax.eval_shape(init, jax.random.key(0), np.zeros((1, model.height, 64, 1)), np.full(1, 64))
    leaves = jax.tree_util.tree_leaves_with_path(shapes)
    assert {".".join(k.key for k in place): leaf.shape for place, leaf in leaves} == weights.shapes(model)
    read = jax.jit(exporters.function(reader))
    for image in images[-2:]:
        pixels = (image / np.float32(127.5) - 1).astype(np.float32)[None, :, :, None]
        logits, lengths = read(pixels, np.full(1, image.shape[1]))
        ours = reader._onnx().logits(image)
        assert len(ours) == lengths[0] == model.frames(image.shape[1])
        np.testing.assert_allclose(ours, logits[0], rtol=0, atol=1e-4)
    assert_same_lines(reader, images)
    assert_same_lines(reader, images, characters=True)


def test_lines_without_frames_are_empty():
    reader = reader_of(ModelConfig("8p2x2 8k2x9v", hidden=4, num_classes=11), "onnx")
    (line,) = reader.recognize([np.zeros((32, 9), np.uint8)])
    assert (line.text, line.confidence) == ("", 0)
    assert len(reader._onnx().logits(np.zeros((32, 18), np.uint8))) == 1


def test_pretrained_weights_are_read_without_jax(tmp_path):
    """In a new process, by a command and from Python."""
    code = """
import sys
import numpy as np, jaxcrnn
from PIL import Image
from jaxcrnn.cli import main
Image.fromarray(np.full((32, 60), 255, np.uint8)).save(sys.argv[1])
assert main(["recognize", sys.argv[1], "--json", "--characters"]) == 0
assert len(jaxcrnn.load().recognize([sys.argv[1]])) == 1
sys.exit(bool({"jax", "flax"} & sys.modules.keys()))
"""
    command = [sys.executable, "-c", code, str(tmp_path / "a.png")]
    subprocess.run(command, check=True, env=os.environ | {"JAX_PLATFORMS": "cpu"}, stdout=subprocess.DEVNULL)


def test_engine_is_chosen_by_model_and_packages(monkeypatch):
    choose = engines.choose
    assert [choose(engine, TINY) for engine in ("auto", "jax", "onnx")] == ["onnx", "jax", "onnx"]
    assert choose("auto", replace(TINY, dtype="bfloat16")) == "onnx"
    assert choose("auto", replace(TINY, dtype="float64")) == "jax"
    assert choose("auto", replace(TINY, inference_dtype="bfloat16")) == "jax"
    assert choose("auto", TINY, "--beam") == "jax"
    with pytest.raises(UserError, match="^engine onnx: --beam needs the engine jax$"):
        choose("onnx", TINY, "--beam")
    with pytest.raises(UserError, match="^engine onnx: it reads in float32, but model.dtype is float64"):
        choose("onnx", replace(TINY, dtype="float64"))
    with pytest.raises(UserError, match="^engine 'tensorrt': expected one of auto, jax, onnx$"):
        jaxcrnn.load(engine="tensorrt")
    monkeypatch.setattr(engines, "on_cpu", lambda: False)
    assert choose("auto", TINY) == "jax"
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert choose("auto", TINY) == "jax"
    with pytest.raises(UserError, match="onnxruntime is missing; install the extra 'onnx'"):
        jaxcrnn.load(engine="onnx")


def test_bfloat16_models_are_read_in_float32_on_cpus(tmp_path):
    """An export of a model trained in bfloat16, with both engines."""
    reader = replace(reader_of(TINY), model=replace(TINY, dtype="bfloat16"))
    exporters.to_safetensors(reader, tmp_path, tmp_path / "out")
    loaded = jaxcrnn.load(tmp_path / "out")
    assert loaded.model.dtype == "bfloat16"
    assert {config.model.dtype for config in loaded._jax()[:2]} == {"float32"}
    (line,) = lines_of(32, (61,))
    np.testing.assert_array_equal(loaded._onnx().logits(line), reader_of(TINY)._onnx().logits(line))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot be forked here")
@pytest.mark.filterwarnings("ignore")  # jax, and Python from 3.12, warn of every fork
def test_forked_and_spawned_processes_read_with_onnx():
    reader, images = reader_of(TINY, "onnx"), lines_of(32)
    before = [line.text for line in reader.recognize(images)]
    sent = pickle.loads(pickle.dumps(reader))
    assert [line.text for line in sent.recognize(images)] == before
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(False)
    process = context.Process(target=lambda: sender.send([line.text for line in reader.recognize(images)]))
    process.start()
    try:
        assert receiver.poll(30)
        assert receiver.recv() == before
    finally:
        process.kill()
        process.join()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pretrained"], "pretrained: is a model; expected images after it (files, folders, or - for stdin)"),
        (["{out}"], "out: is a model; expected images after it"),
        (["{empty}"], "empty: no images in this folder; expected files such as .png or .jpg, or a model: a folder"),
        (["{empty}/a.png", "{out}"], "out: is a model and contains no images; expected it before the images"),
        (["{empty}/none", "a.png"], "none: no such file or folder; expected a run folder, an exported folder, 'pre"),
        (["weights.pth", "a.png"], "weights.pth: is not an image; expected a run folder, an exported folder, 'pretra"),
        (["{out}", "a.png", "--checkpoint", "latest"], "an exported model has no checkpoints"),
        (["{out}", "a.png", "--engine", "onnx", "--best", "2"], "engine onnx: --best needs the engine jax"),
        (["{out}", "a.png", "--lm-weight", "2"], "--lm-weight requires --lm FILE"),
        (["{out}", "a.png", "--max-bytes", "0"], "--max-bytes 0: expected 1 or more"),
    ],
)
def test_invalid_models_and_images_print_one_line(arguments, message, tmp_path, capsys):
    exporters.to_safetensors(reader_of(TINY), tmp_path, tmp_path / "out")
    (tmp_path / "empty").mkdir()
    assert main(["recognize", *(a.format(out=tmp_path / "out", empty=tmp_path / "empty") for a in arguments)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_bounds_of_an_exported_model_are_reported(tmp_path, capsys):
    reader = replace(reader_of(TINY), limits=Limits(max_pixels=10**9))
    exporters.to_safetensors(reader, tmp_path, tmp_path / "out")
    (tmp_path / "a.pgm").write_bytes(b"P5 40 32 255\n" + bytes(range(40)) * 32)
    assert main(["recognize", str(tmp_path / "out"), str(tmp_path / "a.pgm")]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{tmp_path / 'a.pgm'}\t")
    place = tmp_path / "out" / "config.json"
    expected = f"{place}: ignoring images.max_pixels=1,000,000,000; using 32,000,000 (override with --max-pixels)\n"
    assert captured.err == expected
