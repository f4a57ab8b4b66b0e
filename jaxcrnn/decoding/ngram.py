"""Character n-gram models: estimation, and reading and writing the ARPA format."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from jaxcrnn._files import written_whole
from jaxcrnn._text import read_text
from jaxcrnn.errors import UserError

BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"
MAX_ORDER = 8
NEVER = -99.0  # log10 that ARPA files give for a probability of 0
_TEN = math.log(10)
_OLD = b"jaxcrnn ngrams 1"  # in the header of files of version 0.1
_EXPECTED = "expected n-grams in the ARPA format, as written by 'jaxcrnn lm train'"
_COUNT, _SECTION = re.compile(r"ngram ([1-9]\d?)=(\d{1,12})"), re.compile(r"\\([1-9]\d?)-grams:")
_ESCAPED = re.compile(r"<U\+([0-9A-F]{4,6})>")

Gram = tuple[str, ...]


class NGrams(NamedTuple):
    """Back-off character model: ``p(c | h) = exp(log_p[h + c])`` if listed, else ``exp(backoff[h]) p(c | h[1:])``.

    Attributes:
      order: maximum length n of an n-gram.
      log_p: natural log of the probability of the last character of an n-gram given the others. ``<s>`` begins a line,
        ``</s>`` ends it, and ``<unk>`` stands for any character that is not in the model.
      backoff: natural log of the back-off weight of an n-gram; 0 if not listed.
    """

    order: int
    log_p: dict[Gram, float]
    backoff: dict[Gram, float]

    @property
    def characters(self) -> str:
        """All characters of the model."""
        return "".join(sorted(gram[0] for gram in self.log_p if len(gram) == len(gram[0]) == 1))


def train(lines: Iterable[str], order: int) -> NGrams:
    """Estimate n-grams with interpolated Kneser-Ney smoothing (Chen and Goodman, 1999, eq. 28).

    For every context, the probabilities of the characters, ``</s>`` and ``<unk>`` sum to 1.

    Args:
      lines: lines of text without line ends; empty lines are skipped.
      order: maximum length n, at least 1.

    Raises:
      UserError: all lines are empty.
    """
    kept = [line for line in lines if line]
    if not kept:
        raise UserError("all lines are empty; expected plain text")
    grams: list[dict[Gram, int]] = [{} for _ in range(order)]
    for line in kept:
        row = (BEGIN, *line, END)
        for end in range(1, len(row)):
            for n in range(1, min(order, end + 1) + 1):
                gram = row[end - n + 1 : end + 1]
                grams[n - 1][gram] = grams[n - 1].get(gram, 0) + 1
    for n in range(order - 1):  # lower orders count distinct preceding characters instead of occurrences
        fewer: dict[Gram, int] = {}
        for gram in grams[n + 1]:
            fewer[gram[1:]] = fewer.get(gram[1:], 0) + 1
        grams[n] = {gram: count if gram[0] == BEGIN else fewer[gram] for gram, count in grams[n].items()}
    return _smoothed(grams, len(set().union(*kept)) + 2)


def _smoothed(grams: Sequence[dict[Gram, int]], vocabulary: int) -> NGrams:
    p: dict[Gram, float] = {}
    left: dict[Gram, float] = {}
    for counts in grams:
        once, twice = (sum(count == k for count in counts.values()) for k in (1, 2))
        discount = once / (once + 2 * twice) if once and twice else 0.5
        totals: dict[Gram, list[int]] = {}
        for gram, count in counts.items():
            total = totals.setdefault(gram[:-1], [0, 0])
            total[0], total[1] = total[0] + count, total[1] + 1
        for context, (total_count, kinds) in totals.items():
            left[context] = discount * kinds / total_count
        for gram, count in counts.items():
            lower = p[gram[1:]] if len(gram) > 1 else 1.0 / vocabulary
            p[gram] = max(count - discount, 0.0) / totals[gram[:-1]][0] + left[gram[:-1]] * lower
    p[(UNKNOWN,)] = left.pop(()) / vocabulary
    log_p = {gram: math.log(each) for gram, each in p.items()} | {(BEGIN,): NEVER * _TEN}
    return NGrams(len(grams), log_p, {gram: math.log(each) for gram, each in left.items()})


def save_ngrams(path: Path, model: NGrams) -> None:
    """Write n-grams in the ARPA format, with a space as ``<space>``.

    Raises:
      UserError: the file cannot be written.
    """
    orders = [sorted(gram for gram in model.log_p if len(gram) == n + 1) for n in range(model.order)]
    with written_whole(path) as part, part.open("w", encoding="utf-8", newline="\n") as file:
        file.write("\\data\\\n" + "".join(f"ngram {n}={len(grams)}\n" for n, grams in enumerate(orders, start=1)))
        for n, grams in enumerate(orders, start=1):
            file.write(f"\n\\{n}-grams:\n")
            for gram in grams:
                weight = f"\t{model.backoff[gram] / _TEN:.7g}" if gram in model.backoff else ""
                file.write(f"{model.log_p[gram] / _TEN:.7g}\t{' '.join(map(_spelled, gram))}{weight}\n")
        file.write("\n\\end\\\n")


def _spelled(token: str) -> str:
    """Escape whitespace, which separates tokens, and unprintable characters."""
    if token == " ":
        return "<space>"
    return token if token.isprintable() and not token.isspace() else f"<U+{ord(token):04X}>"


def _token(text: str) -> str:
    if len(text) == 1 or text in (BEGIN, END, UNKNOWN):
        return text
    if text == "<space>":
        return " "
    if (code := _ESCAPED.fullmatch(text)) and int(code[1], 16) <= 0x10FFFF:
        return chr(int(code[1], 16))
    raise ValueError(f"{text[:40]!r} is not a single character; expected character n-grams, with a space as <space>")


def load_ngrams(path: Path) -> NGrams:
    """Read character n-grams in the ARPA format.

    Raises:
      UserError: the file is missing or invalid (naming the line).
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; {_EXPECTED}")
    with path.open("rb") as file:
        if _OLD in file.read(1 << 20):
            raise UserError(f"{path}: n-grams in the format of version 0.1; retrain with 'jaxcrnn lm train'")
    counts: dict[int, int] = {}
    orders: dict[int, int] = {}
    model = NGrams(0, {}, {})
    for number, n, line in _sections(path):
        try:
            if n:
                _entry(model, n, line)
                orders[n] = orders.get(n, 0) + 1
            elif (count := _COUNT.fullmatch(line)) and int(count[1]) == len(counts) + 1 <= MAX_ORDER:
                counts[int(count[1])] = int(count[2])
            else:
                raise ValueError(f"{line[:40]!r}; expected 'ngram {len(counts) + 1}=COUNT', at most {MAX_ORDER} orders")
        except ValueError as error:
            raise UserError(f"{path}, line {number}: {error}") from None
    for n in {*counts, *orders}:
        if counts.get(n) != orders.get(n, 0):
            raise UserError(
                f"{path}: {orders.get(n, 0)} n-grams of order {n}, but 'ngram {n}={counts.get(n, 0)}'; "
                "is the file truncated?"
            )
    if not model.log_p:
        raise UserError(f"{path}: no n-grams; {_EXPECTED}")
    return model._replace(order=max(orders))


