"""Plain-text logs, session files and the quarantine file."""

from __future__ import annotations

import base64
import errno
import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import orjson
import pytest
from segment_lines import NS, SEOUL, SESSION, START_NS, gap_of

from obs.errors import DiskTrouble, FileGone
from obs.record.chunks import message_chunks
from obs.record.events import event_line, gap_line, gap_payload, make_event
from obs.record.schema import CHUNK_DATA_BYTES, CHUNK_KEEP_BYTES
from obs.segment.disk import gap_reason, observe, require_floor
from obs.segment.quarantine import QuarantineFile, QuarantineLog, QuarantineOptions, last_quarantined
from obs.segment.sessions import SessionStart, append_end, append_start, read_sessions, sessions_path
from obs.segment.textlog import TextLog, day_files, day_name, last_event_seqs, text_lines

OTHER = "sess_20260121_000000_kis_ffff"
MIDNIGHT = START_NS + 15 * 3600 * NS


def log_at(root: Path, progress: Callable[[str], None] = lambda _: None) -> TextLog:
    return TextLog(root, root / "system" / "events" / "kis", day_name(SEOUL), progress)


def read(root: Path) -> dict[str, list[bytes]]:
    return {path.name: [line for _, line in text_lines(path)] for path in day_files(root / "system/events/kis")}


