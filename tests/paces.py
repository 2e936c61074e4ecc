"""Clocks for tests that one can also wait by: time that jumps where everybody waits, and time that runs faster than the host's."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from datetime import datetime

from obs.clock import NS, SYSTEM
from obs.sim.now import VenueClock


class JumpPace:
    """Time stands still while anything runs and jumps to the next one that waits for it; so a day takes as long as its work.

    Work that awaits something else than this clock (a socket) takes no time. `step` moves the wall clock alone, as a clock that is set.
    """

    def __init__(self, start_ns: int) -> None:
        self._wall_ns, self._mono_ns = start_ns, 1_000 * NS
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()

    def wall_ns(self) -> int:
        return self._wall_ns

    def mono_ns(self) -> int:
        return self._mono_ns

    def step(self, seconds: float) -> None:
        self._wall_ns += int(seconds * NS)

    def advance(self, seconds: float) -> None:
        """Let time pass, and wake who has waited long enough."""
        self._wall_ns += int(seconds * NS)
        self._mono_ns += int(seconds * NS)
        while self._waiting and self._waiting[0][0] <= self._mono_ns:
            waiter = heapq.heappop(self._waiting)[2]
            if not waiter.done():
                waiter.set_result(None)

    async def sleep(self, seconds: float) -> None:
        waiter = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (self._mono_ns + max(0, int(seconds * NS)), next(self._numbers), waiter))
        await waiter

    def next_s(self) -> float:
        """Return how long until somebody wakes, 0 if nobody waits."""
        while self._waiting and self._waiting[0][2].done():
            heapq.heappop(self._waiting)
        return max(0.0, (self._waiting[0][0] - self._mono_ns) / NS) if self._waiting else 0.0


class RatedPace:
    """Time that runs `rate` times as fast as the host's from `start` on (ISO 8601 with an offset), in the lull of each ten minutes faster.

    A simulator with the same `--clock-start`, `--clock-rate`, `--clock-lull-rate`, and `--clock-mono-ns` = `began_ns`, has this time.
    """

    def __init__(self, start: str, rate: float, lull_rate: float = 0.0, began_ns: int | None = None) -> None:
        self.rate, self.began_ns = rate, SYSTEM.mono_ns() if began_ns is None else began_ns
        self._clock = VenueClock(int(datetime.fromisoformat(start).timestamp()) * NS, self.began_ns, rate, lull_rate)
        self.wall_ns, self.mono_ns = self._clock.wall_ns, self._clock.mono_ns

    async def sleep(self, seconds: float) -> None:
        until_ns = self._clock.host_mono_ns(self.mono_ns() + int(seconds * NS))
        await asyncio.sleep(max(0, until_ns - SYSTEM.mono_ns()) / NS)
