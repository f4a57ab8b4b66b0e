"""Every format of data sets: read, written, and broken in each way it can be."""

import json
import os
import shutil

import numpy as np
import pytest
from helpers import SyntheticLines
from PIL import Image

from jaxcrnn.cli.main import main
from jaxcrnn.data.formats import open_source
from jaxcrnn.data.images import ImageError
from jaxcrnn.data.labels import LabelFile, write_lines
from jaxcrnn.errors import UserError

lmdb = pytest.importorskip("lmdb", reason="the data extra is not installed")
from lmdb_files import SOURCE, as_lmdb, put  # noqa: E402

from jaxcrnn.data.lmdb import LmdbLines, close, write_lmdb  # noqa: E402


def as_nested_lmdbs(tmp_path):
    for part in ("a/x", "b"):
        write_lmdb(tmp_path / "n" / part, SOURCE)
    return tmp_path / "n"


def images(folder):
    folder.mkdir()
    write_lines(folder, SOURCE)
    (folder / "labels.txt").unlink()
    return [(f"{i}.png", SOURCE.text(i)) for i in range(len(SOURCE))]


def as_label_file(tmp_path):
    return write_lines(tmp_path, SOURCE)


def as_paddles_lists(tmp_path):
    rows = images(tmp_path / "i")
    path = tmp_path / "i" / "train_list"
    lines = [f'["{rows[0][0]}", "{rows[1][0]}"]\t{rows[0][1]}\n', *(f"{n}\t{t}\n" for n, t in rows[2:])]
    path.write_text("".join(lines))
    return path


def as_names(tmp_path):
    for name, text in images(tmp_path / "i"):
        (tmp_path / "i" / name).rename(tmp_path / "i" / f"{text}_{name}")
    return tmp_path / "i"


def as_easyocr(tmp_path):
    rows = images(tmp_path / "i")
    (tmp_path / "i" / "labels.csv").write_text("filename,words\r\n" + "".join(f"{n},{t}\r\n" for n, t in rows))
    return tmp_path / "i"


def as_doctr(tmp_path):
    rows = images(tmp_path / "images")
    (tmp_path / "labels.json").write_text(json.dumps(dict(rows)))
    return tmp_path / "labels.json"


def as_mmocr(tmp_path):
    rows = images(tmp_path / "i")
    entries = [{"img_path": n, "instances": [{"text": t}]} for n, t in rows]
    (tmp_path / "i" / "l.json").write_text(json.dumps({"metainfo": {}, "data_list": entries}))
    return tmp_path / "i" / "l.json"


FORMATS = {
    "LMDB": as_lmdb,
    "nested LMDBs": as_nested_lmdbs,
    "label file": as_label_file,
    "lists of PaddleOCR": as_paddles_lists,
    "names": as_names,
    "EasyOCR": as_easyocr,
    "docTR": as_doctr,
    "mmocr": as_mmocr,
}


def contents(source):
    return sorted((text, image.tobytes()) for image, text in (source[i] for i in range(len(source))))


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_is_read_and_converted(name, tmp_path, capsys):
    path = FORMATS[name](tmp_path)
    source = open_source(path)
    expected = contents(SOURCE) * (2 if name == "nested LMDBs" else 1)
    if name == "lists of PaddleOCR":  # two images under the first one's text
        expected = [(SOURCE.text(0 if i == 1 else i), SOURCE[i][0].tobytes()) for i in range(5)]
    assert contents(source) == sorted(expected)
    assert not source.faults
    assert [source.text(i) for i in range(len(source))] == [source[i][1] for i in range(len(source))]
    assert len({source.identity(i) for i in range(len(source))}) == len(source)
    out = tmp_path / "out"
    assert main(["data", "convert", str(path), str(out)]) == 0
    assert f"{len(source)} lines in {out}; verified by reading back; 0 skipped" in capsys.readouterr().out
    assert contents(open_source(out)) == sorted(expected)


def test_written_lmdb_follows_the_common_layout(tmp_path):
    write_lmdb(tmp_path / "l", SOURCE)
    close(tmp_path / "l")
    with lmdb.open(str(tmp_path / "l"), readonly=True, lock=False) as environment, environment.begin() as transaction:
        assert transaction.get(b"num-samples") == b"5"
        image, text = SOURCE[0]
        assert transaction.get(b"label-000000001").decode() == text
        assert transaction.get(b"wh-000000001") == f"{image.shape[1]}_{image.shape[0]}".encode()
        assert transaction.stat()["entries"] == 16


