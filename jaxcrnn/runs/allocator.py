"""Memory that the C library keeps after a compilation."""

from __future__ import annotations

import ctypes
import sys


def give_back() -> bool:
    """Gives freed memory back after all, once: what a compilation has used, which no step needs again.

    Returns:
      Whether some was given back; never outside Linux and glibc.
    """
    if sys.platform != "linux":
        return False
    try:
        return bool(ctypes.CDLL(None).malloc_trim(0))
    except (OSError, AttributeError):
        return False
