"""Frames as the server sends them, read back by a parser of a dozen lines."""

from __future__ import annotations

import struct

import pytest

from obs.sim.frames import BINARY, CLOSE, PING, TEXT, close_frame, fragments, frame


def parse(data: bytes) -> list[tuple[bool, int, bytes]]:
    """Return (fin, opcode, payload) of each unmasked frame."""
    out = []
    while data:
        fin, opcode, size, at = bool(data[0] & 0x80), data[0] & 0x0F, data[1], 2
        if size == 126:
            size, at = struct.unpack("!H", data[2:4])[0], 4
        elif size == 127:
            size, at = struct.unpack("!Q", data[2:10])[0], 10
        assert len(data) >= at + size
        out.append((fin, opcode, data[at : at + size]))
        data = data[at + size :]
    return out


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 100_000])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_frame_of_any_size(size: int, opcode: int) -> None:
    payload = bytes(number % 251 for number in range(size))
    assert parse(frame(payload, opcode) + frame(b"next", opcode)) == [(True, opcode, payload), (True, opcode, b"next")]


@pytest.mark.parametrize(("size", "parts"), [(1, 3), (2, 2), (10, 3), (70_000, 5), (5, 1), (0, 4)])
def test_fragments_join_to_the_message(size: int, parts: int) -> None:
    payload = bytes(number % 251 for number in range(size))
    frames = parse(fragments(payload, TEXT, parts))
    data = [one for one in frames if one[1] != PING]
    assert b"".join(piece for _, _, piece in data) == payload
    assert [opcode for _, opcode, _ in data] == [TEXT] + [0] * (len(data) - 1)
    assert [fin for fin, _, _ in data] == [False] * (len(data) - 1) + [True]
    assert (len(frames) > len(data)) == (len(data) > 1)


def test_close_frames() -> None:
    assert parse(close_frame(1011, "why")) == [(True, CLOSE, b"\x03\xf3why")]
    assert parse(close_frame(1005)) == [(True, CLOSE, b"")]
