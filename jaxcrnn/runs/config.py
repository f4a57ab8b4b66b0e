"""Configuration of a run: one frozen dataclass, read from YAML and overridden with ``section.key=value``."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import itertools
import types
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import yaml

from jaxcrnn._ranges import check_value, ranges
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

# Keys of earlier versions: renamed ones, and removed ones with the one value that is still accepted (it had no effect).
MOVED = {f"model.{f.name}": f"imported.{f.name}" for f in dataclasses.fields(Imported)}
REMOVED: dict[str, tuple[Any, str]] = {
    "data.repeat_rare": (0, "it improved no score (docs/real-lines.md); delete the key, or train with version 0.1"),
    "run.steps_per_call": (1, "steps always run one by one; delete the key, the results are the same"),
}


@dataclass(frozen=True)
class Config:
    """Complete configuration of a run.

    ``model.num_classes`` and ``model.blank`` follow from the charset; ``model.imported`` is the section ``imported``.
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
        """Copy without device-dependent choices, which affect results only by rounding."""
        chosen = dataclasses.replace(self.model, conv="auto", lstm="auto", ctc="auto", inference_dtype="auto")
        return dataclasses.replace(self, model=chosen)

    @property
    def rendering(self) -> RenderConfig:
        """The section ``render``, for lines as high as the model reads them.

        Raises:
          UserError: the renderer has no lines of this height.
        """
        if self.model.height % 8:
            raise UserError(f"model.height is {self.model.height}; expected a multiple of 8 for rendered lines")
        return dataclasses.replace(self.render, height=self.model.height)

    def for_charset(self, charset: Charset, flow: Flow | None = None) -> TrainConfig:
        """Build the configuration of a train step, with the number of classes filled in.

        Args:
          charset: charset of the run.
          flow: functions that ``loss`` names by import paths (`jaxcrnn.runs.extensions.resolve`).
        """
        self.loss.check_classes(charset.num_classes)
        model = dataclasses.replace(self.model, num_classes=charset.num_classes, blank=charset.blank)
        return TrainConfig(model, self.loss, self.optim, self.augment, flow)


def load(path: str | Path | None = None, overrides: Sequence[str] = (), base: Config | None = None) -> Config:
    """Load a configuration: defaults (or ``base``), then a YAML file, then ``section.key=value`` overrides.

    Raises:
      UserError: an unknown key (with the closest valid one), or a value of the wrong type or range.
    """
    return build([(read_yaml(path), str(path))] if path else [], overrides, base)


