"""One-minute bars: built from records they equal bars built from the trades directly."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg.rows import dict_row

from obs.clock import MINUTE_NS, NS, minute_of
from obs.pg.bars import fill_bars
from obs.pg.connect import connect
from obs.pg.loader import RingLoader
from obs.record.schema import KINDS, TICK
from tests.integration.pg_rows import START_NS

FIRST_SESSION = "sess_20260122_003105_kis_ab12"
SECOND_SESSION = "sess_20260122_003310_kis_0001"
MINUTE = minute_of(START_NS) + MINUTE_NS
HALF = NS // 2


@dataclass
class Trade:
    ns: int
    price: Decimal
    size: Decimal


@dataclass
class Bar:
    """A bar made from trades, the plain way."""

    trades: list[Trade] = field(default_factory=list)

    def values(self) -> tuple[Any, ...]:
        prices = [trade.price for trade in self.trades]
        volume = sum((trade.size for trade in self.trades), Decimal(0))
        if not prices:
            return (None, None, None, None, volume, 0)
        return (prices[0], max(prices), min(prices), prices[-1], volume, len(prices))


def trades_of(rng: random.Random, minutes: int) -> list[Trade]:
    """Make trades in bursts, some on the very borders of half seconds and minutes."""
    times = [MINUTE + rng.randrange(1, minutes * MINUTE_NS) for _ in range(rng.randrange(40, 400))]
    times += [MINUTE + rng.randrange(1, minutes * 120 + 1) * HALF + rng.choice([0, 0, 1, -1]) for _ in range(60)]
    times = sorted(ns for ns in times if MINUTE < ns <= MINUTE + minutes * MINUTE_NS)
    return [Trade(ns, Decimal(rng.randrange(1, 10**7)) / 100, Decimal(rng.randrange(1, 10**9)) / 10**8) for ns in times]


def records_of(trades: dict[bytes, list[Trade]], minutes: int) -> np.ndarray:
    """Sample trades at 2 Hz: one record for each half second and symbol, with the interval's own figures."""
    rows = np.zeros(minutes * 120 * len(trades), TICK)
    at = 0
    places = dict.fromkeys(trades, 0)
    last = dict.fromkeys(trades, np.nan)
    for step in range(1, minutes * 120 + 1):
        end = MINUTE + step * HALF
        for symbol, own in trades.items():
            first = places[symbol]
            while places[symbol] < len(own) and own[places[symbol]].ns <= end:
                places[symbol] += 1
            inside = own[first : places[symbol]]
            prices = [float(trade.price) for trade in inside]
            last[symbol] = prices[-1] if prices else last[symbol]
            row = rows[at : at + 1]
            row["seq"], row["ts_ns"], row["symbol"], row["market"] = at, end, symbol, 1
            row["open"], row["high"], row["low"] = (prices[0], max(prices), min(prices)) if prices else (np.nan,) * 3
            row["last_price"], row["trades"], row["quotes"] = last[symbol], len(prices), 1
            row["volume"] = float(sum((trade.size for trade in inside), Decimal(0)))
            at += 1
    return rows


def load(dsn: str, rows: np.ndarray, session_id: str = FIRST_SESSION) -> None:
    loader = RingLoader(dsn, "kis", session_id, "one", lambda row, text: pytest.fail(text))
    mark = loader.open()
    rows = rows.copy()
    rows["seq"] = np.arange(mark + 1, mark + 1 + len(rows))
    loader.commit(rows)
    loader.close()


def fill(dsn: str, from_ns: int, to_ns: int) -> int:
    with connect(dsn, "test") as conn:
        return fill_bars(conn, "kis", from_ns, to_ns)


def bars(dsn: str) -> list[dict[str, Any]]:
    with psycopg.connect(dsn, row_factory=dict_row) as conn:
        return conn.execute(
            "SELECT *, (extract(epoch FROM minute) * 1e9)::int8 AS minute_ns FROM scalp_1m_bars ORDER BY symbol, minute"
        ).fetchall()


