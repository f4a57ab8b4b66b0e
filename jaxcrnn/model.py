"""The recogniser: convolutions, two bidirectional LSTMs, a linear head (Shi, Bai and Yao, 2015)."""

from __future__ import annotations

from dataclasses import dataclass, field

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from jaxcrnn import fused, head
from jaxcrnn.backbones import BACKBONES, HEIGHT, Backbone, frames
from jaxcrnn.errors import UserError
from jaxcrnn.precision import wide
from jaxcrnn.recurrent import BiLSTM
from jaxcrnn.types import Outputs

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16, "float64": jnp.float64}


@jax.tree_util.register_static
@dataclass(frozen=True)
class ModelConfig:
    """The shape of a recogniser.

    Attributes:
      backbone: ``"vgg"`` (7 convolutions, the paper's), ``"small"`` (5 narrow ones, for CPUs) or ``"tiny"`` (3, to try
        a setting on).
      hidden: size H of each LSTM direction; features have D = 2H.
      dropout: share of the values dropped before each LSTM while training.
      standardize: shift and scale each line to mean 0 and variance 1 over its true columns first; for photos, whose
        brightness and contrast say nothing about the text.
      dtype: ``"float32"`` or ``"bfloat16"``, of the inputs of every product; logits and all sums stay float32.
        ``"float64"`` is for verifying, with jax's x64 mode on and parameters to match.
      head: ``"dense"`` makes the logits of all classes; ``"fused"`` makes them chunk by chunk wherever they are asked
        for, which takes a fraction of the memory for many classes (`jaxcrnn.fused`). The same parameters either way.
      num_classes: C, the blank among them; follows from the charset.
      blank: class of the blank; follows from the charset.
    """

    backbone: str = "small"
    hidden: int = 256
    dropout: float = 0.1
    standardize: bool = False
    dtype: str = "float32"
    head: str = "dense"
    num_classes: int = field(default=0, metadata={"derived": True})
    blank: int = field(default=0, metadata={"derived": True})

    def __post_init__(self) -> None:
        if self.backbone not in BACKBONES:
            raise UserError(f"model.backbone is {self.backbone!r}; expected one of {', '.join(sorted(BACKBONES))}")
        if self.dtype not in DTYPES:
            raise UserError(f"model.dtype is {self.dtype!r}; expected one of {', '.join(DTYPES)}")
        if self.head not in ("dense", "fused"):
            raise UserError(f"model.head is {self.head!r}; expected one of dense, fused")
        if self.hidden < 1:
            raise UserError(f"model.hidden is {self.hidden}; expected 1 or more")
        if not 0 <= self.dropout < 1:
            raise UserError(f"model.dropout is {self.dropout}; expected 0 <= dropout < 1")

    @property
    def height(self) -> int:
        """Rows of the images the backbone takes."""
        return HEIGHT

    def frames(self, width: int) -> int:
        """Frames made of an image of this width in pixels."""
        return int(frames(self.backbone, width))


class CRNN(nn.Module):
    """``apply(variables, images [B,32,W,1], widths [B], train=...) -> Outputs``.

    With ``train=True`` batch normalisation uses the batch's statistics: pass ``mutable=["batch_stats"]``, and
    ``rngs={"dropout": key}`` when the config has dropout.

    Attributes:
      config: the shape; its ``num_classes`` must be set.
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, images: Array, widths: Array, *, train: bool = False) -> Outputs:
        config, dtype = self.config, DTYPES[self.config.dtype]
        if config.standardize:
            images = standardized(images, widths)
        x, lengths = Backbone(config.backbone, dtype, name="backbone")(images, widths, train)
        x = nn.Dropout(config.dropout, deterministic=not train)(x)
        x = BiLSTM(config.hidden, dtype, name="lstm0")(x, lengths)
        x = nn.Dropout(config.dropout, deterministic=not train)(x)
        x = BiLSTM(config.hidden, dtype, name="lstm1")(x, lengths)
        logits = Head(config.num_classes, config.head == "fused", name="head")(x)
        return Outputs(logits, wide(x), lengths)


class Head(nn.Module):
    """The linear layer: ``__call__(x [B,T,D]) -> [B,T,C]`` float32, or a `jaxcrnn.head.Head`.

    Attributes:
      classes: C.
      is_fused: whether the logits are not made here.
    """

    classes: int
    is_fused: bool

    @nn.compact
    def __call__(self, x: Array) -> head.Logits:
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (x.shape[2], self.classes))
        bias = self.param("bias", nn.initializers.zeros, (self.classes,))
        narrow = kernel.astype(x.dtype)
        if self.is_fused:
            return head.make(x, narrow, bias)
        # One matrix of all frames: the kernel's gradient over two axes takes XLA three times as long on CPU.
        flat = fused.product("nd,dc->nc", x.reshape(-1, x.shape[2]), narrow)
        return (flat + bias[None]).reshape(*x.shape[:2], -1)


def standardized(images: Array, widths: Array) -> Array:
    """Each line shifted and scaled to mean 0 and variance 1 over its true columns; its padding becomes 0."""
    true = (jnp.arange(images.shape[2])[None, :] < widths[:, None])[:, None, :, None]
    pixels = jnp.maximum(widths * images.shape[1], 1).astype(images.dtype)[:, None, None, None]
    mean = jnp.where(true, images, 0.0).sum((1, 2, 3), keepdims=True) / pixels
    centered = jnp.where(true, images - mean, 0.0)
    variance = jnp.square(centered).sum((1, 2, 3), keepdims=True) / pixels
    return centered * jax.lax.rsqrt(variance + 1e-4)
