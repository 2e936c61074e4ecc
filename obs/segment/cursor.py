"""Follows one session's segments in seq order, from any seq, across files, while they grow and are sealed.

Used by the loader to catch up and by `tail -f`. It keeps one file open (a rename does not disturb that) and reads on from
where it stopped. Order: it asks whether a file is sealed before it reads to its end, never after, or the last frames
would be missed.
"""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from obs.record.events import SCOPE_OF_RING, gap_payload
from obs.record.jsonl import is_gap
from obs.segment.format import OPEN_SUFFIX, Series, line_ns, line_span, next_frame, read_frame
from obs.segment.reader import Segment, find

_CHUNK_BYTES: Final = 4 << 20


@dataclass
class _Reading:
    """The file being read. `data[at:]` are bytes that are read from disk and not yet used; `data` ends at `end` of the file."""

    path: Path  # sealed name
    fd: int
    sealed: bool
    last_seq: int | None
    data: bytes = b""
    at: int = 0
    end: int = 0

    def more(self) -> bool:
        """Read on; False at the end of the file."""
        chunk = os.pread(self.fd, _CHUNK_BYTES, self.end)
        if chunk:
            self.data, self.at = self.data[self.at :] + chunk, 0
            self.end += len(chunk)
        return bool(chunk)

    def is_sealed(self) -> bool:
        try:
            now = os.stat(self.path.with_name(self.path.name + OPEN_SUFFIX))
        except FileNotFoundError:
            return True
        return now.st_ino != os.fstat(self.fd).st_ino

    def frame(self) -> list[bytes]:
        """Return the lines of the next whole frame, passing over damage that a whole frame follows; none if there is none."""
        while True:
            end, raw, _ = read_frame(self.data, self.at)
            if end >= 0:
                self.at = end
                lines = raw[:-1].split(b"\n")
                if _reads(lines):
                    return lines
                continue  # damage, although it is a whole frame
            if self.more():
                continue
            # Damage, or a write in progress: only a whole frame further on tells that it is damage.
            following = next_frame(self.data, self.at + 1)
            if following >= len(self.data):
                return []
            self.at = following


