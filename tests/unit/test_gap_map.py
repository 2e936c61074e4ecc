"""Gaps as a map of symbols and minutes, and which of them lie within others."""

from __future__ import annotations

import random

import pytest

from obs.clock import NS
from obs.monitor.gaps import CELLS, Gap, GapSum, gaps_inside, heat, inside, seconds, sum_of

START = 1_795_219_200 * NS  # a minute


def gap(start_s: float, end_s: float, symbol: str | None = None, reason: str = "mute", severity: str = "minor") -> Gap:
    return Gap(START + int(start_s * NS), START + int(end_s * NS), symbol, reason, severity, "scalp", 0)


@pytest.mark.parametrize(
    ("gaps", "cells"),
    [
        ([], []),
        ([gap(0, 60)], [(0, 60.0, "mute", "minor")]),
        ([gap(59.5, 60.5)], [(0, 0.5, "mute", "minor"), (1, 0.5, "mute", "minor")]),
        ([gap(-100, 10)], [(0, 10.0, "mute", "minor")]),
        ([gap(290, 1000)], [(4, 10.0, "mute", "minor")]),  # the map has five minutes
        ([gap(-100, 0), gap(300, 400), gap(-10, -5)], []),
        ([gap(70, 70)], [(1, 0.0, "mute", "minor")]),  # a step of the venue's count has no length, and is shown
        ([gap(0, 0)], [(0, 0.0, "mute", "minor")]),
        # What overlaps counts once; the longest names the reason, the worst the severity.
        ([gap(0, 20), gap(10, 30, reason="restart", severity="critical"), gap(5, 6)], [(0, 30.0, "mute", "critical")]),
        ([gap(0, 5), gap(10, 30, reason="restart")], [(0, 25.0, "restart", "minor")]),
        ([gap(0, 10, severity="brief"), gap(20, 30, severity="of a newer version")], [(0, 20.0, "mute", "of a newer version")]),
    ],
)
def test_gaps_are_cut_at_the_borders_of_minutes(gaps: list[Gap], cells: list[tuple[int, float, str, str]]) -> None:
    found = heat(gaps, START, 5)
    assert found.all == cells
    assert (found.symbols, found.cells, found.is_whole) == ([], [], True)
    of_a_symbol = heat([one._replace(symbol="005930") for one in gaps], START, 5)
    assert of_a_symbol.cells == [(0, *cell) for cell in cells]
    assert of_a_symbol.symbols == (["005930"] if cells else [])


def test_a_map_is_bounded() -> None:
    many = [gap(0, 86_400, f"S{number:04d}") for number in range(200)]
    found = heat(many, START, 1440)
    assert not found.is_whole
    assert len(found.cells) <= CELLS
    assert {cell[0] for cell in found.cells} == set(range(len(found.symbols))), "symbols are there whole or not at all"


def test_no_second_is_lost_or_counted_twice() -> None:
    chance = random.Random(6)
    spans = [(start, start + chance.randrange(0, 400)) for start in (chance.randrange(-100, 3500) for _ in range(300))]
    plain = {second for start, end in spans for second in range(max(0, start), min(3600, end))}
    found = heat([gap(*span) for span in spans], START, 60)
    assert sum(cell[1] for cell in found.all) == len(plain)
    assert {minute for minute, lost, *_ in found.all if lost} == {second // 60 for second in plain}
    assert seconds([(start * NS, end * NS) for start, end in spans if start >= 0]) == len(
        {second for start, end in spans if start >= 0 for second in range(start, end)}
    )


def test_what_lies_within_another_of_its_symbol_or_of_all() -> None:
    spans = [
        ("kis", None, 0, 100), ("kis", "A", 10, 20), ("kis", "A", 90, 110), ("kis", "A", 95, 105), ("upbit", None, 10, 20),
        ("kis", "B", 100, 110), ("kis", None, 0, 100),
    ]  # fmt: skip
    assert inside(spans) == {1, 3, 6}
    assert inside([]) == set()


@pytest.mark.parametrize(
    ("gaps", "expected"),
    [
        ([], GapSum(0, 0, 0.0, 0.0, 0, 0, 0.0)),
        ([gap(0, 100)], GapSum(1, 0, 100.0, 100.0, 0, 0, 0.0)),
        # One lost connection, and what 41 symbols have each lost by it.
        ([gap(0, 100), *(gap(10, 20, f"S{number}") for number in range(41))], GapSum(1, 41, 100.0, 100.0, 0, 0, 0.0)),
        # A step of the venue's count spans more than the gap that explains it, and says so itself.
        ([gap(10, 20), gap(5, 25, "A")._replace(is_inside=True)], GapSum(1, 1, 10.0, 10.0, 0, 0, 0.0)),
        # What overlaps counts once, however many symbols it has.
        ([gap(0, 100), gap(50, 150), gap(140, 160, "A"), gap(145, 155, "B")], GapSum(4, 0, 160.0, 150.0, 2, 0, 0.0)),
        ([gap(0, 10, "A"), gap(0, 10, "B")], GapSum(2, 0, 10.0, 0.0, 2, 0, 0.0)),
        # The bar that a sweep missed explains no lost connection, nor the other way round.
        ([gap(0, 600)._replace(scope="swing"), gap(10, 20)], GapSum(2, 0, 10.0, 10.0, 0, 1, 600.0)),
        ([gap(0, 600), gap(10, 20)._replace(scope="swing"), gap(10, 20)._replace(scope="all")], GapSum(2, 1, 600.0, 600.0, 0, 1, 10.0)),
    ],
)
def test_gaps_are_counted_and_added_up_once(gaps: list[Gap], expected: GapSum) -> None:
    assert sum_of(gaps) == expected
    assert len(gaps_inside(gaps)) == expected.inside
