"""The mitigation level climbs and falls at the times that the specification names, second by second."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from obs.pressure import Gauge, Measured, Pressure, causes, step

NS = 1_000_000_000
QUIET = Measured(0.10, 0.20, 0.001, 0.1)
NAN = math.nan
Profile = Callable[[int], Measured]


def levels(profile: Profile, seconds: int, start: Pressure | None = None, every: int = 1) -> list[tuple[int, int]]:
    """Return (second, level) of each change under a profile of load, measured each `every` seconds."""
    pressure, changes = start or Pressure(), []
    for second in range(0, seconds, every):
        after = step(pressure, profile(second), (1 + second) * NS)
        if after.level != pressure.level:
            changes.append((second, after.level))
        pressure = after
    return changes


def at_level(level: int) -> Pressure:
    return Pressure(level)


@pytest.mark.parametrize(
    ("measured", "level"),
    [
        (QUIET._replace(cpu=0.7999), 0), (QUIET._replace(cpu=0.80), 1), (QUIET._replace(cpu=0.8999), 1), (QUIET._replace(cpu=0.90), 2),
        (QUIET._replace(memory=0.8499), 0), (QUIET._replace(memory=0.85), 1), (QUIET._replace(memory=0.95), 2),
        (QUIET._replace(disk_s=0.499), 0), (QUIET._replace(disk_s=0.5), 1), (QUIET._replace(disk_s=1.0), 2),
        (QUIET._replace(queue_s=1.99), 0), (QUIET._replace(queue_s=2.0), 1), (QUIET._replace(queue_s=5.0), 2),
        (Measured(NAN, NAN, NAN, NAN), 0),
    ],
)  # fmt: skip
def test_each_threshold_after_exactly_five_minutes(measured: Measured, level: int) -> None:
    assert levels(lambda _: measured, 900) == ([(300, level)] if level else [])


def test_one_calm_second_begins_the_five_minutes_anew() -> None:
    assert levels(lambda second: QUIET if second == 299 else QUIET._replace(cpu=0.85), 700) == [(600, 1)]


def test_it_is_one_figure_that_must_hold_not_one_after_the_other() -> None:
    profile: Profile = lambda second: QUIET._replace(**({"cpu": 0.95} if second // 200 % 2 else {"queue_s": 9.0}))  # noqa: E731
    assert levels(profile, 2000) == []


def test_from_level_1_to_level_2() -> None:
    assert levels(lambda second: QUIET._replace(cpu=0.85 if second < 400 else 0.95), 1000) == [(300, 1), (700, 2)]


@pytest.mark.parametrize(
    ("measured", "falls"),
    [
        (QUIET, True), (Measured(0.6499, 0.7499, 0.1999, 0.4999), True), (QUIET._replace(cpu=0.65), False),
        (QUIET._replace(memory=0.75), False), (QUIET._replace(disk_s=0.2), False), (QUIET._replace(queue_s=0.5), False),
        (QUIET._replace(cpu=NAN), False),
    ],
)  # fmt: skip
def test_back_one_level_after_ten_calm_minutes_each(measured: Measured, falls: bool) -> None:
    assert levels(lambda _: measured, 2000, at_level(2)) == ([(600, 1), (1200, 0)] if falls else [])


def test_between_calm_and_pressure_nothing_changes() -> None:
    assert levels(lambda _: QUIET._replace(cpu=0.70), 5000, at_level(1)) == []


def test_a_busy_second_begins_the_ten_minutes_anew() -> None:
    assert levels(lambda second: QUIET._replace(cpu=0.7) if second == 500 else QUIET, 1200, at_level(1)) == [(1101, 0)]


def test_time_without_a_measurement_proves_nothing() -> None:
    hot = QUIET._replace(cpu=0.99)
    before = step(Pressure(), hot, NS)
    assert step(before, hot, 61 * NS).rising[0][0] == NS
    stalled = step(before, hot, 400 * NS)
    assert (stalled.level, stalled.rising[0][0]) == (0, 400 * NS)
    calm = step(at_level(1), QUIET, NS)
    assert step(calm, QUIET, 1000 * NS).level == 1


def test_the_causes_are_told() -> None:
    pressure = Pressure()
    for second in range(301):
        pressure = step(pressure, Measured(0.95, 0.2, 1.5, 3.0 if second > 250 else 0.0), (1 + second) * NS)
    assert (pressure.level, causes(pressure)) == (2, ["cpu", "disk_s"])
    assert causes(Pressure()) == []


def test_the_gauge_measures_this_machine() -> None:
    gauge = Gauge()
    first = gauge.measure(NS, 0, 0, 0)
    assert math.isnan(first.cpu)
    assert 0 < first.memory < 1
    assert (first.disk_s, first.queue_s) == (0.0, 0.0)
    busy = 0
    while math.isnan((now := gauge.measure(2 * NS, 4, 2 * NS, 3 * NS)).cpu):  # until the kernel has counted a tick
        busy += sum(range(1000))
    assert 0 <= now.cpu <= 1
    assert (now.disk_s, now.queue_s) == (0.5, 3.0)


def test_disk_latency_is_a_mean_over_ten_seconds() -> None:
    gauge = Gauge()
    flushes = flush_ns = 0
    found = []
    for second in range(40):
        flushes, flush_ns = flushes + 2, flush_ns + 2 * (NS if 15 <= second < 25 else NS // 100)
        found.append(gauge.measure(second * NS + 1, flushes, flush_ns, 0).disk_s)
    assert found[14] == pytest.approx(0.01)
    assert found[24] == pytest.approx(1.0)
    assert found[19] == pytest.approx(0.505)
    assert found[34] == pytest.approx(0.01)
    assert gauge.measure(41 * NS, 3, 3 * NS, 0).disk_s == 0.0, "an archive writer that counts anew"
