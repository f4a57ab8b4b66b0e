"""What a data set may not do: leave its folder, or say of itself what is not so."""

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("lmdb", reason="the data extra is not installed")
from lmdb_files import as_lmdb, put

from jaxcrnn.data.formats import open_source
from jaxcrnn.data.images import Limits
from jaxcrnn.data.lmdb import LmdbLines
from jaxcrnn.errors import UserError


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("l.txt", '../a.png\t1\n{here}/a.png\t2\n["b.png", "x/../../a.png"]\t3\n'),
        ("l.csv", "filename,words\n../a.png,1\n{here}/a.png,2\nb.png,3\nx/../../a.png,3\n"),
        ("l.json", '{{"../a.png": "1", "{here}/a.png": "2", "b.png": "3", "x/../../a.png": "3"}}'),
    ],
)
def test_paths_outside_the_folder_are_faults(tmp_path, name, rows):
    (tmp_path / "s" / "x").mkdir(parents=True)
    for place in (tmp_path / "a.png", tmp_path / "s" / "b.png"):
        Image.fromarray(np.zeros((9, 9), np.uint8)).save(place)
    (tmp_path / "s" / name).write_text(rows.format(here=tmp_path))
    inside = open_source(tmp_path / "s" / name)
    assert [inside.name(i) for i in range(len(inside))] == ["b.png"]
    assert [fault.kind for fault in inside.faults] == ["path outside its folder"] * 3
    assert "'../a.png'; expected a path inside the folder, or --set data.allow_outside=true" in inside.faults[0].detail
    allowed = open_source(tmp_path / "s" / name, Limits(outside=True))
    assert sorted(allowed.text(i) for i in range(len(allowed))) == ["1", "2", "3", "3"]
    assert all(allowed[i][0].shape == (9, 9) for i in range(len(allowed)))


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ({"num-samples": b"1" * 21}, "21 bytes; expected at most 20"),
        ({"jaxcrnn-written": b"1" * 101}, "101 bytes; expected at most 100"),
        ({"jaxcrnn-written": b"\xff\xfe"}, "incomplete conversion"),
    ],
)
def test_invalid_lmdb_keys_are_rejected(tmp_path, items, message):
    folder = as_lmdb(tmp_path)
    put(folder, items)
    with pytest.raises(UserError, match=message):
        LmdbLines(folder)


def test_labels_beyond_num_samples_are_faults(tmp_path):
    folder = as_lmdb(tmp_path)
    put(folder, {"num-samples": b"3"})
    (fault,) = LmdbLines(folder).faults
    assert "'num-samples' is only 3; expected no further labels" in fault.detail
