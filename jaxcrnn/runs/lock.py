"""Locking a run folder while a process trains in it."""

from __future__ import annotations

import os
import time
from pathlib import Path

from jaxcrnn.errors import UserError


def lock(folder: Path, patience: float = 5.0) -> int:
    """Lock a run folder against other training processes until the descriptor is closed or this process ends.

    Args:
      folder: path of the run folder.
      patience: seconds to wait for the lock, because child processes of a killed run may take a moment to end.

    Returns:
      A file descriptor, or -1 if the platform or the file system has no locks.

    Raises:
      UserError: another process is training in the folder.
    """
    try:
        import fcntl
    except ImportError:
        return -1
    # The package filelock is not used: its lock file stays in the folder, and on file systems without locks it falls
    # back to a lock that can outlive a killed process.
    handle = os.open(folder, os.O_RDONLY)
    until = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return handle
        except BlockingIOError:
            if time.monotonic() > until:
                os.close(handle)
                raise UserError(
                    f"{folder}: another process is training in this folder; stop it or wait until it ends"
                ) from None
            time.sleep(0.2)
        except OSError:  # a file system without locks
            os.close(handle)
            return -1
