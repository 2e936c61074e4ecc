"""The wall-clock grid of records: 2 Hz at mitigation level 0, 1 Hz at level 1, 0.5 Hz at level 2.

A record's `ts` is the end of its interval (k, k + step], so an input received exactly on a grid point belongs to the
record of that point, and a minute (M, M + 60 s] is made of whole intervals.
"""

from __future__ import annotations

from typing import Final

_STEPS_NS: Final = (500_000_000, 1_000_000_000, 2_000_000_000)


def interval_ns(level: int) -> int:
    """Return the step of the grid at a mitigation level of 0 to 2."""
    return _STEPS_NS[level]


def boundary_after(recv_ns: int, level: int) -> int:
    """Return the grid point at which an input received at recv_ns is published: the first one not before it."""
    step = _STEPS_NS[level]
    return -(-recv_ns // step) * step
