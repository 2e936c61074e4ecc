"""Reads segments, open and sealed alike: frames, lines, verification, the index of a series, and a cursor that follows it.

Nothing here writes. An open file may grow, be cut to its last fsynced frame, be sealed and be followed by another while it is
being read; a frame is used only whole and with its checksum, and sequences already given are never given twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import orjson

from obs.errors import SegmentCorrupt
from obs.record.jsonl import is_gap
from obs.segment.format import (
    MANIFEST,
    OPEN_SUFFIX,
    SUFFIX,
    Damage,
    Frame,
    Series,
    line_span,
    pieces,
    read_frame,
    session_of,
)
from obs.segment.manifest import Sealed, describe, read_manifest

_HEAD_BYTES: Final = 1 << 20  # the first frame of a file is shorter, compressed


@dataclass(frozen=True)
class Segment:
    """One segment on disk. `last_seq`: None while it is open. Sequences include those of gap lines."""

    path: Path
    sealed: bool
    session_id: str
    first_seq: int
    last_seq: int | None


@dataclass(frozen=True)
class Verdict:
    """What `verify` found in one file. `holes`: sequences that neither a record nor a gap line of the file accounts for."""

    path: Path
    sealed: bool
    bytes: int
    frames: int
    records: int
    gap_lines: int
    session_id: str
    first_seq: int
    last_seq: int
    damages: tuple[Damage, ...]
    torn_bytes: int  # behind the last whole frame of an open file; not damage
    holes: tuple[tuple[int, int], ...]
    manifest: str  # "match", "differs", or "missing" (also for open files)

    @property
    def good(self) -> bool:
        return not self.damages and not self.holes and self.manifest != "differs"


def is_segment(path: Path) -> bool:
    """Tell whether a name is that of an open or sealed segment."""
    return path.name.endswith((SUFFIX, SUFFIX + OPEN_SUFFIX))


def frames(path: Path) -> Iterator[Frame | Damage]:
    """Read a file's frames and damage, in order. Torn bytes at the end of an open file are given as Damage with `torn`."""
    return pieces(path.read_bytes())


def read_lines(path: Path, damages: list[Damage] | None = None) -> Iterator[tuple[int, bytes]]:
    """Read (line number from 1, line without newline) of an open or sealed segment, whole frames only.

    A sealed file's damage, and damage inside an open one, raises SegmentCorrupt when it is reached; with `damages` it is put
    there instead, and reading goes on behind it (line numbers count the lines that were read).
    """
    number = 0
    is_open = path.name.endswith(OPEN_SUFFIX)
    for piece in frames(path):
        if isinstance(piece, Frame):
            for line in piece.lines:
                number += 1
                yield number, line
        elif damages is not None:
            damages.append(piece)
        elif not (is_open and piece.torn):
            raise SegmentCorrupt(path=str(path), offset=piece.offset, reason=piece.reason, bytes=piece.end - piece.offset)


def verify(path: Path) -> Verdict:
    """Read a whole file and judge every frame of it; compares with the manifest line of its folder, if there is one."""
    data = path.read_bytes()
    sealed = not path.name.endswith(OPEN_SUFFIX)
    damages: list[Damage] = []
    holes: list[tuple[int, int]] = []
    session, first, last = "", -1, -1
    counts = {"frames": 0, "records": 0, "gaps": 0}
    torn = 0
    for piece in pieces(data):
        if isinstance(piece, Damage):
            if piece.torn and not sealed:
                torn = piece.end - piece.offset
            else:
                damages.append(piece)
            continue
        counts["frames"] += 1
        for line in piece.lines:
            try:
                low, high = line_span(line)
            except (orjson.JSONDecodeError, KeyError, TypeError):
                damages.append(Damage(piece.offset, piece.end, "a line is no record"))
                break
            counts["gaps" if is_gap(line) else "records"] += 1
            if first < 0:
                first = low
                session = _session(line)
            elif low != last + 1:
                holes.append((last + 1, low - 1))
            last = high
    line_of = read_manifest(path.parent).get(path.name) if sealed else None
    digest = hashlib.sha256(data).hexdigest()
    manifest = "missing" if line_of is None else "match" if line_of.sha256 == digest else "differs"
    return Verdict(
        path, sealed, len(data), counts["frames"], counts["records"], counts["gaps"], session, first, last, tuple(damages), torn,
        tuple(holes), manifest,
    )  # fmt: skip


