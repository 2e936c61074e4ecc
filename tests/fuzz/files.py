"""Targets: what lies on the disk. Segments hurt in their bytes or in their lines, manifests, session files, plain-text logs."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import orjson
from segment_lines import SEOUL, SESSION, START_NS, gap_of, lines_of, rows_of, series_at

from fuzz.take import edited, fresh
from obs.cli.verify import judge
from obs.errors import SegmentCorrupt
from obs.pg.gaps import gap_values
from obs.record.jsonl import is_gap
from obs.roles.drains import Events
from obs.roles.minutes import Minutes
from obs.roles.takeover import _set_aside
from obs.segment.cursor import SegmentCursor
from obs.segment.disk import Disk, silent
from obs.segment.format import MANIFEST, OPEN_SUFFIX, QUARANTINE, SUFFIX, TORN_SUFFIX, Frame, compressor, pieces
from obs.segment.manifest import append_manifest, describe, read_manifest
from obs.segment.quarantine import QuarantineOptions, kept_bytes, last_quarantined
from obs.segment.reader import find, gap_lines, holes, last_archived, last_archived_ns, read_lines, verify
from obs.segment.recover import recover_open
from obs.segment.sessions import SessionStart, append_end, append_start, read_sessions, sessions_path
from obs.segment.textlog import json_object, last_event_seqs, recover_text, text_lines

_FRAMES, _ROWS = 6, 7  # of the segment that is hurt
_MOST = 10_000  # lines that a cursor may give for a file of a few


def _frame(lines: list[bytes]) -> bytes:
    return compressor(1).compress(b"\n".join(lines) + b"\n")


@cache
def _whole() -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """Return the frames of a good segment, and the text of each."""
    texts = []
    for number in range(_FRAMES):
        lines = lines_of(rows_of(number * _ROWS, _ROWS))
        if number == 3:  # its first rows were lost
            lines = [gap_of(number * _ROWS, number * _ROWS + 1), *lines[2:]]
        texts.append(b"\n".join(lines) + b"\n")
    return tuple(compressor(1).compress(text) for text in texts), tuple(texts)


def segment_bytes(data: bytes) -> None:
    """Edits of a good segment's bytes (fuzz.take.edited): the frames that are left whole are read, as they were, and nothing else.

    The first byte tells whether it is open or sealed.
    """
    frames, texts = _whole()
    hurt = edited(b"".join(frames), data[1:])
    read = [piece for piece in pieces(hurt) if isinstance(piece, Frame)]
    at = 0
    for piece in pieces(hurt):
        end = piece.end
        assert piece.offset == at, "frames and damage must tell of every byte"
        at = end
    assert at == len(hurt)
    for frame in read:
        assert b"\n".join(frame.lines) + b"\n" in texts, "a frame was read that nobody wrote"
    offsets = {frame.offset for frame in read}
    for frame in frames:
        place = hurt.find(frame)
        while place >= 0:
            assert place in offsets, f"the whole frame at {place} was not read"
            place = hurt.find(frame, place + 1)
    _recovers(hurt, bool(data[:1]) and data[0] % 2 == 0)


def _recovers(hurt: bytes, is_open: bool) -> None:
    """Whatever the bytes: after recovery what remains verifies, its lines are those that read, and every byte is still somewhere."""
    root = fresh("segment")
    series = series_at(root)
    folder = series.folder / "20260122"
    folder.mkdir(parents=True)
    sealed = folder / f"09_00_00{SUFFIX}"
    path = sealed.with_name(sealed.name + OPEN_SUFFIX) if is_open else sealed
    path.write_bytes(hurt)
    before = [line for _, line in read_lines(path, [])]
    recover_open(series)
    after = [line for _, line in read_lines(sealed)] if sealed.exists() else []
    assert [line for line in after if line in before] == before, "recovery lost or changed lines"
    assert all(is_gap(line) for line in after if line not in before)
    aside = root.joinpath(*QUARANTINE)
    kept = [one.read_bytes() for one in aside.iterdir() if one.suffix != ".json"] if aside.exists() else []
    torn = [one.read_bytes() for one in folder.glob(f"*{TORN_SUFFIX}*")]
    whole = sealed.read_bytes() if sealed.exists() else b""
    assert hurt in kept or whole + b"".join(torn) == hurt, "bytes are gone"
    if sealed.exists():
        verdict = verify(sealed)
        assert not verdict.damages
        assert verdict.manifest == "match"
    assert recover_open(series) == [], "a second recovery finds something to do"
    _reads(root)


def segment_lines(data: bytes) -> None:
    """Good frames with any lines in them (frames parted by NUL, the first byte: open or sealed): damage is told, nothing else is raised."""
    root = fresh("lines")
    series = series_at(root)
    folder = series.folder / "20260122"
    folder.mkdir(parents=True)
    is_open = bool(data[:1]) and data[0] % 2 == 0
    path = folder / f"09_00_00{SUFFIX}{OPEN_SUFFIX if is_open else ''}"
    path.write_bytes(b"".join(_frame(text.split(b"\n")) for text in data[1:].split(b"\0")[:8]))
    _reads(root)
    judge(path)
    recover_open(series)
    _reads(root)
    assert recover_open(series) == [], "a second recovery finds something to do"


def _reads(root: Path) -> None:
    """Everything that reads an archive, on whatever is there."""
    series = series_at(root)
    for segment in find(series):
        verify(segment.path)
        last_archived(series, segment.session_id)
        last_archived_ns(series, segment.session_id)
        holes(series, segment.session_id)
        gap_lines(series, segment.session_id)
        try:
            for _ in read_lines(segment.path):
                pass
        except SegmentCorrupt as error:
            assert error.reason
        cursor = SegmentCursor(series, segment.session_id)
        at = given = 0
        while True:
            records, gaps = cursor.read(at, 5)
            if not records and not gaps:
                break
            lasts = [orjson.loads(records[-1])["seq"]] if records else []
            lasts += [gap["last_seq"] for gap in gaps]
            assert max(lasts) >= at, "a cursor that goes back never ends"
            at = max(lasts) + 1
            given += len(records) + len(gaps)
            assert given < _MOST
        cursor.close()


def manifest_lines(data: bytes) -> None:
    """Any bytes as a manifest beside a sealed segment: lines that do not read are passed over, the segment is still found and read."""
    root = fresh("manifest")
    folder = _sealed(root)
    manifest = folder / MANIFEST
    good = manifest.read_bytes()
    manifest.write_bytes(data)
    series = series_at(root)
    known = read_manifest(folder)
    assert all(isinstance(name, str) for name in known)
    for path in folder.glob(f"*{SUFFIX}"):
        verdict = verify(path)
        assert not verdict.damages
        assert verdict.manifest == ("missing" if path.name not in known else verdict.manifest)
    if not known:
        assert [segment.session_id for segment in find(series)] == [SESSION]
        recover_open(series)
        assert manifest.read_bytes().endswith(good), "the manifest line was not made anew"
        assert manifest.read_bytes()[: -len(good)] == data[: data.rfind(b"\n") + 1], "whole lines of a manifest are never removed"
    else:
        recover_open(series)


def _sealed(root: Path) -> Path:
    """Write one sealed segment with its manifest line; return its folder."""
    series = series_at(root)
    folder = series.folder / "20260122"
    folder.mkdir(parents=True)
    path = folder / f"09_00_00{SUFFIX}"
    path.write_bytes(b"".join(_whole()[0]))
    sealed, _ = describe(series, path)
    assert sealed is not None
    append_manifest(Disk(), folder, sealed)
    return folder


def session_lines(data: bytes) -> None:
    """Any bytes as a session file: what reads is typed as promised, in order; what does not is passed over; appending goes on."""
    root = fresh("sessions")
    path = sessions_path(root, "kis")
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    found = read_sessions(root, "kis")
    for info in found:
        start = info.start
        assert isinstance(info.session_id, str)
        assert isinstance(start.ts_ns, int)
        assert isinstance(start.rings, dict)
        assert isinstance(info.host_death, bool)
        assert info.ended is None or all(isinstance(last, int) for last in info.ended.values())
    assert len({info.session_id for info in found}) == len(found)
    start = SessionStart("sess_20990101_000000_kis_ffff", "kis", START_NS, "host", "boot", "0", "hash", {"tick": 8})
    if start.session_id not in {info.session_id for info in found}:
        append_start(root, start)
        again = read_sessions(root, "kis")
        assert [info.session_id for info in again][-1] == start.session_id, "what was appended is not read"


def text_log(data: bytes) -> None:
    """Any bytes as a file of system/events and of quarantine: recovery keeps every byte, and what reads after it never raises."""
    root = fresh("text")
    events, quarantine = root / "system" / "events" / "kis", root / "quarantine" / "kis"
    for folder in (events, quarantine):
        folder.mkdir(parents=True)
        (folder / "20260122.jsonl").write_bytes(data)
    path = events / "20260122.jsonl"
    size = recover_text(Disk(), path)
    whole = path.read_bytes()
    torn = b"".join(one.read_bytes() for one in sorted(events.glob(f"*{TORN_SUFFIX}*")))
    assert len(whole) == size
    assert whole + torn == data, "bytes are gone"
    assert whole == b"" or whole.endswith(b"\n")
    assert b"\0" not in whole
    assert b"".join(line + b"\n" for _, line in text_lines(path)) == whole
    for (session, ring), last in last_event_seqs(events).items():
        assert isinstance(session, str)
        assert isinstance(ring, str)
        assert isinstance(last, int)
    last_event_seqs(events, [SESSION])
    assert isinstance(kept_bytes(quarantine / "20260122.jsonl"), int)
    assert isinstance(last_quarantined(QuarantineOptions(root, "kis", SEOUL), events, SESSION), int)
    assert _set_aside(root, SESSION, 0) >= 0
    assert all(isinstance(first, int) for _, first in Events(root, "kis", SEOUL, silent).known_gaps(SESSION))
    minutes = Minutes()
    for _, line in text_lines(path):
        minutes.counts(line)
        values = gap_values(json_object(line))
        assert all(values[key] is None or isinstance(values[key], int) for key in ("first_seq", "last_seq", "lost"))
    minutes.put_back(minutes.take())
    judge(path)


# --- seeds


def segment_bytes_seeds() -> list[bytes]:
    def edit(way: int, at: int, *more: bytes) -> bytes:
        return bytes([way]) + at.to_bytes(2, "little") + b"".join(more)

    size = sum(map(len, _whole()[0]))
    return [
        b"\0",
        b"\0" + edit(4, size - 20),
        b"\1" + edit(0, 30, b"\3"),
        b"\1" + edit(0, 5, b"\1") + edit(1, size // 2, b"\7", b"12345678"),
        b"\0" + edit(2, size // 3, b"\x40") + edit(4, size // 2),
        b"\0" + edit(3, 0, b"\7", b"\x28\xb5\x2f\xfd\x64\0\0\0") + edit(0, size - 1, b"\0"),
    ]


def segment_lines_seeds() -> list[bytes]:
    lines = lines_of(rows_of(0, 4))
    return [
        b"\1" + b"\n".join(lines[:2]) + b"\0" + b"\n".join(lines[2:]),
        b"\0" + b"\n".join([gap_of(0, 1), *lines[2:]]),
        b"\0" + lines[0] + b'\0{"seq":1}\0' + lines[2],
        b"\1" + lines[0] + b'\0{"seq":"1","ts_ns":null,"session_id":7}',
    ]


def manifest_lines_seeds() -> list[bytes]:
    good = (_sealed(fresh("seed")) / MANIFEST).read_bytes()
    return [good, good[:-20], good + b'{"path":7}\n', good.replace(b'"path":"', b'"path":["').replace(b'.zst"', b'.zst"]'), b"null\n[]\n"]


def session_lines_seeds() -> list[bytes]:
    root = fresh("seed")
    for session in (SESSION, SESSION.replace("0a1b", "0a1c")):
        append_start(root, SessionStart(session, "kis", START_NS, "host", "boot", "0", "hash", {"tick": 8, "event": 8}))
    append_end(root, "kis", SESSION, START_NS + 1, {"tick": 5, "event": -1})
    good = sessions_path(root, "kis").read_bytes()
    return [good, good[:-9], good.replace(b'"rings":{"tick":5', b'"rings":{"tick":"5"'), good.replace(b"\n", b"\n\n\0")]


def text_log_seeds() -> list[bytes]:
    gap = gap_of(3, 5).replace(b'"ring":"tick"', b'"ring":"event"')
    event = b'{"event_type":"warning","session_id":"%s","event_ring":"event","event_seq":7}' % SESSION.encode()
    chunk = b'{"ts_ns":1,"reason":"fields","session_id":"%s","first_seq":0,"last_seq":2,"kept_bytes":9,"data":"eA=="}' % SESSION.encode()
    counts = b'{"event_type":"counts","event_ring":"event","event_seq":8,"minute_ns":%d,"of_session":"%s","tick_seq":5}'
    counts %= (START_NS, SESSION.encode())
    lines = [gap, event, chunk, counts]
    return [
        b"\n".join([*lines, b""]),
        b"\n".join(lines),
        b"\n".join([event.replace(b"7}", b'"7"}'), chunk.replace(b":9,", b':"9",'), b""]),
        b"\n".join([event, b"\0\0\0", chunk, b""]),
        b"\n".join([gap[:-9] + b"}", gap.replace(b'"ring":"event"', b'"ring":["event"]'), counts.replace(b":5}", b':"5"}'), b""]),
    ]
