"""Features for TensorBoard's embedding projector, each with a picture of its character."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from jaxcrnn.charset import Charset
from jaxcrnn.data.audit import Corpus
from jaxcrnn.data.images import to_png
from jaxcrnn.errors import UserError
from jaxcrnn.report.features import Features

TILE = 32
MOST = 4096  # pictures; TensorBoard takes one image of at most 8192 x 8192


def write(folder: Path, features: Features, corpus: Corpus, charset: Charset) -> int:
    """Writes ``tensors.tsv``, ``metadata.tsv``, ``sprite.png`` and ``projector_config.pbtxt``.

    Args:
      folder: to write to; TensorBoard is started with ``--logdir`` on it.
      features: of characters (`jaxcrnn.report.features.look`).
      corpus: the lines they stand in.
      charset: names them.

    Returns:
      How many were written: all, or 4,096 of them at equal distances.

    Raises:
      UserError: the folder cannot be written.
    """
    n = len(features.classes)
    chosen = np.unique(np.linspace(0, n - 1, min(n, MOST)).round().astype(int)) if n else np.zeros(0, int)
    side = max(1, math.ceil(math.sqrt(len(chosen))))
    sprite = np.full((side * TILE, side * TILE), 255, np.uint8)
    rows = ["character\tline\n"]
    for k, i in enumerate(chosen):
        top, left = k // side * TILE, k % side * TILE
        item = int(features.items[i])
        sprite[top : top + TILE, left : left + TILE] = _cut(corpus.image(item), float(features.places[i]))
        rows.append(f"{_field(charset.name(int(features.classes[i])))}\t{_field(corpus.texts[item])}\n")
    vectors = ("\t".join(f"{x:.6g}" for x in features.vectors[i]) + "\n" for i in chosen)
    config = (
        'embeddings {\n  tensor_name: "characters"\n  tensor_path: "tensors.tsv"\n  metadata_path: "metadata.tsv"\n'
        '  sprite {\n    image_path: "sprite.png"\n'
        f"    single_image_dim: {TILE}\n    single_image_dim: {TILE}\n  }}\n}}\n"
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tensors.tsv").write_text("".join(vectors), encoding="utf-8")
        (folder / "metadata.tsv").write_text("".join(rows), encoding="utf-8")
        (folder / "sprite.png").write_bytes(to_png(sprite))
        (folder / "projector_config.pbtxt").write_text(config, encoding="utf-8")
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
