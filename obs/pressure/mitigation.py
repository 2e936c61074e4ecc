"""The mitigation level: 0 = 2 Hz, 1 = 1 Hz, 2 = 0.5 Hz; which slots are watched never depends on it.

| | CPU | memory | disk write latency | queue delay | |
|---|---|---|---|---|---|
| level 1 | >= 80 % | >= 85 % | >= 500 ms | >= 2 s | any of them for 5 minutes |
| level 2 | >= 90 % | >= 95 % | >= 1000 ms | >= 5 s | any of them for 5 minutes |
| one level back | < 65 % | < 75 % | < 200 ms | < 0.5 s | all of them for 10 minutes |

Pure: times are monotonic nanoseconds that the caller passes. A figure that is not known (NaN) neither raises nor calms.
"""

from __future__ import annotations

from typing import Final, NamedTuple

_NS: Final = 1_000_000_000
RISE_NS: Final = 300 * _NS
CALM_NS: Final = 600 * _NS
STALL_NS: Final = 60 * _NS  # without a measurement for that long, nothing is known to have held


class Measured(NamedTuple):
    """What the machine shows: shares 0..1, seconds; NaN = not known."""

    cpu: float
    memory: float
    disk_s: float
    queue_s: float


RISE: Final = (Measured(0.80, 0.85, 0.5, 2.0), Measured(0.90, 0.95, 1.0, 5.0))  # to level 1, to level 2
CALM: Final = Measured(0.65, 0.75, 0.2, 0.5)


class Pressure(NamedTuple):
    """The level, and since when what would change it has held (0 = it does not); `rising` for levels 1 and 2, in the order of Measured."""

    level: int = 0
    rising: tuple[tuple[int, ...], ...] = ((0, 0, 0, 0), (0, 0, 0, 0))
    calm_ns: int = 0
    seen_ns: int = 0


def step(before: Pressure, measured: Measured, now_ns: int) -> Pressure:
    """Return what follows from one more measurement at `now_ns` (> 0, not before the last one)."""
    if now_ns - before.seen_ns > STALL_NS:
        before = Pressure(before.level)
    rising = tuple(
        tuple((since or now_ns) if value >= limit else 0 for value, limit, since in zip(measured, limits, held, strict=True))
        for limits, held in zip(RISE, before.rising, strict=True)
    )
    calm = all(value < limit for value, limit in zip(measured, CALM, strict=True))
    calm_ns = (before.calm_ns or now_ns) if calm else 0
    reached = max((level for level, held in enumerate(rising, 1) if any(since and now_ns - since >= RISE_NS for since in held)), default=0)
    level = max(before.level, reached)
    if level == before.level and level > 0 and calm_ns and now_ns - calm_ns >= CALM_NS:
        level, calm_ns = level - 1, now_ns  # each level takes ten calm minutes of its own
    return Pressure(level, rising, calm_ns, now_ns)


def causes(pressure: Pressure) -> list[str]:
    """Return the figures by which the present level was reached, none at level 0 or once they no longer hold."""
    held = pressure.rising[pressure.level - 1] if pressure.level else ()
    return [name for name, since in zip(Measured._fields, held, strict=False) if since and pressure.seen_ns - since >= RISE_NS]
