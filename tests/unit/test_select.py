"""Triggers, slots and overflow: tables of what is seen and what follows."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest

from obs.select import Observation, SlotOptions, TriggerOptions, TriggerState, decide, observe, overflow, scores
from obs.select.overflow import DECISION_REASONS
from obs.select.triggers import TRIGGERS

NS = 1_000_000_000
START = 1_780_000_000 * NS
OPTIONS = TriggerOptions()
SLOTS = SlotOptions()
NAN = float("nan")
NONE = np.zeros(1, bool)


def seen(price: float = 100.0, high: float = NAN, low: float = NAN, volume: float = NAN, trades_per_s: float = NAN) -> Observation:
    return Observation(*(np.array([value]) for value in (price, high, low, volume, trades_per_s)))


def warmed(volume: float = 6000.0, spread: float = 1.0, sweeps: int = 4) -> tuple[TriggerState, int]:
    """One symbol after some sweeps of ten minutes: volume 10/s, range 1 each."""
    state, now = TriggerState.empty(1), START
    for _ in range(sweeps):
        state = observe(state, seen(100.0, 100.0 + spread / 2, 100.0 - spread / 2, volume), now, OPTIONS)
        now += 600 * NS
    return state, now


def strengths(state: TriggerState, now: int, manual: np.ndarray = NONE) -> dict[str, float]:
    _, strength = scores(state, manual, now, OPTIONS)
    return {name: value for name, value in zip(TRIGGERS, strength[:, 0].tolist(), strict=True) if value}


@pytest.mark.parametrize(
    ("observation", "fired"),
    [
        (seen(volume=17_999), {}),
        (seen(volume=18_000), {"volume_surge": 0.5}),
        (seen(volume=27_000), {"volume_surge": 0.75}),
        (seen(volume=36_000), {"volume_surge": 1.0}),
        (seen(volume=1e12), {"volume_surge": 1.0}),
        (seen(volume=6_000, trades_per_s=10.0), {}),
        (seen(volume=6_000, trades_per_s=15.0), {"trade_velocity": 0.75}),
        (seen(100.0, 101.0, 99.01, 6_000), {}),
        (seen(100.0, 101.0, 99.0, 6_000), {"volatility_spike": 0.5}),
        (seen(102.9, 102.9, 102.9, 6_000), {"volatility_spike": 0.725}),
        (seen(97.0, 97.0, 97.0, 6_000), {"volatility_spike": 0.75, "price_spike": 0.5}),
        (seen(106.0, NAN, NAN, NAN), {"volatility_spike": 1.0, "price_spike": 1.0}),
        (seen(NAN, 200.0, 50.0, 1e12, 100.0), {}),  # without a price it was not seen
        (seen(0.0, 200.0, 50.0, 1e12, 100.0), {}),
    ],
)
def test_each_trigger_at_its_threshold(observation: Observation, fired: dict[str, float]) -> None:
    state, now = warmed()
    after = observe(state, observation, now, OPTIONS)
    assert strengths(after, now) == pytest.approx(fired)


def test_an_interval_of_a_minute_is_judged_by_the_average_of_ten() -> None:
    state, now = warmed()
    now += 60 * NS - 600 * NS  # a minute after the last sweep
    calm = observe(state, seen(100.0, 100.0, 99.7, 600), now, OPTIONS)  # the same rate; range 1 / sqrt(10)
    assert strengths(calm, now) == {}
    assert strengths(observe(state, seen(100.0, 100.0, 99.3, 1_800), now, OPTIONS), now) == pytest.approx(
        {"volume_surge": 0.5, "volatility_spike": 0.5 * 0.7 * np.sqrt(10) / 2}
    )


@pytest.mark.parametrize("early_s", [0, 2, 140])  # by which the last sweep, or the one that judges, comes sooner than ten minutes
@pytest.mark.parametrize(("sweeps", "fires"), [(1, False), (2, False), (3, True)])
def test_no_average_before_it_was_observed_long_enough(sweeps: int, fires: bool, early_s: int) -> None:
    state, now = warmed(sweeps=sweeps - 1)
    now -= early_s * NS
    state = observe(state, seen(100.0, 100.5, 99.5, 6000.0 - 10 * early_s), now, OPTIONS)
    now += 600 * NS
    assert ("volume_surge" in strengths(observe(state, seen(volume=1e9), now, OPTIONS), now)) == fires


def test_a_surge_is_compared_with_the_average_before_it_and_then_enters_it() -> None:
    state, now = warmed()
    after = observe(state, seen(volume=60_000), now, OPTIONS)
    share = 1 - np.exp(-600 / OPTIONS.average_s)
    assert after.volume_rate[0] == pytest.approx(10 + 90 * share)
    assert state.volume_rate[0] == pytest.approx(10), "the state before is not changed"


def test_a_symbol_that_is_missing_for_a_while_keeps_what_is_known_of_it() -> None:
    state, now = warmed()
    for _ in range(3):
        state = observe(state, seen(NAN), now, OPTIONS)
        now += 600 * NS
    assert (state.price[0], state.volume_rate[0]) == (100.0, pytest.approx(10.0))
    assert strengths(observe(state, seen(volume=4 * 3 * 6_000), now, OPTIONS), now) == pytest.approx({"volume_surge": 0.5})


def test_a_clock_that_steps_back_makes_no_interval() -> None:
    state, now = warmed()
    after = observe(state, seen(200.0, 300.0, 10.0, 1e12), now - 7200 * NS, OPTIONS)
    assert strengths(after, now - 7200 * NS) == {}
    assert after.volume_rate[0] == state.volume_rate[0]


@pytest.mark.parametrize(
    ("name", "seconds"), [("volume_surge", 300), ("trade_velocity", 180), ("volatility_spike", 300), ("price_spike", 300)]
)
def test_a_trigger_expires_unless_it_holds(name: str, seconds: int) -> None:
    state, now = warmed()
    hot = seen(110.0, 110.0, 100.0, 1e9, 100.0)
    state = observe(state, hot, now, OPTIONS)
    assert name in strengths(state, now + seconds * NS - 1)
    assert name not in strengths(state, now + seconds * NS)
    again = observe(state, Observation(hot.price * 1.1, hot.high, hot.low, hot.volume * 1e6, hot.trades_per_s), now + 100 * NS, OPTIONS)
    assert name in strengths(again, now + seconds * NS)
    calm = observe(state, seen(110.0, volume=0), now + 100 * NS, OPTIONS)
    assert name in strengths(calm, now + seconds * NS - 1), "what follows does not end it early"


@pytest.mark.parametrize(
    ("fired", "score"),
    [
        ({}, 0.0),
        ({"volume_surge": 1.0}, 10 / 35),
        ({"trade_velocity": 0.5}, 4 / 35),
        ({"manual": 1.0}, 5 / 35),
        (dict.fromkeys(TRIGGERS, 1.0), 1.0),
    ],
)
def test_the_score_is_the_weighted_mean(fired: dict[str, float], score: float) -> None:
    state = TriggerState.empty(1)
    for place, name in enumerate(TRIGGERS[:-1]):
        state.strength[place], state.fired_ns[place] = fired.get(name, 0.0), START
    assert scores(state, np.array(["manual" in fired]), START, OPTIONS)[0][0] == pytest.approx(score)


# --- slots: rows are letters


def decided(
    held: str, capacity: int, score: dict[str, float], size: dict[str, float] | None = None, pinned: str = "", excluded: str = "",
    young: str = "",
) -> tuple[str, str, str, str]:  # fmt: skip
    """Return (held, allocate, release, swaps as "AB CD") of `decide`; slots are old but for those in `young`."""
    names = "ABCDEFGH"
    columns: dict[str, Any] = {
        "score": np.array([score.get(name, 0.0) for name in names]), "size": np.array([(size or {}).get(name, 0.0) for name in names]),
        "pinned": np.array([name in pinned for name in names]), "excluded": np.array([name in excluded for name in names]),
    }  # fmt: skip
    since = {names.find(name): START - int(SLOTS.hold_s * NS) + (name in young) for name in held}
    got = decide(held=since, capacity=capacity, now_ns=START, options=SLOTS, **columns)
    text = ["".join(sorted(names[row] if row >= 0 else "-" for row in rows)) for rows in (got.held, got.allocate, got.release)]
    assert len(got.held) <= capacity
    assert len(set(got.held)) == len(got.held)
    return text[0], text[1], text[2], " ".join(names[out] + names[into] for out, into in got.swaps)


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        # free slots: by score, then by size; what neither moves nor trades gets none
        ({"held": "", "capacity": 2, "score": {}, "size": {"A": 1, "B": 3, "C": 2}}, ("BC", "BC", "", "")),
        ({"held": "", "capacity": 2, "score": {"A": 0.1}, "size": {"B": 3, "C": 2}}, ("AB", "AB", "", "")),
        ({"held": "", "capacity": 5, "score": {"A": 0.1}, "size": {"B": 3}}, ("AB", "AB", "", "")),
        ({"held": "A", "capacity": 2, "score": {"A": 0.5, "B": 0.5, "C": 0.6}}, ("AC", "C", "", "")),
        # a challenger must be 20 % better than the weakest
        ({"held": "AB", "capacity": 2, "score": {"A": 0.5, "B": 0.4, "C": 0.48}}, ("AB", "", "", "")),
        ({"held": "AB", "capacity": 2, "score": {"A": 0.5, "B": 0.4, "C": 0.481}}, ("AC", "", "", "BC")),
        ({"held": "AB", "capacity": 2, "score": {"A": 0.1, "B": 0.1, "C": 0.9, "D": 0.8, "E": 0.7}}, ("CD", "", "", "BC AD")),
        ({"held": "AB", "capacity": 2, "score": {"A": 0.1, "B": 0.5, "C": 0.55, "D": 0.54}}, ("BC", "", "", "AC")),
        # and the holder must have had its time; the next weakest may go instead
        ({"held": "AB", "capacity": 2, "score": {"A": 0.2, "B": 0.1, "C": 0.9}, "young": "B"}, ("BC", "", "", "AC")),
        ({"held": "AB", "capacity": 2, "score": {"C": 0.9}, "young": "AB"}, ("AB", "", "", "")),
        # a holder that nothing is scored of goes to any candidate, but not to mere size
        ({"held": "AB", "capacity": 2, "score": {"C": 0.01}, "size": {"A": 9, "B": 1}}, ("AC", "", "", "BC")),
        ({"held": "AB", "capacity": 2, "score": {"C": 0.009}}, ("AB", "", "", "")),
        ({"held": "AB", "capacity": 2, "score": {}, "size": {"C": 100}}, ("AB", "", "", "")),
        # pinned: at once, and never replaced
        ({"held": "AB", "capacity": 2, "score": {"A": 0.9, "B": 0.8}, "pinned": "C", "young": "AB"}, ("AC", "", "", "BC")),
        ({"held": "AB", "capacity": 2, "score": {"C": 0.9, "D": 0.9}, "pinned": "A"}, ("AC", "", "", "BC")),
        ({"held": "", "capacity": 2, "score": {"A": 0.9, "B": 0.8}, "pinned": "CD"}, ("CD", "CD", "", "")),
        ({"held": "", "capacity": 2, "score": {}, "pinned": "CDE"}, ("CD", "CD", "", "")),
        # excluded and vanished ones go at once
        ({"held": "AB", "capacity": 2, "score": {"A": 0.9, "B": 0.8, "C": 0.1}, "excluded": "A", "young": "A"}, ("BC", "C", "A", "")),
        ({"held": "A-", "capacity": 2, "score": {"A": 0.9, "C": 0.1}}, ("AC", "C", "-", "")),
        ({"held": "A", "capacity": 2, "score": {"A": 0.9}, "pinned": "AB", "excluded": "B"}, ("A", "", "", "")),
        # a venue that takes fewer than it did
        ({"held": "ABC", "capacity": 2, "score": {"A": 0.3, "B": 0.1, "C": 0.2}}, ("AC", "", "B", "")),
        ({"held": "ABC", "capacity": 0, "score": {"A": 0.3}, "pinned": "A"}, ("", "", "ABC", "")),
    ],
)
def test_slots(case: dict[str, Any], expected: tuple[str, str, str, str]) -> None:
    assert decided(**case) == expected


def test_a_thousand_swaps_leak_nothing() -> None:
    rng = Random(5)
    held: dict[int, int] = {}
    swapped = 0
    n, capacity, now = 60, 41, START
    score, size = np.zeros(n), np.array([rng.random() for _ in range(n)])
    while swapped < 1000:
        now += 60 * NS
        score[rng.randrange(n)] = rng.choice((0.0, rng.random()))
        got = decide(score, size, held, np.arange(n) == 7, np.zeros(n, bool), capacity, now, SLOTS)
        swapped += len(got.swaps)
        freed = {*got.release, *(row for row, _ in got.swaps)}
        assert freed <= set(held)
        assert set(got.held) == (set(held) - freed) | set(got.allocate) | {row for _, row in got.swaps}
        assert len(got.held) == len(set(got.held)) == capacity
        assert 7 in got.held
        held = {row: held.get(row, now) for row in got.held}


def test_every_loser_is_told_with_rank_and_reason() -> None:
    score = np.array([0.9, 0.5, NAN, 0.5, 0.005, 0.0, 0.7])
    size = np.array([0.0, 1.0, 9.0, 2.0, 9.0, 9.0, 0.0])
    held = np.array([True, False, True, False, False, False, False])
    excluded = np.array([False, False, False, False, False, False, True])
    got = overflow(score, size, held, excluded, SLOTS.least_score)
    reasons = [DECISION_REASONS[reason] for reason in got.reason.tolist()]
    told = list(zip(got.row.tolist(), got.rank.tolist(), reasons, strict=True))
    assert told == [(6, 2, "manual_exclude"), (3, 3, "slot_full"), (1, 4, "slot_full"), (4, 5, "low_score")]
    assert got.score.tolist() == [0.7, 0.5, 0.5, 0.005]


def test_nobody_is_lost_between_slots_and_overflow() -> None:
    rng = np.random.default_rng(3)
    n = 2500
    score, size = np.where(rng.random(n) < 0.2, rng.random(n), 0.0), rng.random(n)
    got = decide(score, size, {}, np.zeros(n, bool), np.zeros(n, bool), 41, START, SLOTS)
    held = np.zeros(n, bool)
    held[list(got.held)] = True
    losers = overflow(score, size, held, np.zeros(n, bool), SLOTS.least_score)
    assert set(got.held) | set(losers.row.tolist()) == set(np.flatnonzero(score).tolist())
    assert set(got.held).isdisjoint(losers.row.tolist())
    assert losers.rank.tolist() == list(range(42, 42 + len(losers.row)))
