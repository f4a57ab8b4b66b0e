"""Functions from outside the package: import paths of a loss, and whether they may be imported.

An import path runs the code of its module. A config that the user wrote is trusted; one that was read from a run folder
is not, unless its paths are allowed (`Trust`).
"""

from __future__ import annotations

import difflib
import importlib
import math
import os
import re
import sys
import traceback
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxcrnn._text import first_line
from jaxcrnn.centers import is_estimated, start, zeros
from jaxcrnn.errors import UserError
from jaxcrnn.kernels.logits import factored
from jaxcrnn.objective import CenterRule, Flow, LossConfig, Term, flow, loss_terms, move_centers
from jaxcrnn.train import TrainConfig
from jaxcrnn.types import Batch, Outputs

# What may be imported: True for everything, some import paths, or a mapping from import paths to the objects that
# stand for them, of which none is imported.
Trust = bool | Collection[str]

PATH = re.compile(r"([^\W\d]\w*(?:\.[^\W\d]\w*)*):([^\W\d]\w*)")  # my_package.my_module:my_function
KEYS = ("loss.assignment", "loss.rule", "loss.terms")
_EXPECTED = {
    "assignment": "a function (logits, lengths, labels, label_lengths, *, blank) -> Assignment",
    "rule": "a jaxcrnn.objective.CenterRule of functions or None",
    "terms": "a function (outputs, batch, assignment, state, *, blank) -> [B] or a scalar",
}


def paths(loss: LossConfig) -> dict[str, str]:
    """The import paths of a loss, each with the key that has it.

    Raises:
      UserError: a value is not an import path, or a term's weight is not a number.
    """
    return {_term(text)[1] if key == "terms" else _checked(text, key): key
            for key, texts in loss.import_paths.items() for text in texts}  # fmt: skip


def named(settings: Iterable[str], sections: Any = None) -> set[str]:
    """The import paths that a user gives, and thereby trusts.

    Args:
      settings: ``section.key=value``, as of ``--set``.
      sections: what the file of ``--config`` holds.
    """
    texts = [text for key, _, text in (setting.partition("=") for setting in settings) if key in KEYS]
    loss = sections.get("loss") if isinstance(sections, dict) else None
    if isinstance(loss, dict):
        texts += [str(value) for key, value in loss.items() if f"loss.{key}" in KEYS]
    return {match[0] for text in texts for match in PATH.finditer(text)}


def check_trusted(loss: LossConfig, trust: Trust, source: str) -> None:
    """Refuses a loss that names code that is not trusted.

    Raises:
      UserError: naming ``source``, the modules and how to allow them.
    """
    allowed: Collection[str] = [trust] if isinstance(trust, str) else [] if isinstance(trust, bool) else trust
    refused = {path: key for path, key in paths(loss).items() if trust is not True and path not in allowed}
    if refused:
        modules = ", ".join(dict.fromkeys(path.partition(":")[0] for path in refused))
        shown = ", ".join(f"loss.{key}={path}" for path, key in refused.items())
        raise UserError(f"{source}: {shown} would run the code of {modules}; if you trust it, allow it with "
                        "--trust-code (from Python: trust=True, or trust_code=True of jaxcrnn.load)")  # fmt: skip


def resolve(loss: LossConfig, trust: Trust = True, source: str = "the configuration") -> Flow | None:
    """The flow of a loss, None for one that names nothing outside the package.

    Modules are searched for in the working directory as well, after everything installed.

    Args:
      loss: which may have import paths.
      trust: which of them may be imported; by default all, for a loss that the user wrote.
      source: of the loss, for messages.

    Raises:
      UserError: a path that is not trusted, a module that cannot be imported, a name that it lacks, or one that is
        not what its key expects.
    """
    if not loss.import_paths:
        return None
    check_trusted(loss, trust, source)
    ready = trust if isinstance(trust, Mapping) else {}
    parts: dict[str, Any] = {"terms": []}
    for key, texts in loss.import_paths.items():
        for text in texts:
            weight, path = _term(text) if key == "terms" else (1.0, text)
            value = _fitting(ready[path] if path in ready else _imported(path, key), path, key)
            if key == "terms":
                parts[key].append(Term(path.partition(":")[2], weight, value))
            else:
                parts[key] = value
    return flow(loss, **parts)


