"""The wall-clock grid: intervals (k, k + step], nested in each other and in minutes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obs.clock import MINUTE_NS, minute_of
from obs.sample import boundary_after, interval_ns

MS = 10**6
T0 = 1_784_000_040 * 1000 * MS  # a whole minute
levels = st.integers(0, 2)
instants = st.integers(0, 2**62)


@pytest.mark.parametrize(("level", "step_ms"), [(0, 500), (1, 1000), (2, 2000)])
def test_steps(level: int, step_ms: int) -> None:
    assert interval_ns(level) == step_ms * MS
    assert MINUTE_NS % interval_ns(level) == 0


@pytest.mark.parametrize(
    ("offset_ns", "level", "boundary_ms"),
    [
        (0, 0, 0), (1, 0, 500), (499 * MS, 0, 500), (500 * MS, 0, 500), (500 * MS + 1, 0, 1000), (500 * MS, 1, 1000),
        (1000 * MS, 1, 1000), (1000 * MS, 2, 2000), (2000 * MS + 1, 2, 4000), (-1, 0, 0), (-1, 2, 0),
    ],
)  # fmt: skip
def test_an_input_on_a_grid_point_belongs_to_it(offset_ns: int, level: int, boundary_ms: int) -> None:
    assert boundary_after(T0 + offset_ns, level) == T0 + boundary_ms * MS


@given(instants, levels)
def test_the_first_point_not_before(recv_ns: int, level: int) -> None:
    boundary = boundary_after(recv_ns, level)
    assert boundary % interval_ns(level) == 0
    assert boundary - interval_ns(level) < recv_ns <= boundary
    assert boundary_after(boundary, level) == boundary


@given(instants.filter(lambda instant: instant > MINUTE_NS), levels)
def test_an_input_and_its_record_lie_in_one_minute(recv_ns: int, level: int) -> None:
    assert minute_of(boundary_after(recv_ns, level)) == minute_of(recv_ns)
    assert minute_of(recv_ns) < recv_ns <= minute_of(recv_ns) + MINUTE_NS


@given(instants)
def test_the_points_of_a_coarser_grid_are_points_of_the_finer(recv_ns: int) -> None:
    assert boundary_after(recv_ns, 0) <= boundary_after(recv_ns, 1) <= boundary_after(recv_ns, 2)
    assert boundary_after(boundary_after(recv_ns, 2), 0) == boundary_after(recv_ns, 2)
