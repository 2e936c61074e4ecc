"""The producer's side: claim, copy in, publish. It never waits for a consumer."""

from __future__ import annotations

import struct
from typing import Any, Final

import numpy as np

from obs.ring.layout import CLAIMED, HEADER_BYTES, PUBLISHED, Ring
from obs.ring.order import fence

_NUMBERS: Final = 4096  # sequence numbers made at once: np.arange for each batch would cost as much as its copy
_SEQ: Final = struct.Struct("<q").pack_into


class Producer:
    """Publishes rows into one ring.

    Safety: one producer per ring at a time, in one thread. A restarted producer goes on at `published`.
    """

    def __init__(self, ring: Ring) -> None:
        self.ring = ring
        self._published = ring.published
        # Invariant: claimed never goes down. A dead predecessor may have claimed cells and half overwritten them.
        self._claimed = ring.claimed
        self._dtype = ring.dtype
        self._size = ring.dtype.itemsize
        self._mask = ring.capacity - 1
        self._mapped: Any = ring.mapped  # an array is typed as a buffer from Python 3.12 on only
        self._seq_at: int = ring.dtype.fields["seq"][1]  # type: ignore[index]
        self._step = max(1, ring.capacity // 2)
        self._numbers = np.arange(0)
        self._numbers_from = self._published

    @property
    def published(self) -> int:
        """Number of records published = the next sequence."""
        return self._published

    def publish(self, rows: np.ndarray) -> int:
        """Number `rows` (n,), the ring's dtype, C-contiguous, and make them readable; return the first sequence.

        The `seq` field of the rows is written here. They are copied: the caller keeps them. More rows than half a ring
        go in steps, so that a consumer can always read the newest half. Raises TypeError for another dtype.
        """
        dtype = rows.dtype
        if dtype is not self._dtype and dtype != self._dtype:
            raise TypeError(f"rows are not of the ring's dtype: ring={self.ring.name} dtype={dtype}")
        count, first = len(rows), self._published
        if count > self._step:
            for start in range(0, count, self._step):
                self.publish(rows[start : start + self._step])
            return first
        end = first + count
        if count == 1:
            one: Any = rows  # as self._mapped
            _SEQ(one, self._seq_at, first)
        else:
            if end > self._numbers_from + len(self._numbers):
                self._numbers = np.arange(first, first + max(count, _NUMBERS))
                self._numbers_from = first
            rows["seq"] = self._numbers[first - self._numbers_from : end - self._numbers_from]
        words, size = self.ring.words, self._size
        cell = first & self._mask
        at = HEADER_BYTES + cell * size
        # Order: claimed before the cells, the cells before published; see Consumer.poll.
        if end > self._claimed:
            self._claimed = end
            words[CLAIMED] = end
        fence()
        whole = self._mask + 1 - cell
        if count <= whole:
            self._mapped[at : at + count * size] = rows
        else:
            self._mapped[at : at + whole * size] = rows[:whole]
            self._mapped[HEADER_BYTES : HEADER_BYTES + (count - whole) * size] = rows[whole:]
        fence()
        words[PUBLISHED] = end
        self._published = end
        return first