def test_interrupted_conversion_is_resumed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("jaxcrnn.data.lmdb.EVERY", 2)
    label_file = write_lines(tmp_path, SOURCE)
    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        read, opened = LabelFile.__getitem__, []

        def stopped(self, index):
            opened.append(index)
            if len(opened) > 9:  # five looks of the audit, then two transactions of two
                raise KeyboardInterrupt
            return read(self, index)

        patched.setattr(LabelFile, "__getitem__", stopped)
        assert main(["data", "convert", str(label_file), str(out), "--set", "data.workers=1"]) == 130
    close(out)
    with pytest.raises(UserError, match=r"incomplete conversion \(4 of 5 lines\)"):
        LmdbLines(out)
    close(out)
    assert main(["data", "convert", str(label_file), str(out)]) == 0
    assert "5 lines in" in (shown := capsys.readouterr().out)
    assert "(4 from an earlier call)" in shown
    other = tmp_path / "other"
    other.mkdir()
    assert main(["data", "convert", str(write_lines(other, SyntheticLines(1, 6))), str(out)]) == 2
    assert "contains 5 samples of another data set" in capsys.readouterr().err
    assert contents(LmdbLines(out)) == contents(SOURCE)


def test_conversion_does_not_write_to_a_foreign_folder(tmp_path, capsys):
    label_file = write_lines(tmp_path, SOURCE)

    def refused(out, message, source=label_file, *options):
        assert main(["data", "convert", str(source), str(out), *options]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert len(error.splitlines()) == 1

    foreign = tmp_path / "foreign"
    foreign.mkdir()
    put(foreign, {"00000_cat": b"1", "image-000000001": b"2"})
    refused(foreign, "contains unknown samples of another data set")
    folder = as_names(tmp_path)
    refused(folder, "expected a new folder, or an interrupted conversion")
    refused(folder / "inside", "inside the source data set", folder)
    refused("", "no output folder")
    out = tmp_path / "lmdb"
    assert main(["data", "convert", str(label_file), str(out)]) == 0
    kept = (tmp_path / "3.png").read_bytes()
    Image.new("L", (30, 32)).save(tmp_path / "3.png")
    refused(out, "the data set changed since the conversion was interrupted", label_file)
    (tmp_path / "3.png").write_bytes(kept)
    close(tmp_path / "lmdb")
    put(tmp_path / "lmdb", {"label-000000002": b"other"})
    refused(tmp_path / "lmdb", "label-000000002: differs from the label of")
    close(tmp_path / "lmdb")
    size = (tmp_path / "lmdb" / "data.mdb").stat().st_size
    with (tmp_path / "lmdb" / "data.mdb").open("r+b") as file:
        file.truncate(8192)
    refused(tmp_path / "lmdb", f"truncated file: 8,192 of {size:,} bytes")


@pytest.mark.parametrize("name", ["a.array_record", "shards"])
def test_array_records_are_rejected(name, tmp_path, capsys):
    """Alone, and in a folder that has an LMDB beside them: nothing is dropped silently."""
    path = tmp_path / name
    file = path
    if name == "shards":
        write_lmdb(path / "lmdb", SOURCE)
        file = path / "lines-00000-of-00001.array_record"
    file.write_bytes(b"x")
    assert main(["train", "--data", str(path), "--out", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"jaxcrnn: {file}: ArrayRecord is not supported since jaxcrnn 0.2; expected LMDB, as written by "
        "'jaxcrnn data convert'"
    ]


def test_broken_sample_is_counted_and_others_are_kept(tmp_path, capsys):
    folder = as_lmdb(tmp_path)
    put(
        folder, {"label-000000002": b"\xff\xfe", "image-000000003": b"no image"}, ["image-000000004", "label-000000005"]
    )
    source = LmdbLines(folder)
    assert [fault.where.split(", ")[1] for fault in source.faults] == ["label-000000002", "label-000000005"]
    assert "'utf-8' codec can't decode" in source.faults[0].detail
    assert "no such key" in source.faults[1].detail
    assert source.text(0) == SOURCE.text(0)
    with pytest.raises(ImageError, match="image-000000003: not an image"):
        source[1]
    with pytest.raises(ImageError, match="image-000000004: no such key"):
        source[2]
    assert main(["data", "audit", str(folder)]) == 2
    shown = capsys.readouterr().out
    assert "5 lines, 1 usable" in shown
    for expected in ("label-000000002", "image-000000003", "image-000000004", "label-000000005"):
        assert expected in shown
    assert main(["data", "convert", str(folder), str(tmp_path / "out")]) == 2
    assert "4 faults, listed above" in capsys.readouterr().err
    assert main(["data", "convert", str(folder), str(tmp_path / "out"), "--skip-bad"]) == 0
    assert "1 lines in" in (shown := capsys.readouterr().out)
    assert "4 skipped" in shown


def test_invalid_lmdbs_are_rejected(tmp_path):
    folder = as_lmdb(tmp_path)
    put(folder, {}, ["num-samples"])
    with pytest.raises(UserError, match="missing key 'num-samples'; expected the number of samples"):
        LmdbLines(folder)
    put(folder, {"num-samples": b"many"})
    with pytest.raises(UserError, match="'num-samples' is b'many'"):
        LmdbLines(folder)
    put(folder, {"num-samples": b"300000000"})
    with pytest.raises(UserError, match="'num-samples' is 300000000, but there are only 16 keys"):
        LmdbLines(folder)
    for name, data, why in (
        ("empty", b"", r"empty file \(0 bytes\)"),
        ("text", b"this is no LMDB" * 1000, "cannot be opened as LMDB"),
        ("pipe", None, "not a regular file"),
    ):
        (tmp_path / name).mkdir()
        file = tmp_path / name / "data.mdb"
        os.mkfifo(file) if data is None else file.write_bytes(data)
        with pytest.raises(UserError, match=f"{name}.*: {why}"):
            LmdbLines(tmp_path / name)


def test_truncated_lmdb_prints_one_line(tmp_path, capsys):
    folder = tmp_path / "long"
    write_lmdb(folder, SyntheticLines(3, 300))
    close(folder)
    data = (folder / "data.mdb").read_bytes()
    cut = tmp_path / "cut"
    cut.mkdir()
    (cut / "data.mdb").write_bytes(data[: len(data) // 2])
    assert main(["data", "audit", str(cut)]) == 2
    captured = capsys.readouterr()
    assert f"truncated file: {len(data) // 2:,} of {len(data):,} bytes" in captured.err
    assert len(captured.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("l.json", "{", "line 1: invalid JSON"),
        ("l.json", "[1]", "a JSON list; expected mmocr"),
        ("l.json", "{}", "no lines"),
        ("l.json", "[" * 100_000, "nested too deeply"),
        ("l.csv", "a.png,b\n", "line 1: 'a.png,b'; expected the header filename,words"),
        ("l.csv", "filename,words\n", "no lines"),
        ("folder/readme.md", "", "no lines; expected LMDBs, a labels.csv"),
    ],
)
def test_invalid_label_sources_are_rejected(name, text, message, tmp_path):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        open_source(path.parent if name.startswith("folder") else path)


def test_invalid_csv_rows_are_faults(tmp_path, capsys):
    Image.new("L", (30, 32)).save(tmp_path / "a.png")
    rows = [
        'a.png,"x, ""y"""',
        "no comma",
        ",empty",
        "a.png,1,5",
        'a.png,"a", "b"',
        'a.png,"open',
        '"a.png","z"',
        '"a"',
    ]
    (tmp_path / "l.csv").write_text('"filename","words"\n' + "\n".join(rows) + "\n")
    source = open_source(tmp_path / "l.csv")
    assert [source.text(i) for i in range(len(source))] == ['x, "y"', "1,5", "z"]
    assert [fault.where[-6:] for fault in source.faults] == [f"line {n}" for n in (3, 4, 6, 7, 9)]
    (tmp_path / "d.json").write_text('{"a.png": "1", "a.png": "2", "b.png": "\\ud800"}')
    source = open_source(tmp_path / "d.json")
    assert [source.text(i) for i in range(len(source))] == ["1", "2"]
    assert "'\\ud800'" in source.faults[0].detail
    assert main(["data", "audit", str(tmp_path / "d.json")]) == 2
    assert "image listed twice" in capsys.readouterr().out
    entries = [{"img_path": "a.png", "instances": [{"text": "x"}, {}, "odd"]}, {"img_path": 3}, "odd"]
    (tmp_path / "l.json").write_text(json.dumps({"data_list": entries}))
    source = open_source(tmp_path / "l.json")
    assert (len(source), len(source.faults)) == (1, 4)
    assert "entry 2 of data_list" in source.faults[2].where
    # A label that no charset can spell, and a name that no file can have, cost their own rows.
    labels = {"a.png": "1\n2", "b\0.png": "3", "c.png": "4"}
    Image.new("L", (30, 32)).save(tmp_path / "c.png")
    (tmp_path / "e.json").write_text(json.dumps(labels))
    assert main(["data", "audit", str(tmp_path / "e.json")]) == 2
    shown = capsys.readouterr().out
    assert "3 lines, 1 usable" in shown
    assert "'\\n' (U+000A)" in shown
    assert "null byte" in shown


def test_lmdb_written_by_another_program(shared, tmp_path):
    """Two splits written by another program, without ``wh-`` keys."""
    folder = tmp_path / "foreign"
    shutil.copytree(shared / "data" / "lmdb_sample", folder)
    source = open_source(folder)
    assert len(source) == 4
    assert source.text(0) == "我要这天,再遮不住我"
    assert all(source[i][0].shape[0] > 8 for i in range(4))
    assert main(["data", "convert", str(folder), str(tmp_path / "out")]) == 0
    assert contents(LmdbLines(tmp_path / "out")) == contents(source)


def test_training_from_an_lmdb(tmp_path, capsys):
    folder = as_lmdb(tmp_path)
    put(folder, {}, ["image-000000002"])
    assert main(["train", "--data", str(folder), "--out", str(tmp_path / "run")]) == 2
    captured = capsys.readouterr()
    assert "image-000000002: no such key" in captured.out
    assert "1 faults in the data" in captured.err
    assert np.asarray(open_source(folder)[0][0]).dtype == np.uint8


def test_lmdb_is_opened_by_its_file(tmp_path, capsys, monkeypatch):
    folder = as_lmdb(tmp_path)
    close(folder)
    shutil.copy(folder / "data.mdb", tmp_path / "train.lmdb")
    expected = contents(SOURCE)
    assert contents(open_source(tmp_path / "train.lmdb")) == expected
    monkeypatch.setattr("jaxcrnn.data.lmdb.damage", lambda folder: None)  # which takes most of the time
    assert contents(open_source(folder / "data.mdb")) == expected
    with pytest.raises(UserError, match="the lock file of an LMDB"):
        open_source(folder / "lock.mdb")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "part").symlink_to(folder)
    assert contents(open_source(tmp_path / "linked")) == expected
    assert contents(open_source(tmp_path)) == sorted(expected * 2)  # the folder and the file
    Image.new("L", (9, 9)).save(tmp_path / "1.png")
    assert len(open_source(tmp_path)) == 10
    assert capsys.readouterr().err.count("skipped 1 image,") == 1
    (tmp_path / "labels.txt").write_text("1.png\t1\n")
    with pytest.raises(UserError, match=r"a label file \(labels.txt\) and LMDBs \(l, train.lmdb\); pass one"):
        open_source(tmp_path)
    assert main(["data", "convert", str(folder / "data.mdb"), str(folder)]) == 2
    assert "inside the source data set" in capsys.readouterr().err


def test_lmdb_numbered_from_zero(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxcrnn.data.lmdb.damage", lambda folder: None)  # which takes most of the time
    folder = as_lmdb(tmp_path)
    one = LmdbLines(folder)
    items = {
        f"{kind}-{i:09d}": one._get(f"{kind}-{i + 1:09d}", 1 << 20) for i in range(5) for kind in ("image", "label")
    }
    put(folder, items | {"label-000000005": one._get("label-000000005", 99)})
    source = LmdbLines(folder)  # both counts fit: the label that is not read is named
    assert [fault.where.split(", ")[1] for fault in source.faults] == ["label-000000000"]
    put(folder, {}, ["label-000000005", "image-000000005"])
    source = LmdbLines(folder)
    assert contents(source) == contents(SOURCE)
    assert source.name(0) == "image-000000000"
    assert not source.faults
    put(folder, {"num-samples": b"4"})
    assert [fault.where.split(", ")[1] for fault in LmdbLines(folder).faults] == ["label-000000000"]
