"""What a run folder of a stranger's may not do to the machine that evaluates it."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from small_runs import untrained

import jaxcrnn
from jaxcrnn._text import MOST, SMALL, read_text
from jaxcrnn.charset import Charset
from jaxcrnn.cli.main import main
from jaxcrnn.errors import UserError
from jaxcrnn.runs import metrics_log

LARGE = 9000 * 4000  # pixels, more than a new run allows


@pytest.fixture(scope="module")
def theirs(lines_file, tmp_path_factory):
    run = tmp_path_factory.mktemp("theirs") / "run"
    untrained(run, lines_file)
    text = (run / "config.yaml").read_text()
    for name, value in (("max_pixels", 32_000_000), ("max_bytes", 64_000_000)):
        assert f"{name}: {value}" in text
        text = text.replace(f"{name}: {value}", f"{name}: {10**15}")
    (run / "config.yaml").write_text(text)
    return run


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    folder = tmp_path_factory.mktemp("large")
    Image.new("1", (9000, 4000)).save(folder / "large.png")
    (folder / "lines.txt").write_text("large.png\t1\n")
    return folder


@pytest.mark.slow
def test_limits_of_an_untrusted_run_are_ignored(theirs, large, capsys):
    for command in (
        ["recognize", str(theirs), str(large / "large.png")],
        ["evaluate", str(theirs), "--data", str(large / "lines.txt")],
    ):
        assert main(command) == 2
        captured = capsys.readouterr()
        assert "ignoring data.max_pixels=1,000,000,000,000,000; using 32,000,000" in captured.err
        assert "9000x4000 pixels; the limit is 32,000,000 in total" in captured.out + captured.err
        assert main([*command, "--max-pixels", str(LARGE)]) == 0
        assert "data.max_pixels" not in capsys.readouterr().err
        assert main([*command, "--max-pixels", str(LARGE), "--max-bytes", "9"]) == 2
        captured = capsys.readouterr()
        assert "larger than the limit of 9 bytes" in captured.out + captured.err
        assert main([*command, "--max-bytes", "0"]) == 2
        assert "--max-bytes 0: expected 1 or more" in capsys.readouterr().err


def test_limits_of_an_untrusted_export_are_ignored(theirs, large, tmp_path):
    with pytest.raises(UserError, match="the limit is 32,000,000 in total"):
        jaxcrnn.load(theirs).recognize([large / "large.png"])
    assert main(["export", str(theirs), "--format", "safetensors", "--out", str(tmp_path / "out")]) == 0
    with pytest.raises(UserError, match="the limit is 32,000,000 in total"):
        jaxcrnn.load(tmp_path / "out").recognize([large / "large.png"])


def test_stricter_limits_are_kept(theirs, tmp_path, capsys):
    run = shutil.copytree(theirs, tmp_path / "run")
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace(f"max_pixels: {10**15}", "max_pixels: 9"))
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "a.png")
    assert main(["recognize", str(run), str(tmp_path / "a.png")]) == 2
    assert "9x9 pixels; the limit is 9 in total" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "taken"),
    [
        (b'{"step": 5, "ctc": 2.0}', [(5, 2.0)]),
        (b'{"step": 5, "ctc": "<script>"}', [(5, None)]),
        (b'{"step": 5, "ctc": 1' + b"0" * 400 + b"}", [(5, None)]),
        (b'{"step": 5, "ctc": NaN}', [(5, None)]),
        (b'{"step": true}', []),
        (b'{"step": 1' + b"0" * 400 + b"}", []),
        (b'{"step": -1}', []),
        (b"[5]", []),
        (b"[" * 10**5 + b"}", []),
        (b"\xff}", []),
        (b'{"st', []),
    ],
)
def test_invalid_log_rows_are_ignored(tmp_path, line, taken):
    (tmp_path / metrics_log.NAME).write_bytes(b'{"step": 2, "ctc": 3}\n' + line)
    log = metrics_log.read(tmp_path / metrics_log.NAME)
    assert [(row["step"], metrics_log.number(row, "ctc")) for row in log.rows] == [(2, 3.0), *taken]
    assert log.broken == (not taken and line.endswith(b"}"))


@pytest.mark.slow
def test_report_ignores_invalid_log_rows(theirs, lines_file, tmp_path):
    run = shutil.copytree(theirs, tmp_path / "run")
    rows = [json.dumps({"step": 1, "ctc": bad}) for bad in ("<script>", [], {}, None, True)]
    (run / metrics_log.NAME).write_text("\n".join(["no row}", *rows, json.dumps({"step": 2, "ctc": 0.5})]))
    assert main(["report", str(run), "--data", str(lines_file)]) == 0
    assert "<script>" not in (run / "report.html").read_text()


@pytest.mark.slow
def test_endless_text_is_rejected(tmp_path):
    with pytest.raises(UserError, match=f"/dev/zero: larger than the limit of {SMALL:,} bytes"):
        Charset.from_file("/dev/zero")
    with pytest.raises(UserError, match=f"/dev/zero: larger than the limit of {MOST:,} bytes"):
        read_text("/dev/zero")
