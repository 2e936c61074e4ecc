"""Our trades against the venue's own count: repeated ones, missed volume, late ones, a new day, volumes beyond 2^53."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obs.record.schema import IGNORED, INPUT, INPUT_QUOTE, INPUT_TICKER, INPUT_TRADE, NO_SEQ
from obs.sample import Completeness, Missed

NAN = math.nan
DUPLICATE = IGNORED.index("duplicate")
DAY = 20260714


def trades_of(*rows: tuple[float, float] | dict[str, Any]) -> np.ndarray:
    """(size, accumulated volume) or whole rows; receive times are 1, 2, 3, …"""
    out = np.zeros(len(rows), INPUT)
    out["venue_seq"], out["row"], out["acc_day"], out["kind"] = NO_SEQ, 1, DAY, INPUT_TRADE
    out["recv_ns"] = np.arange(1, len(rows) + 1)
    for place, row in enumerate(rows):
        for name, value in ({"size": row[0], "acc_volume": row[1]} if isinstance(row, tuple) else row).items():
            out[name][place] = value
    return out


def fates(inputs: np.ndarray) -> list[str]:
    return [IGNORED[number] for number in inputs["ignore"]]


@pytest.mark.parametrize(
    ("trades", "missed"),
    [
        ([(5, 105), (7, 112), (1, 113)], []),
        ([(5, 105), (7, 113)], [Missed(1, 105, 113, 1, 2)]),
        ([(5, 105), (7, 112), (1, 120), (1, 121), (1, 200)], [Missed(1, 112, 120, 2, 3), Missed(1, 121, 200, 4, 5)]),
        ([(5, 105)], []),  # the first of a session: nothing to compare with
        ([(0.00000001, 0.3), (0.1, 0.4), (0.2, 0.6000000000000001)], []),  # the venue's sum may be off by an ulp
        ([(0.1, 0.3), (0.1, 0.40000001)], [Missed(1, 0.3, 0.40000001, 1, 2)]),
        ([(5, NAN), (5, 10), (5, NAN), (5, 15)], []),  # some without a count
        ([(5, 10), (NAN, 30)], []),  # a trade of unknown size explains any step
        ([(5, 10), (8, 15)], []),  # a step smaller than the trade: odd, but nothing is missed
    ],
)
def test_a_step_that_the_trades_do_not_explain_is_missed(trades: list[tuple[float, float]], missed: list[Missed]) -> None:
    batch = trades_of(*trades)
    assert Completeness(2).judge(batch) == missed
    assert not batch["ignore"].any()


@pytest.mark.parametrize("cuts", [(), (1,), (2,), (1, 2, 3, 4)])
def test_batches_do_not_matter(cuts: tuple[int, ...]) -> None:
    batch = trades_of((5, 105), (7, 112), (7, 112), (1, 120), (5, 105), (2, 122))
    judge = Completeness(2)
    parts = np.split(batch, cuts)
    found = [step for part in parts for step in judge.judge(part)]
    assert found == [Missed(1, 112, 120, 2, 4)]
    assert fates(np.concatenate(parts)) == ["", "", "duplicate", "", "duplicate", ""]


def test_a_late_trade_is_folded_and_not_reported_again() -> None:
    batch = trades_of((10, 10), (10, 30), (10, 20), (10, 20), (10, 40))
    assert Completeness(2).judge(batch) == [Missed(1, 10, 30, 1, 2)]
    assert fates(batch) == ["", "", "", "duplicate", ""]


def test_a_new_day_counts_anew() -> None:
    judge = Completeness(2)
    next_day = [{"size": 5, "acc_volume": 5, "acc_day": DAY + 1}, {"size": 5, "acc_volume": 11, "acc_day": DAY + 1}]
    batch = trades_of((5, 1000), (5, 1005), *next_day)
    assert judge.judge(batch) == [Missed(1, 5, 11, 3, 4)]
    assert fates(batch) == [""] * 4


def test_the_same_count_on_another_day_is_another_trade() -> None:
    batch = trades_of((5, 5), (5, 10), *[{"size": 5, "acc_volume": acc, "acc_day": DAY + 1} for acc in (5, 10, 10)])
    assert Completeness(2).judge(batch) == []
    assert fates(batch) == ["", "", "", "", "duplicate"]


def test_a_late_trade_of_yesterday_does_not_disturb_today() -> None:
    today = [{"size": 5, "acc_volume": acc, "acc_day": DAY + 1} for acc in (5, 10, 20, 10)]
    batch = trades_of((5, 1000), today[0], today[1], (5, 1005), today[2], today[3])
    assert Completeness(2).judge(batch) == [Missed(1, 10, 20, 4, 5)]
    assert fates(batch) == [""] * 5 + ["duplicate"]


def test_a_late_trade_of_yesterday_repeated_is_still_a_duplicate() -> None:
    batch = trades_of((5, 1000), {"size": 5, "acc_volume": 5, "acc_day": DAY + 1}, (5, 1000))
    assert Completeness(2).judge(batch) == []
    assert fates(batch) == ["", "", "duplicate"]


@pytest.mark.parametrize("ulps", range(-2, 6))
def test_volumes_beyond_the_exact_ones_are_compared_within_2_ulp(ulps: int) -> None:
    before, size = 2.0**53 + 2**20, 1000.0
    after = before + size + ulps * math.ulp(before)
    found = Completeness(2).judge(trades_of((1, before), (size, after)))
    assert found == ([Missed(1, before, after, 1, 2)] if ulps > 2 else [])


def test_a_whole_share_is_missed_up_to_15_digits() -> None:
    before = 999_999_999_999_993.0
    assert len(Completeness(2).judge(trades_of((1, before), (5, before + 6)))) == 1


@pytest.mark.parametrize("ids", [[1, 2, 1], [2**63 - 1, 5, 2**63 - 1], [3, 3]])
def test_ids_tell_repeated_trades_in_any_order(ids: list[int]) -> None:
    """Upbit's sequential_id is unique, but neither ordered nor below 2^53."""
    batch = trades_of(*[{"venue_seq": number, "size": 1.0, "acc_volume": NAN} for number in ids])
    assert Completeness(2).judge(batch) == []
    assert fates(batch) == [""] * (len(ids) - 1) + ["duplicate"]


