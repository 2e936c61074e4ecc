"""A bit flipped, or the file cut, at every byte of a segment: exactly the hurt frame is reported, all others read.

Every bit and every length always; through whole files, verify and recovery each 7th and each 5th in the short form, all of them, of
a segment of several times the size, in the long form.
"""

from __future__ import annotations

from pathlib import Path

import figures
import pytest
from harness import LONG, SEED
from segment_lines import SESSION, check_rows, put, series_at, writer_at

from obs.segment.format import Damage, Frame, pieces
from obs.segment.reader import find, read_lines, verify
from obs.segment.recover import recover_open

FRAMES, RECORDS = (8, 6) if LONG else (4, 3)
pytestmark = pytest.mark.timeout(3600 if LONG else 120)


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    writer = writer_at(tmp_path)
    for turn in range(FRAMES):
        put(writer, turn * RECORDS, RECORDS)
        writer.flush()
    writer.seal()
    return tmp_path / "scalp/kis/kr_stocks/20260122/09_00_00.jsonl.zst"


def test_every_bit(sealed):
    data = sealed.read_bytes()
    whole = [piece for piece in pieces(data) if isinstance(piece, Frame)]
    assert len(whole) == FRAMES
    unseen = 0
    for at in range(len(data)):
        hurt = next(frame for frame in whole if frame.offset <= at < frame.end)
        for bit in range(8):
            flipped = bytearray(data)
            flipped[at] ^= 1 << bit
            found = list(pieces(bytes(flipped)))
            if found == whole:
                unseen += 1  # another spelling of the same content: every line is right, and the file's hash tells
                sealed.write_bytes(flipped)
                assert verify(sealed).manifest == "differs"
                continue
            assert [piece for piece in found if isinstance(piece, Frame)] == [frame for frame in whole if frame is not hurt], (at, bit)
            damages = [piece for piece in found if isinstance(piece, Damage)]
            assert [(one.offset, one.end) for one in damages] == [(hurt.offset, hurt.end)], (at, bit)
    flips = len(data) * 8
    assert unseen <= flips // 100, unseen
    figures.note(figures.this_test(), SEED, long=LONG, faults={"bit flip": flips})


def test_every_length(sealed):
    data = sealed.read_bytes()
    whole = [piece for piece in pieces(data) if isinstance(piece, Frame)]
    for size in range(len(data) + 1):
        kept = [frame for frame in whole if frame.end <= size]
        end = kept[-1].end if kept else 0
        found = list(pieces(data[:size]))
        assert found[: len(kept)] == kept
        torn = found[len(kept) :]
        assert [(one.offset, one.end, one.torn) for one in torn] == ([(end, size, True)] if end < size else [])
    figures.note(figures.this_test(), SEED, long=LONG, faults={"cut": len(data) + 1})


def test_every_byte_through_verify_and_cat(sealed):
    data = sealed.read_bytes()
    whole = [piece for piece in pieces(data) if isinstance(piece, Frame)]
    for at in range(0, len(data), 1 if LONG else 7):
        hurt = next(number for number, frame in enumerate(whole) if frame.offset <= at < frame.end)
        flipped = bytearray(data)
        flipped[at] ^= 0xFF
        sealed.write_bytes(flipped)
        verdict = verify(sealed)
        assert (verdict.good, verdict.manifest, verdict.records) == (False, "differs", (FRAMES - 1) * RECORDS)
        assert [(one.offset, one.end) for one in verdict.damages] == [(whole[hurt].offset, whole[hurt].end)]
        damages: list[Damage] = []
        seqs = check_rows([line for _, line in read_lines(sealed, damages)])
        assert seqs == [seq for seq in range(FRAMES * RECORDS) if seq // RECORDS != hurt]


@pytest.mark.parametrize("keep_seq", [None, 2 * RECORDS - 1])
def test_every_length_of_an_open_file_recovers(sealed, tmp_path, keep_seq):
    data = sealed.read_bytes()
    ends = [piece.end for piece in pieces(data)]
    day = sealed.parent
    for size in range(0, len(data) + 1, 1 if LONG else 5):
        for path in day.iterdir():
            path.unlink()
        (day / (sealed.name + ".open")).write_bytes(data[:size])
        recover_open(series_at(tmp_path), None if keep_seq is None else SESSION, keep_seq)
        recover_open(series_at(tmp_path))
        frames = sum(end <= size for end in ends)
        expected = min(frames, FRAMES if keep_seq is None else 2) * RECORDS
        found = find(series_at(tmp_path), SESSION)
        assert [one.last_seq for one in found] == ([expected - 1] if expected else [])
        kept = found[0].path.read_bytes() if found else b""
        torn = b"".join(path.read_bytes() for path in day.glob("*.torn"))
        assert kept + torn == data[:size]
