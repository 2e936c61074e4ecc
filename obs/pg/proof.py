"""What the database says of itself, for the ledger: counts by minute, every row of a session, duplicates, gaps, watermarks.

All of it is read, nothing is cached. `conn` comes from obs.pg.connect.connect; every function raises LoadRetryable and
closes `conn` if the database goes away.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from psycopg.rows import dict_row

from obs.pg.connect import Connection, translated
from obs.pg.gaps import moment
from obs.pg.rows import SIGNATURE
from obs.pg.statements import statement
from obs.record.schema import BAR_SOURCES, FLAGS, KINDS, MARKETS, PHASES, QUALITIES, SIDES, SWING, SYMBOL_BYTES, TICK, VENUES


@dataclass(frozen=True, eq=False)
class _Streamed:
    """A statement whose tuples are a field count, then each value behind its length, all of fixed width; and what they become."""

    statement: str
    dtype: np.dtype
    coded: tuple[str, ...]  # PostgreSQL counts array elements from 1
    fields: Sequence[tuple[str, str]]

    @property
    def tuples(self) -> np.dtype:
        pairs = ((f"{kind}{name}", code) for name, code in self.fields for kind, code in (("#", ">i4"), ("", code)))
        return np.dtype([("count", ">i2"), *pairs])


_STREAMED: Final = {
    "tick": _Streamed("stream_ticks", TICK, ("market", "venue", "side", "phase", "quality", "kind"), (
        ("seq", ">i8"), ("ts_ns", ">i8"), ("event_ns", ">i8"), ("recv_ns", ">i8"), ("symbol", f"S{SYMBOL_BYTES}"), ("market", ">i2"),
        ("venue", ">i2"), ("side", ">i2"), ("phase", ">i2"), ("flags", ">i4"), ("mitigation_level", ">i2"), ("quality", ">i2"),
        ("kind", ">i2"), ("bid_price", ">f8"), ("ask_price", ">f8"), ("bid_size", ">f8"), ("ask_size", ">f8"), ("last_price", ">f8"),
        ("volume", ">f8"), ("open", ">f8"), ("high", ">f8"), ("low", ">f8"), ("acc_volume", ">f8"), ("venue_seq", ">i8"),
        ("trades", ">i8"), ("quotes", ">i8"),
    )),
    "swing": _Streamed("stream_swings", SWING, ("market", "venue", "bar_source", "quality"), (
        ("seq", ">i8"), ("ts_ns", ">i8"), ("bar_ns", ">i8"), ("recv_ns", ">i8"), ("symbol", f"S{SYMBOL_BYTES}"), ("market", ">i2"),
        ("venue", ">i2"), ("bar_source", ">i2"), ("mitigation_level", ">i2"), ("quality", ">i2"), ("open", ">f8"), ("high", ">f8"),
        ("low", ">f8"), ("close", ">f8"), ("volume", ">f8"), ("day_open", ">f8"), ("day_high", ">f8"), ("day_low", ">f8"),
        ("acc_volume", ">f8"), ("bid_price", ">f8"), ("ask_price", ">f8"),
    )),
}  # fmt: skip
_TABLES: Final = {
    "markets": list(MARKETS), "venues": list(VENUES), "sides": list(SIDES), "phases": list(PHASES), "flags": list(FLAGS),
    "qualities": list(QUALITIES), "kinds": list(KINDS), "bar_sources": list(BAR_SOURCES),
}  # fmt: skip


class MinuteCount(NamedTuple):
    """The stored rows of one minute (minute_ns, minute_ns + 60 s], session and symbol; trades and quotes are their sums."""

    minute_ns: int
    session_id: str
    symbol: str
    records: int
    trades: int
    quotes: int


class StoredSession(NamedTuple):
    """The stored rows of one session; records = distinct if and only if no sequence is stored twice."""

    session_id: str
    records: int
    first_seq: int
    last_seq: int
    distinct: int


class Watermark(NamedTuple):
    """One row of etl_watermark."""

    source_type: str
    provider: str
    session_id: str
    ring: str
    holder: str
    last_seq: int
    file: str | None


def stream_ticks(conn: Connection, session_id: str, first_seq: int, last_seq: int, chunk_rows: int = 50_000) -> Iterator[np.ndarray]:
    """Yield the stored TICK rows of a session; see stream_rows."""
    return stream_rows(conn, "tick", session_id, first_seq, last_seq, chunk_rows)


def stream_rows(
    conn: Connection, ring: str, session_id: str, first_seq: int, last_seq: int, chunk_rows: int = 50_000
) -> Iterator[np.ndarray]:
    """Yield the stored rows of a session and ring ("tick", "swing") with first_seq <= seq <= last_seq, in seq order.

    As arrays of the ring's dtype of <= chunk_rows, owned by the caller. Unknown values are as in the ring. Numbers come back as the
    float64 nearest to the stored decimal.
    """
    streamed = _STREAMED[ring]
    size = streamed.tuples.itemsize
    facts = {"session_id": session_id, "first_seq": first_seq, "last_seq": last_seq} | _TABLES
    head = len(SIGNATURE)
    with translated(conn), conn.cursor() as cur, cur.copy(statement(streamed.statement), facts) as copy:
        pending: list[bytes | bytearray | memoryview] = []
        for data in copy:
            row = data[head:]  # the signature comes in one piece with the first tuple, or with the trailer
            head = 0
            if len(row) == size:
                pending.append(row)
            else:
                assert len(row) == 2, f"a streamed tuple has {len(row)} bytes, expected {size}"
            if len(pending) == chunk_rows:
                yield _decoded(streamed, pending)
                pending = []
        if pending:
            yield _decoded(streamed, pending)


def _decoded(streamed: _Streamed, pending: list[bytes | bytearray | memoryview]) -> np.ndarray:
    tuples = np.frombuffer(b"".join(pending), streamed.tuples)
    rows = np.zeros(len(tuples), streamed.dtype)
    for name, _ in streamed.fields:
        rows[name] = tuples[name] - 1 if name in streamed.coded else tuples[name]
    rows["symbol"] = np.char.rstrip(tuples["symbol"], b" ")
    return rows


def count_by_minute(conn: Connection, provider: str, from_ns: int, to_ns: int) -> list[MinuteCount]:
    """Count the stored rows with from_ns < ts_ns <= to_ns by minute, session and symbol, in that order."""
    facts = {"provider": provider, "from_ns": from_ns, "to_ns": to_ns, "from_ts": moment(from_ns), "to_ts": moment(to_ns)}
    with translated(conn):
        return [MinuteCount(*row) for row in conn.execute(statement("count_by_minute"), facts)]


def sessions_stored(conn: Connection, provider: str, ring: str = "tick") -> list[StoredSession]:
    """Say how many rows of which sequences of a ring ("tick", "swing") each session of a provider has in its table."""
    name = {"tick": "sessions_stored", "swing": "swing_sessions_stored"}[ring]
    with translated(conn):
        return [StoredSession(*row) for row in conn.execute(statement(name), {"provider": provider})]


def duplicates(conn: Connection, session_id: str, limit: int = 1000) -> list[tuple[int, int]]:
    """Return (seq, rows) of every sequence that is stored more than once: always empty, or something is very wrong."""
    with translated(conn):
        found = conn.execute(statement("duplicates"), {"session_id": session_id, "limit": limit})
        return [(int(seq), int(count)) for seq, count in found]


def gap_rows(conn: Connection, provider: str) -> list[dict[str, Any]]:
    """Return every row of scalp_gaps of a provider by the names of its columns, in order of time.

    Times are datetimes, exact ones in gap_start_ns and gap_end_ns; `inside` and `more` are decoded JSON.
    """
    return _dicts(conn, "gaps", provider)


def session_rows(conn: Connection, provider: str) -> list[dict[str, Any]]:
    """Return every row of the table sessions of a provider, oldest first."""
    return _dicts(conn, "sessions", provider)


def watermarks(conn: Connection, provider: str) -> list[Watermark]:
    """Return the watermarks of a provider."""
    with translated(conn):
        return [Watermark(*row) for row in conn.execute(statement("watermarks"), {"provider": provider})]


def _dicts(conn: Connection, name: str, provider: str) -> list[dict[str, Any]]:
    with translated(conn), conn.cursor(row_factory=dict_row) as cur:
        return cur.execute(statement(name), {"provider": provider}).fetchall()
