"""Console output: encodings, progress (a live line on a terminal, plain lines elsewhere), durations and tables."""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

# Box style of rich with only a line of dashes under the header.
_LINES = ("    ", "    ", " -  ", "    ", "    ", "    ", "    ", "    ")
_WIDEST = 1_000_000  # console width for tables, so that rows never wrap


def print_anything() -> None:
    """Escape what stdout and stderr cannot encode, as in ``\\u672a``, so that printing never fails.

    A terminal may lack a character, and a file name may not be valid UTF-8. Called once, at the start of a command.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not a stream that a notebook or a test put there
            stream.reconfigure(errors="backslashreplace")


def notice(text: str) -> None:
    """Print a line to stderr about something that is not an error."""
    print(text, file=sys.stderr)


def to_json(value: Any, indent: int | None = None) -> str:
    """Format a value as JSON, in ASCII if stdout cannot encode all of its characters."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(value, indent=indent)
    return text


class Plain:
    """Plain progress lines for logs and pipes.

    Args:
      every: minimum seconds between two progress lines.
    """

    def __init__(self, every: float = 10.0) -> None:
        self.every = every
        self._last = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        return None

    def line(self, text: str) -> None:
        """Print a permanent line."""
        print(text, flush=True)

    def progress(self, done: int, total: int, text: str) -> None:
        """Report progress; printed only if the last line is old enough, and at the end."""
        if time.monotonic() - self._last >= self.every or done == total:
            self._last = time.monotonic()
            self.line(f"{done}/{total}  {text}")


class Live(Plain):
    """Progress line at the bottom of a terminal, updated in place."""

    def __init__(self) -> None:
        super().__init__(0.0)
        from rich.progress import BarColumn, Progress, TextColumn

        self._bar: Any = Progress(
            TextColumn("{task.completed:.0f}/{task.total:.0f}"), BarColumn(None), TextColumn("{task.description}")
        )
        self._task: Any = None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.stop()

    def line(self, text: str) -> None:
        self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def progress(self, done: int, total: int, text: str) -> None:
        if self._task is None:
            self._bar.start()
            self._task = self._bar.add_task(text, total=total)
        self._bar.update(self._task, completed=done, total=total, description=text)


def make() -> Plain:
    """Create a `Live` console on a terminal, else a `Plain` one."""
    return Live() if sys.stdout.isatty() else Plain()


def duration(seconds: float) -> str:
    """Format a number of seconds.

    >>> duration(9.4), duration(125), duration(7300)
    ('9s', '2m05s', '2h01m')
    """
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Format a plain-text table, one row per line at any terminal width; numeric columns are right-aligned."""
    from rich.box import Box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    made = Table(box=Box("\n".join(_LINES), ascii=True), show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for i, name in enumerate(header):
        right = all(isinstance(row[i], int | float) or _number(row[i]) for row in rows)
        made.add_column(Text(name), justify="right" if right else "left", no_wrap=True)
    for row in rows:
        made.add_row(*(Text(str(cell)) for cell in row))
    out = io.StringIO()
    console = Console(file=out, width=_WIDEST, color_system=None, force_terminal=False, legacy_windows=False)
    console.print(made)
    return "\n".join(line.rstrip() for line in out.getvalue().rstrip("\n").split("\n"))


def _number(cell: object) -> bool:
    return isinstance(cell, str) and cell.strip("%-").replace(".", "", 1).replace(",", "").isdigit()
