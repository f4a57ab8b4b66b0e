"""Writes texts as licence plates of China have them: a province, the letter of a city, five letters and digits.

python scripts/plate_texts.py plates.txt texts.txt
"""

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

from jaxcrnn.charset import Charset


def line(
    rng: random.Random, provinces: Sequence[str], letters: Sequence[str], digits: Sequence[str], share: float
) -> str:
    """One text. Each of its last five characters is a letter with probability `share`."""
    rest = (rng.choice(letters if rng.random() < share else digits) for _ in range(5))
    return rng.choice(provinces) + rng.choice(letters) + "".join(rest)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("charset", type=Path, help="the characters of plates, one a line")
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--letters", type=float, default=0.5, help="share of letters among the last five (default 0.5)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    characters = Charset.from_file(args.charset).characters
    digits = [c for c in characters if c in "0123456789"]
    letters = [c for c in characters if "A" <= c <= "Z"]
    provinces = [c for c in characters if not c.isascii()]
    rng = random.Random(args.seed)
    lines = (line(rng, provinces, letters, digits, args.letters) for _ in range(args.count))
    args.out.write_text("".join(text + "\n" for text in lines), encoding="utf-8")
    print(f"{args.out}: {args.count} lines")


if __name__ == "__main__":
    main()
