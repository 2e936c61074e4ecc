"""How fast a venue is asked: calls of one group leave evenly spaced, and none while the venue has told to wait.

A token bucket that holds one token. More would allow a burst, and venues count their limits over any second; the call after a
late one may come early by a quarter of the spacing, so that lateness of a loop does not lower the rate. In W seconds a group makes at
most W x rate + 2 calls.

    limiter = Limiter({"rest": 15.0}, pace)
    await limiter.acquire("rest")           # returns when it is this call's turn
    limiter.pause("rest", 1.0)              # after a 429: nobody's turn for a second
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from obs.clock import NS, Pace

_EARLY: Final = 0.25  # of the spacing


@dataclass(slots=True)
class _Group:
    spacing_ns: int
    due_ns: int = 0  # monotonic: when the next call may leave
    paused_ns: int = 0  # monotonic: until when none may
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class Limiter:
    """Calls per second by group. Safety: one event loop; those who wait for a group are served in the order in which they came."""

    def __init__(self, calls_per_s: Mapping[str, float], clock: Pace) -> None:
        """Raises ValueError for a rate that is not above 0. Time is the monotonic one of `clock`: a wall clock may step."""
        if wrong := {name: rate for name, rate in calls_per_s.items() if not rate > 0}:
            raise ValueError(f"calls per second: {wrong}, expected > 0")
        self._clock = clock
        self._groups = {name: _Group(round(NS / rate)) for name, rate in calls_per_s.items()}

    async def acquire(self, group: str) -> None:
        """Return when a call of `group` may leave. Raises KeyError for a group that has no rate."""
        one = self._groups[group]
        async with one.turn:
            early_ns = 0
            # A pause may come while this waits: look again.
            while (wait_ns := max(one.due_ns, one.paused_ns) - (now := self._clock.mono_ns())) > 0:
                await self._clock.sleep(wait_ns / NS)
                early_ns = int(one.spacing_ns * _EARLY)  # the next one may make good what this one wakes late
            one.due_ns = max(one.due_ns, now - early_ns) + one.spacing_ns

    def pause(self, group: str, seconds: float) -> None:
        """Let no call of `group` leave for `seconds` from now; a longer pause that holds already stays."""
        one = self._groups[group]
        one.paused_ns = max(one.paused_ns, self._clock.mono_ns() + int(seconds * NS))

    def paused_s(self, group: str) -> float:
        """Return for how long no call of `group` will leave, 0.0 if it is not paused."""
        return max(0.0, (self._groups[group].paused_ns - self._clock.mono_ns()) / NS)
