"""The CRNN, with each line at its own width: without padding, nothing has to be masked.

Lines of the same width go through the layers together. Shi, Bai and Yao (2015): convolutions, two bidirectional LSTMs
and a linear head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torch_ref.types import Outputs


class Layer(NamedTuple):
    """A convolution: channels, normalisation, pooling with its column stride and padding, kernel, and no padding."""

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
    "tiny": (
        Layer(8, norm=True, pool=(2, 2)),
        Layer(16, norm=True, pool=(2, 2)),
        Layer(32, norm=True, kernel=(8, 1), valid=True),
    ),
}


@dataclass(frozen=True)
class ModelConfig:
    """The architecture of a recogniser."""

    backbone: str = "small"
    hidden: int = 256
    standardize: bool = False
    num_classes: int = 0
    blank: int = 0


class Norm(nn.Module):
    """Batch normalisation over the pixels of lines of different widths.

    The running variance is the biased one, as in flax; torch's own layer keeps the unbiased one.
    """

    def __init__(self, size: int, momentum: float = 0.1, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(size)), nn.Parameter(torch.zeros(size))
        self.register_buffer("running_mean", torch.zeros(size))
        self.register_buffer("running_var", torch.ones(size))
        self.momentum, self.epsilon = momentum, epsilon

    def forward(self, groups: list[Tensor]) -> list[Tensor]:
        mean, var = self.running_mean, self.running_var
        if self.training:
            if len(groups) == 1:
                return [self._together(groups[0])]
            pixels = torch.cat([x.transpose(0, 1).flatten(1) for x in groups], 1)  # [channels, pixels of the batch]
            mean, var = pixels.mean(1), pixels.var(1, correction=0)
            self._remember(mean, var)
        scale = self.weight / torch.sqrt(var + self.epsilon)
        return [(x - mean[:, None, None]) * scale[:, None, None] + self.bias[:, None, None] for x in groups]

    def _together(self, x: Tensor) -> Tensor:
        """Normalise lines of one width with torch's own function, at its own speed."""
        mean, var = torch.zeros_like(self.running_mean), torch.zeros_like(self.running_var)
        out = F.batch_norm(x, mean, var, self.weight, self.bias, True, 1.0, self.epsilon)
        pixels = x.numel() // x.shape[1]
        self._remember(mean, var * ((pixels - 1) / pixels))
        return out

    @torch.no_grad()
    def _remember(self, mean: Tensor, var: Tensor) -> None:
        self.running_mean += self.momentum * (mean - self.running_mean)
        self.running_var += self.momentum * (var - self.running_var)


class Backbone(nn.Module):
    """Map groups of lines ``[n,1,32,w]`` to feature rows ``[n,t,D]``; empty lines stay empty."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.layers, size = BACKBONES[name], 1
        for i, layer in enumerate(self.layers):
            self.add_module(f"conv{i}", nn.Conv2d(size, layer.features, layer.kernel, bias=not layer.norm))
            if layer.norm:
                self.add_module(f"norm{i}", Norm(layer.features))
            size = layer.features

    def forward(self, groups: list[Tensor]) -> list[Tensor]:
        for i, layer in enumerate(self.layers):
            groups = _each(groups, layer.features, lambda x, i=i: self._convolve(i, x))
            if layer.norm:
                nonempty = [x for x in groups if x.shape[3]]
                normed = iter(getattr(self, f"norm{i}")(nonempty) if nonempty else [])
                groups = [next(normed) if x.shape[3] else x for x in groups]
            groups = _each(groups, layer.features, lambda x, layer=layer: _pool(layer, F.relu(x)))
        return [x.permute(0, 3, 2, 1).flatten(2) for x in groups]

    def _convolve(self, i: int, x: Tensor) -> Tensor:
        convolution, (rows, columns) = getattr(self, f"conv{i}"), self.layers[i].kernel
        if not self.layers[i].valid:
            return F.conv2d(x, convolution.weight, convolution.bias, padding=(rows // 2, columns // 2))
        if x.shape[3] < columns:
            return x.new_zeros(len(x), self.layers[i].features, x.shape[2] - rows + 1, 0)
        return convolution(x)


def _each(groups: list[Tensor], channels: int, change: object) -> list[Tensor]:
    """Apply ``change`` to the groups that have a column left."""
    return [change(x) if x.shape[3] else x.new_zeros(len(x), channels, 1, 0) for x in groups]  # type: ignore[operator]


def _pool(layer: Layer, x: Tensor) -> Tensor:
    if not layer.pool:
        return x
    if x.shape[3] + 2 * layer.pad < layer.pool[1]:
        return x.new_zeros(len(x), layer.features, 1, 0)
    return F.max_pool2d(x, layer.pool, (layer.pool[0], layer.stride), (0, layer.pad))


class CRNN(nn.Module):
    """A CRNN: ``CRNN(config)(images [B,H,W,1], widths [B]) -> Outputs``.

    The LSTMs are torch's, with the second bias (``bias_hh``) fixed at zero: two biases that are only added to each
    other would learn twice as fast as one.
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
        rows, frames = self.rows(images, widths), self._frames(images.shape[2])
        lengths = torch.tensor([len(x) for x in rows], device=images.device)
        if int(lengths.min()) == frames > 0:  # no packing or padding needed
            features = self.lstm1(self.lstm0(torch.stack(rows))[0])[0]
        else:
            nonempty = [b for b, x in enumerate(rows) if len(x)]
            read = dict(zip(nonempty, self._read([rows[b] for b in nonempty]) if nonempty else [], strict=True))
            empty = images.new_zeros(frames, 2 * self.config.hidden)
            lines = (read.get(b, empty) for b in range(len(rows)))
            features = torch.stack([F.pad(x, (0, 0, 0, frames - len(x))) for x in lines])
        return Outputs(self.head(features), features, lengths)

    def rows(self, images: Tensor, widths: Tensor) -> list[Tensor]:
        """Apply the convolutions to each line: ``[t,D]``."""
        of_width = {w: torch.nonzero(widths == w)[:, 0] for w in torch.unique(widths).tolist()}
        groups = self.backbone([self.lines(images[index], width) for width, index in of_width.items()])
        order = torch.cat(list(of_width.values())).tolist()
        by_line = dict(zip(order, [row for group in groups for row in group], strict=True))
        return [by_line[b] for b in range(len(images))]

    def lines(self, images: Tensor, width: int) -> Tensor:
        """Crop images to one width, ``[n,1,H,w]``, and standardize each one if the model does so."""
        lines = images[:, :, :width, 0][:, None]
        if self.config.standardize and width:
            mean = lines.mean((1, 2, 3), keepdim=True)
            lines = (lines - mean) / torch.sqrt(lines.var((1, 2, 3), correction=0, keepdim=True) + 1e-4)
        return lines

    def _read(self, rows: list[Tensor]) -> list[Tensor]:
        packed = nn.utils.rnn.pack_sequence(rows, enforce_sorted=False)
        packed = self.lstm1(self.lstm0(packed)[0])[0]
        return nn.utils.rnn.unpack_sequence(packed)

    def _frames(self, width: int) -> int:
        """Return the number of frames of a line as wide as the padded images."""
        for layer in self.backbone.layers:
            width -= layer.kernel[1] - 1 if layer.valid else 0
            if layer.pool:
                width = (width + 2 * layer.pad - layer.pool[1]) // layer.stride + 1
        return width
