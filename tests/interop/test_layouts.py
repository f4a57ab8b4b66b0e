"""Checkpoints of other programs: PyTorch modules with their key names, taken in, compared, and given back."""

import argparse
import pickle
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

import jaxcrnn
from jaxcrnn.charset import Charset
from jaxcrnn.cli.main import main
from jaxcrnn.errors import UserError
from jaxcrnn.interop import checkpoint_layouts, importer, state_dicts
from jaxcrnn.model import CRNN, ModelConfig
from jaxcrnn.runs.folder import open_run
from jaxcrnn.train import eval_variables

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
from safetensors.torch import save_file as torch_save_file  # noqa: E402
from torch_models import MODULES, Named, NamedVgg, arrays, narrow, random  # noqa: E402

pytestmark = pytest.mark.torch
CHARSET = Charset("0123456789")
# What reads the others of the same kind reads these: a colored one a gray one, a guessed one a spelled one.
SLOW = ("crnn.pytorch", "GitYCC", "dtrb vgg", "dtrb resnet", "sequential")


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in MODULES])
def test_import_matches_torch_and_export_is_bitwise(name):
    make, options = MODULES[name]
    with torch.no_grad():
        module = random(make())
        colors = 3 if "color" in name else 1
        images = torch.randn(2, colors, options.get("height", 32), 52)
        expected = module(images).permute(1, 0, 2).numpy()
    state = arrays(module)
    layout, variables, counters = importer.converted(state, CHARSET, **options)
    kept = jax.tree.map(np.copy, variables)
    model = ModelConfig(**layout.model)
    widths = np.asarray([52, 52], np.int32)
    out = jax.jit(CRNN(model).apply)(variables, images.permute(0, 2, 3, 1).numpy(), widths)
    assert out.lengths.tolist() == [expected.shape[1]] * 2 == [model.frames(52)] * 2
    assert out.features.shape[2] == model.features
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(out.logits, expected, rtol=0, atol=1e-4)
    jax.tree.map(np.testing.assert_array_equal, variables, kept)
    back = checkpoint_layouts.state_of(layout, variables, counters)
    assert back.keys() == state.keys()
    for key, value in state.items():
        assert back[key].dtype == value.dtype
        np.testing.assert_array_equal(back[key], value, err_msg=key)


@pytest.fixture(scope="module")
def state():
    with torch.no_grad():
        return arrays(random(narrow()))


@pytest.fixture
def digits(tmp_path):
    CHARSET.save(tmp_path / "digits.txt")
    return tmp_path / "digits.txt"


