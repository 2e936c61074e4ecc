"""How much of each minute was recorded, from bars and gaps; against a plain count of tenths of seconds."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from obs.clock import MINUTE_NS, NS
from obs.monitor.coverage import coverage_of, joined, mean_of, worst_of

START = 1_795_219_200 * NS


def spans(*seconds: tuple[float, float]) -> list[tuple[int, int]]:
    return [(START + int(start * NS), START + int(end * NS)) for start, end in seconds]


@pytest.mark.parametrize(
    ("bars", "gaps", "covered"),
    [
        ({}, [(0, 60)], {}),
        ({0: None, 2: None}, [(60, 120)], {}),  # tape mode: nothing can be said
        ({0: 1.0, 1: 1.0}, [(60, 120)], {0: 1.0, 1: 0.0}),  # sampled on while the venue was mute
        ({0: 1.0, 1: 0.5}, [(60, 90)], {0: 1.0, 1: 0.5}),  # both tell of the same half
        ({0: 0.25}, [(0, 30)], {0: 0.25}),
        ({0: 1.0}, [(0, 30), (15, 45), (20, 21), (40, 40)], {0: 0.25}),  # what overlaps is lost once
        ({0: 1.0, 3: 1.0}, [(60, 180)], {0: 1.0, 1: 0.0, 2: 0.0, 3: 1.0}),
        ({0: 1.0, 3: 1.0}, [(60, 119.95), (150, 180)], {0: 1.0, 1: 0.0, 3: 1.0}),  # a minute of which a part is known to be lost
        ({5: 1.0, 6: 1.0}, [(0, 120), (420, 600)], {5: 1.0, 6: 1.0}),  # before the first minute and behind the last
        ({5: 1.0}, [(-600, 6000)], {5: 0.0}),
    ],
)
def test_the_coverage_of_minutes(bars: dict[int, float | None], gaps: list[tuple[float, float]], covered: dict[int, float]) -> None:
    assert coverage_of(bars, spans(*gaps), START) == covered
    assert mean_of(covered) == (round(sum(covered.values()) / len(covered), 4) if covered else None)
    assert worst_of(covered) == (min(covered.values()) if covered else None)


def test_it_is_that_of_a_plain_count() -> None:
    chance = random.Random(17)
    for _ in range(100):
        bars: dict[int, float | None] = {minute: chance.choice((1.0, 1.0, 0.75)) for minute in range(12) if chance.random() < 0.7}
        gaps = [(start, start + chance.randrange(0, 1200)) for start in (chance.randrange(-600, 8000) for _ in range(6))]
        lost = {tenth for start, end in gaps for tenth in range(start, end)}
        expected = {}
        for minute in range(min(bars, default=0), max(bars, default=-1) + 1):
            share = len(lost & set(range(600 * minute, 600 * (minute + 1)))) / 600
            ratio = bars.get(minute)
            if ratio is not None:
                expected[minute] = min(ratio, 1 - share)
            elif share >= 59.9 / 60:
                expected[minute] = 0.0
        tenths = [(START + start * NS // 10, START + end * NS // 10) for start, end in gaps]
        assert coverage_of(bars, tenths, START) == pytest.approx(expected)
        one = joined(tenths)
        assert all(before[1] < after[0] for before, after in pairwise(one))
        assert sum(end - start for start, end in one) == len(lost) * NS // 10
        assert MINUTE_NS == 600 * NS // 10
