import pytest

from jaxcrnn import Charset, UserError


@pytest.mark.parametrize(("blank", "ids", "blank_id"), [("first", [2, 1], 0), ("last", [1, 0], 3)])
def test_encode_and_decode_are_inverse(blank, ids, blank_id):
    charset = Charset("土士 ", blank)
    assert charset.encode("士土") == ids
    assert charset.decode(ids) == "士土"
    assert (charset.blank, charset.num_classes, len(charset)) == (blank_id, 4, 3)
    with pytest.raises(UserError, match="the blank"):
        charset.decode([blank_id])
    with pytest.raises(UserError, match="out of range for 4 classes"):
        charset.decode([4])


def test_encode_error_names_the_character():
    with pytest.raises(UserError, match=r"'末' \(U\+672B\) at position 2 of '未末'"):
        Charset("未").encode("未末")


@pytest.mark.parametrize(
    "data",
    [b"a\n \n\xe6\x9c\xaa\n", b"a\r\n \r\n\xe6\x9c\xaa\r\n", b"\xef\xbb\xbfa\n \n\xe6\x9c\xaa"],
    ids=["plain", "windows", "bom, no end"],
)
def test_charset_from_file(tmp_path, data):
    path = tmp_path / "c.txt"
    path.write_bytes(data)
    assert Charset.from_file(path).characters == ("a", " ", "未")


def test_unicode_line_separators_are_characters(tmp_path):
    charset = Charset("a\u2028\x85\x0b")
    charset.save(tmp_path / "c.txt")
    assert Charset.from_file(tmp_path / "c.txt") == charset


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty; expected at least one character"),
        (b"a\nb\na\n", r"line 3: duplicate 'a' \(U\+0061\) \(first at line 1\)"),
        (b"a\nxy\n", r"line 2: 'xy' \(U\+0078 U\+0079\); expected a single code point"),
        ("e\u0301\n".encode(), r"line 1: .*U\+0065 U\+0301"),
        (b"a\n\nb\n", "line 2: empty; expected a single code point"),
        (b"a\n\xff\n", "line 2: byte 0xff is not UTF-8"),
        (None, "No such file"),
    ],
    ids=["empty", "duplicate", "two characters", "combining", "empty line", "not utf-8", "missing"],
)
def test_invalid_files_are_rejected(tmp_path, data, message):
    path = tmp_path / "c.txt"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(UserError, match=message) as caught:
        Charset.from_file(path)
    assert str(path) in str(caught.value)


def test_charset_from_labels_and_its_hash():
    charset = Charset.from_labels(["ba", "cab"])
    assert charset.characters == ("a", "b", "c")
    assert charset.missing("xaxy") == ["x", "y"]
    hashes = {Charset(c, b).hash for c, b in [("abc", "first"), ("abc", "last"), ("acb", "first"), ("ab", "first")]}
    assert len(hashes) == 4
    assert charset.hash == "1ad9e695a4bd15ac"  # in the folders of runs and files of centers that exist
    assert Charset("a").name(0) == "(blank)"
    assert Charset("a").name(1) == "a"
    with pytest.raises(UserError, match="expected 'first' or 'last'"):
        Charset("a", "middle")
