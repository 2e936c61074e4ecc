"""Lines and rows are inverses, for every value a column may hold."""

from __future__ import annotations

import decimal
import math

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obs.errors import DecodeError
from obs.record.jsonl import SwingLines, TickLines, decode_swings, decode_ticks, is_gap
from obs.record.schema import BAR_SOURCES, FLAGS, KINDS, MARKETS, PHASES, QUALITIES, SIDES, SWING, TICK, VENUES

SESSION = "sess_20260122_003100_kis_0a1b"
TICKS = TickLines("kis", SESSION)
SWINGS = SwingLines("kis", SESSION)

SCALP_KEYS = [
    "ts",
    "event_time",
    "symbol",
    "bid_price",
    "ask_price",
    "bid_size",
    "ask_size",
    "last_price",
    "volume",
    "session_id",
    "mitigation_level",
    "quality_flag",
    "seq",
    "kind",
    "provider",
    "market",
    "venue",
    "side",
    "open",
    "high",
    "low",
    "trades",
    "quotes",
    "acc_volume",
    "venue_seq",
    "phase",
    "flags",
    "ts_ns",
    "event_ns",
    "recv_ns",
]
SWING_KEYS = [
    "ts",
    "session",
    "dataset",
    "market",
    "symbol",
    "price",
    "volume",
    "bid_price",
    "ask_price",
    "source",
    "bar_source",
    "day",
    "seq",
]

times = st.integers(1, 4_000_000_000_000_000_000)
symbols = st.text('ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-./_%"\\', min_size=1, max_size=20).map(str.encode)
decimals = st.builds(lambda digits, places: float(f"{digits}e-{places}"), st.integers(-(10**15) + 1, 10**15 - 1), st.integers(0, 12))
numbers = st.one_of(decimals, st.just(math.nan))


def code(names: tuple[str, ...]) -> st.SearchStrategy[int]:
    return st.integers(0, len(names) - 1)


def row_of(dtype: np.dtype, special: dict[str, st.SearchStrategy]) -> st.SearchStrategy[np.ndarray]:
    fields = {}
    for name in dtype.names:
        if name.startswith("pad"):
            continue
        fields[name] = special[name] if name in special else numbers if dtype[name].kind == "f" else times
    return st.fixed_dictionaries(fields).map(lambda values: fill(dtype, values))


def fill(dtype: np.dtype, values: dict) -> np.ndarray:
    row = np.zeros(1, dtype)
    for name, value in values.items():
        row[name] = value
    return row


tick_rows = row_of(TICK, {
    "symbol": symbols, "event_ns": st.one_of(st.just(0), times), "venue_seq": st.one_of(st.just(-1), st.integers(0, 2**63 - 1)),
    "market": code(MARKETS), "venue": code(VENUES), "side": code(SIDES), "phase": code(PHASES), "kind": code(KINDS),
    "quality": code(QUALITIES), "mitigation_level": st.integers(0, 2), "flags": st.integers(0, 2**32 - 1),
    "trades": st.integers(0, 2**32 - 1), "quotes": st.integers(0, 2**32 - 1), "seq": st.integers(0, 2**62),
})  # fmt: skip
swing_rows = row_of(SWING, {
    "symbol": symbols, "bar_ns": st.one_of(st.just(0), times), "market": code(MARKETS), "venue": code(VENUES),
    "quality": code(QUALITIES), "mitigation_level": st.integers(0, 2), "bar_source": code(BAR_SOURCES),
    "seq": st.integers(0, 2**62),
})  # fmt: skip


def same(left: np.ndarray, right: np.ndarray) -> bool:
    return left.tobytes() == right.tobytes() or all(
        ((left[name] == right[name]) | ((left[name] != left[name]) & (right[name] != right[name]))).all()
        for name in left.dtype.names
        if not name.startswith("pad")
    )


@given(st.lists(tick_rows, min_size=1, max_size=4).map(np.concatenate))
@settings(max_examples=300, deadline=None)
def test_ticks_round_trip(rows):
    lines = TICKS.encode(rows)
    assert same(decode_ticks(lines), rows)
    for line in lines:
        assert list(orjson.loads(line)) == SCALP_KEYS
        assert not is_gap(line)
        assert b"\n" not in line


@given(st.lists(swing_rows, min_size=1, max_size=4).map(np.concatenate))
@settings(max_examples=200, deadline=None)
def test_swings_round_trip(rows):
    lines = SWINGS.encode(rows)
    assert same(decode_swings(lines), rows)
    for line in lines:
        assert list(orjson.loads(line))[: len(SWING_KEYS)] == SWING_KEYS


