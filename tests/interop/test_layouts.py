"""Checkpoints of other programs: PyTorch modules with their key names, taken in, compared, and given back."""

import pickle
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxcrnn.charset import Charset
from jaxcrnn.cli.main import main
from jaxcrnn.interop import importer, layouts, state_dicts
from jaxcrnn.model import CRNN, ModelConfig
from jaxcrnn.runs.folder import open_run
from jaxcrnn.train import eval_variables

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
nn = torch.nn
CHARSET = Charset("0123456789")


class BidirectionalLSTM(nn.Module):
    def __init__(self, size, hidden, out, name):
        super().__init__()
        self.rnn = nn.LSTM(size, hidden, bidirectional=True)
        self.name = name
        self.add_module(name, nn.Linear(2 * hidden, out))

    def forward(self, x):
        return getattr(self, self.name)(self.rnn(x)[0])


def time_major(x):
    return x.squeeze(2).permute(2, 0, 1)


class CrnnPytorch(nn.Module):
    """github.com/meijieru/crnn.pytorch, models/crnn.py."""

    def __init__(self, colors=1, hidden=6, classes=11):
        super().__init__()
        self.cnn, size = nn.Sequential(), colors
        kernels, pads, channels = (3, 3, 3, 3, 3, 3, 2), (1, 1, 1, 1, 1, 1, 0), (64, 128, 256, 256, 512, 512, 512)
        pools = {0: nn.MaxPool2d(2), 1: nn.MaxPool2d(2), 3: nn.MaxPool2d(2, (2, 1), (0, 1)),
                 5: nn.MaxPool2d(2, (2, 1), (0, 1))}  # fmt: skip
        for i in range(7):
            self.cnn.add_module(f"conv{i}", nn.Conv2d(size, channels[i], kernels[i], 1, pads[i]))
            if i in (2, 4, 6):
                self.cnn.add_module(f"batchnorm{i}", nn.BatchNorm2d(channels[i]))
            self.cnn.add_module(f"relu{i}", nn.ReLU())
            if i in pools:
                self.cnn.add_module(f"pooling{i}", pools[i])
            size = channels[i]
        self.rnn = nn.Sequential(
            BidirectionalLSTM(512, hidden, hidden, "embedding"), BidirectionalLSTM(hidden, hidden, classes, "embedding")
        )

    def forward(self, x):
        return self.rnn(time_major(self.cnn(x)))


class GitYCC(nn.Module):
    """github.com/GitYCC/crnn-pytorch, src/model.py."""

    def __init__(self, hidden=6, classes=11):
        super().__init__()
        self.cnn, size = nn.Sequential(), 1
        channels, pools = (64, 128, 256, 256, 512, 512, 512), {0: (2, 2), 1: (2, 2), 3: (2, 1), 5: (2, 1)}
        for i in range(7):
            self.cnn.add_module(f"conv{i}", nn.Conv2d(size, channels[i], 2 if i == 6 else 3, 1, int(i < 6)))
            if i in (4, 5):
                self.cnn.add_module(f"batchnorm{i}", nn.BatchNorm2d(channels[i]))
            self.cnn.add_module(f"relu{i}", nn.ReLU())
            if i in pools:
                self.cnn.add_module(f"pooling{i}", nn.MaxPool2d(pools[i]))
            size = channels[i]
        self.map_to_seq = nn.Linear(512, 5)
        self.rnn1, self.rnn2 = (nn.LSTM(n, hidden, bidirectional=True) for n in (5, 2 * hidden))
        self.dense = nn.Linear(2 * hidden, classes)

    def forward(self, x):
        x = self.map_to_seq(time_major(self.cnn(x)))
        return self.dense(self.rnn2(self.rnn1(x)[0])[0])


class BasicBlock(nn.Module):
    def __init__(self, size, out):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(size, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
        self.conv2, self.bn2 = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
        self.downsample = None
        if size != out:
            self.downsample = nn.Sequential(nn.Conv2d(size, out, 1, bias=False), nn.BatchNorm2d(out))

    def forward(self, x):
        around = x if self.downsample is None else self.downsample(x)
        return torch.relu(self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))) + around)


