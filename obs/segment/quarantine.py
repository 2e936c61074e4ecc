"""The quarantine file: the archive of the quarantine ring, data/quarantine/<provider>/<YYYYMMDD>.jsonl.

A message that could not be read (or a bad span of one) travels as consecutive CHUNK rows and leaves as one line:
    {"ts":…,"ts_ns":…,"reason":"fields","length":1234,"sha256":…,"whole":true,"kept_bytes":1234,"session_id":…,"provider":…,
     "first_seq":7,"last_seq":7,"data":"<base64 of the first kept_bytes>"}
Beyond `bytes_per_day` of kept bytes (of one local day) the bytes are left out and neighbouring messages of one flush and day are
counted in one row, so a flood cannot fill the disk and nothing goes uncounted:
    {"ts":…,"ts_ns":…,"reason":"quarantine_full","messages":12,"whole_messages":12,"length":…,"reasons":{"fields":12},
     "session_id":…,"provider":…,"first_seq":8,"last_seq":19,"data":null}
Both kinds account for every seq from first_seq to last_seq. A message of which a chunk was lapped is lost whole: its seqs and
the lapped ones are one gap line (ring_lap, ring "quarantine", sink "archive") in system/events, durable before the next line here.
A log of lines in two files is still one sequence: what is durable of it is always a prefix.
"""

from __future__ import annotations

import base64
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import numpy as np
import orjson

from obs.record.events import gap_line, gap_payload, iso_ms
from obs.segment.disk import Progress, silent
from obs.segment.format import whole_number
from obs.segment.textlog import TextLog, day_files, day_name, last_event_seqs, text_lines

RING: Final = "quarantine"
FULL: Final = "quarantine_full"


@dataclass
class _Counted:
    """Messages over the budget, one after the other, of one day and flush."""

    ts_ns: int
    first_seq: int
    last_seq: int = -1
    length: int = 0
    whole: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class QuarantineOptions:
    """Where the files lie, the market's zone (it dates them), and the kept bytes of one day."""

    root: Path
    provider: str
    tz: ZoneInfo
    bytes_per_day: int = 64 << 20

    @property
    def folder(self) -> Path:
        return self.root / "quarantine" / self.provider


class QuarantineFile:
    """The day files of one provider and their budget, shared by the logs of all its sessions. Safety: one thread."""

    def __init__(self, options: QuarantineOptions, progress: Progress = silent) -> None:
        self.options = options
        self.name_of = day_name(options.tz)
        self.log = TextLog(options.root, options.folder, self.name_of, progress)
        self._kept: dict[str, int] = {}

    def keep(self, name: str, size: int) -> bool:
        """Take `size` bytes of the budget of a day file; False if it has no room for them."""
        if name not in self._kept:
            self._kept = {name: kept_bytes(self.options.folder / name)}
        if self._kept[name] + size > self.options.bytes_per_day:
            return False
        self._kept[name] += size
        return True


