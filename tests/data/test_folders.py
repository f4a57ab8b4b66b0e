"""What a folder is read as: its label file, LMDBs, or images named by their texts; links and hidden files."""

import os
import shutil

import pytest
from PIL import Image

from jaxcrnn._files import printable, walk
from jaxcrnn.cli.main import main
from jaxcrnn.data.formats import open_source
from jaxcrnn.data.layout import Layout
from jaxcrnn.errors import UserError
from jaxcrnn.render.fonts import find


def images(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("L", (40, 32)).save(folder / name, "PNG")
    return folder


def texts(path, **layout):
    source = open_source(path, layout=Layout(**layout))
    return {source.name(i): source.text(i) for i in range(len(source))}


ROWS = "0.png\t56\n1.png\t78\n"
READ = {"0.png": "56", "1.png": "78"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("labels.txt", ROWS),
        ("Label.txt", ROWS),
        ("gt.txt", ROWS),
        ("rec_gt_train.txt", ROWS),
        ("anything.txt", ROWS),  # recognised by what it lists
        ("train_list", ROWS),
        ("labels.tsv", ROWS),
        ("labels.csv", "filename,words\n0.png,56\n1.png,78\n"),
        ("labels.json", '{"0.png": "56", "1.png": "78"}'),
        (
            "data.json",
            '{"data_list": [{"img_path": "0.png", "instances": [{"text": "56"}]}, '
            '{"img_path": "1.png", "instances": [{"text": "78"}]}]}',
        ),
    ],
)
def test_folder_is_read_through_its_label_file(name, content, tmp_path, capsys):
    folder = images(tmp_path / "d", "0.png", "1.png")
    (folder / "readme.txt").write_text("lines\n0.png is the first\n")
    (folder / "charset.txt").write_text("5\n6\n7\n8\n")
    (folder / name).write_text(content)
    assert texts(folder) == READ
    ways = "use --format names (data.format=names) to read the images by their names"
    shown = f"{folder}: reading the label file {name}; {ways}"
    assert capsys.readouterr().err.splitlines() == [shown]
    assert texts(folder, format="names") == {"0.png": "0", "1.png": "1"}


def test_ambiguous_folder_is_rejected(tmp_path):
    folder = images(tmp_path / "d", "0.png", "1.png")
    (folder / "train.txt").write_text("0.png\t56\n")
    (folder / "val.txt").write_text("1.png 78\n")  # also if separated by a space
    with pytest.raises(UserError, match=r"contains 2 label files \(train.txt, val.txt\); pass one of them .* names"):
        open_source(folder)
    with pytest.raises(UserError, match="contains 2 label files"):
        open_source(folder, layout=Layout(format="labels"))
    inner = images(tmp_path / "e" / "part", "0.png")
    (inner / "gt.txt").write_text("0.png\t56\n")
    with pytest.raises(UserError, match=r"the label file part/gt.txt in a subfolder; pass that file"):
        open_source(inner.parent)
    assert texts(inner.parent, format="labels") == {"0.png": "56"}
    assert texts(inner.parent, format="names") == {"part/0.png": "0"}


def test_text_files_named_like_images_are_not_ignored(tmp_path, capsys):
    folder = images(tmp_path / "d", "0.png", "1.png")
    for i in range(2):
        (folder / f"{i}.gt.txt").write_text("56")
    with pytest.raises(UserError, match=r"2 text files named like images \(0.gt.txt, 1.gt.txt\); expected one label"):
        open_source(folder)
    assert texts(folder, format="names") == {"0.png": "0", "1.png": "1"}
    assert "skipped 2 non-image files" in capsys.readouterr().err
    (folder / "labels.txt").write_text(ROWS)
    assert texts(folder) == READ


def test_forced_format_must_match_the_source(tmp_path):
    folder = images(tmp_path / "d", "0.png")
    for path, name, message in (
        (folder, "lmdb", "contains no LMDB"),
        (folder, "labels", "contains no label file"),
        (folder / "0.png", "names", "not a folder"),
        (folder / "0.png", "auto", "an image; expected a label file"),
    ):
        with pytest.raises(UserError, match=message):
            open_source(path, layout=Layout(format=name))


def test_linked_folders_are_read_once(tmp_path, capsys):
    folder = images(tmp_path / "d" / "b", "1.png").parent
    images(tmp_path / "elsewhere" / "c", "2.png")
    (folder / "a").symlink_to(folder / "b")
    (folder / "b" / "loop").symlink_to(folder)
    (folder / "itself").symlink_to(folder / "itself")
    (folder / "part").symlink_to(tmp_path / "elsewhere")
    (folder / "gone.png").symlink_to(tmp_path / "none.png")
    assert texts(folder) == {"b/1.png": "1", "part/c/2.png": "2", "gone.png": "gone"}
    error = capsys.readouterr().err
    assert error == f"{folder}: skipped 1 non-image file, 2 linked folders with files that are already listed (a)\n"


