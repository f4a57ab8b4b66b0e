"""Text recognition that tells look-alike characters apart: CRNN, CTC and center loss as pure functions in JAX.

Submodules load on first use, so that reading label files or images never imports jax.
"""

import importlib
from typing import Any

from jaxcrnn.charset import Charset
from jaxcrnn.errors import UserError

__version__ = "0.1.0"

_SUBMODULES = frozenset(
    {
        "assign", "augment", "backbones", "centers", "checkpoint", "convert", "ctc", "decode", "diagnostics", "losses",
        "metrics", "model", "objective", "optim", "recurrent", "train", "types",
    }
)  # fmt: skip

__all__ = ["Charset", "Recognizer", "UserError", "__version__", "load", *sorted(_SUBMODULES)]


def __getattr__(name: str) -> Any:
    if name in ("Recognizer", "load"):
        return getattr(importlib.import_module("jaxcrnn.interop.recognizer"), name)
    if name in _SUBMODULES:
        return importlib.import_module(f"jaxcrnn.{name}")
    raise AttributeError(f"module 'jaxcrnn' has no attribute {name!r}")
