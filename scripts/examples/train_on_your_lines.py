"""Train a recogniser on your own lines: a folder of images and a label file, which this example draws first.

python scripts/examples/train_on_your_lines.py FOLDER [KEY=VALUE ...]
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jaxcrnn.cli.main import main

# A small model for lines of a few digits; for real lines, drop these and set optim.steps only.
SMALL = """
    model.backbone=tiny model.hidden=48 optim.steps=240 optim.warmup=20 optim.learning_rate=0.005
    data.batch_size=16 data.buckets=1 augment.probability=0 run.eval_every=120 run.log_every=60
""".split()


def draw(text, file, rng):
    """Write an image of a text, in a size and with noise of its own."""
    font = ImageFont.load_default(int(rng.integers(20, 36)))
    left, top, right, bottom = (int(edge) for edge in font.getbbox(text))
    image = Image.new("L", (right - left + 8, bottom - top + 8), 255)
    ImageDraw.Draw(image).text((4 - left, 4 - top), text, font=font, fill=0)
    noise = rng.normal(0, 20, (image.height, image.width))
    Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)).save(file)


def label_file(folder, name, count, seed):
    """Draw lines, and write their label file: one path<TAB>text row per image, paths relative to the file."""
    rng, rows = np.random.default_rng(seed), []
    for i in range(count):
        text = "".join(rng.choice(list("0123456789"), rng.integers(2, 5)))
        draw(text, folder / f"{name}-{i}.png", rng)
        rows.append(f"{name}-{i}.png\t{text}\n")
    (folder / f"{name}.txt").write_text("".join(rows), encoding="utf-8")
    return str(folder / f"{name}.txt")


def command(*words):
    """Run a command of jaxcrnn; `jaxcrnn train ...` in a shell does the same."""
    print("\n$ jaxcrnn", *words)
    if code := main([str(word) for word in words]):
        sys.exit(code)


if __name__ == "__main__":
    folder, *settings = sys.argv[1:]
    lines, run = Path(folder) / "lines", Path(folder) / "run"
    lines.mkdir(parents=True)
    train, val = label_file(lines, "train", 400, seed=0), label_file(lines, "val", 50, seed=1)
    command("data", "audit", train)  # what cannot be used, and why
    command("train", "--data", train, "--val", val, "--out", run, "--set", *SMALL, *settings)
    command("evaluate", run)  # the validation set, with the best checkpoint
    command("recognize", run, lines / "val-0.png", lines / "val-1.png")
    print("\nTheir labels:", *(row.split("\t")[1] for row in Path(val).read_text().splitlines()[:2]))
