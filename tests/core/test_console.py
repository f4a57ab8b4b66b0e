"""Tables of plain text."""

from rich.cells import cell_len

from jaxcrnn._console import table


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
