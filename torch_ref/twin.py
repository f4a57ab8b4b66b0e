"""An inference-only PyTorch port of a recogniser of any architecture, for export to ONNX.

    python -m torch_ref.twin SPEC.npz OUT.onnx

Every line is as wide as the image. SPEC holds the arrays by name, ``params/backbone/conv0/kernel`` and so on in flax's
axis order, and a JSON text under ``spec``: ``layers`` of the backbone, ``recurrent`` layers (kind and size), ``rows``,
``colors``, ``black``, ``white``, ``standardize`` and ``height``.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPSILON = 1e-5  # of batch normalisation


class Twin(nn.Module):
    """A PyTorch port of a recogniser: ``Twin(spec, arrays)(images [B,H,W,1]) -> logits [B,T,C]``."""

    def __init__(self, spec: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        super().__init__()
        self.spec, self.arrays = spec, arrays
        parts: list[nn.Module] = []
        for i, layer in enumerate(spec["layers"]):
            make = _Block if "block" in layer else _Layer
            name = f"backbone/block{i}/" if "block" in layer else "backbone/"
            parts.append(make(self, layer, name, i))
        self.backbone = nn.Sequential(*parts)
        counts, layers = {"lstm": 0, "linear": 0}, []
        for kind, size in spec["recurrent"]:
            group = "linear" if kind == "linear" else "lstm"
            layers.append((self._linear if group == "linear" else self._lstm)(f"{group}{counts[group]}", kind, size))
            counts[group] += 1
        self.recurrent, self.head = nn.ModuleList(layers), self._linear("head", "linear", 0)
        self.arrays = {}

    def tensor(self, name: str, group: str = "params") -> Tensor:
        """Return an array as a tensor."""
        return torch.tensor(self.arrays[f"{group}/{name}"])

    def has(self, name: str) -> bool:
        """Check whether a parameter exists."""
        return f"params/{name}" in self.arrays

    def _linear(self, name: str, kind: str, size: int) -> nn.Linear:
        kernel = self.tensor(f"{name}/kernel").T
        linear = nn.Linear(kernel.shape[1], kernel.shape[0])
        linear.load_state_dict({"weight": kernel, "bias": self.tensor(f"{name}/bias")})
        return linear

    def _lstm(self, name: str, kind: str, size: int) -> nn.LSTM:
        inside, through, bias = (self.tensor(f"{name}/{part}") for part in ("kernel_x", "kernel_h", "bias"))
        second = self.tensor(f"{name}/bias_h") if self.has(f"{name}/bias_h") else torch.zeros_like(bias)
        lstm = nn.LSTM(inside.shape[1], size, bidirectional=kind == "bilstm", batch_first=True)
        for k, end in enumerate(("", "_reverse")[: len(inside)]):
            matrices = {"weight_ih": inside[k].T, "weight_hh": through[k].T}
            for part, value in (matrices | {"bias_ih": bias[k], "bias_hh": second[k]}).items():
                getattr(lstm, f"{part}_l0{end}").data = value.contiguous()
        return lstm

    def forward(self, images: Tensor) -> Tensor:
        spec = self.spec
        x = images.permute(0, 3, 1, 2)
        if spec["standardize"]:
            mean = x.mean((1, 2, 3), keepdim=True)
            x = (x - mean) / torch.sqrt((x - mean).square().mean((1, 2, 3), keepdim=True) + 1e-4)
        if (spec["black"], spec["white"]) != (-1.0, 1.0):
            x = spec["black"] + (x + 1) * ((spec["white"] - spec["black"]) / 2)
        if spec["colors"] > 1:
            x = x.repeat(1, spec["colors"], 1, 1)
        x = self.backbone(x)
        x = x.mean(2).permute(0, 2, 1) if spec["rows"] == "mean" else x.permute(0, 3, 2, 1).flatten(2)
        for layer in self.recurrent:
            x = layer(x)[0] if isinstance(layer, nn.LSTM) else layer(x)
        return self.head(x)


def _convolution(twin: Twin, name: str, stride: Any = 1, padding: Any = 0) -> nn.Conv2d:
    kernel = twin.tensor(f"{name}/kernel").permute(3, 2, 0, 1)
    out, inside, *size = kernel.shape
    convolution = nn.Conv2d(inside, out, tuple(size), stride, padding, bias=twin.has(f"{name}/bias"))
    convolution.weight.data = kernel.contiguous()
    if convolution.bias is not None:
        convolution.bias.data = twin.tensor(f"{name}/bias")
    return convolution


def _norm(twin: Twin, name: str) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(len(twin.tensor(f"{name}/bias")), eps=EPSILON)
    norm.weight.data, norm.bias.data = twin.tensor(f"{name}/scale"), twin.tensor(f"{name}/bias")
    norm.running_mean, norm.running_var = (twin.tensor(f"{name}/{part}", "batch_stats") for part in ("mean", "var"))
    return norm


class _Layer(nn.Module):
    def __init__(self, twin: Twin, layer: Mapping[str, Any], name: str, i: int) -> None:
        super().__init__()
        rows, columns = layer["kernel"]
        padding = (0, layer["around"]) if layer["valid"] else (rows // 2, columns // 2)
        self.convolution = _convolution(twin, f"{name}conv{i}", (layer["step"], 1), padding)
        self.norm = _norm(twin, f"{name}norm{i}") if layer["norm"] else nn.Identity()
        self.pool = layer["pool"] and (tuple(layer["pool"]), (layer["pool"][0], layer["stride"]), (0, layer["pad"]))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.convolution(x)))
        return F.max_pool2d(x, *self.pool) if self.pool else x


class _Block(nn.Module):
    def __init__(self, twin: Twin, layer: Mapping[str, Any], name: str, i: int) -> None:
        super().__init__()
        pairs = [
            (_convolution(twin, f"{name}conv{k}", 1, 1 if k < 2 else 0), _norm(twin, f"{name}norm{k}"))
            for k in range(3)
            if twin.has(f"{name}conv{k}/kernel")
        ]
        self.through = nn.Sequential(*pairs[0], nn.ReLU(), *pairs[1])
        self.around = nn.Sequential(*pairs[2]) if len(pairs) == 3 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.through(x) + self.around(x))


def write(spec: Mapping[str, Any], arrays: Mapping[str, np.ndarray], path: str) -> None:
    """Write an ONNX file that maps ``images [batch,height,width,1]`` to ``logits [batch,frames,classes]``."""
    twin = Twin(spec, arrays).eval()
    example = torch.zeros(2, spec["height"], 64, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter without further dependencies warns that it is deprecated
        torch.onnx.export(
            twin,
            (example,),
            path,
            dynamo=False,
            input_names=["images"],
            output_names=["logits"],
            dynamic_axes={"images": {0: "batch", 2: "width"}, "logits": {0: "batch", 1: "frames"}},
        )


def main() -> None:
    contents = np.load(sys.argv[1])
    arrays = {name: contents[name] for name in contents.files if name != "spec"}
    write(json.loads(str(contents["spec"])), arrays, sys.argv[2])


if __name__ == "__main__":
    main()
