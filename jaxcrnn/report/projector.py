"""Features for TensorBoard's embedding projector, each with a picture of its character."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from jaxcrnn.charset import Charset
from jaxcrnn.data.audit import Corpus
from jaxcrnn.errors import UserError
from jaxcrnn.report.features import Features

TILE = 32
MOST = 4096  # pictures; TensorBoard takes one image of at most 8192 x 8192
TAG = "characters"


def summary_writer() -> Any:
    """tensorboardX's ``SummaryWriter``.

    Raises:
      UserError: tensorboardX is not installed.
    """
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise UserError("the embedding projector needs the package tensorboardX; expected the extra 'track'") from None
    return SummaryWriter


def write(folder: Path, features: Features, corpus: Corpus, charset: Charset) -> int:
    """Writes an embedding for TensorBoard's projector: vectors, labels and pictures.

    Args:
      folder: to write to; TensorBoard is started with ``--logdir`` on it.
      features: of characters (`jaxcrnn.report.features.look`).
      corpus: the lines they stand in.
      charset: names them.

    Returns:
      How many were written: all, or 4,096 of them at equal distances.

    Raises:
      UserError: tensorboardX is not installed, or the folder cannot be written.
    """
    summaries = summary_writer()
    n = len(features.classes)
    if not n:
        return 0
    chosen = np.unique(np.linspace(0, n - 1, min(n, MOST)).round().astype(int))
    items = [int(features.items[i]) for i in chosen]
    tiles = [_cut(corpus.image(item), float(features.places[i])) for i, item in zip(chosen, items, strict=True)]
    labels = [[_field(charset.name(int(features.classes[i]))), _field(corpus.texts[item])]
              for i, item in zip(chosen, items, strict=True)]  # fmt: skip
    try:
        # What an earlier call wrote; tensorboardX would add a second embedding to it.
        (folder / "projector_config.pbtxt").unlink(missing_ok=True)
        shutil.rmtree(folder / "00000" / TAG, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        # It multiplies whatever memory the cells without a picture have.
        with np.errstate(all="ignore"), summaries(str(folder), write_to_disk=False) as writer:
            writer.add_embedding(
                np.asarray(features.vectors[chosen], np.float32), metadata=labels, tag=TAG,
                label_img=np.stack(tiles)[:, None].astype(np.float32) / 255, metadata_header=["character", "line"],
            )  # fmt: skip
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror or error}; expected a folder that can be written") from None
    return len(chosen)


def _cut(gray: np.ndarray, place: float) -> np.ndarray:
    """The square of a line around a place, white where the line ends."""
    padded = np.pad(gray, ((0, 0), (TILE, TILE)), constant_values=255)
    start = int(np.clip(round(place) + TILE // 2, 0, padded.shape[1] - TILE))
    tile = padded[:TILE, start : start + TILE]
    return np.pad(tile, ((0, TILE - tile.shape[0]), (0, 0)), constant_values=255)


def _field(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)
