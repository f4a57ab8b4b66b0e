"""Recognisers with random weights."""

from pathlib import Path

import numpy as np

from jaxcrnn.charset import Charset
from jaxcrnn.data.images import Limits
from jaxcrnn.interop import weights
from jaxcrnn.interop.recognizer import Recognizer


def reader_of(model, engine="auto"):
    """Return a recogniser with random weights."""
    generator, arrays = np.random.default_rng(0), {}
    for name, shape in weights.shapes(model).items():
        value = generator.normal(0, 1, shape) / max(1, np.prod(shape[:-1])) ** 0.5
        arrays[name] = (np.abs(value) + 0.5 if name.endswith(".var") else value).astype(np.float32)
    arrays["params.head.kernel"] *= 8  # readings that are not empty
    variables = weights.unflattened(arrays, model, Path("random"))
    charset = Charset("0123456789", "last" if model.blank else "first")
    return Recognizer(model, variables, charset, Limits(), engine)
