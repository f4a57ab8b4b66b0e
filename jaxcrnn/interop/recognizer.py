"""Python interface to a trained recogniser: `load` and `Recognizer.recognize`.

reader = jaxcrnn.load("runs/plates")
for line in reader.recognize(["a.png", "b.png"]):
    print(line.text, line.confidence)
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from jaxcrnn.architecture import ModelConfig
from jaxcrnn.charset import Charset
from jaxcrnn.data.images import Limits, looks, noting_pages, pages_note, read_gray, to_gray
from jaxcrnn.decoding.lines import Line, NamedLooks
from jaxcrnn.errors import UserError
from jaxcrnn.interop import engines
from jaxcrnn.interop.exported import (
    CARD,
    CHARSET,
    CONFIG,
    FORMAT,
    PACKAGE,
    PRETRAINED,
    WEIGHTS,
    facts_of,
    is_exported,
    located,
    open_exported,
)
from jaxcrnn.interop.weights import flattened, unflattened

if TYPE_CHECKING:
    from jaxcrnn.decoding.decoder import Decoder
    from jaxcrnn.interop.onnx_engine import OnnxEngine
    from jaxcrnn.train import TrainConfig
    from jaxcrnn.types import TrainState

__all__ = [
    "CARD",
    "CHARSET",
    "CONFIG",
    "FORMAT",
    "PRETRAINED",
    "WEIGHTS",
    "Recognizer",
    "facts_of",
    "flattened",
    "load",
    "unflattened",
]


@dataclass(frozen=True)
class Recognizer:
    """A trained recogniser for lines of text, loaded by `load`.

    Attributes:
      model: configuration of the model.
      variables: ``{"params": ..., "batch_stats": ...}``.
      charset: charset of the model.
      limits: bounds on image sizes, capped at the defaults of a new run. To read larger images, use
        ``dataclasses.replace(recognizer, limits=...)``.
      engine: program that reads: ``"jax"``, ``"onnx"`` or ``"auto"``; see `load`.
    """

    model: ModelConfig
    variables: dict[str, Any]
    charset: Charset
    limits: Limits
    engine: str = "auto"
    _made: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_made": {}}  # sessions cannot be sent to other processes

    def recognize(self, images: Sequence[Any], *, batch_size: int = 16) -> list[Line]:
        """Read the text of each image.

        Args:
          images: paths, bytes of image files, uint8 arrays ``[h,w]`` or ``[h,w,3]``, or Pillow images. The EXIF
            orientation of Pillow images is applied, as it is to files; arrays have none. Of a file with several pages,
            the first is read, and a warning reports how many there were; of a Pillow image, the current one.
          batch_size: lines in a batch of the engine jax; onnx reads them one by one.

        Returns:
          A `jaxcrnn.decoding.lines.Line` (name, text and confidence) for each image.

        Raises:
          UserError: an image cannot be read or is too large, the engine cannot be used, or it is jax and was in use
            when this process was forked.
        """
        if isinstance(images, str | bytes | Path) or not isinstance(images, Sequence):
            raise UserError(f"recognize: got a {type(images).__name__}; expected a list of images")
        if batch_size < 1:
            raise UserError(f"batch_size is {batch_size}; expected 1 or more")
        named = ((_name(image, i), self._looks(image, i)) for i, image in enumerate(images))
        with noting_pages() as pages:
            lines = list(self.lines(named, batch_size=batch_size, expected=len(images)))
        if pages:
            warnings.warn(pages_note(pages), stacklevel=2)
        return lines

    def lines(
        self,
        images: Iterable[NamedLooks],
        *,
        batch_size: int = 16,
        characters: bool = False,
        decoder: Decoder | None = None,
        expected: int = 0,
    ) -> Iterator[Line]:
        """Read a stream of scaled images, and yield the lines in their order.

        Args:
          images: names, and gray uint8 images ``[H,w]`` of the model's height (`jaxcrnn.data.images.fit_height`), or
            several looks at a line (`jaxcrnn.data.images.looks`), of which the others are read if the confidence of the
            first is below ``limits.reread``.
          batch_size: lines in a batch of the engine jax; onnx reads them one by one.
          characters: whether to return the characters of each line with their confidences and positions.
          decoder: decoder to use instead of the best class of each frame, on the first look alone; needs the engine
            jax.
          expected: number of images, if it is known; with many, jax compiles programs that read faster.

        Raises:
          UserError: see `recognize`.
        """
        if engines.choose(self.engine, self.model, "a decoder" if decoder else "") == "onnx":
            return self._onnx().lines(self.charset, images, characters=characters, reread=self.limits.reread)
        _check_process()
        from jaxcrnn.decoding.decoder import Decoder
        from jaxcrnn.decoding.evaluate import FEW, recognize

        reread = 0.0 if decoder else self.limits.reread
        if characters and decoder is None:
            decoder = Decoder(1)
        config, few, state = self._jax()
        read = self._made["read"] = self._made.get("read", 0) + expected
        start = few if read < FEW else None
        return recognize(
            config,
            state,
            self.charset,
            images,
            batch_size=batch_size,
            decoder=decoder,
            start=start,
            reread=reread,
        )

    def _onnx(self) -> OnnxEngine:
        if "onnx" not in self._made:
            from jaxcrnn.interop.onnx_engine import OnnxEngine

            self._made["onnx"] = OnnxEngine(self.model, self.variables)
        return self._made["onnx"]

    def _jax(self) -> tuple[TrainConfig, TrainConfig, TrainState]:
        if "jax" not in self._made:
            import jax
            import jax.numpy as jnp

            from jaxcrnn.runs.compile import for_few, for_reading
            from jaxcrnn.train import TrainConfig
            from jaxcrnn.types import TrainState

            variables = jax.device_put(self.variables)
            state = TrainState(jnp.int32(0), variables["params"], variables["batch_stats"], (), None)
            config = TrainConfig(self.model)
            self._made["jax"] = for_reading(config), for_few(config), state
        return self._made["jax"]

    def _looks(self, image: Any, number: int) -> list[np.ndarray]:
        name = _name(image, number)
        if isinstance(image, np.ndarray):
            colors = image.shape[2:] in ((), (1,), (3,))
            if image.dtype != np.uint8 or image.ndim not in (2, 3) or not colors or 0 in image.shape:
                raise UserError(
                    f"{name}: an array of {image.dtype} {list(image.shape)}; expected uint8 [h, w] or [h, w, 3]"
                )
            image = Image.fromarray(image[:, :, 0] if image.shape[2:] == (1,) else image)
        if isinstance(image, Image.Image):
            gray = to_gray(image, self.limits, name)
        elif isinstance(image, str | Path | bytes):
            gray = read_gray(image, self.limits, name)
        else:
            raise UserError(f"{name}: a {type(image).__name__}; expected a path, bytes, an array or a Pillow image")
        return looks(gray, self.model.height, self.limits, name)


def _name(image: Any, number: int) -> str:
    return str(image) if isinstance(image, str | Path) else f"image {number}"


_forked = False


def _after_fork() -> None:
    """Note whether jax was in use before a fork: its threads are missing in the new process, which would hang."""
    global _forked
    if "jax" not in sys.modules:
        return
    try:
        from jax._src.xla_bridge import backends_are_initialized  # no public function tells
    except ImportError:
        return
    _forked = _forked or backends_are_initialized()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _check_process() -> None:
    """Check that jax works in this process.

    Raises:
      UserError: the process was forked when jax was in use.
    """
    if _forked:
        raise UserError(
            "jax was in use when this process was forked, and would hang; call jaxcrnn.load in each process and not "
            "before, or start processes by 'spawn' (multiprocessing.get_context('spawn'))"
        )


def load(
    folder: str | Path | None = None, checkpoint: str = "best", *, trust_code: bool = False, engine: str = "auto"
) -> Recognizer:
    """Load a recogniser from a run folder or from a folder written by ``jaxcrnn export --format safetensors``.

    Args:
      folder: run folder or exported folder; ``"pretrained"`` stands for the weights of the package, unless the current
        folder contains something of that name. None, the default, always does.
      checkpoint: checkpoint of a run folder: ``"best"``, ``"latest"`` or a step.
      trust_code: whether the modules that the loss of a run names may be imported, which runs their code.
      engine: program that reads lines: ``"jax"`` (compiles a program for each width, which is cached), ``"onnx"``
        (onnxruntime, which starts at once; CPUs only; needs the extra ``onnx``), or ``"auto"``: onnx if it is
        installed, the device is a CPU and the model is read in float32, jax otherwise. Logits are equal to 1e-4. With
        onnx, jax is not imported to load and read an exported folder.

    Raises:
      UserError: the folder is neither, is corrupted or made for another charset, or its code is not trusted, the engine
        cannot be used, or jax was in use when this process was forked.
    """
    reader = open_model(PACKAGE if folder is None else folder, checkpoint, trust_code=trust_code, engine=engine)
    engines.choose(engine, reader.model)  # an engine that cannot be used is reported here
    return replace(reader, limits=reader.limits.of_stranger())


def open_model(
    folder: str | Path, checkpoint: str = "best", *, trust_code: bool = False, engine: str = "auto"
) -> Recognizer:
    """Load a recogniser as `load` does, with the limits that the folder states, which may exceed the defaults."""
    if is_exported(folder):
        place = located(folder)
        if checkpoint != "best":
            shown = PRETRAINED if place == PACKAGE else place  # not the path in this installation
            raise UserError(f"{shown}: an exported model has no checkpoints; drop the checkpoint {checkpoint!r}")
        return Recognizer(*open_exported(place), engine)
    _check_process()
    import jax

    from jaxcrnn.interop.trained import open_trained
    from jaxcrnn.train import eval_variables

    run = open_trained(folder, trust_code)
    state, _ = run.state(checkpoint)
    variables = jax.device_get(eval_variables(state))
    return Recognizer(run.train_config.model, variables, run.charset, run.config.data.limits, engine)
