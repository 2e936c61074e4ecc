"""The clocks of the simulator, in the units that it counts in: seconds for limits, wall nanoseconds for the market.

`wall_ns` and `mono_s` are the venue's time: what the market, its limits, tokens and scripts count in. `host_s` is this host's: the life
of connections (pings, idle ends, zombies) and the pace of the writer, because sockets are as slow as ever when a day is compressed.
Without `--clock-start` or `--clock-rate` both are the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from obs.clock import NS, SYSTEM, Clock

LULL_S: Final = 330  # of each ten minutes: those who ask a venue for ten-minute bars have done so by then
_PERIOD_S: Final = 600
JITTER_S: Final = 0.1  # of host time that calls may be late by, before a limit per second is unfair to an even sender


@dataclass(frozen=True, slots=True)
class VenueClock:
    """Time that began at `start_ns` (UTC) when the host's monotonic clock showed `mono_ns_at_start`, and runs `rate` times as fast.

    `lull_rate`: the rate from LULL_S of each ten minutes on, 0 = the same.
    """

    start_ns: int
    mono_ns_at_start: int
    rate: float = 1.0
    lull_rate: float = 0.0

    def _passed_ns(self) -> int:
        host_ns = SYSTEM.mono_ns() - self.mono_ns_at_start
        if not self.lull_rate:
            return int(host_ns * self.rate)
        begin_ns = self.start_ns % (_PERIOD_S * NS)
        periods, rest_ns = divmod(host_ns + self._host_ns(begin_ns), self._host_ns(_PERIOD_S * NS))
        busy_ns = LULL_S * NS / self.rate
        within = rest_ns * self.rate if rest_ns < busy_ns else LULL_S * NS + (rest_ns - busy_ns) * self.lull_rate
        return int(periods) * _PERIOD_S * NS + int(within) - begin_ns

    def _host_ns(self, within_ns: int) -> float:
        """Return how long the host needs for the first `within_ns` of ten minutes."""
        lull_ns = max(0, within_ns - LULL_S * NS)
        return (within_ns - lull_ns) / self.rate + (lull_ns / self.lull_rate if lull_ns else 0.0)

    def host_mono_ns(self, mono_ns: int) -> int:
        """Return what the host's monotonic clock shows when this one shows `mono_ns`."""
        passed_ns = mono_ns - self.mono_ns_at_start
        if not self.lull_rate:
            return self.mono_ns_at_start + int(passed_ns / self.rate)
        begin_ns = self.start_ns % (_PERIOD_S * NS)
        periods, within_ns = divmod(passed_ns + begin_ns, _PERIOD_S * NS)
        host_ns = periods * self._host_ns(_PERIOD_S * NS) + self._host_ns(within_ns) - self._host_ns(begin_ns)
        return self.mono_ns_at_start + int(host_ns)

    def wall_ns(self) -> int:
        return self.start_ns + self._passed_ns()

    def mono_ns(self) -> int:
        return self.mono_ns_at_start + self._passed_ns()


class _Time:
    """The one clock of this process."""

    clock: Clock = SYSTEM
    second_s = 1.0


def use(clock: VenueClock, jitter_s: float = JITTER_S) -> None:
    """From now on the venue's time is this. `jitter_s`: host seconds over which calls per second are counted, if they are more than one."""
    _Time.clock, _Time.second_s = clock, max(1.0, jitter_s * clock.rate)


def use_host() -> None:
    """The venue's time is this host's again."""
    _Time.clock, _Time.second_s = SYSTEM, 1.0


def wall_ns() -> int:
    """Return the venue's wall time."""
    return _Time.clock.wall_ns()


def mono_s() -> float:
    """Return the venue's monotonic seconds."""
    return _Time.clock.mono_ns() / NS


def host_s() -> float:
    """Return this host's monotonic seconds."""
    return SYSTEM.mono_ns() / NS


def started_s() -> float:
    """Return the venue's monotonic seconds at its clock's start: now, unless it was given one."""
    return _Time.clock.mono_ns_at_start / NS if isinstance(_Time.clock, VenueClock) else mono_s()


def second_s() -> float:
    """Return the span in which calls per second are counted, venue seconds: one, or more where one is shorter than a host's jitter."""
    return _Time.second_s
