"""What recovery makes of every state that a crash can leave, and of damage."""

from __future__ import annotations

import shutil
from pathlib import Path

import orjson
import pytest
from segment_lines import SESSION, check_rows, gap_of, put, series_at, writer_at

from obs.record.jsonl import is_gap
from obs.segment.format import Frame, line_span, pieces
from obs.segment.manifest import read_manifest
from obs.segment.reader import find, holes, last_archived, read_lines, verify
from obs.segment.recover import recover_open

NAME = "09_00_00.jsonl.zst"


def crashed(root: Path, frames: int = 6) -> Path:
    """Leave an open segment of `frames` frames with ten records each; return its path."""
    writer = writer_at(root)
    for turn in range(frames):
        put(writer, turn * 10, 10)
        writer.flush()
    return root / "scalp/kis/kr_stocks/20260122" / (NAME + ".open")


def ends_of(path: Path) -> list[int]:
    return [piece.end for piece in pieces(path.read_bytes()) if isinstance(piece, Frame)]


def hurt(path: Path, frame: int) -> None:
    data = bytearray(path.read_bytes())
    end = ends_of(path)[frame]
    data[end - 3] ^= 1  # its checksum
    path.write_bytes(bytes(data))


def seqs_in(path: Path) -> list[int]:
    lines = [line for _, line in read_lines(path)]
    check_rows([line for line in lines if not is_gap(line)])
    return [seq for line in lines for seq in range(line_span(line)[0], line_span(line)[1] + 1)]


def test_nothing_to_do(tmp_path):
    assert recover_open(series_at(tmp_path)) == []
    writer = writer_at(tmp_path)
    put(writer, 0, 5)
    writer.seal()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert recover_open(series_at(tmp_path)) == []
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("torn", [0, 1, 5, 100])
def test_an_open_file_is_cut_behind_its_last_whole_frame_and_sealed(tmp_path, torn):
    path = crashed(tmp_path)
    whole = path.read_bytes()
    ends = ends_of(path)
    data = whole[: ends[-1] - torn] if torn else whole
    path.write_bytes(data)
    (done,) = recover_open(series_at(tmp_path))
    kept = ends[-2] if torn else ends[-1]
    assert done.path is not None
    assert done.path.name == NAME
    assert done.path.read_bytes() == whole[:kept]
    assert (done.session_id, done.first_seq, done.last_seq) == (SESSION, 0, 49 if torn else 59)
    assert done.torn_bytes == len(data) - kept
    if torn:
        assert done.torn_path is not None
        assert done.torn_path.name == NAME + ".torn"
        assert done.torn_path.read_bytes() == data[kept:]
    assert read_manifest(path.parent)[NAME].tally.last_seq == done.last_seq == last_archived(series_at(tmp_path), SESSION)
    assert verify(done.path).good
    assert not path.exists()
    assert recover_open(series_at(tmp_path)) == []


@pytest.mark.parametrize(("keep_seq", "last"), [(-1, -1), (0, 9), (9, 9), (10, 19), (29, 29), (35, 39), (59, 59), (1000, 59), (None, 59)])
def test_what_the_ring_still_holds_is_taken_from_it(tmp_path, keep_seq, last):
    path = crashed(tmp_path)
    data = path.read_bytes()
    (done,) = recover_open(series_at(tmp_path), SESSION, keep_seq)
    assert last_archived(series_at(tmp_path), SESSION) == last
    kept = done.path.read_bytes() if done.path else b""
    assert kept + (done.torn_path.read_bytes() if done.torn_path else b"") == data


def test_only_the_session_that_was_asked_for(tmp_path):
    path = crashed(tmp_path)
    assert recover_open(series_at(tmp_path), "sess_20260122_010000_kis_ffff", 3) == []
    assert path.exists()


@pytest.mark.parametrize("data", [b"", b"\x28\xb5", b"rubbish"])
def test_a_file_without_a_whole_frame(tmp_path, data):
    path = crashed(tmp_path)
    path.write_bytes(data)
    (done,) = recover_open(series_at(tmp_path))
    assert (done.path, done.last_seq) == (None, -1)
    assert sorted(one.name for one in path.parent.iterdir()) == ([NAME + ".torn"] if data else [])


def test_torn_bytes_never_replace_older_ones(tmp_path):
    path = crashed(tmp_path)
    torn = path.with_name(NAME + ".torn")
    torn.write_bytes(b"older")
    path.write_bytes(path.read_bytes()[:-1])
    (done,) = recover_open(series_at(tmp_path))
    assert torn.read_bytes() == b"older"
    assert done.torn_path is not None
    assert done.torn_path.name == NAME + ".torn_2"


