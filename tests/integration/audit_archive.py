"""A small archive with everything that an audit has to judge, written through the real writers, and loaded into a database.

Four minutes of three symbols at 2 Hz. Whole: inputs that were ignored, quarantined messages (two whole, one span, and some over
the day's budget), a feed that died in minute 1 and lost 5 inputs, a tick gap of the archive, a row that the database refuses,
a disconnect. Every figure follows from the records, so the audit of it closes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import orjson

from obs.clock import MINUTE_NS, NS
from obs.config import load
from obs.config.options import Config
from obs.pg.gaps import GapLoader, TextPosition
from obs.pg.loader import RingLoader
from obs.record.chunks import message_chunks
from obs.record.events import SCOPE_OF_RING, event_line, gap_line, gap_payload, make_event
from obs.record.jsonl import SwingLines, TickLines, decode_ticks
from obs.record.schema import SWING, TICK
from obs.segment.format import Frame, Series, compressor, pieces
from obs.segment.manifest import MANIFEST, describe, read_manifest
from obs.segment.quarantine import QuarantineFile, QuarantineLog, QuarantineOptions
from obs.segment.sessions import SessionStart, append_end, append_start
from obs.segment.textlog import TextLog, day_name
from obs.segment.writer import SegmentOptions, SegmentWriter

SEOUL = ZoneInfo("Asia/Seoul")
PROVIDER, MARKET = "kis", "kr_stocks"
SESSION = "sess_20260122_003000_kis_0a1b"
START_NS = 1_769_041_800_000_000_000  # 2026-01-22 00:30:00 UTC, 09:30 in Seoul
SYMBOLS = ("005930", "000660", "Q500001")
MINUTES = 4
RECORDS = MINUTES * 120 * len(SYMBOLS)
GAP = (500, 519)  # lost by the archive: the ring was lapped
REFUSED = 777  # refused by the database
LOST = {"005930": (2, 1), "000660": (2, 0)}  # trades, quotes of minute 1 that a dead feed never published


def records(first: int = 0, count: int = RECORDS) -> np.ndarray:
    """TICK rows whose every value is a function of their seq."""
    rows = np.zeros(count, TICK)
    seq = np.arange(first, first + count)
    rows["seq"] = seq
    rows["ts_ns"] = START_NS + (seq // len(SYMBOLS) + 1) * NS // 2
    rows["recv_ns"] = rows["event_ns"] = rows["ts_ns"] - 1 - seq % 1000
    rows["symbol"] = np.array([name.encode() for name in SYMBOLS])[seq % len(SYMBOLS)]
    rows["market"] = rows["venue"] = 1
    rows["venue_seq"] = -1
    rows["trades"], rows["quotes"] = seq % 5, seq % 3
    for place, name in enumerate(("bid_price", "ask_price", "bid_size", "ask_size", "last_price", "volume", "open", "high", "low")):
        rows[name] = (seq * 7919 % 100_003 + place) / 100
    rows["acc_volume"] = seq * 3 / 7
    rows["last_price"][seq == REFUSED] = 1e12
    return rows


SWING_GAP = (40, 44)  # bars that the archive lost
SWING_REFUSED = 70  # the database refused


def swings(count: int) -> np.ndarray:
    """SWING rows whose every value is a function of their seq: bars of one sweep after another."""
    rows = np.zeros(count, SWING)
    seq = np.arange(count)
    rows["seq"] = seq
    rows["bar_ns"] = START_NS - 600 * NS
    rows["ts_ns"] = rows["recv_ns"] = START_NS + seq * NS // 2 + 1
    rows["symbol"] = np.array([b"%06d" % number for number in seq])
    rows["market"] = rows["venue"] = 1
    rows["bar_source"] = seq % 2
    for place, name in enumerate(("open", "high", "low", "close", "day_open", "day_high", "day_low", "bid_price", "ask_price")):
        rows[name] = np.where((seq % 2 == 0) & (place in (1, 2)), np.nan, (seq * 7919 % 100_003 + place) / 100)
    rows["volume"], rows["acc_volume"] = seq * 3 / 7, seq * 5 / 7
    rows["close"][seq == SWING_REFUSED] = 1e12
    return rows


@dataclass
class Archive:
    """Writes the archive. Events are numbered as the event ring would number them."""

    root: Path
    ended: bool = True
    event_lines: list[tuple[bytes, int]] = field(default_factory=list)
    event_seq: int = 0
    gaps: list[dict[str, Any]] = field(default_factory=list)
    hidden: frozenset[int] = frozenset()  # event sequences that the archive lost
    bars: int = 0  # records of the swing ring

    @property
    def config(self) -> Config:
        return load(None, data=self.root, environ={}, cwd=self.root.parent)

    @property
    def events_path(self) -> Path:
        return self.root / "system" / "events" / PROVIDER / "20260122.jsonl"

    @property
    def series(self) -> Series:
        return Series(self.root, "scalp", PROVIDER, MARKET)

    def event(self, kind: str, payload: dict[str, Any], ts_ns: int, symbol: str = "") -> None:
        row = make_event(kind, ts_ns, payload, symbol=symbol)
        row["seq"] = self.event_seq
        if self.event_seq not in self.hidden:
            line = event_line(row, SESSION, PROVIDER, "event")
            self.event_lines.append((line, ts_ns))
            if kind == "gap_marker":
                self.gaps.append(orjson.loads(line))
        self.event_seq += 1

    def gap(self, start_ns: int, end_ns: int, reason: str, **facts: Any) -> None:
        payload = gap_payload(
            start_ns=start_ns, end_ns=end_ns, scope="scalp", reason=reason, session_id=SESSION, provider=PROVIDER, **facts
        )
        self.event("gap_marker", payload, end_ns)

    def archive_gap(self, ring: str, first: int, last: int, ts_ns: int, reason: str = "ring_lap") -> bytes:
        payload = gap_payload(
            start_ns=ts_ns - NS, end_ns=ts_ns, scope=SCOPE_OF_RING.get(ring, "scalp"), reason=reason, session_id=SESSION,
            provider=PROVIDER, ring=ring,
            sink="archive", first_seq=first, last_seq=last, lost=last - first + 1,
        )  # fmt: skip
        line = gap_line(payload)
        self.event_lines.append((line, ts_ns))
        self.gaps.append(orjson.loads(line))
        return line

    def write(self) -> Archive:
        self.root.mkdir(parents=True, exist_ok=True)
        rings = {"tick": 1024, "event": 64, "swing": 1024, "poll_event": 16, "quarantine": 16}
        append_start(self.root, SessionStart(SESSION, PROVIDER, START_NS - NS, "host", "boot", "0", "hash", rings))
        whole = self._quarantine()
        self._segments()
        self._swing_segments()
        self.event("lifecycle", {"what": "feed_started"}, START_NS)
        for minute in range(MINUTES):
            self._minute(minute, whole[minute])
        log = TextLog(self.root, self.events_path.parent, day_name(SEOUL))
        for line, ts_ns in self.event_lines:
            log.append(line, ts_ns)
        log.flush()
        log.close()
        if self.ended:
            rings = {"tick": RECORDS - 1, "event": self.event_seq - 1, "swing": self.bars - 1}
            rings |= {"poll_event": -1, "quarantine": self.chunks - 1}
            append_end(self.root, PROVIDER, SESSION, START_NS + 10 * MINUTE_NS, rings)
        return self

    def _minute(self, number: int, whole: int) -> None:
        """Publish what a minute gives: losses, then the counts, the provider's own last."""
        start_ns = START_NS + number * MINUTE_NS
        end_ns = start_ns + MINUTE_NS
        if number == 1:
            lost = sum(sum(pair) for pair in LOST.values())
            self.gap(start_ns + NS, start_ns + 2 * NS, "restart", lost=2, of_session=SESSION)
            self.gap(start_ns + NS, start_ns + 3 * NS, "restart", lost=lost, of_session=SESSION)
        if number == 2:
            self.gap(start_ns, start_ns + 45 * NS, "ws_disconnect")
        rows = records()
        inside = rows[(rows["ts_ns"] > start_ns) & (rows["ts_ns"] <= end_ns)]
        common = {"minute_ns": start_ns, "of_session": SESSION, "n": number + 1}
        for symbol in SYMBOLS:
            mine = inside[inside["symbol"] == symbol.encode()]
            lost_trades, lost_quotes = LOST.get(symbol, (0, 0)) if number == 1 else (0, 0)
            trades, quotes = int(mine["trades"].sum()) + lost_trades, int(mine["quotes"].sum()) + lost_quotes
            ignored = {"snapshot": 1, "duplicate": 2} if number == 0 else {}
            payload = {
                **common, "symbol": symbol, "inputs": trades + quotes + sum(ignored.values()), "trades": trades, "quotes": quotes,
                "lost_trades": lost_trades, "lost_quotes": lost_quotes, "ignored": ignored,
            }  # fmt: skip
            for _ in range(2 if number == 1 else 1):  # published again by the next feed
                self.event("counts", payload, end_ns + NS // 10, symbol)
        last = int(inside["seq"][-1])
        payload = {
            **common, "symbol": None, "messages": 100 + 7 + whole, "data": 100, "control": 7, "quarantined": whole, "lost_quarantined": 0,
            "tick_seq": last + 1, "symbols": len(SYMBOLS),
        }  # fmt: skip
        self.event("counts", payload, end_ns + NS // 10)

    def _segments(self) -> None:
        writer = SegmentWriter(self.series, SegmentOptions(SEOUL, 60, 1 << 20, 1), SESSION)
        lines = TickLines(PROVIDER, SESSION)
        for first in range(0, RECORDS, 90):
            rows = records(first, 90)
            for part in (rows[rows["seq"] < GAP[0]], rows[rows["seq"] > GAP[1]]):
                if len(part):
                    if part["seq"][0] == GAP[1] + 1:
                        writer.append_gap(self.archive_gap("tick", *GAP, int(part["ts_ns"][0])))
                    writer.append(lines.encode(part), int(part["seq"][0]), part["ts_ns"])
            writer.flush()
        if self.ended:
            writer.seal()

    def _swing_segments(self) -> None:
        if not self.bars:
            return
        writer = SegmentWriter(Series(self.root, "swing", PROVIDER, MARKET), SegmentOptions(SEOUL, 3600, 1 << 20, 1), SESSION)
        lines, rows = SwingLines(PROVIDER, SESSION), swings(self.bars)
        for part in (rows[rows["seq"] < SWING_GAP[0]], rows[rows["seq"] > SWING_GAP[1]]):
            if part["seq"][0] > SWING_GAP[1]:
                writer.append_gap(self.archive_gap("swing", *SWING_GAP, int(part["ts_ns"][0])))
            writer.append(lines.encode(part), int(part["seq"][0]), part["ts_ns"])
            writer.flush()
        if self.ended:
            writer.seal()

    def _quarantine(self) -> list[int]:
        """Return how many whole messages were set aside in each minute."""
        events = TextLog(self.root, self.root / "nowhere", day_name(SEOUL))
        file = QuarantineFile(QuarantineOptions(self.root, PROVIDER, SEOUL, 9000))
        log = QuarantineLog(file, SESSION, events)
        told = [(0, b"x" * 5000, True), (1, b"span", False), (1, b"broken", True), (2, b"y" * 6000, True), (3, b"z" * 6000, True)]
        whole = [0] * MINUTES
        seq = 0
        for minute, data, is_whole in told:
            rows = message_chunks(data, START_NS + minute * MINUTE_NS + 5 * NS, "fields", whole=is_whole)
            rows["seq"] = np.arange(seq, seq + len(rows))
            seq += len(rows)
            log.append(rows)
            whole[minute] += is_whole
        log.flush()
        self.chunks = seq
        return whole

    def load(self, dsn: str, upto: int = RECORDS) -> None:
        """Load records before `upto` and all gap lines, as the loader does."""
        kept = TextLog(self.root, self.root / "quarantine" / PROVIDER, day_name(SEOUL, "_rejected.jsonl"))

        def keep(row: np.void, text: str) -> None:
            line = orjson.loads(TickLines(PROVIDER, SESSION).encode(np.array([row], TICK))[0])
            kept.append(orjson.dumps({**line, "error": text}), int(row["ts_ns"]))
            kept.flush()

        loader = RingLoader(dsn, PROVIDER, SESSION, "test", keep)
        loader.open()
        rows = records()[:upto]
        outside = (rows["seq"] < GAP[0] + 5) | (rows["seq"] > GAP[1])  # the first five had been loaded from the ring
        line = next(gap for gap in self.gaps if gap["sink"] == "archive" and gap["ring"] == "tick")
        gap = {**line, "sink": "database", "first_seq": GAP[0] + 5, "lost": GAP[1] - GAP[0] - 4}
        loader.commit(rows[outside], [gap] if upto > GAP[1] else [])
        loader.close()
        if self.bars:
            self._load_swings(dsn, kept)
        gaps = GapLoader(dsn, PROVIDER, "test")
        gaps.open()
        gaps.commit(self.gaps, TextPosition(self.events_path.name, self.events_path.stat().st_size))
        if self.ended and upto == RECORDS:
            gaps.save_sessions([{"session_id": SESSION, "started_ns": START_NS, "ended_ns": START_NS + 10 * MINUTE_NS}])
        gaps.close()


    def _load_swings(self, dsn: str, kept: TextLog) -> None:
        lines = SwingLines(PROVIDER, SESSION)

        def keep(row: np.void, text: str) -> None:
            line = orjson.loads(lines.encode(np.array([row], SWING))[0])
            kept.append(orjson.dumps({**line, "session_id": SESSION, "ring": "swing", "error": text}), int(row["ts_ns"]))
            kept.flush()

        loader = RingLoader(dsn, PROVIDER, SESSION, "test", keep, "swing")
        loader.open()
        rows = swings(self.bars)
        line = next(gap for gap in self.gaps if gap["sink"] == "archive" and gap["ring"] == "swing")
        outside = (rows["seq"] < SWING_GAP[0]) | (rows["seq"] > SWING_GAP[1])
        loader.commit(rows[outside], [{**line, "sink": "database"}])
        loader.close()


def rewrite(path: Path, change: Callable[[list[bytes]], list[bytes]], *, honest: bool = True) -> None:
    """Replace the lines of a sealed segment; `honest`: its manifest line tells of the new file, as a forger would see to."""
    lines = [line for piece in pieces(path.read_bytes()) if isinstance(piece, Frame) for line in piece.lines]
    path.chmod(0o640)
    path.write_bytes(compressor(1).compress(b"\n".join(change(lines)) + b"\n"))
    if honest:
        series = Series(path.parents[4], "scalp", PROVIDER, MARKET)
        sealed, _ = describe(series, path)
        assert sealed is not None
        known = read_manifest(path.parent) | {path.name: sealed}
        (path.parent / MANIFEST).write_bytes(b"".join(one.line() + b"\n" for one in known.values()))


def segments(root: Path) -> list[Path]:
    return sorted((root / "scalp").rglob("*.jsonl.zst"))


def segment_of(root: Path, seq: int) -> Path:
    """Return the sealed segment that holds a record."""
    for path in segments(root):
        if any(int(row["seq"]) == seq for rows in read_rows(path) for row in rows):
            return path
    raise AssertionError(seq)


def read_rows(path: Path) -> Iterator[np.ndarray]:
    for piece in pieces(path.read_bytes()):
        if isinstance(piece, Frame):
            yield decode_ticks([line for line in piece.lines if not line.startswith(b'{"event_type"')])
