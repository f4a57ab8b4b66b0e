"""Tables of plain text, and printing in any encoding."""

import io
import json
import os
import sys

import pytest
from rich.cells import cell_len

from jaxcrnn._console import table, to_json
from jaxcrnn._files import printable
from jaxcrnn.cli.main import main


def test_table_columns_align_by_display_width():
    """Chinese characters take two cells; numbers are right-aligned; brackets and colons are no markup."""
    text = table(("text", "share", "n", "note"), [("未末", "7.50 %", 7, "[b]"), ("a", "-12.25 %", 1234, ":smile:")])
    assert text.split("\n") == [
        "text  share        n  note",
        "----- --------- ----- -------",
        "未末  7.50 %       7  [b]",
        "a     -12.25 %  1234  :smile:",
    ]
    assert {cell_len(line[: line.index(mark)]) for line, mark in zip(text.split("\n")[2:], "[:", strict=True)} == {22}


def test_table_rows_are_neither_wrapped_nor_truncated(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("FORCE_COLOR", "1")
    name = "未/" * 300 + "end.png"
    text = table(("image", "why"), [(name, "x" * 500)])
    assert text.split("\n")[2] == f"{name}  {'x' * 500}"
    assert table(("fault", "rows"), []).split("\n")[0] == "fault  rows"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "gbk", "utf-8"])
def test_printing_never_fails(encoding, tmp_path, monkeypatch):
    """Neither a character that the terminal lacks nor a name that is not UTF-8 ends a command in the middle."""
    names = ["é未\U00020bb7.png", os.fsdecode(b"\xc4\xe3.png")]
    (tmp_path / "p.txt").write_text("\U00020bb7.png\t未é\t末é\n", encoding="utf-8")
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict") for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    assert main(["lookalikes", "score", "--predictions", str(tmp_path / "p.txt")]) == 0
    assert main(["lookalikes", "score", "--json", "--predictions", str(tmp_path / "p.txt")]) == 0
    for name in names:
        print(table(("name", "rows"), [(name, 1)]))
        assert main(["data", "audit", str(tmp_path / name)]) == 2
    print(to_json(names))
    shown = [stream.buffer.getvalue().decode(encoding) for stream in (out, err) if not stream.flush()]
    scores, brace, rest = shown[0].partition("{\n")
    assert json.loads(brace + rest.partition("\n}\n")[0] + "}")["confusions"][0]["written"] == "末"
    assert json.loads(shown[0].splitlines()[-1]) == names
    assert (r"\u672a" in scores) == (encoding in ("ascii", "latin-1"))
    assert r"\udcc4\udce3.png" in shown[0]
    for name in map(printable, names):  # in messages, bytes that are not UTF-8 are shown as such
        assert name.encode(encoding, "backslashreplace").decode(encoding) in shown[1]
