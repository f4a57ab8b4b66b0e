"""Python interface to a trained recogniser: `load` and `Recognizer.recognize`.

reader = jaxcrnn.load("runs/plates")
for line in reader.recognize(["a.png", "b.png"]):
    print(line.text, line.confidence)
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from jaxcrnn._text import SMALL, first_line, read_text
from jaxcrnn.charset import Charset
from jaxcrnn.data.images import Limits, fit_height, noting_pages, pages_note, read_gray, to_gray
from jaxcrnn.decoding.evaluate import Line, recognize
from jaxcrnn.errors import UserError
from jaxcrnn.model import ModelConfig
from jaxcrnn.nn.imported import Imported
from jaxcrnn.runs.compile import for_reading
from jaxcrnn.runs.folder import open_run
from jaxcrnn.train import TrainConfig, eval_variables, state_shapes
from jaxcrnn.types import TrainState

FORMAT = "jaxcrnn model 1"
PRETRAINED = "pretrained"  # name of the weights that the package includes
CONFIG, WEIGHTS, CHARSET, CARD = "config.json", "model.safetensors", "charset.txt", "README.md"


@dataclass(frozen=True)
class Recognizer:
    """A trained recogniser for lines of text, loaded by `load`.

    Attributes:
      model: configuration of the model.
      variables: ``{"params": ..., "batch_stats": ...}``.
      charset: charset of the model.
      limits: bounds on image sizes, capped at the defaults of a new run. To read larger images, use
        ``dataclasses.replace(recognizer, limits=...)``.
    """

    model: ModelConfig
    variables: dict[str, Any]
    charset: Charset
    limits: Limits

    def recognize(self, images: Sequence[Any], *, batch_size: int = 16) -> list[Line]:
        """Read the text of each image.

        Args:
          images: paths, bytes of image files, uint8 arrays ``[h,w]`` or ``[h,w,3]``, or Pillow images. The EXIF
            orientation of Pillow images is applied, as it is to files; arrays have none. Of a file with several pages,
            the first is read, and a warning reports how many there were; of a Pillow image, the current one.
          batch_size: lines in a batch.

        Returns:
          A `jaxcrnn.decoding.evaluate.Line` (name, text and confidence) for each image.

        Raises:
          UserError: an image cannot be read or is too large, or jax was in use when this process was forked.
        """
        _check_process()
        if isinstance(images, str | bytes | Path) or not isinstance(images, Sequence):
            raise UserError(f"recognize: got a {type(images).__name__}; expected a list of images")
        if batch_size < 1:
            raise UserError(f"batch_size is {batch_size}; expected 1 or more")
        config = for_reading(TrainConfig(self.model))
        state = TrainState(jnp.int32(0), self.variables["params"], self.variables["batch_stats"], (), None)
        named = ((_name(image, i), self._gray(image, i)) for i, image in enumerate(images))
        with noting_pages() as pages:
            lines = list(recognize(config, state, self.charset, named, batch_size=batch_size))
        if pages:
            warnings.warn(pages_note(pages), stacklevel=2)
        return lines

    def _gray(self, image: Any, number: int) -> np.ndarray:
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
        return fit_height(gray, self.model.height, self.limits, name)


def _name(image: Any, number: int) -> str:
    return str(image) if isinstance(image, str | Path) else f"image {number}"


_forked = False


def _after_fork() -> None:
    """Note whether jax was in use before a fork: its threads are missing in the new process, which would hang."""
    global _forked
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


def load(folder: str | Path = PRETRAINED, checkpoint: str = "best", *, trust_code: bool = False) -> Recognizer:
    """Load a recogniser from a run folder or from a folder written by ``jaxcrnn export --format safetensors``.

    Args:
      folder: run folder or exported folder; by default the weights of the package, ``"pretrained"`` (unless the
        current folder contains one of that name).
      checkpoint: checkpoint of a run folder: ``"best"``, ``"latest"`` or a step.
      trust_code: whether the modules that the loss of a run names may be imported, which runs their code.

    Raises:
      UserError: the folder is neither, is corrupted or made for another charset, or its code is not trusted, or
        jax was in use when this process was forked.
    """
    _check_process()
    folder = Path(folder)
    if str(folder) == PRETRAINED and not folder.exists():
        folder = Path(__file__).parents[1] / "resources" / PRETRAINED
    if (folder / CONFIG).is_file():
        if checkpoint != "best":
            raise UserError(f"{folder}: an exported model has no checkpoints; drop the checkpoint {checkpoint!r}")
        return _exported(folder)
    run = open_run(folder, trust_code)
    state, _ = run.state(checkpoint)
    return Recognizer(
        run.train_config.model, jax.device_get(eval_variables(state)), run.charset, run.config.data.limits.of_stranger()
    )


def _exported(folder: Path) -> Recognizer:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        facts = json.loads(read_text(folder / CONFIG, SMALL))
        if facts["format"] != FORMAT:
            raise UserError(f"{folder / CONFIG}: format {facts['format']!r}; expected {FORMAT!r}")
        model, limits = _model_of(facts["model"]), _made(Limits, facts["images"])
        expected = str(facts["charset_hash"])
    except UserError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        reason = f"missing key {error}" if isinstance(error, KeyError) else first_line(error)
        raise UserError(
            f"{folder / CONFIG}: not the config of an exported model ({reason}); expected a folder written by "
            "'jaxcrnn export --format safetensors'"
        ) from None
    charset = Charset.from_file(folder / CHARSET, "first" if model.blank == 0 else "last")
    if charset.hash != expected:
        raise UserError(
            f"{folder / CHARSET}: {len(charset)} characters with hash {charset.hash}; expected the model's "
            f"charset with hash {expected}"
        )
    if model.num_classes != charset.num_classes or model.blank not in (0, charset.num_classes - 1):
        raise UserError(
            f"{folder / CONFIG}: {model.num_classes} classes, blank {model.blank}; expected "
            f"{charset.num_classes} (the charset's {len(charset)} characters and the blank)"
        )
    try:
        arrays = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise UserError(f"{folder / WEIGHTS}: truncated, or not a safetensors file ({first_line(error)})") from None
    return Recognizer(model, unflattened(arrays, model, folder / WEIGHTS), charset, limits.of_stranger())


def facts_of(model: ModelConfig) -> dict[str, Any]:
    """Convert a model to its entries in ``config.json``, with the fields of ``imported`` inlined."""
    own = {f.name: getattr(model, f.name) for f in fields(model) if f.name != "imported"}
    return own | asdict(model.imported)


def _model_of(values: Any) -> ModelConfig:
    """Read the model that `facts_of` wrote.

    Raises:
      ValueError: a key is unknown, or a value has the wrong type.
    """
    names = {f.name for f in fields(Imported)}
    if not isinstance(values, dict) or "imported" in values:
        raise ValueError("the model is not an object of its fields")
    own = _made(ModelConfig, {name: value for name, value in values.items() if name not in names})
    return replace(own, imported=_made(Imported, {name: value for name, value in values.items() if name in names}))


def _made(kind: type, values: Any) -> Any:
    types = {f.name: type(f.default) for f in fields(kind)}
    if not isinstance(values, dict) or not values.keys() <= types.keys():
        raise ValueError(f"{kind.__name__} has no {sorted(set(values) - types.keys())}")
    for name, value in values.items():
        if type(value) is not types[name] and not (types[name] is float and type(value) is int):
            raise ValueError(f"{name} is {value!r}; expected {types[name].__name__}")
        if isinstance(value, int) and value < 0:
            raise ValueError(f"{name} is {value}; expected 0 or more")
    return kind(**values)


def flattened(variables: dict[str, Any]) -> dict[str, np.ndarray]:
    """Flatten variables to a dict with names such as ``params.backbone.conv0.kernel``."""
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    return {".".join(str(part.key) for part in path): np.ascontiguousarray(leaf) for path, leaf in leaves}


def unflattened(arrays: dict[str, np.ndarray], model: ModelConfig, path: Path) -> dict[str, Any]:
    """Restore the variables of a model from `flattened` arrays; float16 is converted to float32.

    Raises:
      UserError: a name is missing or unexpected, or a shape is wrong; ``path`` names the file in messages.
    """
    try:
        shapes = state_shapes(TrainConfig(model))
    except UserError:
        raise
    except Exception as error:  # sizes that are too large for an array
        raise UserError(f"{path.parent / CONFIG}: invalid model ({first_line(error)[:100]})") from None
    expected = {"params": shapes.params, "batch_stats": shapes.batch_stats}
    left = dict(arrays)

    def take(place: Any, leaf: Any) -> np.ndarray:
        name = ".".join(str(part.key) for part in place)
        if name not in left:
            raise UserError(f"{path}: missing {name}, which the model of {CONFIG} has")
        value = left.pop(name)
        if value.dtype == np.float16:  # a storage format; computations use float32
            value = value.astype(np.float32)
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise UserError(f"{path}: {name} has non-finite values")
        if value.shape != leaf.shape or value.dtype != leaf.dtype:
            raise UserError(
                f"{path}: {name} is {value.dtype} {list(value.shape)}; expected {leaf.dtype} {list(leaf.shape)}"
            )
        return value

    out: dict[str, Any] = jax.tree_util.tree_map_with_path(take, expected)
    if left:
        raise UserError(f"{path}: unexpected {', '.join(sorted(left)[:5])}, which the model of {CONFIG} does not have")
    return out
