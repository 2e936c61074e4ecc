"""The mitigation level of a provider: a real board and a real ring of events under an injected profile of load, second by second."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from feed_rig import FakeClock, Rig

from obs.clock import NS
from obs.log import Log
from obs.pressure import Measured
from obs.record.events import event_payload
from obs.record.schema import EVENT_KINDS
from obs.ring import Consumer, Producer
from obs.roles.strain import Machine, Strain, keep_level
from obs.shm import Counters

QUIET = Measured(0.1, 0.3, 0.002, 0.0)
Profile = Callable[[int], Measured]


class Desk:
    """A poll's part of the shared memory of a provider."""

    def __init__(self, folder: Path) -> None:
        self.rig = Rig(folder)
        self.clock: FakeClock = self.rig.clock
        self.events = Producer(self.rig.rings["poll_event"])
        self.measured = QUIET
        self.log = Log("poll", "kis")
        self.second = 0
        self.levels: list[tuple[int, int]] = []  # second, level as the feed sees it
        self.strain: Strain = self.start()

    def start(self, enabled: bool = True) -> Strain:
        self.strain = Strain(self.rig.board, self.events, lambda: self.measured, self.clock, self.log, enabled)
        return self.strain

    @property
    def level(self) -> int:
        """What the feed reads."""
        return int(self.rig.board["level"].read_json()["level"])

    def run(self, profile: Profile, seconds: int) -> None:
        for _ in range(seconds):
            self.measured, before = profile(self.second), self.level
            self.strain.step()
            if self.level != before:
                self.levels.append((self.second, self.level))
            self.clock.forward(NS)
            self.second += 1

    def told(self) -> list[dict[str, Any]]:
        return [event_payload(row) | {"ts_ns": int(row["ts_ns"])} for row in self.rig.rows("poll_event")
                if EVENT_KINDS[row["kind"]] == "mitigation"]  # fmt: skip


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.rig.close()


def day_of_load(second: int) -> Measured:
    """Busy from 100 s, very busy from 500 s, calm from 1000 s on but for one second."""
    if second < 100 or (second >= 1000 and second != 1300):
        return QUIET
    if second < 500:
        return QUIET._replace(cpu=0.85, queue_s=2.5 if second > 300 else 0.0)
    return QUIET._replace(cpu=0.85, disk_s=1.2)


