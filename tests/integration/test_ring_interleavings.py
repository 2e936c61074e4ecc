"""Every interleaving of a producer's stores with a poll's loads, by the real code of both.

The stores of the real Producer are recorded (a copy of rows as two stores that meet inside a row) and replayed one by
one between the loads of the real Consumer, in every distribution over them. Acceptable: rows that are whole, in
sequence, published by then, with everything between the old cursor and the first of them counted as lost, and in the
end received + lost = published. Forbidden: all else. That the search would see a forbidden outcome is shown by three
broken rings: a consumer that does not look at claimed again, and the two orders of stores that the fences rule out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import combinations, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from obs.errors import SchemaMismatch
from obs.record.schema import TICK
from obs.ring import Consumer, Producer, Ring, attach_ring, create_ring
from obs.ring.layout import CLAIMED, HEADER_BYTES, PUBLISHED

CAPACITY = 4
LOADS = 5  # of a poll that needs no second try: published, claimed, the rows in two parts, claimed
_SIZE = TICK.itemsize


class Store(NamedTuple):
    """One store of a producer; `at` is a place in the file."""

    at: int
    data: bytes


class Case(NamedTuple):
    """`before`: records already published. `sizes`: what is published meanwhile. `dies_after`: stores of a first producer
    that is then killed, and another one publishes."""

    before: int
    sizes: tuple[int, ...]
    dies_after: int | None = None


CASES = [
    Case(0, (1, 2)),
    Case(3, (1, 2)),
    Case(4, (2, 1)),
    Case(6, (2, 2)),
    Case(7, (1, 1, 1)),
    *(Case(4, (2,), dies_after) for dies_after in range(1, 4)),
    *(Case(7, (2,), dies_after) for dies_after in range(1, 6)),
]


def rows_of(first: int, count: int) -> np.ndarray:
    words = np.arange(first + 1, first + count + 1, dtype="<u8")[:, None] * np.arange(1, _SIZE // 8 + 1, dtype="<u8")
    words[:, 0] = np.arange(first, first + count)
    return words.view(TICK).reshape(count)


class Recorded:
    """The words or the bytes of a ring: stores go through and are told."""

    def __init__(self, memory: object, stores: list[Store], words: bool) -> None:
        self.memory, self.stores, self.words = memory, stores, words

    def __getitem__(self, key: int) -> int:
        return self.memory[key]  # type: ignore[index, no-any-return]

    def __setitem__(self, key: int | slice, value: object) -> None:
        self.memory[key] = value  # type: ignore[index]
        if isinstance(key, slice):
            data = value.tobytes()  # type: ignore[attr-defined]
            middle = len(data) // 2 + (0 if len(data) // 2 % _SIZE else _SIZE // 2)
            self.stores += [Store(key.start, data[:middle]), Store(key.start + middle, data[middle:])]
        else:
            self.stores.append(Store(key * 8, int(value).to_bytes(8, "little")))  # type: ignore[call-overload]


def record(ring: Ring, sizes: tuple[int, ...]) -> list[Store]:
    stores: list[Store] = []
    seen = Ring(ring.block, TICK)
    seen.words = Recorded(ring.block.words, stores, words=True)  # type: ignore[assignment]
    seen.mapped = Recorded(ring.block.mapped, stores, words=False)  # type: ignore[assignment]
    producer = Producer(seen)
    for size in sizes:
        producer.publish(rows_of(producer.published, size))
    return stores


def prepare(path: Path, case: Case) -> tuple[bytes, list[Store]]:
    """Return the bytes of the ring before, and the stores that follow."""
    ring = create_ring(path, TICK, CAPACITY, "s", "tick", 0)
    record(ring, (1,) * case.before)
    before = bytes(ring.block.data)
    stores = record(ring, case.sizes)
    if case.dies_after is not None:
        stores = stores[: case.dies_after]
        ring.block.data[:] = before
        for store in stores:
            ring.mapped[store.at : store.at + len(store.data)] = store.data
        stores = stores + record(attach_ring(path, TICK), case.sizes)
    return before, stores


def schedules(steps: int) -> Iterator[tuple[int, ...]]:
    """Every way to spread `steps` over the loads of a poll and the time after it."""
    for bars in combinations(range(steps + LOADS), LOADS):
        edges = (-1, *bars, steps + LOADS)
        yield tuple(after - before - 1 for before, after in pairwise(edges))


class Stepped:
    """What a consumer sees while a producer goes on: before each load some of its stores happen."""

    def __init__(self, ring: Ring, stores: list[Store], schedule: tuple[int, ...], claimed_once: bool = False) -> None:
        self.memory, self.stores = ring.block.mapped, stores[::-1]
        self.schedule = list(schedule[::-1])
        self.claimed: int | None = None
        self.claimed_once = claimed_once
        self.loads_of_claimed = 0

    def go_on(self, steps: int | None = None) -> None:
        if steps is None:
            steps = self.schedule.pop() if self.schedule else 0
        for _ in range(steps):
            store = self.stores.pop()
            self.memory[store.at : store.at + len(store.data)] = store.data

    def __getitem__(self, key: int | slice) -> int | bytes:
        if isinstance(key, slice):
            self.go_on()
            if key.start == HEADER_BYTES or key.stop == len(self.memory):
                return self.memory[key]  # one of two parts of a copy across the end of the ring
            middle = (key.start + key.stop) // 2 // 8 * 8
            first = self.memory[key.start : middle]
            self.go_on()
            return first + self.memory[middle : key.stop]
        if key in (PUBLISHED, CLAIMED):
            self.go_on()
        value = int.from_bytes(self.memory[key * 8 : key * 8 + 8], "little")
        if key == CLAIMED:
            self.loads_of_claimed += 1
            if self.claimed_once:
                self.claimed = value if self.claimed is None else self.claimed
                return self.claimed
        return value

    def __setitem__(self, key: int, value: int) -> None:
        self.memory[key * 8 : key * 8 + 8] = value.to_bytes(8, "little")


def outcome(ring: Ring, memory: Stepped, cursor: int, max_rows: int) -> str:
    """Poll once under the schedule, then until nothing is left; tell what came of the first."""
    ring.words[Consumer(ring, "archive")._word] = cursor
    seen = Ring(ring.block, TICK)
    seen.words = seen.mapped = memory  # type: ignore[assignment]
    consumer = Consumer(seen, "archive")
    first_told = ""
    while True:
        at = consumer.cursor
        try:
            batch = consumer.poll(max_rows)
        except SchemaMismatch:
            return "forbidden: no row of its sequence"
        end = batch.first_seq + len(batch.rows)
        if batch.rows.tobytes() != rows_of(batch.first_seq, len(batch.rows)).tobytes():
            return "forbidden: torn"
        if batch.first_seq != at + batch.lost or batch.lost < 0 or consumer.cursor != end:
            return "forbidden: lost miscounted"
        if len(batch.rows) > max_rows or end > ring.published:
            return "forbidden: too many"
        if not first_told:
            again = ", read anew" if memory.loads_of_claimed > 2 else ""
            first_told = f"{'rows' if len(batch.rows) else 'none'}{', some lost' if batch.lost else ''}{again}"
            memory.schedule.clear()
            memory.go_on(len(memory.stores))
        elif not len(batch.rows):
            return first_told if end == ring.published else "forbidden: does not add up"


def explore(
    path: Path, case: Case, reorder: Callable[[list[Store]], list[Store]] | None = None, claimed_once: bool = False
) -> Counter[str]:
    before, stores = prepare(path, case)
    if reorder:
        stores = reorder(stores)
    ring = attach_ring(path, TICK)
    found: Counter[str] = Counter()
    for cursor in {max(0, case.before - CAPACITY), max(0, case.before - 1)}:
        for max_rows in (1, CAPACITY):
            for schedule in schedules(len(stores)):
                ring.block.mapped[: len(before)] = before
                found[outcome(ring, Stepped(ring, stores, schedule, claimed_once), cursor, max_rows)] += 1
    return found


@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_interleaving_has_a_forbidden_outcome(tmp_path: Path, case: Case) -> None:
    found = explore(tmp_path / "ring", case)
    assert not [told for told in found if told.startswith("forbidden")], found
    assert found["rows"]
    if case.before >= CAPACITY:
        assert found["rows, some lost"], found


def test_a_poll_that_is_lapped_whole_reads_anew(tmp_path: Path) -> None:
    assert explore(tmp_path / "ring", Case(4, (2, 1)))["rows, some lost, read anew"]


def published_first(stores: list[Store]) -> list[Store]:
    """What a core may show that does not keep the order of stores, without the fence between the cells and published."""
    return _move(stores, PUBLISHED, -2)


def claimed_last(stores: list[Store]) -> list[Store]:
    """The same, without the fence between claimed and the cells."""
    return _move(stores, CLAIMED, +2)


def _move(stores: list[Store], word: int, by: int) -> list[Store]:
    moved = list(stores)
    places = [place for place, store in enumerate(stores) if store.at == word * 8]
    for place in places if by < 0 else reversed(places):
        moved.insert(place + by, moved.pop(place))
    return moved


@pytest.mark.parametrize(
    ("reorder", "claimed_once"),
    [(None, True), (published_first, False), (claimed_last, False)],
    ids=["claimed is not looked at again", "published before the cells", "claimed after the cells"],
)
def test_the_search_sees_what_the_protocol_prevents(
    tmp_path: Path, reorder: Callable[[list[Store]], list[Store]] | None, claimed_once: bool
) -> None:
    found = explore(tmp_path / "ring", Case(4, (2, 1)), reorder, claimed_once)
    assert [told for told in found if told.startswith("forbidden")], found
