"""Commands and programs of the pages, as a reader would run them."""

import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from jaxcrnn.cli import main

DOCS = Path(__file__).parents[1] / "docs"
# A reader waits for a trained model; a test does not.
SMALL = ["model.backbone=tiny", "model.hidden=8", "optim.warmup=1", "data.batch_size=4", "data.buckets=1",
         "augment.probability=0", "run.eval_every=2"]  # fmt: skip


def blocks(page, language=""):
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def place(lines_file, tmp_path_factory):
    """A folder with the data of the quick start."""
    folder = tmp_path_factory.mktemp("quick")
    (folder / "lines").mkdir()
    for file in lines_file.parent.glob("*.png"):
        (folder / "lines" / file.name).write_bytes(file.read_bytes())
    rows = lines_file.read_text().splitlines(keepends=True)
    (folder / "lines" / "labels.txt").write_text("".join(rows[:-6]))
    (folder / "lines" / "val.txt").write_text("".join(rows[-6:]))
    return folder


@pytest.mark.slow
def test_quick_start_in_six_commands(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    commands = [shlex.split(line) for line in blocks("quick-start.md")[0].splitlines()]
    assert len(commands) == 6
    for words in commands:
        assert words[0] == "jaxcrnn"
        if "train" in words:
            assert words[-1] == "optim.steps=2000"
            words = [*words[:-1], "optim.steps=2", *SMALL]
        assert main(words[1:]) == 0, words
    assert {p.name for p in (place / "served").iterdir()} == {"model.bin", "charset.txt"}
    capsys.readouterr()
    (loader,) = (block for block in blocks("open-doors.md", "python") if "deserialize" in block)
    Image.open("lines/1.png").save("line.png")
    exec(compile(loader, "loader", "exec"), {})
    said = capsys.readouterr().out
    assert main(["recognize", "runs/first", "line.png"]) == 0
    assert capsys.readouterr().out.split("\t")[1] == said.rstrip("\n")
