"""Several processes as one training: how they find each other, and what only the first of them does."""

from __future__ import annotations

import os
import sys
import threading
from argparse import Namespace
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np

from jaxcrnn.errors import UserError, first_line

T = TypeVar("T")


def join(args: Namespace) -> None:
    """Joins the other processes, before anything is computed; the first one alone prints from then on.

    Args:
      args: ``distributed``, and either none of ``coordinator``, ``process_count`` and ``process_index``, where SLURM,
        Open MPI, Kubernetes or Cloud TPU know them, or all three.

    Raises:
      UserError: they were not found, or did not answer.
    """
    given = (args.coordinator, args.process_count, args.process_index)
    if not args.distributed:
        if any(value is not None for value in given):
            raise UserError("--coordinator, --process-count and --process-index are of several processes; give "
                            "--distributed too")  # fmt: skip
        return
    if len({value is None for value in given}) == 2:
        raise UserError("--coordinator, --process-count and --process-index go together; give all three, or none under "
                        "SLURM, Open MPI, Kubernetes or on Cloud TPU")  # fmt: skip
    if args.coordinator is not None:
        host, _, port = args.coordinator.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
            raise UserError(f"--coordinator {args.coordinator}: expected HOST:PORT, a port from 1 to 65535")
        if not 0 <= args.process_index < args.process_count:
            raise UserError(f"--process-index {args.process_index} of --process-count {args.process_count}: expected 0 "
                            f"to {args.process_count - 1}")  # fmt: skip
        print(
            f"process {args.process_index} of {args.process_count} looks for the others at {args.coordinator}",
            file=sys.stderr,
        )
    try:
        jax.distributed.initialize(*given)
    except (ValueError, RuntimeError) as error:
        raise UserError(f"--distributed: the processes did not find each other: {first_line(error)[:200]}") from None
    if jax.process_index():
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # libraries in C++ write there too


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
