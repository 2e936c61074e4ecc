"""The picture of what the feeds publish: newest records, lines of prices, distance to the venue; from real rings, laps included."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from obs.clock import NS
from obs.monitor.live import SPARK_POINTS, SPARK_S, Live
from obs.record.schema import TICK
from obs.ring import Producer, create_ring
from obs.shm import block_path, remove

SESSION = "sess_20261121_000000_kis_000{}"
START = 1_795_219_200 * NS


class Hands:
    def __init__(self) -> None:
        self.ns = START

    def wall_ns(self) -> int:
        return self.ns

    def mono_ns(self) -> int:
        return self.ns


class Feed:
    """A tick ring and its producer. What it publishes, it remembers."""

    def __init__(self, folder: Path, clock: Hands, number: int = 1, capacity: int = 1024) -> None:
        self.clock, self.session = clock, SESSION.format(number)
        self.ring = create_ring(block_path(folder, folder, self.session, "tick"), TICK, capacity, self.session, "tick", START)
        self.producer = Producer(self.ring)

    def publish(self, symbol: str, price: float, at_s: float, *, behind_ms: float = 0, quality: int = 0) -> None:
        rows = np.zeros(1, TICK)
        rows["symbol"], rows["last_price"], rows["volume"], rows["quality"] = symbol, price, 2, quality
        rows["ts_ns"] = rows["recv_ns"] = START + int(at_s * NS)
        if behind_ms:
            rows["event_ns"] = rows["recv_ns"] - int(behind_ms * 1e6)
        self.producer.publish(rows)

    def close(self) -> None:
        remove(self.ring.path)
        self.ring.close()


@pytest.fixture
def clock() -> Hands:
    return Hands()


@pytest.fixture
def feed(tmp_path: Path, clock: Hands) -> Iterator[Feed]:
    one = Feed(tmp_path, clock)
    yield one
    one.close()


@pytest.fixture
def live(tmp_path: Path, clock: Hands) -> Iterator[Live]:
    one = Live(tmp_path, tmp_path, clock)
    yield one
    one.end()


def test_the_newest_record_of_each_symbol_that_has_one(feed: Feed, live: Live) -> None:
    live.follow({"kis": feed.session, "upbit": ""})
    assert (live.ticks(), live.latest(), live.sparks()) == ({}, {"kis": {}}, {"kis": {}})
    for number in range(3):
        feed.publish("A", 100 + number, number / 2)
    feed.publish("B", math.nan, 1.5, quality=1)
    ms = START // 1_000_000
    assert live.ticks()["kis"]["A"] == (ms + 1000, 102.0, 2.0, "normal")
    assert live.ticks() == {}
    feed.publish("A", 103, 2, quality=7)
    assert live.ticks() == {"kis": {"A": (ms + 2000, 103.0, 2.0, "7")}}
    assert set(live.latest()["kis"]) == {"A", "B"}
    assert live.latest()["kis"]["B"][3] == "degraded"
    assert set(live.sparks()["kis"]) == {"A"}, "an unknown price is no point"


def test_a_line_of_prices_has_the_last_of_each_span(feed: Feed, live: Live, clock: Hands) -> None:
    """Of what was published before anybody looked, and of what comes: the same line."""
    chance = random.Random(1)
    prices = {half: 100.0 + chance.randrange(50) for half in range(900)}  # 450 s at 2 Hz
    expected = {-(-half // (2 * SPARK_S)) * SPARK_S: price for half, price in prices.items()}
    for half in range(700):
        feed.publish("A", prices[half], half / 2)
    clock.ns = START + 350 * NS
    live.follow({"kis": feed.session})
    for half in range(700, 900):
        feed.publish("A", prices[half], half / 2)
    live.ticks()
    line = live.sparks()["kis"]["A"]
    assert len(line) == SPARK_POINTS
    assert line == [[START // 1_000_000 + 1000 * at, price] for at, price in expected.items()][-SPARK_POINTS:]
    clock.ns = START + 450 * NS
    second = Live(live._data_dir, live._folder, clock)
    second.follow({"kis": feed.session})
    assert second.sparks()["kis"]["A"][-SPARK_POINTS:] == line
    second.end()


def test_what_was_overwritten_is_passed_over(feed: Feed, live: Live) -> None:
    live.follow({"kis": feed.session})
    for number in range(5000):  # five times round
        feed.publish(f"S{number % 7}", number, number / 100)
    found = {symbol: tick[1] for symbol, tick in live.ticks()["kis"].items()}
    assert found == {f"S{number % 7}": float(number) for number in range(4993, 5000)}


def test_it_frees_nothing(feed: Feed, live: Live) -> None:
    """The archive writer's and the loader's words stay as they are: the picture is no consumer."""
    live.follow({"kis": feed.session})
    feed.publish("A", 1, 1)
    live.ticks()
    assert [feed.ring.cursor(name) for name in ("archive", "load")] == [0, 0]
    assert [feed.ring.durable(name) for name in ("archive", "load")] == [0, 0]


def test_a_new_session_takes_the_place_of_the_old_one(tmp_path: Path, feed: Feed, live: Live, clock: Hands) -> None:
    feed.publish("A", 1, 1)
    live.follow({"kis": feed.session})
    live.follow({"kis": SESSION.format(2)})
    assert live.latest() == {}, "its ring is not there yet"
    second = Feed(tmp_path, clock, 2)
    second.publish("A", 5, 2)
    live.follow({"kis": second.session})
    assert live.latest()["kis"]["A"][1] == 5.0
    live.follow({})
    assert live.latest() == {}
    second.close()


def test_how_far_behind_the_venue(feed: Feed, live: Live, clock: Hands) -> None:
    live.follow({"kis": feed.session})
    assert (live.venue_ms("kis"), live.venue_ms("upbit")) == (None, None)
    for number, behind in enumerate((10, 20, 30, 40, 500)):
        feed.publish("A", 1, number / 2, behind_ms=behind)
    feed.publish("A", 1, 2)  # the venue sent no time
    live.ticks()
    assert live.venue_ms("kis") == 30.0
    clock.ns += 11 * NS
    assert live.venue_ms("kis") is None
