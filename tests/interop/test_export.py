"""Exported recognisers: every format is read back by the program that it is meant for."""

import io
import json
import multiprocessing
import os
import re
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

import jaxcrnn
from jaxcrnn.charset import Charset
from jaxcrnn.cli.main import main
from jaxcrnn.errors import UserError
from jaxcrnn.interop import exporters, recognizer
from jaxcrnn.interop.recognizer import flattened
from jaxcrnn.runs import config
from jaxcrnn.runs.checkpoint import Checkpoints
from jaxcrnn.runs.folder import create
from jaxcrnn.train import init_state

CHARSETS = {"odd": Charset("0123456789", "last")}
MODELS = {
    "plain": ["model.backbone=tiny", "model.hidden=6"],
    "odd": [
        "model.backbone=8p2x2 12nbp2x2 16",
        "model.recurrent=linear:5 lstm:7 linear:4",
        "model.height=24",
        "imported.two_biases=true",
        "imported.rows=mean",
        "imported.colors=3",
        "imported.black=1",
        "imported.white=0",
    ],
    "residual": ["model.backbone=resnet", "imported.channels=16", "model.hidden=4", "model.standardize=true"],
    "crnn.pytorch": ["model.backbone=vgg", "model.recurrent=bilstm linear bilstm", "model.hidden=4"],
}


@pytest.fixture(scope="module")
def run_of(tmp_path_factory):
    made = {}

    def make(name):
        if name not in made:
            folder = tmp_path_factory.mktemp("runs") / "run"
            charset = CHARSETS.get(name, Charset("0123456789"))
            settings = [*MODELS[name], "model.dropout=0", f"data.blank={charset.blank_place}"]
            run = create(folder, config.load(overrides=settings), charset, {})
            state = init_state(run.train_config, jax.random.key(0))
            keys = iter(jax.random.split(jax.random.key(1), 1000))
            moved = jax.tree.map(lambda a: a + 0.1 * jax.random.uniform(next(keys), a.shape), state.batch_stats)
            with Checkpoints(folder / "checkpoints") as checkpoints:
                checkpoints.save(state._replace(batch_stats=moved), {}, None)
            made[name] = folder
        return made[name]

    return make


def images_of(height, count, width):
    return np.random.default_rng(width).uniform(-1, 1, (count, height, width, 1)).astype(np.float32)


CASES = [(1, 40), (3, 61), (2, 97)]
READ = ("plain", "odd", "residual")


