"""How the archive writer drains one ring of one session: poll, turn into lines, flush, and only then free the ring.

Each drain starts behind what the disk already holds. `pump` reads from the ring into memory, `flush` makes it durable and
moves the ring's `durable`. A drain that cannot write stops reading when it holds `_HELD_ROWS`: the ring is the buffer, and
what it can no longer hold becomes a gap line with the reason of the trouble.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol
from zoneinfo import ZoneInfo

import numpy as np
import orjson

from obs.config.process import OldSession
from obs.record.events import SCOPE_OF_RING, event_line, gap_line, gap_payload
from obs.record.jsonl import SwingLines, TickLines
from obs.record.schema import EVENT_KINDS
from obs.ring import Consumer, Ring
from obs.segment.disk import Progress
from obs.segment.format import Series
from obs.segment.quarantine import QuarantineFile, QuarantineLog, last_quarantined
from obs.segment.reader import gap_lines, last_archived, last_archived_ns
from obs.segment.recover import recover_open
from obs.segment.textlog import TextLog, day_files, day_name, json_object, last_event_seqs, text_lines
from obs.segment.writer import SegmentOptions, SegmentWriter

BATCH_ROWS: Final = 4096
_HELD_ROWS: Final = 65536  # in memory, while the disk takes nothing
_HELD_BYTES: Final = 8 << 20
_OVERFLOW: Final = EVENT_KINDS.index("overflow")


class Drain(Protocol):
    """One ring of one session on its way to disk."""

    name: str
    consumer: Consumer
    reason: str  # why the ring could not be emptied, for the gap line of what it then lost
    lost: int  # records that were overwritten before they could be taken

    def pump(self, now_ns: int) -> int:
        """Take what the ring holds, up to BATCH_ROWS; return how many rows. No disk call."""
        ...

    def waiting_since(self) -> int:
        """`ts` of the oldest record in memory, 0 if there is none."""
        ...

    def flush(self) -> None:
        """Make durable what was taken, then free it. Raises DiskTrouble: nothing is lost, flush again."""
        ...

    def rotate(self, now_ns: int) -> None:
        """Seal what is due to be sealed. Raises DiskTrouble."""
        ...

    def finish(self) -> None:
        """Flush and seal: nothing more will come. Raises DiskTrouble."""
        ...


class Events:
    """The provider's text logs: system/events, the archive of both event rings, and the overflow file, a copy of a part."""

    def __init__(self, root: Path, provider: str, tz: ZoneInfo, progress: Progress) -> None:
        self.root, self.provider = root, provider
        self.folder = root / "system" / "events" / provider
        self.log = TextLog(root, self.folder, day_name(tz), progress)
        self.overflow = TextLog(root, root / "system" / "overflow" / provider, day_name(tz, "_overflow.jsonl"), progress)

    def add(self, row: np.void, session_id: str, ring: str) -> None:
        line = event_line(row, session_id, self.provider, ring)
        ts_ns = int(row["ts_ns"])
        self.log.append(line, ts_ns)
        if int(row["kind"]) == _OVERFLOW:
            self.overflow.append(line, ts_ns)

    def add_gap(self, line: bytes, ts_ns: int) -> None:
        self.log.append(line, ts_ns)

    def recover(self) -> None:
        """Bring both files to a whole-line end, durably. Raises DiskTrouble."""
        self.log.recover()
        self.overflow.recover("_overflow.jsonl")

    def flush(self) -> None:
        """Order: the events first; the overflow file is completed from them after a crash."""
        self.log.flush()
        self.overflow.flush()

    def known_gaps(self, session_id: str) -> set[tuple[Any, ...]]:
        """Return (ring, first_seq) of the archive gaps of a session that system/events holds."""
        found: set[tuple[Any, ...]] = set()
        for path in day_files(self.folder):
            for _, line in text_lines(path):
                if b'"sink":"archive"' in line and session_id.encode() in line:
                    gap = json_object(line)
                    place = gap.get("ring"), gap.get("first_seq")
                    if gap.get("session_id") == session_id and tuple(map(type, place)) == (str, int):
                        found.add(place)
        return found

    def open_loss_ns(self, session_id: str) -> int:
        """Return since when a link of a session was losing by its last line in system/events, the earliest of them; 0 if none was.

        A link names the start of its loss with each failed attempt; its gap line with the same start, or a success, ends it.
        """
        since: dict[str, int] = {}
        for path in day_files(self.folder):
            for _, line in text_lines(path):
                if not line.startswith((b'{"event_type":"reconnection_event"', b'{"event_type":"gap_marker"')):
                    continue
                event = json_object(line)
                if event.get("session_id") != session_id:
                    continue
                if event.get("event_type") == "gap_marker":
                    since = {link: start_ns for link, start_ns in since.items() if start_ns != event.get("gap_start_ns")}
                elif event.get("event_type") == "reconnection_event":
                    since.pop(str(event.get("link")), None)
                    if isinstance(event.get("lost_since_ns"), int):
                        since[str(event.get("link"))] = event["lost_since_ns"]
        return min(since.values(), default=0)

    def close(self) -> None:
        self.log.close()
        self.overflow.close()


