"""Reads the segments of one session in order of sequence, judges each file, and gives its records in chunks.

Each file is read once: hash, frames with their checksums, lines, sequences, and whether its manifest line says the same.
Records are given whole chunks at a time, each sequence once, ascending; what came twice is remembered, not given again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson

from obs.errors import DecodeError
from obs.monitor.audit.findings import Findings
from obs.monitor.audit.spans import END, Runs
from obs.record.events import gap_key
from obs.record.jsonl import decode_swings, decode_ticks, is_gap
from obs.segment.format import OPEN_SUFFIX, Damage, Series, pieces
from obs.segment.manifest import Sealed, Tally, read_manifest
from obs.segment.reader import Segment, find

Told = Callable[[float, str], None]  # of each file that has been read: its bytes, and its name

_CHUNK_LINES: Final = 20_000
_DECODERS: Final = {"scalp": decode_ticks, "swing": decode_swings}
_ROUNDS: Final = 4  # looks at a file that is being renamed


@dataclass
class Archived:
    """What the segments of one session hold, complete once `read` is exhausted."""

    runs: Runs = field(default_factory=Runs)  # sequences of records
    gaps: dict[tuple[Any, ...], dict[str, Any]] = field(default_factory=dict)  # gap lines by key
    first_seq: int = -1  # of all files judged, gap lines included
    last_seq: int = -1
    last_ts_ns: int = 0


class SessionSegments:
    """The segments of one session and ring. `day`: only files of that path date are read; None: all."""

    def __init__(
        self, series: Series, session_id: str, day: str | None, findings: Findings, *, running: bool, told: Told | None = None
    ) -> None:
        self._series, self._session_id, self._findings, self._running, self._told = series, session_id, findings, running, told
        self._decode: Callable[[list[bytes]], np.ndarray] = _DECODERS[series.dataset]
        self.found = Archived()
        everything = _listed(series, session_id)
        self.segments = [segment for segment in everything if day in (None, segment.path.parent.name)]
        before = [segment.last_seq for segment in everything if segment not in self.segments and segment.last_seq is not None]
        ends = [segment.last_seq for segment in self.segments]
        self.last_known = max((END if seq is None else seq for seq in ends), default=-1)  # END: a file is still open
        self.first_expected = max((seq for seq in before if self.segments and seq < self.segments[0].first_seq), default=-1) + 1

    def read(self) -> Iterator[np.ndarray]:
        """Yield the records, ascending, as arrays of the ring's dtype."""
        last = -1
        for segment in self.segments:
            for rows in self._read_file(segment.path):
                seqs = rows["seq"]
                self._take(seqs)
                fresh = rows if seqs[0] > last else rows[seqs > last]
                if len(fresh):
                    last = int(fresh["seq"][-1])
                    self.found.last_ts_ns = int(fresh["ts_ns"][-1])
                    yield fresh

    def _take(self, seqs: np.ndarray) -> None:
        breaks = np.flatnonzero(np.diff(seqs) != 1)
        starts = [0, *(breaks + 1).tolist()]
        stops = [*breaks.tolist(), len(seqs) - 1]
        for start, stop in zip(starts, stops, strict=True):
            self._span(int(seqs[start]), int(seqs[stop]))
            self.found.runs.add(int(seqs[start]), int(seqs[stop]))

    def _span(self, first: int, last: int) -> None:
        if self.found.first_seq < 0:
            self.found.first_seq = first
        self.found.last_seq = max(self.found.last_seq, last)

    def _wrong(self, path: Path, expected: Any, found: Any, what: str, **facts: Any) -> None:
        self._findings.mismatch(
            self._series.provider, "segment", expected, found, session_id=self._session_id, ring=self._series.ring,
            path=self._series.relative(path), what=what, **facts,
        )  # fmt: skip

    def _read_file(self, path: Path) -> Iterator[np.ndarray]:
        path, data = _bytes_of(path)
        sealed = not path.name.endswith(OPEN_SUFFIX)
        tally = Tally()
        lines: list[bytes] = []
        for piece in pieces(data):
            if isinstance(piece, Damage):
                if sealed or not piece.torn:
                    self._wrong(path, "whole frames", piece.reason, "damage", offset=piece.offset, bytes=piece.end - piece.offset)
                continue
            tally.raw_bytes += sum(map(len, piece.lines)) + len(piece.lines)
            for line in piece.lines:
                if is_gap(line):
                    self._gap(path, line)
                    tally.gap_lines += 1
                else:
                    lines.append(line)
            if len(lines) >= _CHUNK_LINES:
                yield from self._rows(path, lines, tally)
                lines = []
        yield from self._rows(path, lines, tally)
        if sealed:
            self._judge_manifest(path, data, tally)
        if self._told is not None:
            self._told(len(data), path.name)

    def _rows(self, path: Path, lines: list[bytes], tally: Tally) -> Iterator[np.ndarray]:
        if not lines:
            return
        try:
            rows = self._decode(lines)
        except DecodeError:
            rows = self._decode([line for line in lines if self._reads(path, line)])
        tally.records += len(rows)
        if len(rows):
            tally.first_seq = int(rows["seq"][0]) if tally.first_seq < 0 else tally.first_seq
            tally.last_seq = int(rows["seq"][-1])
            yield rows

    def _reads(self, path: Path, line: bytes) -> bool:
        try:
            self._decode([line])
        except DecodeError as error:
            self._wrong(path, "a record", line[:120].decode("utf-8", "replace"), f"a line does not read: {error.reason}")
            return False
        return True

    def _gap(self, path: Path, line: bytes) -> None:
        try:
            gap: dict[str, Any] = orjson.loads(line)
            self._span(int(gap["first_seq"]), int(gap["last_seq"]))
            self.found.gaps[gap_key(gap)] = gap
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            self._wrong(path, "a gap line", line[:120].decode("utf-8", "replace"), "a gap line does not read")

    def _judge_manifest(self, path: Path, data: bytes, tally: Tally) -> None:
        line = read_manifest(path.parent).get(path.name)
        if line is None:
            if not self._running:
                self._wrong(path, "a manifest line", None, "a sealed file without its manifest line")
            return
        for what, expected, found in _manifest_facts(line, data, tally):
            if expected != found:
                self._wrong(path, expected, found, f"{what} differs from the manifest")