def test_the_writer_goes_on_in_a_new_file(tmp_path):
    path = crashed(tmp_path)
    path.write_bytes(path.read_bytes()[:-1])
    recover_open(series_at(tmp_path), SESSION, 29)
    first = last_archived(series_at(tmp_path), SESSION) + 1
    writer = writer_at(tmp_path)
    put(writer, first, 100 - first)
    writer.seal()
    assert [seq for one in find(series_at(tmp_path), SESSION) for seq in seqs_in(one.path)] == list(range(100))


@pytest.mark.parametrize("size", [0, 1, -1])
def test_missing_manifest_lines_are_rebuilt(tmp_path, size):
    writer = writer_at(tmp_path, segment_s=60)
    put(writer, 0, 500)
    writer.seal()
    manifest = tmp_path / "scalp/kis/kr_stocks/20260122/manifest.jsonl"
    before = read_manifest(manifest.parent)
    manifest.write_bytes(manifest.read_bytes()[:size] if size else b"")
    done = recover_open(series_at(tmp_path))
    assert len(done) == (1 if size == -1 else len(before))
    assert read_manifest(manifest.parent) == before
    assert all(orjson.loads(line) for line in manifest.read_bytes().splitlines())


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize(
    ("frames", "missing"), [([2], [(20, 29)]), ([0], [(0, 9)]), ([1, 2, 4], [(10, 29), (40, 49)]), ([0, 4], [(0, 9), (40, 49)])]
)
def test_damage_inside_is_set_aside_and_the_rest_kept(tmp_path, frames, missing, sealed):
    path = crashed(tmp_path)
    for frame in reversed(frames):
        hurt(path, frame)
    original = path.read_bytes()
    if sealed:
        path = path.rename(path.with_name(NAME))
    (done,) = recover_open(series_at(tmp_path))
    assert done.path is not None
    assert [line_span(line) for line in done.gaps] == missing
    assert seqs_in(done.path) == list(range(60))
    assert verify(done.path).good
    assert holes(series_at(tmp_path), SESSION) == []
    assert done.quarantined is not None
    assert done.quarantined.parent == tmp_path / "quarantine/segments"
    assert done.quarantined.read_bytes() == original
    report = orjson.loads(done.quarantined.with_name(done.quarantined.name + ".json").read_bytes())
    assert (report["bytes"], len(report["gaps"]), len(report["damages"])) == (len(original), len(missing), len(missing))
    assert recover_open(series_at(tmp_path)) == []


def test_damage_behind_what_is_durable_is_no_damage(tmp_path):
    """Unsynced pages come back in any order; the ring has all of it."""
    path = crashed(tmp_path)
    hurt(path, 3)
    (done,) = recover_open(series_at(tmp_path), SESSION, 29)
    assert (done.last_seq, done.quarantined, done.gaps) == (29, None, [])


def test_damage_in_front_of_what_is_durable_keeps_it(tmp_path):
    path = crashed(tmp_path)
    hurt(path, 1)
    (done,) = recover_open(series_at(tmp_path), SESSION, 29)
    assert done.path is not None
    assert seqs_in(done.path) == list(range(30))
    assert [line_span(line) for line in done.gaps] == [(10, 19)]


def test_a_damaged_first_frame_starts_where_the_file_before_ended(tmp_path):
    writer = writer_at(tmp_path, segment_s=60)
    put(writer, 0, 120)
    put(writer, 120, 10)
    writer.flush()
    put(writer, 130, 10)
    writer.flush()
    path = next(tmp_path.rglob("*.open"))
    hurt(path, 0)
    (done,) = recover_open(series_at(tmp_path))
    assert [line_span(line) for line in done.gaps] == [(120, 129)]
    assert holes(series_at(tmp_path), SESSION) == []


@pytest.mark.parametrize("with_original", [True, False])
def test_an_interrupted_repair(tmp_path, with_original):
    path = crashed(tmp_path)
    copy = path.with_name(NAME + ".salvage")
    if with_original:
        copy.write_bytes(path.read_bytes()[:700])
    else:
        shutil.move(path, copy)
    (done,) = recover_open(series_at(tmp_path))
    assert done.path is not None
    assert seqs_in(done.path) == list(range(60))
    assert not copy.exists()


def test_a_foreign_file_is_set_aside(tmp_path):
    writer = writer_at(tmp_path)
    put(writer, 0, 5)
    writer.seal()
    foreign = tmp_path / "scalp/kis/kr_stocks/20260122/10_00_00.jsonl.zst"
    foreign.write_bytes(b"not ours")
    (done,) = recover_open(series_at(tmp_path))
    assert done.path is None
    assert done.quarantined is not None
    assert done.quarantined.read_bytes() == b"not ours"
    assert not foreign.exists()


def test_a_gap_line_counts_as_archived(tmp_path):
    writer = writer_at(tmp_path)
    put(writer, 0, 5)
    writer.append_gap(gap_of(5, 9))
    put(writer, 10, 1)
    writer.flush()
    recover_open(series_at(tmp_path))
    assert last_archived(series_at(tmp_path), SESSION) == 10
