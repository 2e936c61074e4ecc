"""Writes the segments of one session and ring: lines in, sealed files out, and the seq up to which everything is durable.

`append` only buffers and compresses; all disk calls are in `flush` and `seal`. Pending work is a list of parts, one per file
that it will land in; a flush writes part after part, each in one write and one fsync, sealing the file before it opens the next.

Order: open (name chosen, folders durable), write, fsync file, fsync folder if the file is new; only then `durable_seq` moves.
Sealing: rename, fsync folder, manifest line (fsync). SIGKILL between any two of these leaves what `recover` knows how to end.

When a disk call fails, the descriptor is closed and never used again. The file is cut, through a new descriptor, to its last
fsynced frame and sealed; what followed stays buffered, and the next `flush` writes it into a new file. Invariant: nothing
is written while a file with an uncut tail exists, or a record could be on disk twice.

Windows: a new file begins when the local clock of `ts` - 1 ns enters another window of `segment_s` (aligned to local
midnight), or the file has reached `segment_bytes`. A ts that falls back into the window before stays in the file (records of
one instant do not arrive sorted to the nanosecond); one that falls back further, or on another local day, begins a new one.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import numpy as np
import orjson

from obs.errors import DiskTrouble, FileGone
from obs.segment.disk import Disk, Progress, silent
from obs.segment.format import FRAME_BYTES, OPEN_SUFFIX, Series, compressor, free_path
from obs.segment.manifest import Sealed, Tally, append_manifest

_NS: Final = 1_000_000_000
_DAY_S: Final = 86_400
_ZONE_BLOCK_S: Final = 900  # every zone's offset is constant within a quarter of an hour


@dataclass(frozen=True)
class SegmentOptions:
    """How segments are cut: the market's zone, seconds and uncompressed bytes of one file, compression level."""

    tz: ZoneInfo
    segment_s: int = 300
    segment_bytes: int = 64 << 20
    zstd_level: int = 1


