"""A short run of `scripts/fuzz.py`, and what its long runs have found."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import SyntheticLines
from PIL import Image
from safetensors.numpy import save_file

pytest.importorskip("hypothesis")
pytest.importorskip("lmdb", reason="the data extra is not installed")
sys.path.append(str(Path(__file__).parents[2] / "scripts"))
import fuzz

from jaxcrnn.charset import Charset
from jaxcrnn.data import lmdb
from jaxcrnn.data.formats import open_source
from jaxcrnn.data.images import ImageError, Limits, read_gray
from jaxcrnn.data.labels import LabelFile
from jaxcrnn.errors import UserError
from jaxcrnn.render import atlas
from jaxcrnn.runs import center_files, config
from jaxcrnn.runs.checkpoint import Checkpoints
from jaxcrnn.runs.seal import Damaged

INPUTS = {"lmdb": 8, "images": 150}


@pytest.mark.fault
@pytest.mark.slow
def test_damaged_runs(tmp_path):
    """In a process of its own: orbax's threads go on about a forged checkpoint after it was refused."""
    command = [sys.executable, fuzz.__file__, "--out", str(tmp_path), "--share", "0.05", "--only", "runs"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    result = json.loads((tmp_path / "runs" / "found.json").read_text())
    assert result["inputs"] == 30
    assert 0 < result["taken"] < 30


@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.parametrize("name", sorted(set(fuzz.TARGETS) - {"runs"}))
def test_damaged_input_is_accepted_or_rejected_with_one_line(name, tmp_path):
    result = fuzz.fuzz(name, INPUTS.get(name, 60), tmp_path)
    assert result["inputs"] >= INPUTS.get(name, 60) // 2
    assert 0 < result["taken"] < result["inputs"]


@pytest.mark.parametrize("name", ["[" * 5000, "[" + "9" * 5000 + "]"], ids=["nested", "long"])
def test_file_name_that_looks_like_json(tmp_path, name):
    (tmp_path / "l.txt").write_text(f"{name}\t1\n")
    assert LabelFile(tmp_path / "l.txt").name(0) == name


@pytest.mark.parametrize(
    ("name", "text", "use", "what"),
    [
        ("l.json", '{"a.png": ' + "9" * 5000 + "}", open_source, "too many digits"),
        ("c.yaml", "a: " + "[" * 1500, config.read_yaml, "nested too deeply"),
        ("c.yaml", "a: 2026-13-40", config.read_yaml, "invalid YAML: month"),
    ],
)
def test_huge_numbers_and_deep_nesting_are_rejected(tmp_path, name, text, use, what):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=rf"{name}.*{what}"):
        use(tmp_path / name)


def test_corrupted_lmdb_pages_are_rejected(tmp_path):
    lmdb.write_lmdb(tmp_path / "l", SyntheticLines(0, 30, "0123456789"))
    file = tmp_path / "l" / "data.mdb"
    data = bytearray(file.read_bytes())
    for page in range(2, len(data) // 4096):
        data[page * 4096 + 16 : page * 4096 + 64] = b"\xf0\xff" * 24  # where its nodes are
    file.write_bytes(data)
    with pytest.raises(UserError, match=r"data\.mdb: corrupted file"):
        lmdb.LmdbLines(tmp_path / "l")


def test_lmdb_values_are_size_limited(tmp_path, monkeypatch):
    lmdb.write_lmdb(tmp_path / "l", SyntheticLines(0, 3, "0123456789"))
    lines = lmdb.LmdbLines(tmp_path / "l", Limits(max_bytes=50))
    with pytest.raises(ImageError, match=r"image-000000001: [\d,]+ bytes; expected at most 50") as caught:
        lines[0]
    assert caught.value.kind == "absurd size"
    monkeypatch.setattr(lmdb, "MAX_LABEL", 2)
    assert len(lmdb.LmdbLines(tmp_path / "l").faults) == 3


def test_images_are_size_limited_and_eps_is_rejected(tmp_path):
    image = Image.fromarray(np.zeros((20, 20), np.uint8))
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "a.eps")
    with pytest.raises(ImageError, match=r"a\.png: larger than the limit of 50 bytes"):
        read_gray(tmp_path / "a.png", Limits(max_bytes=50))
    with pytest.raises(ImageError, match=r"a\.eps: not an image"):  # Pillow would run Ghostscript
        read_gray(tmp_path / "a.eps", Limits())


def test_nan_pixels_become_white(tmp_path):
    values = np.full((4, 600), 0.25, np.float32)
    values[1, 2] = np.nan
    Image.fromarray(values).save(tmp_path / "a.tiff")
    gray = read_gray(tmp_path / "a.tiff", Limits())
    assert gray[1, 2] == 255
    assert (np.delete(gray.ravel(), 602) == 64).all()


def test_corrupted_atlas_is_rejected(tmp_path):
    small = atlas.embedded().select("01")
    atlas.save(small._replace(advances=small.advances[:, :1]), tmp_path / "shapes.npz")
    atlas.save(small, tmp_path / "bytes.npz")
    data = bytearray((tmp_path / "bytes.npz").read_bytes())
    at = data.index(b"tiles.npy") + 40
    data[at : at + 20] = b"\xff" * 20
    (tmp_path / "bytes.npz").write_bytes(data)
    for name in ("shapes.npz", "bytes.npz"):
        with pytest.raises(UserError, match=rf"{name}: not a glyph atlas"):
            atlas.load(tmp_path / name)


def test_checkpoint_with_unreadable_metrics(tmp_path):
    for step in ("1", "2"):
        (tmp_path / "c" / step / "metrics").mkdir(parents=True)
        (tmp_path / "c" / step / "metrics" / "metrics").write_text('{"accuracy": 0.5}' if step == "1" else "[" * 9)
    with Checkpoints(tmp_path / "c", read_only=True) as checkpoints, pytest.raises(Damaged, match="c/2: damaged: its"):
        checkpoints.best()
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.best() == 1
    assert (tmp_path / "damaged-2").is_dir()


def test_centers_without_a_charset_are_rejected(tmp_path):
    arrays = {"centers": np.zeros((3, 4), np.float32), "counts": np.zeros(3, np.float32)}
    for facts in ({}, {"charset_hash": "x"}, {"charset_hash": "x", "characters": "[1", "blank": "first"}):
        save_file(arrays, tmp_path / "c", metadata={"format": center_files.FORMAT, **facts})
        with pytest.raises(
            UserError, match=r"/c: centers were made for a different charset \(the file does not record which\)$"
        ):
            center_files.load(tmp_path / "c", Charset("ab"), 4)


def test_override_with_a_line_break_prints_one_line():
    with pytest.raises(UserError, match=r"^--set 'a\\n=1': expected section\.key=value"):
        config.load(overrides=["a\n=1"])
