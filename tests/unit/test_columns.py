"""Recorded lines in columns: every value in its place, gaps marked, and nothing that does not read is hidden."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from obs.cli.columns import Columns, number
from obs.cli.terminal import width
from obs.record.events import gap_line, gap_payload
from obs.record.jsonl import TickLines
from obs.record.schema import TICK

SESSION = "sess_20260122_003000_kis_0a1b"
START_NS = 1_769_041_800_000_000_000  # 2026-01-22 00:30:00 UTC


def line(symbol: str = "005930", provider: str = "kis", **values: Any) -> bytes:
    row = np.zeros(1, TICK)
    row["symbol"], row["ts_ns"], row["last_price"] = symbol.encode(), START_NS + 5_500_000_000, 70_000.0
    row["bid_price"], row["ask_price"], row["volume"] = 69_900.0, 70_000.0, 1234.0
    for name, value in values.items():
        row[name] = value
    return TickLines(provider, SESSION.replace("kis", provider)).encode(row)[0]


def gap(**changes: Any) -> bytes:
    facts: dict[str, Any] = {
        "start_ns": START_NS, "end_ns": START_NS + 45 * 10**9, "scope": "scalp", "reason": "ws_disconnect", "session_id": SESSION,
        "provider": "kis",
    }  # fmt: skip
    return gap_line(gap_payload(**{**facts, **changes}))


def test_a_record_is_a_row() -> None:
    columns = Columns(200)
    assert columns.head().split() == ["time", "(UTC)", "symbol", "price", "change", "volume", "bid", "/", "ask", "quality"]
    text, colour = columns.line(line())
    assert text.split() == ["00:30:05.500", "005930", "70,000", "-", "1,234", "69,900", "/", "70,000", "normal"]
    assert colour is None


def test_a_change_is_against_the_symbols_own_record_before() -> None:
    columns = Columns(200)

    def change(*words: Any, **values: Any) -> str:
        return columns.line(line(*words, **values))[0].split()[3]

    assert change() == "-"
    assert change("000660", last_price=50.0) == "-"
    assert change(provider="upbit", last_price=3.0) == "-"  # another venue's symbol of the same name
    assert change(last_price=69_900.0) == "-100"
    assert change(last_price=69_900.0) == "0"
    assert change(last_price=np.nan) == "-"
    assert change(last_price=70_000.5) == "+100.5"  # against the last that was known
    assert change("000660", last_price=50.25) == "+0.25"


@pytest.mark.parametrize(
    ("quality", "word", "colour"), [(0, "normal", None), (1, "degraded", "warning"), (2, "gap", "wrong"), (7, "7", "wrong")]
)
def test_quality_has_a_colour(quality: int, word: str, colour: str | None) -> None:
    text, found = Columns(200).line(line(quality=quality))
    assert (text.split()[-1], found) == (word, colour)


def test_gaps_are_marked_and_coloured_by_severity() -> None:
    columns = Columns(200)
    assert columns.line(gap()) == ("00:30:00.000  GAP 45 s until 00:30:45.000: ws_disconnect, kis all symbols (minor)", "warning")
    text, colour = columns.line(gap(symbol="005930", sink="archive", reason="ring_lap", lost=1700, end_ns=START_NS + 900 * 10**9))
    assert text == "00:30:00.000  GAP 900 s until 00:45:00.000: ring_lap by the archive, kis 005930, 1,700 lost (critical)"
    assert colour == "wrong"
    assert columns.line(gap(end_ns=START_NS))[1] == "warning"


@pytest.mark.parametrize("raw", [b"nonsense", b'{"a":1}', b"[]", b'{"event_type":"gap_marker"}', b'{"ts":null,"session_id":"x"}', b"\xff"])
def test_what_does_not_read_is_shown_as_it_stands(raw: bytes) -> None:
    assert Columns(200).line(raw) == (raw.decode("utf-8", "replace"), "wrong")


def test_nothing_recorded_steers_the_terminal() -> None:
    evil = "\x1b[2J\x9b\u202e"
    shown = r"\x1b[2J\x9b\u202e"
    record = line().replace(b'"005930"', b'"\\u001b[2J\\u009b\\u202e"')
    for raw in (record, gap(symbol=evil, provider=evil), evil.encode() + b"\x00", b'{"event_type":"gap_marker"}' + evil.encode()):
        text, _ = Columns(200).line(raw)
        assert text.isprintable()
        assert shown in text
    columns = Columns(200)
    columns.line(record)
    assert width(columns.line(line())[0].split("70,000")[0]) == width(columns.line(record)[0].split("70,000")[0])


@pytest.mark.parametrize(("room", "names"), [(100, 6), (80, 6), (60, 5), (45, 4), (33, 3), (20, 3)])
def test_the_least_needed_columns_make_room(room: int, names: int) -> None:
    columns = Columns(room)
    head = columns.head().replace("time (UTC)", "time").replace("bid / ask", "bid/ask").split()
    text, _ = columns.line(line())
    assert len(head) >= names
    assert head[:3] == ["time", "symbol", "price"]
    assert max(width(columns.head()), width(text)) <= max(room, 30)


def test_columns_grow_and_stay_aligned() -> None:
    columns = Columns(200)
    columns.line(line())
    wide, _ = columns.line(line("KRW-1INCH-LONG", "upbit", last_price=152_345_000.0, volume=0.00012345))
    narrow, _ = columns.line(line())
    assert wide.index("152,345,000") + len("152,345,000") == narrow.index("70,000") + len("70,000")


def test_numbers() -> None:
    assert [number(one) for one in (None, 0, 70_000.0, 0.00012345, 152_345_000.5, 1.5e12)] == [
        "-", "0", "70,000", "0.00012345", "152,345,000.5", "1,500,000,000,000",
    ]  # fmt: skip
