"""Checkpoints of other programs: PyTorch modules with their key names, taken in, compared, and given back."""

import pickle
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxcrnn.charset import Charset
from jaxcrnn.cli.main import main
from jaxcrnn.interop import checkpoint_layouts, importer, state_dicts
from jaxcrnn.model import CRNN, ModelConfig
from jaxcrnn.runs.folder import open_run
from jaxcrnn.train import eval_variables

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
from torch_models import MODULES, arrays, narrow, random  # noqa: E402

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
    "half": lambda state, path: torch.save({k: v.half() for k, v in tensors(state).items()}, path),
    "safetensors": lambda state, path: save_file(dict(state), path),
}


@pytest.mark.parametrize("name", FILES)
def test_weights_of_every_file_format_are_read(name, state, tmp_path):
    FILES[name](state, tmp_path / "weights")
    weights = state_dicts.read(tmp_path / "weights")
    assert weights.keys() == state.keys()
    for key, value in state.items():
        expected = (
            value.astype(np.float16).astype(np.float32) if name == "half" and value.dtype == np.float32 else value
        )
        np.testing.assert_array_equal(weights[key], expected)


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


def _dtrb(extra):
    return lambda state: {"FeatureExtraction.ConvNet.0.weight": torch.zeros(4, 1, 3, 3), extra: torch.zeros(3)}


WRONG = {
    "no file": (_file(lambda state: None), [], "no such file; expected a PyTorch"),
    "empty": (_file(lambda state: b""), [], "empty file"),
    "text": (_file(lambda state: b"hello, world, this is text"), [], "cannot be read as weights"),
    "truncated": (_truncated, [], "cannot be read as weights"),
    "safetensors cut": (_file(lambda state: b"\x40" + b"\0" * 7 + b'{"a":'), [], "truncated, or not a safetensors"),
    "a module": (_file(lambda state: narrow()), [], "contains more than arrays"),
    "a list": (_file(lambda state: [torch.zeros(2)]), [], "contains a list; expected a state dict"),
    "numbers": (_file(lambda state: {"a": 1}), [], "contains a dict of a; expected a state dict"),
    "no keys": (_file(lambda state: {}), [], "contains a dict; expected a state dict"),
    "foreign": (
        _file(lambda state: {"fc.weight": torch.zeros(2, 2)}),
        [],
        "unknown layout with keys fc.weight; expected",
    ),
    "straightened": (_file(_dtrb("Transformation.x")), [], "has a spatial transformer"),
    "attention": (_file(_dtrb("Prediction.attention_cell.i2h.weight")), [], "uses an attention decoder"),
    "no LSTMs": (_file(_dtrb("Prediction.weight")), [], "missing keys SequenceModeling"),
    "a key less": (_file(lambda s: tensors(_without(s, "fc.bias"))), [], "missing key fc.bias"),
    "no LSTM": (_file(lambda s: tensors({k: v for k, v in s.items() if "rnn" not in k})), [], "with 0 LSTMs"),
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
        "8 of 9 names start with 'model.', which is removed only if all do (loss.w does not)",
    ),
    "another pickle": (
        _file(lambda s: pickle.dumps({"a": 1}, protocol=4)),
        [],
        "cannot be read as weights: the pickle",
    ),
    "a folder": (lambda state, folder: (folder / "w.pth").mkdir(), [], "is a folder; expected a PyTorch"),
    "complex": (_file(lambda s: tensors(s | {"fc.bias": np.zeros(11, np.complex64)})), [], "dense real numbers"),
    "sparse": (_file(lambda s: tensors(s) | {"fc.bias": torch.zeros(11).to_sparse()}), [], "dense real numbers"),
    "one number": (_file(lambda s: tensors(s | {"cnn.0.weight": np.float32(1)})), [], "shapes do not match the layout"),
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
    reasons = {"plain": "the pickle was not written by torch.save", "torch": "the pickle contains more than arrays"}
    for name, reason in reasons.items():
        assert main(["convert", str(tmp_path / name), "--charset", str(digits), "--out", str(tmp_path / "run")]) == 2
        assert f"cannot be read as weights: {reason}" in capsys.readouterr().err
    assert not mark.exists()