@given(st.integers(-(10**15) + 1, 10**15 - 1), st.integers(0, 15))
@settings(max_examples=500, deadline=None)
def test_a_decimal_of_15_digits_keeps_its_value(digits, places):
    text = f"{digits}e-{places}"
    row = fill(TICK, {"symbol": b"A", "last_price": float(text), "ts_ns": 1})
    line = TICKS.encode(row)[0]
    spelled = line.split(b'"last_price":')[1].split(b",")[0].decode()
    assert decimal.Decimal(spelled) == decimal.Decimal(text)
    assert decode_ticks([line])["last_price"][0] == float(text)


def test_the_line_of_the_format_document():
    row = fill(TICK, {
        "seq": 1523, "ts_ns": 1_769_041_865_500_000_000, "event_ns": 1_769_041_865_120_999_999, "recv_ns": 1_769_041_865_130_000_001,
        "symbol": b"005930", "market": 1, "venue": 1, "side": 1, "phase": PHASES.index("regular"), "bid_price": 71450, "ask_price": 71500,
        "bid_size": 100, "ask_size": 50, "last_price": 71475.5, "volume": 10, "open": 71400, "high": 71500, "low": 71400,
        "acc_volume": math.nan, "venue_seq": -1, "trades": 4, "flags": 1 << FLAGS.index("crossed") | 1 << 31,
    })  # fmt: skip
    value = orjson.loads(TICKS.encode(row)[0])
    assert value == {
        "ts": "2026-01-22T00:31:05.500Z", "event_time": "2026-01-22T00:31:05.120Z", "symbol": "005930", "bid_price": 71450,
        "ask_price": 71500, "bid_size": 100, "ask_size": 50, "last_price": 71475.5, "volume": 10, "session_id": SESSION,
        "mitigation_level": 0, "quality_flag": "normal", "seq": 1523, "kind": "sample", "provider": "kis", "market": "kr_stocks",
        "venue": "krx", "side": "buy", "open": 71400, "high": 71500, "low": 71400, "trades": 4, "quotes": 0, "acc_volume": None,
        "venue_seq": None, "phase": "regular", "flags": ["crossed", "bit_31"], "ts_ns": 1_769_041_865_500_000_000,
        "event_ns": 1_769_041_865_120_999_999, "recv_ns": 1_769_041_865_130_000_001,
    }  # fmt: skip


def test_many_rows_are_the_lines_of_each():
    rng, count = np.random.default_rng(3), 2503  # some blocks and a part
    rows = np.zeros(count, TICK)
    rows["seq"] = np.arange(count)
    rows["symbol"], rows["side"] = rng.choice([b"005930", b"KRW-BTC"], count), rng.integers(0, 3, count)
    rows["last_price"], rows["flags"] = rng.choice([np.nan, 71450.0, 0.1], count), rng.integers(0, 4, count)
    lines = TICKS.encode(rows)
    assert lines == [line for at in range(count) for line in TICKS.encode(rows[at : at + 1])]
    assert decode_ticks(lines).tobytes() == rows.tobytes()


def test_no_rows_no_lines():
    assert TICKS.encode(np.zeros(0, TICK)) == []
    assert SWINGS.encode(np.zeros(0, SWING)) == []
    assert len(decode_ticks([])) == len(decode_swings([])) == 0


GOOD = TICKS.encode(fill(TICK, {"symbol": b"A", "ts_ns": 1}))[0]


@pytest.mark.parametrize("decode", [decode_ticks, decode_swings])
@pytest.mark.parametrize(
    "line",
    [
        b"", b"{", b"null", b"[]", b"{},{}", b"{}", GOOD[:-1], GOOD.replace(b'"seq":0', b'"seq":null'),
        GOOD.replace(b'"seq":0', b'"seq":1e400'), GOOD.replace(b'"symbol":"A"', b'"symbol":"ABCDEFGHIJKLMNOPQRSTU"'),
        GOOD.replace(b'"symbol":"A"', b'"symbol":7'), GOOD.replace(b'"kind":"sample"', b'"kind":"sampled"'),
        GOOD.replace(b'"flags":[]', b'"flags":["what"]'), GOOD.replace(b'"trades":0', b'"trades":-1'),
        GOOD.replace(b'"bid_price":0.0', b'"bid_price":"high"'), b'{"event_type":"gap_marker"}',
    ],
)  # fmt: skip
def test_what_is_no_record_is_an_error(decode, line):
    with pytest.raises(DecodeError):
        decode([line])
