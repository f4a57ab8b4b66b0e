"""Draw the lines of look-alikes that `jaxcrnn demo` reads first, in the typefaces of the embedded atlas.

python scripts/demo_lines.py jaxcrnn/resources/demo

Four lines of each rendering level, easy to hard, of random members of random groups. They are drawn once from one
seed; none is selected by how it is read.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from jaxcrnn.charset import Charset
from jaxcrnn.data.images import to_png
from jaxcrnn.render.config import LEVELS
from jaxcrnn.render.streams import RenderedLines
from jaxcrnn.render.texts import TextConfig
from jaxcrnn.runs import datasets
from jaxcrnn.runs.config import Config

COUNT, SEED = 4, 26
TEXT = TextConfig(share=1.0, source="lookalikes", bias=1.0, shortest=4, longest=5, pitch=0.8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    charset, rows = Charset.from_file(out.parent / "demo.txt"), []
    for seed, level in enumerate(("easy", "medium", "hard"), start=SEED):
        config = replace(Config(), text=TEXT)
        lines = RenderedLines(*datasets.writing(config, charset, seed), LEVELS[level], COUNT, seed)
        for i in range(COUNT):
            gray, text = lines[i]
            name = f"{level}-{i + 1}.png"
            (out / name).write_bytes(to_png(gray))
            rows.append(f"{name}\t{text}\n")
    (out / "labels.txt").write_text("".join(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
