"""Guards: each fires where it must and only there; none drops or changes a record."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from obs.record.schema import FLAGS, PHASES, TICK
from obs.sample.guards import Before, History, flags_of

NAN = math.nan
S = 10**9
T0 = 1_784_000_000 * S
GOOD = {
    "event_ns": T0, "recv_ns": T0, "bid_price": 99.0, "ask_price": 101.0, "bid_size": 5.0, "ask_size": 6.0, "last_price": 100.0,
    "volume": 10.0, "open": 100.0, "high": 101.0, "low": 99.0, "trades": 3, "quotes": 1, "phase": "regular",
}  # fmt: skip
BEFORE = {"base": 100.0, "price": 100.0, "event_ns": T0 - S, "volume": 10.0}
ALL_UNKNOWN = dict.fromkeys(("bid_price", "ask_price", "bid_size", "ask_size", "last_price", "open", "high", "low"), NAN)


def record_of(**changed: Any) -> np.ndarray:
    record = np.zeros(1, TICK)
    for name, value in (GOOD | changed).items():
        record[name] = PHASES.index(value) if name == "phase" else value
    return record


def fired(record: np.ndarray, **before: Any) -> set[str]:
    known = BEFORE | before
    told = Before(np.array([known["price"]]), np.array([known["event_ns"]]), np.array([known["volume"]]))
    flags = int(flags_of(record, np.array([known["base"]]), told)[0])
    return {name for place, name in enumerate(FLAGS) if flags >> place & 1}


@pytest.mark.parametrize(
    ("changed", "before", "expected"),
    [
        ({}, {}, set()),
        (ALL_UNKNOWN | {"trades": 0, "volume": 0.0, "event_ns": 0}, {}, set()),
        (ALL_UNKNOWN | {"trades": 0, "volume": 0.0}, {"base": NAN, "price": NAN, "volume": NAN, "event_ns": 0}, set()),
        # 30 % from the previous close, of a record with trades
        ({"last_price": 130.0}, {"price": 130.0}, set()),
        ({"last_price": 130.01}, {"price": 130.0}, {"price_limit"}),
        ({"last_price": 70.0}, {"price": 70.0}, set()),
        ({"last_price": 69.99}, {"price": 70.0}, {"price_limit"}),
        ({"last_price": 200.0}, {"price": 200.0, "base": NAN}, set()),
        ({"last_price": 200.0, "trades": 0}, {"price": 200.0}, set()),
        # 5 % between two records
        ({"last_price": 105.0}, {}, set()),
        ({"last_price": 105.01}, {}, {"price_jump"}),
        ({"last_price": 94.99}, {}, {"price_jump"}),
        ({"last_price": 110.0}, {"price": NAN}, set()),
        ({"last_price": 110.0, "trades": 0}, {}, set()),
        # 10 times the usual volume
        ({"volume": 100.0}, {}, set()),
        ({"volume": 100.01}, {}, {"volume_spike"}),
        ({"volume": 1e9}, {"volume": NAN}, set()),
        # time
        ({"event_ns": T0 - S}, {}, set()),
        ({"event_ns": T0 - S - 1}, {}, {"time_backwards"}),
        ({"event_ns": 0}, {}, set()),
        ({"event_ns": T0 - S - 1}, {"event_ns": 0}, set()),
        ({"event_ns": T0 + 5 * S}, {}, set()),
        ({"event_ns": T0 + 5 * S + 1}, {}, {"time_ahead"}),
        ({"event_ns": T0 - 86_400 * S}, {"event_ns": 0}, set()),
        ({"event_ns": T0 - 86_400 * S - 1}, {"event_ns": 0}, {"time_behind"}),
        ({"event_ns": 2**63 - 1}, {}, {"time_ahead"}),
        ({"event_ns": -(2**63)}, {"event_ns": 0}, {"time_behind", "time_backwards"}),
        # a crossed book, which an auction may have
        ({"bid_price": 101.0}, {}, set()),
        ({"bid_price": 101.1}, {}, {"crossed"}),
        ({"bid_price": 101.1, "phase": ""}, {}, {"crossed"}),
        *[({"bid_price": 101.1, "phase": phase}, {}, set()) for phase in ("pre_open", "closing", "expected", "after_hours")],
        *[({"bid_price": 101.1, "phase": phase}, {}, {"crossed"}) for phase in ("pre_market", "after_market", "off_board", "halted")],
        ({"bid_price": 101.1, "ask_price": NAN}, {}, set()),
        # range
        ({"bid_price": 0.0}, {}, {"bad_range"}),
        ({"ask_price": 0.0}, {}, {"bad_range", "crossed"}),
        ({"last_price": 0.0, "trades": 0}, {}, {"bad_range"}),
        ({"last_price": -1.0, "trades": 0}, {}, {"bad_range"}),
        ({"bid_size": -1.0}, {}, {"bad_range"}),
        ({"ask_size": -0.5}, {}, {"bad_range"}),
        ({"volume": -1.0}, {}, {"bad_range"}),
        ({"bid_size": 0.0, "ask_size": 0.0, "volume": 0.0}, {}, set()),
        # order of open, high and low
        ({"high": 98.0, "low": 99.0, "open": 98.5}, {}, {"ohlc_order"}),
        ({"open": 101.5}, {}, {"ohlc_order"}),
        ({"open": 98.5}, {}, {"ohlc_order"}),
        ({"open": 101.0}, {}, set()),
        ({"open": 99.0}, {}, set()),
        ({"open": NAN}, {}, set()),
        # several at once
        ({"last_price": 200.0, "volume": 1e6, "bid_size": -1.0}, {}, {"price_limit", "price_jump", "volume_spike", "bad_range"}),
    ],
)  # fmt: skip
def test_a_guard_fires_where_it_must_and_nowhere_else(changed: dict[str, Any], before: dict[str, Any], expected: set[str]) -> None:
    record = record_of(**changed)
    as_it_was = record.tobytes()
    assert fired(record, **before) == expected
    assert record.tobytes() == as_it_was, "a guard flags, it changes nothing"


def test_every_flag_but_the_symbol_pattern_has_a_guard() -> None:
    """Symbols are judged by their pattern where they are configured: none other reaches a record."""
    marks = next(mark for mark in test_a_guard_fires_where_it_must_and_nowhere_else.pytestmark if mark.name == "parametrize")  # type: ignore[attr-defined]
    assert set().union(*[case[2] for case in marks.args[1]]) == set(FLAGS) - {"symbol_pattern"}


def test_records_are_judged_one_by_one() -> None:
    records = np.concatenate([record_of(), record_of(last_price=200.0), record_of()])
    told = Before(np.full(3, 100.0), np.zeros(3, np.int64), np.full(3, NAN))
    assert (flags_of(records, np.full(3, 100.0), told) != 0).tolist() == [False, True, False]
    assert len(flags_of(records[:0], np.zeros(0), Before(np.zeros(0), np.zeros(0, np.int64), np.zeros(0)))) == 0


def test_history_tells_what_was_before_each_record_of_a_row() -> None:
    history = History(3)
    rows = np.array([1, 2, 1, 1])
    records = np.concatenate([record_of(last_price=price, event_ns=event) for price, event in ((1, 9), (2, 5), (3, 4), (4, 9))])
    told = history.before(rows, records)
    assert np.array_equal(told.price, [NAN, NAN, 1.0, 3.0], equal_nan=True)
    assert told.event_ns.tolist() == [0, 0, 9, 9], "the newest, not the last"
    assert np.isnan(told.volume).all()


def test_usual_volume_is_known_after_20_records_with_trades() -> None:
    history = History(2)
    quiet, busy = record_of(trades=0, volume=0.0), record_of(volume=7.0)
    for number in range(30):
        told = history.before(np.array([1, 1]), np.concatenate([busy, quiet]))
        usual = told.volume.tolist()
        assert all(volume == 7.0 for volume in usual) if number >= 20 else math.isnan(usual[0])
