"""Sets of sequences against Python's own sets."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from obs.monitor.audit.spans import END, Runs, Span, count, intersect, merge, overlaps, shown, subtract, within

spans = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 9)).map(lambda pair: (pair[0], pair[0] + pair[1])), max_size=12)


def members(some: list[Span]) -> list[int]:
    return [seq for first, last in some for seq in range(first, last + 1)]


def is_tidy(some: list[Span]) -> bool:
    return all(first <= last for first, last in some) and all(one[1] + 1 < other[0] for one, other in pairwise(some))


@given(spans, spans)
def test_they_are_sets(one: list[Span], other: list[Span]) -> None:
    here, there = merge(one), merge(other)
    assert is_tidy(here)
    assert set(members(here)) == set(members(one))
    assert set(members(subtract(here, there))) == set(members(one)) - set(members(other))
    assert set(members(intersect(here, there))) == set(members(one)) & set(members(other))
    assert set(members(within(here, 5, 20))) == set(members(one)) & set(range(5, 21))
    assert count(here) == len(set(members(one)))
    twice = {seq for seq, number in Counter(members(one)).items() if number > 1}
    assert set(members(overlaps(one))) == twice


@given(spans)
def test_runs_remember_what_came_twice(some: list[Span]) -> None:
    runs = Runs()
    for first, last in some:
        runs.add(first, last)
    assert set(members(runs.spans())) == set(members(some))
    assert set(members(runs.twice())) == {seq for seq, number in Counter(members(some)).items() if number > 1}


def test_a_span_without_an_end() -> None:
    assert subtract([(0, END)], [(3, END)]) == [(0, 2)]
    assert subtract([(5, 9)], [(3, END)]) == []
    assert shown([(1, 1), (3, 5), (7, END)]) == "1, 3..5, 7.."
    assert shown([(seq, seq) for seq in range(0, 20, 2)]) == "0, 2, 4, 6, 8, and 5 more spans"
