"""Weights between those that a fine-tune started from and those that it ended with."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import numpy as np

from jaxcrnn.errors import UserError
from jaxcrnn.interop.exported import facts_of
from jaxcrnn.interop.recognizer import Recognizer
from jaxcrnn.runs.charset_transfer import transfer
from jaxcrnn.runs.finer_lines import enlarged, is_finer

# Keys of a model that may differ: they change neither the arrays, apart from the classes, nor what they compute.
FREE = ("num_classes", "blank", "dropout", "dtype", "inference_dtype", "conv", "lstm", "head")


def interpolated(start: Recognizer, trained: Recognizer, share: float) -> Recognizer:
    """Interpolate between the weights at the start of a fine-tune and the trained ones.

    ``(1 - share) * start + share * trained``, for all parameters and batch statistics. The classes of the result are
    those of the trained recogniser; classes that the start does not have keep their trained weights.

    Args:
      start: recogniser that the fine-tune started from.
      trained: fine-tuned recogniser.
      share: share of the trained weights, 0 to 1.

    Returns:
      A recogniser with the model, charset and limits of the trained one.

    Raises:
      UserError: If ``share`` is out of range, or the two are different models.

    Examples:
      >>> import jaxcrnn
      >>> from jaxcrnn.interop.interpolation import interpolated
      >>> reader = jaxcrnn.load()
      >>> same = interpolated(reader, reader, 0.5)
      >>> bool((same.variables["params"]["head"]["bias"] == reader.variables["params"]["head"]["bias"]).all())
      True

    References:
      WiSE-FT: Wortsman et al., 2022 (arXiv 2109.01903), equation 1.
    """
    if not 0 <= share <= 1:
        raise UserError(f"share is {share:g}; expected a number from 0 to 1")
    ours, theirs = ({k: v for k, v in facts_of(one.model).items() if k not in FREE} for one in (start, trained))
    if is_finer(trained.model, start.model):
        theirs |= {"backbone": ours["backbone"], "height": ours["height"]}
    different = [
        f"{key} is {theirs[key]!r} instead of {value!r}" for key, value in ours.items() if theirs[key] != value
    ]
    if different:
        raise UserError(f"different models cannot be interpolated: {', '.join(different)}")
    variables = enlarged(start.variables, start.model, trained.model)
    before = transfer(variables, trained.variables, start.charset, trained.charset)
    return replace(trained, variables=between(before, trained.variables, share))


def between(before: Any, after: Any, share: float) -> Any:
    """Interpolate between two trees of arrays of the same shapes: ``(1 - share) * before + share * after``, float32."""

    def of(old: Any, new: Any) -> np.ndarray:
        return np.asarray((1 - share) * np.asarray(old) + share * np.asarray(new), np.float32)

    return jax.tree.map(of, before, after)
