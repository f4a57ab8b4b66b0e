"""Train on a data source of your own: here, a zip archive of images named after their texts.

python scripts/examples/custom_reader.py FOLDER [KEY=VALUE ...]
"""

import sys
import zipfile
from pathlib import Path

from train_on_your_lines import SMALL, label_file

from jaxcrnn.charset import Charset
from jaxcrnn.data.images import Limits, read_gray
from jaxcrnn.runs import config, start


class ZipLines:
    """A data source (`jaxcrnn.data.source.Source`): any class with these seven members."""

    def __init__(self, path):
        self.path, self.archive = path, zipfile.ZipFile(path)
        self.names = sorted(self.archive.namelist())
        self.faults = []  # rows that cannot be read at all (jaxcrnn.data.source.Fault); training reports them

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):  # a gray uint8 image [h, w] and its text; read_gray raises for damaged images
        return read_gray(self.archive.read(self.names[index]), Limits(), self.where(index)), self.text(index)

    def text(self, index):  # without reading the image: "4271_3.png" is the third image of "4271"
        return Path(self.names[index]).stem.partition("_")[0]

    def name(self, index):  # in predictions
        return self.names[index]

    def where(self, index):  # in messages
        return f"{self.path}: {self.names[index]}"

    def identity(self, index):  # equal for equal images: duplicates are reported
        return self.archive.getinfo(self.names[index]).CRC


def archive(folder, name, count, seed):
    """Draw lines into an archive."""
    (folder / name).mkdir(parents=True)
    rows = Path(label_file(folder / name, name, count, seed)).read_text(encoding="utf-8").splitlines()
    with zipfile.ZipFile(folder / f"{name}.zip", "w") as made:
        for i, (file, text) in enumerate(row.split("\t") for row in rows):
            made.write(folder / name / file, f"{text}_{i}.png")
    return ZipLines(folder / f"{name}.zip")


if __name__ == "__main__":
    folder, *settings = sys.argv[1:]
    train, val = archive(Path(folder), "train", 400, seed=0), archive(Path(folder), "val", 50, seed=1)
    print(f"{len(train)} lines; the first is {train.name(0)}, {train[0][0].shape} pixels: {train.text(0)}")
    charset = Charset.from_labels([train.text(i) for i in range(len(train))], "first")
    start.begin(config.load(overrides=[*SMALL, *settings]), charset, train, val, Path(folder) / "run", {})
