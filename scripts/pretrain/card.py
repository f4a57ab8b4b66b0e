"""Writes the model card of a trained recogniser, with its data, scores, limits and the licences of its typefaces.

python scripts/pretrain/card.py OUT PACKAGES    # OUT: the folder of train.py; PACKAGES: the folder of scripts/fetch.py

Reads OUT/about.json, OUT/data and OUT/scores.json (of `evaluate.py --json`). Writes README.md, lookalikes.txt and
licences/, copies of the copyright files of the packages, to OUT/recognizer.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

from jaxcrnn.charset import Charset

sys.path.append(str(Path(__file__).parents[1]))
from fetch import copyright_file, licence, packages, typefaces

COLUMNS = ("characters right", "lines right", "look-alikes substituted", "digits", "Latin", "punctuation", "Han")
CARD = """---
library_name: jaxcrnn
pipeline_tag: image-to-text
language:
- zh
- en
tags:
- ocr
- text-recognition
- crnn
- jax
---

# Pretrained recogniser of printed Simplified Chinese

A CRNN (convolutions and two bidirectional LSTMs, trained with CTC) that reads one line of printed text from an image.

| | |
|---|---|
| characters | {characters:,} |
| parameters | {parameters:.1f} million, stored in half precision, computed in float32 |
| images | gray, scaled to {height} pixels high, any width |
| initial weights | {init} |
| training | {steps:,} steps, {lines:,} lines rendered in {fonts} typefaces, {minutes:.1f} minutes on {device} |

```python
import jaxcrnn

reader = jaxcrnn.load("this folder")
print(reader.recognize(["line.png"])[0].text)
```

## Scores

95 % intervals over lines.
Rendered lines are set in typefaces that the recogniser was not trained on; in the kinds, a character that was put in
counts against its own kind.
Lines that are less confident than `reread` in `config.json` are read again, 15 % narrower and 20 % wider; the most
confident reading is scored.

{scores}

## Limits

Single horizontal lines of printed text, not handwriting, in the characters of `charset.txt`.
The texts are simplified Chinese and Latin; the scores say nothing about other languages.
Expect most errors in text condensed to less than a third of its width, under stamps and in single digits.

## Data

Every line was rendered; no scan or photo was used.
`lookalikes.txt` lists the groups of look-alike characters that texts were drawn from.
No typeface or text is distributed with the weights; `licences` has the copyright files of the packages.

| package | used | licence |
|---|---|---|
{licences}
"""


def scores_table(results: dict[str, Any]) -> str:
    columns = [column for column in COLUMNS if any(column in result["scores"] for result in results.values())]
    rows = [f"| lines | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name, result in results.items():
        cells = []
        for column in columns:
            value, low, high = next(iter(result["scores"].get(column, {"": (None, None, None)}).values()))
            cells.append("" if value is None else f"{100 * value:.2f} % ({100 * low:.2f} to {100 * high:.2f})")
        rows.append(f"| {name} ({result['lines']}, {result['characters']} characters) | {' | '.join(cells)} |")
    return "\n".join(rows)


def licences(folder: Path, used: list[str], out: Path) -> list[str]:
    """Rows of the table of packages; copies their copyright files to ``out``."""
    out.mkdir(exist_ok=True)
    rows = []
    for name, entry in packages("training").items():
        names = [face.name for face in typefaces("training") if face.package == name and face.name in used]
        if not (folder / name).exists() or not (names or "files" not in entry):
            continue
        shutil.copyfile(copyright_file(folder, name), out / f"{name}.txt")
        rows.append(f"| {name} | {', '.join(names) or 'texts'} | {licence(folder, 'training', name)} |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of train.py")
    parser.add_argument("packages", type=Path, help="folder of packages")
    args = parser.parse_args()
    recognizer = args.out / "recognizer"
    about = json.loads((args.out / "about.json").read_text(encoding="utf-8"))
    with np.load(args.out / "data" / "atlas.npz") as file:
        used = [str(name) for name in file["fonts"]]
    scores = args.out / "scores.json"
    card = CARD.format(
        characters=len(Charset.from_file(recognizer / "charset.txt")),
        parameters=(recognizer / "model.safetensors").stat().st_size / 2e6,
        height=json.loads((recognizer / "config.json").read_text(encoding="utf-8"))["model"]["height"],
        init=Path(about["arguments"]["init"] or "random").name,
        steps=about["steps"],
        lines=about["lines"],
        fonts=len(used),
        minutes=about["seconds"] / 60,
        device=about["device"],
        scores=scores_table(json.loads(scores.read_text(encoding="utf-8"))) if scores.exists() else "Not evaluated.",
        licences="\n".join(licences(args.packages, used, recognizer / "licences")),
    )
    shutil.copyfile(args.out / "data" / "groups.txt", recognizer / "lookalikes.txt")
    (recognizer / "README.md").write_text(card, encoding="utf-8")
    print(f"{recognizer / 'README.md'}: {len(used)} typefaces, licences in {recognizer / 'licences'}")


if __name__ == "__main__":
    main()
