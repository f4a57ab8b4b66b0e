"""Kinds of images, vertical lines, and terminals that lack characters."""

import os
from pathlib import Path

import numpy as np
from case import Case
from PIL import Image

TITLE = "Images and terminals"

ASCII = {"PYTHONIOENCODING": "ascii"}
GBK = {"PYTHONIOENCODING": "gbk"}
C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
STRICT = {"PYTHONIOENCODING": "utf-8:strict"}


def prepare(root: Path) -> None:
    """One line (``0.png``) in kinds of images that were read wrongly, and labels with rare characters."""
    line = Image.open(root / "0.png").convert("L")
    gray = np.asarray(line)
    exif = Image.Exif()
    exif[0x0112] = 6
    line.transpose(Image.Transpose.ROTATE_90).save(root / "exif6.png", exif=exif)
    Image.fromarray(gray.astype(np.uint16) * 16).save(root / "u12in16.png")
    line.save(root / "pages.tif", save_all=True, append_images=[line, line])
    line.save(root / "anim.gif", save_all=True, append_images=[Image.new("L", line.size)])
    line.transpose(Image.Transpose.ROTATE_270).save(root / "tall.png")
    line.resize((5000, 32)).save(root / "wide.png")
    os.makedirs(root / "odd", exist_ok=True)
    line.save(os.fsencode(root / "odd") + b"/\xc4\xe3.png")  # as unzip leaves names in GBK
    line.save(root / "odd" / "é未\U00020bb7.png")
    (root / "paged.txt").write_text("pages.tif\t1\nanim.gif\t1\n")
    (root / "tall.txt").write_text("tall.png\t12\n")
    (root / "wide.txt").write_text("wide.png\t12\n")
    (root / "deep.txt").write_text("u12in16.png\t12\n")
    (root / "rare.txt").write_text("0.png\té未\U00020bb7\n", encoding="utf-8")


def cases() -> list[Case]:
    return [
        Case("a file with several pages", ["data", "audit", "paged.txt"]),
        Case("the same in recognize", ["recognize", "run", "pages.tif", "anim.gif"]),
        Case("12 bits in a 16-bit file", ["recognize", "run", "u12in16.png", "0.png"]),
        Case("a vertical line", ["data", "audit", "tall.txt"]),
        Case("the same with --vertical", ["data", "audit", "tall.txt", "--vertical"]),
        Case("a vertical line to read", ["recognize", "run", "tall.png", "--vertical", "0.png"]),
        Case("another --vertical for --resume", ["train", "--resume", "run", "--no-vertical"]),
        Case("a line wider than the run's limit", ["recognize", "run", "wide.png"]),
        Case("the same with --max-width", ["recognize", "run", "wide.png", "--max-width", "6000"]),
        Case("an invalid --max-width", ["evaluate", "run", "--data", "good.txt", "--max-width", "0"]),
        Case("an invalid --reread", ["evaluate", "run", "--data", "good.txt", "--reread", "2"]),
        Case("a terminal without Chinese", ["evaluate", "run", "--data", "rare.txt"], environment=ASCII),
        Case("the same with --json", ["recognize", "run", "odd", "--json"], environment=ASCII),
        Case("a GBK terminal", ["data", "audit", "rare.txt", "--charset", "digits.txt"], environment=GBK),
        Case("the C locale", ["data", "audit", "rare.txt", "--charset", "digits.txt"], environment=C_LOCALE),
        Case("a name that is not UTF-8, strict stdout", ["recognize", "run", "odd"], environment=STRICT),
        Case("the same with --json", ["recognize", "run", "odd", "--json"], environment=STRICT),
    ]
