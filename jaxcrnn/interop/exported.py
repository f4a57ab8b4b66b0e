"""Folders written by ``jaxcrnn export --format safetensors``; imports neither jax nor flax."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from jaxcrnn._text import SMALL, first_line, read_text
from jaxcrnn.architecture import ModelConfig
from jaxcrnn.charset import Charset
from jaxcrnn.data.images import Limits
from jaxcrnn.errors import UserError
from jaxcrnn.interop.weights import unflattened
from jaxcrnn.nn.imported import Imported

FORMAT = "jaxcrnn model 1"
PRETRAINED = "pretrained"  # name of the weights that the package includes
PACKAGE = Path(__file__).parents[1] / "resources" / PRETRAINED  # where they are
CONFIG, WEIGHTS, CHARSET, CARD = "config.json", "model.safetensors", "charset.txt", "README.md"


class Exported(NamedTuple):
    """An exported recogniser.

    Attributes:
      model: configuration of the model.
      variables: ``{"params": ..., "batch_stats": ...}``.
      charset: charset of the model.
      limits: how the model reads images, with the bounds on their sizes that the folder states.
    """

    model: ModelConfig
    variables: dict[str, Any]
    charset: Charset
    limits: Limits


def located(name: str | Path) -> Path:
    """Return the folder that the name of a recogniser stands for.

    ``pretrained`` stands for the weights of the package, unless the current folder contains something of that name.
    Every other name is a path.

    >>> located("pretrained").name, located("runs/mine") == Path("runs/mine")
    ('pretrained', True)
    """
    return PACKAGE if str(name) == PRETRAINED and not Path(name).exists() else Path(name)


def is_exported(name: str | Path) -> bool:
    """Return whether a name stands for an exported recogniser rather than a run."""
    return (located(name) / CONFIG).is_file()


def states_format(folder: Path) -> bool:
    """Return whether the ``config.json`` of a folder states our format; other programs have a file of that name."""
    try:
        facts = json.loads(read_text(folder / CONFIG, SMALL))
    except (UserError, OSError, ValueError, RecursionError):
        return False
    return isinstance(facts, dict) and facts.get("format") == FORMAT


def open_exported(folder: Path) -> Exported:
    """Open an exported folder.

    Raises:
      UserError: it is corrupted, or made for another charset.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        facts = json.loads(read_text(folder / CONFIG, SMALL))
        if facts["format"] != FORMAT:
            raise UserError(f"{folder / CONFIG}: format {facts['format']!r}; expected {FORMAT!r}")
        model, limits = _model_of(facts["model"]), _made(Limits, facts["images"])
        if not 0 <= limits.reread <= 1:
            raise UserError(f"{folder / CONFIG}: images.reread is {limits.reread}; expected 0 to 1")
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
    return Exported(model, unflattened(arrays, model, folder / WEIGHTS), charset, limits)


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
