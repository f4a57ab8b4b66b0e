"""`jaxcrnn recognize`: files, folders, stdin, and what cannot be read."""

import io
import json
import os
import sys
from pathlib import Path

from jaxcrnn.cli import main
from jaxcrnn.cli.recognize import _paths


def test_recognize_files_folders_and_stdin(run_folder, lines_file, capsys, monkeypatch):
    folder = lines_file.parent
    assert main(["recognize", str(run_folder), str(folder)]) == 0
    captured = capsys.readouterr()
    rows = [line.split("\t") for line in captured.out.splitlines()]
    assert [row[0] for row in rows] == sorted(str(p) for p in folder.glob("*.png"))
    assert "skipped 1 non-image files" in captured.err  # the label file
    assert all(0 <= float(row[2]) <= 1 for row in rows)
    assert main(["recognize", str(run_folder), rows[3][0], rows[0][0], "--json"]) == 0
    objects = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(o["path"], o["text"]) for o in objects] == [(rows[i][0], rows[i][1]) for i in (3, 0)]
    paths = "".join(f"{row[0]}\n" for row in rows[:2]).encode()
    for data, count in ((Path(rows[0][0]).read_bytes(), 1), (paths, 2)):
        monkeypatch.setattr(sys, "stdin", type("", (), {"buffer": io.BytesIO(data)}))
        assert main(["recognize", str(run_folder), "-"]) == 0
        assert capsys.readouterr().out.count("\n") == count


def test_recognize_reports_what_it_cannot_read(run_folder, lines_file, tmp_path, capsys):
    (tmp_path / "zero.png").write_bytes(b"")
    good = next(lines_file.parent.glob("*.png"))
    arguments = [
        "recognize",
        str(run_folder),
        str(tmp_path / "zero.png"),
        str(good),
        str(tmp_path / "no.png"),
        "--json",
    ]
    assert main(arguments) == 2
    captured = capsys.readouterr()
    objects = [json.loads(line) for line in captured.out.splitlines()]
    assert sorted("error" in o for o in objects) == [False, True, True]
    assert "2 images could not be read" in captured.err


def test_a_list_of_paths_need_not_be_utf8(tmp_path):
    name = os.fsencode(tmp_path) + b"/\xd6\xd0.png"
    assert _paths("a.png\r\n\n中.png\n".encode()) == ["a.png", "中.png"]
    assert _paths(name + b"\na.png\n") is None  # no such file: an image
    open(name, "wb").close()
    assert _paths(name + b"\na.png\n") == [os.fsdecode(name), "a.png"]
    assert _paths(name + b"\n\0") is None