class Unsafe:
    """A pickle that runs a command when it is loaded."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


def tensors(state, prefix=""):
    return {prefix + name: torch.from_numpy(np.array(value)) for name, value in state.items()}


FILES = {
    "zip": lambda state, path: torch.save(tensors(state), path),
    "before zip": lambda state, path: torch.save(tensors(state), path, _use_new_zipfile_serialization=False),
    "DataParallel": lambda state, path: torch.save(tensors(state, "module."), path),
    "Lightning": lambda state, path: torch.save({"epoch": 3, "state_dict": tensors(state, "model.")}, path),
    "compiled in DataParallel": lambda state, path: torch.save(tensors(state, "module._orig_mod."), path),
    "inside": lambda state, path: torch.save({"epoch": 3, "state_dict": tensors(state)}, path),
    "in dicts": lambda state, path: torch.save({"ema": {"decay": 0.9, "module": tensors(state)}, "best": 1.0}, path),
    "options beside it": lambda state, path: torch.save(
        {"model": tensors(state), "args": argparse.Namespace(lr=0.1)}, path
    ),
    "an optimizer beside it": lambda state, path: torch.save(
        {"net": tensors(state), "optimizer": {"state": {0: {"exp_avg": torch.zeros(2, 2)}}, "param_groups": []}}, path
    ),
    "bfloat16": lambda state, path: torch_save_file({k: v.bfloat16() for k, v in tensors(state).items()}, path),
    "half": lambda state, path: torch.save({k: v.half() for k, v in tensors(state).items()}, path),
    "safetensors": lambda state, path: save_file(dict(state), path),
    "float64": lambda state, path: save_file({k: v.astype(np.float64) for k, v in state.items()}, path),
}


@pytest.mark.parametrize("name", FILES)
def test_weights_of_every_file_format_are_read(name, state, tmp_path):
    FILES[name](state, tmp_path / "weights")
    weights = state_dicts.read(tmp_path / "weights")
    assert weights.keys() == state.keys()
    for key, value in state.items():
        kind = {"half": np.float16, "bfloat16": jnp.bfloat16}.get(name)
        expected = value.astype(kind).astype(np.float32) if kind and value.dtype == np.float32 else value
        np.testing.assert_array_equal(weights[key], expected)


def test_key_selects_one_of_several_state_dicts(state, tmp_path):
    """What is not read is noted; the wrong key and no key are answered with the keys there are."""
    path = tmp_path / "w.pth"
    other = {**tensors(state, "net."), "loss.centers": torch.ones(2, 2)}
    torch.save({"model": tensors(state), "ema": {"model": other}, "epoch": 3}, path)
    for key, notes in {
        "model": ["read from key 'model' of the file", "not used: ema, epoch"],
        "ema.model.net": [
            "not used: 1 array without the prefix net. (loss.centers)",
            "read from key 'ema.model' of the file",
            "not used: model, epoch",
        ],
    }.items():
        weights = state_dicts.load(path, key)
        assert (weights.key, weights.notes) == (key, notes)
        assert weights.arrays.keys() == state.keys()
    with pytest.raises(
        UserError, match=r"2 state dicts: model \(8 arrays\), ema.model \(9 arrays\); choose one with --key"
    ):
        state_dicts.load(path)
    with pytest.raises(
        UserError, match=r"no state dict under --key ema.modl; the file contains .* did you mean ema.model"
    ):
        state_dicts.load(path, "ema.modl")
    with pytest.raises(UserError, match="no state dict under --key ema; the file contains"):
        state_dicts.load(path, "ema")


def test_half_precision_is_reported(state, tmp_path):
    save_file({k: v.astype(np.float16) for k, v in state.items()}, tmp_path / "w")
    assert state_dicts.load(tmp_path / "w").notes == ["float16 weights are converted to float32"]
    torch.save({k: v.bfloat16() for k, v in tensors(state).items()}, tmp_path / "w")
    assert state_dicts.load(tmp_path / "w").notes == ["bfloat16 weights are converted to float32"]


@pytest.mark.slow
@pytest.mark.parametrize("make", [Named, NamedVgg], ids=["projection", "vgg"])
def test_map_of_names_gives_the_same_logits(make, digits, tmp_path, monkeypatch, capsys):
    """The map that the refusal prints gives the same logits, and the export has their names and bits."""
    monkeypatch.chdir(tmp_path)
    with torch.no_grad():
        module = random(make())
        images = torch.randn(2, 1, 32, 52)
        expected = module(images).permute(1, 0, 2).numpy()
    torch.save({"epoch": 3, "weights": module.state_dict()}, "w.pth")
    arguments = ["convert", "w.pth", "--charset", str(digits), "--out", "run"]
    assert main(arguments) == 2
    Path("names.map").write_text(capsys.readouterr().out)
    assert main([*arguments, "--map", "names.map"]) == 0
    assert "mapped layout" in capsys.readouterr().out
    reader = jaxcrnn.load("run")
    out = jax.jit(CRNN(reader.model).apply)(
        reader.variables, images.permute(0, 2, 3, 1).numpy(), np.asarray([52, 52], np.int32)
    )
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(out.logits, expected, rtol=0, atol=1e-4)
    assert main(["export", "run", "--format", "original", "--out", "back.pth"]) == 0
    back, state = torch.load("back.pth"), module.state_dict()
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], value) for name, value in state.items())


def test_convert_command_moves_the_blank(state, digits, tmp_path, capsys):
    """A run like any other; a blank that was last is moved, and moved back."""
    torch.save(tensors(state), tmp_path / "w.pth")
    arguments = ["convert", str(tmp_path / "w.pth"), "--charset", str(digits), "--pools", "32x1"]
    for blank in ("first", "last"):
        assert main([*arguments, "--out", str(tmp_path / blank), "--blank", blank]) == 0
    assert "sequential layout, 8 arrays, each used once; " in capsys.readouterr().out
    first, last = (open_run(tmp_path / blank) for blank in ("first", "last"))
    kernels = [eval_variables(run.state()[0])["params"]["head"]["kernel"] for run in (first, last)]
    np.testing.assert_array_equal(kernels[0][:, -1], kernels[1][:, 0])
    np.testing.assert_array_equal(kernels[0][:, :-1], kernels[1][:, 1:])
    for run in (first, last):
        back = importer.original(run, eval_variables(run.state()[0]))
        assert all(np.array_equal(back[key], state[key]) for key in state)
        assert back.keys() == state.keys()


def _without(state, key):
    return {k: v for k, v in state.items() if k != key}


def _file(make):
    def write(state, folder):
        path = folder / "w.pth"
        made = make(state)
        if isinstance(made, bytes):
            path.write_bytes(made)
        elif made is not None:
            torch.save(made, path)

    return write


def _truncated(state, folder):
    torch.save(tensors(state), folder / "w.pth")
    (folder / "w.pth").write_bytes((folder / "w.pth").read_bytes()[:3000])


def _truncated_old(state, folder):
    torch.save(tensors(state), folder / "w.pth", _use_new_zipfile_serialization=False)
    (folder / "w.pth").write_bytes((folder / "w.pth").read_bytes()[:-100])


def _zip(*names):
    def write(state, folder):
        with zipfile.ZipFile(folder / "w.pth", "w") as archive:
            for name in names:
                archive.writestr(name, b"")

    return write


def _hub(state, folder):
    (folder / "w.pth").mkdir()
    for name in ("model.bin", "config.json"):
        (folder / "w.pth" / name).touch()


def _dtrb(extra):
    return lambda state: {"FeatureExtraction.ConvNet.0.weight": torch.zeros(4, 1, 3, 3), extra: torch.zeros(3)}


WRONG = {
    "no file": (_file(lambda state: None), [], "no such file; expected a PyTorch"),
    "empty": (_file(lambda state: b""), [], "empty file"),
    "text": (_file(lambda state: b"hello, world, this is text"), [], "is a text file that begins with 'hello, world, "),
    "binary": (_file(lambda state: bytes(range(200))), [], "cannot be read as weights: the pickle was not"),
    "truncated": (_truncated, [], "is truncated or corrupted (File is not a zip file); download or copy it again"),
    "truncated before zip": (_truncated_old, [], "cannot be read as weights; truncated or corrupted (RuntimeError"),
    "safetensors cut": (_file(lambda state: b"\x40" + b"\0" * 7 + b'{"a":'), [], "truncated, or not a safetensors"),
    "a module": (
        _file(lambda state: narrow()),
        [],
        "is a whole pickled model (class torch_models.Sequential), which cannot be read without running its "
        "code; if you trust the file, save its state dict with Python where this class is installed: model = "
        'torch.load("w.pth", map_location="cpu", weights_only=False); '
        'torch.save(model.state_dict(), "w-weights.pth")',
    ),
    "a module before zip": (
        lambda state, folder: torch.save(narrow(), folder / "w.pth", _use_new_zipfile_serialization=False),
        [],
        "is a whole pickled model (class torch_models.Sequential)",
    ),
    "a module inside": (
        _file(lambda state: {"epoch": 1, "model": narrow()}),
        [],
        'torch.save(checkpoint["model"].state_dict(), "w-weights.pth")',
    ),
    "a NumPy scalar": (
        _file(lambda state: {"net": tensors(state), "best": np.float64(1)}),
        [],
        "more than arrays (numpy._core.multiarray.scalar), and nothing else is read; if you trust the "
        'file, save its state dict with Python: checkpoint = torch.load("w.pth", map_location="cpu", '
        'weights_only=False); torch.save(checkpoint["net"], "w-weights.pth")',
    ),
    "TorchScript": (
        _zip("w/data.pkl", "w/constants.pkl", "w/code/a.py"),
        [],
        "is a TorchScript archive, which contains code; save its state dict with Python: model = "
        'torch.jit.load("w.pth", map_location="cpu"); torch.save(model.state_dict(), "w-weights.pth")',
    ),
    "two state dicts": (
        _file(lambda s: {"model": tensors(s), "ema": tensors(s)}),
        [],
        "contains 2 state dicts: model (8 arrays), ema (8 arrays); choose one with --key, such as",
    ),
    "an optimizer": (
        _file(lambda state: {"state": {0: {"exp_avg": torch.ones(2, 2)}}, "param_groups": []}),
        [],
        "contains only the state of an optimizer (state, param_groups); expected a state dict",
    ),
    "an optimizer inside": (
        _file(lambda state: {"epoch": 1, "optim": {"state": {}, "param_groups": []}}),
        [],
        "contains the state of an optimizer (optim) and no weights; expected a state dict",
    ),
    "another zip": (_zip("a.png"), [], "is a zip archive of other files (a.png); expected a PyTorch or safetensors"),
    "a packed checkpoint": (_zip("a/b.pth"), [], "is a zip archive that contains a/b.pth; unpack it first"),
    "NumPy": (_zip("a.npy"), [], "contains arrays of numpy.savez; expected"),
    "ONNX": (_file(lambda state: b"\x08\x08\x12\x07pytorch\x1a\x052.9.0:"), [], "is an ONNX model"),
    "Git LFS": (_file(lambda state: b"version https://git-lfs.github.com/spec/v1\noid"), [], "is a Git LFS pointer"),
    "a page": (_file(lambda state: b"\n<!DOCTYPE html>\n"), [], "is a web page; download the file that the page links"),
    "HDF5": (_file(lambda state: b"\x89HDF\r\n\x1a\n\0"), [], "is an HDF5 file"),
    "gzip": (_file(lambda state: b"\x1f\x8b\x08\0"), [], "is compressed with gzip; decompress it first"),
    "8 bits": (
        lambda s, folder: torch_save_file({"a": torch.ones(2).to(torch.float8_e4m3fn)}, folder / "w.pth"),
        [],
        "a is F8_E4M3; expected numbers of type F16, BF16, F32 or F64",
    ),
    "a list": (_file(lambda state: [torch.zeros(2)]), [], "contains a list; expected a state dict"),
    "numbers": (_file(lambda state: {"a": 1}), [], "contains a dict of a; expected a state dict"),
    "no keys": (_file(lambda state: {}), [], "contains a dict; expected a state dict"),
    "foreign": (
        _file(lambda state: {"fc.weight": torch.zeros(2, 2)}),
        [],
        "unknown layout with keys fc.weight; it is not a CRNN: no convolutions and no LSTMs (weight_hh_l0); ",
    ),
    "straightened": (_file(_dtrb("Transformation.x")), [], "has a spatial transformer"),
    "attention": (_file(_dtrb("Prediction.attention_cell.i2h.weight")), [], "uses an attention decoder"),
    "no LSTMs": (_file(_dtrb("Prediction.weight")), [], "missing keys SequenceModeling"),
    "a key less": (_file(lambda s: tensors(_without(s, "fc.bias"))), [], "missing key fc.bias"),
    "no LSTM": (_file(lambda s: tensors({k: v for k, v in s.items() if "rnn" not in k})), [], " 0 LSTMs (rnn.0) and"),
    "a key more": (
        _file(lambda s: tensors(s | {"cnn.9.gamma": np.zeros(3)})),
        [],
        "1 unexpected keys: cnn.9.gamma [3]",
    ),
    "two heads": (_file(lambda s: tensors(s | {"a.weight": np.zeros((2, 2))})), [], "2 linear heads"),
    "a shape": (_file(lambda s: tensors(s | {"fc.bias": np.zeros(9)})), [], r"fc.bias gives shape [9]; expected [11]"),
    "rows": (_file(tensors), ["--height", "48", "--pools", "24x1"], "rnn.0.weight_ih_l0 gives shape [1, 4, 20]"),
    "too low": (_file(tensors), ["--height", "16", "--pools", "32x1"], "model.height is 16; too small"),
    "pools": (_file(tensors), ["--pools", "2x2,2x2"], "expected 1 values, one for each"),
    "pool": (_file(tensors), ["--pools", "big"], "expected 1 values, one for each"),
    "the charset": (_file(tensors), ["--charset", "short.txt"], "fc.weight has 11 classes; expected 3"),
    "no charset": (_file(tensors), ["--charset", "none.txt"], "none.txt: No such file"),
    "pixels": (_file(tensors), ["--black", "1"], "imported.black and imported.white are both 1"),
    "not finite": (_file(lambda s: tensors(s | {"fc.bias": np.full(11, np.nan)})), [], "fc.bias has non-finite values"),
    "beyond float32": (_file(lambda s: tensors(s | {"fc.bias": np.full(11, 1e300)})), [], "values beyond float32"),
    "repeated": (_file(lambda s: tensors(s) | {"fc.bias": torch.zeros(1).expand(10**12)}), [], "repeats 4 bytes"),
    "nothing in it": (_file(lambda s: tensors(s | {"fc.bias": np.zeros((4, 1, 0, 0))})), [], "1, 0, 0] is empty"),
    "shapes alone": (_file(lambda s: tensors(s) | {"fc.bias": torch.zeros(11, device="meta")}), [], "(device meta)"),
    "a prefix on some": (
        _file(lambda s: tensors(s, "model.") | {"loss.w": torch.ones(2)}),
        [],
        "8 of 9 names start with 'model.', which is removed only if all do (loss.w does not); "
        "read these alone with --key model; expected",
    ),
    "another pickle": (
        _file(lambda s: pickle.dumps({"a": 1}, protocol=4)),
        [],
        "cannot be read as weights: the pickle",
    ),
    "a folder": (lambda state, folder: (folder / "w.pth").mkdir(), [], "is a folder; expected a PyTorch"),
    "a folder of a hub": (_hub, [], "is a folder; expected a PyTorch or safetensors checkpoint, such as w.pth/mo"),
    "complex": (_file(lambda s: tensors(s | {"fc.bias": np.zeros(11, np.complex64)})), [], "dense real numbers"),
    "sparse": (_file(lambda s: tensors(s) | {"fc.bias": torch.zeros(11).to_sparse()}), [], "dense real numbers"),
    "one number": (_file(lambda s: tensors(s | {"cnn.0.weight": np.float32(1)})), [], "with 0 convolutions, 1 LSTMs"),
    "a flat LSTM": (
        _file(lambda s: tensors(s | {"rnn.0.weight_hh_l0": np.zeros(9)})),
        [],
        "shapes do not match the layout",
    ),
    "whole numbers": (_file(lambda s: tensors(s | {"fc.bias": np.zeros(11, np.int8)})), [], "expected floating-point"),
    "no pixel": (_file(tensors), ["--black", "nan"], "imported.black is nan; expected a finite number"),
    "too wide": (_file(tensors), ["--width", "99999"], "data.stretch is 99999; expected 1 to data.max_width=4096"),
    "pools elsewhere": (
        _file(lambda s: {"cnn.conv0.weight": torch.zeros(1)}),
        ["--pools", "2x2"],
        "applies to sequential",
    ),
    "a run there": (_file(tensors), ["--out", "."], "is not empty; expected a new folder"),
}


@pytest.mark.parametrize("name", WRONG)
def test_invalid_input_prints_one_line(name, state, digits, tmp_path, capsys, monkeypatch):
    write, options, message = WRONG[name]
    monkeypatch.chdir(tmp_path)
    Path("short.txt").write_text("a\nb\n")
    write(state, tmp_path)
    assert main(["convert", "w.pth", "--charset", str(digits), "--out", "run", *options]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert not Path("run").exists()


def test_unsafe_pickle_is_not_executed(digits, tmp_path, capsys):
    mark = tmp_path / "ran"
    (tmp_path / "plain").write_bytes(pickle.dumps({"a": Unsafe(mark)}))
    torch.save({"a": Unsafe(mark)}, tmp_path / "torch")
    reasons = {
        "plain": "cannot be read as weights: the pickle was not written by torch.save",
        "torch": "the pickle contains more than arrays (getattr), and nothing else is read",
    }
    for name, reason in reasons.items():
        assert main(["convert", str(tmp_path / name), "--charset", str(digits), "--out", str(tmp_path / "run")]) == 2
        assert reason in capsys.readouterr().err
    assert not mark.exists()
