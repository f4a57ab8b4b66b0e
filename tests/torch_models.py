"""PyTorch modules with the key names of other programs. Importing this needs PyTorch."""

import numpy as np
import torch
from torch import nn


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
        pools = {
            0: nn.MaxPool2d(2),
            1: nn.MaxPool2d(2),
            3: nn.MaxPool2d(2, (2, 1), (0, 1)),
            5: nn.MaxPool2d(2, (2, 1), (0, 1)),
        }
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
        conv(1, a, 3, 1, 1),
        relu(),
        nn.MaxPool2d(2),
        conv(a, b, 3, 1, 1),
        relu(),
        nn.MaxPool2d(2),
        conv(b, c, 3, 1, 1),
        relu(),
        conv(c, c, 3, 1, 1),
        relu(),
        nn.MaxPool2d((2, 1)),
        conv(c, out, 3, 1, 1, bias=False),
        bn(out),
        relu(),
        conv(out, out, 3, 1, 1, bias=False),
        bn(out),
        relu(),
        nn.MaxPool2d((2, 1)),
        conv(out, out, 2, 1, 0),
        relu(),
    )


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
        nn.Conv2d(1, 4, 3, 1, 1),
        relu(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 5, 3, 1, 1, bias=False),
        nn.BatchNorm2d(5),
        relu(),
        nn.MaxPool2d(2),
        nn.Conv2d(5, 5, 3, 1, 1),
        relu(),
        nn.Conv2d(5, 6, 3, 1, 1),
        relu(),
        nn.MaxPool2d((8, 1)),
        rnn=nn.LSTM(6, 5, 2, bidirectional=True),
    )


class Named(nn.Module):
    """A CRNN whose parts have names of their own; its rows are flattened channel by channel."""

    def __init__(self, hidden=5, classes=11):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 4, 3, 1, 1),
            nn.BatchNorm2d(4),
            nn.LeakyReLU(0.0),
            nn.MaxPool2d(2),
            nn.Conv2d(4, 6, 3, 1, 1, bias=False),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 6, 3, 1, 1),
            nn.ReLU(),
            nn.MaxPool2d((4, 1)),
        )
        self.projection = nn.Linear(12, 7)
        self.lstm = nn.LSTM(7, hidden, 2, bidirectional=True, batch_first=True)
        self.classifier = nn.Linear(2 * hidden, classes)

    def forward(self, x):
        x = self.features(x).permute(0, 3, 1, 2).flatten(2)
        return self.classifier(self.lstm(self.projection(x))[0]).transpose(0, 1)


class NamedVgg(nn.Module):
    """The convolutions of crnn.pytorch, two one-layer LSTMs and other names."""

    def __init__(self, hidden=6, classes=11):
        super().__init__()
        original = CrnnPytorch(hidden=hidden, classes=classes)
        for i in range(7):
            setattr(self, f"conv{i + 1}", original.cnn.get_submodule(f"conv{i}"))
        for i in (2, 4, 6):
            setattr(self, f"bn{i + 1}", original.cnn.get_submodule(f"batchnorm{i}"))
        self.shape = original.cnn
        self.encoder, self.decoder = (nn.LSTM(n, hidden, bidirectional=True) for n in (512, 2 * hidden))
        self.out = nn.Linear(2 * hidden, classes)

    def state_dict(self, *args, **kwargs):
        return {k: v for k, v in super().state_dict(*args, **kwargs).items() if not k.startswith("shape.")}

    def forward(self, x):
        return self.out(self.decoder(self.encoder(time_major(self.shape(x)))[0])[0])


def narrow():
    return Sequential(nn.Conv2d(1, 4, 5, 1, 2), nn.ReLU(), nn.MaxPool2d((32, 1)), rnn=nn.LSTM(4, 5))


MODULES = {
    "crnn.pytorch": (CrnnPytorch, {}),
    "crnn.pytorch in color": (lambda: CrnnPytorch(colors=3), {}),
    "GitYCC": (GitYCC, {}),
    "dtrb vgg": (lambda: Dtrb(vgg, 32), {}),
    "dtrb resnet": (lambda: Dtrb(ResNet, 32), {}),
    "EasyOCR, 64 rows": (lambda: Dtrb(vgg, 64), {"height": 64}),
    "sequential": (plain, {"pools": "2x2,2x2,-,8x1"}),
    "sequential, guessed": (plain, {}),
    "one convolution": (narrow, {"pools": "32x1"}),
}


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
