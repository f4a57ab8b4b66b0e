"""One case of invalid or unusual input."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

SMALL = """
    --set model.hidden=8 optim.steps=4 optim.warmup=1 data.batch_size=4 data.buckets=1 run.eval_every=2
""".split()


class Case(NamedTuple):
    """What a user does.

    Attributes:
      what: description for the table.
      arguments: arguments of ``jaxcrnn``, or of Python if ``python`` is set.
      limit: limit on the size of written files in bytes, as a full disk has.
      rows: lines of ``rows.txt``, which is written before the call.
      environment: environment variables.
      python: run Python instead of ``jaxcrnn``.
    """

    what: str
    arguments: list[str]
    limit: int | None = None
    rows: str = ""
    environment: Mapping[str, str] = MappingProxyType({})
    python: bool = False
