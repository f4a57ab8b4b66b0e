"""Recognisers as ONNX graphs for inference, built from the architecture and the weights without jax or PyTorch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcrnn import __version__
from jaxcrnn.architecture import ModelConfig
from jaxcrnn.nn.layers import Block, Layer, layers_of, padding, rows

if TYPE_CHECKING:
    import onnx

OPSET, IR_VERSION = 17, 8  # of 2022, which every runtime supports
EPSILON = 1e-5  # of batch normalisation
_GATES = (0, 3, 1, 2)  # ONNX orders the gates of an LSTM i, o, f, g; here they are i, f, g, o


def build(model: ModelConfig, arrays: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """Build the graph ``images [batch,height,width,1] -> logits [batch,frames,classes]`` of a model in float32.

    Every line is as wide as the image; there is no padding. Batch normalisation is folded into the convolutions, and a
    second LSTM bias into the first; the outputs equal those of `jaxcrnn.model.CRNN` up to rounding.

    Args:
      model: architecture of the recogniser.
      arrays: float32 weights by name (`jaxcrnn.interop.weights.flattened`).

    Raises:
      ImportError: the package onnx is missing (the extra ``onnx``).

    Examples:
      >>> import numpy as np
      >>> from jaxcrnn.architecture import ModelConfig
      >>> from jaxcrnn.interop import onnx_graph, weights
      >>> model = ModelConfig("tiny", hidden=4, num_classes=3)
      >>> arrays = {name: np.ones(shape, np.float32) for name, shape in weights.shapes(model).items()}
      >>> [output.name for output in onnx_graph.build(model, arrays).graph.output]
      ['logits']
    """
    from onnx import TensorProto, helper

    graph = _Graph(arrays)
    x = _images(graph, model)
    channels = 1
    for i, layer in enumerate(layers_of(model.backbone, model.imported.channels)):
        if isinstance(layer, Block):
            x = _block(graph, x, f"backbone.block{i}.", layer, changes=layer.features != channels)
        else:
            x = _layer(graph, x, f"backbone.{{}}{i}", layer)
        channels = layer.features
    x = _frames(graph, x, model, channels)
    counts = {"lstm": 0, "linear": 0}
    for kind, size in model.layers():
        group = "linear" if kind == "linear" else "lstm"
        make = _linear if group == "linear" else _lstm
        x = make(graph, x, f"{group}{counts[group]}", size)
        counts[group] += 1
    x = graph.add("Transpose", _linear(graph, x, "head", 0), perm=[1, 0, 2])
    graph.nodes[-1].output[0] = "logits"
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", model.height, "width", 1])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "frames", model.num_classes])
    return helper.make_model(
        helper.make_graph(graph.nodes, "jaxcrnn", [images], [logits], graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="jaxcrnn",
        producer_version=__version__,
    )


class _Graph:
    """Nodes and constants of a graph, and the weights that it is built from."""

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.arrays, self.nodes, self.constants = arrays, [], []  # type: ignore[var-annotated]

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node of one output, and return the name of the output."""
        from onnx import helper

        name = f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        """Add a constant, and return its name."""
        from onnx import numpy_helper

        name = f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value, dtype), name))
        return name

    def param(self, name: str) -> np.ndarray:
        """Return a parameter."""
        return np.asarray(self.arrays[f"params.{name}"], np.float32)

    def stat(self, name: str) -> np.ndarray:
        """Return a running statistic of batch normalisation."""
        return np.asarray(self.arrays[f"batch_stats.{name}"], np.float32)


def _images(graph: _Graph, model: ModelConfig) -> str:
    """``[B,H,W,1]`` to the input of the first layer, ``[B,1,H,W]``; colors are repetitions, so one is enough."""
    imported, x = model.imported, graph.add("Transpose", "images", perm=[0, 3, 1, 2])
    if model.standardize:
        axes = {"axes": [1, 2, 3], "keepdims": 1}
        centered = graph.add("Sub", x, graph.add("ReduceMean", x, **axes))
        variance = graph.add("ReduceMean", graph.add("Mul", centered, centered), **axes)
        deviation = graph.add("Sqrt", graph.add("Add", variance, graph.constant(1e-4)))
        x = graph.add("Div", centered, deviation)
    if (imported.black, imported.white) != (-1.0, 1.0):
        scale = (imported.white - imported.black) / 2
        x = graph.add("Add", graph.add("Mul", x, graph.constant(scale)), graph.constant(imported.black + scale))
    return x