def test_ids_that_differ_by_one_beyond_2_53_are_different() -> None:
    batch = trades_of(*[{"venue_seq": 17_840_000_001_010_004 + number, "size": 1.0, "acc_volume": NAN} for number in range(5)])
    Completeness(2).judge(batch)
    assert not batch["ignore"].any()


def test_of_a_trade_with_id_and_count_the_id_decides() -> None:
    row = {"size": 5.0, "acc_volume": 10.0}
    batch = trades_of(row | {"venue_seq": 1}, row | {"venue_seq": 2}, row | {"venue_seq": 1})
    Completeness(2).judge(batch)
    assert fates(batch) == ["", "", "duplicate"]


def test_what_has_no_identity_is_never_a_duplicate() -> None:
    batch = trades_of(*[{"size": 5.0, "acc_volume": NAN}] * 3)
    assert Completeness(2).judge(batch) == []
    assert not batch["ignore"].any()


@pytest.mark.parametrize(
    "row",
    [
        {"kind": INPUT_QUOTE, "size": NAN, "acc_volume": 500.0}, {"kind": INPUT_TICKER, "size": NAN, "acc_volume": 500.0},
        {"row": 0, "size": 1.0, "acc_volume": 500.0}, {"size": 1.0, "acc_volume": 500.0, "ignore": IGNORED.index("snapshot")},
        {"size": 1.0, "acc_volume": 500.0, "ignore": IGNORED.index("unknown_symbol")}, {"row": 2, "size": 1.0, "acc_volume": 500.0},
    ],
)  # fmt: skip
def test_what_is_no_trade_of_the_symbol_does_not_count(row: dict[str, Any]) -> None:
    batch = trades_of((5, 105), row, row, (5, 110))
    before = batch["ignore"].tolist()
    assert Completeness(3).judge(batch) == []
    assert batch["ignore"].tolist() == ([0, 0, DUPLICATE, 0] if row.get("row") == 2 else before)


def test_as_much_is_remembered_as_a_reconnect_repeats_and_no_more() -> None:
    for judge, some in (
        (Completeness(2), trades_of(*[{"venue_seq": number, "size": 1.0, "acc_volume": NAN} for number in range(5000)])),
        (Completeness(2), trades_of(*[(1, number) for number in range(5000)])),
    ):
        judge.judge(some)
        last = some[-500:].copy()
        judge.judge(last)
        assert fates(last) == ["duplicate"] * 500
        first = some[:500].copy()
        judge.judge(first)
        assert fates(first) == [""] * 500
        assert sum(len(ids.new) + len(ids.old) for ids in judge._ids) <= 1024
        assert sum(map(len, judge._steps)) <= 512


class Plain:
    """The same once more, for one counted symbol, with everything remembered."""

    def __init__(self) -> None:
        self.seen: set[tuple[float, int]] = set()
        self.newest: dict[int, float] = {}
        self.since = 0

    def judge(self, size: float, acc: float, day: int, recv: int) -> str | Missed:
        if (acc, day) in self.seen:
            return "duplicate"
        self.seen.add((acc, day))
        before = self.newest.get(day)
        if before is not None and acc < before:
            return ""
        since, self.since, self.newest[day] = self.since, recv, acc
        return Missed(1, before, acc, since, recv) if before is not None and acc - before > size else ""


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.integers(1, 20), min_size=1, max_size=6))
def test_any_history_equals_the_model(seed: int, sizes: list[int]) -> None:
    rng, judge, model, acc, day = random.Random(seed), Completeness(2), Plain(), 100, DAY
    sent: list[dict[str, Any]] = []
    for count in sizes:
        rows = []
        for _ in range(count):
            what = rng.choice(["next", "next", "next", "skip", "again", "day"])
            if what == "again" and sent:
                rows.append(dict(rng.choice(sent)))
            else:
                size = rng.randint(1, 9)
                if what == "day":
                    acc, day = 0, day + 1
                acc += size + (rng.randint(1, 5) if what == "skip" else 0)
                rows.append({"size": size, "acc_volume": acc, "acc_day": day})
                sent.append(rows[-1])
        rng.shuffle(rows)
        batch = trades_of(*rows)
        found = judge.judge(batch)
        verdicts = [model.judge(row["size"], row["acc_volume"], row["acc_day"], place) for place, row in enumerate(rows, 1)]
        assert [step for step in verdicts if isinstance(step, Missed)] == found
        assert fates(batch) == ["duplicate" if verdict == "duplicate" else "" for verdict in verdicts]
