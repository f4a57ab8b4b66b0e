"""Plan of a comparison: arms, seeds and test sets, read from one YAML file."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxcrnn._text import read_text
from jaxcrnn.errors import UserError
from jaxcrnn.objective import LossConfig
from jaxcrnn.runs import config as configs
from jaxcrnn.runs.config import Config
from jaxcrnn.runs.folder import Run, open_weights

Opener = Callable[[Path], Run]

KEYS = ("config", "init_from", "start", "arms", "baseline", "against", "seeds", "tests", "groups", "estimate_lines")
START = "start"
# Names in a comparison's folder that an arm may not have.
TAKEN = (START, "tests", "plan.yaml", "groups.txt", "comparison.json", "results.json", "results.md", "report.html")
SEEDS = 2**31  # upper bound of seeds for jax's PRNG keys
SAME = ("data", "model", "augment", "text", "render", "run")  # sections that an arm may not change
DATA = ("augment", "text", "render")  # of these, what the baseline of other arms may change
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


@dataclass(frozen=True)
class Tests:
    """Test sets of a comparison.

    Attributes:
      lines: number of lines of each rendered set.
      seed: seed of the texts and of the rendering; another seed gives separate sets, for example for validation.
      typefaces: typefaces to render the test sets in, which should differ from those of training.
      render: rendering parameters that override those of training.
      text: text parameters that override those of training.
      files: label files by name, to use instead of rendered sets.
    """

    lines: int = 1000
    seed: int = 1_000_003
    typefaces: tuple[str, ...] = ()
    render: dict[str, Any] = field(default_factory=dict)
    text: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """Plan of a comparison.

    Attributes:
      start: configuration of the plain-CTC run that every arm is fine-tuned from; with ``origin``, of its weights.
      arms: configuration of each arm by name.
      baseline: arm that the others are compared with.
      against: for arms that are compared with another arm instead, on the same data as theirs, the name of that arm.
      seeds: seeds that each arm is trained with.
      tests: test sets.
      test_config: configuration that the test sets are rendered with.
      groups: file of look-alike groups; empty for the package's own.
      estimate_lines: number of rendered lines for estimating centers, for arms that start from estimated centers.
      text: text of the YAML file.
      origin: trained recogniser whose weights every arm is fine-tuned from, or None to train a start.
      overrides: ``section.key=value`` overrides.
      warnings: warnings about what the comparison cannot show.
    """

    start: Config
    arms: dict[str, Config]
    baseline: str
    against: dict[str, str]
    seeds: tuple[int, ...]
    tests: Tests
    test_config: Config
    groups: str
    estimate_lines: int
    text: str
    origin: Run | None = None
    overrides: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def read(path: str | Path, overrides: Sequence[str] = (), opener: Opener = open_weights) -> Plan:
    """Read a plan.

    Args:
      path: YAML file with the sections ``config`` (of every run), ``start`` (overrides of the plain-CTC run that all
        arms are fine-tuned from) or ``init_from`` (a trained recogniser to fine-tune instead; its configuration applies
        except for the loss), ``arms`` (names, each with its overrides of ``config``), ``baseline``, ``against`` (arms
        that are compared with another arm, which may have other data than the baseline), ``seeds``, ``tests``
        (`Tests`), ``groups`` and ``estimate_lines``.
      overrides: ``section.key=value`` overrides of ``config``.
      opener: opens the recogniser that ``init_from`` names.

    Raises:
      UserError: a key is unknown, a value is invalid, or an arm would see other data or take another number of steps.
    """
    content = configs.read_yaml(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected keys such as 'arms:', found {type(content).__name__}")
    for key in content:
        if key not in KEYS:
            raise UserError(f"{path}: unknown key {key!r}; expected some of {', '.join(KEYS)}")
    arms = content.get("arms")
    if not isinstance(arms, dict) or not arms:
        raise UserError(
            f"{path}: arms is {arms!r}; expected names with settings, such as flow1: {{loss: {{preset: flow1}}}}"
        )
    shared = (content.get("config") or {}, f"{path}: config")
    origin = _origin(path, content, opener)
    inherited = dataclasses.replace(origin.config, loss=LossConfig()) if origin else None

    def config(more: Any, where: str) -> Config:
        built = configs.build([shared, (more or {}, f"{path}: {where}")], overrides, inherited)
        base = Path(path).parent
        return dataclasses.replace(
            built, data=built.data.with_whole_paths(base), text=built.text.with_whole_paths(base)
        )

    start = config(content.get("start"), "start")
    if start.loss.has_centers:
        raise UserError(f"{path}: start: the loss has centers; expected plain CTC, which every arm is fine-tuned from")
    built = {str(name): config(more, f"arms.{name}") for name, more in arms.items()}
    baseline = str(content.get("baseline", next(iter(built))))
    if baseline not in built:
        raise UserError(f"{path}: baseline is {baseline!r}; expected one of the arms: {', '.join(built)}")
    against = _against(path, content.get("against") or {}, built, baseline)
    for name, arm in built.items():
        other = against.get(name, baseline)
        _same(path, name, arm, built[other], other, DATA if name in against.values() else ())
    seeds = content.get("seeds", [0, 1, 2])
    if not isinstance(seeds, list) or not seeds or any(not _is_seed(s) for s in seeds):
        raise UserError(
            f"{path}: seeds is {seeds!r}; expected whole numbers below {SEEDS} in brackets, such as [0, 1, 2]"
        )
    if len(set(seeds)) < len(seeds):
        raise UserError(f"{path}: duplicate seed in {seeds!r}; expected each once")
    tests = _tests(path, content.get("tests") or {})
    look = {"render": tests.render, "text": tests.text | {"typefaces": list(tests.typefaces)}}
    groups, lines = content.get("groups", ""), content.get("estimate_lines", 2000)
    if not isinstance(groups, str):
        raise UserError(f"{path}: groups is {groups!r}; expected a file of look-alike groups")
    if type(lines) is not int or lines < 1:
        raise UserError(f"{path}: estimate_lines is {lines!r}; expected a whole number of 1 or more")
    return Plan(
        start,
        built,
        baseline,
        against,
        tuple(seeds),
        tests,
        config(look, "tests") if not tests.files else start,
        str((Path(path).parent / groups).resolve()) if groups else "",
        lines,
        read_text(path),
        origin,
        tuple(overrides),
        tuple(_doubts(built[baseline], tests, len(seeds))),
    )


def _origin(path: str | Path, content: dict[str, Any], opener: Opener) -> Run | None:
    """Open the recogniser that ``init_from`` names: a path relative to the plan, or another name of the opener."""
    name = content.get("init_from")
    if name is None:
        return None
    if not isinstance(name, str) or not name:
        raise UserError(f"{path}: init_from is {name!r}; expected pretrained or the folder of a trained recogniser")
    if content.get("start"):
        raise UserError(f"{path}: start cannot be combined with init_from, which replaces that run; drop one of them")
    beside = Path(path).parent / name
    return opener(beside if beside.exists() else Path(name))


def _is_seed(value: Any) -> bool:
    return type(value) is int and 0 <= value < SEEDS


def _doubts(baseline: Config, tests: Tests, seeds: int) -> Iterator[str]:
    """Yield warnings about what the comparison cannot show."""
    if baseline.loss.has_centers:
        yield "the baseline has centers itself, so this does not compare center losses with plain CTC"
    if seeds < 3:
        yield f"only {seeds} seed{'s' * (seeds > 1)}; intervals over seeds need at least 3"
    trained = baseline.text.typefaces
    if tests.files or not baseline.text.share:
        return
    if shared := [face for face in tests.typefaces if not trained or face in trained]:
        yield f"typefaces of the tests are also used for training: {', '.join(shared)}"
    if not (tests.typefaces or tests.render):
        yield "the test lines look like the training lines; set tests.typefaces or tests.render to change that"


def _against(path: str | Path, section: Any, arms: dict[str, Config], baseline: str) -> dict[str, str]:
    """Read which arms are compared with another arm than the baseline."""
    expected = f"names of arms other than {baseline}, each with the arm to compare it with"
    if not isinstance(section, dict) or not all(isinstance(other, str) for other in section.values()):
        raise UserError(f"{path}: against is {section!r}; expected {expected}")
    for name, other in section.items():
        if name not in arms or other not in arms or baseline in (name, other) or other in section:
            raise UserError(
                f"{path}: against: {name}: {other}; expected {expected}, which is compared with {baseline} itself"
            )
    return {str(name): other for name, other in section.items()}


def _same(path: str | Path, name: str, arm: Config, other: Config, baseline: str, differing: Sequence[str]) -> None:
    """Check that an arm sees the same data in the same order, and takes as many steps, as its baseline.

    The sections ``differing`` may differ.
    """
    if not NAME.fullmatch(name) or name in TAKEN:
        raise UserError(
            f"{path}: arms: invalid name {name!r}; expected letters, digits, '-', '_', '+' and '.', and "
            f"none of {', '.join(TAKEN)}"
        )
    for section in SAME:
        if section not in differing and getattr(arm, section) != getattr(other, section):
            raise UserError(
                f"{path}: arms.{name} and {baseline} differ in {section!r}; arms may differ in 'loss' and "
                "'optim' only, so that all see the same data (an arm that others are compared with by 'against' also "
                f"in {', '.join(map(repr, DATA))})"
            )
    if arm.optim.steps != other.optim.steps:
        raise UserError(
            f"{path}: arms.{name} takes {arm.optim.steps} steps, but {baseline} takes {other.optim.steps}; "
            "expected the same"
        )


def _tests(path: str | Path, section: Any) -> Tests:
    names = [f.name for f in dataclasses.fields(Tests)]
    if not isinstance(section, dict) or not set(section) <= set(names):
        raise UserError(f"{path}: tests is {section!r}; expected some of {', '.join(names)}")
    values = dict(section)
    for name, kind in (("lines", int), ("seed", int), ("render", dict), ("text", dict), ("files", dict)):
        if name in values and type(values[name]) is not kind:
            expected = "a whole number" if kind is int else "keys and values"
            raise UserError(f"{path}: tests.{name} is {values[name]!r}; expected {expected}")
    if "typefaces" in values:
        typefaces = values["typefaces"]
        if not isinstance(typefaces, list) or not all(isinstance(name, str) for name in typefaces):
            raise UserError(f"{path}: tests.typefaces is {typefaces!r}; expected names in brackets")
        values["typefaces"] = tuple(typefaces)
    if values.get("lines", 1) < 1 or not _is_seed(values.get("seed", 0)):
        raise UserError(f"{path}: tests.lines and seed: expected at least 1 line and a seed from 0 to {SEEDS - 1}")
    if values.get("files") and len(values) > 1:
        others = ", ".join(f"tests.{key}" for key in values if key != "files")
        raise UserError(f"{path}: {others} cannot be combined with tests.files; use rendered tests or files")
    for name in values.get("files", {}):
        if not NAME.fullmatch(str(name)) or name in ("charset", "results"):
            raise UserError(
                f"{path}: tests.files: invalid name {name!r}; expected letters, digits, '-', '_', '+' and "
                "'.', and not 'charset' or 'results'"
            )
    values["files"] = {
        str(name): str((Path(path).parent / str(file)).resolve()) for name, file in values.get("files", {}).items()
    }
    return Tests(**values)