def _sections(path: Path) -> Iterator[tuple[int, int, str]]:
    """Yield the lines between ``\\data\\`` and ``\\end\\``: number, order of the section (0 for the first), text."""
    section = -1
    for number, text in enumerate(read_text(path).split("\n"), start=1):
        line = text.strip(" \t\r")
        if section < 0:  # comments may precede
            section = 0 if line == "\\data\\" else -1
        elif line == "\\end\\":
            return
        elif heading := _SECTION.fullmatch(line):
            if int(heading[1]) != section + 1:
                raise UserError(f"{path}, line {number}: {line}; expected \\{section + 1}-grams: or \\end\\")
            section += 1
        elif line:
            yield number, section, line
    what = "\\data\\" if section < 0 else "\\end\\"
    raise UserError(f"{path}: no line {what}; {_EXPECTED}" + ("" if section < 0 else "; is the file truncated?"))


def _entry(model: NGrams, n: int, line: str) -> None:
    """Parse one n-gram: log10 of its probability, its tokens, and optionally log10 of its back-off weight."""
    fields = [field for field in re.split("[ \t]", line) if field]
    if len(fields) not in (n + 1, n + 2):
        raise ValueError(f"{line[:40]!r}; expected a log probability, {n} tokens and an optional back-off weight")
    gram = tuple(map(_token, fields[1 : n + 1]))
    if gram in model.log_p:
        raise ValueError(f"duplicate n-gram {line[:40]!r}")
    numbers = [float(field) for field in (fields[0], *fields[n + 1 :])]
    if not (-1e3 < numbers[0] <= 0) or not all(abs(number) < 1e3 for number in numbers):
        raise ValueError(f"{line[:40]!r}: expected log10 of a probability, and a finite back-off weight")
    model.log_p[gram] = numbers[0] * _TEN
    if numbers[1:] and numbers[1]:
        model.backoff[gram] = numbers[1] * _TEN
