"""Settings of the C library's allocator that make training steps faster on CPUs."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> bool:
    """Make glibc keep freed memory, because XLA on CPU reallocates its scratch buffers in every step.

    By default glibc maps and unmaps such large blocks each time, and the resulting page faults cost about a quarter
    of a training step (docs/speed.md). Does nothing outside Linux and glibc.

    Returns:
      Whether glibc accepted the settings.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return all([mallopt(_M_MMAP_MAX, 0), mallopt(_M_TRIM_THRESHOLD, 2**31 - 1), mallopt(_M_ARENA_MAX, 1)])