@pytest.mark.parametrize("name", ["plain", pytest.param("odd", marks=pytest.mark.slow)])
def test_safetensors_export_round_trip(name, run_of, tmp_path, capsys):
    run, out = run_of(name), tmp_path / "out"
    assert main(["export", str(run), "--format", "safetensors", "--out", str(out)]) == 0
    assert {p.name for p in out.iterdir()} == {"model.safetensors", "config.json", "charset.txt", "README.md"}
    here, there = jaxcrnn.load(run), jaxcrnn.load(out)
    assert (here.model, here.charset, here.limits) == (there.model, there.charset, there.limits)
    jax.tree.map(np.testing.assert_array_equal, here.variables, there.variables)
    assert "library_name: jaxcrnn" in (out / "README.md").read_text()
    again = tmp_path / "again"
    assert main(["export", str(out), "--format", "safetensors", "--out", str(again)]) == 0
    assert (again / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()


LOADER = """
    import sys
    sys.modules["jaxcrnn"] = None  # not to be found
    import numpy as np
    from jax import export
    given, out = np.load(sys.argv[2]), {}
    for name in given.files:
        folder = sys.argv[1] + "/" + name.split(",")[0]
        program = export.deserialize(open(folder + "/model.bin", "rb").read())
        images = given[name]
        out[name] = program.call(images, np.full(len(images), images.shape[2] - 5, np.int32))[0]
    np.savez(sys.argv[3], **out)
"""


@pytest.mark.slow
@pytest.mark.parametrize("names", [("plain", "odd"), ("residual",)])
def test_stablehlo_runs_without_jaxcrnn(names, run_of, tmp_path):
    pytest.importorskip("flatbuffers", reason="the extra 'export' is not installed")
    images, expected = {}, {}
    for name in names:
        assert main(["export", str(run_of(name)), "--format", "stablehlo", "--out", str(tmp_path / name)]) == 0
        reader = jaxcrnn.load(run_of(name))
        read = jax.jit(exporters.function(reader))
        for b, w in CASES if name == "odd" else CASES[1:2]:
            images[f"{name},{b}x{w}"] = batch = images_of(reader.model.height, b, w)
            expected[f"{name},{b}x{w}"] = read(batch, np.full(b, w - 5, np.int32))[0]
    np.savez(tmp_path / "in.npz", **images)
    arguments = [str(tmp_path), str(tmp_path / "in.npz"), str(tmp_path / "out.npz")]
    subprocess.run([sys.executable, "-c", textwrap.dedent(LOADER), *arguments], check=True)
    with np.load(tmp_path / "out.npz") as outputs:
        assert set(outputs.files) == set(expected)
        for key, value in expected.items():
            np.testing.assert_allclose(outputs[key], value, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_documented_loader_matches_the_recognizer(run_of, tmp_path, monkeypatch):
    """Of 24 rows and a blank in the last place, as the folder says."""
    pytest.importorskip("flatbuffers", reason="the extra 'export' is not installed")
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(run_of("odd")), "--format", "stablehlo", "--out", "served"]) == 0
    pages = Path(__file__).parents[2] / "docs" / "open-doors.md"
    (loader,) = re.findall(r"^```python\n(import io\n.*?)^```", pages.read_text(encoding="utf-8"), re.M | re.S)
    reader, texts = jaxcrnn.load(run_of("odd")), set()
    place: dict = {}
    for seed in range(4):
        Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 90), np.uint8)).save("line.png")
        exec(compile(loader if not seed else "print(read('line.png'))", "loader", "exec"), place)
        texts.add(reader.recognize(["line.png"])[0].text)
        assert place["read"]("line.png") == reader.recognize(["line.png"])[0].text
    assert any(texts)