class _Lap:
    """What a drain knows of a hole in its ring: sequences that were overwritten before they could be taken."""

    def __init__(self, provider: str, ring: Ring, archived_ns: Callable[[], int]) -> None:
        """`archived_ns`: finds the time of the last record that an earlier writer archived, 0 for none."""
        self._provider, self._session_id, self._ring = provider, ring.session_id, ring.name
        self._created_ns, self._archived_ns = ring.created_ns, archived_ns
        self.last_ts_ns = 0  # of the last record before a hole

    def line(self, first_seq: int, lost: int, end_ns: int, reason: str) -> bytes:
        since_ns = self.last_ts_ns or self._archived_ns() or self._created_ns
        payload = gap_payload(
            start_ns=min(since_ns, end_ns), end_ns=max(end_ns, self.last_ts_ns), scope=SCOPE_OF_RING.get(self._ring, "all"),
            reason=reason, session_id=self._session_id, provider=self._provider, ring=self._ring, sink="archive",
            first_seq=first_seq, last_seq=first_seq + lost - 1, lost=lost,
        )  # fmt: skip
        return gap_line(payload)


class SegmentDrain:
    """Ticks or swings to segments."""

    def __init__(self, ring: Ring, series: Series, options: SegmentOptions, events: Events, progress: Progress) -> None:
        """Recover what an earlier writer left and start behind it. Raises DiskTrouble."""
        self.name = ring.name
        self.consumer = Consumer(ring, "archive")
        self._session_id, self._events = ring.session_id, events
        self._lap = _Lap(series.provider, ring, lambda: last_archived_ns(series, ring.session_id))
        self.reason, self.lost = "ring_lap", 0
        self._encode = (TickLines if ring.name == "tick" else SwingLines)(series.provider, ring.session_id).encode
        # What the ring still holds is taken from it again, unless it is known to be fsynced.
        durable, oldest = self.consumer.durable, ring.oldest
        # A living feed overwrites on: what it would reach before it is taken again is kept as it is.
        keep_seq = (durable if durable >= oldest else oldest + ring.capacity // 4) - 1
        self.recovered = recover_open(series, ring.session_id, keep_seq, progress)
        self._copy_gaps(series)
        self.consumer.seek(last_archived(series, ring.session_id) + 1)
        self._writer = SegmentWriter(series, options, ring.session_id, progress)
        self._holes: list[tuple[int, bytes, int]] = []  # last seq, line, time: to be copied once durable
        self._rows_held = 0

    def _copy_gaps(self, series: Series) -> None:
        """Copy gap lines that a killed writer made durable in a segment but not yet in system/events."""
        lines = gap_lines(series, self._session_id)
        if not lines:
            return
        known = self._events.known_gaps(self._session_id)
        for line in lines:
            gap = orjson.loads(line)
            if (gap["ring"], gap["first_seq"]) not in known:
                self._events.add_gap(line, int(gap["gap_end_ns"]))
        self._events.flush()

    def pump(self, now_ns: int) -> int:
        if self._rows_held >= _HELD_ROWS:
            return 0
        batch = self.consumer.poll(BATCH_ROWS)
        rows = batch.rows
        if batch.lost:
            first = batch.first_seq - batch.lost
            end_ns = int(rows["ts_ns"][0]) if len(rows) else now_ns
            line = self._lap.line(first, batch.lost, end_ns, self.reason)
            self._writer.append_gap(line)
            self._holes.append((batch.first_seq - 1, line, end_ns))
            self.lost += batch.lost
        if len(rows):
            self._writer.append(self._encode(rows), batch.first_seq, rows["ts_ns"])
            self._lap.last_ts_ns = int(rows["ts_ns"][-1])
            self._rows_held += len(rows)
        if len(rows) < BATCH_ROWS:
            self.reason = "ring_lap"  # caught up: what is lost from now on is lost for another reason
        return len(rows)

    def waiting_since(self) -> int:
        return self._writer.oldest_ts_ns

    def flush(self) -> None:
        try:
            self._writer.flush()
        finally:
            self._freed()

    def _freed(self) -> None:
        """Free the ring up to what is durable, and copy gap lines that have become so."""
        durable = self._writer.durable_seq
        if durable + 1 > self.consumer.durable:
            self.consumer.durable = durable + 1
        if not self._writer.buffered_bytes:
            self._rows_held = 0
        while self._holes and self._holes[0][0] <= durable:
            _, line, ts_ns = self._holes.pop(0)
            self._events.add_gap(line, ts_ns)

    def rotate(self, now_ns: int) -> None:
        if self._writer.due(now_ns):
            self._writer.seal()

    def finish(self) -> None:
        try:
            self._writer.seal()
        finally:
            self._freed()


class EventDrain:
    """One event ring to system/events, where both lie in order of arrival."""

    def __init__(self, ring: Ring, events: Events) -> None:
        self.name = ring.name
        self.consumer = Consumer(ring, "archive")
        self._session_id, self._events = ring.session_id, events
        last = last_event_seqs(events.folder, [ring.session_id]).get((ring.session_id, ring.name), -1)
        self._lap = _Lap(events.provider, ring, lambda: 0 if last < 0 else sys.maxsize)  # an earlier writer's last one: not known
        self.consumer.seek(last + 1)
        self._oldest = 0
        self.reason, self.lost = "ring_lap", 0

    def pump(self, now_ns: int) -> int:
        if self._events.log.buffered >= _HELD_ROWS:
            return 0
        batch = self.consumer.poll(BATCH_ROWS)
        if batch.lost:
            end_ns = int(batch.rows["ts_ns"][0]) if len(batch.rows) else now_ns
            self._events.add_gap(self._lap.line(batch.first_seq - batch.lost, batch.lost, end_ns, self.reason), end_ns)
            self.lost += batch.lost
        if len(batch.rows) < BATCH_ROWS:
            self.reason = "ring_lap"
        for row in batch.rows:
            self._events.add(row, self._session_id, self.name)
            self._lap.last_ts_ns = int(row["ts_ns"])
        if len(batch.rows) and not self._oldest:
            self._oldest = int(batch.rows["ts_ns"][0])
        return len(batch.rows)

    def waiting_since(self) -> int:
        return self._oldest

    def flush(self) -> None:
        self._events.flush()
        self._oldest = 0
        self.consumer.durable = self.consumer.cursor

    def rotate(self, now_ns: int) -> None:
        """A day file ends by the first line of the next day."""

    def finish(self) -> None:
        self.flush()


class QuarantineDrain:
    """The quarantine ring to its file."""

    def __init__(self, ring: Ring, file: QuarantineFile, events: Events) -> None:
        self.name = ring.name
        self.consumer = Consumer(ring, "archive")
        last = last_quarantined(file.options, events.folder, ring.session_id)
        self._log = QuarantineLog(file, ring.session_id, events.log, last)
        self.consumer.seek(last + 1)
        self._oldest = 0
        self.reason, self.lost = "ring_lap", 0

    def pump(self, now_ns: int) -> int:
        if self._log.buffered_bytes >= _HELD_BYTES:
            return 0
        batch = self.consumer.poll(BATCH_ROWS)
        if batch.lost:
            self._log.lapped(batch.first_seq - batch.lost, batch.first_seq - 1, now_ns)
            self.lost += batch.lost
        if len(batch.rows):
            self._log.append(batch.rows)
            self._oldest = self._oldest or int(batch.rows["recv_ns"][0])
        return len(batch.rows)

    def waiting_since(self) -> int:
        return self._oldest

    def flush(self) -> None:
        durable = self._log.flush()
        self._oldest = 0
        if durable + 1 > self.consumer.durable:
            self.consumer.durable = durable + 1

    def rotate(self, now_ns: int) -> None:
        """A day file ends by the first line of the next day."""

    def finish(self) -> None:
        """Give up a message whose rest will never come, and flush."""
        self._log.finish()
        self.flush()


def lost_ring_gap(
    session: OldSession, ring: str, reason: str, last: int, begun_ns: int, provider: str, now_ns: int
) -> tuple[bytes, int]:
    """Return the gap line of a ring that is gone with what it held, and its time; `begun_ns`: what came before is archived."""
    end_ns = session.ended_ns or now_ns
    payload = gap_payload(
        start_ns=min(begun_ns, end_ns), end_ns=end_ns, scope=SCOPE_OF_RING.get(ring, "all"), reason=reason,
        session_id=session.session_id, provider=provider, ring=ring, sink="archive", first_seq=last + 1,
    )  # fmt: skip
    return gap_line(payload), end_ns
