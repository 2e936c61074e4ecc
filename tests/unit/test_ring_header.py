"""The file of a ring: where its header holds what, and the refusal of everything that is not a ring of ours."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import obs.ring.layout
from obs.errors import EXIT_STATE, SchemaMismatch
from obs.record.schema import CHUNK, EVENT, SWING, TICK, fingerprint
from obs.ring import CONSUMERS, Consumer, Producer, Ring, attach_ring, create_ring
from obs.ring.layout import CLAIMED, HEADER_BYTES, LAYOUT_VERSION, PUBLISHED, consumer_word, ring_bytes

SESSION = "sess_20260122_003105_kis_a1b2"


def make(folder: Path, capacity: int = 8, dtype: np.dtype = TICK) -> Ring:
    return create_ring(folder / "ring", dtype, capacity, SESSION, "tick", 1_700_000_000_000_000_000)


def rows_of(first: int, count: int) -> np.ndarray:
    rows = np.zeros(count, TICK)
    rows["seq"] = np.arange(first, first + count)
    rows["symbol"] = b"005930"
    return rows


def documented() -> dict[str, int]:
    table = re.findall(r"^\| (\d+)[^|]*\| [^|]+ \| ([^|]+) \|$", obs.ring.layout.__doc__ or "", re.MULTILINE)
    return {what.split()[0].strip(":,;"): int(offset) for offset, what in table}


def test_the_header_is_where_the_docstring_says(tmp_path: Path) -> None:
    at = documented()
    ring = make(tmp_path, 16)
    Producer(ring).publish(rows_of(0, 5))
    ring.words[CLAIMED] = 7
    for place, name in enumerate(CONSUMERS):
        consumer = Consumer(ring, name)
        consumer.seek(place + 2)
        consumer.poll(1)
    content = (tmp_path / "ring").read_bytes()

    def text(offset: int, size: int) -> str:
        return content[offset : offset + size].rstrip(b"\0").decode()

    def number(offset: int, code: str = "<Q") -> int:
        return int(struct.unpack_from(code, content, offset)[0])

    assert text(at["MAGIC"], 8) == "OBSRING1"
    assert (number(at["LAYOUT_VERSION"], "<I"), number(at["LAYOUT_VERSION"] + 4, "<I")) == (LAYOUT_VERSION, TICK.itemsize)
    assert number(at["capacity"]) == 16
    assert content[at["fingerprint"] : at["fingerprint"] + 16] == fingerprint(TICK)
    assert (text(at["session"], 64), text(at["ring"], 32), number(at["creation"])) == (SESSION, "tick", ring.created_ns)
    assert (number(at["claimed"]), number(at["published"])) == (7, 5)
    for place, _ in enumerate(CONSUMERS):
        assert (number(512 + 128 * place), number(512 + 128 * place + 8)) == (place + 3, place + 2)
    assert content[at["cells"] :] == rows_of(0, 5).tobytes() + bytes(11 * TICK.itemsize)
    words = [CLAIMED, PUBLISHED, *(consumer_word(name) for name in CONSUMERS)]
    assert len({word // 8 for word in words}) == len(words), "words of different writers share a cache line"


@pytest.mark.parametrize("dtype", [TICK, SWING, EVENT, CHUNK], ids=["TICK", "SWING", "EVENT", "CHUNK"])
@pytest.mark.parametrize("capacity", [2, 4, 1024])
def test_a_ring_is_allocated_whole_and_found_again(tmp_path: Path, dtype: np.dtype, capacity: int) -> None:
    make(tmp_path, capacity, dtype).close()
    status = (tmp_path / "ring").stat()
    assert status.st_size == HEADER_BYTES + capacity * dtype.itemsize == ring_bytes(dtype, capacity)
    assert status.st_blocks * 512 >= status.st_size
    ring = attach_ring(tmp_path / "ring", dtype, SESSION)
    assert (ring.capacity, ring.session_id, ring.name, ring.dtype) == (capacity, SESSION, "tick", dtype)
    assert (ring.published, ring.claimed, ring.oldest) == (0, 0, 0)
    assert [(ring.cursor(name), ring.durable(name)) for name in CONSUMERS] == [(0, 0)] * len(CONSUMERS)


@pytest.mark.parametrize("capacity", [-8, 0, 1, 3, 6, 12, 1000, 131_071])
def test_a_capacity_is_a_power_of_two(tmp_path: Path, capacity: int) -> None:
    with pytest.raises(ValueError, match=f"power of two: capacity={capacity}"):
        make(tmp_path, capacity)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("session", "name"), [("s" * 65, "tick"), ("s", "t" * 33), ("sess_케이", "tick"), ("s", "틱")])
def test_a_name_that_the_header_cannot_hold_is_refused(tmp_path: Path, session: str, name: str) -> None:
    with pytest.raises(ValueError, match="ring header"):
        create_ring(tmp_path / "ring", TICK, 8, session, name, 0)
    assert os.listdir(tmp_path) == []
    ring = create_ring(tmp_path / "ring", TICK, 8, "s" * 64, "t" * 32, 0)
    assert (ring.session_id, ring.name) == ("s" * 64, "t" * 32)


def patched(at: int, code: str, value: object) -> Callable[[bytearray], bytes]:
    def change(content: bytearray) -> bytes:
        struct.pack_into(code, content, at, value)
        return content

    return change


REFUSED = {
    "empty": (lambda content: b"", "ring file is empty"),
    "one byte": (lambda content: content[:1], "shorter than a header: size=1"),
    "half a header": (lambda content: content[:2048], "shorter than a header: size=2048"),
    "a byte less than a header": (lambda content: content[:4095], "shorter than a header: size=4095"),
    "header alone": (lambda content: content[:4096], "size=4096 capacity=8"),
    "a byte short": (lambda content: content[:-1], "size=5631 capacity=8"),
    "a byte long": (lambda content: content + b"\0", "size=5633 capacity=8"),
    "a cell long": (lambda content: content + bytes(192), "size=5824 capacity=8"),
    "zeros": (lambda content: bytes(len(content)), "magic="),
    "text": (lambda content: b"not a ring at all\n" * 400, "magic=b'not a ri'"),
    "magic of another": (patched(0, "8s", b"OBSBRD02"), "magic=b'OBSBRD02'"),
    "magic of a later one": (patched(0, "8s", b"OBSRING2"), "magic=b'OBSRING2'"),
    "older version": (patched(8, "<I", 0), "version=0, expected 1"),
    "later version": (patched(8, "<I", 2), "version=2, expected 1"),
    "version of another byte order": (patched(8, ">I", 1), "version=16777216"),
    "item size": (patched(12, "<I", 128), "itemsize=128"),
    "capacity 0": (patched(16, "<Q", 0), "capacity=0"),
    "capacity 1": (patched(16, "<Q", 1), "capacity=1"),
    "capacity 7": (patched(16, "<Q", 7), "capacity=7"),
    "capacity doubled": (patched(16, "<Q", 16), "capacity=16"),
    "capacity halved": (patched(16, "<Q", 4), "capacity=4"),
    "capacity beyond all files": (patched(16, "<Q", 1 << 63), "capacity=9223372036854775808"),
    "fingerprint": (patched(24, "B", fingerprint(TICK)[0] ^ 1), "dtype fingerprint="),
    "last byte of the fingerprint": (patched(39, "B", fingerprint(TICK)[15] ^ 0x80), "dtype fingerprint="),
    "dtype of the same size": (patched(24, "16s", fingerprint(SWING)), "dtype fingerprint="),
    "another session": (patched(64, "64s", b"sess_other"), "session=b'sess_other'"),
    "a longer session": (patched(64, "64s", SESSION.encode() + b"0"), "session="),
    "no session": (patched(64, "64s", b""), "session=b''"),
    "session not text": (patched(64, "64s", b"\xff" * 64), "expected ASCII"),
    "name not text": (patched(128, "32s", b"\xfe"), "expected ASCII"),
    "published beyond claimed": (patched(320, "<Q", 6), "published=6 claimed=5"),
    "claimed below published": (patched(256, "<Q", 4), "published=5 claimed=4"),
    "claimed beyond a whole ring": (patched(256, "<Q", 14), "published=5 claimed=14"),
    "claimed beyond all numbers": (patched(256, "<Q", 2**64 - 1), "claimed=18446744073709551615"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_a_ring_of_ours_is_refused_and_left_alone(tmp_path: Path, case: str) -> None:
    change, told = REFUSED[case]
    path = tmp_path / "ring"
    ring = make(tmp_path, 8)
    Producer(ring).publish(rows_of(0, 5))
    ring.close()
    del ring
    content = bytes(change(bytearray(path.read_bytes())))
    path.write_bytes(content)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(SchemaMismatch) as caught:
        attach_ring(path, TICK, SESSION)
    assert told in str(caught.value)
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == EXIT_STATE
    assert path.read_bytes() == content
    assert len(os.listdir("/proc/self/fd")) == before, "a refused file stays mapped"


def test_every_byte_of_the_header_that_has_a_meaning_is_checked(tmp_path: Path) -> None:
    """Whatever one byte of magic, version, size, capacity, fingerprint or session becomes, the ring is refused."""
    path = tmp_path / "ring"
    make(tmp_path, 8).close()
    content = path.read_bytes()
    for at in (*range(40), *range(64, 64 + len(SESSION) + 1)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x41]) + content[at + 1 :])
        with pytest.raises(SchemaMismatch):
            attach_ring(path, TICK, SESSION)
    path.write_bytes(content)
    attach_ring(path, TICK, SESSION).close()


def test_no_ring_is_told_apart_and_the_session_is_asked_only_by_who_names_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        attach_ring(tmp_path / "ring", TICK)
    make(tmp_path)
    assert attach_ring(tmp_path / "ring", TICK).session_id == SESSION
