"""The manifest of a day's folder: one line per sealed segment, so that finding a sequence needs no scan of the data.

{"path":"scalp/kis/kr_stocks/20260122/09_30_00.jsonl.zst","sha256":…,"bytes":…,"raw_bytes":…,"records":…,"gap_lines":…,
 "session_id":…,"ring":"tick","first_seq":…,"last_seq":…,"first_ts":…,"last_ts":…,"first_ts_ns":…,"last_ts_ns":…}

`first_seq` and `last_seq` count the sequences that gap lines stand for; `records` does not. Times are of the records.
A line is written after the sealed name is durable, so a line never speaks of a file that is not there; a sealed file without a
line is described again at start. Readers ignore an unfinished last line, and lines about files that are gone.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from obs.record.events import iso_ms
from obs.record.jsonl import is_gap
from obs.segment.disk import Disk
from obs.segment.format import MANIFEST, Damage, Series, frame_span, gap_count, line_ns, pieces, session_of, whole_number


@dataclass
class Tally:
    """What some lines of one segment amount to; -1 and 0 where there are none."""

    records: int = 0
    gap_lines: int = 0
    raw_bytes: int = 0
    first_seq: int = -1
    last_seq: int = -1
    first_ts_ns: int = 0
    last_ts_ns: int = 0

    def add(self, other: Tally) -> None:
        """Add what follows."""
        if self.first_seq < 0:
            self.first_seq = other.first_seq
        if not self.first_ts_ns:
            self.first_ts_ns = other.first_ts_ns
        self.last_seq = max(self.last_seq, other.last_seq)
        self.last_ts_ns = other.last_ts_ns or self.last_ts_ns
        self.records += other.records
        self.gap_lines += other.gap_lines
        self.raw_bytes += other.raw_bytes


@dataclass(frozen=True)
class Sealed:
    """One manifest line."""

    path: str
    sha256: str
    file_bytes: int
    session_id: str
    ring: str
    tally: Tally = field(default_factory=Tally)

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[-1]

    def line(self) -> bytes:
        tally = self.tally
        return orjson.dumps({
            "path": self.path, "sha256": self.sha256, "bytes": self.file_bytes, "raw_bytes": tally.raw_bytes, "records": tally.records,
            "gap_lines": tally.gap_lines, "session_id": self.session_id, "ring": self.ring, "first_seq": tally.first_seq,
            "last_seq": tally.last_seq, "first_ts": iso_ms(tally.first_ts_ns), "last_ts": iso_ms(tally.last_ts_ns),
            "first_ts_ns": tally.first_ts_ns, "last_ts_ns": tally.last_ts_ns,
        })  # fmt: skip

    @classmethod
    def parse(cls, line: bytes) -> Sealed:
        """Read a line. Raises JSONDecodeError, KeyError or TypeError if it is none."""
        value: dict[str, Any] = orjson.loads(line)
        tally = Tally(**{name: whole_number(value[name]) for name in Tally.__dataclass_fields__})
        texts = [value[name] for name in ("path", "sha256", "session_id", "ring")]
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("not a manifest line")
        path, sha256, session_id, ring = texts
        return cls(path, sha256, whole_number(value["bytes"]), session_id, ring, tally)


def read_manifest(folder: Path) -> dict[str, Sealed]:
    """Return the manifest lines of a day's folder by file name; a later line replaces an earlier one."""
    try:
        data = (folder / MANIFEST).read_bytes()
    except FileNotFoundError:
        return {}
    found = {}
    for line in data[: data.rfind(b"\n") + 1].splitlines():
        try:
            sealed = Sealed.parse(line)
        except (orjson.JSONDecodeError, KeyError, TypeError):
            continue  # a damaged line: its file counts as one without a line
        found[sealed.name] = sealed
    return found


def append_manifest(disk: Disk, folder: Path, sealed: Sealed) -> None:
    """Append one line, durably. Raises DiskTrouble; then nothing of the line, or half of it, or all of it may be there.

    What a crash left behind the last newline is cut off first.
    """
    path = folder / MANIFEST
    new = not path.exists()
    size = 0
    if not new:
        data = path.read_bytes()
        size = data.rfind(b"\n") + 1
        if size < len(data):
            disk.cut(path, size)
    fd = disk.create(path) if new else disk.append_open(path)
    try:
        disk.write_all(fd, path, size, sealed.line() + b"\n")
        disk.fsync_file(fd, path)
    finally:
        disk.close(fd)
    if new or not size:  # an empty one: its maker died before it synced the name
        disk.fsync_folder(folder)


def tally_of(lines: list[bytes]) -> Tally:
    """Describe the lines of one frame. Raises JSONDecodeError, KeyError or TypeError if they are no lines of ours."""
    gaps = gap_count(lines)
    first, last = frame_span(lines)
    raw_bytes = sum(map(len, lines)) + len(lines)
    records = [line for line in (lines if gaps else (lines[0], lines[-1])) if not is_gap(line)]
    times = [line_ns(line) for line in records[:1] + records[-1:]]
    return Tally(len(lines) - gaps, gaps, raw_bytes, first, last, times[0] if times else 0, times[-1] if times else 0)


def describe(series: Series, path: Path) -> tuple[Sealed | None, list[Damage]]:
    """Read a whole segment file; return its manifest line (None if no frame reads) and all damage, torn tail included."""
    data = path.read_bytes()
    tally, damages, session = Tally(), [], ""
    for piece in pieces(data):
        if isinstance(piece, Damage):
            damages.append(piece)
            continue
        try:
            session = session or session_of(piece.lines[0], series.dataset)
            tally.add(tally_of(piece.lines))
        except (orjson.JSONDecodeError, KeyError, TypeError):
            damages.append(Damage(piece.offset, piece.end, "a line is no record"))
    if not session:
        return None, damages
    return Sealed(series.relative(path), hashlib.sha256(data).hexdigest(), len(data), session, series.ring, tally), damages
