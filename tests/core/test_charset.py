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
        ("a\nx\u0301\n".encode(), r"line 2: .*U\+0078 U\+0301.*labels are split into code points"),
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


DICTIONARIES = {
    "a trailing space": ("a \n \n", "a ", "dropped whitespace beside the character on line 1"),
    "a trailing tab": ("p\t\nq\t\n \t\n", "pq ", "on lines 1, 2, 3"),
    "two spaces for the space": ("  \na\n", " a", "on line 1"),
    "whitespace that is a character": ("\u3000 \na\n", "\u3000a", "on line 1"),
    "empty lines at the end": ("a\nb\n\n\n", "ab", "skipped empty lines 3, 4"),
    "an empty line beside the space": ("a\n\n \nb\n", "a b", "skipped empty line 2"),
    "an alphabet on one line": ("ab 1\n", "ab 1", "each read as a class, in this order, the space too"),
    "separated by spaces": ("a b c", "abc", "one line of 3 characters"),
    "separated by commas": ("a, b, c", "abc", "one line of 3 characters"),
    "decomposed": ("e\u0301\n1\n", "é1", r"composed line 1, 'e\u0301' (U+0065 U+0301), to 'é' (U+00E9)"),
}


@pytest.mark.parametrize("name", DICTIONARIES)
def test_dictionaries_of_other_programs_are_read_with_a_notice(name, tmp_path, capsys):
    text, characters, notice = DICTIONARIES[name]
    (tmp_path / "c.txt").write_text(text, encoding="utf-8")
    charset = Charset.from_file(tmp_path / "c.txt", "last")
    assert "".join(charset.characters) == characters
    assert charset.encode(characters) == list(range(len(characters)))
    error = capsys.readouterr().err
    assert error.startswith(f"{tmp_path / 'c.txt'}: ")
    assert error.count("\n") == 1
    assert notice.replace("\\u0301", "\u0301") in error
    # What is saved is read back without a notice.
    charset.save(tmp_path / "saved.txt")
    assert Charset.from_file(tmp_path / "saved.txt", "last", pytest.fail) == charset


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("a\n\nb\n", "line 2: empty; .*a line with one space is the space; otherwise delete the line"),
        ("<unk>\na\n", "line 1: .*delete special tokens; the blank is added automatically"),
        ("a 0\nb 1\n", "line 1: .*delete what follows the character"),
        ("0.png\t12\n", "line 1: .*this looks like a label file"),
        ("👩\u200d👧\na\n", "line 1: .*give each a line of its own"),
        ("abc \n", "line 1: 'abc '"),
        ("aba\n", "line 1, character 3: duplicate 'a'"),
        ("a\ne\u0301\né\n", "line 3: duplicate 'é'"),
    ],
)
def test_ambiguous_dictionaries_are_rejected(text, fix, tmp_path):
    (tmp_path / "c.txt").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=fix):
        Charset.from_file(tmp_path / "c.txt", notice=pytest.fail)


def test_carriage_return_line_ends(tmp_path):
    (tmp_path / "c.txt").write_bytes(b"a\r \rb\r")
    assert Charset.from_file(tmp_path / "c.txt", notice=pytest.fail).characters == ("a", " ", "b")