def test_lines_go_to_their_local_day_in_order(tmp_path):
    calls: list[str] = []
    log = log_at(tmp_path, calls.append)
    for number, ts in enumerate((MIDNIGHT - 1, MIDNIGHT, MIDNIGHT + 1, MIDNIGHT, MIDNIGHT + 2)):
        log.append(b"%d" % number, ts)
    assert log.buffered == 5
    assert not calls
    log.flush()
    assert log.buffered == 0
    assert read(tmp_path) == {"20260122.jsonl": [b"0", b"1", b"3"], "20260123.jsonl": [b"2", b"4"]}
    assert calls == ["disk", ""] * (len(calls) // 2)
    log.close()
    log.append(b"5", MIDNIGHT + 2)
    log.flush()
    assert read(tmp_path)["20260123.jsonl"] == [b"2", b"4", b"5"]


@pytest.mark.parametrize(
    ("found", "kept", "torn"),
    [(b"", b"", b""), (b"a\nb\n", b"a\nb\n", b""), (b"a\nb", b"a\n", b"b"), (b"torn", b"", b"torn"),
     (b"a\n\0\0\0\nb\n", b"a\n", b"\0\0\0\nb\n"), (b"a\nb\0c\n", b"a\n", b"b\0c\n")],
)  # fmt: skip
def test_a_file_is_cut_behind_its_last_newline(tmp_path, found, kept, torn):
    folder = tmp_path / "system/events/kis"
    folder.mkdir(parents=True)
    (folder / "20260122.jsonl").write_bytes(found)
    log = log_at(tmp_path)
    log.append(b"new", START_NS)
    log.flush()
    assert (folder / "20260122.jsonl").read_bytes() == kept + b"new\n"
    assert [path.read_bytes() for path in folder.glob("*.torn")] == ([torn] if torn else [])


@pytest.mark.parametrize("often", [1, 2, 4])
@pytest.mark.parametrize("step", ["mkdir", "create", "write", "fsync", "fsync_folder", "cut", "append_open"])
def test_any_call_may_fail(tmp_path, step, often):
    left = [often]
    first_fsync = [step in ("cut", "append_open")]  # these two come only after another failure

    def fail(one: str, path: Path, detail: object) -> None:
        if one == step and left[0]:
            left[0] -= 1
            if one == "write":
                with path.open("ab") as file:
                    file.write(detail[1][:3])
            raise OSError(errno.EIO, "injected")
        if one == "fsync" and first_fsync[0]:
            first_fsync[0] = False
            raise OSError(errno.EIO, "injected")

    log = log_at(tmp_path)
    with observe(fail):
        for number in range(6):
            log.append(b"line %d" % number, START_NS + number)
            for _ in range(10):
                try:
                    log.flush()
                    break
                except DiskTrouble:
                    continue
            else:
                pytest.fail("it never got over the failure")
    assert read(tmp_path) == {"20260122.jsonl": [b"line %d" % number for number in range(6)]}


@pytest.mark.parametrize("how", ["removed", "moved", "with its folder"])
def test_a_file_that_is_taken_away_is_noticed_before_another_line_is_written(tmp_path: Path, how: str) -> None:
    root = tmp_path / "data"
    root.mkdir()
    folder = root / "system" / "events" / "kis"
    log = TextLog(root, folder, day_name(SEOUL))
    log.append(b"1", START_NS)
    log.flush()
    (path,) = day_files(folder)
    if how == "removed":
        path.unlink()
    else:
        (path if how == "moved" else folder).rename(tmp_path / "away")
    log.append(b"2", START_NS)
    with pytest.raises(FileGone, match=path.name):
        log.flush()
    assert not path.exists()
    again = TextLog(root, folder, day_name(SEOUL))
    again.append(b"1", START_NS)
    again.flush()
    assert path.read_bytes() == b"1\n"


def test_text_lines_go_on_where_they_stopped(tmp_path):
    path = tmp_path / "a"
    assert list(text_lines(path)) == []
    path.write_bytes(b"one\ntwo\nthr")
    assert list(text_lines(path)) == [(4, b"one"), (8, b"two")]
    path.write_bytes(b"one\ntwo\nthree\n")
    assert list(text_lines(path, 8)) == [(14, b"three")]


def test_the_last_event_of_each_ring(tmp_path):
    log = log_at(tmp_path)

    def put(session: str, ring: str, seq: int, ts: int) -> None:
        row = make_event("lifecycle", ts, {"n": seq})
        row["seq"] = seq
        log.append(event_line(row, session, "kis", ring), ts)

    day = 86400 * NS
    put(OTHER, "event", 99, START_NS - 5 * day)
    for seq in range(4):
        put(SESSION, "event", seq, START_NS - day)
    put(SESSION, "poll_event", 7, START_NS - day)
    put(SESSION, "event", 5, START_NS + day)
    put(SESSION, "event", 6, START_NS)
    lapped = gap_payload(
        start_ns=1, end_ns=2, scope="all", reason="ring_lap", session_id=SESSION, provider="kis", ring="poll_event", sink="archive",
        first_seq=8, last_seq=11, lost=4,
    )  # fmt: skip
    log.append(gap_line(lapped), START_NS)
    log.append(gap_of(500, 600), START_NS)
    log.append(b'{"broken', START_NS)
    log.flush()
    folder = tmp_path / "system/events/kis"
    mine = {(SESSION, "event"): 6, (SESSION, "poll_event"): 11}
    assert last_event_seqs(folder) == {**mine, (OTHER, "event"): 99}
    assert last_event_seqs(folder, [SESSION]) == mine
    assert last_event_seqs(folder, [OTHER]) == {(OTHER, "event"): 99}
    assert last_event_seqs(tmp_path / "nowhere") == {}


def start_of(session: str, ts_ns: int) -> SessionStart:
    return SessionStart(session, "kis", ts_ns, "host", "boot", "0.1.0", "abcd", {"tick": 131072, "event": 8192})


def test_sessions(tmp_path):
    assert read_sessions(tmp_path, "kis") == []
    append_start(tmp_path, start_of(OTHER, 5))
    append_end(tmp_path, "kis", OTHER, 8, {"tick": 4})
    with sessions_path(tmp_path, "kis").open("ab") as file:
        file.write(b'{"event":"sta')
    append_start(tmp_path, start_of(SESSION, 9))
    append_end(tmp_path, "kis", OTHER, 10, {"event": -1}, host_death=True, heard_ns=8)
    old, new = read_sessions(tmp_path, "kis")
    assert (old.session_id, old.started_ns, old.next_started_ns, old.ended_ns) == (OTHER, 5, 9, 10)
    assert (old.ended, old.host_death, old.heard_ns) == ({"tick": 4, "event": -1}, True, 8)
    assert (new.session_id, new.ended, new.next_started_ns, new.start.rings["tick"]) == (SESSION, None, 0, 131072)
    lines = [orjson.loads(line) for _, line in text_lines(sessions_path(tmp_path, "kis"))]
    assert list(lines[0]) == [
        "event", "session_id", "ts", "ts_ns", "provider", "host", "boot_id", "code_version", "config_hash", "rings",
    ]  # fmt: skip
    assert list(lines[1]) == ["event", "session_id", "ts", "ts_ns", "rings", "host_death", "heard_ns"]


class Quarantine:
    """A quarantine log with its ring: numbered rows, in polls of any size."""

    def __init__(self, root: Path, bytes_per_day: int = 1 << 20) -> None:
        self.options = QuarantineOptions(root, "kis", ZoneInfo("Asia/Seoul"), bytes_per_day)
        self.folder = root / "system/events/kis"
        self.open()
        self.rows: list[np.ndarray] = []

    def open(self) -> None:
        self.events = log_at(self.options.root)
        last = last_quarantined(self.options, self.folder, SESSION)
        self.log = QuarantineLog(QuarantineFile(self.options), SESSION, self.events, last)

    def message(self, data: bytes, *, whole: bool = True) -> np.ndarray:
        rows = message_chunks(data, START_NS + len(self.rows), "fields", whole=whole)
        rows["seq"] = np.arange(len(self.rows), len(self.rows) + len(rows))
        self.rows += list(rows)
        return rows

    def lines(self) -> list[dict]:
        return [orjson.loads(line) for path in day_files(self.options.folder) for _, line in text_lines(path)]

    def gaps(self) -> list[tuple[int, int]]:
        found = [orjson.loads(line) for path in day_files(self.folder) for _, line in text_lines(path)]
        assert all((gap["reason"], gap["ring"], gap["sink"]) == ("ring_lap", "quarantine", "archive") for gap in found)
        return [(gap["first_seq"], gap["last_seq"]) for gap in found]

    def covered(self) -> list[int]:
        spans = [(line["first_seq"], line["last_seq"]) for line in self.lines()] + self.gaps()
        return sorted(seq for first, last in spans for seq in range(first, last + 1))


@pytest.mark.parametrize("size", [0, 1, CHUNK_DATA_BYTES, CHUNK_DATA_BYTES + 1, CHUNK_KEEP_BYTES, CHUNK_KEEP_BYTES + 5000])
@pytest.mark.parametrize("poll", [1, 3, 100])
def test_a_message_comes_back_with_its_bytes(tmp_path, size, poll):
    data = bytes(k % 251 for k in range(size))
    box = Quarantine(tmp_path)
    box.message(b"before")
    box.message(data, whole=False)
    rows = np.array(box.rows)
    for start in range(0, len(rows), poll):
        box.log.append(rows[start : start + poll])
        assert box.log.flush() <= len(rows) - 1
    assert box.log.durable_seq == last_quarantined(box.options, box.folder, SESSION) == len(rows) - 1
    _, line = box.lines()
    assert base64.b64decode(line["data"]) == data[:CHUNK_KEEP_BYTES]
    assert (line["length"], line["whole"], line["reason"]) == (size, False, "fields")
    assert line["sha256"] == hashlib.sha256(data).hexdigest()
    assert (line["first_seq"], line["last_seq"]) == (1, len(rows) - 1)


def test_beyond_the_budget_messages_are_counted(tmp_path):
    box = Quarantine(tmp_path, bytes_per_day=250)
    for size in (100, 100, 100, 90, 40, 60, 7):
        box.log.append(box.message(b"x" * size))
    box.log.flush()
    shown = [(line["first_seq"], line["last_seq"], line.get("messages"), line["data"] is None) for line in box.lines()]
    assert shown == [(0, 0, None, False), (1, 1, None, False), (2, 3, 2, True), (4, 4, None, False), (5, 5, 1, True), (6, 6, None, False)]
    assert (box.log.over_budget_total, box.lines()[2]["length"], box.lines()[2]["reasons"]) == (3, 190, {"fields": 2})
    box.open()
    box.log.append(box.message(b"x" * 4))
    box.log.flush()
    assert box.lines()[-1]["data"] is None, "the budget is the day's, not the process's"


@pytest.mark.parametrize(
    ("lapped", "gaps"),
    [((0, 0), [(0, 0)]), ((1, 1), [(1, 3)]), ((2, 2), [(1, 3)]), ((3, 3), [(1, 3)]), ((0, 2), [(0, 3)]), ((3, 4), [(1, 5)]),
     ((4, 5), [(4, 5)]), ((5, 6), [(4, 6)])],
)  # fmt: skip
@pytest.mark.parametrize("announced", [True, False])
def test_a_message_with_a_lapped_chunk_is_lost_whole(tmp_path, lapped, gaps, announced):
    box = Quarantine(tmp_path)
    for size in (10, 2 * CHUNK_DATA_BYTES + 5, CHUNK_DATA_BYTES + 5, 10, 10):  # seqs 0, 1-3, 4-5, 6, 7
        box.message(b"x" * size)
    rows = np.array(box.rows)
    box.log.append(rows[: lapped[0]])
    box.log.flush()
    if announced:
        box.log.lapped(*lapped, START_NS)
    box.log.append(rows[lapped[1] + 1 :])
    box.log.flush()
    assert box.gaps() == gaps
    assert box.covered() == list(range(8))
    assert box.log.durable_seq == 7


def test_a_message_whose_rest_never_comes(tmp_path):
    box = Quarantine(tmp_path)
    box.log.append(box.message(b"x" * 3 * CHUNK_DATA_BYTES)[:2])
    assert box.log.flush() == -1
    box.log.finish()
    assert box.log.flush() == 1
    assert box.gaps() == [(0, 1)]


@pytest.mark.parametrize("failing", range(12))
def test_lines_in_two_files_are_one_prefix(tmp_path, failing):
    """Stop for good at the n-th disk call: the seqs that are accounted for on disk have no hole."""
    box = Quarantine(tmp_path)
    for _ in range(7):
        box.message(b"x" * 10)
    rows = np.array(box.rows)
    calls = [0]

    def stop(step: str, path: Path, detail: object) -> None:
        calls[0] += 1
        if calls[0] > failing:
            raise OSError(errno.EIO, "gone")

    box.log.append(rows[:2])
    box.log.lapped(2, 2, START_NS)
    box.log.append(rows[3:4])
    box.log.lapped(4, 5, START_NS)
    box.log.append(rows[6:])
    assert box.log.buffered_bytes > 900
    with observe(stop), suppress(DiskTrouble):
        box.log.flush()
    assert box.covered() == list(range(last_quarantined(box.options, box.folder, SESSION) + 1))
    assert box.log.flush() == 6
    assert box.log.buffered_bytes == 0
    assert box.covered() == list(range(7))


def test_the_floor_of_free_space(tmp_path, monkeypatch):
    monkeypatch.setattr("obs.segment.disk.FLOOR_BYTES", 0)
    require_floor(tmp_path)
    monkeypatch.setattr("obs.segment.disk.FLOOR_BYTES", 1 << 62)
    monkeypatch.setattr("obs.segment.disk.FLOOR_SHARE", 1)
    with pytest.raises(DiskTrouble, match="floor") as caught:
        require_floor(tmp_path)
    assert gap_reason(caught.value) == "disk_full"
