"""The whole configuration: one frozen dataclass, read from YAML and overridden by ``key=value``."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import itertools
import types
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import yaml

from jaxcrnn._text import SMALL, first_line, read_text
from jaxcrnn.augment import AugmentConfig
from jaxcrnn.charset import Charset
from jaxcrnn.data.config import DataConfig
from jaxcrnn.errors import UserError
from jaxcrnn.model import ModelConfig
from jaxcrnn.nn.imported import Imported
from jaxcrnn.objective import Flow, LossConfig
from jaxcrnn.optim import OptimConfig
from jaxcrnn.parallel.mesh import MeshConfig
from jaxcrnn.render.config import LEVELS, RenderConfig
from jaxcrnn.render.texts import TextConfig
from jaxcrnn.runs.trainer import LoopConfig
from jaxcrnn.train import TrainConfig

# Keys of earlier versions: those with another name now, and those that were removed, with the value that is still read
# because it changed nothing.
MOVED = {f"model.{f.name}": f"imported.{f.name}" for f in dataclasses.fields(Imported)}
REMOVED: dict[str, tuple[Any, str]] = {
    "data.repeat_rare": (0, "it improved no score (docs/real-lines.md); delete it, or train with version 0.1"),
    "run.steps_per_call": (1, "steps are always run one by one; delete it, the results are the same"),
}


@dataclass(frozen=True)
class Config:
    """Everything a run is made of.

    ``model.num_classes`` and ``model.blank`` follow from the charset, ``model.imported`` is the section ``imported``.
    """

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    imported: Imported = field(default_factory=Imported)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    text: TextConfig = field(default_factory=TextConfig)
    render: RenderConfig = field(default_factory=RenderConfig)
    run: LoopConfig = field(default_factory=LoopConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", dataclasses.replace(self.model, imported=self.imported))

    @property
    def portable(self) -> Config:
        """The same without the choices that follow the device, which change no number but for rounding."""
        chosen = dataclasses.replace(self.model, conv="auto", lstm="auto", inference_dtype="auto")
        return dataclasses.replace(self, model=chosen)

    def for_charset(self, charset: Charset, flow: Flow | None = None) -> TrainConfig:
        """What a step computes, with the number of classes filled in.

        Args:
          charset: the run's.
          flow: the functions that ``loss`` names by import paths (`jaxcrnn.runs.extensions.resolve`).
        """
        self.loss.check_classes(charset.num_classes)
        model = dataclasses.replace(self.model, num_classes=charset.num_classes, blank=charset.blank)
        return TrainConfig(model, self.loss, self.optim, self.augment, flow)


def load(path: str | Path | None = None, overrides: Sequence[str] = (), base: Config | None = None) -> Config:
    """Defaults (or ``base``), then a YAML file, then ``section.key=value`` overrides.

    Raises:
      UserError: an unknown key (with the nearest known one), or a value of the wrong type or range.
    """
    return build([(read_yaml(path), str(path))] if path else [], overrides, base)


class _OnceEach(yaml.SafeLoader):
    """Refuses a key that stands twice; YAML's own reader keeps the last and says nothing."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key, _ in node.value:
            if keys.count(key.value) > 1:
                raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} stands twice", problem_mark=key.start_mark)
        return super().construct_mapping(node, deep)


