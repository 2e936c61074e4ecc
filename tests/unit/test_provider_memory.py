"""Sessions as a supervisor finds and leaves them: real rings in a folder, real session files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from feed_rig import FakeClock

from obs.clock import NS
from obs.config import Config
from obs.config.options import RingOptions
from obs.errors import ShmFull
from obs.ledger import Intake
from obs.record.schema import DTYPES, TICK
from obs.ring import Consumer, Producer, Ring, attach_ring, create_ring, fence
from obs.segment.sessions import read_sessions, sessions_path
from obs.shm import Board, block_path
from obs.supervisor.rings import ProviderMemory

NAME = "kis"


class Host:
    """A data directory and a memory file system; `boot` is what a supervisor does at its start."""

    def __init__(self, folder: Path, max_sessions: int = 3) -> None:
        self.data, self.shm, self.clock = folder / "data", folder / "shm", FakeClock()
        self.data.mkdir()
        self.shm.mkdir()
        ring = RingOptions(self.shm, 64, 32, 16, 32, max_sessions)
        self.config = Config(self.data, ring=ring)
        self.memories: list[ProviderMemory] = []

    def boot(self) -> ProviderMemory:
        self.clock.forward(2 * NS)
        self.memories.append(ProviderMemory(self.config, NAME, self.clock))
        return self.memories[-1]

    def path(self, session_id: str, ring: str) -> Path:
        return block_path(self.shm, self.data, session_id, ring)

    def rings(self) -> set[str]:
        """Names of the ring files that exist."""
        return {path.name for path in self.shm.iterdir() if path.name.rpartition("-")[2] in DTYPES}

    def ended(self) -> dict[str, Any]:
        return {info.session_id: info.ended for info in read_sessions(self.data, NAME)}

    def owe(self, memory: ProviderMemory, clean: bool) -> None:
        """Leave the intake of a feed of the present session."""
        intake = Intake(memory.board["intake"], np.array([b"", b"005930"], "S20"))
        intake.head["session_id"], intake.head["clean"] = memory.current.session_id.encode(), clean
        intake.commit()

    def power_loss(self) -> None:
        for path in self.shm.iterdir():
            path.unlink()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    yield made
    for memory in made.memories:
        memory.close()


def publish(ring: Ring, count: int = 1) -> None:
    Producer(ring).publish(np.zeros(count, ring.dtype))


def archive(ring: Ring) -> None:
    consumer = Consumer(ring, "archive")
    consumer.seek(ring.published)
    consumer.durable = ring.published


def archive_all(memory: ProviderMemory, session_id: str) -> None:
    for session in [*memory.old, memory.current]:
        if session.session_id == session_id:
            for ring in session.rings.values():
                archive(ring)


def test_a_first_start_makes_rings_and_a_start_line(host: Host) -> None:
    memory = host.boot()
    assert memory.old == []
    assert memory.notes == []
    assert set(memory.current.rings) == set(DTYPES)
    for name, ring in memory.current.rings.items():
        again = attach_ring(ring.path, DTYPES[name], memory.current.session_id)
        assert (again.name, again.published) == (name, 0)
        again.close()
    (info,) = read_sessions(host.data, NAME)
    assert (info.session_id, info.start.rings, info.ended) == (memory.current.session_id, host.config.ring.capacities(), None)
    spec = memory.spec()
    assert (spec.session_id, spec.started_ns, spec.old) == (info.session_id, info.started_ns, ())
    assert spec.rings["tick"] == host.path(info.session_id, "tick")


def test_after_an_ordered_stop_nothing_is_left_but_its_end_line(host: Host) -> None:
    memory = host.boot()
    publish(memory.current.rings["tick"], 3)
    archive(memory.current.rings["tick"])
    session_id = memory.current.session_id
    assert memory.end_current()
    assert host.rings() == set()
    assert host.ended() == {session_id: {"tick": 2, "event": -1, "swing": -1, "poll_event": -1, "quarantine": -1}}
    assert host.boot().old == []


@pytest.mark.parametrize("ring", list(DTYPES))
def test_a_session_with_an_undrained_ring_is_left_for_the_next_start(host: Host, ring: str) -> None:
    memory = host.boot()
    publish(memory.current.rings[ring])
    first = memory.current.session_id
    assert not memory.end_current()
    again = host.boot()
    assert [old.session_id for old in again.old] == [first]
    assert again.old[0].lost == {}
    assert again.current.session_id != first
    assert again.remove_drained() == []
    archive_all(again, first)
    assert again.remove_drained() == [first]
    assert host.ended()[first] is not None
    assert host.ended()[first][ring] == 0
    assert not [name for name in host.rings() if host.path(first, ring).name == name]


def test_a_session_of_a_feed_that_owes_is_kept_until_the_next_feed_has_taken_over(host: Host) -> None:
    memory = host.boot()
    first = memory.current.session_id
    host.owe(memory, clean=False)
    assert not memory.end_current()
    again = host.boot()
    archive_all(again, first)
    assert again.remove_drained() == [], "its tick ring tells what of the intake was published"
    host.owe(again, clean=False)  # the new feed has begun: the intake is its own now
    assert again.remove_drained() == [first]
    host.owe(again, clean=True)
    assert again.end_current()


def test_after_a_power_loss_each_ring_died_with_the_host(host: Host) -> None:
    first = host.boot().current.session_id
    host.power_loss()
    memory = host.boot()
    (old,) = memory.old
    assert old.lost == dict.fromkeys(DTYPES, "host_death")
    assert old.rings == {}
    (spec,) = memory.spec().old
    assert (spec.session_id, spec.rings, set(spec.lost)) == (first, {}, set(DTYPES))
    assert memory.remove_drained() == [first]
    info = next(info for info in read_sessions(host.data, NAME) if info.session_id == first)
    assert (info.ended, info.host_death) == ({}, True)
    assert host.boot().old[0].session_id == memory.current.session_id


def test_one_ring_that_is_gone_is_judged_alone(host: Host) -> None:
    memory = host.boot()
    first = memory.current.session_id
    publish(memory.current.rings["tick"])
    host.path(first, "quarantine").unlink()
    (old,) = host.boot().old
    assert old.lost == {"quarantine": "host_death"}
    assert set(old.rings) == set(DTYPES) - {"quarantine"}
    assert not old.drained()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"x" * 100),
        lambda path: path.write_bytes(b"x" * path.stat().st_size),
        lambda path: os.truncate(path, path.stat().st_size // 2),
        lambda path: os.truncate(path, path.stat().st_size + 4096),
    ],
)
def test_a_ring_that_is_not_ours_is_set_aside_unread(host: Host, spoil: Callable[[Path], None]) -> None:
    first = host.boot().current.session_id
    path = host.path(first, "tick")
    host.memories.pop().close()
    spoil(path)
    content = path.read_bytes()
    memory = host.boot()
    (old,) = memory.old
    assert old.lost == {"tick": "ring_foreign"}
    assert not path.exists()
    (kept,) = (host.data / "quarantine" / "rings").iterdir()
    assert kept.read_bytes() == content
    assert kept.stat().st_mode & 0o777 == 0o640
    assert [event for event, _ in memory.notes] == ["ring_set_aside"]
    assert memory.current.session_id != first


def test_with_too_many_undrained_sessions_the_newest_is_continued(host: Host) -> None:
    sessions = []
    for _ in range(3):
        memory = host.boot()
        publish(memory.current.rings["tick"])
        sessions.append(memory.current.session_id)
    memory = host.boot()
    assert memory.current.session_id == sessions[-1]
    assert [old.session_id for old in memory.old] == sessions[:-1]
    assert [event for event, _ in memory.notes] == ["session_continued"]
    assert memory.current.rings["tick"].published == 1
    assert memory.spec().started_ns == read_sessions(host.data, NAME)[-1].started_ns
    assert len(read_sessions(host.data, NAME)) == 3, "no second start line"


def test_a_session_that_lost_a_ring_is_not_continued(host: Host) -> None:
    sessions = []
    for _ in range(3):
        memory = host.boot()
        publish(memory.current.rings["tick"])
        sessions.append(memory.current.session_id)
    host.path(sessions[-1], "event").unlink()
    assert host.boot().current.session_id == sessions[-2]


def full(*_: Any) -> None:
    raise ShmFull("no room in shared memory")


def test_without_room_the_newest_session_is_continued_else_refused(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = host.boot()
    publish(memory.current.rings["tick"])
    monkeypatch.setattr("obs.supervisor.rings.create_ring", full)
    assert host.boot().current.session_id == memory.current.session_id
    archive_all(host.memories[-1], memory.current.session_id)
    assert host.memories[-1].end_current()
    before = sessions_path(host.data, NAME).read_bytes()
    with pytest.raises(ShmFull):
        host.boot()
    assert sessions_path(host.data, NAME).read_bytes() == before


def test_a_session_half_made_leaves_nothing(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    made = 0

    def until_full(*how: Any) -> Ring:
        nonlocal made
        made += 1
        if made > 2:
            raise ShmFull("no room in shared memory")
        return create_ring(*how)

    monkeypatch.setattr("obs.supervisor.rings.create_ring", until_full)
    with pytest.raises(ShmFull):
        host.boot()
    assert made == 3
    assert host.rings() == set()


def test_rings_without_a_start_line_are_removed(host: Host) -> None:
    """Killed between the rings and the start line: nothing was ever published to them."""
    memory = host.boot()
    sessions_path(host.data, NAME).unlink()
    memory.close()
    host.memories.clear()
    again = host.boot()
    assert again.old == []
    assert host.rings() == {ring.path.name for ring in again.current.rings.values()}


def test_rings_of_others_are_left_alone(host: Host) -> None:
    session = "sess_20260714_033400_upbit_a1b2"
    other = create_ring(block_path(host.shm, host.data, session, "tick"), TICK, 16, session, "tick", 1)
    session = "sess_20260714_033400_kis_a1b2"
    elsewhere = create_ring(block_path(host.shm, host.data / "elsewhere", session, "tick"), TICK, 16, session, "tick", 1)
    stranger = host.shm / "obs-0123-tick"
    stranger.write_bytes(b"not a ring")
    host.boot()
    assert other.path.exists()
    assert elsewhere.path.exists()
    assert stranger.exists()
    other.close()
    elsewhere.close()


def test_what_a_killed_creator_left_is_removed_and_what_a_living_one_makes_is_not(host: Host) -> None:
    dead, alive = host.shm / ".obs-0123-tick.4194304.tmp", host.shm / f".obs-0123-tick.{os.getpid()}.tmp"
    for path in (dead, alive):
        path.write_bytes(b"x")
    host.boot()
    assert (dead.exists(), alive.exists()) == (False, True)


def test_the_board_outlives_sessions_and_an_older_layout_is_replaced(host: Host) -> None:
    memory = host.boot()
    memory.board["budget"].write_json({"x": 1})
    path = memory.board.block.path
    assert host.boot().board["budget"].read_json() == {"x": 1}
    for one in host.memories:
        one.close()
    host.memories.clear()
    path.write_bytes(b"OBSBRD00" + path.read_bytes()[8:])
    memory = host.boot()
    assert [event for event, _ in memory.notes] == ["board_replaced"]
    assert memory.board["budget"].read_json() is None
    Board.attach(path, fence).close()


def test_close_leaves_what_is_not_drained_and_removes_the_counters(host: Host) -> None:
    memory = host.boot()
    publish(memory.current.rings["tick"])
    assert memory.counters_path.exists()
    memory.close()
    host.memories.clear()
    assert not memory.counters_path.exists()
    assert len(host.rings()) == len(DTYPES)
    assert [old.session_id for old in host.boot().old] == [memory.current.session_id]


def test_two_starts_within_a_second_are_two_sessions(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = iter(["sess_20260714_033400_kis_0000"] * 3 + ["sess_20260714_033400_kis_0001"])
    monkeypatch.setattr("obs.supervisor.rings.new_session_id", lambda *_: next(ids))
    first = host.boot()
    publish(first.current.rings["tick"])
    assert host.boot().current.session_id == "sess_20260714_033400_kis_0001"
    assert first.current.rings["tick"].published == 1
    assert replace(host.config) == host.config
