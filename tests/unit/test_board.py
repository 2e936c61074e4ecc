"""Cells of the board: whole values, one writer, and nothing but the last complete value after a writer's death."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from obs.errors import EXIT_STATE, SchemaMismatch
from obs.ring import fence
from obs.shm import Board
from obs.shm.board import CELLS


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board.create(tmp_path / "board", fence)


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_holds_any_value_up_to_its_capacity(board: Board, name: str) -> None:
    cell = board[name]
    assert cell.capacity == CELLS[name]
    assert cell.read() == b""
    assert cell.read_json() is None
    for size in (1, 0, 7, cell.capacity, 8, cell.capacity - 1, 1):
        value = bytes((size + at) % 251 for at in range(size))
        cell.write(value)
        assert cell.read() == value
    with pytest.raises(ValueError, match=f"name={name} size={cell.capacity + 1} capacity={cell.capacity}"):
        cell.write(bytes(cell.capacity + 1))
    assert cell.read() == value


def test_cells_do_not_touch_each_other(board: Board) -> None:
    for turn in range(3):
        for place, name in enumerate(CELLS):
            board[name].write(bytes([turn * 16 + place]) * CELLS[name])
    for place, name in enumerate(CELLS):
        assert board[name].read() == bytes([32 + place]) * CELLS[name]


@pytest.mark.parametrize("value", [None, True, 0, 1.5, "에코", [], {"slots": [{"symbol": "005930", "row": 3}]}])
def test_json_goes_through(board: Board, value: object) -> None:
    board["wanted"].write_json({"before": 1})
    board["wanted"].write_json(value)
    assert board["wanted"].read_json() == value


def test_a_board_outlives_its_makers_and_is_found_by_the_next(tmp_path: Path, board: Board) -> None:
    board["level"].write_json(2)
    board.close()
    again = Board.attach(tmp_path / "board", fence)
    assert again["level"].read_json() == 2
    again["level"].write_json(1)
    assert Board.attach(tmp_path / "board", fence)["level"].read_json() == 1
    assert Board.create(tmp_path / "board", fence)["level"].read_json() is None


def corrupt(at: int, data: bytes) -> Callable[[bytearray], bytearray]:
    def change(content: bytearray) -> bytearray:
        content[at : at + len(data)] = data
        return content

    return change


@pytest.mark.parametrize(
    "change",
    [
        corrupt(0, b"OBSBRD01"),
        corrupt(8, b"\0" * 8),
        lambda content: content[:-1],
        lambda content: content + b"\0",
        lambda content: content[:10],
        lambda content: bytearray(len(content)),
        lambda content: bytearray(b"something else\n"),
    ],
    ids=["older", "other cells", "a byte short", "a byte long", "truncated", "zeros", "foreign"],
)
def test_another_layout_is_refused(tmp_path: Path, board: Board, change: Callable[[bytearray], bytearray]) -> None:
    path = tmp_path / "board"
    path.write_bytes(change(bytearray(path.read_bytes())))
    with pytest.raises(SchemaMismatch, match=str(path)) as caught:
        Board.attach(path, fence)
    assert caught.value.exit_code == EXIT_STATE


def test_no_board_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Board.attach(tmp_path / "none", fence)


class KilledError(Exception):
    """The writer died here."""


class DyingMemory:
    """The memory of a block for a writer that dies before its n-th store; a store of bytes can also be half done."""

    def __init__(self, memory: memoryview, budget: list[int], half: bool = False) -> None:
        self.memory, self.budget, self.half = memory, budget, half

    def __getitem__(self, key: object) -> object:
        return self.memory[key]  # type: ignore[index]

    def __setitem__(self, key: object, value: object) -> None:
        self.budget[0] -= 1
        if self.budget[0] < 0:
            if self.half and isinstance(key, slice) and isinstance(value, bytes):
                middle = len(value) // 2
                self.memory[key.start : key.start + middle] = value[:middle]
            raise KilledError
        self.memory[key] = value  # type: ignore[index, assignment]


@pytest.mark.parametrize("half", [False, True], ids=["between stores", "inside the copy"])
@pytest.mark.parametrize("earlier", [0, 1, 2, 3])
def test_a_writer_killed_before_any_store_leaves_the_last_value(tmp_path: Path, earlier: int, half: bool) -> None:
    for stores in range(4):
        board = Board.create(tmp_path / "board", fence)
        last = b""
        for turn in range(earlier):
            last = bytes([turn + 1]) * (100 + turn)
            board["budget"].write(last)
        dying = Board.attach(tmp_path / "board", fence)
        budget = [stores]
        dying.block.data = DyingMemory(dying.block.data, budget, half)  # type: ignore[assignment]
        dying.block.words = DyingMemory(dying.block.words, budget)  # type: ignore[assignment]
        new = b"\xee" * 150
        if stores < 3:  # bytes, their length, the word that names them
            with pytest.raises(KilledError):
                dying["budget"].write(new)
            assert board["budget"].read() == last
        else:
            dying["budget"].write(new)
            assert board["budget"].read() == new
        board["budget"].write(b"the next life")
        assert board["budget"].read() == b"the next life"


class MovingMemory:
    """The memory of a block for a reader that is slow: after its n-th load others write."""

    def __init__(self, memory: memoryview, moves: list[Callable[[], None]]) -> None:
        self.memory, self.moves = memory, moves

    def __getitem__(self, key: object) -> object:
        found = self.memory[key]  # type: ignore[index]
        if isinstance(found, memoryview):
            found = bytes(found)
        self.moves.pop(0)()
        return found


def test_a_reader_overtaken_by_writers_between_any_two_loads_returns_a_whole_value_of_that_time(tmp_path: Path) -> None:
    writer = Board.create(tmp_path / "board", fence)["budget"]
    values = [bytes([number]) * (50 + number) for number in range(40)]
    loads = 4  # the word, the length, the bytes, the word again
    for plan in range(3**loads):
        writes = [plan // 3**at % 3 for at in range(loads)]
        numbers = iter(range(1, 40))
        current = [0]

        def move(count: int, numbers=numbers, current=current) -> Callable[[], None]:  # type: ignore[no-untyped-def]
            def run() -> None:
                for _ in range(count):
                    current[0] = next(numbers)
                    writer.write(values[current[0]])

            return run

        writer.write(values[0])
        reader = Board.attach(tmp_path / "board", fence)
        moves = [move(count) for count in writes] + [move(0)] * 40
        reader.block.data = MovingMemory(reader.block.data, moves)  # type: ignore[assignment]
        reader.block.words = MovingMemory(reader.block.words, moves)  # type: ignore[assignment]
        assert reader["budget"].read() in values[: current[0] + 1], writes


def test_a_reader_stopped_inside_the_copy_does_not_return_a_mixture(tmp_path: Path) -> None:
    """The writer of the next value but one fills the very buffer that is being copied, before it publishes it."""
    board = Board.create(tmp_path / "board", fence)
    board["budget"].write(b"1" * 100)

    class TwoHalves:
        def __init__(self, memory: memoryview) -> None:
            self.memory, self.first = memory, True

        def __getitem__(self, key: slice) -> bytes:
            middle = key.start + (key.stop - key.start) // 2
            half = bytes(self.memory[key.start : middle])
            if self.first:
                self.first = False
                board["budget"].write(b"2" * 100)
                dying = Board.attach(tmp_path / "board", fence)
                dying.block.words = DyingMemory(dying.block.words, [0])  # type: ignore[assignment]
                with pytest.raises(KilledError):
                    dying["budget"].write(b"3" * 100)  # all bytes written, nothing published
            return half + bytes(self.memory[middle : key.stop])

    reader = Board.attach(tmp_path / "board", fence)
    reader.block.data = TwoHalves(reader.block.data)  # type: ignore[assignment]
    assert reader["budget"].read() == b"2" * 100


class Traced:
    """The memory of a block that tells what is done with it."""

    def __init__(self, memory: memoryview, name: str, told: list[str]) -> None:
        self.memory, self.name, self.told = memory, name, told

    def __getitem__(self, key: object) -> object:
        self.told.append(f"load {self.name}")
        return self.memory[key]  # type: ignore[index]

    def __setitem__(self, key: object, value: object) -> None:
        self.told.append(f"store {self.name}")
        self.memory[key] = value  # type: ignore[index, assignment]


def test_a_fence_stands_wherever_another_process_may_not_see_things_reordered(tmp_path: Path) -> None:
    """No run on a machine of total store order can show a fence that is missing, so its place is asserted."""
    told: list[str] = []
    board = Board.create(tmp_path / "board", lambda: told.append("fence"))
    cell = board["level"]
    board.block.data = Traced(board.block.data, "bytes", told)  # type: ignore[assignment]
    board.block.words = Traced(board.block.words, "word", told)  # type: ignore[assignment]
    cell.write(b"1")
    assert told == ["load word", "fence", "store bytes", "store word", "fence", "store word"]
    told.clear()
    assert cell.read() == b"1"
    assert told == ["load word", "fence", "load word", "load bytes", "fence", "load word"]