@pytest.mark.parametrize("name", ["plain", *(pytest.param(name, marks=pytest.mark.slow) for name in READ[1:])])
def test_onnx_export_matches_the_model(name, run_of, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra 'onnx' is not installed")
    pytest.importorskip("onnx", reason="the extra 'onnx' is not installed")
    run = run_of(name)
    assert main(["export", str(run), "--format", "onnx", "--out", str(tmp_path / "out")]) == 0
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx", providers=["CPUExecutionProvider"])
    reader = jaxcrnn.load(run)
    read = jax.jit(exporters.function(reader))
    for b, w in CASES if name == "odd" else CASES[1:2]:
        images = images_of(reader.model.height, b, w)
        (logits,) = session.run(None, {"images": images})
        np.testing.assert_allclose(logits, read(images, np.full(b, w, np.int32))[0], rtol=0, atol=1e-4)


@pytest.mark.torch
@pytest.mark.parametrize(
    ("name", "form"), [("plain", "torch"), pytest.param("crnn.pytorch", "crnn.pytorch", marks=pytest.mark.slow)]
)
def test_torch_state_dict_export(name, form, run_of, tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from torch_models import CrnnPytorch

    from torch_ref.model import CRNN, ModelConfig

    run = run_of(name)
    assert main(["export", str(run), "--format", form, "--out", str(tmp_path / "w.pth")]) == 0
    state = torch.load(tmp_path / "w.pth", weights_only=True)
    reader = jaxcrnn.load(run)
    images = images_of(32, 2, 48)
    expected = jax.jit(exporters.function(reader))(images, np.full(2, 48, np.int32))[0]
    tensor = torch.from_numpy(images)
    if form == "torch":
        module = CRNN(ModelConfig("tiny", 6, num_classes=11)).eval()
        module.load_state_dict(state)
        logits = module(tensor, torch.full((2,), 48)).logits
    else:
        module = CrnnPytorch(hidden=4).eval()
        module.load_state_dict(state, strict=False)
        assert {k for k in module.state_dict() if "num_batches" not in k} == state.keys()
        logits = module(tensor.permute(0, 3, 1, 2)).permute(1, 0, 2)
    np.testing.assert_allclose(logits.detach().numpy(), expected, rtol=0, atol=1e-4)


def test_recognizer_accepts_every_image_type(run_of, tmp_path):
    """Whatever an image is given as, it reads the same."""
    gray = np.random.default_rng(0).integers(0, 256, (24, 80), np.uint8)
    image, file = Image.fromarray(gray), io.BytesIO()
    image.save(file, "PNG")
    (tmp_path / "a.png").write_bytes(file.getvalue())
    reader = jaxcrnn.load(run_of("plain"))
    images = [
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        file.getvalue(),
        gray,
        np.stack([gray] * 3, -1),
        image,
        image.convert("RGB"),
        image.convert("P"),
        gray[:, :, None],
    ]
    lines = reader.recognize(images)
    assert lines[0].name == str(tmp_path / "a.png")
    assert len({(line.text, line.confidence) for line in lines}) == 1
    for wrong, what in (
        (gray / 255, "image 0: an array of float64"),
        (tmp_path / "b.png", "b.png: no such file"),
        (b"", "image 0: empty file"),
        (gray[:0], "uint8"),
        (None, "a NoneType; expected a path"),
        (np.zeros((4, 4, 2), np.uint8), "uint8"),
    ):
        with pytest.raises(UserError, match=what):
            reader.recognize([wrong])


def test_further_pages_are_reported_once(run_of, monkeypatch):
    """And what a Pillow image shows is turned as its file would be."""
    seen = []

    def lines(self, images, **options):
        seen.extend(image for _, (image,) in images)  # one look each
        return seen

    monkeypatch.setattr(recognizer.Recognizer, "lines", lines)
    reader = jaxcrnn.load(run_of("plain"))
    page, file = Image.fromarray(np.arange(32 * 40, dtype=np.uint8).reshape(32, 40)), io.BytesIO()
    page.save(file, "TIFF", save_all=True, append_images=[page, page])
    with pytest.warns(UserWarning, match="^2 images have several pages or frames; only the first is read: image 0, "):
        reader.recognize([file.getvalue(), file.getvalue()])
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = io.BytesIO()
    page.save(photo, "PNG", exif=exif)
    reader.recognize([photo.getvalue(), Image.open(photo), np.asarray(page)])
    assert [image.shape for image in seen[2:]] == [(32, 26), (32, 26), (32, 40)]
    np.testing.assert_array_equal(seen[2], seen[3])


def _tell(function, argument, sender):
    try:
        function(argument)
        sender.send("no error")
    except UserError as error:
        sender.send(str(error))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot be forked here")
@pytest.mark.filterwarnings("ignore")  # jax, and Python from 3.12, warn of every fork
def test_recognizing_in_a_forked_process_is_an_error(run_of):
    """It would hang, since jax's threads are missing there."""
    reader = jaxcrnn.load(run_of("plain"), engine="jax")
    context = multiprocessing.get_context("fork")
    for function, argument in ((reader.recognize, [np.zeros((9, 9), np.uint8)]), (jaxcrnn.load, run_of("plain"))):
        receiver, sender = context.Pipe(False)
        process = context.Process(target=_tell, args=(function, argument, sender))
        process.start()
        try:
            assert receiver.poll(30)
            assert "jax was in use when this process was forked" in receiver.recv()
        finally:
            process.kill()
            process.join()


def test_export_writes_new_keys_only_if_needed(run_of, tmp_path):
    reader = jaxcrnn.load(run_of("plain"))
    for vertical in (False, True):
        out = tmp_path / str(vertical)
        exporters.to_safetensors(replace(reader, limits=replace(reader.limits, vertical=vertical)), tmp_path, out)
        assert ("vertical" in json.loads((out / "config.json").read_text())["images"]) == vertical
        assert jaxcrnn.load(out).limits.vertical == vertical


def _edit(name, change):
    def edit(folder):
        path = folder / name
        path.write_bytes(change(path.read_bytes()))

    return edit


def _facts(**more):
    return _edit("config.json", lambda data: json.dumps(json.loads(data) | more).encode())


def _model(**more):
    def changed(data):
        facts = json.loads(data)
        return json.dumps(facts | {"model": facts["model"] | more}).encode()

    return _edit("config.json", changed)


def test_half_precision_files_are_read_as_float32(run_of, tmp_path):
    exporters.to_safetensors(jaxcrnn.load(run_of("plain")), tmp_path, tmp_path / "out")
    path = tmp_path / "out" / "model.safetensors"
    full = load_file(path)
    save_file({name: value.astype(np.float16) for name, value in full.items()}, path)
    loaded = flattened(jaxcrnn.load(tmp_path / "out").variables)
    assert loaded.keys() == full.keys()
    for name, value in loaded.items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, full[name].astype(np.float16).astype(np.float32), err_msg=name)


WRONG = {
    "no config": (lambda f: (f / "config.json").unlink(), "not a run folder, config.yaml is missing"),
    "config cut": (_edit("config.json", lambda d: d[:50]), r"config\.json: not the config of an exported model"),
    "config nested": (_edit("config.json", lambda d: b"[" * 100000), r"config\.json: not the config"),
    "config a list": (_edit("config.json", lambda d: b"[]"), r"config\.json: not the config"),
    "another format": (_facts(format="x"), r"format 'x'; expected 'jaxcrnn model 1'"),
    "an unknown key": (_model(flavor=1), r"ModelConfig has no \['flavor'\]"),
    "a number as text": (_model(hidden="6"), "hidden is '6'; expected int"),
    "no text": (_model(recurrent=None), "recurrent is None; expected str"),
    "below nothing": (_model(num_classes=-1), "num_classes is -1; expected 0 or more"),
    "no classes": (
        _model(num_classes=0),
        r"0 classes, blank 0; expected 11 \(the charset's 10 characters and the blank\)",
    ),
    "an unknown backbone": (_model(backbone="big"), r"model\.backbone is 'big'"),
    "another size": (_model(hidden=7), r"model\.safetensors: params\.\S+ is float32 \[.*; expected float32"),
    "another backbone": (_model(backbone="small"), r"model\.safetensors: batch_stats\.\S+ is"),
    "no charset": (lambda f: (f / "charset.txt").unlink(), r"charset\.txt: No such file"),
    "another charset": (_edit("charset.txt", lambda d: d + b"x\n"), "11 characters with hash"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), r"model\.safetensors: truncated, or not"),
    "weights cut": (_edit("model.safetensors", lambda d: d[:-9]), r"model\.safetensors: truncated, or not"),
    "weights empty": (_edit("model.safetensors", lambda d: b""), r"model\.safetensors: truncated, or not"),
    "hostile sizes": (
        _edit("model.safetensors", lambda d: b"\xff" * 8 + d[8:]),
        "truncated, or not a safetensors file",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_invalid_folders_print_one_line(name, run_of, tmp_path):
    exporters.to_safetensors(jaxcrnn.load(run_of("plain")), tmp_path, tmp_path / "out")
    change, message = WRONG[name]
    change(tmp_path / "out")
    with pytest.raises(UserError, match=message) as caught:
        jaxcrnn.load(tmp_path / "out")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{run}", "--format", "torch", "--out", "{run}"], "already exists; expected a new name"),
        (["{none}", "--format", "safetensors", "--out", "{new}"], "not a run folder"),
        (["{run}", "--format", "original", "--out", "{new}"], "has no original layout"),
        (["{run}", "--format", "crnn.pytorch", "--out", "{new}"], "expected crnn.pytorch's vgg or vgg-crnn"),
        (
            ["{odd}", "--format", "torch", "--out", "{new}"],
            "model.backbone=8p2x2 12nbp2x2 16, model.recurrent=linear:5 lstm:7 linear:4, model.height=24, "
            "imported.two_biases=True",
        ),
        (["{run}", "--format", "stablehlo", "--out", "{file}/x"], "expected a folder that can be created"),
        (["{run}", "--format", "safetensors", "--out", "{new}", "--checkpoint", "7"], "no checkpoint of step 7"),
    ],
)
def test_invalid_exports_print_one_line(arguments, message, run_of, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    names = {
        "run": run_of("plain"),
        "odd": run_of("odd"),
        "none": tmp_path / "none",
        "new": tmp_path / "new",
        "file": tmp_path / "file",
    }
    assert main(["export", *(a.format(**names) for a in arguments)]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "new").exists()
