"""The clocks of the simulator, in the units that it counts in: monotonic seconds for limits, wall nanoseconds for the market."""

from __future__ import annotations

from obs.clock import SYSTEM

wall_ns = SYSTEM.wall_ns


def mono_s() -> float:
    """Return monotonic seconds."""
    return SYSTEM.mono_ns() / 1e9
