"""Faults in rows, images, files, configurations, runs and centers."""

import pickle
from pathlib import Path

import numpy as np
from case import SMALL, Case
from helpers import SyntheticLines
from PIL import Image

from jaxcrnn.charset import Charset
from jaxcrnn.data.labels import write_lines
from jaxcrnn.data.lmdb import write_lmdb
from jaxcrnn.runs import center_files
from jaxcrnn.types import CenterState

TITLE = "Rows, files and configurations"


def prepare(root: Path) -> None:
    """A few good lines, one small run, and one broken thing of each kind."""
    source = SyntheticLines(5, 4, "0123456789", (3, 3))
    write_lines(root, source).rename(root / "good.txt")
    shown = {character for i in range(len(source)) for character in source.text(i)}
    (root / "digits.txt").write_text("".join(f"{d}\n" for d in range(10)))
    cut = (root / "0.png").read_bytes()
    (root / "cut.png").write_bytes(cut[: len(cut) // 2])
    (root / "zero.png").write_bytes(b"")
    (root / "text.png").write_text("this is not an image")
    Image.new("1", (30_000, 32)).save(root / "long.png")
    Image.new("L", (1, 32)).save(root / "thin.png")
    Image.new("1", (20_000, 20_000)).save(root / "bomb.png")
    (root / "empty").mkdir()
    (root / "doubled.txt").write_text("1\n2\n1\n")
    (root / "pairs.txt").write_text("1\n23\n")
    (root / "nothing.txt").write_text("")
    (root / "latin1.txt").write_bytes("0.png\t\xe9\n".encode("latin-1"))
    (root / "typo.yaml").write_text("optim: {stepz: 3}\n")
    (root / "broken.yaml").write_text("optim: {steps: 3\n")
    (root / "words.txt").write_text("a\nb\n")
    for name, characters, size in (("words", "ab", 16), ("short", "".join(sorted(shown)), 9)):
        state = CenterState(np.zeros((len(characters) + 1, size)), np.ones(len(characters) + 1))
        center_files.save(root / f"{name}.safetensors", state, Charset(characters))
    (root / "cut.safetensors").write_bytes((root / "words.safetensors").read_bytes()[:-50])
    lmdb_folders(root, source)
    (root / "broken.json").write_text("{1: 2")
    (root / "table.csv").write_text("0.png,1\n")
    (root / "twice.txt").write_text("12\n23\n")
    (root / "fonts").mkdir()
    (root / "fonts" / "text.ttf").write_text("this is not a font")
    (root / "evil.pkl").write_bytes(pickle.dumps({0: print}))


def lmdb_folders(root: Path, source: SyntheticLines) -> None:
    """One LMDB, one that is cut in half, and one that lacks a key."""
    import lmdb

    write_lmdb(root / "lmdb", SyntheticLines(6, 40, "0123456789", (3, 3)))
    (root / "lmdb-cut").mkdir()
    whole = (root / "lmdb" / "data.mdb").read_bytes()
    (root / "lmdb-cut" / "data.mdb").write_bytes(whole[: len(whole) // 2])
    write_lmdb(root / "lmdb-uncounted", source)
    with lmdb.open(str(root / "lmdb-uncounted")) as environment, environment.begin(write=True) as transaction:
        transaction.delete(b"num-samples")


def cases() -> list[Case]:
    train = ["train", "--data", "good.txt", "--out", "new", *SMALL]
    second = ["train", "--data", "good.txt", "--out", "new", "--init-from", "run", "--preset", "flow2"]
    mined = ["--charset", "digits.txt", "--out", "groups.txt"]
    drawn = ["train", "--charset", "digits.txt", "--out", "new", *SMALL, "text.share=1"]
    data = [
        ("a line without a tab", "0.png 123"),
        ("a missing image", "none.png\t1"),
        ("a 0-byte image", "zero.png\t1"),
        ("a truncated PNG", "cut.png\t1"),
        ("a text file named .png", "text.png\t1"),
        ("a 30,000 px line", "long.png\t1"),
        ("a 1 px line", "thin.png\t1"),
        ("a decompression bomb", "bomb.png\t1"),
        ("a character outside the charset", "0.png\t12x"),
        ("a label too long for its image", "0.png\t" + "11" * 30),
        ("an empty label", "0.png\t"),
        ("an image listed twice", "0.png\t1\n0.png\t2"),
    ]
    listed = ["train", "--data", "rows.txt", "--charset", "digits.txt", "--out", "new", *SMALL]
    others: list[tuple[str, list[str], int | None]] = [
        ("no such label file", ["train", "--data", "none.txt", "--out", "new"], None),
        ("an image as label file", ["train", "--data", "0.png", "--out", "new"], None),
        ("a label file in Latin-1", ["train", "--data", "latin1.txt", "--out", "new"], None),
        ("an empty label file", ["train", "--data", "nothing.txt", "--out", "new"], None),
        ("a charset with a duplicate", [*train, "--charset", "doubled.txt"], None),
        ("a charset line of two characters", [*train, "--charset", "pairs.txt"], None),
        ("an empty charset", [*train, "--charset", "nothing.txt"], None),
        ("an unknown key", [*train, "--config", "typo.yaml"], None),
        ("broken YAML", [*train, "--config", "broken.yaml"], None),
        ("a value of the wrong type", [*train, "optim.steps=many"], None),
        ("an output folder that is taken", ["train", "--data", "good.txt", "--out", "run"], None),
        ("a read-only output folder", ["train", "--data", "good.txt", "--out", "/proc/run", *SMALL], None),
        ("a full disk (files limited to 200 kB)", train, 200_000),
        ("a folder that is not a run", ["evaluate", "empty"], None),
        ("a missing checkpoint", ["evaluate", "run", "--data", "good.txt", "--checkpoint", "99"], None),
        ("a wrong checkpoint folder", ["evaluate", "swapped", "--data", "good.txt"], None),
        (
            "a charset that does not match the run",
            ["evaluate", "run", "--data", "good.txt", "--charset", "words.txt"],
            None,
        ),
        ("a folder without images", ["recognize", "run", "empty"], None),
        ("an image that cannot be read", ["recognize", "run", "zero.png"], None),
        ("an unknown command", ["trian"], None),
        ("an unknown preset", [*train, "--preset", "flow3"], None),
        ("centers for plain CTC", [*train, "--centers", "head"], None),
        ("flow2 without centers", [*train, "--preset", "flow2"], None),
        ("centers that are not there", [*second, "--centers", "none.safetensors"], None),
        ("a truncated file of centers", [*second, "--centers", "cut.safetensors"], None),
        ("centers of another charset", [*second, "--centers", "words.safetensors"], None),
        ("centers of another feature size", [*second, "--centers", "short.safetensors"], None),
        ("a pickle that calls a function", [*second, "--centers", "evil.pkl"], None),
        ("a charset unlike that of --init-from", [*second, "--centers", "head", "--charset", "words.txt"], None),
        ("a model unlike that of --init-from", [*second, "--centers", "head", "--set", "model.hidden=9"], None),
        ("a truncated LMDB", ["train", "--data", "lmdb-cut", "--out", "new"], None),
        ("an LMDB without the number of samples", ["train", "--data", "lmdb-uncounted", "--out", "new"], None),
        ("a file named .json", ["data", "audit", "broken.json"], None),
        ("a table without its header", ["data", "audit", "table.csv"], None),
        ("another data set in the LMDB to write", ["data", "convert", "good.txt", "lmdb"], None),
        ("a file that is not a font", ["lookalikes", "mine", *mined, "--fonts", "fonts"], None),
        ("a folder without fonts", ["lookalikes", "mine", *mined, "--fonts", "empty"], None),
        ("a file that is not a table of look-alikes", ["lookalikes", "mine", *mined, "--table", "good.txt"], None),
        ("a character in two groups", [*drawn, "text.source=lookalikes", "text.groups=twice.txt"], None),
        ("a text to render that is not there", [*drawn, "text.source=none.txt"], None),
        ("a share that leaves no line from files", [*train, "text.share=0.99"], None),
        ("more devices than there are", [*train, "mesh.data=16"], None),
        ("a batch without lines", ["plan", "--set", "mesh.data=1", "data.batch_size=0"], None),
        ("an unknown device to plan for", ["plan", "--device", "v5e"], None),
        ("an unknown benchmark case", ["bench", "--only", "stepp"], None),
        ("a coordinator without --distributed", [*train[: -len(SMALL)], "--coordinator", "localhost:1"], None),
        ("--grow without --init-from", [*train[: -len(SMALL)], "--grow"], None),
    ]
    return [Case(what, listed, rows=f"{rows}\n") for what, rows in data] + [Case(*other) for other in others]
