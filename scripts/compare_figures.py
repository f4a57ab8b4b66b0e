"""List every number of the pages of an earlier revision and the line where each one is now.

    python scripts/compare_figures.py REVISION [--missing]

Numbers are compared as a multiset for each page: a number that the old page has three times must occur three times on
the page of the same name, or the remaining ones are searched on the other pages. A number that is on no page any more
is listed as missing, with the old line as its context, and the exit code is 1. Generated pages (docs/api.md) are not
compared, because they repeat what the code says.
"""

import argparse
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
GENERATED = {"docs/api.md"}
# Digits with separators of thousands, decimals and exponents: 6,941  0.64  1.1e-11; not the digits within a name (v5e).
NUMBER = re.compile(r"(?<![\w.])\d+(?:,\d{3})*(?:\.\d+)?(?:[eE][-+]?\d+)?")

Places = dict[str, list[tuple[str, int]]]


def numbers(line: str) -> list[str]:
    return [match.replace(",", "") for match in NUMBER.findall(line)]


def places(pages: dict[str, str]) -> Places:
    """Every occurrence of each number, in reading order."""
    result: Places = defaultdict(list)
    for page, text in pages.items():
        for index, line in enumerate(text.splitlines(), 1):
            for number in numbers(line):
                result[number].append((page, index))
    return result


def old_pages(revision: str) -> dict[str, str]:
    listed = git("ls-tree", "-r", "--name-only", revision, "README.md", "CHANGELOG.md", "docs").splitlines()
    return {
        page: git("show", f"{revision}:{page}") for page in listed if page.endswith(".md") and page not in GENERATED
    }


def current_pages() -> dict[str, str]:
    paths = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def git(*command: str) -> str:
    return subprocess.run(["git", "-C", str(ROOT), *command], check=True, capture_output=True, text=True).stdout


def match(old: Places, new: Places) -> list[tuple[str, int, str, tuple[str, int] | None]]:
    """Pair each old occurrence with a new one: of the same page first, then of any page; each new one is used once."""
    rows = []
    for number, occurrences in old.items():
        free = list(new.get(number, []))
        unmatched = []
        for page, index in occurrences:
            same = next((place for place in free if place[0] == page), None)
            if same is None:
                unmatched.append((page, index))
                continue
            free.remove(same)
            rows.append((page, index, number, same))
        for page, index in unmatched:
            rows.append((page, index, number, free.pop(0) if free else None))
    return sorted(rows, key=lambda row: row[:2])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revision", help="commit whose pages are compared with the working tree")
    parser.add_argument("--missing", action="store_true", help="list only the numbers that are on no page any more")
    arguments = parser.parse_args()
    old = old_pages(arguments.revision)
    rows = match(places(old), places(current_pages()))
    for page, index, number, now in rows:
        if now is None:
            print(f"{page}:{index}\t{number}\tmissing\t{old[page].splitlines()[index - 1].strip()[:160]}")
        elif not arguments.missing:
            print(f"{page}:{index}\t{number}\t{now[0]}:{now[1]}")
    missing = sum(now is None for *_, now in rows)
    moved = sum(now is not None and now[0] != page for page, _, _, now in rows)
    print(
        f"{len(rows)} numbers on {len(old)} pages: {len(rows) - missing - moved} on the same page, "
        f"{moved} on another, {missing} missing",
        file=sys.stderr,
    )
    return missing > 0


if __name__ == "__main__":
    sys.exit(main())