def test_bars_of_records_are_bars_of_trades(pg_dsn: str) -> None:
    rng, minutes = random.Random(4), 4
    trades = {symbol: trades_of(rng, minutes) for symbol in (b"005930", b"000660", b"Q500001")}
    trades[b"QUIET"] = [Trade(MINUTE + 90 * NS, Decimal(5), Decimal(1))]
    rows = records_of(trades, minutes)
    half = len(rows) // 2 + 77
    load(pg_dsn, rows[:half])
    load(pg_dsn, rows[half:], SECOND_SESSION)
    assert fill(pg_dsn, MINUTE, MINUTE + minutes * MINUTE_NS) == minutes * len(trades)
    expected: dict[tuple[str, int], Bar] = defaultdict(Bar)
    for symbol, own in trades.items():
        for trade in own:
            expected[symbol.decode(), minute_of(trade.ns)].trades.append(trade)
    for bar in bars(pg_dsn):
        found = tuple(bar[name] for name in ("open", "high", "low", "close", "volume", "trades"))
        assert found == expected[bar["symbol"], bar["minute_ns"]].values(), (bar["symbol"], bar["minute"])
        assert (bar["coverage_ratio"], bar["records"], bar["quotes"], bar["market"]) == (1, 120, 120, "kr_stocks")
    first = bars(pg_dsn)
    assert fill(pg_dsn, MINUTE + 1, MINUTE + minutes * MINUTE_NS - 1) == minutes * len(trades)
    assert bars(pg_dsn) == first


def plain(count: int, start_ns: int, step_ns: int, level: int = 0, kind: str = "sample") -> np.ndarray:
    rows = np.zeros(count, TICK)
    rows["ts_ns"] = start_ns + np.arange(1, count + 1) * step_ns
    rows["symbol"], rows["mitigation_level"], rows["kind"] = b"005930", level, KINDS.index(kind)
    rows["volume"] = 0
    return rows


@pytest.mark.parametrize(
    ("parts", "coverage", "level"),
    [
        ([(120, HALF, 0, "sample")], "1", 0),
        ([(60, NS, 1, "sample")], "1", 1),
        ([(30, 2 * NS, 2, "sample")], "1", 2),
        ([(30, HALF, 0, "sample")], "0.25", 0),
        ([(60, HALF, 0, "sample"), (15, NS, 1, "sample")], "0.75", 1),
        ([(121, NS // 4, 0, "sample")], "1", 0),
        ([(1, NS, 0, "sample")], "0.008333", 0),
        ([(120, HALF, 0, "trade")], None, 0),
        ([(60, HALF, 0, "sample"), (1, NS, 0, "quote")], None, 0),
    ],
)
def test_coverage(pg_dsn: str, parts: list[tuple[int, int, int, str]], coverage: str | None, level: int) -> None:
    at = MINUTE
    for count, step, mitigation, kind in parts:
        load(pg_dsn, plain(count, at, step, mitigation, kind))
        at += count * step
    assert fill(pg_dsn, MINUTE, MINUTE + MINUTE_NS) == 1
    (bar,) = bars(pg_dsn)
    assert bar["coverage_ratio"] == (None if coverage is None else Decimal(coverage))
    assert (bar["mitigation_level"], bar["open"], bar["volume"], bar["trades"]) == (level, None, 0, 0)


def test_a_minute_ends_with_its_last_nanosecond(pg_dsn: str) -> None:
    rows = plain(4, MINUTE, 1)
    rows["ts_ns"] = [MINUTE, MINUTE + 1, MINUTE + MINUTE_NS, MINUTE + MINUTE_NS + 1]
    load(pg_dsn, rows)
    assert fill(pg_dsn, MINUTE, MINUTE + MINUTE_NS) == 1
    assert [(bar["minute_ns"], bar["records"]) for bar in bars(pg_dsn)] == [(MINUTE, 2)]
    assert fill(pg_dsn, MINUTE - MINUTE_NS, MINUTE + 2 * MINUTE_NS) == 3


def test_late_rows_change_a_bar(pg_dsn: str) -> None:
    load(pg_dsn, plain(60, MINUTE, HALF))
    fill(pg_dsn, MINUTE, MINUTE + MINUTE_NS)
    load(pg_dsn, plain(60, MINUTE + 30 * NS, HALF))
    fill(pg_dsn, MINUTE, MINUTE + MINUTE_NS)
    assert [(bar["records"], bar["coverage_ratio"]) for bar in bars(pg_dsn)] == [(120, 1)]


def test_another_provider_is_not_touched(pg_dsn: str) -> None:
    load(pg_dsn, plain(10, MINUTE, NS))
    with connect(pg_dsn, "test") as conn:
        assert fill_bars(conn, "upbit", MINUTE, MINUTE + MINUTE_NS) == 0
    assert bars(pg_dsn) == []
