"""Running out of memory, on a device or on the host, as a user error that names what to lower."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from jaxcrnn._text import first_line
from jaxcrnn.errors import UserError

# XLA on every platform, CUDA, C++'s std::bad_alloc, and the limit on threads, whose stacks need memory too.
_SIGNS = re.compile(
    r"RESOURCE_EXHAUSTED|out of memory|OUT_OF_MEMORY|bad_alloc|failed to allocate|cannot allocate memory"
    r"|can't start new thread",
    re.IGNORECASE,
)
_BYTES = re.compile(r"(?:allocate|allocating) (\d+) ?(?:bytes|B)")
_NUMPY = re.compile(r"Unable to allocate ([\d.]+ \w+) for an array")


class OutOfMemory(UserError):
    """Memory ran out, on a device or on the host."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception means that memory ran out.

    >>> is_out_of_memory(MemoryError()), is_out_of_memory(RuntimeError("RESOURCE_EXHAUSTED: Out of memory"))
    (True, True)
    >>> is_out_of_memory(ValueError("out of range"))
    False
    """
    if isinstance(error, UserError):
        return isinstance(error, OutOfMemory)
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and bool(_SIGNS.search(str(error))))


def reason(error: BaseException) -> str:
    """Describe what could not be allocated, without the status code that XLA's messages begin with."""
    if match := _BYTES.search(str(error)):
        return f"could not allocate {size(int(match[1]))}"
    if match := _NUMPY.search(str(error)):
        return f"could not allocate {match[1]}"
    text = first_line(error).removeprefix("RESOURCE_EXHAUSTED:").strip(" .")
    return "an allocation failed" if text == type(error).__name__ else text[:200]


def size(count: int) -> str:
    """Format a number of bytes.

    >>> size(11_834_361_488), size(700_000)
    ('11.0 GiB', '0.7 MiB')
    """
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


@contextmanager
def explained(describe: Callable[[], tuple[str, str]]) -> Iterator[None]:
    """Turn an exception that means that memory ran out into `OutOfMemory`.

    Args:
      describe: called for a description of the work, such as ``"a step on 32 lines of width 320"``, and for what to
        lower.

    Raises:
      OutOfMemory: memory ran out in the context.
    """
    try:
        yield
    except OutOfMemory:
        raise
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        what, advice = describe()
        raise OutOfMemory(f"not enough memory for {what}: {reason(error)}; {advice}") from error


def limit() -> int | None:
    """Return the most bytes that this process can use: the memory and swap of the machine, or a lower limit."""
    limits = []
    with suppress(OSError, ValueError, AttributeError):
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") + _swap())
    with suppress(ImportError, OSError, ValueError):
        import resource

        limits.append(resource.getrlimit(resource.RLIMIT_AS)[0])  # -1: no limit
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # "max": no limit
            limits.append(int(Path(file).read_text(encoding="ascii")))
    return min((count for count in limits if count > 0), default=None)


def _swap() -> int:
    with suppress(OSError, ValueError):
        match = re.search(r"SwapTotal:\s*(\d+) kB", Path("/proc/meminfo").read_text(encoding="ascii"))
        return int(match[1]) << 10 if match else 0
    return 0
