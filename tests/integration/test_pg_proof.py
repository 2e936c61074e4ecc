"""What audit and people read: counts, gaps, sessions, queries; and the loader of gap lines."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from decimal import Decimal
from typing import Any

import orjson
import psycopg
import pytest

from obs.clock import MINUTE_NS, minute_of
from obs.errors import LoadRetryable, OwnedElsewhere
from obs.pg import queries
from obs.pg.bars import fill_bars
from obs.pg.connect import connect
from obs.pg.gaps import GapLoader, TextPosition, moment
from obs.pg.loader import RingLoader
from obs.pg.proof import count_by_minute, gap_rows, session_rows, stream_ticks, watermarks
from obs.record.events import gap_key, gap_line, gap_payload
from tests.integration.pg_rows import START_NS, make_rows

SESSION = "sess_20260122_003105_kis_ab12"


def load(dsn: str, count: int) -> None:
    loader = RingLoader(dsn, "kis", SESSION, "one", lambda row, text: pytest.fail(text))
    loader.open()
    loader.commit(make_rows(0, count))
    loader.close()


def gap(event_seq: int | None, **more: Any) -> dict[str, Any]:
    start_ns = START_NS + (event_seq or 0) * 1000
    facts = {"scope": "scalp", "reason": "ws_disconnect", "session_id": SESSION, "provider": "kis"} | more
    line = gap_line(
        gap_payload(start_ns=start_ns, end_ns=start_ns + 301 * 10**9, **facts), None if event_seq is None else "event", event_seq
    )
    found: dict[str, Any] = orjson.loads(line)
    return found


def test_counts_by_minute(pg_dsn: str) -> None:
    load(pg_dsn, 20_000)
    rows = make_rows(0, 20_000)
    first = minute_of(START_NS) + MINUTE_NS
    inside = rows[(rows["ts_ns"] > first) & (rows["ts_ns"] <= first + 2 * MINUTE_NS)]
    expected: Counter[tuple[int, str]] = Counter()
    for row in inside:
        expected[minute_of(int(row["ts_ns"])), row["symbol"].decode()] += 1
    with connect(pg_dsn, "test") as conn:
        counts = count_by_minute(conn, "kis", first, first + 2 * MINUTE_NS)
    assert {(count.minute_ns, count.symbol): count.records for count in counts} == expected
    assert sum(count.trades for count in counts) == inside["trades"].sum()
    assert sum(count.quotes for count in counts) == inside["quotes"].sum()


@pytest.mark.parametrize(
    ("first", "last", "chunk"), [(0, 9999, 1000), (10, 10, 1000), (10, 509, 250), (5000, 2**40, 7), (20_000, 20_001, 5)]
)
def test_streamed_rows(pg_dsn: str, first: int, last: int, chunk: int) -> None:
    load(pg_dsn, 5010)
    with connect(pg_dsn, "test") as conn:
        chunks = list(stream_ticks(conn, SESSION, first, last, chunk))
    assert all(len(rows) <= chunk for rows in chunks)
    expected = make_rows(first, max(0, min(last, 5009) - first + 1))
    assert b"".join(rows.tobytes() for rows in chunks) == expected.tobytes()


def test_gap_lines_are_stored_once(pg_dsn: str) -> None:
    lines = [
        gap(1, symbol="005930", lost=3, acc_volume_before=1234567.5, acc_volume_after=1234570.5),
        gap(1, symbol="005930", lost=3),
        gap(2, inside={"ring": "event", "seq": 1}),
        gap(2, session_id=SESSION.replace("ab12", "ffff")),
        gap(None, sink="archive", first_seq=5, last_seq=9, lost=5, reason="disk_full"),
        gap(None, sink="archive", first_seq=5, last_seq=9, lost=5, reason="disk_full"),
        gap(None, sink="database", first_seq=5, last_seq=9, lost=5, reason="disk_full"),
        gap(None, sink="archive", ring="swing", first_seq=5, last_seq=9, lost=5, reason="disk_full"),
        gap(None, sink="archive", reason="ring_foreign"),
        gap(None, sink="archive", reason="ring_foreign"),
    ]
    loader = GapLoader(pg_dsn, "kis", "one")
    assert loader.open() == TextPosition("", 0)
    loader.commit(lines[:4], TextPosition("20260122.jsonl", 400))
    loader.commit(lines, TextPosition("20260122.jsonl", 1000))
    loader.commit([], TextPosition("20260123.jsonl", 0))
    assert loader.open() == TextPosition("20260123.jsonl", 0)
    loader.close()
    with connect(pg_dsn, "test") as conn:
        found = gap_rows(conn, "kis")
        assert [(mark.source_type, mark.last_seq, mark.file) for mark in watermarks(conn, "kis")] == [("gaps", 0, "20260123.jsonl")]
    assert sorted(map(gap_key, found), key=str) == sorted({gap_key(line) for line in lines}, key=str)
    (first,) = (row for row in found if row["event_seq"] == 1)
    for key, value in lines[0].items():
        if key.endswith("_ts"):
            assert first[key] == moment(lines[0][key.replace("_ts", "_ns")])
        elif key != "event_type":
            assert first[key] == value, key
    assert [row["inside"] for row in found if row["inside"]] == [{"ring": "event", "seq": 1}]


ODD_LINES: list[dict[str, Any]] = [
    {},
    {"provider": "kis"},
    {"provider": "kis", "session_id": "a\0b", "lost": 2**80, "gap_seconds": "long", "symbol": 5, "sink": ["x"], "first_seq": 1.5},
    {
        "provider": "kis",
        "gap_start_ts": "yesterday",
        "gap_start_ns": -(2**63),
        "inside": "a\\u0000b\0",
        "odd": {"n": 10**400, "\0": "\ud800"},
    },
    {
        "provider": "kis",
        "acc_volume_before": 1.7976931348623157e308,
        "acc_volume_after": float("nan"),
        "event_ring": "x",
        "gap_end_ns": 2**63 - 1,
    },
]


def test_odd_gap_lines_do_not_stop_the_loader(pg_dsn: str) -> None:
    loader = GapLoader(pg_dsn, "kis", "one")
    loader.open()
    for number, line in enumerate(ODD_LINES):
        loader.commit([{**line, "event_seq": number}], TextPosition("f", number))
    loader.close()
    with psycopg.connect(pg_dsn) as conn:
        assert conn.execute("SELECT count(*) FROM scalp_gaps").fetchone() == (len(ODD_LINES),)


def test_gap_loader_changes_hands(pg_dsn: str) -> None:
    old, new = GapLoader(pg_dsn, "kis", "old"), GapLoader(pg_dsn, "kis", "new")
    with pytest.raises(LoadRetryable):
        old.commit([], TextPosition("f", 1))
    old.open()
    old.commit([gap(1)], TextPosition("f", 1))
    assert new.open() == TextPosition("f", 1)
    with pytest.raises(OwnedElsewhere):
        old.commit([gap(2)], TextPosition("f", 2))
    with pytest.raises(OwnedElsewhere):
        old.open()
    new.commit([gap(2)], TextPosition("f", 2))
    for loader in (old, new):
        loader.close()
    with connect(pg_dsn, "test") as conn:
        assert [row["event_seq"] for row in gap_rows(conn, "kis")] == [1, 2]


def test_sessions_are_completed(pg_dsn: str) -> None:
    loader = GapLoader(pg_dsn, "kis", "one")
    loader.open()
    start = {"session_id": SESSION, "host": "h", "boot_id": "b", "code_version": "1", "config_hash": "c", "started_ns": START_NS}
    loader.save_sessions([start | {"rings": {"tick": 131072}}])
    loader.save_sessions([{"session_id": SESSION, "ended_ns": START_NS + 10**9, "final_seqs": {"tick": -1}, "host_death": False}])
    loader.save_sessions([start])
    loader.close()
    with connect(pg_dsn, "test") as conn:
        (row,) = session_rows(conn, "kis")
    assert (row["host"], row["rings"], row["final_seqs"], row["host_death"]) == ("h", {"tick": 131072}, {"tick": -1}, False)
    assert row["ended_at"] - row["started_at"] == timedelta(seconds=1)


def test_queries(pg_dsn: str) -> None:
    load(pg_dsn, 12_000)
    first = minute_of(START_NS)
    with connect(pg_dsn, "test") as conn:
        fill_bars(conn, "kis", first, first + 3 * MINUTE_NS)
    loader = GapLoader(pg_dsn, "kis", "one")
    loader.open()
    loader.commit([gap(1), gap(2, reason="mute")], TextPosition("f", 1))
    loader.close()

    async def ask() -> None:
        async with await queries.connect_reader(pg_dsn) as conn:
            latest = await queries.get_latest_ticks(conn, "kis", "005930", 3)
            assert [row["seq"] for row in latest] == [11997 - 43 * back for back in range(3)]
            start, end = moment(START_NS), moment(START_NS + 10**9)
            assert start is not None
            assert end is not None
            ranged = await queries.get_ticks_in_range(conn, "kis", "005930", start, end)
            assert [row["seq"] for row in ranged] == [43]
            assert ranged[0]["bid_size"] == Decimal(43 * 12_345) / 10**8
            bars = await queries.get_1m_bars(conn, "kis", "005930", start - timedelta(minutes=1), end + timedelta(minutes=5))
            assert [bar["minute"] for bar in bars] == [moment(first + place * MINUTE_NS) for place in range(3)]
            assert await queries.count_gaps(conn, "kis", start, end) == {"mute": 1, "ws_disconnect": 1}
            assert len(await queries.get_critical_gaps(conn, "kis", start, end)) == 2
            with pytest.raises(LoadRetryable):
                await queries._fetch(conn, "fill_bars", {"provider": "kis", "from_ts": start, "to_ts": end})

    asyncio.run(ask())
    with pytest.raises(LoadRetryable):
        asyncio.run(queries.connect_reader("host=/nonexistent"))
