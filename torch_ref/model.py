"""The CRNN, each line at its own width: no padding anywhere, so nothing has to be masked.

Shi, Bai and Yao (2015): convolutions, two bidirectional LSTMs, a linear head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torch_ref.types import Outputs


class Layer(NamedTuple):
    """Channels, batch normalisation, pooling (rows, columns), its column stride and padding, kernel, no padding."""

    features: int
    norm: bool = False
    pool: tuple[int, int] | None = None
    stride: int = 2
    pad: int = 0
    kernel: tuple[int, int] = (3, 3)
    valid: bool = False


BACKBONES = {
    "vgg": (
        Layer(64, pool=(2, 2)),
        Layer(128, pool=(2, 2)),
        Layer(256, norm=True),
        Layer(256, pool=(2, 2), stride=1, pad=1),
        Layer(512, norm=True),
        Layer(512, pool=(2, 2), stride=1, pad=1),
        Layer(512, norm=True, kernel=(2, 2), valid=True),
    ),
    "small": (
        Layer(32, norm=True, pool=(2, 2)),
        Layer(64, norm=True, pool=(2, 2)),
        Layer(128, norm=True, pool=(2, 1), stride=1),
        Layer(128, norm=True, pool=(2, 1), stride=1),
        Layer(256, norm=True, kernel=(2, 1), valid=True),
    ),
}


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a recogniser."""

    backbone: str = "small"
    hidden: int = 256
    standardize: bool = False
    num_classes: int = 0
    blank: int = 0


class Norm(nn.Module):
    """Batch normalisation over the pixels of lines of different widths.

    The running variance is the biased one, as in flax; torch's own layer stores the unbiased.
    """

    def __init__(self, size: int, momentum: float = 0.1, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(size)), nn.Parameter(torch.zeros(size))
        self.register_buffer("running_mean", torch.zeros(size))
        self.register_buffer("running_var", torch.ones(size))
        self.momentum, self.epsilon = momentum, epsilon

    def forward(self, lines: list[Tensor]) -> list[Tensor]:
        mean, var = self.running_mean, self.running_var
        if self.training:
            pixels = torch.cat([line.flatten(1) for line in lines], 1)  # [channels, all pixels of the batch]
            mean, var = pixels.mean(1), pixels.var(1, correction=0)
            with torch.no_grad():
                self.running_mean += self.momentum * (mean - self.running_mean)
                self.running_var += self.momentum * (var - self.running_var)
        scale = self.weight / torch.sqrt(var + self.epsilon)
        return [(line - mean[:, None, None]) * scale[:, None, None] + self.bias[:, None, None] for line in lines]


class Backbone(nn.Module):
    """Lines ``[1,32,w]`` to feature rows ``[t,D]``; an empty line stays empty."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.layers, size = BACKBONES[name], 1
        for i, layer in enumerate(self.layers):
            self.add_module(f"conv{i}", nn.Conv2d(size, layer.features, layer.kernel, bias=not layer.norm))
            if layer.norm:
                self.add_module(f"norm{i}", Norm(layer.features))
            size = layer.features

    def forward(self, lines: list[Tensor]) -> list[Tensor]:
        for i, layer in enumerate(self.layers):
            lines = _each(lines, layer.features, lambda x, i=i: self._convolve(i, x))
            if layer.norm:
                there = [x for x in lines if x.shape[2]]
                normed = iter(getattr(self, f"norm{i}")(there) if there else [])
                lines = [next(normed) if x.shape[2] else x for x in lines]
            lines = _each(lines, layer.features, lambda x, layer=layer: _pool(layer, F.relu(x)))
        return [x.permute(2, 1, 0).flatten(1) for x in lines]

    def _convolve(self, i: int, x: Tensor) -> Tensor:
        rows, columns = self.layers[i].kernel
        if self.layers[i].valid:
            if x.shape[2] < columns:
                return x.new_zeros(self.layers[i].features, x.shape[1] - rows + 1, 0)
        else:
            x = F.pad(x, (columns // 2, columns // 2, rows // 2, rows // 2))
        return getattr(self, f"conv{i}")(x[None])[0]


def _each(lines: list[Tensor], channels: int, change: object) -> list[Tensor]:
    """Applies ``change`` to every line that has a column left."""
    return [change(x) if x.shape[2] else x.new_zeros(channels, 1, 0) for x in lines]  # type: ignore[operator]


def _pool(layer: Layer, x: Tensor) -> Tensor:
    if not layer.pool:
        return x
    if x.shape[2] + 2 * layer.pad < layer.pool[1]:
        return x.new_zeros(layer.features, 1, 0)
    return F.max_pool2d(x[None], layer.pool, (layer.pool[0], layer.stride), (0, layer.pad))[0]


class CRNN(nn.Module):
    """``CRNN(config)(images [B,H,W,1], widths [B]) -> Outputs``.

    The LSTMs are torch's, whose second bias (``bias_hh``) stays at zero: two biases that are only ever added would move
    twice as fast as one.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config.backbone)
        size = BACKBONES[config.backbone][-1].features
        self.lstm0 = nn.LSTM(size, config.hidden, bidirectional=True, batch_first=True)
        self.lstm1 = nn.LSTM(2 * config.hidden, config.hidden, bidirectional=True, batch_first=True)
        self.head = nn.Linear(2 * config.hidden, config.num_classes)
        for name, parameter in self.named_parameters():
            if "bias_hh" in name:
                nn.init.zeros_(parameter)
                parameter.requires_grad_(False)

    def forward(self, images: Tensor, widths: Tensor) -> Outputs:
        rows = self.backbone(self.lines(images, widths))
        lengths = torch.tensor([len(x) for x in rows])
        frames = self._frames(images.shape[2])
        features = images.new_zeros(len(rows), frames, 2 * self.config.hidden)
        there = [b for b in range(len(rows)) if lengths[b]]
        if there:
            read = self._read([rows[b] for b in there])
            features = torch.stack([
                F.pad(read[there.index(b)], (0, 0, 0, frames - int(lengths[b]))) if b in there else features[b]
                for b in range(len(rows))
            ])  # fmt: skip
        return Outputs(self.head(features), features, lengths)

    def lines(self, images: Tensor, widths: Tensor) -> list[Tensor]:
        """Each image ``[1,H,w]`` at its own width, at mean 0 and variance 1 where the model wants that."""
        lines = []
        for image, width in zip(images, widths.tolist(), strict=True):
            line = image[:, :width, 0][None]
            if self.config.standardize and width:
                line = (line - line.mean()) / torch.sqrt(line.var(correction=0) + 1e-4)
            lines.append(line)
        return lines

    def _read(self, rows: list[Tensor]) -> list[Tensor]:
        packed = nn.utils.rnn.pack_sequence(rows, enforce_sorted=False)
        packed = self.lstm1(self.lstm0(packed)[0])[0]
        return nn.utils.rnn.unpack_sequence(packed)

    def _frames(self, width: int) -> int:
        """Frames that a line as wide as the padded images would have."""
        for layer in self.backbone.layers:
            width -= layer.kernel[1] - 1 if layer.valid else 0
            if layer.pool:
                width = (width + 2 * layer.pad - layer.pool[1]) // layer.stride + 1
        return width
