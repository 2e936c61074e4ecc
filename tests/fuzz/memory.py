"""Targets: shared memory and state files as a start finds them: ring headers, boards, counters, the intake, the saved budget."""

from __future__ import annotations

from functools import cache

import numpy as np
import orjson
from segment_lines import SESSION, rows_of

from fuzz.take import edited, fresh, scratch
from obs.errors import SchemaMismatch
from obs.ledger import broken_identity
from obs.ledger import read as read_intake
from obs.record.schema import TICK
from obs.ring import Consumer, Producer, attach_ring, create_ring, fence
from obs.ring.layout import HEADER_BYTES
from obs.shm import Board, Counters
from obs.shm.board import CELLS
from obs.supervisor.state_file import StateFile

_CAPACITY, _PUBLISHED = 8, 11  # so that the ring has gone round once
_BIG = 1 << 40


@cache
def _ring_bytes() -> bytes:
    path = fresh("ring-seed") / "ring"
    ring = create_ring(path, TICK, _CAPACITY, SESSION, "tick", 1)
    Producer(ring).publish(rows_of(0, _PUBLISHED))
    Consumer(ring, "archive").seek(3)
    ring.close()
    return path.read_bytes()


def ring_header(data: bytes) -> None:
    """Edits of a ring's header, and of its size: set aside, or the ring that it says it is; its rows are those of their sequence."""
    whole = _ring_bytes()
    path = scratch() / "ring"
    path.write_bytes(edited(whole[:HEADER_BYTES], data[1:]) + whole[HEADER_BYTES : len(whole) - (data[0] if data else 0) % 4])
    try:
        ring = attach_ring(path, TICK, SESSION)
    except SchemaMismatch as error:
        assert error.facts["path"] == str(path)
        return
    try:
        assert (ring.capacity, ring.session_id) == (_CAPACITY, SESSION)
        assert ring.published <= ring.claimed <= ring.published + ring.capacity
        for name in ("archive", "load"):
            consumer = Consumer(ring, name)
            try:
                batch = consumer.poll(100)
            except SchemaMismatch:
                continue
            assert len(batch.rows) <= _CAPACITY
            assert consumer.cursor == batch.first_seq + len(batch.rows)
            if len(batch.rows):
                expected = rows_of(batch.first_seq, len(batch.rows))
                assert batch.first_seq < _PUBLISHED
                assert batch.rows.tobytes() == expected.tobytes(), "a row is not that of its sequence"
    finally:
        ring.close()


@cache
def _board_bytes() -> bytes:
    path = fresh("board-seed") / "board"
    board = Board.create(path, fence)
    board["level"].write_json({"level": 1})
    board["budget"].write_json({"KIS": {"tokens": 9.5, "last_ns": 1}})
    board.close()
    return path.read_bytes()


_HEAD_BYTES = 4096 + 64 + 16  # the header, and of the first cell its word and the size of its first buffer


def board_header(data: bytes) -> None:
    """Edits of a board's beginning, and of its size: SchemaMismatch, or a board whose cells read, none longer than it may be."""
    whole = _board_bytes()
    path = scratch() / "board"
    cut = [0, 1, 8, len(whole)][data[0] % 4] if data else 0
    path.write_bytes((edited(whole[:_HEAD_BYTES], data[1:]) + whole[_HEAD_BYTES:])[: len(whole) - cut])
    try:
        board = Board.attach(path, fence)
    except SchemaMismatch:
        return
    for name, capacity in CELLS.items():
        assert len(board[name].read()) <= capacity
    assert board["level"].read_json() in ({"level": 1}, None) or len(data) > 1
    board["level"].write_json({"level": 2})
    assert board["level"].read_json() == {"level": 2}
    board.close()


@cache
def _counters_bytes() -> bytes:
    path = fresh("counters-seed") / "counters"
    counters = Counters(path, make=True)
    for role in ("feed", "archive"):
        counters.add(role)
    counters.cell("feed")["messages"] = 7
    counters.close()
    return path.read_bytes()