class _OnceEach(yaml.SafeLoader):
    """YAML loader that rejects duplicate keys, of which PyYAML silently keeps the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key, _ in node.value:
            if keys.count(key.value) > 1:
                raise yaml.MarkedYAMLError(problem=f"duplicate key {key.value!r}", problem_mark=key.start_mark)
        return super().construct_mapping(node, deep)


def read_yaml(path: str | Path) -> Any:
    """Read a YAML file; an empty one gives ``{}``.

    Raises:
      UserError: the file cannot be read or is not valid YAML (naming the line).
    """
    text = read_text(path, SMALL)
    try:
        if _depth(text) > 100:  # the parser would take minutes or overflow the stack
            raise RecursionError
        return yaml.load(text, _OnceEach) or {}
    except RecursionError:
        raise UserError(f"{path}: YAML nested too deeply; expected sections of keys and values") from None
    except ValueError as error:  # an invalid date or number
        raise UserError(f"{path}: invalid YAML: {first_line(error)}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or first_line(error)
        raise UserError(f"{path}{at}: invalid YAML: {problem}") from None


def _depth(text: str) -> int:
    """Return the maximum number of nested brackets."""
    steps = [1 if c in "[{" else -1 for c in text if c in "[]{}"]
    return max(itertools.accumulate(steps), default=0)


def build(sources: Sequence[tuple[Any, str]], overrides: Sequence[str] = (), base: Config | None = None) -> Config:
    """Build a configuration as `load` does, from pairs of sections and the name that messages use for their source."""
    values: dict[str, Any] = {}
    if base:
        _merge(values, yaml.safe_load(to_yaml(base)), "the run")
    for sections, source in sources:
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
    return Config(**{name: _section(name)(**entries) for name, entries in values.items()})


def _look(level: str) -> dict[str, Any]:
    """Return the rendering parameters of a level, which single values of a file or an option then override."""
    look = LEVELS.get(level, RenderConfig())
    return {key: getattr(look, key) for key in keys(RenderConfig) if key != "level"}


def _section(name: str) -> type:
    return _hints(Config)[name]


_hints = functools.cache(get_type_hints)


def keys(section: type) -> dict[str, dataclasses.Field[Any]]:
    """Return the valid keys of a section."""
    return {f.name: f for f in dataclasses.fields(section) if not f.metadata.get("derived")}


def _merge(values: dict[str, Any], sections: Any, source: str) -> None:
    if not isinstance(sections, dict):
        raise UserError(f"{source}: expected sections such as 'optim:', found {type(sections).__name__}")
    for name, entries in sections.items():
        _check_name(name, [f.name for f in dataclasses.fields(Config)], source, f"unknown section {name!r}")
        if not isinstance(entries, dict):
            raise UserError(f"{source}: section {name!r} is {entries!r}; expected keys and values")
        for key, value in entries.items():
            if _is_removed(name, key, value, source):
                continue
            target, _, moved = MOVED.get(f"{name}.{key}", f"{name}.").partition(".")
            section, own = _section(target), moved or key
            _check_name(own, list(keys(section)), source, f"unknown key {own!r} in {name!r}")
            where = f"{source}: {name}.{key}"
            converted = _convert(value, _hints(section)[own], where)
            _check_range(converted, section, own, where)
            values.setdefault(target, {})[own] = converted


def _is_removed(name: str, key: Any, value: Any, source: str) -> bool:
    """Return whether a key was removed and has the one value that is still accepted.

    Raises:
      UserError: it was removed and has another value.
    """
    old = f"{name}.{key}"
    if old not in REMOVED or key in keys(_section(name)):
        return False
    default, reason = REMOVED[old]
    if type(value) is bool or value != default:
        raise UserError(f"{source}: {old} is {value!r}, but the key was removed in version 0.2: {reason}")
    return True


def without_removed(sections: dict[str, Any]) -> dict[str, Any]:
    """Drop removed keys from sections that an earlier version wrote."""
    return {
        name: {k: v for k, v in entries.items() if f"{name}.{k}" not in REMOVED or k in keys(_section(name))}
        if isinstance(entries, dict)
        else entries
        for name, entries in sections.items()
    }


def _check_name(name: Any, valid: list[str], source: str, problem: str) -> None:
    if name not in valid:
        near = difflib.get_close_matches(str(name), valid, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(valid)}"
        raise UserError(f"{source}: {problem}; {hint}")


def _check_range(value: Any, section: type, key: str, where: str) -> None:
    """Check the range of a number here already: the section itself cannot name the source."""
    if key not in ranges(section) or value is None:
        return
    for one in value if isinstance(value, tuple) else (value,):
        check_value(one, f"{where}, one of the values" * isinstance(value, tuple) or where, *ranges(section)[key])


def _convert(value: Any, kind: Any, where: str) -> Any:
    if get_origin(kind) in (types.UnionType, Union):  # None: set by the preset
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
        try:
            return float(value)
        except OverflowError:
            raise UserError(f"{where} has {len(str(value))} digits; expected a number that fits into float32") from None
    if kind is str and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if type(value) is not kind:
        raise UserError(f"{where} is {value!r}; expected {_KINDS[kind]}")
    return value


_KINDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def to_yaml(config: Config) -> str:
    """Write the YAML that `load` reads back as an equal configuration."""
    values = {
        f.name: {key: _plain(getattr(getattr(config, f.name), key)) for key in keys(_section(f.name))}
        for f in dataclasses.fields(Config)
    }
    # Values of the level itself are omitted, or they would override those of another level chosen later.
    look = _look(config.render.level)
    values["render"] = {key: value for key, value in values["render"].items() if value != look.get(key)}
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