def test_it_climbs_and_falls_exactly_at_the_specified_times(desk: Desk) -> None:
    started = desk.clock.wall
    desk.run(day_of_load, 2600)
    # cpu for 5 minutes; the disk for 5 minutes; 10 calm minutes twice, begun anew by the busy second
    assert desk.levels == [(400, 1), (800, 2), (1901, 1), (2501, 0)]
    told = desk.told()
    assert [(event["level_before"], event["level_after"], event["causes"]) for event in told] == [
        (0, 1, ["cpu"]), (1, 2, ["disk_s"]), (2, 1, ["calm"]), (1, 0, ["calm"]),
    ]  # fmt: skip
    assert [(event["ts_ns"] - started) // NS for event in told] == [second for second, _ in desk.levels]
    figures = {name: told[1][name] for name in Measured._fields}
    assert figures == {"cpu": 0.85, "memory": 0.3, "disk_s": 1.2, "queue_s": 0.0}


@pytest.mark.parametrize("at", [1, 150, 299])
def test_a_new_poll_keeps_the_level_and_counts_the_time_anew(desk: Desk, at: int) -> None:
    hot: Profile = lambda _: QUIET._replace(cpu=0.95)  # noqa: E731
    desk.run(hot, 301)
    assert desk.levels == [(300, 2)]
    desk.start()
    assert (desk.strain.level, desk.level) == (2, 2)
    desk.run(lambda _: QUIET, at)
    desk.start()
    desk.run(lambda _: QUIET, 601)
    assert desk.levels[1:] == [(301 + at + 600, 1)]
    assert len(desk.told()) == 2


def test_a_damaged_level_counts_as_none(desk: Desk) -> None:
    for value in ({"level": 7}, {"level": None}, {}, {"level": "1"}):
        desk.rig.board["level"].write_json(value)
        assert desk.start().level == 0


def test_switched_off_it_measures_nothing_and_goes_back_to_full_speed(desk: Desk) -> None:
    desk.run(lambda _: QUIET._replace(cpu=0.95), 301)
    assert desk.level == 2
    desk.start(enabled=False)
    assert desk.level == 0
    desk.run(lambda _: QUIET._replace(cpu=0.99), 1000)
    assert desk.level == 0
    assert [(event["level_before"], event["level_after"], event["causes"]) for event in desk.told()][1:] == [(2, 0, ["disabled"])]


def test_the_feed_reads_the_level_within_its_next_record(desk: Desk) -> None:
    recorder = desk.rig.make_recorder()
    desk.run(lambda _: QUIET._replace(memory=0.9), 301)
    recorder.turn(desk.clock.wall)
    assert recorder.level == 1


# --- what is measured


class Archive:
    """An archive writer that drains when told."""

    def __init__(self, desk: Desk, flush_s: float = 1.0) -> None:
        self.desk = desk
        path = Counters.path(desk.rig.shm, desk.rig.data, "kis")
        counters = Counters(path, make=True)
        counters.add("archive")
        self.cell = counters.cell("archive")
        rings = desk.rig.rings
        self.machine = Machine(self.cell, list(rings.values()), flush_s, desk.clock)
        self.ticks = Producer(rings["tick"])
        self.consumer = Consumer(rings["tick"], "archive")

    def publish(self) -> None:
        row = np.zeros(1, self.desk.rig.rings["tick"].dtype)
        row["ts_ns"] = self.desk.clock.wall
        self.ticks.publish(row)

    def drain(self, took_ns: int = 0) -> None:
        self.consumer.poll(10_000)
        self.consumer.durable = self.consumer.cursor
        self.cell["flushes"] += 1
        self.cell["flush_ns_sum"] += took_ns


def test_what_waits_for_its_flush_is_no_queue(desk: Desk) -> None:
    archive = Archive(desk)
    queues = []
    for tenth in range(300):  # 2 Hz records, a flush each 0.6 s, looked at four times a second
        if tenth % 5 == 0:
            archive.publish()
        if tenth % 6 == 0:
            archive.drain(20_000_000)
        if tenth % 3 == 0:
            archive.machine.look()
        if tenth % 10 == 9:
            queues.append(archive.machine.measure())
        desk.clock.forward(NS // 10)
    assert max(measured.queue_s for measured in queues[2:]) < 0.2
    assert queues[-1].disk_s == pytest.approx(0.02)


def test_a_writer_that_stops_shows_the_age_of_what_it_left(desk: Desk) -> None:
    archive = Archive(desk)
    archive.publish()
    ages = []
    for second in range(60):
        archive.machine.look()
        if second == 40:
            archive.drain()
        ages.append(archive.machine.measure().queue_s)
        desk.clock.forward(NS)
    assert ages[10:40] == [second - 2.0 for second in range(10, 40)], "two seconds late, as the least of two flushes"
    assert ages[43:] == [0.0] * 17


def test_what_was_overwritten_counts_as_old_as_the_oldest_there_is(desk: Desk) -> None:
    archive = Archive(desk)
    for _ in range(desk.rig.capacities["tick"] + 100):
        archive.publish()
        desk.clock.forward(NS // 1000)
    age = archive.machine.measure().queue_s
    assert age == pytest.approx(desk.rig.capacities["tick"] / 1000, abs=0.01)


def test_without_an_archive_writer_or_rings_it_still_measures(desk: Desk) -> None:
    measured = Machine(None, [], 1.0, desk.clock).measure()
    assert math.isnan(measured.cpu)
    assert (measured.disk_s, measured.queue_s) == (0.0, 0.0)


def test_the_loop_steps_once_a_second(desk: Desk) -> None:
    archive = Archive(desk)

    class Turning(FakeClock):
        slept = 0.0

        async def sleep(self, seconds: float) -> None:
            Turning.slept += seconds
            desk.clock.forward(int(seconds * NS))
            await asyncio.sleep(0)

    desk.measured = QUIET._replace(cpu=0.85)

    async def run() -> None:
        task = asyncio.create_task(keep_level(desk.strain, archive.machine, Turning()))
        while desk.level == 0:
            assert not task.done(), task.exception()
            assert Turning.slept < 400
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())
    assert Turning.slept == pytest.approx(301, abs=0.5), "the first measurement after a second, the level 300 s later"
