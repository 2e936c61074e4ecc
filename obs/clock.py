"""The only reader of clocks: wall time in UTC nanoseconds, monotonic nanoseconds. Tests pass a fake."""

from __future__ import annotations

import time
from typing import Final, Protocol

NS: Final = 1_000_000_000
MINUTE_NS: Final = 60 * NS


class Clock(Protocol):
    """What a role needs to know of time."""

    def wall_ns(self) -> int:
        """UTC epoch nanoseconds; may step, in both directions."""
        ...

    def mono_ns(self) -> int:
        """Nanoseconds since boot, the same for every process of the host; never steps."""
        ...


class SystemClock:
    """The clocks of this host."""

    wall_ns = staticmethod(time.time_ns)
    mono_ns = staticmethod(time.monotonic_ns)


class Pace(Clock, Protocol):
    """A clock that one can also wait by, so that a day can be compressed: whoever waits for a period waits by it."""

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds` of this clock's monotonic time."""
        ...


class SystemPace(SystemClock):
    """The clocks of this host, at their own pace."""

    async def sleep(self, seconds: float) -> None:
        import asyncio  # 20 ms that a process without a loop need not pay

        await asyncio.sleep(seconds)


SYSTEM: Final[Clock] = SystemClock()
PACE: Final[Pace] = SystemPace()


def minute_of(ts_ns: int) -> int:
    """Start M (ns) of the minute (M, M + 60 s] that holds ts_ns: a minute ends with its last record."""
    return (ts_ns - 1) // MINUTE_NS * MINUTE_NS
