"""Rows whose every value is a function of their sequence, so that a torn, lost or invented one shows itself."""

from __future__ import annotations

import numpy as np

from obs.clock import NS
from obs.pg.connect import connect
from obs.pg.proof import stream_rows
from obs.record.schema import DTYPES, SWING, TICK

START_NS = 1_769_041_865 * NS  # 2026-01-22T00:31:05Z
STEP_NS = 12_195_121
SYMBOLS = np.array([b"%06d" % (5930 + 10 * i) for i in range(41)] + [b"KRW-BTC", b"Q500001"])


def make_rows(first: int, count: int, step_ns: int = STEP_NS) -> np.ndarray:
    """Return the rows of sequences first .. first + count - 1."""
    seq = np.arange(first, first + count)
    rows = np.zeros(count, TICK)
    rows["seq"] = seq
    rows["ts_ns"] = START_NS + seq * step_ns
    rows["event_ns"] = np.where(seq % 7 == 0, 0, rows["ts_ns"] // NS * NS)
    rows["recv_ns"] = rows["ts_ns"] - seq % 1000 * 1001
    rows["symbol"] = SYMBOLS[seq % len(SYMBOLS)]
    rows["market"], rows["venue"], rows["phase"] = 1, 1, seq % 10
    rows["side"], rows["kind"], rows["quality"] = seq % 3, seq % 5, seq % 3
    rows["flags"] = np.where(seq % 11 == 0, seq % 1024, 0)
    rows["mitigation_level"] = seq % 3
    for place, field in enumerate(("bid_price", "ask_price", "last_price", "open", "high", "low")):
        rows[field] = np.where(seq % (5 + place) == 0, np.nan, (seq * 5 + place) / 100)
    for place, field in enumerate(("bid_size", "ask_size", "volume", "acc_volume")):
        rows[field] = (seq * 12_345 + place) / 1e8
    rows["venue_seq"] = np.where(seq % 2 == 0, -1, 2**53 + seq)
    rows["trades"], rows["quotes"] = seq % 4, seq % 2
    return rows


def make_swings(first: int, count: int) -> np.ndarray:
    """Return SWING rows of sequences first .. first + count - 1."""
    seq = np.arange(first, first + count)
    rows = np.zeros(count, SWING)
    rows["seq"] = seq
    rows["ts_ns"] = START_NS + seq * STEP_NS
    rows["bar_ns"] = np.where(seq % 7 == 0, 0, rows["ts_ns"] // (600 * NS) * 600 * NS)
    rows["recv_ns"] = np.where(seq % 13 == 0, 0, rows["ts_ns"] - seq % 1000 * 1001)
    rows["symbol"] = SYMBOLS[seq % len(SYMBOLS)]
    rows["market"], rows["venue"], rows["bar_source"] = seq % 5, seq % 9, seq % 2
    rows["mitigation_level"], rows["quality"] = seq % 3, seq % 3
    for place, field in enumerate(("open", "high", "low", "close", "day_open", "day_high", "day_low", "bid_price", "ask_price")):
        rows[field] = np.where(seq % (5 + place) == 0, np.nan, (seq * 5 + place) / 100)
    for place, field in enumerate(("volume", "acc_volume")):
        rows[field] = (seq * 12_345 + place) / 1e8
    return rows


def stored_rows(dsn: str, session_id: str, ring: str = "tick") -> np.ndarray:
    """Return everything stored of a session, in order of sequence."""
    with connect(dsn, "test") as conn:
        chunks = list(stream_rows(conn, ring, session_id, 0, 2**62, chunk_rows=10_000))
    return np.concatenate(chunks) if chunks else np.zeros(0, DTYPES[ring])


def same(found: np.ndarray, expected: np.ndarray) -> bool:
    """Compare rows value by value, NaN equal to NaN; also the padding, which is zero in both."""
    return found.tobytes() == expected.tobytes()
