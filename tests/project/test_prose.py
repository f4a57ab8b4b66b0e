"""Check README, documentation, help, messages and docstrings for phrases that the contributor's guide replaces."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Each pattern with the words to use instead.
REPLACED = {
    r"\banew\b": "again; restart",
    r"\b(?:go|goes|going|gone|went) on (?:with|from)\b": "continue; resume",
    r"\bstands? already\b": "duplicate; already listed",
    r"(?<!there )\bis no (?:key|array|number|file|folder|image|character|run|font|place)\b": "is not a ...; unknown",
    r"\bthat (?:is|are) none\b": "that is not a ...",
    r"\bis said\b|\bis told\b": "is reported",
    r"\bmend(?:s|ed|ing)?\b": "fix",
    r"\bin turns\b": "interleaved; alternately",
    r"\b[Bb]esides\b": "unexpected; in addition",
    r"\b(?:left|leave|leaves) out\b": "drop; skip; exclude",
    r"\b(?:passed|passes) over\b": "skip",
    r"\bput aside\b": "quarantine",
    r"\bas long as no\b": "unless",
    r"\btaken as they are\b": "used without verification",
    r"\blooks? away\b": "ignore",
    r"\bis there already\b": "already exists",
}
# Tables of words to avoid beside the words to use.
EXEMPT = {"docs/messages.md", ".github/CONTRIBUTING.md"}
PAGES = """
    *.md docs/**/*.md .github/**/*.md jaxcrnn/**/*.md jaxcrnn/**/*.j2 jaxcrnn/**/*.py torch_ref/*.py scripts/**/*.py
""".split()


def pages():
    for pattern in PAGES:
        yield from sorted(ROOT.glob(pattern))


@pytest.mark.parametrize("pattern", REPLACED)
def test_prose_avoids_listed_phrases(pattern):
    matches = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in pages()
        if str(path.relative_to(ROOT)) not in EXEMPT
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(pattern, line)
    ]
    assert not matches, f"write {REPLACED[pattern]!r} instead:\n" + "\n".join(matches)


def test_patterns_match_their_examples():
    examples = [
        "started anew",
        "goes on with it",
        "'a' stands already at line 1",
        "it is no key of optim",
        "a font that is none",
        "a failure is said",
        "mended",
        "timed in turns",
        "it has besides",
        "rows are left out",
        "was passed over",
        "put aside",
        "as long as no option",
        "taken as they are",
        "looks away",
        "out is there already",
    ]
    assert all(any(re.search(pattern, example) for example in examples) for pattern in REPLACED)
    assert all(any(re.search(pattern, example) for pattern in REPLACED) for example in examples)
