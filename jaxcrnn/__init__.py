"""Text recognition that tells look-alike characters apart: CRNN, CTC and center loss as pure functions in JAX.

Names load on first use, so that reading label files or images never imports jax.
"""

import importlib
from typing import Any

from jaxcrnn.charset import Charset
from jaxcrnn.errors import UserError

__version__ = "0.3.0.dev0"

_MODULES = (
    "assign",
    "augment",
    "centers",
    "charset",
    "convert",
    "ctc",
    "decode",
    "diagnostics",
    "errors",
    "losses",
    "metrics",
    "model",
    "objective",
    "optim",
    "train",
    "types",
)
# Public names, by the module that has them.
_NAMES = {
    "assign": ("aligned", "counted", "posterior", "predicted"),
    "centers": ("CenterRule",),
    "ctc": ("best_path", "ctc_loss", "fused_ctc_loss", "is_feasible", "single_swaps", "slot_posteriors"),
    "decode": ("greedy",),
    "interop.recognizer": ("Recognizer", "load"),
    "losses": ("ace", "center", "focal_ctc", "push"),
    "model": ("CRNN", "ModelConfig"),
    "objective": ("PRESETS", "Flow", "LossConfig", "Term", "flow"),
    "optim": ("OptimConfig",),
    "runs.compile": ("for_device",),
    "train": ("TrainConfig", "eval_step", "init_state", "train_step"),
    "types": ("Assignment", "Batch", "CenterState", "Outputs", "TrainState"),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}
# Modules that pages of version 0.1 named, by their place now.
_MOVED = {
    "automata": "decoding.automata",
    "backbones": "nn.backbones",
    "beam": "decoding.beam",
    "checkpoint": "runs.checkpoint",
    "config": "runs.config",
    "evaluate": "decoding.evaluate",
    "fused": "kernels.chunked_head",
    "head": "kernels.logits",
    "language": "decoding.ngram",
    "layouts": "interop.checkpoint_layouts",
    "looks": "render.config",
    "recognizer": "interop.recognizer",
    "recurrent": "nn.lstm",
    "sharding": "parallel.mesh",
    "streams": "render.streams",
}

__all__ = ["Charset", "UserError", "__version__", *_MODULES, *_HOME]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"jaxcrnn.{_HOME[name]}"), name)
    if name in _MODULES or name in _MOVED:
        return importlib.import_module(f"jaxcrnn.{_MOVED.get(name, name)}")
    raise AttributeError(f"module 'jaxcrnn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
