"""What a writer leaves on disk: names, windows, frames, sealing, gap lines, and how it gets over a failing disk."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from segment_lines import NS, SEOUL, SESSION, START_NS, check_rows, gap_of, lines_of, put, rows_of, series_at, writer_at

from obs.errors import DiskTrouble, FileGone
from obs.record.jsonl import is_gap
from obs.segment.disk import gap_reason, observe
from obs.segment.format import FRAME_BYTES, Frame, frame_end, line_span, pieces
from obs.segment.manifest import read_manifest
from obs.segment.reader import find, last_archived, read_lines, verify
from obs.segment.writer import LocalClock, SegmentOptions, SegmentWriter

DAY = Path("scalp/kis/kr_stocks/20260122")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def stored(root: Path, session: str = SESSION) -> list[int]:
    """Return every seq that the archive accounts for, in file order."""
    seqs: list[int] = []
    for segment in find(series_at(root), session):
        lines = [line for _, line in read_lines(segment.path)]
        check_rows([line for line in lines if not is_gap(line)])
        for line in lines:
            low, high = line_span(line)
            seqs += range(low, high + 1)
    return seqs


def test_a_day_of_windows(tmp_path):
    writer = writer_at(tmp_path, segment_s=300)
    put(writer, 0, 1300)
    assert writer.flush() == 1299
    assert names(tmp_path / DAY) == ["09_00_00.jsonl.zst", "09_05_00.jsonl.zst", "09_10_00.jsonl.zst.open", "manifest.jsonl"]
    writer.seal()
    manifest = read_manifest(tmp_path / DAY)
    assert [(one.path, one.tally.first_seq, one.tally.last_seq, one.tally.records) for one in manifest.values()] == [
        (f"{DAY}/09_00_00.jsonl.zst", 0, 599, 600), (f"{DAY}/09_05_00.jsonl.zst", 600, 1199, 600),
        (f"{DAY}/09_10_00.jsonl.zst", 1200, 1299, 100),
    ]  # fmt: skip
    for name, line in manifest.items():
        data = (tmp_path / DAY / name).read_bytes()
        assert (line.sha256, line.file_bytes) == (hashlib.sha256(data).hexdigest(), len(data))
        assert verify(tmp_path / DAY / name).manifest == "match"
        assert line.tally.first_ts_ns == START_NS + (line.tally.first_seq + 1) * NS // 2
    assert stored(tmp_path) == list(range(1300))


def test_stock_tools_read_every_prefix_of_whole_frames(tmp_path):
    writer = writer_at(tmp_path)
    for turn in range(5):
        put(writer, turn * 7, 7)
        writer.flush()
    path = next((tmp_path / DAY).glob("*.open"))
    data = path.read_bytes()
    ends = [piece.end for piece in pieces(data) if isinstance(piece, Frame)]
    assert len(ends) == 5
    prefix = tmp_path / "prefix.zst"
    for count, end in enumerate(ends, 1):
        prefix.write_bytes(data[:end])
        done = subprocess.run(["zstdcat", prefix], capture_output=True, check=True)
        assert check_rows(done.stdout.splitlines()) == list(range(count * 7))


def test_frames_hold_whole_lines_within_bounds_and_their_checksum(tmp_path):
    writer = writer_at(tmp_path, segment_s=86400)
    put(writer, 0, 4000)
    writer.flush()
    data = next((tmp_path / DAY).glob("*.open")).read_bytes()
    sizes = []
    at = 0
    while at < len(data):
        end, reason = frame_end(data, at)
        assert not reason
        parameters = zstandard.get_frame_parameters(data[at:end])
        assert parameters.has_checksum
        sizes.append(parameters.content_size)
        at = end
    assert all(64 << 10 <= size <= 1 << 20 for size in sizes[:-1])
    assert all(size <= FRAME_BYTES + 1000 for size in sizes)
    assert len(sizes) > 5


def test_a_file_ends_at_its_size(tmp_path):
    writer = writer_at(tmp_path, segment_s=86400, segment_bytes=100_000)
    put(writer, 0, 1000)
    writer.seal()
    tallies = [line.tally for line in read_manifest(tmp_path / DAY).values()]
    assert len(tallies) > 4
    assert all(100_000 <= tally.raw_bytes < 101_000 for tally in tallies[:-1])
    assert stored(tmp_path) == list(range(1000))


@pytest.mark.parametrize("state", ["", ".open", ".torn", ".salvage"])
def test_no_name_is_taken_twice(tmp_path, state):
    (tmp_path / DAY).mkdir(parents=True)
    (tmp_path / DAY / f"09_00_00.jsonl.zst{state}").write_bytes(b"older")
    (tmp_path / DAY / "09_00_00_2.jsonl.zst.open").write_bytes(b"older")
    writer = writer_at(tmp_path)
    put(writer, 0, 3)
    writer.seal()
    assert "09_00_00_3.jsonl.zst" in names(tmp_path / DAY)
    assert (tmp_path / DAY / f"09_00_00.jsonl.zst{state}").read_bytes() == b"older"


def test_two_sessions_share_a_folder(tmp_path):
    other = "sess_20260122_000001_kis_ffff"
    writers = {SESSION: writer_at(tmp_path), other: writer_at(tmp_path, other)}
    for session, writer in writers.items():
        put(writer, 0, 3, session=session)
        writer.flush()
    for writer in writers.values():
        writer.seal()
    assert names(tmp_path / DAY) == ["09_00_00.jsonl.zst", "09_00_00_2.jsonl.zst", "manifest.jsonl"]
    assert stored(tmp_path) == stored(tmp_path, other) == [0, 1, 2]


def test_modes_whatever_the_umask(tmp_path):
    before = os.umask(0o077)
    try:
        writer = writer_at(tmp_path)
        put(writer, 0, 3)
        writer.seal()
    finally:
        os.umask(before)
    for path in (tmp_path / "scalp").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o750 if path.is_dir() else 0o640), path
    assert stat.S_IMODE((tmp_path / "scalp").stat().st_mode) == 0o750


@pytest.mark.parametrize(
    ("zone", "ts", "folder", "name"),
    [
        ("Asia/Seoul", 1_769_094_000_000_000_000, "20260122", "23_59_59"),  # midnight sharp belongs to the day that ends
        ("Asia/Seoul", 1_769_094_000_000_000_001, "20260123", "00_00_00"),
        ("America/New_York", 1_769_058_000_000_000_000 + 1, "20260122", "00_00_00"),
        ("UTC", 1_769_904_000_000_000_000, "20260131", "23_59_59"),  # month's end
        ("America/New_York", 1_772_953_200_000_000_001, "20260308", "03_00_00"),  # the hour that does not exist
        ("America/New_York", 1_793_509_200_000_000_001, "20261101", "01_00_00"),  # the hour that comes twice
        ("America/New_York", 1_793_512_800_000_000_001, "20261101", "01_00_00"),
    ],
)
def test_dates_and_clock_names_are_local(tmp_path, zone, ts, folder, name):
    writer = SegmentWriter(series_at(tmp_path), SegmentOptions(ZoneInfo(zone)), SESSION)
    rows = rows_of(0, 1)
    rows["ts_ns"] = ts
    writer.append(lines_of(rows), 0, rows["ts_ns"])
    writer.seal()
    assert names(series_at(tmp_path).folder / folder) == [f"{name}.jsonl.zst", "manifest.jsonl"]


@pytest.mark.parametrize(
    ("steps_s", "files"),
    [
        ([0, 1, 2], 1), ([0, 299, 300, 301], 2), ([0, 300, 299, 301, 600], 3),  # back over a border: stays
        ([0, 700, 100], 3),  # back by more than a window
        ([0, 14 * 3600 + 3599, 15 * 3600 + 1, 15 * 3600 - 1], 4),  # back over midnight: a segment is of one day
    ],
)  # fmt: skip
def test_a_clock_that_steps(tmp_path, steps_s, files):
    writer = writer_at(tmp_path)
    rows = rows_of(0, len(steps_s))
    rows["ts_ns"] = START_NS + 1 + np.array(steps_s) * NS
    writer.append(lines_of(rows), 0, rows["ts_ns"])
    writer.seal()
    assert len(find(series_at(tmp_path), SESSION)) == files
    assert stored(tmp_path) == list(range(len(steps_s)))


@given(st.lists(st.integers(0, 4_000_000_000), min_size=1, max_size=50))
@settings(max_examples=50, deadline=None)
def test_the_local_clock_equals_the_standard_library(seconds):
    clock = LocalClock(ZoneInfo("America/New_York"))
    found = clock.seconds(np.array(seconds, np.int64) * NS + 1)
    for second, local in zip(seconds, found.tolist(), strict=True):
        assert f"{clock.moment(second * NS + 1):%H_%M_%S}" == f"{local // 3600 % 24:02}_{local // 60 % 60:02}_{local % 60:02}"


@given(st.lists(st.tuples(st.integers(1, 300), st.booleans(), st.booleans()), min_size=1, max_size=12), st.integers(30_000, 200_000))
@settings(max_examples=25, deadline=None)
def test_any_batches_come_back(tmp_path_factory, batches, segment_bytes):
    root = tmp_path_factory.mktemp("any")
    writer = writer_at(root, segment_s=60, segment_bytes=segment_bytes)
    seq = 0
    for count, flush, gap in batches:
        if gap:
            writer.append_gap(gap_of(seq, seq + 4))
            seq += 5
        put(writer, seq, count)
        seq += count
        if flush:
            assert writer.flush() == seq - 1
    writer.seal()
    assert writer.durable_seq == last_archived(series_at(root), SESSION) == seq - 1
    assert stored(root) == list(range(seq))
    assert all(verify(segment.path).good for segment in find(series_at(root)))


def test_a_gap_line_shares_the_frame_of_the_record_behind_it(tmp_path):
    writer = writer_at(tmp_path)
    put(writer, 0, 3)
    writer.append_gap(gap_of(3, 9))
    assert writer.flush() == 2, "the gap waits for its record"
    put(writer, 10, 2)
    assert writer.flush() == 11
    path = next((tmp_path / DAY).glob("*.open"))
    kinds = [[is_gap(line) for line in piece.lines] for piece in pieces(path.read_bytes()) if isinstance(piece, Frame)]
    assert kinds == [[False] * 3, [True, False, False]]
    writer.seal()
    (line,) = read_manifest(tmp_path / DAY).values()
    assert (line.tally.records, line.tally.gap_lines, line.tally.first_seq, line.tally.last_seq) == (5, 1, 0, 11)


def test_a_gap_that_ends_the_session_is_sealed_alone(tmp_path):
    writer = writer_at(tmp_path)
    writer.append_gap(gap_of(0, 9))
    writer.seal()
    assert writer.durable_seq == last_archived(series_at(tmp_path), SESSION) == 9
    assert stored(tmp_path) == list(range(10))


def test_an_idle_file_is_due_after_its_window(tmp_path):
    writer = writer_at(tmp_path)
    assert not writer.due(START_NS)
    put(writer, 0, 1)
    writer.flush()
    assert not writer.due(START_NS + 300 * NS)
    assert writer.due(START_NS + 300 * NS + 1)
    writer.seal()
    put(writer, 1, 1)
    writer.flush()
    writer.append_gap(gap_of(2, 4))
    assert not writer.due(START_NS + 900 * NS), "the gap line belongs to the next file"
    put(writer, 5, 1)
    writer.seal()
    assert not writer.due(START_NS + 900 * NS)
    assert writer.open_bytes == writer.buffered_bytes == writer.oldest_ts_ns == 0


def test_what_it_tells_of_its_buffer(tmp_path):
    calls: list[str] = []
    writer = SegmentWriter(series_at(tmp_path), SegmentOptions(SEOUL), SESSION, calls.append)
    put(writer, 0, 10)
    assert (writer.durable_seq, writer.appended_seq, writer.oldest_ts_ns) == (-1, 9, START_NS + NS // 2)
    assert writer.buffered_bytes > 4000
    assert calls == []
    writer.flush()
    assert calls
    assert calls == ["disk", ""] * (len(calls) // 2)
    assert (writer.durable_seq, writer.buffered_bytes) == (9, 0)
    assert writer.open_bytes > 0


STEPS = ("mkdir", "create", "write", "fsync", "fsync_folder", "rename")


@pytest.mark.parametrize("failure", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("often", [1, 2, 3])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("skip", [0, 1, 3])
def test_any_call_may_fail_and_nothing_is_lost_or_doubled(tmp_path, step, skip, often, failure):
    """Fail some calls of one kind; the caller only flushes again."""
    seen = {"calls": 0}

    def fail(one: str, path: Path, detail: object) -> None:
        if one == step:
            seen["calls"] += 1
            if skip < seen["calls"] <= skip + often:
                if step == "write":  # half of it reached the file
                    with path.open("ab") as file:
                        file.write(detail[1][: len(detail[1]) // 2])
                raise OSError(failure, os.strerror(failure))

    writer = writer_at(tmp_path, segment_s=60)
    troubles = []

    def insist(call: Callable[[], object]) -> None:
        for _ in range(20):
            durable = writer.durable_seq
            try:
                call()
                return
            except DiskTrouble as trouble:
                troubles.append(trouble)
                assert durable <= writer.durable_seq <= last_archived(series_at(tmp_path), SESSION)
        pytest.fail("it never got over the failure")

    with observe(fail):
        for turn in range(8):
            put(writer, turn * 50, 50)
            insist(writer.flush)
            assert writer.durable_seq == turn * 50 + 49
        insist(writer.seal)
    assert all(gap_reason(trouble) == ("disk_full" if failure == errno.ENOSPC else "disk_error") for trouble in troubles)
    assert stored(tmp_path) == list(range(400))
    assert all(verify(segment.path).good and segment.sealed for segment in find(series_at(tmp_path)))
    assert not list(tmp_path.rglob("*.open"))


def test_after_a_failed_fsync_the_descriptor_is_never_used_again(tmp_path):
    opened: list[Path] = []
    used: list[tuple[str, Path]] = []
    armed = [False]

    def watch(step: str, path: Path, _: object) -> None:
        used.append((step, path))
        if step == "create":
            opened.append(path)
        if step == "fsync" and armed[0]:
            armed[0] = False
            raise OSError(errno.EIO, "injected")

    writer = writer_at(tmp_path)
    with observe(watch):
        put(writer, 0, 5)
        writer.flush()
        durable_bytes = opened[0].stat().st_size
        armed[0] = True
        put(writer, 5, 5)
        with pytest.raises(DiskTrouble):
            writer.flush()
        failed_at = len(used)
        sealed = opened[0].with_name(opened[0].name.removesuffix(".open"))
        assert sealed.stat().st_size == durable_bytes, "cut to its last fsynced frame, and sealed"
        assert writer.flush() == 9
    assert ("write", opened[0]) not in used[failed_at:]
    assert ("fsync", opened[0]) not in used[failed_at:]
    assert [path.name for path in opened if path.name.endswith(".open")] == ["09_00_00.jsonl.zst.open", "09_00_02.jsonl.zst.open"]
    writer.seal()
    assert stored(tmp_path) == list(range(10))


@pytest.mark.parametrize("how", ["removed", "moved", "replaced", "with its folder"])
@pytest.mark.parametrize("then", ["flush", "seal"])
def test_an_open_file_that_is_taken_away_is_noticed(tmp_path: Path, how: str, then: str) -> None:
    """What was durable in it is so no more: only another writer, which begins with what is there, can write it again."""
    root = tmp_path / "data"
    root.mkdir()
    writer = writer_at(root)
    put(writer, 0, 10)
    writer.seal()
    put(writer, 10, 10)
    assert writer.flush() == 19
    (path,) = root.rglob("*.open")
    if how == "with its folder":
        path.parent.rename(tmp_path / "away")
    elif how == "removed":
        path.unlink()
    else:
        path.rename(tmp_path / "away")
    if how == "replaced":
        path.touch()
    if then == "flush":
        put(writer, 20, 10)
    with pytest.raises(FileGone, match=path.name):
        getattr(writer, then)()


def test_a_file_that_is_taken_away_before_it_was_cut_or_sealed_is_noticed(tmp_path: Path) -> None:
    for failing in ("write", "rename"):
        root = tmp_path / failing
        root.mkdir()
        writer = writer_at(root)
        put(writer, 0, 10)
        writer.flush()

        def refuse(step: str, _path: Path, _detail: Any, failing: str = failing) -> None:
            if step in (failing, "cut"):
                raise OSError(errno.EIO, "test")

        put(writer, 10, 10)
        with observe(refuse), pytest.raises(DiskTrouble):
            writer.seal()
        (path,) = root.rglob("*.open")
        path.unlink()
        with pytest.raises(FileGone, match=path.name):
            writer.flush()


def test_a_look_that_fails_is_trouble_of_the_disk_and_no_file_that_is_gone(tmp_path: Path) -> None:
    writer = writer_at(tmp_path)
    put(writer, 0, 10)
    writer.flush()

    def refuse(step: str, _path: Path, _detail: Any) -> None:
        if step == "stat":
            raise OSError(errno.EIO, "test")

    put(writer, 10, 10)
    with observe(refuse), pytest.raises(DiskTrouble):
        writer.flush()
    writer.seal()
    assert stored(tmp_path) == list(range(20))
