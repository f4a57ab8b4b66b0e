"""Splits a label file in two by a hash of the text: equal texts stay together, and the split never changes.

python scripts/split_labels.py labels.txt --fraction 0.2 --train train.txt --held-out test.txt

Where the parts lie outside the images' folder, training with them takes data.allow_outside=true.
"""

import argparse
import hashlib
import os
from pathlib import Path

from jaxcrnn.data.images import Limits
from jaxcrnn.data.labels import LabelFile


def share(text: str, salt: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(f"{salt}{text}".encode()).digest()[:8]) / 2**64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--fraction", type=float, default=0.2, help="share of the lines held out, about")
    parser.add_argument("--salt", default="", help="another salt gives another split")
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--held-out", type=Path, required=True)
    args = parser.parse_args()
    source = LabelFile(args.labels, Limits(outside=True))  # names are copied, no image is opened
    for fault in source.faults:
        print(f"dropped: {fault.where}: {fault.kind}: {fault.detail}")
    parts: dict[bool, list[str]] = {True: [], False: []}
    for i in range(len(source)):
        held = share(source.text(i), args.salt) < args.fraction
        target = args.held_out if held else args.train
        path = os.path.relpath(args.labels.parent / source.name(i), target.parent)
        parts[held].append(f"{path}\t{source.text(i)}\n")
    for path, rows in ((args.train, parts[False]), (args.held_out, parts[True])):
        path.write_text("".join(rows), encoding="utf-8")
        print(f"{path}: {len(rows)} lines")


if __name__ == "__main__":
    main()
