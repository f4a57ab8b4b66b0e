"""Several processes as one training: how they find each other, and what only the first of them does."""

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
    """Join the other processes before anything is computed; from then on only the first one prints.

    Give all three arguments, or none under SLURM, Open MPI, Kubernetes or on Cloud TPU, which supply them.

    Args:
      coordinator: ``"HOST:PORT"`` where the first process listens.
      process_count: number of processes.
      process_index: index of this process, from 0.

    Raises:
      UserError: the arguments are invalid, or the other processes were not found or did not answer.
    """
    if coordinator is None and process_count is None and process_index is None:
        expected = "SLURM, Open MPI, Kubernetes or Cloud TPU, or --coordinator, --process-count and --process-index"
    elif coordinator is None or process_count is None or process_index is None:
        raise UserError("--coordinator, --process-count and --process-index go together; give all three, or none under "
                        "SLURM, Open MPI, Kubernetes or on Cloud TPU")  # fmt: skip
    else:
        expected = "all of them to be started"
        host, _, port = coordinator.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
            raise UserError(f"--coordinator {coordinator}: expected HOST:PORT, a port from 1 to 65535")
        if not 0 <= process_index < process_count:
            raise UserError(f"--process-index {process_index} of --process-count {process_count}: expected 0 "
                            f"to {process_count - 1}")  # fmt: skip
        print(f"process {process_index} of {process_count} looks for the others at {coordinator}, for "
              "five minutes at most", file=sys.stderr)  # fmt: skip
        can_meet(host.strip("[]"), int(port), first=process_index == 0)
    try:
        jax.distributed.initialize(coordinator, process_count, process_index)
    except (ValueError, RuntimeError) as error:
        raise UserError(f"--distributed: the processes did not find each other ({first_line(error)[:200]}); expected "
                        + expected) from None  # fmt: skip
    if jax.process_index():
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # libraries in C++ write there too


def can_meet(host: str, port: int, *, first: bool, patience: float = 300.0) -> None:
    """A look at the place where processes meet: jax ends a program that cannot listen or reach it, with a stack.

    Args:
      host: where the first process runs.
      port: where it listens.
      first: whether this is the first process; the others wait until it listens.
      patience: seconds they wait for.

    Raises:
      UserError: the port is taken, or nobody listens.
    """
    if first:
        with socket.socket() as listening:
            # As jax's own does: a port that was used a moment ago is free.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listening.bind(("", port))
            except OSError as error:
                raise UserError(f"--coordinator {host}:{port}: {error.strerror}; expected a port that is free here"
                                ) from None  # fmt: skip
        return
    until = time.monotonic() + patience
    while True:
        try:
            socket.create_connection((host, port), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > until:
                raise UserError(f"--coordinator {host}:{port}: {error.strerror or first_line(error)}; expected the "
                                "first process (--process-index 0) to listen there") from None  # fmt: skip
            time.sleep(0.5)


def leave(code: int, patience: float = 10.0) -> None:
    """Ends this process at once if it is one of several, after an error of its own.

    jax's own end waits five minutes for processes that, in the middle of a step, wait for this one. All that have the
    same error end together.

    Args:
      code: exit code.
      patience: seconds that the others are waited for.
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
    """The first process's number, on every process."""
    if jax.process_count() == 1:
        return number
    from jax.experimental import multihost_utils

    return int(multihost_utils.broadcast_one_to_all(np.int32(number)))


def wait_for_all(what: str) -> None:
    """Wait until every process has come to the place of this name."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(what)


def first_makes(make: Callable[[], T], find: Callable[[], T]) -> T:
    """What the first process makes and the others find when it is there.

    Raises:
      UserError: it could not be made.
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
        raise UserError("the first process could not make the run; see its message")
    return made[0] if made else find()