class ResNet(nn.Module):
    """github.com/clovaai/deep-text-recognition-benchmark, modules/feature_extraction.py."""

    def __init__(self, out):
        super().__init__()
        sizes, blocks = (out // 4, out // 2, out, out), (1, 2, 5, 3)
        self._conv("0_1", 1, out // 16)
        self._conv("0_2", out // 16, out // 8)
        before = out // 8
        for i, (size, count) in enumerate(zip(sizes, blocks, strict=True), start=1):
            layer = nn.Sequential(*(BasicBlock(before if k == 0 else size, size) for k in range(count)))
            self.add_module(f"layer{i}", layer)
            before = size
            if i < 4:
                self._conv(str(i), size, size)
        self._conv("4_1", out, out, 2, (2, 1), (0, 1))
        self._conv("4_2", out, out, 2, 1, 0)

    def _conv(self, name, size, out, kernel=3, stride=1, pad=1):
        self.add_module(f"conv{name}", nn.Conv2d(size, out, kernel, stride, pad, bias=False))
        self.add_module(f"bn{name}", nn.BatchNorm2d(out))

    def _run(self, x, name):
        return torch.relu(getattr(self, f"bn{name}")(getattr(self, f"conv{name}")(x)))

    def forward(self, x):
        pool = torch.nn.functional.max_pool2d
        x = pool(self._run(self._run(x, "0_1"), "0_2"), 2)
        x = pool(self._run(self.layer1(x), "1"), 2)
        x = pool(self._run(self.layer2(x), "2"), 2, (2, 1), (0, 1))
        x = self._run(self.layer3(x), "3")
        return self._run(self._run(self.layer4(x), "4_1"), "4_2")


def vgg(out):
    a, b, c = out // 8, out // 4, out // 2
    conv, relu, bn = nn.Conv2d, nn.ReLU, nn.BatchNorm2d
    return nn.Sequential(
        conv(1, a, 3, 1, 1), relu(), nn.MaxPool2d(2), conv(a, b, 3, 1, 1), relu(), nn.MaxPool2d(2),
        conv(b, c, 3, 1, 1), relu(), conv(c, c, 3, 1, 1), relu(), nn.MaxPool2d((2, 1)),
        conv(c, out, 3, 1, 1, bias=False), bn(out), relu(), conv(out, out, 3, 1, 1, bias=False), bn(out), relu(),
        nn.MaxPool2d((2, 1)), conv(out, out, 2, 1, 0), relu(),
    )  # fmt: skip


class Dtrb(nn.Module):
    """deep-text-recognition-benchmark's model.py without straightening and attention; EasyOCR's is the same."""

    def __init__(self, net, out, hidden=6, classes=11):
        super().__init__()
        self.FeatureExtraction = nn.Module()
        self.FeatureExtraction.ConvNet = net(out)
        self.SequenceModeling = nn.Sequential(
            BidirectionalLSTM(out, hidden, hidden, "linear"), BidirectionalLSTM(hidden, hidden, hidden, "linear")
        )
        self.Prediction = nn.Linear(hidden, classes)

    def forward(self, x):
        x = self.FeatureExtraction.ConvNet(x).mean(2)
        return self.Prediction(self.SequenceModeling(x.permute(2, 0, 1)))


class Sequential(nn.Module):
    def __init__(self, *cnn, rnn, classes=11):
        super().__init__()
        self.cnn, self.rnn = nn.Sequential(*cnn), nn.Sequential(rnn)
        self.fc = nn.Linear(rnn.hidden_size * (1 + rnn.bidirectional), classes)

    def forward(self, x):
        return self.fc(self.rnn[0](time_major(self.cnn(x)))[0])


def plain():
    relu = nn.ReLU
    return Sequential(
        nn.Conv2d(1, 4, 3, 1, 1), relu(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 3, 1, 1, bias=False), nn.BatchNorm2d(5),
        relu(), nn.MaxPool2d(2), nn.Conv2d(5, 5, 3, 1, 1), relu(), nn.Conv2d(5, 6, 3, 1, 1), relu(),
        nn.MaxPool2d((8, 1)), rnn=nn.LSTM(6, 5, 2, bidirectional=True),
    )  # fmt: skip


def narrow():
    return Sequential(nn.Conv2d(1, 4, 5, 1, 2), nn.ReLU(), nn.MaxPool2d((32, 1)), rnn=nn.LSTM(4, 5))


MODULES = {
    "crnn.pytorch": (CrnnPytorch, {}), "crnn.pytorch in color": (lambda: CrnnPytorch(colors=3), {}),
    "GitYCC": (GitYCC, {}), "dtrb vgg": (lambda: Dtrb(vgg, 32), {}), "dtrb resnet": (lambda: Dtrb(ResNet, 32), {}),
    "EasyOCR, 64 rows": (lambda: Dtrb(vgg, 64), {"height": 64}),
    "sequential": (plain, {"pools": "2x2,2x2,-,8x1"}), "sequential, guessed": (plain, {}),
    "one convolution": (narrow, {"pools": "32x1"}),
}  # fmt: skip
# What reads the others of the same kind reads these: a colored one a gray one, a guessed one a spelled one.
SLOW = ("crnn.pytorch", "GitYCC", "dtrb vgg", "sequential")


def random(module, seed=0):
    """Random weights and statistics, none of them what a fresh module has."""
    torch.manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            scale = 1.5 / np.sqrt(max(1, tensor[0].numel())) if tensor.ndim > 1 else 0.3
            tensor.copy_(torch.randn(tensor.shape) * scale + (1.0 if "weight" in name and tensor.ndim == 1 else 0.0))
            if "running_var" in name:
                tensor.copy_(torch.rand(tensor.shape) + 0.5)
        else:
            tensor.fill_(7)
    return module.eval()


def arrays(module):
    return {name: tensor.numpy().copy() for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in MODULES])
def test_there_the_same_numbers_and_back_bit_for_bit(name):
    make, given = MODULES[name]
    with torch.no_grad():
        module = random(make())
        colors = 3 if "color" in name else 1
        images = torch.randn(2, colors, given.get("height", 32), 52)
        expected = module(images).permute(1, 0, 2).numpy()
    state = arrays(module)
    layout, variables, counters = importer.converted(state, CHARSET, **given)
    kept = jax.tree.map(np.copy, variables)
    model = ModelConfig(**layout.model)
    widths = np.asarray([52, 52], np.int32)
    out = jax.jit(CRNN(model).apply)(variables, images.permute(0, 2, 3, 1).numpy(), widths)
    assert out.lengths.tolist() == [expected.shape[1]] * 2 == [model.frames(52)] * 2
    assert out.features.shape[2] == model.features
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(out.logits, expected, rtol=0, atol=1e-4)
    jax.tree.map(np.testing.assert_array_equal, variables, kept)
    back = layouts.state_of(layout, variables, counters)
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
    """A pickle that runs a command when it is read as one."""

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
def test_files_of_every_age(name, state, tmp_path):
    FILES[name](state, tmp_path / "weights")
    found = state_dicts.read(tmp_path / "weights")
    assert found.keys() == state.keys()
    for key, value in state.items():
        expected = (
            value.astype(np.float16).astype(np.float32) if name == "half" and value.dtype == np.float32 else value
        )
        np.testing.assert_array_equal(found[key], expected)


def test_the_command(state, digits, tmp_path, capsys):
    """A run like any other; a blank that was last is moved, and moved back."""
    torch.save(tensors(state), tmp_path / "w.pth")
    arguments = ["convert", str(tmp_path / "w.pth"), "--charset", str(digits), "--pools", "32x1"]
    for blank in ("first", "last"):
        assert main([*arguments, "--out", str(tmp_path / blank), "--blank", blank]) == 0
    assert "sequential, 8 arrays, each used once; " in capsys.readouterr().out
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
    "no file": (_file(lambda state: None), [], "no such file; expected a checkpoint"),
    "empty": (_file(lambda state: b""), [], "the file is empty"),
    "text": (_file(lambda state: b"hello, world, this is text"), [], "not read as weights alone"),
    "truncated": (_truncated, [], "not read as weights alone"),
    "safetensors cut": (_file(lambda state: b"\x40" + b"\0" * 7 + b'{"a":'), [], "truncated, or no safetensors"),
    "a module": (_file(lambda state: narrow()), [], "asks for more than arrays"),
    "a list": (_file(lambda state: [torch.zeros(2)]), [], "holds a list; expected a state dict"),
    "numbers": (_file(lambda state: {"a": 1}), [], "holds a dict of a; expected a state dict"),
    "no keys": (_file(lambda state: {}), [], "holds a dict; expected a state dict"),
    "foreign": (_file(lambda state: {"fc.weight": torch.zeros(2, 2)}), [], "of no known layout: fc.weight; expected"),
    "straightened": (_file(_dtrb("Transformation.x")), [], "straightens its images first"),
    "attention": (_file(_dtrb("Prediction.attention_cell.i2h.weight")), [], "decodes with attention"),
    "no LSTMs": (_file(_dtrb("Prediction.weight")), [], "no SequenceModeling"),
    "a key less": (_file(lambda s: tensors(_without(s, "fc.bias"))), [], "lacks fc.bias"),
    "no LSTM": (_file(lambda s: tensors({k: v for k, v in s.items() if "rnn" not in k})), [], "with 0 LSTMs"),
    "a key more": (_file(lambda s: tensors(s | {"cnn.9.gamma": np.zeros(3)})), [], "not have: cnn.9.gamma [3]"),
    "two heads": (_file(lambda s: tensors(s | {"a.weight": np.zeros((2, 2))})), [], "2 linear layers"),
    "a shape": (_file(lambda s: tensors(s | {"fc.bias": np.zeros(9)})), [], r"fc.bias makes [9]; expected [11]"),
    "rows": (_file(tensors), ["--height", "48", "--pools", "24x1"], "rnn.0.weight_ih_l0 makes [1, 4, 20]"),
    "too low": (_file(tensors), ["--height", "16", "--pools", "32x1"], "model.height is 16; expected more"),
    "pools": (_file(tensors), ["--pools", "2x2,2x2"], "expected 1 of them"),
    "pool": (_file(tensors), ["--pools", "big"], "expected 1 of them"),
    "the charset": (_file(tensors), ["--charset", "short.txt"], "11 classes, fc.weight says; the charset's 2"),
    "no charset": (_file(tensors), ["--charset", "none.txt"], "none.txt: No such file"),
    "pixels": (_file(tensors), ["--black", "1"], "imported.black and imported.white are both 1"),
    "not finite": (_file(lambda s: tensors(s | {"fc.bias": np.full(11, np.nan)})), [], "fc.bias has values that"),
    "beyond float32": (_file(lambda s: tensors(s | {"fc.bias": np.full(11, 1e300)})), [], "not finite numbers of"),
    "repeated": (_file(lambda s: tensors(s) | {"fc.bias": torch.zeros(1).expand(10**12)}), [], "repeats 4 bytes"),
    "nothing in it": (_file(lambda s: tensors(s | {"fc.bias": np.zeros((4, 1, 0, 0))})), [], "1, 0, 0] has no number"),
    "shapes alone": (_file(lambda s: tensors(s) | {"fc.bias": torch.zeros(11, device="meta")}), [], "(device meta)"),
    "a prefix on some": (_file(lambda s: tensors(s, "model.") | {"loss.w": torch.ones(2)}), [],
                         "8 of 9 names begin with 'model.', which is left out only where all do: loss.w does not"),
    "another pickle": (_file(lambda s: pickle.dumps({"a": 1}, protocol=4)), [], "not read as weights alone: a pickle"),
    "a folder": (lambda state, folder: (folder / "w.pth").mkdir(), [], "a folder; expected a checkpoint"),
    "complex": (_file(lambda s: tensors(s | {"fc.bias": np.zeros(11, np.complex64)})), [], "plain real numbers"),
    "sparse": (_file(lambda s: tensors(s) | {"fc.bias": torch.zeros(11).to_sparse()}), [], "plain real numbers"),
    "one number": (_file(lambda s: tensors(s | {"cnn.0.weight": np.float32(1)})), [], "shapes that no such model"),
    "a flat LSTM": (_file(lambda s: tensors(s | {"rnn.0.weight_hh_l0": np.zeros(9)})), [], "shapes that no such model"),
    "whole numbers": (_file(lambda s: tensors(s | {"fc.bias": np.zeros(11, np.int8)})), [], "expected floating point"),
    "no pixel": (_file(tensors), ["--black", "nan"], "imported.black is nan; expected a finite number"),
    "too wide": (_file(tensors), ["--width", "99999"], "data.stretch is 99999; expected 1 to data.max_width=4096"),
    "pools elsewhere": (_file(lambda s: {"cnn.conv0.weight": torch.zeros(1)}), ["--pools", "2x2"], "is for sequential"),
    "a run there": (_file(tensors), ["--out", "."], "is not empty; expected a new folder"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_gets_one_line(name, state, digits, tmp_path, capsys, monkeypatch):
    write, options, message = WRONG[name]
    monkeypatch.chdir(tmp_path)
    Path("short.txt").write_text("a\nb\n")
    write(state, tmp_path)
    assert main(["convert", "w.pth", "--charset", str(digits), "--out", "run", *options]) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    assert message in said.err
    assert not Path("run").exists()


def test_a_pickle_never_runs(digits, tmp_path, capsys):
    mark = tmp_path / "ran"
    (tmp_path / "plain").write_bytes(pickle.dumps({"a": Unsafe(mark)}))
    torch.save({"a": Unsafe(mark)}, tmp_path / "torch")
    reasons = {"plain": "a pickle of a kind that torch.save does not write", "torch": "it asks for more than arrays"}
    for name, reason in reasons.items():
        assert main(["convert", str(tmp_path / name), "--charset", str(digits), "--out", str(tmp_path / "run")]) == 2
        assert f"not read as weights alone: {reason}" in capsys.readouterr().err
    assert not mark.exists()
