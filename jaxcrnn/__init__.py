"""Text recognition that tells look-alike characters apart: CRNN, CTC and center loss as pure functions in JAX.

Names load on first use, so that reading label files or images never imports jax.
"""

import importlib
from typing import Any

from jaxcrnn.charset import Charset
from jaxcrnn.errors import UserError

__version__ = "0.1.0"

_SUBMODULES = frozenset(
    {
        "assign", "augment", "centers", "charset", "convert", "ctc", "decode", "diagnostics", "errors", "losses",
        "metrics", "model", "objective", "optim", "train", "types",
    }
)  # fmt: skip
# Where modules went that pages of version 0.1 named.
_MOVED = {
    "backbones": "nn.backbones", "checkpoint": "runs.checkpoint", "recurrent": "nn.lstm", "head": "kernels.logits",
    "fused": "kernels.chunked_head", "sharding": "parallel.mesh", "config": "runs.config", "layouts": "interop.layouts",
    "recognizer": "interop.recognizer", "evaluate": "decoding.evaluate", "dispatch": "runs.compile",
}  # fmt: skip
_NAMES = {"Recognizer": "interop.recognizer", "load": "interop.recognizer"}

__all__ = ["Charset", "Recognizer", "UserError", "__version__", "load", *sorted(_SUBMODULES)]


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(f"jaxcrnn.{_NAMES[name]}"), name)
    if name in _SUBMODULES or name in _MOVED:
        return importlib.import_module(f"jaxcrnn.{_MOVED.get(name, name)}")
    raise AttributeError(f"module 'jaxcrnn' has no attribute {name!r}")
