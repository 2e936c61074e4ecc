"""The ring in one process: its counts, and what a consumer gets after laps, wraps and deaths; where its fences stand."""

from __future__ import annotations

import struct
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obs.errors import SchemaMismatch
from obs.record.schema import EVENT, SWING, TICK
from obs.ring import CONSUMERS, Consumer, Producer, Ring, attach_ring, copy_rows, create_ring
from obs.ring.layout import CLAIMED, HEADER_BYTES, PUBLISHED, consumer_word
from obs.ring.order import fence_for

SESSION = "sess_20260122_003105_kis_a1b2"
_FACTORS = (np.arange(TICK.itemsize // 8, dtype="<u8") * 2 + 1) * np.uint64(0x9E3779B97F4A7C15)


def rows_of(first: int, count: int) -> np.ndarray:
    """Rows whose every word is a function of the sequence: `seq`, then products."""
    words = np.arange(first, first + count, dtype="<u8")[:, None] * _FACTORS + _FACTORS
    words[:, 0] = np.arange(first, first + count)
    return words.view(TICK).reshape(count)


def make(folder: Path, capacity: int) -> Ring:
    return create_ring(folder / "ring", TICK, capacity, SESSION, "tick", 1_700_000_000_000_000_000)


def publish(producer: Producer, count: int) -> None:
    first = producer.published
    rows = rows_of(first, count)
    rows["seq"] = -1
    assert producer.publish(rows) == first
    assert rows.tobytes() == rows_of(first, count).tobytes()
    assert producer.published == producer.ring.published == first + count


def expect(consumer: Consumer, max_rows: int, first: int, count: int, lost: int) -> None:
    batch = consumer.poll(max_rows)
    assert (batch.first_seq, len(batch.rows), batch.lost) == (first, count, lost)
    assert batch.rows.dtype == TICK
    assert batch.rows.tobytes() == rows_of(first, count).tobytes()
    assert consumer.cursor == first + count


def garbage(ring: Ring, first: int, count: int) -> None:
    """What a producer leaves that dies in its copy: claimed, cells half overwritten, not published."""
    ring.words[CLAIMED] = max(ring.claimed, first + count)
    for seq in range(first, first + count):
        at = HEADER_BYTES + seq % ring.capacity * ring.dtype.itemsize
        ring.mapped[at : at + ring.dtype.itemsize // 2] = b"\xa5" * (ring.dtype.itemsize // 2)


@pytest.mark.parametrize("capacity", [2, 4, 8, 64])
@pytest.mark.parametrize("sizes", [(1,), (2,), (3,), (5,), (1, 2, 3), (7, 1)])
def test_everything_arrives_across_many_wraps(tmp_path: Path, capacity: int, sizes: tuple[int, ...]) -> None:
    ring = make(tmp_path, capacity)
    producer, consumer = Producer(ring), Consumer(ring, "archive")
    for turn in range(5 * capacity):
        size = min(sizes[turn % len(sizes)], capacity)
        first = producer.published
        publish(producer, size)
        expect(consumer, size, first, size, lost=0)
    expect(consumer, 100, producer.published, 0, lost=0)


@pytest.mark.parametrize(
    ("capacity", "published", "oldest"),
    [(8, 0, 0), (8, 7, 0), (8, 8, 0), (8, 9, 1), (8, 16, 8), (8, 25, 17), (2, 3, 1), (4, 1001, 997)],
)
def test_a_lap_is_counted_exactly_and_goes_to_the_oldest(tmp_path: Path, capacity: int, published: int, oldest: int) -> None:
    ring = make(tmp_path, capacity)
    producer = Producer(ring)
    for _ in range(published):
        publish(producer, 1)
    assert ring.oldest == oldest
    for cursor in range(published + 1):
        consumer = Consumer(ring, "archive")
        consumer.seek(cursor)
        first = max(cursor, oldest)
        expect(consumer, 10_000, first, published - first, lost=first - cursor)


@pytest.mark.parametrize("max_rows", [0, 1, 2, 3, 100])
def test_a_poll_takes_no_more_than_asked(tmp_path: Path, max_rows: int) -> None:
    ring = make(tmp_path, 8)
    publish(Producer(ring), 5)
    consumer = Consumer(ring, "load")
    expect(consumer, max_rows, 0, min(max_rows, 5), lost=0)


@pytest.mark.parametrize("count", [3, 4, 5, 7, 8, 9, 16, 17, 40])
def test_more_than_half_a_ring_goes_in_steps_that_leave_the_newest_half_readable(tmp_path: Path, count: int) -> None:
    ring = make(tmp_path, 8)
    producer = Producer(ring)
    publish(producer, 3)
    seen: list[tuple[int, int]] = []

    class Watch:
        """The words of the ring, telling each pair of claimed and published."""

        def __getitem__(self, key: int) -> int:
            return ring.block.words[key]

        def __setitem__(self, key: int, value: int) -> None:
            ring.block.words[key] = value
            seen.append((ring.claimed, ring.published))

    ring.words = Watch()  # type: ignore[assignment]
    publish(producer, count)
    assert all(published <= claimed <= published + 4 for claimed, published in seen)
    assert seen[-1] == (3 + count, 3 + count)
    first = max(0, 3 + count - 8)
    expect(Consumer(ring, "archive"), 100, first, 3 + count - first, lost=first)


def test_nothing_published_is_nothing_read(tmp_path: Path) -> None:
    ring = make(tmp_path, 8)
    producer, consumer = Producer(ring), Consumer(ring, "archive")
    expect(consumer, 10, 0, 0, lost=0)
    assert producer.publish(np.empty(0, TICK)) == 0
    expect(consumer, 10, 0, 0, lost=0)
    assert (ring.published, ring.claimed) == (0, 0)


def test_rows_are_copied_both_ways_and_what_is_read_stays(tmp_path: Path) -> None:
    ring = make(tmp_path, 4)
    producer, consumer = Producer(ring), Consumer(ring, "archive")
    rows = rows_of(0, 2)
    producer.publish(rows)
    rows["ts_ns"] = 0
    batch = consumer.poll(10)
    for _ in range(3):
        publish(producer, 4)
    assert batch.rows.tobytes() == rows_of(0, 2).tobytes()
    assert not batch.rows.flags.writeable
    ring.close()
    assert batch.rows.tobytes() == rows_of(0, 2).tobytes()


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        (np.zeros(2, SWING), TypeError),
        (np.zeros(2, EVENT), TypeError),
        (np.zeros(2, "<i8"), TypeError),
        (np.zeros(4, TICK)[::2], ValueError),
    ],
    ids=["same size", "other size", "no record", "not contiguous"],
)
def test_rows_that_are_not_the_rings_are_refused_and_nothing_is_published(tmp_path: Path, rows: np.ndarray, error: type) -> None:
    ring = make(tmp_path, 8)
    producer = Producer(ring)
    publish(producer, 3)
    with pytest.raises(error):
        producer.publish(rows)
    assert ring.published == producer.published == 3
    publish(producer, 2)
    expect(Consumer(ring, "archive"), 10, 0, 5, lost=0)


def test_copy_rows_takes_cells_across_the_end(tmp_path: Path) -> None:
    ring = make(tmp_path, 8)
    producer = Producer(ring)
    for _ in range(3):
        publish(producer, 4)
    for start in range(4, 13):
        for count in range(13 - start):
            assert copy_rows(ring, start, count).tobytes() == rows_of(start, count).tobytes()


def test_cursor_and_durable_are_apart_and_each_consumers_own(tmp_path: Path) -> None:
    ring = make(tmp_path, 8)
    producer = Producer(ring)
    archive, load = Consumer(ring, "archive"), Consumer(ring, "load")

    def state() -> list[tuple[int, int]]:
        seen = attach_ring(tmp_path / "ring", TICK, SESSION)
        return [(seen.cursor(name), seen.durable(name)) for name in CONSUMERS]

    publish(producer, 6)
    expect(archive, 4, 0, 4, lost=0)
    assert state() == [(4, 0), (0, 0)]
    archive.durable = 3
    assert (archive.durable, state()) == (3, [(4, 3), (0, 0)])
    expect(load, 2, 0, 2, lost=0)
    assert state() == [(4, 3), (2, 0)]
    expect(archive, 9, 4, 2, lost=0)
    archive.rewind()
    assert state() == [(3, 3), (2, 0)]
    expect(archive, 9, 3, 3, lost=0)
    archive.seek(5)
    assert state() == [(5, 5), (2, 0)]
    publish(producer, 4)  # laps load (cursor 2, oldest 2) not yet
    expect(load, 9, 2, 8, lost=0)
    assert state() == [(5, 5), (10, 0)]
    load.rewind()
    expect(load, 9, 2, 8, lost=2)
    with pytest.raises(ValueError, match="tuple"):
        Consumer(ring, "monitor")


def test_a_consumer_that_comes_back_goes_on_where_its_predecessor_was(tmp_path: Path) -> None:
    ring = make(tmp_path, 8)
    publish(Producer(ring), 6)
    expect(Consumer(ring, "archive"), 2, 0, 2, lost=0)
    expect(Consumer(attach_ring(tmp_path / "ring", TICK), "archive"), 2, 2, 2, lost=0)


def test_a_cursor_beyond_published_waits_there(tmp_path: Path) -> None:
    ring = make(tmp_path, 8)
    producer, consumer = Producer(ring), Consumer(ring, "archive")
    publish(producer, 3)
    consumer.seek(5)
    expect(consumer, 9, 5, 0, lost=0)
    publish(producer, 3)
    expect(consumer, 9, 5, 1, lost=0)


@pytest.mark.parametrize("published", [0, 3, 8, 11, 16])
@pytest.mark.parametrize("ahead", [1, 2, 4, 7, 8])
def test_a_restarted_producer_goes_on_at_published_and_hides_what_the_dead_one_may_have_overwritten(
    tmp_path: Path, published: int, ahead: int
) -> None:
    ring = make(tmp_path, 8)
    producer = Producer(ring)
    for _ in range(published):
        publish(producer, 1)
    garbage(ring, published, ahead)
    ring = attach_ring(tmp_path / "ring", TICK, SESSION)
    oldest = max(0, published + ahead - 8)
    expect(Consumer(ring, "archive"), 99, min(oldest, published), published - oldest, lost=oldest)
    producer = Producer(ring)
    assert producer.published == published
    publish(producer, 1)
    assert ring.claimed == published + ahead, "claimed went down"
    expect(Consumer(ring, "archive"), 99, published, 1, lost=0)
    expect(Consumer(ring, "load"), 99, oldest, published + 1 - oldest, lost=oldest)
    for _ in range(2 * ahead + 1):
        publish(producer, 1)
    assert ring.claimed == ring.published
    expect(Consumer(ring, "archive"), 99, *went_on(published + 1, ring))


def went_on(cursor: int, ring: Ring) -> tuple[int, int, int]:
    first = max(cursor, ring.oldest)
    return first, ring.published - first, first - cursor


@pytest.mark.parametrize(("place", "max_rows"), [(0, 5), (0, 1), (2, 3), (4, 5)])
def test_a_row_without_its_sequence_at_either_end_is_damage_and_is_not_passed_over(tmp_path: Path, place: int, max_rows: int) -> None:
    ring = make(tmp_path, 8)
    publish(Producer(ring), 5)
    struct.pack_into("<q", ring.mapped, HEADER_BYTES + place * TICK.itemsize, 77)
    consumer = Consumer(ring, "archive")
    with pytest.raises(SchemaMismatch, match=r"does not carry its sequence.*found=\[.*77"):
        consumer.poll(max_rows)
    assert consumer.cursor == 0


STEPS = st.one_of(
    st.tuples(st.just("publish"), st.integers(1, 40)),
    st.tuples(st.just("poll archive"), st.integers(0, 30)),
    st.tuples(st.just("poll load"), st.integers(1, 5)),
    st.tuples(st.just("die"), st.integers(1, 8)),
    st.tuples(st.just("restart"), st.just(0)),
    st.tuples(st.just("durable"), st.integers(0, 30)),
    st.tuples(st.just("rewind"), st.just(0)),
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([2, 4, 16]), st.lists(STEPS, max_size=40))
def test_any_history_gives_what_the_counts_say(
    tmp_path_factory: pytest.TempPathFactory, capacity: int, steps: list[tuple[str, int]]
) -> None:
    folder = tmp_path_factory.mktemp("ring")
    ring = make(folder, capacity)
    producer = Producer(ring)
    published = claimed = 0
    cursor = dict.fromkeys(CONSUMERS, 0)
    durable = 0
    for step, number in steps:
        if step == "publish":
            publish(producer, number)
            published += number
            claimed = max(claimed, published)
        elif step.startswith("poll"):
            name = step.removeprefix("poll ")
            first = max(cursor[name], min(claimed - capacity, published))
            count = max(0, min(published - first, number))
            expect(Consumer(ring, name), number, first, count, lost=first - cursor[name])
            cursor[name] = first + count
        elif step == "die":
            claimed = max(claimed, published + min(number, capacity))
            garbage(ring, published, min(number, capacity))
            producer = Producer(attach_ring(folder / "ring", TICK, SESSION))
        elif step == "restart":
            ring = attach_ring(folder / "ring", TICK, SESSION)
            producer = Producer(ring)
        elif step == "durable":
            durable = min(number, cursor["archive"])
            Consumer(ring, "archive").durable = durable
        else:
            Consumer(ring, "archive").rewind()
            cursor["archive"] = durable
        assert (ring.published, ring.claimed) == (published, claimed)
        assert {name: ring.cursor(name) for name in CONSUMERS} == cursor
        assert ring.durable("archive") == durable


@pytest.mark.parametrize("machine", ["x86_64", "AMD64", "amd64"])
def test_total_store_order_needs_no_fence(machine: str) -> None:
    assert fence_for(machine).__name__ == "_fence_by_architecture"
    fence_for(machine)()


@pytest.mark.parametrize("machine", ["aarch64", "arm64", "riscv64", "ppc64le", "", "x86"])
def test_every_other_machine_gets_the_lock_which_any_number_of_threads_can_use(machine: str) -> None:
    fence = fence_for(machine)
    assert fence.__name__ == "_fence_by_lock"
    done: list[int] = []

    def run() -> None:
        for _ in range(2000):
            fence()
        done.append(1)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(done) == 4


def test_a_fence_stands_wherever_another_process_may_not_see_things_reordered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No run on a machine of total store order can show a fence that is missing, so its place is asserted."""
    told: list[str] = []
    words = {CLAIMED: "claimed", PUBLISHED: "published", consumer_word("archive"): "cursor"}

    class Traced:
        def __init__(self, memory: object) -> None:
            self.memory = memory

        def __getitem__(self, key: int | slice) -> object:
            told.append("load " + ("rows" if isinstance(key, slice) else words[key]))
            return self.memory[key]  # type: ignore[index]

        def __setitem__(self, key: int | slice, value: object) -> None:
            told.append("store " + ("rows" if isinstance(key, slice) else words[key]))
            self.memory[key] = value  # type: ignore[index]

    ring = make(tmp_path, 4)
    producer, consumer = Producer(ring), Consumer(ring, "archive")
    publish(producer, 2)
    publish(producer, 1)
    ring = Ring(ring.block, TICK)
    ring.words, ring.mapped = Traced(ring.words), Traced(ring.mapped)  # type: ignore[assignment]
    producer, consumer = Producer(ring), Consumer(ring, "archive")
    for module in ("producer", "consumer"):
        monkeypatch.setattr(f"obs.ring.{module}.fence", lambda: told.append("fence"))
    told.clear()
    producer.publish(rows_of(3, 2))
    assert told == ["store claimed", "fence", "store rows", "store rows", "fence", "store published"]
    told.clear()
    consumer.poll(4)
    reads = ["load cursor", "load published", "fence", "load claimed", "load rows", "load rows", "fence", "load claimed"]
    assert told == [*reads, "store cursor"]