def _convolve(graph: _Graph, x: str, conv: str, norm: str, layer: Layer) -> str:
    """Convolve; a normalisation that follows is folded into the kernel and the bias."""
    kernel = graph.param(f"{conv}.kernel").transpose(3, 2, 0, 1)
    bias = graph.param(f"{conv}.bias") if f"params.{conv}.bias" in graph.arrays else np.zeros(len(kernel), np.float32)
    if conv == "backbone.conv0":
        kernel = kernel.sum(1, keepdims=True)  # the colors of a gray image are equal
    if layer.norm:
        factor = graph.param(f"{norm}.scale") / np.sqrt(graph.stat(f"{norm}.var") + np.float32(EPSILON))
        kernel, bias = kernel * factor[:, None, None, None], (bias - graph.stat(f"{norm}.mean")) * factor
        bias = bias + graph.param(f"{norm}.bias")
    (above, below), (left, right) = padding(layer)
    weights = graph.constant(kernel), graph.constant(bias)
    return graph.add(
        "Conv", x, *weights, kernel_shape=layer.kernel, strides=layer.step, pads=[above, left, below, right]
    )


def _layer(graph: _Graph, x: str, name: str, layer: Layer) -> str:
    x = graph.add("Relu", _convolve(graph, x, name.format("conv"), name.format("norm"), layer))
    if not layer.pool:
        return x
    pad = layer.pad
    if pad >= layer.pool[1]:  # runtimes reject that; after ReLU, zeros are neutral
        x, pad = graph.add("Pad", x, graph.constant([0, 0, 0, pad, 0, 0, 0, pad], np.int64)), 0
    strides = [layer.pool[0], layer.stride]
    return graph.add("MaxPool", x, kernel_shape=layer.pool, strides=strides, pads=[0, pad, 0, pad])


def _block(graph: _Graph, x: str, place: str, block: Block, *, changes: bool) -> str:
    layer = Layer(block.features, norm=True)

    def convolved(x: str, i: int, layer: Layer) -> str:
        return _convolve(graph, x, f"{place}conv{i}", f"{place}norm{i}", layer)

    through = convolved(graph.add("Relu", convolved(x, 0, layer)), 1, layer)
    around = convolved(x, 2, layer._replace(kernel=(1, 1))) if changes else x
    return graph.add("Relu", graph.add("Add", through, around))


def _frames(graph: _Graph, x: str, model: ModelConfig, channels: int) -> str:
    """``[B,C,rows,T]`` to frames ``[T,B,D]``, the layout of LSTMs."""
    left = rows(model.backbone, model.height)
    if model.imported.rows == "mean":
        x, left = graph.add("ReduceMean", x, axes=[2], keepdims=1), 1
    return _shaped(graph, graph.add("Transpose", x, perm=[3, 0, 2, 1]), [0, 0, left * channels])


def _shaped(graph: _Graph, x: str, shape: Sequence[int]) -> str:
    return graph.add("Reshape", x, graph.constant(shape, np.int64))


def _linear(graph: _Graph, x: str, name: str, size: int) -> str:
    product = graph.add("MatMul", x, graph.constant(graph.param(f"{name}.kernel")))
    return graph.add("Add", product, graph.constant(graph.param(f"{name}.bias")))


def _lstm(graph: _Graph, x: str, name: str, size: int) -> str:
    kernels = [_gates(graph.param(f"{name}.{part}"), size).swapaxes(1, 2) for part in ("kernel_x", "kernel_h")]
    bias = graph.param(f"{name}.bias")
    if f"params.{name}.bias_h" in graph.arrays:
        bias = bias + graph.param(f"{name}.bias_h")
    biases = np.concatenate([_gates(bias, size), np.zeros_like(bias)], 1)
    weights = [graph.constant(value) for value in (*kernels, biases)]
    direction = "bidirectional" if len(bias) == 2 else "forward"
    y = graph.add("LSTM", x, *weights, hidden_size=size, direction=direction)  # [T,directions,B,size]
    return _shaped(graph, graph.add("Transpose", y, perm=[0, 2, 1, 3]), [0, 0, len(bias) * size])


def _gates(array: np.ndarray, size: int) -> np.ndarray:
    """Reorder the gates, which are blocks of the last axis."""
    split = array.reshape(*array.shape[:-1], 4, size)
    return np.ascontiguousarray(split[..., _GATES, :].reshape(array.shape))