def test_circular_links_end(tmp_path):
    """Each folder is linked twice from the next: 2 ** 40 paths."""
    folder = images(tmp_path / "0", "1.png")
    for i in range(40):
        folder = tmp_path / str(i + 1)
        folder.mkdir()
        for link in "ab":
            (folder / link).symlink_to(tmp_path / str(i))
    assert len(walk(folder).files) == 1


def test_hidden_files_are_skipped_and_counted(tmp_path, capsys):
    folder = images(tmp_path / ".cache" / "d", "12.png", "._12.png")
    for name in (".ipynb_checkpoints", "__MACOSX", "@eaDir"):
        images(folder / name, "12-checkpoint.png")
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", ".labels.txt"):
        (folder / name).write_text(ROWS)
    assert texts(folder) == {"12.png": "12"}  # the folder itself may be hidden
    assert capsys.readouterr().err == f"{folder}: skipped 8 hidden files or folders\n"


def test_unreadable_folders_are_reported(tmp_path, monkeypatch, capsys):
    folder = images(tmp_path / "d", "1.png")
    (folder / "lost+found").mkdir()
    scan = os.scandir

    def refused(path):
        if path == refused.path:
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr("jaxcrnn._files.os.scandir", refused)
    refused.path = folder / "lost+found"
    assert texts(folder) == {"1.png": "1"}
    assert "skipped 1 unreadable folder (lost+found: Permission denied)" in capsys.readouterr().err
    refused.path = folder
    with pytest.raises(UserError, match="Permission denied; expected a readable folder"):
        open_source(folder)


def test_fonts_are_found_in_linked_folders(tmp_path):
    (tmp_path / "d" / ".hidden").mkdir(parents=True)
    (tmp_path / "fonts").mkdir()
    for path in ("d/._a.ttf", "d/.hidden/b.ttf", "fonts/c.ttf"):
        (tmp_path / path).write_bytes(b"")
    (tmp_path / "d" / "linked").symlink_to(tmp_path / "fonts")
    assert [face.path.name for face in find(tmp_path / "d")] == ["c.ttf"]


@pytest.fixture
def unzipped(tmp_path):
    """An image whose name is in GBK, as unzip leaves it, and one in ASCII."""
    folder = images(tmp_path / "d", "12.png")
    shutil.copy(folder / "12.png", os.fsencode(folder) + "/中.png".encode("gbk"))
    return folder


def test_file_names_that_are_not_utf8(unzipped, tmp_path, capsys, monkeypatch):
    pytest.importorskip("lmdb", reason="the data extra is not installed")
    monkeypatch.setattr("jaxcrnn.data.lmdb.damage", lambda folder: None)  # which takes most of the time
    source = open_source(unzipped)
    assert [source.text(i) for i in range(len(source))] == ["12"]
    (fault,) = source.faults
    assert fault.where == f"{unzipped}/\\xd6\\xd0.png"
    assert "'\\xd6\\xd0.png' is not UTF-8; rename it, or name its encoding with --encoding" in fault.detail
    assert texts(unzipped, encoding="gbk") == {"12.png": "12", "中.png": "中"}
    assert "is not ASCII" in open_source(unzipped, layout=Layout(encoding="ascii")).faults[0].detail
    assert main(["data", "convert", str(unzipped), str(tmp_path / "out")]) == 2
    assert "2 lines, 1 usable" in capsys.readouterr().out
    assert main(["data", "convert", str(unzipped), str(tmp_path / "out"), "--skip-bad"]) == 0
    assert main(["data", "convert", str(unzipped), str(tmp_path / "all"), "--encoding", "gbk"]) == 0
    assert "2 lines in" in capsys.readouterr().out


def test_folder_name_that_is_not_utf8(unzipped, tmp_path):
    folder = tmp_path / os.fsdecode(b"\xd6\xd0")
    unzipped.rename(folder)
    (folder / "labels.txt").write_bytes("中.png\t中\nnone.png\t1\n".encode("gbk"))
    source = open_source(folder, layout=Layout(encoding="gbk"))
    assert source[0][0].shape == (32, 40)
    assert source.where(0) == f"{tmp_path}/\\xd6\\xd0/labels.txt, line 1"
    with pytest.raises(UserError, match=r"none.png: no such file in .*\\xd6\\xd0"):
        source[1]
    (folder / "labels.txt").unlink()
    (folder / "inner").mkdir()
    inner = tmp_path / "e"
    inner.mkdir()
    folder.rename(inner / folder.name)
    assert not texts(inner)  # a fault of each image
    assert texts(inner, encoding="gbk") == {"中/12.png": "12", "中/中.png": "中"}


def test_lone_surrogate_is_printable():
    assert printable("a\ud800") == "a\\ud800"
