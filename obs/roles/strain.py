"""How hard the machine has it, and the mitigation level that follows: each second poll measures, decides, and tells the feed by the board.

CPU and memory are the host's, the latency of writing is that of the archive writer's own flushes. The queue delay is the age of the oldest
record that is not durable, read from the rings, so that a writer that is stuck cannot hide it. A record waits for its flush
by design, [archive] flush_s at most; what counts is what a flush leaves behind: the least age within two such times.

The level is written when it changes and at the start, with the time of the change; a new poll goes on from the level on the board.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from obs.clock import NS, Clock, Pace
from obs.log import Log
from obs.pressure import Gauge, Measured, Pressure, causes, step
from obs.record.events import make_event
from obs.ring import Producer, Ring, copy_rows, fence
from obs.shm import Board

QUEUES: Final = ("tick", "event", "swing", "poll_event")  # why not quarantine: a message cut off by a death waits for its rest
_LOOKS: Final = 4  # at the queues, per measurement
_PERIOD_S: Final = 1.0
_LEAST_SPAN_NS: Final = 2 * NS


class Machine:
    """Measures: `look` some times a second, `measure` once."""

    def __init__(self, archive: np.ndarray | None, rings: Sequence[Ring], flush_s: float, clock: Clock) -> None:
        """`archive`: the counters of the archive writer, None if there is none. `rings`: those that it drains, by reference."""
        self._archive, self._clock = archive, clock
        self._rings = [ring for ring in rings if ring.name in QUEUES]
        self._gauge = Gauge()
        self._span_ns = max(_LEAST_SPAN_NS, int(2 * flush_s * NS))
        self._ages: deque[tuple[int, int]] = deque()  # monotonic time, age

    def look(self) -> None:
        """Note how old the oldest record is that is not durable."""
        now = self._clock.mono_ns()
        self._ages.append((now, max((self._age_ns(ring) for ring in self._rings), default=0)))
        while self._ages[0][0] < now - self._span_ns:
            self._ages.popleft()

    def measure(self) -> Measured:
        self.look()
        archive = self._archive
        flushes, flush_ns = (0, 0) if archive is None else (int(archive["flushes"]), int(archive["flush_ns_sum"]))
        return self._gauge.measure(self._clock.mono_ns(), flushes, flush_ns, min(age for _, age in self._ages))

    def _age_ns(self, ring: Ring) -> int:
        while (durable := ring.durable("archive")) < ring.published:
            at = max(durable, ring.oldest)
            fence()
            ts_ns = int(copy_rows(ring, at, 1)["ts_ns"][0])
            fence()
            if at >= ring.oldest:
                return max(0, self._clock.wall_ns() - ts_ns)
        return 0


class Strain:
    """The level of one provider. Safety: one thread, poll's."""

    def __init__(
        self, board: Board, events: Producer, measure: Callable[[], Measured], clock: Clock, log: Log, enabled: bool = True
    ) -> None:
        self._board, self._events, self._measure, self._clock, self._log = board, events, measure, clock, log
        self._enabled = enabled
        stored: dict[str, Any] = board["level"].read_json() or {}
        level = stored.get("level", 0)
        self._pressure = Pressure(level if level in (0, 1, 2) else 0)
        if not enabled and self._pressure.level:
            self._change(0, ["disabled"], None)
        elif not stored:
            board["level"].write_json({"level": 0, "ns": clock.wall_ns()})

    @property
    def level(self) -> int:
        return self._pressure.level

    def step(self) -> None:
        """Measure once and follow; each second."""
        if not self._enabled:
            return
        measured, before = self._measure(), self._pressure
        after = step(before, measured, self._clock.mono_ns())
        self._pressure = after
        if after.level != before.level:
            self._change(after.level, causes(after) if after.level > before.level else ["calm"], measured, before.level)

    def _change(self, level: int, why: list[str], measured: Measured | None, before: int | None = None) -> None:
        """Tell the feed first, then the log of events."""
        now = self._clock.wall_ns()
        before = self._pressure.level if before is None else before
        self._pressure = self._pressure._replace(level=level)
        self._board["level"].write_json({"level": level, "ns": now})
        figures = {name: round(value, 3) for name, value in measured._asdict().items()} if measured is not None else {}
        self._events.publish(make_event("mitigation", now, {"level_before": before, "level_after": level, "causes": why, **figures}))
        self._log.warning("mitigation", level_before=before, level_after=level, causes=why, **figures)


async def keep_level(strain: Strain, machine: Machine, pace: Pace) -> None:
    """Measure each second, looking at the queues some times between; ends by being cancelled."""
    while True:
        for _ in range(_LOOKS):
            machine.look()
            await pace.sleep(_PERIOD_S / _LOOKS)
        strain.step()