def read_yaml(path: str | Path) -> Any:
    """What a YAML file holds, ``{}`` for nothing.

    Raises:
      UserError: the file cannot be read or is not YAML, naming the line.
    """
    text = read_text(path, SMALL)
    try:
        if _depth(text) > 100:  # the parser would need minutes, or all of the stack
            raise RecursionError
        return yaml.load(text, _OnceEach) or {}
    except RecursionError:
        raise UserError(f"{path}: YAML nested too deeply; expected sections of keys and values") from None
    except ValueError as error:  # a date or a number that is none
        raise UserError(f"{path}: not YAML: {first_line(error)}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or first_line(error)
        raise UserError(f"{path}{at}: not YAML: {problem}") from None


def _depth(text: str) -> int:
    """How many brackets are open at once."""
    steps = [1 if c in "[{" else -1 for c in text if c in "[]{}"]
    return max(itertools.accumulate(steps), default=0)


def build(given: Sequence[tuple[Any, str]], overrides: Sequence[str] = (), base: Config | None = None) -> Config:
    """As `load`, from sections of keys and values, each with the name that messages call it by."""
    values: dict[str, Any] = {}
    if base:
        _merge(values, yaml.safe_load(to_yaml(base)), "the run")
    for sections, source in given:
        _merge(values, sections, source)
    for override in overrides:
        name, equals, text = override.partition("=")
        shown = f"--set {override if override.isprintable() else ascii(override)}"
        if not equals or name.count(".") != 1:
            raise UserError(f"{shown}: expected section.key=value, such as optim.steps=500")
        section, key = name.split(".")
        try:
            value = yaml.safe_load(text) if text and _depth(text) <= 100 else text
        except (yaml.YAMLError, ValueError, RecursionError):
            value = text
        _merge(values, {section: {key: value}}, shown)
    if "render" in values:
        values["render"] = _look(values["render"].get("level", "")) | values["render"]
    return Config(**{name: _section(name)(**given) for name, given in values.items()})


def _look(level: str) -> dict[str, Any]:
    """What lines look like at a level, which single values of a file or an option then replace."""
    look = LEVELS.get(level, RenderConfig())
    return {key: getattr(look, key) for key in keys(RenderConfig) if key != "level"}


def _section(name: str) -> type:
    return _hints(Config)[name]


_hints = functools.cache(get_type_hints)


def keys(section: type) -> dict[str, dataclasses.Field[Any]]:
    """The keys a section of the file may have."""
    return {f.name: f for f in dataclasses.fields(section) if not f.metadata.get("derived")}


def _merge(values: dict[str, Any], given: Any, source: str) -> None:
    if not isinstance(given, dict):
        raise UserError(f"{source}: expected sections such as 'optim:', found {type(given).__name__}")
    for name, entries in given.items():
        _known(name, [f.name for f in dataclasses.fields(Config)], source, "section")
        if not isinstance(entries, dict):
            raise UserError(f"{source}: section {name!r} is {entries!r}; expected keys and values")
        for key, value in entries.items():
            if _is_removed(name, key, value, source):
                continue
            target, _, moved = MOVED.get(f"{name}.{key}", f"{name}.").partition(".")
            section, own = _section(target), moved or key
            _known(own, list(keys(section)), source, f"key of {name!r}")
            values.setdefault(target, {})[own] = _convert(value, _hints(section)[own], f"{source}: {name}.{key}")


def _is_removed(name: str, key: Any, value: Any, source: str) -> bool:
    """Whether a key is one of an earlier version and has the value that changed nothing.

    Raises:
      UserError: it has another value.
    """
    old = f"{name}.{key}"
    if old not in REMOVED or key in keys(_section(name)):
        return False
    default, reason = REMOVED[old]
    if type(value) is bool or value != default:
        raise UserError(f"{source}: {old} is {value!r}; the key was removed in 0.2: {reason}")
    return True


def without_removed(sections: dict[str, Any]) -> dict[str, Any]:
    """Sections of keys and values that an earlier version wrote, without the keys that there are no more."""
    return {
        name: {k: v for k, v in entries.items() if f"{name}.{k}" not in REMOVED or k in keys(_section(name))}
        if isinstance(entries, dict)
        else entries
        for name, entries in sections.items()
    }


def _known(name: Any, known: list[str], source: str, what: str) -> None:
    if name not in known:
        near = difflib.get_close_matches(str(name), known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(known)}"
        raise UserError(f"{source}: {name!r} is no {what}; {hint}")


def _convert(value: Any, kind: Any, where: str) -> Any:
    if get_origin(kind) is types.UnionType:  # None leaves the choice to a preset
        kinds = [k for k in get_args(kind) if k is not type(None)]
        return None if value is None else _convert(value, kinds[0], where)
    if get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            raise UserError(f"{where} is {value!r}; expected values in brackets, such as [1, 2]")
        return tuple(_convert(v, get_args(kind)[0], f"{where}, one of the values") for v in value)
    if kind is float and isinstance(value, str):  # YAML 1.1 reads 1e-3 as text
        try:
            return float(value)
        except ValueError:
            pass
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is str and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if type(value) is not kind:
        raise UserError(f"{where} is {value!r}; expected {_KINDS[kind]}")
    return value


_KINDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def to_yaml(config: Config) -> str:
    """The file that `load` reads back to an equal config."""
    values = {
        f.name: {key: _plain(getattr(getattr(config, f.name), key)) for key in keys(_section(f.name))}
        for f in dataclasses.fields(Config)
    }
    # Spelled out, the values of one level would stay when another is asked for.
    look = _look(config.render.level)
    values["render"] = {key: value for key, value in values["render"].items() if value != look.get(key)}
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
