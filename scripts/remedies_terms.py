"""Loss terms of scripts/remedies.yaml, and the charset of its recognisers.

    python scripts/remedies_terms.py > remedies_characters.txt

The classes are the characters of remedies_groups.txt in order of their code points, after the blank. With the
environment variable REMEDIES_DATA, a folder of `make pretrain`, classes and groups are those of its files
(scripts/remedies_gpu.sh).
"""

import functools
import os
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxcrnn import ctc, losses
from jaxcrnn.charset import Charset
from jaxcrnn.lookalikes.groups import read_groups
from jaxcrnn.types import Batch, Outputs

DATA = Path(os.environ["REMEDIES_DATA"]) if "REMEDIES_DATA" in os.environ else None
GROUPS = DATA / "groups.txt" if DATA else Path(__file__).with_name("remedies_groups.txt")
MOST = 8  # look-alikes of a character


def characters() -> list[str]:
    if DATA:
        return list(Charset.from_file(DATA / "charset.txt").characters)
    return sorted(set("".join(read_groups(GROUPS))))


@functools.cache
def table() -> np.ndarray:
    """``[C,8]`` look-alikes of each class; the blank, 0, pads."""
    ids = {character: number for number, character in enumerate(characters(), 1)}
    rivals = np.zeros((len(ids) + 1, MOST), np.int32)
    for group in read_groups(GROUPS):
        for one in group:
            others = [ids[other] for other in group if other != one][:MOST]
            rivals[ids[one], : len(others)] = others
    return rivals


def swap(outputs: Outputs, batch: Batch, *_: Any, blank: int) -> Array:
    """`jaxcrnn.losses.swap` against the look-alikes of each character, with a margin of 4 nats."""
    labelled = (outputs.lengths, batch.labels, batch.label_lengths)
    candidates = jnp.asarray(table())[batch.labels]
    return losses.swap(outputs.logits, *labelled, candidates, margin=4.0, blank=blank)


def margin(outputs: Outputs, batch: Batch, *_: Any, blank: int) -> Array:
    """CTC with the look-alikes of the label's characters raised by 4 nats in every frame."""
    rows = jnp.arange(len(batch.labels))[:, None]
    real = jnp.arange(batch.labels.shape[1])[None] < batch.label_lengths[:, None]
    labels = jnp.where(real, batch.labels, blank)
    rivals = jnp.asarray(table())[labels].reshape(len(labels), -1)
    raised = jnp.zeros((len(labels), outputs.logits.shape[2])).at[rows, rivals].max(4.0)
    raised = raised.at[rows, labels].set(0.0).at[:, blank].set(0.0)
    logits = outputs.logits + raised[:, None, :]
    return ctc.ctc_loss(logits, outputs.lengths, batch.labels, batch.label_lengths, blank=blank)


if __name__ == "__main__":
    print("\n".join(characters()))
