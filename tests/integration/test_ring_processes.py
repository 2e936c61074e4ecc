"""Ring and board between real processes: producers, consumers and writers killed with SIGKILL at random moments.

Every test ends with conservation: received + lost = published, no torn row, exact counts. The seeds are fixed; the
moments are not, because a process is killed wherever it happens to be.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ring_children import Children, result, shared_folder

from obs.record.schema import TICK
from obs.ring import CONSUMERS, Producer, attach_ring, create_ring, fence
from obs.shm import Board


@pytest.fixture
def children() -> Iterator[Children]:
    found = Children()
    yield found
    found.end()


@pytest.fixture
def folder() -> Iterator[Path]:
    with shared_folder() as path:
        yield path


@pytest.mark.parametrize(("capacity", "batch"), [(256, 100), (8192, 64), (1 << 16, 4096)], ids=["laps", "few laps", "large batches"])
def test_producers_killed_at_random_moments_lose_and_tear_nothing(folder: Path, children: Children, capacity: int, batch: int) -> None:
    path, until = folder / "ring", folder / "until"
    create_ring(path, TICK, capacity, "s", "tick", 0).close()
    consumers = [children.start("consume", path=path, name=name, seed=place, until=until) for place, name in enumerate(CONSUMERS)]
    storm = result(children.start("storm", path=path, seed=capacity, kills=60, batch=batch, until=until))
    seen = [result(consumer) for consumer in consumers]
    ring = attach_ring(path, TICK)
    assert (ring.published, ring.claimed) == (storm["published"], storm["claimed"])
    for one in seen:
        assert one["received"] + one["lost"] == storm["published"] == one["cursor"]
        assert one["received"] > 0
    if batch == 4096:
        assert storm["unfinished"] > 0, "no producer died between claimed and published"
    if capacity == 256:
        assert all(one["laps"] for one in seen)


def test_consumers_killed_at_random_moments_go_on_at_durable(folder: Path, children: Children) -> None:
    """What a sink has written behind `durable` is cut at a restart, as recovery does; then every sequence is there once."""
    path, until, log = folder / "ring", folder / "until", folder / "log"
    create_ring(path, TICK, 4096, "s", "tick", 0).close()
    rng = random.Random(5)
    storm = children.start("storm", path=path, seed=9, kills=250, batch=64, until=until)
    ring, deaths, starts = attach_ring(path, TICK), 0, [0]
    sink = children.start("consume", path=path, name="archive", seed=0, until=until, log=log)
    while storm.poll() is None or deaths < 8:
        moment = time.monotonic() + 0.25 + rng.random() * 0.2
        while sink.poll() is None and time.monotonic() < moment:
            time.sleep(0.005)
        if sink.poll() is not None:
            break
        sink.kill()
        sink.wait()
        deaths += 1
        starts.append(ring.durable("archive"))
        sink = children.start("consume", path=path, name="archive", seed=deaths, until=until, log=log)
    published = result(storm)["published"]
    assert result(sink)["cursor"] == published
    assert deaths > 0
    stored: list[tuple[int, int, int]] = []
    for line in log.read_text().splitlines():
        at, lost, rows = map(int, line.split())
        while stored and stored[-1][0] >= at:
            assert at in starts, "read again what no death explains"
            stored.pop()
        assert sum(stored[-1] if stored else (0,)) == at
        stored.append((at, lost, rows))
    assert sum(sum(entry[1:]) for entry in stored) == published


def test_a_cell_of_the_board_keeps_its_last_value_when_its_writers_are_killed(folder: Path, children: Children) -> None:
    path, until = folder / "board", folder / "until"
    Board.create(path, fence).close()
    readers = [children.start("look", path=path, seed=seed, until=until) for seed in range(2)]
    written = result(children.start("board", path=path, seed=3, kills=150, until=until))["written"]
    for reader in readers:
        seen = result(reader)
        assert seen["number"] == written
        assert seen["reads"] > 0


def test_a_ring_outlives_every_process(folder: Path, children: Children) -> None:
    path, until = folder / "ring", folder / "until"
    create_ring(path, TICK, 1024, "s", "tick", 0).close()
    storm = result(children.start("storm", path=path, seed=1, kills=1, batch=16, until=until))
    assert attach_ring(path, TICK).published == storm["published"]
    assert Producer(attach_ring(path, TICK)).published == storm["published"]
    for name in CONSUMERS:
        seen = result(children.start("consume", path=path, name=name, seed=1, until=until))
        assert seen["received"] + seen["lost"] == storm["published"]
