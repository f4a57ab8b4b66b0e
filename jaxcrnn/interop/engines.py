"""The choice between jax and onnxruntime for reading."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys

from jaxcrnn.architecture import ModelConfig
from jaxcrnn.errors import UserError

ENGINES = ("auto", "jax", "onnx")
PACKAGES = ("onnx", "onnxruntime")
# Packages through which jax uses accelerators; without them, its devices are CPUs.
_ACCELERATORS = ("jax_plugins", "libtpu")


def choose(engine: str, model: ModelConfig | None = None, needs_jax: str = "") -> str:
    """Choose the program that reads: ``"onnx"`` or ``"jax"``.

    Args:
      engine: ``"jax"``, ``"onnx"``, or ``"auto"``: onnx if the packages onnx and onnxruntime are installed, jax's
        device is a CPU, and the model is read in float32; jax otherwise.
      model: model that will read; None if it is not known yet.
      needs_jax: what only jax can do, if that is requested, such as ``"--beam"``.

    Raises:
      UserError: the engine is unknown, or it is ``"onnx"`` and that cannot be used.
    """
    if engine not in ENGINES:
        raise UserError(f"engine {engine!r}: expected one of {', '.join(ENGINES)}")
    if engine == "jax":
        return "jax"
    reason = (f"{needs_jax} needs the engine jax" if needs_jax else "") or _unsupported(model) or missing()
    if engine == "onnx":
        if reason:
            raise UserError(f"engine onnx: {reason}")
        return "onnx"
    return "jax" if reason or not on_cpu() else "onnx"


def _unsupported(model: ModelConfig | None) -> str:
    """Return why a model is not read with onnxruntime, which computes in float32; empty if it is."""
    if model is None or model.inference_dtype == "float32":
        return ""
    if model.inference_dtype != "auto":
        return f"it reads in float32, but model.inference_dtype is {model.inference_dtype}; use the engine jax"
    return "" if model.dtype != "float64" else "it reads in float32, but model.dtype is float64; use the engine jax"


def missing() -> str:
    """Return which package of the engine onnx is missing, and how to install it; empty if there is none."""
    for name in PACKAGES:
        try:
            importlib.import_module(name)
        except ImportError:
            return f"the package {name} is missing; install the extra 'onnx': pip install 'jaxcrnn[onnx]'"
    return ""


def on_cpu() -> bool:
    """Return whether jax's first device is a CPU; jax is imported only if an accelerator is possible."""
    first = os.environ.get("JAX_PLATFORMS", "").split(",")[0]
    if "jax" not in sys.modules and (first == "cpu" or not any(map(importlib.util.find_spec, _ACCELERATORS))):
        return True
    import jax

    try:
        return jax.devices()[0].platform == "cpu"
    except RuntimeError:  # the platform that was requested cannot be used; the engine jax reports that
        return False
