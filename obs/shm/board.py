"""The board of a provider: one-writer cells by which poll, feed, supervisor and monitor tell each other things.

A cell holds bytes and two buffers of them. Its writer fills the buffer that is not in use, then publishes it by storing
one word: version << 1 | buffer. A reader copies the buffer that the word names and reads the word again; one version
later that buffer is the one not in use and may be written under it, so it reads anew. A writer killed at any
instruction leaves the last complete value. The board outlives sessions: a start finds what the last life left.

Order: writer: the bytes, then the word, then the bytes of the next value; reader: the word, then the bytes, then the
word. The fence between them is the caller's to inject (obs.ring.order.fence), because this room may not import the one
that owns it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import orjson

from obs.errors import SchemaMismatch
from obs.shm.block import Block, attach, block_path, create

MAGIC: Final = b"OBSBRD02"
_HEADER: Final = 4096
# name -> bytes of one buffer. Writers: wanted, level, tokens = poll; actual, link, budget, intake = feed.
CELLS: Final = {
    "wanted": 64 * 1024,
    "actual": 128 * 1024,
    "level": 4096,
    "tokens": 16 * 1024,
    "link": 32 * 1024,
    "budget": 4096,
    "intake": 512 * 1024,
}


def _offsets() -> dict[str, tuple[int, int]]:
    found, at = {}, _HEADER
    for name, size in CELLS.items():
        found[name] = (at, size)
        at += 64 + 2 * (size + 64)
    found["end"] = (at, 0)
    return found


_AT: Final = _offsets()
_LAYOUT: Final = struct.pack("<8sQ", MAGIC, sum(size * place for place, size in enumerate(CELLS.values(), 1)))


class Cell:
    """One value of up to `capacity` bytes. `write` is for its one writer, `read` for everybody."""

    def __init__(self, block: Block, name: str, fence: Callable[[], None]) -> None:
        start, self.capacity = _AT[name]
        self._block = block
        self._fence = fence
        self._word = start // 8
        self._buffers = (start + 64, start + 64 + self.capacity + 64)
        self.name = name

    def write(self, value: bytes | memoryview) -> None:
        """Replace the value. Raises ValueError if it is longer than the cell."""
        size = len(value)
        if size > self.capacity:
            raise ValueError(f"value too long for cell: name={self.name} size={size} capacity={self.capacity}")
        word = self._block.words[self._word]
        at = self._buffers[1 - (word & 1)]
        self._fence()
        self._block.data[at + 8 : at + 8 + size] = value
        self._block.words[at // 8] = size
        self._fence()
        self._block.words[self._word] = ((word >> 1) + 1) << 1 | (1 - (word & 1))

    def read(self) -> bytes:
        """Return a whole value as it was at some moment of this call; b"" if none was ever written."""
        while True:
            word = self._block.words[self._word]
            if word == 0:
                return b""
            self._fence()
            at = self._buffers[word & 1]
            size = min(self._block.words[at // 8], self.capacity)
            value = bytes(self._block.data[at + 8 : at + 8 + size])
            self._fence()
            if self._block.words[self._word] == word:
                return value

    def write_json(self, value: Any) -> None:
        self.write(orjson.dumps(value))

    def read_json(self) -> Any:
        """Return the decoded value, None if none was written."""
        value = self.read()
        return orjson.loads(value) if value else None


class Board:
    """The cells of one provider, by name: `board["wanted"].read_json()`."""

    def __init__(self, block: Block, fence: Callable[[], None]) -> None:
        self.block = block
        self._cells = {name: Cell(block, name, fence) for name in CELLS}

    def __getitem__(self, name: str) -> Cell:
        return self._cells[name]

    def close(self) -> None:
        self.block.close()

    @staticmethod
    def path(folder: Path, data_dir: Path, provider: str) -> Path:
        return block_path(folder, data_dir, provider, "board")

    @classmethod
    def attach(cls, path: Path, fence: Callable[[], None]) -> Board:
        """Map an existing board. Raises FileNotFoundError, SchemaMismatch."""
        try:
            block = attach(path)
        except ValueError as error:
            raise SchemaMismatch("board is empty", path=str(path)) from error
        if block.size != _AT["end"][0] or bytes(block.data[: len(_LAYOUT)]) != _LAYOUT:
            raise SchemaMismatch("board has another layout", path=str(path), size=block.size, expected=_AT["end"][0])
        return cls(block, fence)

    @classmethod
    def create(cls, path: Path, fence: Callable[[], None]) -> Board:
        """Make an empty board, replacing what is there. Raises ShmFull."""

        def fill(data: memoryview) -> None:
            data[: len(_LAYOUT)] = _LAYOUT

        return cls(create(path, _AT["end"][0], fill), fence)
