"""Writes texts as forms have them: amounts, dates, long numbers, and random characters of a charset.

python scripts/form_texts.py charset.txt texts.txt
"""

import argparse
import random
from pathlib import Path

from jaxcrnn.charset import Charset


def line(rng: random.Random, characters: str) -> str:
    """One text; a character that the charset lacks parts it in two when it is read."""
    year, month, day = rng.randint(1998, 2030), rng.randint(1, 12), rng.randint(1, 28)
    amount = rng.choice((rng.uniform(0, 100), rng.uniform(100, 1e6)))
    kinds = (
        lambda: f"{amount:,.2f}",
        lambda: f"{amount:.{rng.randint(0, 6)}f}",
        lambda: rng.choice(
            ("{0}-{1:02d}-{2:02d}", "{0}/{1}/{2}", "{0}{1:02d}{2:02d}", "{0}年{1:02d}月{2:02d}日")
        ).format(year, month, day),
        lambda: "".join(rng.choices("0123456789", k=rng.randint(1, 18))),
    )
    words = "".join(rng.choices(characters, k=rng.randint(1, 16)))
    kind = rng.random()
    if kind < 0.35:
        return rng.choice(kinds)()
    if kind < 0.45:
        return words[:6] + rng.choice(":：") + rng.choice(kinds)()
    return words


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("charset", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    characters = "".join(Charset.from_file(args.charset).characters)
    args.out.write_text("".join(line(rng, characters) + "\n" for _ in range(args.count)), encoding="utf-8")
    print(f"{args.out}: {args.count} lines")


if __name__ == "__main__":
    main()
