"""Multi-process training: joining processes, agreement on values, and work done by process 0 only."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np

from jaxcrnn._text import first_line
from jaxcrnn.errors import UserError

T = TypeVar("T")


def join(coordinator: str | None = None, process_count: int | None = None, process_index: int | None = None) -> None:
    """Join the other processes, before any computation; afterwards only process 0 prints.

    Pass all three arguments, or none under SLURM, Open MPI, Kubernetes or on Cloud TPU, which supply them.

    Args:
      coordinator: ``"HOST:PORT"`` on which process 0 listens.
      process_count: number of processes.
      process_index: index of this process, from 0.

    Raises:
      UserError: the arguments are invalid, or the other processes could not be reached.
    """
    if coordinator is None and process_count is None and process_index is None:
        expected = "SLURM, Open MPI, Kubernetes or Cloud TPU, or --coordinator, --process-count and --process-index"
    elif coordinator is None or process_count is None or process_index is None:
        raise UserError(
            "--coordinator, --process-count and --process-index must be given together, or not at all "
            "under SLURM, Open MPI, Kubernetes or on Cloud TPU"
        )
    else:
        expected = "all processes to be running"
        host, _, port = coordinator.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
            raise UserError(f"--coordinator {coordinator}: expected HOST:PORT, a port from 1 to 65535")
        if not 0 <= process_index < process_count:
            raise UserError(
                f"--process-index {process_index} of --process-count {process_count}: expected 0 to {process_count - 1}"
            )
        print(
            f"process {process_index} of {process_count}: waiting for peers at {coordinator} (timeout 5 min)",
            file=sys.stderr,
        )
        can_meet(host.strip("[]"), int(port), first=process_index == 0)
    try:
        jax.distributed.initialize(coordinator, process_count, process_index)
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"--distributed: could not connect the processes ({first_line(error)[:200]}); expected {expected}"
        ) from None
    if jax.process_index():
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # libraries in C++ write there too


def can_meet(host: str, port: int, *, first: bool, patience: float = 300.0) -> None:
    """Check that process 0 can listen, or that it can be reached; otherwise jax would abort with a stack trace.

    Args:
      host: host of process 0.
      port: port on which it listens.
      first: whether this is process 0; other processes wait until it listens.
      patience: timeout in seconds.

    Raises:
      UserError: the port is in use, or process 0 cannot be reached.
    """
    if first:
        with socket.socket() as listening:
            # As jax's own socket does, to allow a port that was in use a moment ago.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listening.bind(("", port))
            except OSError as error:
                raise UserError(
                    f"--coordinator {host}:{port}: {error.strerror}; expected a free port on this host"
                ) from None
        return
    until = time.monotonic() + patience
    while True:
        try:
            socket.create_connection((host, port), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > until:
                raise UserError(
                    f"--coordinator {host}:{port}: {error.strerror or first_line(error)}; expected the "
                    "first process (--process-index 0) to listen there"
                ) from None
            time.sleep(0.5)


def leave(code: int, patience: float = 10.0) -> None:
    """Exit at once after an error, if this is one of several processes.

    The regular shutdown of jax would wait five minutes for processes that wait for this one in the middle of a step.
    Processes with the same error exit together.

    Args:
      code: exit code.
      patience: seconds to wait for the other processes.
    """
    if not jax.distributed.is_initialized() or jax.process_count() == 1:
        return
    ending = threading.Thread(target=jax.distributed.shutdown, daemon=True)
    ending.start()
    ending.join(patience)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def agreed(number: int) -> int:
    """Broadcast a number from process 0 to all processes."""
    if jax.process_count() == 1:
        return number
    from jax.experimental import multihost_utils

    return int(multihost_utils.broadcast_one_to_all(np.int32(number)))


def wait_for_all(what: str) -> None:
    """Wait until every process has reached the barrier of this name."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(what)


def first_makes(make: Callable[[], T], find: Callable[[], T]) -> T:
    """Call ``make`` on process 0, then ``find`` on the others.

    Raises:
      UserError: ``make`` failed.
    """
    if jax.process_count() == 1:
        return make()
    from jax.experimental import multihost_utils

    made: list[T] = []
    problem: UserError | None = None
    if jax.process_index() == 0:
        try:
            made.append(make())
        except UserError as error:
            problem = error
    fine = bool(multihost_utils.broadcast_one_to_all(np.int32(problem is None)))
    if problem:
        raise problem
    if not fine:
        raise UserError("process 0 could not create the run; see its message")
    return made[0] if made else find()
