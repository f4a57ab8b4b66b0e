"""The recogniser: convolutions, two bidirectional LSTMs, a linear head (Shi, Bai and Yao, 2015)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from jaxcrnn.errors import UserError
from jaxcrnn.kernels.dtypes import at_least_float32
from jaxcrnn.kernels.mesh_ops import LOCAL, Ops
from jaxcrnn.nn.backbones import HEIGHT, Backbone, frames, layers_of, rows
from jaxcrnn.nn.imported import Imported
from jaxcrnn.nn.linear_head import LinearHead
from jaxcrnn.nn.lstm import BiLSTM
from jaxcrnn.types import Outputs

KINDS = ("bilstm", "lstm", "linear")
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16, "float64": jnp.float64}
# ``auto`` is resolved for a device by `jaxcrnn.runs.compile`; unresolved it means what runs on every device.
CHOICES = {
    "head": ("dense", "fused"),
    "conv": ("auto", "xla", "winograd"),
    "lstm": ("auto", "scan", "cudnn"),
    "inference_dtype": ("auto", *DTYPES),
}


@jax.tree_util.register_static
@dataclass(frozen=True)
class ModelConfig:
    """The shape of a recogniser.

    Attributes:
      backbone: ``"vgg"`` (7 convolutions, the paper's), ``"small"`` (5 narrow ones, for CPUs), ``"tiny"`` (3, to try
        a setting on), ``"resnet"``, or one of those that other programs' weights fit
        (`jaxcrnn.nn.backbones.layers_of`).
      hidden: size H of each LSTM direction; features have D = 2H.
      dropout: share of the values dropped before each LSTM while training.
      standardize: shift and scale each line to mean 0 and variance 1 over its true columns first; for photos, whose
        brightness and contrast say nothing about the text.
      dtype: ``"float32"`` or ``"bfloat16"``, of the inputs of every product; logits and all sums stay float32.
        ``"float64"`` is for verifying, with jax's x64 mode on and parameters to match.
      head: ``"dense"`` makes the logits of all classes; ``"fused"`` makes them chunk by chunk wherever they are asked
        for, which takes a fraction of the memory for many classes (`jaxcrnn.kernels.logits`). The same parameters
        either way.
      recurrent: layers between backbone and head, parted by spaces: ``bilstm``, ``lstm`` (forward alone) or
        ``linear``, each with ``:SIZE`` where it is not ``hidden``. Features are what the last one gives.
      conv: ``"xla"``, ``"winograd"`` (3x3 convolutions by Winograd's minimal filtering, and kernel gradients as matrix
        products: fast on CPUs), or ``"auto"`` for what suits the device. But for rounding the same numbers.
      lstm: ``"scan"``, ``"cudnn"`` (needs an NVIDIA GPU; elsewhere the scan is used), or ``"auto"`` for what suits the
        device. The same parameters and, but for rounding, the same numbers.
      inference_dtype: ``dtype`` of reading: ``"auto"`` is the model's, but float32 instead of bfloat16 on CPUs, where
        bfloat16 is slower.
      height: rows of the images.
      num_classes: C, the blank among them; follows from the charset.
      blank: class of the blank; follows from the charset.
      imported: what only converted weights need; a section of its own in the configuration of a run.
    """

    backbone: str = "small"
    hidden: int = 256
    dropout: float = 0.1
    standardize: bool = False
    dtype: str = "float32"
    head: str = "dense"
    recurrent: str = "bilstm bilstm"
    conv: str = "auto"
    lstm: str = "auto"
    inference_dtype: str = "auto"
    height: int = HEIGHT
    num_classes: int = field(default=0, metadata={"derived": True})
    blank: int = field(default=0, metadata={"derived": True})
    imported: Imported = field(default=Imported(), metadata={"derived": True})

    def __post_init__(self) -> None:
        layers_of(self.backbone)
        self.layers()
        if self.height < 1 or rows(self.backbone, self.height) < 1:
            raise UserError(f"model.height is {self.height}; expected more, the backbone leaves no row of it")
        if self.dtype not in DTYPES:
            raise UserError(f"model.dtype is {self.dtype!r}; expected one of {', '.join(DTYPES)}")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise UserError(f"model.{name} is {getattr(self, name)!r}; expected one of {', '.join(choices)}")
        if self.hidden < 1:
            raise UserError(f"model.hidden is {self.hidden}; expected 1 or more")
        if not 0 <= self.dropout < 1:
            raise UserError(f"model.dropout is {self.dropout}; expected 0 <= dropout < 1")

    @property
    def features(self) -> int:
        """D, the size of the vectors that the head and the centers see."""
        kind, size = self.layers()[-1]
        return 2 * size if kind == "bilstm" else size

    def layers(self) -> list[tuple[str, int]]:
        """Kind and size of each recurrent layer.

        Raises:
          UserError: ``recurrent`` is not spelled so.
        """
        found = []
        for word in self.recurrent.split():
            kind, colon, size = word.partition(":")
            if kind not in KINDS or (colon and not (size.isdecimal() and int(size))):
                raise UserError(f"model.recurrent has {word!r}; expected {', '.join(KINDS)}, or one with its size, "
                                "such as linear:64")  # fmt: skip
            found.append((kind, int(size) if colon else self.hidden))
        if not found:
            raise UserError(f"model.recurrent is {self.recurrent!r}; expected layers such as 'bilstm bilstm'")
        return found

    def frames(self, width: int) -> int:
        """Frames made of an image of this width in pixels."""
        return int(frames(self.backbone, width))


class CRNN(nn.Module):
    """``apply(variables, images [B,H,W,1], widths [B], train=...) -> Outputs``.

    With ``train=True`` batch normalisation uses the batch's statistics: pass ``mutable=["batch_stats"]``, and
    ``rngs={"dropout": key}`` when the config has dropout.

    Attributes:
      config: the shape; its ``num_classes`` must be set.
      ops: how a mesh of devices computes it (`jaxcrnn.kernels.mesh_ops`).
    """

    config: ModelConfig
    ops: Ops = LOCAL

    @nn.compact
    def __call__(self, images: Array, widths: Array, *, train: bool = False) -> Outputs:
        config, imported, dtype = self.config, self.config.imported, DTYPES[self.config.dtype]
        if config.standardize:
            images = standardized(images, widths)
        if (imported.black, imported.white) != (-1.0, 1.0):
            images = imported.black + (images + 1) * ((imported.white - imported.black) / 2)
        if images.shape[3] != imported.colors:
            images = jnp.broadcast_to(images, (*images.shape[:3], imported.colors))
        winograd = config.conv == "winograd"
        backbone = Backbone(config.backbone, dtype, imported.channels, imported.rows, winograd, name="backbone")
        x, lengths = backbone(images, widths, train)
        lstms = linears = 0
        for kind, size in config.layers():
            if kind == "linear":
                x = _linear(x, lengths, size, dtype, f"linear{linears}")
                linears += 1
                continue
            x = nn.Dropout(config.dropout, deterministic=not train)(x)
            directions = 2 if kind == "bilstm" else 1
            layer = BiLSTM(size, dtype, directions, imported.two_biases, config.lstm, self.ops, name=f"lstm{lstms}")
            x = layer(x, lengths)
            lstms += 1
        logits = LinearHead(config.num_classes, config.head == "fused", self.ops, name="head")(x)
        return Outputs(logits, at_least_float32(x), lengths)


def _linear(x: Array, lengths: Array, size: int, dtype: Any, name: str) -> Array:
    """A linear layer of every frame; padded ones stay 0."""
    flat = nn.Dense(size, dtype=dtype, name=name)(x.reshape(-1, x.shape[2]))
    inside = jnp.arange(x.shape[1])[None, :] < lengths[:, None]
    return jnp.where(inside[:, :, None], flat.reshape(*x.shape[:2], size), jnp.zeros((), dtype))


def standardized(images: Array, widths: Array) -> Array:
    """Each line shifted and scaled to mean 0 and variance 1 over its true columns; its padding becomes 0."""
    true = (jnp.arange(images.shape[2])[None, :] < widths[:, None])[:, None, :, None]
    pixels = jnp.maximum(widths * images.shape[1], 1).astype(images.dtype)[:, None, None, None]
    mean = jnp.where(true, images, 0.0).sum((1, 2, 3), keepdims=True) / pixels
    centered = jnp.where(true, images - mean, 0.0)
    variance = jnp.square(centered).sum((1, 2, 3), keepdims=True) / pixels
    return centered * jax.lax.rsqrt(variance + 1e-4)
