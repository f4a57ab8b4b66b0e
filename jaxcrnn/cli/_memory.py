"""Memory that the C library keeps instead of returning it after every step."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> bool:
    """Tell glibc to reuse freed memory: on CPU, XLA allocates its work space again for every step.

    By default glibc maps and unmaps such large blocks each time, and the page faults of doing so cost about a
    quarter of a training step (docs/speed.md). Without effect outside Linux and glibc.

    Returns:
      Whether the settings were taken.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return all([mallopt(_M_MMAP_MAX, 0), mallopt(_M_TRIM_THRESHOLD, 2**31 - 1), mallopt(_M_ARENA_MAX, 1)])