class QuarantineLog:
    """Writes one session's quarantine ring. Safety: one thread.

    `events`: the provider's system/events log, which gets the gap lines. `last_seq`: `last_quarantined` of the session.
    """

    def __init__(self, file: QuarantineFile, session_id: str, events: TextLog, last_seq: int = -1) -> None:
        self._file = file
        self._session_id = session_id
        self._events = events
        self._message: list[np.void] = []  # the parts, in order, of a message that is not whole yet
        self._missing: tuple[int, int, int, int] | None = None  # first and last seq, first and last time, of a hole
        self._counted: _Counted | None = None
        self._pending: deque[tuple[bool, bytes, int]] = deque()  # (is a gap line, line, ts_ns), in seq order
        self._accounted_seq = last_seq
        self._durable_seq = last_seq
        self.over_budget_total = 0

    @property
    def durable_seq(self) -> int:
        """Last seq that a durable line accounts for; the parts of an unfinished message are behind it."""
        return self._durable_seq

    @property
    def buffered_bytes(self) -> int:
        """Bytes of lines in memory that are not durable yet; stop appending when a failing disk lets them grow."""
        return sum(len(line) for _, line, _ in self._pending) + self._file.log.buffered_bytes

    def append(self, rows: np.ndarray) -> None:
        """Take CHUNK rows in seq order, as polled; they are copied. A jump of seq is a lap. No disk call."""
        for row in rows:
            seq, part = int(row["seq"]), int(row["part"])
            if self._message and (seq != int(self._message[-1]["seq"]) + 1 or part != len(self._message)):
                self._give_up()
            if part != len(self._message):  # its head was lapped
                self._widen(seq, seq, int(row["recv_ns"]))
                continue
            self._message.append(row.copy())
            if part + 1 == int(row["parts"]):
                self._end_message()

    def lapped(self, first_seq: int, last_seq: int, ts_ns: int) -> None:
        """Say that these sequences were lapped; `ts_ns`: now. What is left of a cut message is lost with them."""
        self._give_up()
        self._widen(first_seq, last_seq, ts_ns)

    def finish(self) -> None:
        """Give up a message whose rest will never come: the ring is drained and its producer is gone."""
        self._give_up()

    def flush(self) -> int:
        """Make everything accounted for durable, in seq order; return `durable_seq`. Raises DiskTrouble; then flush again.

        Order: a line here is durable before a gap line that follows it, and the other way round, although they lie in two
        files, or `last_quarantined` could name a seq with an unwritten one before it.
        """
        self._end_hole()
        self._end_counted()
        while self._pending:
            is_gap, line, ts_ns = self._pending[0]
            if is_gap:
                self._file.log.flush()
                self._events.append(line, ts_ns)
            else:
                self._events.flush()
                self._file.log.append(line, ts_ns)
            self._pending.popleft()
        self._events.flush()
        self._file.log.flush()
        self._durable_seq = self._accounted_seq
        return self._durable_seq

    def _give_up(self) -> None:
        for row in self._message:
            self._widen(int(row["seq"]), int(row["seq"]), int(row["recv_ns"]))
        self._message = []

    def _widen(self, first: int, last: int, ts_ns: int) -> None:
        if self._missing is None:
            self._missing = (first, last, ts_ns, ts_ns)
        else:
            low, high, start, end = self._missing
            self._missing = (min(low, first), max(high, last), min(start, ts_ns), max(end, ts_ns))

    def _end_hole(self) -> None:
        if self._missing is None:
            return
        self._end_counted()
        first, last, start_ns, end_ns = self._missing
        first = min(first, self._accounted_seq + 1)  # a jump that nobody announced
        payload = gap_payload(
            start_ns=start_ns, end_ns=end_ns, scope="all", reason="ring_lap", session_id=self._session_id,
            provider=self._file.options.provider, ring=RING, sink="archive", first_seq=first, last_seq=last, lost=last - first + 1,
        )  # fmt: skip
        self._pending.append((True, gap_line(payload), end_ns))
        self._missing = None
        self._accounted_seq = last

    def _end_message(self) -> None:
        rows, self._message = self._message, []
        first = rows[0]
        low, high, ts_ns = int(first["seq"]), int(rows[-1]["seq"]), int(first["recv_ns"])
        if low > self._accounted_seq + 1:
            self._widen(self._accounted_seq + 1, low - 1, ts_ns)
        self._end_hole()
        self._accounted_seq = high
        data = b"".join(row["data"].tobytes()[: int(row["data_bytes"])] for row in rows)
        if not self._file.keep(self._file.name_of(ts_ns), len(data)):
            self._count(first, high)
            return
        self._end_counted()
        line = {
            "ts": iso_ms(ts_ns), "ts_ns": ts_ns, "reason": first["reason"].decode("ascii", "replace"),
            "length": int(first["total_bytes"]), "sha256": first["sha256"].tobytes().hex(), "whole": bool(first["whole"]),
            "kept_bytes": len(data), "session_id": self._session_id, "provider": self._file.options.provider, "first_seq": low,
            "last_seq": high, "data": base64.b64encode(data).decode(),
        }  # fmt: skip
        self._pending.append((False, orjson.dumps(line), ts_ns))

    def _count(self, first: np.void, last_seq: int) -> None:
        """Count a message over the budget."""
        ts_ns = int(first["recv_ns"])
        if self._counted is not None and self._file.name_of(self._counted.ts_ns) != self._file.name_of(ts_ns):
            self._end_counted()
        if self._counted is None:
            self._counted = _Counted(ts_ns, int(first["seq"]))
        counted = self._counted
        counted.last_seq, counted.ts_ns = last_seq, ts_ns
        counted.length += int(first["total_bytes"])
        counted.whole += int(first["whole"])
        counted.reasons[first["reason"].decode("ascii", "replace")] += 1
        self.over_budget_total += 1

    def _end_counted(self) -> None:
        counted, self._counted = self._counted, None
        if counted is None:
            return
        line = {
            "ts": iso_ms(counted.ts_ns), "ts_ns": counted.ts_ns, "reason": FULL, "messages": counted.reasons.total(),
            "whole_messages": counted.whole, "length": counted.length, "reasons": dict(counted.reasons),
            "session_id": self._session_id, "provider": self._file.options.provider, "first_seq": counted.first_seq,
            "last_seq": counted.last_seq, "data": None,
        }  # fmt: skip
        self._pending.append((False, orjson.dumps(line), counted.ts_ns))


def kept_bytes(path: Path) -> int:
    """Return the message bytes that a day's quarantine file keeps."""
    total = 0
    for _, line in text_lines(path):
        try:
            total += whole_number(orjson.loads(line).get("kept_bytes") or 0)
        except (orjson.JSONDecodeError, TypeError, AttributeError):
            continue
    return total


def last_quarantined(options: QuarantineOptions, events_folder: Path, session_id: str) -> int:
    """Return the last chunk seq of a session that a line in quarantine or a gap line in system/events accounts for; -1 if none.

    Quarantine files are few and bounded, so all of them are read. `recover` both logs first.
    """
    last = last_event_seqs(events_folder, [session_id]).get((session_id, RING), -1)
    for path in day_files(options.folder):
        for _, line in text_lines(path):
            try:
                value: dict[str, Any] = orjson.loads(line)
                if value["session_id"] == session_id:
                    last = max(last, whole_number(value["last_seq"]))
            except (orjson.JSONDecodeError, KeyError, TypeError):
                continue
    return last
