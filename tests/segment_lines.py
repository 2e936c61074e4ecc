"""Records whose every value is a function of their seq, so that a wrong one shows itself. Shared by the segment tests."""

from __future__ import annotations

from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np

from obs.record.events import gap_line, gap_payload
from obs.record.jsonl import TickLines, decode_ticks
from obs.record.schema import TICK
from obs.segment.format import Series
from obs.segment.writer import SegmentOptions, SegmentWriter

NS = 1_000_000_000
SEOUL = ZoneInfo("Asia/Seoul")
SESSION = "sess_20260122_000000_kis_0a1b"
START_NS = 1_769_040_000_000_000_000  # 2026-01-22T09:00:00 in Seoul


def rows_of(first: int, count: int, start_ns: int = START_NS, step_ns: int = NS // 2) -> np.ndarray:
    rows = np.zeros(count, TICK)
    seq = np.arange(first, first + count)
    rows["seq"] = seq
    rows["ts_ns"] = start_ns + (seq + 1) * step_ns
    rows["recv_ns"] = rows["ts_ns"] - 1 - seq % 1000
    rows["symbol"] = [b"%06d" % (one % 41) for one in seq]
    rows["market"] = rows["venue"] = 1
    rows["venue_seq"] = -1
    for place, name in enumerate(("bid_price", "ask_price", "bid_size", "ask_size", "last_price", "volume", "open", "high", "low")):
        rows[name] = (seq * 7919 % 100_003 + place) / 100
    rows["acc_volume"] = seq * 3
    return rows


def lines_of(rows: np.ndarray, session: str = SESSION) -> list[bytes]:
    return TickLines("kis", session).encode(rows)


def gap_of(first: int, last: int, session: str = SESSION, end_ns: int = START_NS) -> bytes:
    return gap_line(
        gap_payload(
            start_ns=end_ns - NS, end_ns=end_ns, scope="scalp", reason="ring_lap", session_id=session, provider="kis", sink="archive",
            first_seq=first, last_seq=last, lost=last - first + 1,
        )
    )  # fmt: skip


def series_at(root: Path) -> Series:
    return Series(root, "scalp", "kis", "kr_stocks")


def writer_at(root: Path, session: str = SESSION, **options: object) -> SegmentWriter:
    return SegmentWriter(series_at(root), SegmentOptions(SEOUL, **options), session)


def put(writer: SegmentWriter, first: int, count: int, *, session: str = SESSION, **times: int) -> None:
    rows = rows_of(first, count, **times)
    writer.append(lines_of(rows, session), first, rows["ts_ns"])


def check_rows(lines: list[bytes]) -> list[int]:
    """Return the sequences of record lines, each of which must be the very record of its seq."""
    rows = decode_ticks(lines)
    for row in rows:
        seq = int(row["seq"])
        assert row["last_price"] == (seq * 7919 % 100_003 + 4) / 100, seq
        assert row["acc_volume"] == seq * 3, seq
        assert row["symbol"] == b"%06d" % (seq % 41), seq
    return [int(seq) for seq in rows["seq"]]
