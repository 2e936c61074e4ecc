"""Backoff and the reconnect budget: pure values."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obs.clock import NS
from obs.wire.backoff import BACKOFF_S, BURST, JITTER, PER_HOUR, STABLE_S, Budget, attempt_after, delay

T0 = 1_769_042_000 * NS


def test_the_steps_are_those_of_the_promise() -> None:
    assert BACKOFF_S == (1, 2, 5, 10, 20, 30, 60)


@pytest.mark.parametrize(("attempt", "step_s"), [(1, 1), (2, 2), (3, 5), (4, 10), (5, 20), (6, 30), (7, 60), (8, 60), (10**6, 60)])
def test_delay_is_jittered_downwards_and_capped_for_ever(attempt: int, step_s: float) -> None:
    rng = Random(attempt)
    waits = [delay(attempt, rng) for _ in range(200)]
    assert all(step_s * (1 - JITTER) <= wait <= step_s for wait in waits)
    assert max(waits) - min(waits) > step_s * JITTER / 2, "two collectors cut at once must not return at once"


@pytest.mark.parametrize("attempt", [0, -1])
def test_delay_counts_from_one(attempt: int) -> None:
    with pytest.raises(ValueError, match=f"attempt={attempt}"):
        delay(attempt, Random(1))


@pytest.mark.parametrize(
    ("before", "lived_s", "after"),
    [
        (0, 0.0, 1),  # the first that did not open
        (3, 0.0, 4),
        (3, STABLE_S - 1, 4),  # a poison message at each connect: it opens, and that proves nothing
        (3, STABLE_S, 1),
        (40, 8 * 3600.0, 1),
    ],
)
def test_only_a_stable_connection_starts_the_steps_anew(before: int, lived_s: float, after: int) -> None:
    assert attempt_after(before, lived_s) == after


def test_budget_gives_a_burst_then_one_a_minute() -> None:
    budget = Budget.full(T0)
    assert [budget.take(T0) for _ in range(BURST)] == [0.0] * BURST
    wait_s = budget.take(T0)
    assert wait_s == pytest.approx(3600 / PER_HOUR)
    assert budget.take(T0 + int((wait_s - 1) * NS)) == pytest.approx(1.0)
    assert budget.take(T0 + int(wait_s * NS)) == 0.0
    assert budget.take(T0 + int(wait_s * NS)) > 59


def test_waiting_as_told_is_enough_and_a_crash_loop_cannot_exceed_the_budget() -> None:
    now, taken, seconds = T0, 0, 24 * 3600
    tokens, last_ns = Budget.full(now).tokens, now
    while now < T0 + seconds * NS:
        budget = Budget(tokens, last_ns)  # each attempt by a new process, from what the last one stored
        wait_s = budget.take(now)
        tokens, last_ns = budget.tokens, budget.last_ns
        taken += not wait_s
        now += math.ceil((wait_s or 0.2) * NS)
    assert taken <= BURST + PER_HOUR * 24
    assert taken >= PER_HOUR * 24 - 1


@pytest.mark.parametrize(
    ("step_s", "expected_tokens"),
    [
        (-3600, 0),  # the clock stepped back: nothing is refilled
        (+3600 * 24 * 365, BURST),  # and a year ahead: one burst
        (0, 0),
        (+90, 1.5),
    ],
)
def test_no_step_of_the_clock_gives_more_than_a_burst(step_s: int, expected_tokens: float) -> None:
    budget = Budget(0.0, T0)
    budget.refill(T0 + step_s * NS)
    assert budget.tokens == pytest.approx(expected_tokens)
    assert budget.last_ns == T0 + step_s * NS


@pytest.mark.parametrize("stored", [math.nan, math.inf, -5.0, 1e9])
def test_a_damaged_stored_value_counts_as_empty(stored: float) -> None:
    budget = Budget(stored, T0)
    assert budget.take(T0) > 0
    assert budget.take(T0 + 61 * NS) == 0.0


@given(st.lists(st.integers(min_value=-7200, max_value=7200), max_size=60))
def test_whatever_the_clock_does_tokens_stay_in_range(steps_s: list[int]) -> None:
    now = T0
    budget = Budget.full(now)
    for step_s in steps_s:
        now += step_s * NS
        wait_s = budget.take(now)
        assert 0.0 <= budget.tokens <= BURST
        assert 0.0 <= wait_s <= 3600 / PER_HOUR + 1e-6