def _manifest_facts(line: Sealed, data: bytes, tally: Tally) -> Iterator[tuple[str, Any, Any]]:
    yield "sha256", line.sha256, hashlib.sha256(data).hexdigest()
    yield "bytes", line.file_bytes, len(data)
    yield "records", line.tally.records, tally.records
    yield "gap_lines", line.tally.gap_lines, tally.gap_lines


def _listed(series: Series, session_id: str) -> list[Segment]:
    """List twice: a folder read while a file is being sealed may show it under neither name."""
    found = {_sealed_name(segment.path): segment for _ in range(2) for segment in find(series, session_id)}
    return sorted(found.values(), key=lambda segment: segment.first_seq)


def _sealed_name(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(OPEN_SUFFIX))


def _bytes_of(path: Path) -> tuple[Path, bytes]:
    """Read a file under the name that it has now: an open one may have been sealed since it was listed."""
    for _ in range(_ROUNDS):
        for name in (path, _sealed_name(path)):
            try:
                return name, name.read_bytes()
            except FileNotFoundError:
                continue
    return path, b""


def missing_files(series: Series, day: str | None) -> Iterator[tuple[Path, Sealed]]:
    """Yield the manifest lines of files that are gone."""
    for folder in series.day_folders():
        if day in (None, folder.name):
            for name, line in read_manifest(folder).items():
                if not (folder / name).exists():
                    yield folder / name, line
