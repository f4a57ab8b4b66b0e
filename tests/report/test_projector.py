"""The embedding that TensorBoard's projector shows."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from jaxcrnn.charset import Charset
from jaxcrnn.errors import UserError
from jaxcrnn.report import projector
from jaxcrnn.report.features import Features

CHARSET = Charset("ab")
# Three gray lines.
CORPUS = SimpleNamespace(image=lambda item: np.full((32, 100), 60 * item, np.uint8), texts=["ab", "b\tc", "x"])


def features(count):
    items = np.arange(count) % 3
    return Features(np.ones((count, 4), np.float32), np.full(count, 2), items, np.full(count, 50.0))


def test_projector_files_are_replaced_without_torch(tmp_path, monkeypatch):
    """A second call replaces what the first one wrote."""
    pytest.importorskip("tensorboardX", reason="the track extra is not installed")
    monkeypatch.setitem(sys.modules, "torch", None)
    for count in (3, 5):
        assert projector.write(tmp_path, features(count), CORPUS, CHARSET) == count
    folder = tmp_path / "00000" / "characters"
    assert (folder / "metadata.tsv").read_text().splitlines() == [
        "character\tline",
        "b\tab",
        "b\tb c",
        "b\tx",
        "b\tab",
        "b\tb c",
    ]
    assert (folder / "tensors.tsv").read_text().splitlines() == ["1.0\t1.0\t1.0\t1.0"] * 5
    with Image.open(folder / "sprite.png") as sprite:
        assert sprite.size == (96, 96)
        tiles = [sprite.getpixel((x, y))[0] for y in (16, 48) for x in (16, 48, 80)]
    assert tiles[:5] == [0, 60, 120, 0, 60]
    config = (tmp_path / "projector_config.pbtxt").read_text()
    assert config.count("embeddings {") == 1
    for name in ("metadata.tsv", "tensors.tsv", "sprite.png"):
        assert f'path: "00000/characters/{name}"' in config
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000", "projector_config.pbtxt"]


def test_missing_tensorboardx_prints_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(UserError, match="needs the package tensorboardX; install the extra 'track'"):
        projector.write(tmp_path, features(3), CORPUS, CHARSET)
