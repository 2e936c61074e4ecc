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


SYSTEM: Final[Clock] = SystemClock()


def minute_of(ts_ns: int) -> int:
    """Start M (ns) of the minute (M, M + 60 s] that holds ts_ns: a minute ends with its last record."""
    return (ts_ns - 1) // MINUTE_NS * MINUTE_NS