class LocalClock:
    """Local seconds since 1970-01-01 00:00 local time, of the instant before `ts`, which decides day, window and name."""

    def __init__(self, tz: ZoneInfo) -> None:
        self._tz = tz
        self._offsets: dict[int, int] = {}

    def seconds(self, ts_ns: np.ndarray) -> np.ndarray:
        """`ts_ns`: (n,), int64, UTC. Return (n,), int64."""
        utc_s = (ts_ns - 1) // _NS
        blocks = utc_s // _ZONE_BLOCK_S
        low, high = int(blocks.min()), int(blocks.max())
        if low == high:
            return np.asarray(utc_s + self._offset(low))
        found, where = np.unique(blocks, return_inverse=True)
        return np.asarray(utc_s + np.array([self._offset(block) for block in found.tolist()], np.int64)[where])

    def _offset(self, block: int) -> int:
        offset = self._offsets.get(block)
        if offset is None:
            delta = datetime.fromtimestamp(block * _ZONE_BLOCK_S, UTC).astimezone(self._tz).utcoffset()
            assert delta is not None
            if len(self._offsets) > 1000:
                self._offsets.clear()
            offset = self._offsets[block] = int(delta.total_seconds())
        return offset

    def moment(self, ts_ns: int) -> datetime:
        """Return the local wall clock of ts_ns - 1 ns."""
        return datetime.fromtimestamp((ts_ns - 1) // _NS, self._tz)


@dataclass
class _Part:
    """Lines that go into one file: whole frames, and the lines of the frame that is not yet ended."""

    fresh: bool  # begins a new file
    day: int
    window: int
    ts_ns: int = 0  # of its first record: names the file
    before_bytes: int = 0  # uncompressed bytes already in the file
    frames: list[bytes] = field(default_factory=list)
    lines: list[bytes] = field(default_factory=list)
    line_bytes: int = 0
    tally: Tally = field(default_factory=Tally)


@dataclass
class _File:
    """The open file: everything in it up to `size` is durable."""

    path: Path
    fd: int
    sha256: Any
    size: int = 0
    tally: Tally = field(default_factory=Tally)


@dataclass
class _Closing:
    """A file on its way to sealed; each step is done once, and tried again by the next flush if it failed."""

    path: Path
    size: int
    sha256: str
    tally: Tally
    uncut: bool
    sealed_path: Path | None = None
    renamed: bool = False


class SegmentWriter:
    """Writes one session's ring. Safety: one thread at a time.

    `progress`: called with "disk" before each blocking disk call and with "" after it.
    Start with the session's `last_archived` + 1 after `recover_open`; a writer never continues a file of another writer.
    """

    def __init__(self, series: Series, options: SegmentOptions, session_id: str, progress: Progress = silent) -> None:
        self._series = series
        self._options = options
        self._session_id = session_id
        self._disk = Disk(progress)
        self._clock = LocalClock(options.tz)
        self._compressor = compressor(options.zstd_level)
        self._frame_bytes = min(FRAME_BYTES, options.segment_bytes)
        self._parts: deque[_Part] = deque()
        self._gaps: list[tuple[bytes, dict[str, Any]]] = []
        self._file: _File | None = None
        self._here: _Part | None = None  # the part that the next line joins, unless it begins a file
        self._closing: list[_Closing] = []
        self._durable_seq = -1
        self._appended_seq = -1
        self.sealed_total = 0

    @property
    def durable_seq(self) -> int:
        """Last seq that is fsynced by this writer, sequences of gap lines included; -1 if none."""
        return self._durable_seq

    @property
    def appended_seq(self) -> int:
        """Last seq that was appended; durable_seq + 1 to here is buffered."""
        return self._appended_seq

    @property
    def open_bytes(self) -> int:
        """Durable bytes (compressed) of the open file; 0 if none is open."""
        return self._file.size if self._file else 0

    @property
    def buffered_bytes(self) -> int:
        """Bytes in memory that are not durable yet."""
        return sum(part.line_bytes + sum(map(len, part.frames)) for part in self._parts)

    @property
    def oldest_ts_ns(self) -> int:
        """`ts_ns` of the oldest buffered record; 0 if nothing is buffered."""
        return self._parts[0].ts_ns if self._parts else 0

    def due(self, now_ns: int) -> bool:
        """Tell whether the open file's window is over at wall time `now_ns`: then `seal` it, records or not.

        Not while a gap line waits for its record: that one begins the next file, and the gap line goes with it.
        """
        if self._file is None or self._here is None or self._gaps:
            return False
        day, window = self._windows(np.array([now_ns], np.int64))
        return (int(day[0]), int(window[0])) > (self._here.day, self._here.window)

    def append(self, lines: list[bytes], first_seq: int, ts_ns: np.ndarray) -> None:
        """Buffer record lines with consecutive sequences from `first_seq`; no disk call.

        `lines`: without newline, kept until durable. `ts_ns`: (n,), int64, of the same records, borrowed.
        """
        if not lines:
            return
        assert first_seq > self._appended_seq, (first_seq, self._appended_seq)
        assert len(lines) == len(ts_ns), (len(lines), len(ts_ns))
        days, windows = self._windows(ts_ns)
        changes = np.flatnonzero((days[1:] != days[:-1]) | (windows[1:] != windows[:-1])) + 1
        start = 0
        for stop in (*changes.tolist(), len(lines)):
            self._enter(int(days[start]), int(windows[start]))
            self._add(lines[start:stop], first_seq + start, ts_ns[start:stop])
            start = stop
        self._appended_seq = first_seq + len(lines) - 1

    def append_gap(self, line: bytes) -> None:
        """Buffer a gap line of this ring (sink "archive", exact sequences); it goes into the frame of the next record."""
        gap = orjson.loads(line)
        assert gap["last_seq"] >= gap["first_seq"] > self._appended_seq, (gap, self._appended_seq)
        self._appended_seq = gap["last_seq"]
        self._gaps.append((line, gap))

    def flush(self) -> int:
        """End the frame, make everything appended durable, and return `durable_seq`.

        A gap line without a record behind it waits for one (or for `seal`). Raises DiskTrouble: then what is not durable is
        still buffered, and the next flush writes it into a new file. Raises FileGone: what was durable in the open file is so no
        more; only another writer, which begins with what is there, can write it again.
        """
        self._finish()
        if self._parts:
            self._end_frame(self._parts[-1])
        while self._parts:
            part = self._parts[0]
            if part.fresh and self._file is not None:
                self._close(uncut=False)
                self._finish()
            if self._file is None:
                self._open(part)
            self._write(part)
            self._parts.popleft()
        return self._durable_seq

    def seal(self) -> None:
        """Flush, then seal the open file, if there is one; the next append begins another. Raises DiskTrouble."""
        if self._gaps:
            self._take_gaps(self._gaps[-1][1]["gap_end_ns"])
        self.flush()
        if self._file is not None:
            self._close(uncut=False)
            self._finish()
        self._here = None

    def _windows(self, ts_ns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        local = self._clock.seconds(ts_ns)
        return local // _DAY_S, local % _DAY_S // self._options.segment_s

    def _enter(self, day: int, window: int) -> None:
        """Make `_here` the part that a record of this window joins."""
        here = self._here
        full = here is not None and here.before_bytes + here.tally.raw_bytes + here.line_bytes >= self._options.segment_bytes
        if here is None or full or day != here.day or not here.window - 1 <= window <= here.window:
            if self._parts:
                self._end_frame(self._parts[-1])
            self._here = _Part(True, day, window)
            self._parts.append(self._here)
        elif not self._parts:
            before = here.before_bytes + here.tally.raw_bytes
            self._here = _Part(False, here.day, here.window, before_bytes=before)
            self._parts.append(self._here)

    def _add(self, lines: list[bytes], first_seq: int, ts_ns: np.ndarray) -> None:
        """Add lines of one window, ending frames and files as they fill."""
        if self._gaps:  # Durable: the gap line and the record behind the hole live or die together, in one frame
            self._take_gaps(int(ts_ns[0]))
        ends = list(accumulate(map(len, lines)))
        start, taken = 0, 0
        while start < len(lines):
            part = self._here
            assert part is not None
            room = self._frame_bytes - part.line_bytes
            stop = min(len(lines), bisect_left(ends, taken + max(1, room), start) + 1)
            chunk = lines[start:stop]
            part.lines += chunk
            part.line_bytes += ends[stop - 1] - taken + len(chunk)
            part.ts_ns = part.ts_ns or int(ts_ns[0])
            part.tally.add(Tally(len(chunk), 0, 0, first_seq + start, first_seq + stop - 1, int(ts_ns[start]), int(ts_ns[stop - 1])))
            taken, start = ends[stop - 1], stop
            if part.line_bytes >= self._frame_bytes:
                self._end_frame(part)
                if start < len(lines):
                    self._enter(part.day, part.window)

    def _take_gaps(self, ts_ns: int) -> None:
        """Move the waiting gap lines into the current frame; `ts_ns`: of the record behind them, or of the gap's end."""
        if self._here is None or not self._parts:
            day, window = self._windows(np.array([ts_ns], np.int64))
            self._enter(int(day[0]), int(window[0]))
        part = self._here
        assert part is not None
        for line, gap in self._gaps:
            part.lines.append(line)
            part.line_bytes += len(line) + 1
            part.ts_ns = part.ts_ns or ts_ns
            part.tally.add(Tally(0, 1, 0, gap["first_seq"], gap["last_seq"], 0, 0))
        self._gaps.clear()

    def _end_frame(self, part: _Part) -> None:
        if part.lines:
            part.frames.append(self._compressor.compress(b"\n".join(part.lines) + b"\n"))
            part.tally.raw_bytes += part.line_bytes
            part.lines, part.line_bytes = [], 0

    def _open(self, part: _Part) -> None:
        moment = self._clock.moment(part.ts_ns)
        folder = self._series.folder / f"{moment:%Y%m%d}"
        self._disk.make_folder(folder, self._series.root)
        path = free_path(folder, f"{moment:%H_%M_%S}")
        path = path.with_name(path.name + OPEN_SUFFIX)
        self._file = _File(path, self._disk.create(path), hashlib.sha256())

    def _write(self, part: _Part) -> None:
        file = self._file
        assert file is not None
        self._require_name(file)
        data = b"".join(part.frames)
        try:
            self._disk.write_all(file.fd, file.path, file.size, data)
            self._disk.fsync_file(file.fd, file.path)
            if not file.size:
                self._disk.fsync_folder(file.path.parent)
        except DiskTrouble:
            self._abandon()
            raise
        # Durable: from here on, and not before, the part counts as archived.
        file.sha256.update(data)
        file.size += len(data)
        file.tally.add(part.tally)
        self._durable_seq = part.tally.last_seq
        part.frames = []

    def _abandon(self) -> None:
        """Give up the open file after a failed call: it ends at its last fsynced frame, and what followed stays buffered."""
        self._close(uncut=True)
        self._parts[0].fresh = True
        self._parts[0].before_bytes = 0
        try:
            self._finish()
        except DiskTrouble:
            return  # the next flush tries again, before it writes anything; the first failure is the one to tell

    def _close(self, *, uncut: bool) -> None:
        file = self._file
        assert file is not None
        if not uncut:
            self._require_name(file)
        self._disk.close(file.fd)
        self._closing.append(_Closing(file.path, file.size, file.sha256.hexdigest(), file.tally, uncut))
        self._file = None

    def _require_name(self, file: _File) -> None:
        if not self._disk.has_name(file.fd, file.path):
            raise FileGone("an open segment was removed or moved", path=str(file.path), size=file.size)

    def _finish(self) -> None:
        """Bring every closed file to sealed; stops at the first failure and goes on there next time."""
        while self._closing:
            closing = self._closing[0]
            if closing.uncut:
                if not closing.size:  # nothing in it was ever durable
                    self._disk.unlink(closing.path)
                    self._closing.pop(0)
                    continue
                if not closing.path.exists():
                    raise FileGone("a segment was removed or moved before it was sealed", path=str(closing.path), size=closing.size)
                self._disk.cut(closing.path, closing.size)
                closing.uncut = False
            self._seal(closing)
            self._closing.pop(0)
            self.sealed_total += 1

    def _seal(self, closing: _Closing) -> None:
        folder = closing.path.parent
        if closing.sealed_path is None:
            closing.sealed_path = closing.path.with_name(closing.path.name.removesuffix(OPEN_SUFFIX))
        if not closing.renamed:
            if closing.path.exists():
                self._disk.rename_sealed(closing.path, closing.sealed_path)
            elif not closing.sealed_path.exists():
                raise FileGone("a segment was removed or moved before it was sealed", path=str(closing.path), size=closing.size)
            self._disk.fsync_folder(folder)
            closing.renamed = True
        series = self._series
        name = series.relative(closing.sealed_path)
        sealed = Sealed(name, closing.sha256, closing.size, self._session_id, series.ring, closing.tally)
        append_manifest(self._disk, folder, sealed)
