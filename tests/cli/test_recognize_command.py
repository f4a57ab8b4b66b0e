"""`jaxcrnn recognize`: files, folders, stdin, and what cannot be read."""

import io
import json
import os
import sys
from pathlib import Path

import pytest
from PIL import Image
from small_runs import train_args

from jaxcrnn.cli import main
from jaxcrnn.cli.recognize import _is_model, _paths


def test_recognize_files_folders_and_stdin(run_folder, lines_file, capsys, monkeypatch):
    folder = lines_file.parent
    assert main(["recognize", str(run_folder), str(folder)]) == 0
    captured = capsys.readouterr()
    rows = [line.split("\t") for line in captured.out.splitlines()]
    assert [row[0] for row in rows] == sorted(str(p) for p in folder.glob("*.png"))
    assert "skipped 1 non-image file\n" in captured.err  # the label file
    assert all(0 <= float(row[2]) <= 1 for row in rows)
    assert main(["recognize", str(run_folder), rows[3][0], rows[0][0], "--json"]) == 0
    objects = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(o["path"], o["text"]) for o in objects] == [(rows[i][0], rows[i][1]) for i in (3, 0)]
    paths = "".join(f"{row[0]}\n" for row in rows[:2]).encode()
    for data, count in ((Path(rows[0][0]).read_bytes(), 1), (paths, 2)):
        monkeypatch.setattr(sys, "stdin", type("", (), {"buffer": io.BytesIO(data)}))
        assert main(["recognize", str(run_folder), "-"]) == 0
        assert capsys.readouterr().out.count("\n") == count
    monkeypatch.setattr(sys, "stdin", type("", (), {"buffer": io.BytesIO(b"\n")}))
    assert main(["recognize", str(run_folder), "-"]) == 2
    assert "nothing on stdin" in capsys.readouterr().err


def test_folder_with_a_config_of_another_program_is_not_a_model(tmp_path):
    (tmp_path / "config.json").write_text('{"architectures": []}')
    assert not _is_model(tmp_path)
    for name, text in (("model.safetensors", ""), ("run.json", "{}"), ("config.yaml", "")):
        (tmp_path / name).write_text(text)
        assert _is_model(tmp_path)
        (tmp_path / name).unlink()
    (tmp_path / "config.json").write_text('{"format": "jaxcrnn model 1"}')
    assert _is_model(tmp_path)


def test_recognize_reports_unreadable_images(run_folder, lines_file, tmp_path, capsys):
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


def test_too_wide_lines_and_further_pages_are_reported(run_folder, tmp_path, capsys):
    """A line that is too wide names the option; further pages are counted."""
    line = Image.new("L", (5000, 32), 255)
    line.save(tmp_path / "wide.png")
    line.crop((0, 0, 60, 32)).save(tmp_path / "two.tif", save_all=True, append_images=[line.crop((0, 0, 60, 32))])
    run, wide = str(run_folder), str(tmp_path / "wide.png")
    assert main(["recognize", run, wide]) == 2
    limit = "5000x32 becomes 5000 px wide at height 32; the limit is 4096 px"
    assert f"{limit} (data.max_width; with a trained run: --max-width)" in capsys.readouterr().err
    assert main(["recognize", run, str(tmp_path / "two.tif"), "--max-width", "59"]) == 2
    assert "the limit is 59 px" in capsys.readouterr().err
    assert main(["recognize", run, wide, "--max-width", "0"]) == 2
    assert "--max-width 0: expected 1 or more" in capsys.readouterr().err
    (tmp_path / "labels.txt").write_text("wide.png\t1\n")
    assert main(["evaluate", run, "--data", str(tmp_path / "labels.txt"), "--max-width", "4999"]) == 2
    assert "the limit is 4999 px" in capsys.readouterr().out
    assert main(["recognize", run, str(tmp_path / "two.tif")]) == 0
    captured = capsys.readouterr()
    assert captured.out.count("\n") == 1
    assert captured.err == (
        "jaxcrnn recognize: 1 image has several pages or frames; only the first is read: " + str(tmp_path / "two.tif\n")
    )


@pytest.mark.slow
def test_vertical_lines_are_read_after_rotation(run_folder, lines_file, tmp_path, capsys):
    """Rotated clockwise, a line is read as before with --vertical; its characters have a top and a bottom."""
    tall, wide = tmp_path / "tall.png", lines_file.parent / "1.png"
    with Image.open(wide) as image:
        assert image.width > image.height
        image.transpose(Image.Transpose.ROTATE_270).save(tall)
    (tmp_path / "labels.txt").write_text("tall.png\t" + lines_file.read_text().splitlines()[1].split("\t")[1] + "\n")
    places = []
    for arguments in ([str(wide)], [str(tall), "--vertical"]):
        assert main(["recognize", str(run_folder), "--json", "--characters", *arguments]) == 0
        line = json.loads(capsys.readouterr().out)
        places.append((line["text"], [tuple(c.values()) for c in line["characters"]]))
    assert places[0] == places[1]
    assert all({"top", "bottom"} < c.keys() for c in line["characters"])
    assert main(["evaluate", str(run_folder), "--data", str(tmp_path / "labels.txt"), "--vertical"]) == 0
    assert "1 of 1 lines are taller than wide and are rotated (data.vertical)" in capsys.readouterr().out


@pytest.mark.slow
def test_run_saves_that_its_lines_are_vertical(lines_file, tmp_path, capsys):
    """Trained on rotated lines with --vertical, a run is the one trained on the lines themselves."""
    (tmp_path / "lines").mkdir()
    long = []
    for row in lines_file.read_text().splitlines(keepends=True):
        name = row.split("\t")[0]
        with Image.open(lines_file.parent / name) as image:
            if image.width > image.height:
                image.transpose(Image.Transpose.ROTATE_270).save(tmp_path / "lines" / name)
                long.append(row)
    for folder in (lines_file.parent, tmp_path / "lines"):
        (folder / "long.txt").write_text("".join(long))
    losses = []
    for data, more in ((lines_file.parent / "long.txt", []), (tmp_path / "lines" / "long.txt", ["--vertical"])):
        out = tmp_path / f"run{len(losses)}"
        assert main([*train_args(data, out, steps=2), *more]) == 0
        capsys.readouterr()
        assert main(["evaluate", str(out), "--json"]) == 0
        losses.append(json.loads(capsys.readouterr().out)["loss"])
    assert losses[0] == losses[1]
    assert "vertical: true" in (tmp_path / "run1" / "config.yaml").read_text()
    assert main(["train", "--resume", str(tmp_path / "run1"), "--set", "data.trim=true"]) == 2
    assert "drop --set data.trim=true" in capsys.readouterr().err
    assert main(["train", "--resume", str(tmp_path / "run1"), "--no-vertical"]) == 2
    assert "--resume uses the run's own data.vertical" in capsys.readouterr().err


def test_a_list_of_paths_need_not_be_utf8(tmp_path):
    name = os.fsencode(tmp_path) + b"/\xd6\xd0.png"
    assert _paths("a.png\r\n\n中.png\n".encode()) == ["a.png", "中.png"]
    assert _paths(name + b"\na.png\n") is None  # no such file: an image
    open(name, "wb").close()
    assert _paths(name + b"\na.png\n") == [os.fsdecode(name), "a.png"]
    assert _paths(name + b"\n\0") is None
