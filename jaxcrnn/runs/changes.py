"""What differs between two configurations, and which differences a saved state does not fit."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import jax
import yaml

from jaxcrnn.charset import Charset
from jaxcrnn.errors import UserError
from jaxcrnn.runs.config import Config, build, to_yaml
from jaxcrnn.train import state_shapes


class Change(NamedTuple):
    """A key whose value differs between two configurations.

    Attributes:
      key: ``section.key``.
      before: its value in the first, None if the file has none.
      now: its value in the second.
    """

    key: str
    before: Any
    now: Any

    def shown(self, template: str) -> str:
        """A part of a message: ``{key}``, ``{before}`` and ``{now}`` of the template, values as JSON."""
        return template.format(key=self.key, before=json.dumps(self.before), now=json.dumps(self.now))


def between(before: Config, now: Config) -> list[Change]:
    """The keys that differ, but for those of ``mesh``, which may change with every resume."""
    olds, news = _values(before), _values(now)
    return [
        Change(key, olds.get(key), news.get(key))
        for key in sorted(olds.keys() | news.keys())
        if not key.startswith("mesh.") and olds.get(key) != news.get(key)
    ]


def unfit(before: Config, now: Config, charset: Charset, source: str) -> list[Change]:
    """The changes that a state saved under the first configuration does not fit.

    Args:
      before: of the saved state.
      now: the configuration to resume with.
      charset: of both.
      source: what messages call ``now``.

    Returns:
      Those that do not fit with all other keys as they were; every change if only several together do not fit; an
      empty list if all fit.
    """
    if _same_state(before, now, charset):
        return []
    changes = between(before, now)
    return [change for change in changes if not _fits_alone(before, change, charset, source)] or changes


def _fits_alone(before: Config, change: Change, charset: Charset, source: str) -> bool:
    section, key = change.key.split(".")
    try:
        return _same_state(before, build([({section: {key: change.now}}, source)], base=before), charset)
    except UserError:  # valid only together with another change
        return False


def _same_state(one: Config, two: Config, charset: Charset) -> bool:
    shapes = (state_shapes(config.for_charset(charset)) for config in (one, two))
    first, second = ([(path, a.shape, a.dtype) for path, a in jax.tree_util.tree_leaves_with_path(s)] for s in shapes)
    return first == second


def _values(config: Config) -> dict[str, Any]:
    """The values of a configuration by ``section.key``, as its file has them."""
    sections: dict[str, dict[str, Any]] = yaml.safe_load(to_yaml(config))
    return {f"{name}.{key}": value for name, section in sections.items() for key, value in section.items()}
