"""The whole configuration: one frozen dataclass, read from YAML and overridden by ``key=value``."""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import types
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import yaml

from jaxcrnn.augment import AugmentConfig
from jaxcrnn.charset import SMALL, Charset, read_text
from jaxcrnn.data.images import Limits
from jaxcrnn.errors import UserError, first_line
from jaxcrnn.model import ModelConfig
from jaxcrnn.objective import LossConfig
from jaxcrnn.optim import OptimConfig
from jaxcrnn.parallel.mesh import MeshConfig
from jaxcrnn.render.config import LEVELS, RenderConfig
from jaxcrnn.render.texts import TextConfig
from jaxcrnn.runs.trainer import LoopConfig
from jaxcrnn.train import TrainConfig


@dataclass(frozen=True)
class DataConfig:
    """What is read, and how.

    Attributes:
      train: the training set: a label file, or another format that `jaxcrnn.data.formats.open_source` reads.
      more: further training sets.
      weights: how many lines of a batch come from ``train`` and from each of ``more``, in proportion; empty draws
        from all of them as from one set.
      val: label file of the validation set; empty for none.
      charset: file of the characters; empty takes those of the training labels.
      blank: where the CTC blank stands, ``"first"`` or ``"last"``.
      batch_size: lines a step.
      buckets: width buckets at most, chosen from the data; each costs one compilation.
      max_width: widest line in pixels at the model's height.
      max_pixels: most pixels an image file may have.
      max_bytes: most bytes it may have.
      stretch: pixels that every line is stretched to, for models trained so; 0 keeps the ratio of width and height.
      allow_outside: whether label files may name images outside the folder they are in.
      cache_mb: memory for decoded images.
      workers: threads that read images ahead.
      processes: worker processes that read them instead; 0 for threads. The same batches either way.
    """

    train: str = ""
    more: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    val: str = ""
    charset: str = ""
    blank: str = "first"
    batch_size: int = 32
    buckets: int = 6
    max_width: int = 4096
    max_pixels: int = 32_000_000
    max_bytes: int = 64_000_000
    allow_outside: bool = False
    stretch: int = 0
    cache_mb: int = 1024
    workers: int = 2
    processes: int = 0

    def __post_init__(self) -> None:
        for name in ("batch_size", "buckets", "max_width", "max_pixels", "max_bytes", "workers"):
            if getattr(self, name) < 1:
                raise UserError(f"data.{name} is {getattr(self, name)}; expected 1 or more")
        if not 0 <= self.stretch <= self.max_width:
            raise UserError(f"data.stretch is {self.stretch}; expected 1 to data.max_width={self.max_width}, or 0 to "
                            "keep the ratio")  # fmt: skip
        if self.processes < 0:
            raise UserError(f"data.processes is {self.processes}; expected 0 or more")

    def with_whole_paths(self, base: Path = Path()) -> DataConfig:
        """The same from any working folder, paths that are not whole being relative to ``base``."""

        def whole(path: str) -> str:
            return str((base / path).resolve()) if path else ""

        single = {name: whole(getattr(self, name)) for name in ("train", "val", "charset")}
        return dataclasses.replace(self, more=tuple(whole(path) for path in self.more), **single)  # type: ignore[arg-type]

    @property
    def limits(self) -> Limits:
        """Sizes an image may have."""
        return Limits(self.max_pixels, self.max_width, self.max_bytes, self.allow_outside, self.stretch)


@dataclass(frozen=True)
class Config:
    """Everything a run is made of. ``model.num_classes`` and ``model.blank`` follow from the charset."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    text: TextConfig = field(default_factory=TextConfig)
    render: RenderConfig = field(default_factory=RenderConfig)
    run: LoopConfig = field(default_factory=LoopConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)

    def for_charset(self, charset: Charset) -> TrainConfig:
        """What a step computes, with the number of classes filled in."""
        self.loss.check_classes(charset.num_classes)
        model = dataclasses.replace(self.model, num_classes=charset.num_classes, blank=charset.blank)
        return TrainConfig(model, self.loss, self.optim, self.augment)


# Keys of version 0.1 that were removed. At its default of then a key is dropped; at another value the message says what
# to do. Files of older runs have every key.
REMOVED: dict[str, tuple[Any, str]] = {
    "data.repeat_rare": (0.0, "it improved no score (docs/real-lines.md); delete it, or train with version 0.1"),
    "run.steps_per_call": (1, "steps are always run one by one; delete it, the results are the same"),
}


def _is_removed(section: Any, key: Any) -> bool:
    return f"{section}.{key}" in REMOVED and key not in keys(_section(section))


def without_removed(sections: dict[str, Any], *, defaults_only: bool) -> dict[str, Any]:
    """Sections of keys and values without the keys that were removed since they were written.

    Args:
      sections: what an older version wrote.
      defaults_only: keep those that are not at their default.
    """

    def stays(name: str, key: str, value: Any) -> bool:
        return not _is_removed(name, key) or (defaults_only and value != REMOVED[f"{name}.{key}"][0])

    return {
        name: {key: value for key, value in entries.items() if stays(name, key, value)}
        if isinstance(entries, dict)
        else entries
        for name, entries in sections.items()
    }


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
    return get_type_hints(Config)[name]


def keys(section: type) -> dict[str, dataclasses.Field[Any]]:
    """The keys a section of the file may have."""
    return {f.name: f for f in dataclasses.fields(section) if not f.metadata.get("derived")}


def _merge(values: dict[str, Any], given: Any, source: str) -> None:
    if not isinstance(given, dict):
        raise UserError(f"{source}: expected sections such as 'optim:', found {type(given).__name__}")
    for name, entries in given.items():
        _known(name, [f.name for f in dataclasses.fields(Config)], source, "section")
        section = _section(name)
        if not isinstance(entries, dict):
            raise UserError(f"{source}: section {name!r} is {entries!r}; expected keys and values")
        hints, known = get_type_hints(section), keys(section)
        for key, value in entries.items():
            if _is_removed(name, key):
                default, what = REMOVED[f"{name}.{key}"]
                if value != default:
                    raise UserError(f"{source}: {name}.{key} is {value!r}; the key was removed in 0.2: {what}")
                continue
            _known(key, list(known), source, f"key of {name!r}")
            values.setdefault(name, {})[key] = _convert(value, hints[key], f"{source}: {name}.{key}")


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


def describe() -> str:
    """Every key with its default, for ``--help``."""
    lines = []
    for f in dataclasses.fields(Config):
        lines += [f"  {f.name}.{key}={_shown(entry.default)}" for key, entry in keys(_section(f.name)).items()]
    return "\n".join(lines)


def _shown(default: Any) -> str:
    if default is None:
        return "the preset's"
    return str(_plain(default)).lower() if isinstance(default, bool) else str(_plain(default))
