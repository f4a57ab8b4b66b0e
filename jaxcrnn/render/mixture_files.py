"""Reading and checking of the YAML files of mixtures (`jaxcrnn.render.mixture`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jaxcrnn._ranges import Range
from jaxcrnn._text import read_text
from jaxcrnn.errors import UserError

# Every key of a part other than kind and weight, with its default; None is required.
KEYS: dict[str, dict[str, Any]] = {
    "words": {"file": None, "power": 0.5, "punctuation": 0.1, "swap": 0.0, "groups": ""},
    "running": {"file": None},
    "lookalikes": {"groups": "", "share": 0.7, "characters": ""},
    "uniform": {"characters": ""},
    "patterns": {"file": "", "rule": "text"},
}
_SHARE = Range(0, 1)
_LARGE = Range(0, 1_000_000)
RANGES = {"weight": _LARGE, "power": _LARGE, "punctuation": _SHARE, "swap": _SHARE, "share": _SHARE}


def read_mixture(path: Path) -> list[dict[str, Any]]:
    """Read and check a mixture: every part with all its keys.

    Raises:
      UserError: the file is not such a list, or a part has an unknown kind or key, or a value that it cannot have.
    """
    import yaml

    try:
        parts = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        raise UserError(f"{path}: invalid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(parts, list) or not parts or not all(isinstance(part, dict) for part in parts):
        raise UserError(f"{path}: expected a list of parts, each with a kind and a weight")
    return [_checked(path, number, part) for number, part in enumerate(parts, start=1)]


def _checked(path: Path, number: int, part: dict[Any, Any]) -> dict[str, Any]:
    where = f"{path}, part {number}"
    kind = part.get("kind")
    if kind not in KEYS:
        raise UserError(f"{where}: kind is {kind!r}; expected one of {', '.join(KEYS)}")
    whole = {"kind": None, "weight": None} | KEYS[kind]
    for key in part:
        if key not in whole:
            raise UserError(f"{where}: unknown key {key!r}; expected {', '.join(whole)}")
    whole |= part
    for key, value in whole.items():
        if value is None:
            raise UserError(f"{where} ({kind}): missing key {key!r}")
        if key in RANGES:
            if isinstance(value, bool) or not isinstance(value, int | float) or not RANGES[key].has(value):
                raise UserError(f"{where} ({kind}): {key} is {value!r}; expected a number from {RANGES[key]}")
        elif not isinstance(value, str):
            raise UserError(f"{where} ({kind}): {key} is {value!r}; expected text")
    if not whole["weight"]:
        raise UserError(f"{where} ({kind}): weight is 0; expected more than 0, or remove the part")
    return whole
