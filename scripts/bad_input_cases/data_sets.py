"""Folders, lists and LMDBs that are laid out in other ways than expected."""

import os
import shutil
from pathlib import Path

from case import SMALL, Case

TITLE = "Folders, lists and encodings"


def prepare(root: Path) -> None:
    """Folders and lists that are laid out in other ways than expected."""
    import lmdb

    rows = [line.split("\t") for line in (root / "good.txt").read_text().splitlines()]

    def images(folder: str, named: bool = False) -> Path:
        """Copy the images; with ``named``, their names are their texts."""
        (root / folder).mkdir(parents=True)
        for name, text in rows:
            shutil.copy(root / name, root / folder / (f"{text}.png" if named else name))
        return root / folder

    def listed(folder: str, name: str, form: str = "{}\t{}\n", encoding: str = "utf-8") -> Path:
        path = images(folder) / name
        path.write_bytes("".join(form.format(*row) for row in rows).encode(encoding))
        return path

    listed("listed", "labels.txt")
    shutil.copy(listed("twolists", "train.txt"), root / "twolists" / "val.txt")
    listed("below/part", "gt.txt")
    for name, text in rows:
        (images("beside") if name == rows[0][0] else root / "beside").joinpath(name).with_suffix(".gt.txt").write_text(
            text
        )
    # Links: a loop, a second link to a folder, and a folder that is only linked.
    images("elsewhere", named=True)
    (root / "linked").mkdir()
    (root / "linked" / "again").symlink_to(root / "linked")
    (root / "linked" / "part").symlink_to(root / "elsewhere")
    (root / "linked-lmdb").mkdir()
    (root / "linked-lmdb" / "part").symlink_to(root / "lmdb")
    hidden = images("hidden", named=True)
    (hidden / ".ipynb_checkpoints").mkdir()
    shutil.copy(root / "0.png", hidden / ".ipynb_checkpoints" / "12-checkpoint.png")
    (hidden / "._12.png").write_bytes(b"\0" * 20)
    for name in (".DS_Store", "Thumbs.db"):
        (hidden / name).write_bytes(b"\0")
    unzipped = images("unzipped", named=True)
    shutil.copy(root / "0.png", os.fsencode(unzipped) + b"/\xd6\xd0.png")  # a name in GBK
    # LMDBs.
    shutil.copy(root / "lmdb" / "data.mdb", root / "one.mdb")
    shutil.copytree(root / "lmdb", root / "zero")
    with lmdb.open(str(root / "zero")) as environment, environment.begin(write=True) as transaction:
        count = int(transaction.get(b"num-samples"))
        for number in range(count):
            for kind in ("image", "label", "wh"):
                value = transaction.pop(f"{kind}-{number + 1:09d}".encode())
                transaction.put(f"{kind}-{number:09d}".encode(), value)
    # Lists.
    shutil.copytree(root / "elsewhere", root / "absolute" / "i")
    (root / "absolute" / "l.txt").write_text("".join(f"{root}/absolute/i/{text}.png\t{text}\n" for _, text in rows))
    images("paddle/data/i")
    (root / "paddle" / "data" / "l").mkdir()
    (root / "paddle" / "data" / "l" / "rec.txt").write_text("".join(f"i/{name}\t{text}\n" for name, text in rows))
    (root / "gbk.txt").write_bytes("0.png\t京12\n".encode("gbk"))
    (root / "utf16.txt").write_bytes("0.png\t12\r\n".encode("utf-16"))
    (root / "oldmac.txt").write_bytes(b"0.png\t12\r1.png\t34\r")
    (root / "windows.txt").write_text("".join(f"paddle\\data\\i\\{name}\t{text}\n" for name, text in rows))
    (root / "drive.txt").write_text("C:\\lines\\0.png\t12\n")
    (root / "space.txt").write_text("0.png 12\n1.png 34\n")
    (root / "icdar.txt").write_text('\ufeff0.png, "12"\n1.png, "34"\n')
    (root / "quotes.txt").write_text('0.png\t"1""2"\n')


def cases() -> list[Case]:
    audit = [
        ("a folder with labels.txt beside the images", ["listed"]),
        ("the same, read by the names of the images", ["listed", "--format", "names"]),
        ("a folder with two label files", ["twolists"]),
        ("a folder with a label file in a subfolder", ["below"]),
        ("images with a text file each", ["beside"]),
        ("linked subfolders, one of them a loop", ["linked"]),
        ("a linked LMDB", ["linked-lmdb"]),
        ("hidden files and folders, Thumbs.db", ["hidden"]),
        ("an image name in GBK", ["unzipped"]),
        ("the same, with its encoding", ["unzipped", "--encoding", "gbk"]),
        ("data.mdb as data set", ["lmdb/data.mdb"]),
        ("an LMDB in one file", ["one.mdb"]),
        ("lock.mdb as data set", ["lmdb/lock.mdb"]),
        ("an LMDB with keys from 0", ["zero"]),
        ("absolute paths inside the folder of the list", ["absolute/l.txt"]),
        ("paths relative to a folder above the list", ["paddle/data/l/rec.txt"]),
        ("the same, with that folder", ["paddle/data/l/rec.txt", "--root", "paddle/data"]),
        ("a root folder that does not exist", ["paddle/data/l/rec.txt", "--root", "none"]),
        ("a label file in GBK", ["gbk.txt"]),
        ("the same, with its encoding", ["gbk.txt", "--encoding", "gbk"]),
        ("a label file in UTF-16", ["utf16.txt"]),
        ("the same, with its encoding", ["utf16.txt", "--encoding", "utf-16"]),
        ("an unknown encoding", ["utf16.txt", "--encoding", "utf-61"]),
        ("line ends of old Macs", ["oldmac.txt"]),
        ("paths of Windows", ["windows.txt"]),
        ("a path of Windows with a drive", ["drive.txt"]),
        ("a list separated by spaces", ["space.txt"]),
        ("the same, with its format", ["space.txt", "--format", "space"]),
        ("a list of ICDAR", ["icdar.txt"]),
        ("the same, with its format", ["icdar.txt", "--format", "icdar"]),
        ("texts quoted as in CSV", ["quotes.txt"]),
        ("the same, with its format", ["quotes.txt", "--format", "tsv"]),
        ("an unknown format", ["good.txt", "--format", "excel"]),
        ("an image as label file", ["0.png"]),
    ]
    return [
        *(Case(what, ["data", "audit", *arguments]) for what, arguments in audit),
        Case("training on an image name in GBK", ["train", "--data", "unzipped", "--out", "new", *SMALL]),
        Case("converting an image name in GBK", ["data", "convert", "unzipped", "new"]),
        Case("recognising a folder with an image name in GBK", ["recognize", "run", "unzipped"]),
        Case("recognising a folder with linked subfolders", ["recognize", "run", "linked"]),
        Case("recognising a folder with hidden files", ["recognize", "run", "hidden"]),
    ]
