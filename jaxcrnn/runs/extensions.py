"""User-defined loss functions: import paths in the config, and whether they may be imported.

Importing a path runs the code of its module. A config that the user wrote is trusted; one read from a run folder is
not, unless its paths are allowed (`Trust`).
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

# What may be imported: True for everything, a collection of import paths, or a mapping from import paths to objects
# that replace them without an import.
Trust = bool | Collection[str]

PATH = re.compile(r"([^\W\d]\w*(?:\.[^\W\d]\w*)*):([^\W\d]\w*)")  # my_package.my_module:my_function
KEYS = ("loss.assignment", "loss.rule", "loss.terms")
_EXPECTED = {
    "assignment": "a function (logits, lengths, labels, label_lengths, *, blank) -> Assignment",
    "rule": "a jaxcrnn.objective.CenterRule of functions or None",
    "terms": "a function (outputs, batch, assignment, state, *, blank) -> [B] or a scalar",
}


def paths(loss: LossConfig) -> dict[str, str]:
    """Return the import paths of a loss, each with its configuration key.

    Raises:
      UserError: a value is not an import path, or a term's weight is not a number.
    """
    return {
        _term(text)[1] if key == "terms" else _checked(text, key): key
        for key, texts in loss.import_paths.items()
        for text in texts
    }


def named(settings: Iterable[str], sections: Any = None) -> set[str]:
    """Collect the import paths that the user passes on the command line, and thereby trusts.

    Args:
      settings: ``section.key=value`` strings of ``--set``.
      sections: content of the ``--config`` file.
    """
    texts = [text for key, _, text in (setting.partition("=") for setting in settings) if key in KEYS]
    loss = sections.get("loss") if isinstance(sections, dict) else None
    if isinstance(loss, dict):
        texts += [str(value) for key, value in loss.items() if f"loss.{key}" in KEYS]
    return {match[0] for text in texts for match in PATH.finditer(text)}


def check_trusted(loss: LossConfig, trust: Trust, source: str) -> None:
    """Check that a loss names trusted code only.

    Raises:
      UserError: it does not (naming ``source``, the modules and how to allow them).
    """
    allowed: Collection[str] = [trust] if isinstance(trust, str) else [] if isinstance(trust, bool) else trust
    refused = {path: key for path, key in paths(loss).items() if trust is not True and path not in allowed}
    if refused:
        modules = ", ".join(dict.fromkeys(path.partition(":")[0] for path in refused))
        shown = ", ".join(f"loss.{key}={path}" for path, key in refused.items())
        raise UserError(
            f"{source}: {shown} would run the code of {modules}; if you trust it, use --trust-code "
            "(in Python trust=True, or trust_code=True of jaxcrnn.load)"
        )


def resolve(loss: LossConfig, trust: Trust = True, source: str = "the configuration") -> Flow | None:
    """Build the flow of a loss with import paths; None for a loss without them.

    Modules are also searched for in the working directory, after all installed ones.

    Args:
      loss: loss, which may have import paths.
      trust: import paths that may be imported; all by default, for a loss that the user wrote.
      source: name of the loss's source in messages.

    Raises:
      UserError: an untrusted path, a module that cannot be imported, a missing name, or an object of the wrong type.
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
    """Trace user-defined functions once on small shapes, so that errors in them appear before training.

    Args:
      config: configuration of a run; without a flow of its own nothing is traced.

    Raises:
      UserError: tracing failed (naming the import paths, the error and its line).
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
            raise ValueError(
                f"the update returned {name} of shapes {shapes[1]}; expected CenterState of shapes {shapes[0]}"
            )

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
    """Split ``0.1*module:function`` into weight and path."""
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
        sys.path.append(place)  # last, so that no file there shadows an installed module
        importlib.invalidate_caches()
    try:
        imported = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise UserError(f"loss.{key}={path}: importing {module} failed: {first_line(error)}") from None
        raise UserError(
            f"loss.{key}={path}: module {error.name} not found; expected it in {place} or installed"
        ) from None
    except (Exception, SystemExit) as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{frame.filename}, line {frame.lineno}"
        raise UserError(
            f"loss.{key}={path}: importing {module} failed: {type(error).__name__}: {first_line(error)} ({where})"
        ) from None
    if not hasattr(imported, name):
        near = difflib.get_close_matches(name, vars(imported), 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        where = getattr(imported, "__file__", None) or "built in"
        raise UserError(f"loss.{key}={path}: {module} ({where}) has no {name!r}{hint}")
    return getattr(imported, name)


def _fitting(value: Any, path: str, key: str) -> Any:
    if key == "rule":
        fits = isinstance(value, CenterRule) and any(value) and all(part is None or callable(part) for part in value)
    else:
        fits = callable(value) and not isinstance(value, type)
    if not fits:
        raise UserError(f"loss.{key}={path} is of type {type(value).__name__}; expected {_EXPECTED[key]}")
    return value
