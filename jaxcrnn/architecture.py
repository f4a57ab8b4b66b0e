"""The architecture of a recogniser as data; imports neither jax nor flax, so that reading can start without them."""

from __future__ import annotations

from dataclasses import dataclass, field

from jaxcrnn._ranges import Count, Decay, Natural, check
from jaxcrnn.errors import UserError
from jaxcrnn.nn.imported import Imported
from jaxcrnn.nn.layers import HEIGHT, frames, layers_of, rows

KINDS = ("bilstm", "lstm", "linear")
DTYPES = ("float32", "bfloat16", "float64")
# `jaxcrnn.runs.compile` resolves ``auto`` for a device; unresolved, it means the implementation for any device.
CHOICES = {
    "head": ("dense", "fused"),
    "conv": ("auto", "xla", "winograd"),
    "lstm": ("auto", "scan", "unrolled", "cudnn"),
    "ctc": ("auto", "scan", "unrolled", "pallas"),
    "inference_dtype": ("auto", *DTYPES),
}


@dataclass(frozen=True)
class ModelConfig:
    """The architecture of a recogniser.

    Attributes:
      backbone: convolutional layers: ``"vgg"`` (7 convolutions, as in the CRNN paper), ``"vgg-fine"`` (the same for a
        height of 64 instead of 32, at the same cost), ``"small"`` (5 narrow ones, for CPUs), ``"tiny"`` (3, to try out
        a setting), ``"resnet"``, one of the backbones that fit weights of other programs, or layers spelled out
        (`jaxcrnn.nn.layers.layers_of`).
      hidden: size H of each LSTM direction, 1 or more; a bidirectional layer has D = 2H features.
      dropout: dropout rate before each LSTM during training, 0 or more, less than 1.
      standardize: shift and scale each line to mean 0 and variance 1 over its unpadded columns; for photos, whose
        brightness and contrast carry no information about the text.
      dtype: dtype of the inputs of matrix products, ``"float32"`` or ``"bfloat16"``; logits and sums stay float32.
        ``"float64"`` is for verification and needs jax's x64 mode and parameters of that dtype.
      head: ``"dense"`` computes the logits of all classes; ``"fused"`` computes them chunk by chunk where they are
        needed, which takes a fraction of the memory for many classes (`jaxcrnn.kernels.logits`). Parameters are the
        same.
      recurrent: layers between backbone and head, separated by spaces: ``bilstm``, ``lstm`` (forward only) or
        ``linear``, each optionally with a size, ``:SIZE``, instead of ``hidden``. Features are the output of the last
        one.
      conv: implementation of convolutions: ``"xla"``, ``"winograd"`` (3x3 convolutions by Winograd's minimal filtering
        and kernel gradients as matrix products, fast on CPUs) or ``"auto"`` for the device's best. Results are equal up
        to rounding.
      lstm: implementation of LSTMs: ``"scan"`` (a loop in JAX), ``"unrolled"`` (the same with fewer and longer
        iterations, for GPUs), ``"cudnn"`` (needs an NVIDIA GPU; other devices use the scan) or ``"auto"`` for the
        device's best. Parameters are the same, and results are equal up to rounding.
      ctc: implementation of CTC in training: ``"scan"``, ``"unrolled"`` or ``"auto"`` as for ``lstm``, or ``"pallas"``
        (one kernel for the loop; needs one NVIDIA GPU, and other devices use the scan). Results are equal up to
        rounding.
      inference_dtype: ``dtype`` for evaluation and recognition; ``"auto"`` is ``dtype``, except that CPUs use float32
        instead of bfloat16, which is slower there.
      height: height in pixels that every line is scaled to, 1 or more.
      num_classes: number of classes C, including the blank, 0 or more; set from the charset.
      blank: class id of the blank, 0 or more; set from the charset.
      imported: properties that only converted weights need; a separate section of a run's configuration.

    Raises:
      UserError: If a value is unknown or out of range.

    Examples:
      >>> from jaxcrnn.architecture import ModelConfig
      >>> config = ModelConfig("vgg", recurrent="bilstm bilstm linear:64")
      >>> config.features, config.frames(100), config.layers()
      (64, 26, [('bilstm', 256), ('bilstm', 256), ('linear', 64)])
    """

    backbone: str = "small"
    hidden: Count = 256
    dropout: Decay = 0.1
    standardize: bool = False
    dtype: str = "float32"
    head: str = "dense"
    recurrent: str = "bilstm bilstm"
    conv: str = "auto"
    lstm: str = "auto"
    ctc: str = "auto"
    inference_dtype: str = "auto"
    height: Count = HEIGHT
    num_classes: Natural = field(default=0, metadata={"derived": True})
    blank: Natural = field(default=0, metadata={"derived": True})
    imported: Imported = field(default=Imported(), metadata={"derived": True})

    def __post_init__(self) -> None:
        check(self, "model")
        layers_of(self.backbone)
        self.layers()
        if rows(self.backbone, self.height) < 1:
            hint = "; vgg-fine expects 64" if self.backbone == "vgg-fine" else ""
            raise UserError(f"model.height is {self.height}; too small for the backbone, which leaves no rows{hint}")
        if self.dtype not in DTYPES:
            raise UserError(f"model.dtype is {self.dtype!r}; expected one of {', '.join(DTYPES)}")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise UserError(f"model.{name} is {getattr(self, name)!r}; expected one of {', '.join(choices)}")

    @property
    def features(self) -> int:
        """Feature size D: the input size of the head and the size of the centers."""
        kind, size = self.layers()[-1]
        return 2 * size if kind == "bilstm" else size

    def layers(self) -> list[tuple[str, int]]:
        """Parse ``recurrent`` into the kind and the size of each layer.

        Raises:
          UserError: If ``recurrent`` is invalid.
        """
        layers = []
        for word in self.recurrent.split():
            kind, colon, size = word.partition(":")
            if kind not in KINDS or (colon and not (size.isdecimal() and int(size))):
                raise UserError(
                    f"model.recurrent: invalid layer {word!r}; expected one of {', '.join(KINDS)}, optionally with a "
                    "size, such as linear:64"
                )
            layers.append((kind, int(size) if colon else self.hidden))
        if not layers:
            raise UserError(f"model.recurrent is {self.recurrent!r}; expected layers such as 'bilstm bilstm'")
        return layers

    def frames(self, width: int) -> int:
        """Return the number of frames of an image of this width in pixels."""
        return int(frames(self.backbone, width))
