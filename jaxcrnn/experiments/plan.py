"""What ``jaxcrnn compare`` is asked for: arms, seeds and test sets, read from one YAML file."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxcrnn._text import read_text
from jaxcrnn.errors import UserError
from jaxcrnn.runs import config as configs
from jaxcrnn.runs.config import Config

KEYS = ("config", "start", "arms", "baseline", "seeds", "tests", "groups", "estimate_lines")
START = "start"
# What a comparison's folder holds beside the arms.
TAKEN = (START, "tests", "plan.yaml", "groups.txt", "comparison.json", "results.json", "results.md", "report.html")
SEEDS = 2**31  # more does not fit a key of jax's
SAME = ("data", "model", "augment", "text", "render", "run")  # sections that an arm may not change
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


@dataclass(frozen=True)
class Tests:
    """The test sets.

    Attributes:
      lines: of each rendered set.
      seed: of what is written and how it looks; another one makes sets of their own, for validation.
      typefaces: names of those to render them in, which training never sees.
      render: how they look, on top of how training lines look.
      text: as ``render``, for their lengths.
      files: label files instead of rendered sets, by name.
    """

    lines: int = 1000
    seed: int = 1_000_003
    typefaces: tuple[str, ...] = ()
    render: dict[str, Any] = field(default_factory=dict)
    text: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """A comparison.

    Attributes:
      start: configuration of the plain-CTC run that every arm goes on from.
      arms: configuration of each arm by name.
      baseline: the arm that the others are compared with.
      seeds: each arm is run with each.
      tests: the test sets.
      test_config: configuration that the test sets are rendered with.
      groups: file of look-alike groups, empty for those in the package.
      estimate_lines: rendered lines that centers are estimated on, where an arm starts from estimated ones.
      text: of the file.
      overrides: what was set on top of it.
      warnings: what is allowed and should be known.
    """

    start: Config
    arms: dict[str, Config]
    baseline: str
    seeds: tuple[int, ...]
    tests: Tests
    test_config: Config
    groups: str
    estimate_lines: int
    text: str
    overrides: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def read(path: str | Path, overrides: Sequence[str] = ()) -> Plan:
    """Reads a plan.

    Args:
      path: a YAML file with the sections ``config`` (of every run), ``start`` (on top of it, for the run of plain CTC
        that all arms go on from), ``arms`` (names, each with what it has on top of ``config``), ``baseline``,
        ``seeds``, ``tests`` (`Tests`), ``groups`` and ``estimate_lines``.
      overrides: ``section.key=value`` on top of ``config``.

    Raises:
      UserError: an unknown key or a wrong value, or an arm that would see other data or take other steps.
    """
    given = configs.read_yaml(path)
    if not isinstance(given, dict):
        raise UserError(f"{path}: expected keys such as 'arms:', found {type(given).__name__}")
    for key in given:
        if key not in KEYS:
            raise UserError(f"{path}: {key!r} is no key of a comparison; expected some of {', '.join(KEYS)}")
    arms = given.get("arms")
    if not isinstance(arms, dict) or not arms:
        raise UserError(f"{path}: arms is {arms!r}; expected names, each with its settings, such as flow1: "
                        "{loss: {preset: flow1}}")  # fmt: skip
    shared = (given.get("config") or {}, f"{path}: config")

    def config(more: Any, where: str) -> Config:
        built = configs.build([shared, (more or {}, f"{path}: {where}")], overrides)
        base = Path(path).parent
        return dataclasses.replace(
            built, data=built.data.with_whole_paths(base), text=built.text.with_whole_paths(base)
        )

    start = config(given.get("start"), "start")
    if start.loss.has_centers:
        raise UserError(f"{path}: start: the loss keeps centers; expected plain CTC, that every arm goes on from")
    built = {str(name): config(more, f"arms.{name}") for name, more in arms.items()}
    baseline = str(given.get("baseline", next(iter(built))))
    if baseline not in built:
        raise UserError(f"{path}: baseline is {baseline!r}; expected one of the arms: {', '.join(built)}")
    for name, arm in built.items():
        _same(path, name, arm, built[baseline], baseline)
    seeds = given.get("seeds", [0, 1, 2])
    if not isinstance(seeds, list) or not seeds or any(not _is_seed(s) for s in seeds):
        raise UserError(f"{path}: seeds is {seeds!r}; expected whole numbers below {SEEDS} in brackets, such as "
                        "[0, 1, 2]")  # fmt: skip
    if len(set(seeds)) < len(seeds):
        raise UserError(f"{path}: seeds is {seeds!r}; expected each once")
    tests = _tests(path, given.get("tests") or {})
    look = {"render": tests.render, "text": tests.text | {"typefaces": list(tests.typefaces)}}
    groups, lines = given.get("groups", ""), given.get("estimate_lines", 2000)
    if not isinstance(groups, str):
        raise UserError(f"{path}: groups is {groups!r}; expected a file of look-alike groups")
    if type(lines) is not int or lines < 1:
        raise UserError(f"{path}: estimate_lines is {lines!r}; expected a whole number of 1 or more")
    return Plan(
        start, built, baseline, tuple(seeds), tests, config(look, "tests") if not tests.files else start,
        str((Path(path).parent / groups).resolve()) if groups else "", lines, read_text(path), tuple(overrides),
        tuple(_doubts(built[baseline], tests, len(seeds))),
    )  # fmt: skip


def _is_seed(value: Any) -> bool:
    return type(value) is int and 0 <= value < SEEDS


def _doubts(baseline: Config, tests: Tests, seeds: int) -> Iterator[str]:
    """What makes a comparison say less than it seems to."""
    if baseline.loss.has_centers:
        yield "the baseline keeps centers itself: what is compared is not center loss against plain CTC"
    if seeds < 3:
        yield f"{seeds} of the 3 seeds that intervals over seeds want at least"
    trained = baseline.text.typefaces
    if tests.files or not baseline.text.share:
        return
    if shared := [face for face in tests.typefaces if not trained or face in trained]:
        yield f"training sees the typefaces of the tests, too: {', '.join(shared)}"
    if not (tests.typefaces or tests.render):
        yield "the tests look as the training lines do; tests.typefaces or tests.render would make them differ"


def _same(path: str | Path, name: str, arm: Config, other: Config, baseline: str) -> None:
    """Every arm sees the same data in the same order and takes the same steps, or nothing could be compared."""
    if not NAME.fullmatch(name) or name in TAKEN:
        raise UserError(f"{path}: arms: {name!r} cannot be the name of an arm; expected letters, digits, '-', '_', "
                        f"'+' and '.', and none of {', '.join(TAKEN)}")  # fmt: skip
    for section in SAME:
        if getattr(arm, section) != getattr(other, section):
            raise UserError(f"{path}: arms.{name} has another {section!r} than {baseline}; arms may differ in 'loss' "
                            "and 'optim' only, so that all see the same data")  # fmt: skip
    if arm.optim.steps != other.optim.steps:
        raise UserError(f"{path}: arms.{name} takes {arm.optim.steps} steps and {baseline} {other.optim.steps}; "
                        "expected the same")  # fmt: skip


def _tests(path: str | Path, given: Any) -> Tests:
    known = {f.name: f for f in dataclasses.fields(Tests)}
    if not isinstance(given, dict) or not set(given) <= set(known):
        raise UserError(f"{path}: tests is {given!r}; expected some of {', '.join(known)}")
    values = dict(given)
    for name, kind in (("lines", int), ("seed", int), ("render", dict), ("text", dict), ("files", dict)):
        if name in values and type(values[name]) is not kind:
            expected = "a whole number" if kind is int else "keys and values"
            raise UserError(f"{path}: tests.{name} is {values[name]!r}; expected {expected}")
    if "typefaces" in values:
        names = values["typefaces"]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise UserError(f"{path}: tests.typefaces is {names!r}; expected names in brackets")
        values["typefaces"] = tuple(names)
    if values.get("lines", 1) < 1 or not _is_seed(values.get("seed", 0)):
        raise UserError(f"{path}: tests.lines and seed: expected at least 1 line and a seed from 0 to {SEEDS - 1}")
    if values.get("files") and len(values) > 1:
        others = ", ".join(f"tests.{key}" for key in values if key != "files")
        raise UserError(f"{path}: {others}: for rendered tests, and tests.files gives others; expected one of both")
    for name in values.get("files", {}):
        if not NAME.fullmatch(str(name)) or name in ("charset", "results"):
            raise UserError(f"{path}: tests.files: {name!r} cannot be the name of a test set; expected letters, "
                            "digits, '-', '_', '+' and '.', and not 'charset'")  # fmt: skip
    values["files"] = {
        str(name): str((Path(path).parent / str(file)).resolve()) for name, file in values.get("files", {}).items()
    }
    return Tests(**values)
