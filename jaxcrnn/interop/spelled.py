"""Backbones of convolutions whose poolings the weights do not record: names for `jaxcrnn.nn.layers.layers_of`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from jaxcrnn.errors import UserError
from jaxcrnn.nn.layers import rows


def backbone(
    state: Mapping[str, np.ndarray],
    names: Sequence[tuple[str, str]],
    gaps: Sequence[bool] | None,
    height: int,
    pools: str = "",
    leave: int = 1,
) -> tuple[str, str]:
    """Spell the layers of a chain of convolutions.

    Args:
      state: names and arrays.
      names: names of each convolution and of the normalization that follows it, if there is one.
      gaps: whether layers without weights other than an activation follow each convolution; None if the names do not
        tell.
      height: height of the model's images in pixels.
      pools: poolings, such as ``2x2,2x2,-,2x2s1a1,4x1`` (`jaxcrnn.nn.layers.layers_of`); empty to infer
        them from the gaps.
      leave: rows that inferred poolings leave.

    Returns:
      The backbone, and a description of the poolings.

    Raises:
      UserError: ``pools`` is invalid, or it is empty and there are no gaps to infer the poolings from.
    """
    words = []
    for conv, norm in names:
        weight, normed = state[f"{conv}.weight"], f"{norm}.running_mean" in state
        rows_, columns = weight.shape[2:]
        kernel = "" if (rows_, columns) == (3, 3) else f"k{rows_}x{columns}" + "v" * (rows_ % 2 == 0)
        biased = "b" * (normed and f"{conv}.bias" in state)
        words.append(f"{weight.shape[0]}{'n' * normed}{biased}{kernel}")
    if not pools and gaps is None:
        raise UserError(
            f"the names do not tell where the poolings are; give them with --pools, such as --pools "
            f"{','.join(_inferred(words, [True] * len(words), height, leave))}"
        )
    listed = [word.strip() for word in pools.split(",")] if pools else _inferred(words, gaps or (), height, leave)
    if len(listed) != len(words) or any(
        not re.fullmatch(r"-|[1-9]\d?x[1-9](s[1-9])?(a[1-9])?", word) for word in listed
    ):
        example = _inferred(words, gaps or [True] * len(words), height, leave)
        raise UserError(
            f"--pools {pools}: expected {len(words)} values, one for each convolution, such as {','.join(example)}"
        )
    layers = " ".join(one + ("" if pool == "-" else f"p{pool}") for one, pool in zip(words, listed, strict=True))
    return layers, "poolings from --pools" if pools else f"poolings {','.join(listed)} (--pools)"


def _inferred(words: Sequence[str], gaps: Sequence[bool], height: int, leave: int) -> list[str]:
    """Infer poolings: 2x2 at the first two gaps, then 2x1, and at the end what leaves the rows wanted."""
    pools, seen = [], 0
    for i, gap in enumerate(gaps):
        pools.append(("2x2" if seen < 2 else "2x1") if gap and i < len(gaps) - 1 else "-")
        seen += pools[-1] != "-"
    layers = [one + ("" if pool == "-" else f"p{pool}") for one, pool in zip(words, pools, strict=True)]
    left = rows(" ".join(layers), height) // leave
    return [*pools[:-1], f"{left}x1" if 1 < left < 100 else "-"]
