"""Export of character features, with pictures, to TensorBoard's embedding projector."""

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
MOST = 4096  # maximum number of pictures; TensorBoard accepts one image of at most 8192 x 8192
TAG = "characters"


def summary_writer() -> Any:
    """Import tensorboardX's ``SummaryWriter``.

    Raises:
      UserError: tensorboardX is not installed.
    """
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise UserError("the embedding projector needs the package tensorboardX; install the extra 'track'") from None
    return SummaryWriter


def write(folder: Path, features: Features, corpus: Corpus, charset: Charset) -> int:
    """Write an embedding for TensorBoard's projector: vectors, labels and pictures.

    Args:
      folder: output folder, to be passed to TensorBoard as ``--logdir``.
      features: features of characters (`jaxcrnn.report.features.look`).
      corpus: lines that contain the characters.
      charset: charset of the run.

    Returns:
      Number of characters written: all, or an evenly spaced sample of 4,096.

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
    labels = [
        [_field(charset.name(int(features.classes[i]))), _field(corpus.texts[item])]
        for i, item in zip(chosen, items, strict=True)
    ]
    try:
        # Remove the output of earlier calls, to which tensorboardX would add a second embedding.
        (folder / "projector_config.pbtxt").unlink(missing_ok=True)
        shutil.rmtree(folder / "00000" / TAG, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        # tensorboardX multiplies uninitialized memory for cells without a picture.
        with np.errstate(all="ignore"), summaries(str(folder), write_to_disk=False) as writer:
            writer.add_embedding(
                np.asarray(features.vectors[chosen], np.float32),
                metadata=labels,
                tag=TAG,
                label_img=np.stack(tiles)[:, None].astype(np.float32) / 255,
                metadata_header=["character", "line"],
            )
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror or error}; expected a writable folder") from None
    return len(chosen)


def _cut(gray: np.ndarray, place: float) -> np.ndarray:
    """Crop a square around a position of a line, padded with white."""
    padded = np.pad(gray, ((0, 0), (TILE, TILE)), constant_values=255)
    start = int(np.clip(round(place) + TILE // 2, 0, padded.shape[1] - TILE))
    tile = padded[:TILE, start : start + TILE]
    return np.pad(tile, ((0, TILE - tile.shape[0]), (0, 0)), constant_values=255)


def _field(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)