def _session(line: bytes) -> str:
    value = orjson.loads(line)
    return str(value.get("session_id") or value.get("session") or "")


def find(series: Series, session_id: str | None = None) -> list[Segment]:
    """Return the segments of one session (None: of all), sorted by first seq (by session and then first seq).

    Sealed ones come from the manifests; open ones, and sealed ones whose line is not written yet, are looked into. An open
    file without a whole frame is left out.
    """
    found: list[Segment] = []
    for folder in series.day_folders():
        manifest = _manifest(folder)
        for path in sorted(folder.iterdir()):
            if not is_segment(path):
                continue
            segment = _from_manifest(path, manifest.get(path.name)) or _look_into(series, path)
            if segment is not None and session_id in (None, segment.session_id):
                found.append(segment)
    return sorted(found, key=lambda segment: (segment.session_id, segment.first_seq))


def _manifest(folder: Path) -> dict[str, Sealed]:
    try:
        state = (folder / MANIFEST).stat()
    except FileNotFoundError:
        return {}
    return _manifest_as_of(folder, state.st_ino, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=64)
def _manifest_as_of(folder: Path, inode: int, size: int, mtime_ns: int) -> dict[str, Sealed]:
    """Keep parsed manifests, so that a follower at the live end does not parse ten days of them at every turn."""
    return read_manifest(folder)


def _from_manifest(path: Path, line: Sealed | None) -> Segment | None:
    if line is None:
        return None
    return Segment(path, True, line.session_id, line.tally.first_seq, line.tally.last_seq)


def _look_into(series: Series, path: Path) -> Segment | None:
    try:
        if path.name.endswith(OPEN_SUFFIX):
            with path.open("rb") as file:
                head = file.read(_HEAD_BYTES)
            end, raw, _ = read_frame(head, 0)
            if end < 0:
                return None
            line = raw.split(b"\n", 1)[0]
            return Segment(path, False, session_of(line, series.dataset), line_span(line)[0], None)
    except (orjson.JSONDecodeError, KeyError, TypeError):  # not ours; `recover` sets it aside
        return None
    except FileNotFoundError:  # sealed since the folder was listed
        path = path.with_name(path.name.removesuffix(OPEN_SUFFIX))
    try:
        sealed, _ = describe(series, path)
    except FileNotFoundError:  # moved away since
        return None
    return _from_manifest(path, sealed)


def last_archived(series: Series, session_id: str) -> int:
    """Return the last seq on disk of this session, counting gap lines; -1 if there is none. Whole frames only."""
    last = -1
    for segment in find(series, session_id):
        if segment.last_seq is not None:
            last = max(last, segment.last_seq)
            continue
        described, _ = describe(series, segment.path)
        if described is not None:
            last = max(last, described.tally.last_seq)
    return last


def last_archived_ns(series: Series, session_id: str) -> int:
    """Return the time of the last record on disk of this session, 0 if there is none."""
    for segment in reversed(find(series, session_id)):
        described, _ = describe(series, segment.path)
        if described is not None and described.tally.last_ts_ns:
            return described.tally.last_ts_ns
    return 0


def holes(series: Series, session_id: str) -> list[tuple[int, int]]:
    """Return the sequences (first, last) below `last_archived` that no segment accounts for: files lost or damaged.

    From the manifests alone, so damage inside a sealed file does not show here; `verify` finds that.
    """
    missing: list[tuple[int, int]] = []
    expected = 0
    for segment in find(series, session_id):
        if segment.first_seq > expected:
            missing.append((expected, segment.first_seq - 1))
        last = segment.last_seq
        if last is None:
            described, _ = describe(series, segment.path)
            last = described.tally.last_seq if described else segment.first_seq - 1
        expected = max(expected, last + 1)
    return missing


def gap_lines(series: Series, session_id: str) -> list[bytes]:
    """Return the gap lines in this session's segments, in order; reads only the files that hold any, and open ones."""
    lines: list[bytes] = []
    for segment in find(series, session_id):
        known = _manifest(segment.path.parent).get(segment.path.name)
        if known is None or known.tally.gap_lines:
            lines += [line for _, line in read_lines(segment.path, []) if is_gap(line)]
    return lines