def counters_block(data: bytes) -> None:
    """Edits of a block of counters: SchemaMismatch, or names and numbers."""
    path = scratch() / "counters"
    path.write_bytes(edited(_counters_bytes(), data))
    try:
        counters = Counters(path)
    except SchemaMismatch:
        return
    for role in counters.roles():
        assert isinstance(role, str)
        assert int(counters.cell(role)["messages"]) >= 0
    try:
        counters.cell("feed")
    except KeyError:
        assert "feed" not in counters.roles()
    counters.close()


@cache
def _intake_bytes() -> bytes:
    from obs.ledger import Intake

    board = Board.create(fresh("intake-seed") / "board", fence)
    intake = Intake(board["intake"], np.array([b"", b"005930", b"000660"], "S20"))
    intake.head["session_id"] = SESSION.encode()
    intake.commit()
    value = board["intake"].read()
    board.close()
    return value


@cache
def _board() -> Board:
    return Board.create(scratch() / "intake-board", fence)


def intake_cell(data: bytes) -> None:
    """Edits of the intake that a dead feed left: it is read whole, or not at all."""
    cell = _board()["intake"]
    cell.write(edited(_intake_bytes(), data)[: cell.capacity])
    found = read_intake(cell)
    if found is None:
        return
    assert len(found.table) == int(found.head["rows"])
    assert isinstance(found.session_id, str)
    assert isinstance(broken_identity(found), str)


def state_file(data: bytes) -> None:
    """Any bytes as the file that keeps budget and tokens: a start reads it or starts without it, and saves it again."""
    root = fresh("state")
    state = StateFile(root, "kis")
    state.path.parent.mkdir()
    state.path.write_bytes(data)
    board = Board.create(root / "board", fence)
    state.fill(board)
    value = state.collect(board)
    state.save(value)
    assert orjson.loads(state.path.read_bytes()).keys() == {"budget", "tokens"}
    for name in ("budget", "tokens"):
        held = board[name].read_json()
        assert held is None or isinstance(held, dict), f"{name} is read by its owners as an object"
    board.close()


# --- seeds


def _edit(way: int, at: int, *more: bytes, size: int = 2) -> bytes:
    return bytes([way]) + at.to_bytes(size, "little") + b"".join(more)


def ring_header_seeds() -> list[bytes]:
    places = (0, 8, 12, 16, 24, 64, 128, 256, 320, 512, 520)
    return [b"\0", b"\1", *(b"\0" + _edit(0, at, b"\1") for at in places), b"\0" + _edit(1, 320, b"\7", _BIG.to_bytes(8, "little"))]


def board_header_seeds() -> list[bytes]:
    return [b"\0", b"\1", b"\2", b"\3", b"\0" + _edit(0, 0, b"\1"), b"\0" + _edit(1, 4096, b"\7", bytes([2] * 8))]


def counters_block_seeds() -> list[bytes]:
    return [b"", _edit(0, 0, b"\1"), _edit(1, 64, b"\3", b"\xff\xfe\xfd\xfc"), _edit(4, 64), _edit(4, 0), _edit(0, 1200, b"\7")]


def intake_cell_seeds() -> list[bytes]:
    return [b"", _edit(0, 8, b"\7"), _edit(4, 300), _edit(1, 232, b"\7", _BIG.to_bytes(8, "little")), _edit(1, 272, b"\7", b"\xff" * 8)]


def state_file_seeds() -> list[bytes]:
    good = {"budget": {"KIS": {"tokens": 9.5, "last_ns": 1}}, "tokens": {"KIS": {"value": "x" * 20, "expires_ns": 2}}}
    return [
        orjson.dumps(good),
        orjson.dumps(good)[:-9],
        b"null",
        orjson.dumps(good | {"budget": "x" * 5000}),
        orjson.dumps(good | {"tokens": [1, 2]}),
        orjson.dumps({"budget": {}}),
    ]
