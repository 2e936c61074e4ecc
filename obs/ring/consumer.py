"""A consumer's side: poll without blocking, learn exactly what was lost, say what is durable."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

import numpy as np

from obs.errors import SchemaMismatch
from obs.ring.layout import CLAIMED, HEADER_BYTES, PUBLISHED, Ring, consumer_word
from obs.ring.order import fence

_SEQ: Final = struct.Struct("<q").unpack_from
_tuple: Final = tuple.__new__  # a Batch made by it costs a third of one made by its own constructor


class Batch(NamedTuple):
    """Rows in sequence order, owned, read-only. `lost` sequences before `first_seq` were overwritten unread: a lap is a value."""

    rows: np.ndarray
    first_seq: int
    lost: int


class Consumer:
    """Reads one ring under one name.

    Safety: one consumer of a name at a time, in one thread. `cursor` and `durable` live in shared memory; only
    `durable` frees a ring, and both are hints that the caller corrects from its disk or database at start (`seek`).
    """

    def __init__(self, ring: Ring, name: str) -> None:
        self.ring = ring
        self._word = consumer_word(name)
        self._words, self._mapped = ring.words, ring.mapped
        self._capacity = ring.capacity
        self._dtype = ring.dtype
        self._size = ring.dtype.itemsize
        self._none = np.empty(0, ring.dtype)
        self._seq_at: int = ring.dtype.fields["seq"][1]  # type: ignore[index]

    @property
    def cursor(self) -> int:
        """The next sequence to read."""
        return self.ring.words[self._word]

    @property
    def durable(self) -> int:
        """Sequences below it are fsynced or committed."""
        return self.ring.words[self._word + 1]

    @durable.setter
    def durable(self, next_seq: int) -> None:
        self.ring.words[self._word + 1] = next_seq

    def seek(self, next_seq: int) -> None:
        """Make `next_seq` the next to read, and everything below it durable."""
        self.ring.words[self._word] = next_seq
        self.ring.words[self._word + 1] = next_seq

    def rewind(self) -> None:
        """Read again from the last durable sequence."""
        self.ring.words[self._word] = self.ring.words[self._word + 1]

    def poll(self, max_rows: int) -> Batch:
        """Return up to `max_rows` rows from the cursor on and move the cursor behind them; never blocks.

        Raises SchemaMismatch if a row does not carry its own sequence: the memory was damaged.
        """
        words, capacity, size = self._words, self._capacity, self._size
        cursor = words[self._word]
        while True:
            published = words[PUBLISHED]
            fence()  # Order: published before the cells
            start, oldest = cursor, words[CLAIMED] - capacity
            if start < oldest:
                start = min(oldest, published)
            count = published - start
            if count > max_rows:
                count = max_rows
            if count <= 0:
                words[self._word] = start
                return Batch(self._none, start, start - cursor)
            cell = start & (capacity - 1)
            at = HEADER_BYTES + cell * size
            data = self._mapped[at : at + count * size] if cell + count <= capacity else _copy(self.ring, start, count)
            fence()  # Order: the cells before claimed
            # Invariant: a cell of sequence s is written again only after claimed > s + capacity has been stored.
            safe = words[CLAIMED] - capacity
            if safe < start:
                safe = start
            if safe < start + count:
                break
        at, last = (safe - start) * size + self._seq_at, (count - 1) * size + self._seq_at
        if _SEQ(data, at)[0] != safe or (last != at and _SEQ(data, last)[0] != start + count - 1):
            found = [_SEQ(data, place)[0] for place in (at, last)]
            raise SchemaMismatch(
                "ring is damaged: a row does not carry its sequence", path=str(self.ring.path), seq=[safe, start + count - 1], found=found
            )
        words[self._word] = start + count
        rows = np.frombuffer(data, self._dtype)
        return _tuple(Batch, (rows if safe == start else rows[safe - start :], safe, safe - cursor))


def copy_rows(ring: Ring, start: int, count: int) -> np.ndarray:
    """Copy the cells of `count` sequences from `start` on, owned, read-only; the caller judges whether they can have been overwritten."""
    return np.frombuffer(_copy(ring, start, count), ring.dtype)


def _copy(ring: Ring, start: int, count: int) -> bytes:
    mapped, size = ring.mapped, ring.dtype.itemsize
    cell = start & (ring.capacity - 1)
    at = HEADER_BYTES + cell * size
    if cell + count <= ring.capacity:
        return mapped[at : at + count * size]
    split = ring.capacity - cell
    return mapped[at : at + split * size] + mapped[HEADER_BYTES : HEADER_BYTES + (count - split) * size]