def try_out(config: TrainConfig) -> None:
    """Traces the functions from outside once, on a small batch of shapes, so that a mistake in them stops no training.

    Args:
      config: of a run; without a flow of its own nothing is tried.

    Raises:
      UserError: naming the import paths, the error and the line it came from.
    """
    if config.flow is None:
        return
    flow, model = config.flow, config.model
    B, T, L, C, D = 3, 4, 2, model.num_classes, model.features

    def trial(features: Any, kernel: Any, bias: Any, batch: Batch, key: Any) -> Any:
        centers = None
        if flow.rule is not None:
            centers = zeros(C, D) if is_estimated(flow.rule) else start(flow.rule, key, kernel)

        def loss_of(features: Any) -> Any:
            dense = model.head != "fused"
            logits = features @ kernel + bias[None, None] if dense else factored(features, kernel, bias)
            outputs = Outputs(logits, features, jnp.full(B, T))
            loss, (_, assignment) = loss_terms(flow, outputs, batch, centers, blank=model.blank)
            return loss, (outputs, assignment)

        (_, (outputs, assignment)), _ = jax.value_and_grad(loss_of, has_aux=True)(features)
        moved = move_centers(flow, centers, outputs, assignment)
        shapes = [[a.shape for a in jax.tree.leaves(tree)] for tree in (centers, moved)]
        if type(centers) is not type(moved) or shapes[0] != shapes[1]:
            name = type(moved).__name__
            raise ValueError(f"the update returned {name} of shapes {shapes[1]}; expected CenterState of "
                             f"shapes {shapes[0]}")  # fmt: skip

    whole, real = jax.ShapeDtypeStruct((B,), jnp.int32), jnp.float32
    images = jax.ShapeDtypeStruct((B, model.height, 4 * T, 1), real)
    batch = Batch(images, whole, jax.ShapeDtypeStruct((B, L), jnp.int32), whole)  # type: ignore[arg-type]
    arrays = (jax.ShapeDtypeStruct(shape, real) for shape in ((B, T, D), (D, C), (C,)))
    try:
        jax.eval_shape(trial, *arrays, batch, jax.eval_shape(lambda: jax.random.key(0)))
    except UserError:
        raise
    except Exception as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "site-packages" not in f.filename]
        own = [f for f in frames if not f.filename.startswith(os.path.dirname(os.path.dirname(__file__)))]
        where = f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
        named_by = ", ".join(f"loss.{key}={path}" for path, key in paths(config.loss).items()) or "the flow"
        raise UserError(f"{named_by}: {type(error).__name__}: {first_line(error)}{where}") from None


def _checked(text: str, key: str) -> str:
    if not PATH.fullmatch(text):
        what = {"rule": "module:rule", "terms": "module:function or 0.1*module:function"}.get(key, "module:function")
        raise UserError(f"loss.{key}: {text!r} is not an import path; expected {what}")
    return text


def _term(text: str) -> tuple[float, str]:
    """Weight and path of ``0.1*module:function``."""
    factor, star, path = text.rpartition("*")
    try:
        weight = float(factor) if star else 1.0
    except ValueError:
        weight = math.nan
    if not (math.isfinite(weight) and weight >= 0):
        raise UserError(f"loss.terms: {text!r} has the weight {factor!r}; expected a number of 0 or more")
    _checked(path, "terms")
    return weight, path


def _imported(path: str, key: str) -> Any:
    module, _, name = path.partition(":")
    place = os.getcwd()
    if not {place, ""} & set(sys.path):
        sys.path.append(place)  # last, so that no file there stands in for an installed module
        importlib.invalidate_caches()
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise UserError(f"loss.{key}={path}: importing {module} failed: {first_line(error)}") from None
        raise UserError(
            f"loss.{key}={path}: there is no module {error.name}; expected it in {place} or installed"
        ) from None
    except (Exception, SystemExit) as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{frame.filename}, line {frame.lineno}"
        raise UserError(f"loss.{key}={path}: importing {module} failed: {type(error).__name__}: {first_line(error)} "
                        f"({where})") from None  # fmt: skip
    if not hasattr(found, name):
        near = difflib.get_close_matches(name, vars(found), 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        where = getattr(found, "__file__", None) or "built in"
        raise UserError(f"loss.{key}={path}: {module} ({where}) has no {name!r}{hint}")
    return getattr(found, name)


def _fitting(value: Any, path: str, key: str) -> Any:
    if key == "rule":
        fits = isinstance(value, CenterRule) and any(value) and all(part is None or callable(part) for part in value)
    else:
        fits = callable(value) and not isinstance(value, type)
    if not fits:
        raise UserError(f"loss.{key}={path} is of type {type(value).__name__}; expected {_EXPECTED[key]}")
    return value
