"""Differences between two configurations, and which of them a saved state is incompatible with."""

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
      before: value in the first configuration, None if it is not set there.
      now: value in the second configuration.
    """

    key: str
    before: Any
    now: Any

    def shown(self, template: str) -> str:
        """Fill ``{key}``, ``{before}`` and ``{now}`` of a template, with values as JSON."""
        return template.format(key=self.key, before=json.dumps(self.before), now=json.dumps(self.now))


def between(before: Config, now: Config) -> list[Change]:
    """List the keys that differ, except those of ``mesh``, which may change with every resume."""
    olds, news = _values(before), _values(now)
    return [
        Change(key, olds.get(key), news.get(key))
        for key in sorted(olds.keys() | news.keys())
        if not key.startswith("mesh.") and olds.get(key) != news.get(key)
    ]


def unfit(before: Config, now: Config, charset: Charset, source: str) -> list[Change]:
    """List the changes that make a saved state incompatible.

    Args:
      before: configuration of the saved state.
      now: configuration to resume with.
      charset: charset of both.
      source: name of ``now`` in messages.

    Returns:
      The changes that are incompatible on their own; all changes if they are incompatible only in combination; an
      empty list if the state is compatible.
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
    """Return the values of a configuration by ``section.key``, as they are written to its file."""
    sections: dict[str, dict[str, Any]] = yaml.safe_load(to_yaml(config))
    return {f"{name}.{key}": value for name, section in sections.items() for key, value in section.items()}
