"""Encodings, root folders and formats of label files; paths of other systems."""

import pytest
from PIL import Image

from jaxcrnn._text import read_text
from jaxcrnn.data.config import DataConfig
from jaxcrnn.data.formats import open_source
from jaxcrnn.data.images import ImageError
from jaxcrnn.data.layout import Layout
from jaxcrnn.errors import UserError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "d" / "i").mkdir(parents=True)
    Image.new("L", (40, 32)).save(tmp_path / "d" / "i" / "a.png")
    return tmp_path / "d"


def opened(folder, data, name="l.txt", **layout):
    (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    return open_source(folder / name, layout=Layout(**layout))


def texts(source):
    return [source.text(i) for i in range(len(source))]


@pytest.mark.parametrize("encoding", ["gbk", "big5", "utf-16", "UTF_16_LE", "utf-8-sig", "UTF8"])
@pytest.mark.parametrize(
    ("name", "form"),
    [("l.txt", "i/a.png\t{}\r\n"), ("l.csv", "filename,words\ni/a.png,{}\n"), ("l.json", '{{"i/a.png":"{}"}}')],
)
def test_labels_in_every_encoding_are_read(folder, encoding, name, form):
    source = opened(folder, form.format("土12").encode(encoding), name, encoding=encoding)
    assert texts(source) == ["土12"]
    assert source[0][0].shape == (32, 40)
    assert not source.faults


@pytest.mark.parametrize(
    ("data", "encoding", "message"),
    [
        ("a\t土\n".encode("gbk"), "utf-8", "line 1: byte 0xcd is not UTF-8; expected .* --encoding"),
        (
            "a\t1\n".encode("utf-16"),
            "utf-8",
            "UTF-16 text .starts with the bytes ff fe.; expected .* utf-16, with --enc",
        ),
        ("aaaa\t1\n".encode("utf-16-be"), "utf-8", "7 zero bytes, as in UTF-16 text"),
        ("a\t土\n".encode("utf-8-sig"), "gbk", "UTF-8 text .* expected GBK"),
        (b"a\t1\nb\t\xff\xff\n", "gbk", "line 2: byte 0xff is not GBK"),
        (b"a\t\\ud800\n", "unicode_escape", "line 1: half of a surrogate pair"),
        (b"a.png\t1\rb.png\t2\r", "utf-8", r"2 line ends are CR alone \(old Mac\); expected LF or CRLF, as \"tr"),
    ],
)
def test_wrong_encoding_error_names_another_encoding(folder, data, encoding, message):
    with pytest.raises(UserError, match=message):
        opened(folder, data, encoding=encoding)


def test_utf8_text_read_in_another_encoding_gives_a_warning(folder, capsys):
    assert texts(opened(folder, "i/a.png\t土士\n", encoding="gbk")) != ["土士"]
    assert "l.txt: valid UTF-8, but read as gbk" in capsys.readouterr().err


def test_carriage_return_inside_a_line_is_a_fault(folder):
    source = opened(folder, b"i/a.png\t1\r\r\ni/a.png\t2\r3\n")
    assert texts(source) == ["1"]
    assert "carriage return inside the line" in source.faults[0].detail


@pytest.mark.parametrize("encoding", ["rot13", "base64", "idna", "none", "", "utf-8\0"])
def test_unknown_encodings_are_rejected(encoding):
    with pytest.raises(UserError, match=r"data.encoding is .* expected the name of a text encoding"):
        DataConfig(encoding=encoding)


def test_unknown_formats_are_rejected():
    with pytest.raises(UserError, match=r"data.format is 'excel'; expected one of auto, labels, tsv"):
        DataConfig(format="excel")


@pytest.mark.parametrize(
    ("name", "line", "text", "hint"),
    [
        ("space", "i/a.png 12 3", "12 3", "separated by a space. --format space"),
        ("space", "i/a.png\t12 3", "12 3", ""),
        ("icdar", 'i/a.png, "12, \\"3\\\\"', '12, "3\\', "an ICDAR list. --format icdar"),
        ("icdar", "i/a.png, 12", "12", ""),
        ("tsv", 'i/a.png\t"1""2"', '1"2', ""),
        ("tsv", "i/a.png\t12", "12", ""),
        ("labels", "i/a.png\t 12", " 12", ""),
    ],
)
def test_list_formats_are_read(folder, name, line, text, hint):
    source = opened(folder, f"{line}\n", format=name)
    assert texts(source) == [text]
    assert source[0][0].shape == (32, 40)
    if hint:
        (fault,) = opened(folder, f"{line}\n").faults
        assert hint in fault.detail.replace("?", ".")


@pytest.mark.parametrize(("name", "line"), [("space", "a"), ("icdar", '"a"'), ("tsv", 'a\t"b'), ("tsv", "a\tb\tc")])
def test_lines_in_another_format_are_faults(folder, name, line):
    assert "; expected path" in opened(folder, f"{line}\n", format=name).faults[0].detail


def test_quotes_are_kept_with_a_warning(folder, capsys):
    assert texts(opened(folder, 'i/a.png\t"1""2"\ni/a.png\t"3"\n')) == ['"1""2"', '"3"']
    (line,) = capsys.readouterr().err.splitlines()
    assert 'line 1: \'"1""2"\' is quoted as in CSV (1 lines); the quotes are kept' in line


def test_absolute_paths_inside_the_folder(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    inside = (folder / "i" / "a.png", folder / "i" / ".." / "i" / "a.png", tmp_path / "link" / "i" / "a.png")
    outside = (tmp_path / "a.png", f"{folder}x/a.png", folder / ".." / "a.png")
    data = "".join(f"{path}\t1\n" for path in (*inside, *outside))
    source = opened(folder, data)
    assert [source.name(i) for i in range(len(source))] == [str(path) for path in inside]
    assert all(source[i][0].shape == (32, 40) for i in range(3))
    assert len({source.identity(i) for i in range(3)}) == 1
    assert [fault.kind for fault in source.faults] == ["path outside its folder"] * 3
    assert len(open_source(tmp_path / "link" / "l.txt")) == 3


@pytest.mark.parametrize(
    ("name", "form"), [("l.txt", "{}\t1\n"), ("l.csv", "filename,words\n{},1\n"), ("l.json", '{{"{}":"1"}}')]
)
def test_paths_are_relative_to_the_root(folder, name, form):
    (folder / "lists").mkdir()
    source = opened(folder / "lists", form.format("i/a.png"), name)
    with pytest.raises(ImageError, match=rf"i/a.png: no such file in {folder}/lists; it exists in {folder}: --root "):
        source[0]
    assert open_source(folder / "lists" / name, layout=Layout(root=str(folder)))[0][0].shape == (32, 40)
    outside = opened(folder / "lists", form.format("../a.png"), name, root=str(folder))
    assert [fault.kind for fault in outside.faults] == ["path outside its folder"]
    with pytest.raises(UserError, match=r"none: no such folder; expected the folder of the images \(--root"):
        open_source(folder / "lists" / name, layout=Layout(root=str(folder / "none")))


def test_root_is_saved_as_an_absolute_path(tmp_path):
    assert DataConfig(root="r").with_whole_paths(tmp_path).root == str(tmp_path / "r")
    assert DataConfig().with_whole_paths(tmp_path).root == ""


def test_windows_paths_are_read(folder):
    source = opened(folder, "i\\a.png\t1\ni\\b.png\t2\nC:\\i\\a.png\t3\n..\\a.png\t4\n\\\\host\\a.png\t5\n")
    assert texts(source) == ["1", "2", "3"]
    assert source.name(0) == "i\\a.png"
    assert source[0][0].shape == (32, 40)
    for index, message in ((1, f"no such file in {folder}"), (2, "expected a path relative to the list")):
        with pytest.raises(ImageError, match=message):
            source[index]
    assert [fault.kind for fault in source.faults] == ["path outside its folder"] * 2
    Image.new("L", (9, 9)).save(folder / "i\\a.png")  # a name that exists as it is written
    assert opened(folder, "i\\a.png\t1\n")[0][0].shape == (9, 9)


def test_json_paths_with_surrogates(folder):
    source = opened(folder, '["\\udcd6.png", "i/a.png"]\t1\n')
    assert source.name(0).encode()


def test_utf16_is_named_for_other_text_files(tmp_path):
    (tmp_path / "charset.txt").write_bytes("a\n".encode("utf-16"))
    with pytest.raises(UserError, match="UTF-16 text"):
        read_text(tmp_path / "charset.txt")
