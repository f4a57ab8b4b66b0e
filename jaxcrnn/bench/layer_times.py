"""Where the time of a compiled program goes, by layer of the model, from a trace of the device."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxcrnn.bench.traffic import LAYERS, Cost, layer_of, paths

IDLE = "idle"


class Event(NamedTuple):
    """One operation in a trace.

    Attributes:
      start: start in nanoseconds.
      end: end in nanoseconds.
      operation: name of the operation in HLO.
    """

    start: float
    end: float
    operation: str


def by_layer(run: Callable[[], Any], text: str, repeats: int = 3) -> dict[str, Cost]:
    """Trace a few runs of a program and add up the time of its operations by layer.

    Args:
      run: runs the program once and waits for it.
      text: HLO of the compiled program.
      repeats: number of runs.

    Returns:
      The times of each layer of `jaxcrnn.bench.traffic.LAYERS` that has any, in milliseconds a run; and as ``"idle"``
      the time between the first and the last operation of a run in which the trace has none, which on CPUs includes
      what XLA does in its own threads. Operations that run at the same time count in full. Those that the trace
      does not name, as may be in a graph of a GPU, count as ``"other"``.
    """
    run()
    found = paths(text)
    totals: dict[tuple[str, bool], float] = defaultdict(float)
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            with jax.profiler.trace(folder):
                run()
            threads = _threads(Path(folder))
        for events in threads:
            for event, duration in own_times(events):
                totals[layer_of(found.get(event.operation, ""))] += duration / 1e6 / repeats
        totals[IDLE, False] += idle([event for events in threads for event in events]) / 1e6 / repeats
    both = {name: Cost(totals[name, False], totals[name, True]) for name in (*LAYERS, IDLE)}
    return {name: times for name, times in both.items() if any(times)}


def _threads(folder: Path) -> list[list[Event]]:
    """Read the operations of a trace, by stream of the device, or by thread where the processor is the device."""
    (path,) = folder.rglob("*.xplane.pb")
    planes = list(jax.profiler.ProfileData.from_file(str(path)).planes)
    devices = [plane for plane in planes if plane.name.startswith("/device:")]
    lines = [line for plane in devices or planes for line in plane.lines]
    streams = [line for line in lines if line.name.startswith("Stream")]  # other lines of a GPU repeat these
    return [_events(line, everything=bool(streams)) for line in streams or lines]


def _events(line: Any, everything: bool) -> list[Event]:
    """Read the operations of a line; with ``everything`` also what belongs to none, such as copies of a GPU."""
    found = []
    for event in line.events:
        operation = str(dict(event.stats).get("hlo_op", ""))
        if operation or everything:
            found.append(Event(event.start_ns, event.start_ns + event.duration_ns, operation))
    return found


def own_times(events: Iterable[Event]) -> list[tuple[Event, float]]:
    """Return the time of each operation of a thread without that of the operations within it, such as a loop's.

    >>> loop, body = Event(0, 10, "while"), Event(2, 5, "add")
    >>> [(event.operation, time) for event, time in own_times([loop, body])]
    [('while', 7), ('add', 3)]
    """
    ordered = sorted(events, key=lambda event: (event.start, -event.end))
    times = [event.end - event.start for event in ordered]
    around: list[int] = []
    for number, event in enumerate(ordered):
        while around and ordered[around[-1]].end <= event.start:
            around.pop()
        if around:
            times[around[-1]] -= min(event.end, ordered[around[-1]].end) - event.start
        around.append(number)
    return list(zip(ordered, times, strict=True))


def idle(events: Iterable[Event]) -> float:
    """Return the time between the first start and the last end in which no operation runs.

    >>> idle([Event(0, 2, "a"), Event(1, 3, "b"), Event(5, 6, "c")])
    2.0
    """
    ordered = sorted(events)
    gaps, reached = 0.0, ordered[0].start if ordered else 0.0
    for event in ordered:
        gaps += max(0, event.start - reached)
        reached = max(reached, event.end)
    return gaps
