"""Reading, verifying and following segments."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import orjson
import pytest
from segment_lines import NS, SESSION, START_NS, check_rows, gap_of, put, series_at, writer_at

from obs.errors import SegmentCorrupt
from obs.segment.cursor import SegmentCursor
from obs.segment.format import Damage, Frame, Series, frame_end, free_suffixed, pieces
from obs.segment.manifest import read_manifest
from obs.segment.reader import Segment, find, gap_lines, holes, last_archived, read_lines, verify

OTHER = "sess_20260122_010000_kis_1c2d"


def folder(root: Path) -> Path:
    return root / "scalp/kis/kr_stocks/20260122"


def filled(root: Path, files: int = 3, per_file: int = 60) -> Path:
    """Make `files` sealed segments of one minute each, in frames of 10 records; return the folder."""
    writer = writer_at(root, segment_s=60)
    for turn in range(files * per_file // 10):
        put(writer, turn * 10, 10, step_ns=60 * NS // per_file)
        writer.flush()
    writer.seal()
    return folder(root)


def drain(cursor: SegmentCursor, start: int = 0, rows: int = 1000) -> tuple[list[int], list[dict]]:
    """Read until nothing comes; check that records and gaps cover everything from `start` on, once."""
    seqs: list[int] = []
    gaps: list[dict] = []
    at = start
    while True:
        lines, more = cursor.read(at, rows)
        if not lines and not more:
            break
        found = check_rows(lines) if lines else []
        covered = sorted(found + [seq for gap in more for seq in range(max(at, gap["first_seq"]), gap["last_seq"] + 1)])
        assert covered == list(range(at, at + len(covered)))
        at += len(covered)
        seqs += found
        gaps += more
    return seqs, gaps


def test_lines_are_numbered_as_stock_tools_do(tmp_path):
    path = filled(tmp_path, 1) / "09_00_00.jsonl.zst"
    numbered = list(read_lines(path))
    assert [number for number, _ in numbered] == list(range(1, 61))
    assert check_rows([line for _, line in numbered]) == list(range(60))


def test_an_open_file_reads_to_its_last_whole_frame(tmp_path):
    path = filled(tmp_path, 1) / "09_00_00.jsonl.zst"
    opened = path.with_name(path.name + ".open")
    opened.write_bytes(path.read_bytes()[:-3])
    assert check_rows([line for _, line in read_lines(opened)]) == list(range(50))
    verdict = verify(opened)
    assert (verdict.good, verdict.sealed, verdict.records, verdict.last_seq) == (True, False, 50, 49)
    assert verdict.torn_bytes > 0


def test_a_sealed_file_that_ends_early_is_damaged(tmp_path):
    path = filled(tmp_path, 1) / "09_00_00.jsonl.zst"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(SegmentCorrupt) as caught:
        list(read_lines(path))
    verdict = verify(path)
    assert (verdict.good, verdict.manifest, len(verdict.damages)) == (False, "differs", 1)
    assert caught.value.offset == verdict.damages[0].offset
    damages: list[Damage] = []
    assert check_rows([line for _, line in read_lines(path, damages)]) == list(range(50))
    assert tuple(damages) == verdict.damages


def test_verify_finds_a_missing_sequence(tmp_path):
    writer = writer_at(tmp_path)
    put(writer, 0, 5)
    put(writer, 7, 5)
    writer.seal()
    verdict = verify(folder(tmp_path) / "09_00_00.jsonl.zst")
    assert (verdict.holes, verdict.good) == (((5, 6),), False)


def test_find_sorts_by_sequence_across_days_and_sessions(tmp_path):
    late = writer_at(tmp_path, OTHER)
    put(late, 0, 4, session=OTHER)
    late.flush()
    writer = writer_at(tmp_path, segment_s=300)
    put(writer, 0, 30, start_ns=START_NS + 15 * 3600 * NS - 10 * NS)
    writer.seal()
    found = find(series_at(tmp_path), SESSION)
    assert [(one.path.parent.name, one.first_seq, one.last_seq) for one in found] == [("20260122", 0, 19), ("20260123", 20, 29)]
    assert [(one.sealed, one.last_seq) for one in find(series_at(tmp_path), OTHER)] == [(False, None)]
    assert [one.session_id for one in find(series_at(tmp_path))] == [SESSION, SESSION, OTHER]
    assert last_archived(series_at(tmp_path), SESSION) == 29
    assert last_archived(series_at(tmp_path), OTHER) == 3
    assert last_archived(series_at(tmp_path), "sess_none") == -1


def test_nothing_there(tmp_path):
    assert find(series_at(tmp_path)) == []
    assert SegmentCursor(series_at(tmp_path), SESSION).read(0, 10) == ([], [])
    assert holes(series_at(tmp_path), SESSION) == []


def test_a_manifest_line_that_is_missing_or_damaged_costs_nothing(tmp_path):
    day = filled(tmp_path)
    manifest = day / "manifest.jsonl"
    lines = manifest.read_bytes().splitlines(keepends=True)
    for text in (b"", lines[0], lines[0] + b'{"path":\n' + lines[2], b"".join(lines)[:-5], b"\0" * 100):
        manifest.write_bytes(text)
        assert [(one.first_seq, one.last_seq) for one in find(series_at(tmp_path), SESSION)] == [(0, 59), (60, 119), (120, 179)]


def test_holes_and_gap_lines(tmp_path):
    writer = writer_at(tmp_path, segment_s=60)
    for first in (0, 130, 260, 390):
        if first:
            writer.append_gap(gap_of(first - 10, first - 1))
        put(writer, first, 120)
    writer.flush()
    series = series_at(tmp_path)
    assert holes(series, SESSION) == []
    assert [orjson.loads(line)["first_seq"] for line in gap_lines(series, SESSION)] == [120, 250, 380]
    writer.seal()
    assert [orjson.loads(line)["first_seq"] for line in gap_lines(series, SESSION)] == [120, 250, 380]
    gone = find(series, SESSION)[1]
    gone.path.unlink()
    assert holes(series, SESSION) == [(gone.first_seq, gone.last_seq)]


@pytest.mark.parametrize("rows", [1, 7, 10, 1000])
@pytest.mark.parametrize("start", [0, 1, 59, 60, 100, 179, 180, 500])
def test_a_cursor_starts_anywhere(tmp_path, start, rows):
    filled(tmp_path)
    seqs, gaps = drain(SegmentCursor(series_at(tmp_path), SESSION), start, rows)
    assert seqs == list(range(start, 180))
    assert gaps == []


def test_a_cursor_follows_a_writer_through_every_state(tmp_path):
    """Write, flush, seal, gaps, failures of the random kind; the cursor reads between any two calls."""
    for seed in range(15):
        root = tmp_path / str(seed)
        root.mkdir()
        rng = random.Random(seed)
        writer = writer_at(root, segment_s=60, segment_bytes=30_000)
        cursor = SegmentCursor(series_at(root), SESSION)
        at, seq, lost = 0, 0, 0
        for _ in range(120):
            action = rng.randrange(6)
            if action <= 2:
                count = rng.randrange(1, 60)
                put(writer, seq, count)
                seq += count
            elif action == 3:
                writer.append_gap(gap_of(seq, seq + 2))
                seq, lost = seq + 3, lost + 3
            elif action == 4:
                writer.flush()
            elif rng.random() < 0.3:
                writer.seal()
            lines, gaps = cursor.read(at, rng.choice((1, 10, 500)))
            found = check_rows(lines) if lines else []
            covered = sorted(found + [one for gap in gaps for one in range(gap["first_seq"], gap["last_seq"] + 1)])
            assert covered == list(range(at, at + len(covered)))
            assert not any(gap.get("damage") for gap in gaps)
            at += len(covered)
            assert at <= writer.durable_seq + 1
        writer.seal()
        lines, gaps = cursor.read(at, 100_000)
        covered_to = at + len(lines) + sum(gap["last_seq"] - gap["first_seq"] + 1 for gap in gaps)
        assert covered_to == seq
        cursor.close()


def test_a_cursor_outlives_a_cut_and_what_was_written_again(tmp_path):
    """A file is cut to its last fsynced frame after the cursor has read further: nothing is given twice."""
    day = filled(tmp_path, 1)
    sealed = day / "09_00_00.jsonl.zst"
    opened = sealed.with_name(sealed.name + ".open")
    shutil.move(sealed, opened)
    (day / "manifest.jsonl").unlink()
    cursor = SegmentCursor(series_at(tmp_path), SESSION)
    assert drain(cursor)[0] == list(range(60))
    ends = [piece.end for piece in pieces(opened.read_bytes()) if isinstance(piece, Frame)]
    with opened.open("rb+") as file:
        file.truncate(ends[2])
    shutil.move(opened, sealed)
    writer = writer_at(tmp_path)
    put(writer, 30, 50, step_ns=NS)
    writer.flush()
    assert drain(cursor, 60)[0] == list(range(60, 80))


def flip(path: Path, frame: int) -> None:
    data = bytearray(path.read_bytes())
    piece = list(pieces(bytes(data)))[frame]
    data[piece.end - 6] ^= 0x10
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("hurt", "missing"),
    [([("09_00_00", 0)], [(0, 9)]), ([("09_00_00", 5)], [(50, 59)]), ([("09_01_00", 2), ("09_01_00", 3)], [(80, 99)]),
     ([("09_02_00", 5)], [(170, 179)]), ([("09_00_00", 5), ("09_01_00", 0)], [(50, 59), (60, 69)])],
)  # fmt: skip
def test_a_cursor_names_what_damage_took(tmp_path, hurt, missing):
    day = filled(tmp_path)
    for name, frame in hurt:
        flip(day / f"{name}.jsonl.zst", frame)
    seqs, gaps = drain(SegmentCursor(series_at(tmp_path), SESSION))
    assert [(gap["first_seq"], gap["last_seq"]) for gap in gaps] == missing
    assert all((gap["reason"], gap["sink"], gap["damage"]) == ("disk_error", "archive", True) for gap in gaps)
    assert seqs == [seq for seq in range(180) if not any(low <= seq <= high for low, high in missing)]


def test_a_cursor_names_a_file_that_is_gone(tmp_path):
    (filled(tmp_path) / "09_01_00.jsonl.zst").unlink()
    _, gaps = drain(SegmentCursor(series_at(tmp_path), SESSION))
    assert [(gap["first_seq"], gap["last_seq"]) for gap in gaps] == [(60, 119)]


def test_a_file_that_is_missed_while_it_is_sealed_is_no_hole(tmp_path, monkeypatch):
    """A folder listed during a rename may show the file under neither name."""
    filled(tmp_path)
    calls = [0]

    def listing(series: Series, session_id: str) -> list[Segment]:
        calls[0] += 1
        found = find(series, session_id)
        return [segment for segment in found if segment.first_seq != 60] if calls[0] == 2 else found

    monkeypatch.setattr("obs.segment.cursor.find", listing)
    assert drain(SegmentCursor(series_at(tmp_path), SESSION)) == (list(range(180)), [])


def test_a_cursor_waits_at_a_write_in_progress(tmp_path):
    day = filled(tmp_path, 1)
    sealed = day / "09_00_00.jsonl.zst"
    data = sealed.read_bytes()
    sealed.unlink()
    (day / "manifest.jsonl").unlink()
    opened = day / "09_00_00.jsonl.zst.open"
    cursor = SegmentCursor(series_at(tmp_path), SESSION)
    at = 0
    for size in range(0, len(data) + 1, 97):
        opened.write_bytes(data[:size])
        lines, gaps = cursor.read(at, 1000)
        assert gaps == []
        at += len(lines)
    opened.write_bytes(data)
    assert at + len(cursor.read(at, 1000)[0]) == 60


def test_a_foreign_file_is_left_alone(tmp_path):
    day = filled(tmp_path)
    (day / "08_00_00.jsonl.zst").write_bytes(b"what is this")
    (day / "08_00_01.jsonl.zst.open").write_bytes(b"")
    (day / "notes.txt").write_bytes(b"mine")
    assert [one.first_seq for one in find(series_at(tmp_path))] == [0, 60, 120]
    assert drain(SegmentCursor(series_at(tmp_path), SESSION))[0] == list(range(180))


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", "short"), (b"\x28\xb5", "short"), (b"\x28\xb5\x2f\xfd", "short"), (b"\x28\xb5\x2f\xfe\x24\x00", "magic"),
     (b"\x28\xb5\x2f\xfd\x20\x01\x00\x00", "header"), (b"\x28\xb5\x2f\xfd\x25\x01\x00\x00", "header"),
     (b"\x28\xb5\x2f\xfd\x24\x01\x07\x00\x00", "block"), (b"\x28\xb5\x2f\xfd\x24\x01\x09\x00\x00", "short"),
     (b"\x28\xb5\x2f\xfd\xe4" + b"\xff" * 8 + b"\x01\x00\x00", "header")],
)  # fmt: skip
def test_what_is_no_frame(data, reason):
    assert frame_end(data, 0) == (-1, reason)


def test_free_names(tmp_path):
    path = tmp_path / "a"
    for expected in ("a.torn", "a.torn_2", "a.torn_3"):
        assert free_suffixed(path, ".torn").name == expected
        (tmp_path / expected).touch()


def test_the_manifest_keeps_what_it_says(tmp_path):
    day = filled(tmp_path, 1)
    (line,) = read_manifest(day).values()
    assert type(line).parse(line.line()) == line
    assert list(orjson.loads(line.line())) == [
        "path", "sha256", "bytes", "raw_bytes", "records", "gap_lines", "session_id", "ring", "first_seq", "last_seq", "first_ts",
        "last_ts", "first_ts_ns", "last_ts_ns",
    ]  # fmt: skip