class SegmentCursor:
    """Reads one session of a series. Safety: one thread; any number of cursors beside the writer, in any process."""

    def __init__(self, series: Series, session_id: str) -> None:
        self._series = series
        self._session_id = session_id
        self._next = -1  # what the caller has: all before it
        self._planned = -1  # what the queue reaches
        self._queue: deque[tuple[int, list[bytes] | dict[str, Any]]] = deque()  # (first seq, records) or (first seq, gap)
        self._reading: _Reading | None = None
        self._spent: set[Path] = set()
        self._last_ts_ns = 0

    @property
    def path(self) -> Path | None:
        """Sealed name of the file being read (for raw_ref and the watermark), None if there is none."""
        return self._reading.path if self._reading else None

    def close(self) -> None:
        """Let the file go; the next read looks for its place again."""
        if self._reading is not None:
            os.close(self._reading.fd)
            self._reading = None
        self._spent.clear()
        self._queue.clear()
        self._next = self._planned = -1

    def read(self, from_seq: int, max_rows: int) -> tuple[list[bytes], list[dict[str, Any]]]:
        """Return up to `max_rows` record lines and the gap lines that account for every other seq, from `from_seq` on.

        Together they cover from_seq to the last seq of either without a hole; both empty: nothing more on disk yet. Sequences
        whose frame is damaged, or whose file is gone while later ones are there, come as a gap with reason disk_error, sink
        "archive" and "damage": true, made here; the archive itself has no such line. A gap that begins before `from_seq` is
        given as it stands.
        """
        if from_seq != self._next:
            self.close()
            self._next = self._planned = from_seq
        records: list[bytes] = []
        gaps: list[dict[str, Any]] = []
        while len(records) < max_rows:
            if not self._queue:
                if not self._refill():
                    break
                continue
            first, item = self._queue.popleft()
            if isinstance(item, dict):
                gaps.append(item)
                self._next = item["last_seq"] + 1
                continue
            room = max_rows - len(records)
            records += item[:room]
            self._next = first + min(room, len(item))
            if room < len(item):
                self._queue.appendleft((self._next, item[room:]))
        return records, gaps

    def _refill(self) -> bool:
        """Read one more frame, opening and leaving files as needed; False if there is nothing more on disk yet."""
        if self._reading is None:
            self._reading = self._open_next()
        reading = self._reading
        if reading is None:
            return False
        sealed = reading.sealed or reading.is_sealed()
        lines = reading.frame()
        if lines:
            self._queue_lines(lines)
        elif not sealed:
            return False
        else:
            self._leave(reading)
        return True

    def _leave(self, reading: _Reading) -> None:
        os.close(reading.fd)
        self._spent.add(reading.path)
        self._reading = None
        if reading.last_seq is not None and reading.last_seq >= self._planned:  # its last frames are damaged
            self._queue_gap(self._hole(reading.last_seq, self._last_ts_ns))

    def _queue_gap(self, gap: dict[str, Any]) -> None:
        self._queue.append((gap["first_seq"], gap))
        self._planned = gap["last_seq"] + 1

    def _queue_lines(self, lines: list[bytes]) -> None:
        """Split a frame's lines into runs of records and gaps, leaving out what is known already."""
        at = 0
        while at < len(lines):
            low, high = line_span(lines[at])
            if low > self._planned:
                self._queue_gap(self._hole(low - 1, line_ns(lines[at])))
            if is_gap(lines[at]):
                if high >= self._planned:
                    self._queue_gap(orjson.loads(lines[at]))
                at += 1
                continue
            stop = at + 1
            while stop < len(lines) and not is_gap(lines[stop]):
                stop += 1
            skip = max(0, self._planned - low)
            if skip < stop - at:
                self._queue.append((low + skip, lines[at + skip : stop]))
                self._planned = low + stop - at
            at = stop
        self._last_ts_ns = line_ns(lines[-1]) or self._last_ts_ns

    def _hole(self, last: int, end_ns: int) -> dict[str, Any]:
        ring = self._series.ring
        payload = gap_payload(
            start_ns=self._last_ts_ns or end_ns, end_ns=end_ns, scope=SCOPE_OF_RING[ring], reason="disk_error",
            session_id=self._session_id, provider=self._series.provider, ring=ring, sink="archive", first_seq=self._planned,
            last_seq=last, lost=last - self._planned + 1,
        )  # fmt: skip
        return {"event_type": "gap_marker", **payload, "event_ring": None, "event_seq": None, "damage": True}

    def _open_next(self) -> _Reading | None:
        """Open the first file, by seq, that may hold the next seq."""
        segment = self._choose()
        if segment is not None and segment.first_seq > self._planned:
            # Why not at once: a folder listed while a file is being sealed may show it under neither name, which is no hole.
            segment = self._choose()
        if segment is None:
            return None
        try:
            fd = os.open(segment.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:  # sealed since; the next call finds it under its new name
            return None
        return _Reading(_sealed_name(segment.path), fd, segment.sealed, segment.last_seq)

    def _choose(self) -> Segment | None:
        for segment in find(self._series, self._session_id):
            passed = segment.last_seq is not None and segment.last_seq < self._planned
            if not passed and _sealed_name(segment.path) not in self._spent:
                return segment
        return None


def _reads(lines: list[bytes]) -> bool:
    """Tell whether the lines of a frame by which it is placed are ours: the first, the last, gap lines and what is behind them."""
    try:
        for at, line in enumerate(lines):
            if at in (0, len(lines) - 1) or is_gap(line) or is_gap(lines[at - 1]):
                line_span(line)
                line_ns(line)
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return False
    return True


def _sealed_name(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(OPEN_SUFFIX))
