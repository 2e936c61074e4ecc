"""The archive writer's work on real rings and a disk that can be made to fail: what is taken, freed, told, and when."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from feed_rig import FakeClock
from segment_lines import NS, START_NS, check_rows, rows_of

from obs.config import Config, ProviderConfig
from obs.config.options import RingOptions
from obs.config.process import ProcessSpec
from obs.log import Log
from obs.record.chunks import message_chunks
from obs.record.events import gap_payload, make_event
from obs.record.jsonl import is_gap
from obs.record.schema import SWING
from obs.ring import Producer, Ring
from obs.roles.archive import _Archive
from obs.roles.drains import EventDrain
from obs.roles.sink import Progress
from obs.segment.disk import observe
from obs.segment.format import Series, line_span
from obs.segment.reader import find, read_lines
from obs.segment.textlog import day_files, text_lines
from obs.shm.counters import ROLE_CELL
from obs.supervisor.rings import ProviderMemory

URLS = ("http://127.0.0.1:1", "ws://127.0.0.1:1")
KIS = ProviderConfig("kis", "kis", True, "kr_stocks", "krx", *URLS, (), None, ("005930",), ("trade",), 41, "sample", "always")
CAPACITY, BATCH, HELD = 64, 8, 24


class Writer:
    """One provider's memory and disk, and the archive writers that work on them one after the other."""

    def __init__(self, folder: Path, log: Log) -> None:
        self.data, self.clock, self._log = folder / "data", FakeClock(wall=START_NS), log
        (folder / "shm").mkdir()
        self.data.mkdir()
        self.config = Config(self.data, ring=RingOptions(folder / "shm", CAPACITY, 32, 16, 64, 5), providers=(KIS,))
        self.memories: list[ProviderMemory] = []
        self.series = Series(self.data, "scalp", "kis", "kr_stocks")
        self.start()

    def start(self) -> None:
        """A supervisor starts: a new session."""
        self.clock.forward(2 * NS)
        self.memories.append(ProviderMemory(self.config, "kis", self.clock))
        self.work()

    def work(self) -> None:
        """An archive writer starts; the one before it is dead."""
        self.cell: Any = np.zeros((), ROLE_CELL)
        memory = self.memories[-1]
        spec = ProcessSpec("archive", "kis", self.config, memory.counters_path, os.getpid(), KIS, memory.spec(), memory.board.block.path)
        self.archive = _Archive(spec, self._log, self.cell, Progress(self.cell, self.clock), self.clock)

    def ring(self, name: str = "tick", memory: int = -1) -> Ring:
        return self.memories[memory].current.rings[name]

    def ticks(self, count: int, memory: int = -1) -> None:
        producer = Producer(self.ring(memory=memory))
        producer.publish(rows_of(producer.published, count))

    def steps(self, number: int = 1) -> None:
        for _ in range(number):
            self.clock.forward(NS)
            self.archive.step()

    def stored(self, memory: int = -1) -> tuple[list[int], list[tuple[int, int, str]]]:
        """The sequences in segments of a session, and its gap lines there: (first, last, reason)."""
        seqs, gaps = [], []
        for segment in find(self.series, self.memories[memory].current.session_id):
            lines = [line for _, line in read_lines(segment.path)]
            check_rows([line for line in lines if not is_gap(line)])
            for line in lines:
                if is_gap(line):
                    gaps.append((*line_span(line), orjson.loads(line)["reason"]))
                else:
                    seqs.append(line_span(line)[0])
        return seqs, gaps

    def events(self, kind: str = "") -> list[dict[str, Any]]:
        lines = [orjson.loads(line) for path in day_files(self.data / "system" / "events" / "kis") for _, line in text_lines(path)]
        return [line for line in lines if kind in ("", line["event_type"])]

    def sinks_gaps(self) -> list[tuple[int, int | None, str]]:
        return [(gap["first_seq"], gap["last_seq"], gap["reason"]) for gap in self.events("gap_marker") if gap["sink"] == "archive"]


@pytest.fixture
def writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Writer]:
    small = {"drains.BATCH_ROWS": BATCH, "archive.BATCH_ROWS": BATCH, "drains._HELD_ROWS": HELD, "archive._TROUBLE_S": 0.01}
    for name, value in small.items():
        monkeypatch.setattr(f"obs.roles.{name}", value)
    log = Log("archive", "kis", descriptor=os.open(os.devnull, os.O_WRONLY))
    made = Writer(tmp_path, log)
    yield made
    for memory in made.memories:
        memory.close()
    log.close()


def failing(*steps: str, code: int = errno.ENOSPC) -> AbstractContextManager[None]:
    """A disk that refuses these calls."""

    def refuse(step: str, path: Path, detail: Any) -> None:
        if step in steps and "/system/" not in str(path):
            raise OSError(code, os.strerror(code))

    return observe(refuse)


def test_what_is_published_becomes_durable_and_only_then_frees_the_ring(writer: Writer) -> None:
    writer.steps()
    assert writer.cell["ready"] == 1
    writer.ticks(5)
    assert writer.ring().durable("archive") == 0
    with failing("fsync", code=errno.EIO):
        writer.steps(3)
        assert writer.ring().cursor("archive") == 5, "taken"
        assert writer.ring().durable("archive") == 0, "and not freed: nothing of it is on disk"
    writer.steps()
    assert writer.ring().durable("archive") == 5
    assert writer.stored() == ([0, 1, 2, 3, 4], [])


def test_it_flushes_by_its_interval_and_not_more_often(writer: Writer) -> None:
    writer.steps()
    writer.ticks(1)
    writer.archive.step()
    assert writer.ring().durable("archive") == 0
    assert writer.cell["lag_ns"] > 0
    writer.clock.forward(NS // 2)
    writer.archive.step()
    assert writer.ring().durable("archive") == 1
    assert writer.cell["lag_ns"] == 0


def test_a_flush_takes_along_what_memory_has_room_for(writer: Writer) -> None:
    """Where each flush is slow, one per batch would let the ring run over at any rate above a batch per flush."""
    writer.steps()
    for count in (HELD, HELD - 1):
        before = writer.ring().durable("archive")
        writer.ticks(count)
        writer.steps()
        assert writer.ring().durable("archive") == before + count


def test_a_lap_is_told_in_the_frame_of_the_next_record_and_in_the_events(writer: Writer) -> None:
    writer.ticks(3)
    writer.steps()
    writer.ticks(CAPACITY + 10)
    writer.steps(10)
    seqs, gaps = writer.stored()
    assert gaps == [(3, 12, "ring_lap")]
    assert seqs == [0, 1, 2, *range(13, 3 + CAPACITY + 10)]
    writer.steps()
    assert writer.sinks_gaps() == gaps
    assert writer.cell["lost"] == 10


@pytest.mark.parametrize(("ring", "earlier_s"), [("tick", 0), ("swing", 11)])
def test_the_gap_of_a_ring_that_was_empty_begins_where_all_was_archived_last(writer: Writer, ring: str, earlier_s: int) -> None:
    """Not with a session that may have been recorded for weeks: all was flushed before the last tick, or together with another record."""
    if ring == "tick":
        for _ in range(2):
            writer.ticks(60)
            writer.steps(3)
        last_ns = int(rows_of(0, 120)["ts_ns"][-1])
    else:
        bars = np.zeros(3, SWING)
        writer.clock.forward(60 * NS)
        bars["ts_ns"] = last_ns = writer.clock.wall_ns()
        bars["symbol"] = b"005930"
        Producer(writer.ring("swing")).publish(bars)
        writer.steps(3)
    writer.clock.forward(100 * NS)
    for path in writer.config.ring.dir.iterdir():
        path.unlink()
    writer.start()
    writer.steps(3)
    starts = {gap["ring"]: gap["gap_start_ns"] for gap in writer.events("gap_marker")}
    assert starts.pop(ring) == last_ns
    assert set(starts) >= {"event", "quarantine"}
    assert set(starts.values()) == {last_ns - earlier_s * NS}


@pytest.mark.parametrize("archived", [0, 3])
@pytest.mark.parametrize("lost_by", ["lap", "host_death"])
def test_a_gap_begins_with_the_last_archived_record_or_with_the_session(writer: Writer, archived: int, lost_by: str) -> None:
    memory = writer.memories[-1]
    writer.ticks(archived)
    writer.steps()
    since_ns = int(rows_of(0, archived)["ts_ns"][-1]) if archived else memory.spec().started_ns
    if lost_by == "lap":
        writer.ticks(CAPACITY + 10)
        writer.work()  # an archive writer that has not seen the last record itself
    else:
        for path in writer.config.ring.dir.iterdir():
            path.unlink()
        writer.start()
    writer.steps(10)
    (gap,) = [gap for gap in writer.events("gap_marker") if gap["ring"] == "tick"]
    assert gap["reason"] == {"lap": "ring_lap"}.get(lost_by, lost_by)
    assert gap["gap_start_ns"] == since_ns < gap["gap_end_ns"]


def test_no_record_is_durable_before_what_was_told_before_it(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the events are taken, the feed tells of a gap and publishes the record that ended it."""
    events = Producer(writer.ring("event"))
    writer.ticks(1)
    pump, told = EventDrain.pump, 0

    def raced(drain: EventDrain, now_ns: int) -> int:
        nonlocal told
        taken = pump(drain, now_ns)
        if drain.name == "event" and told < 3:
            told += 1
            events.publish(make_event("warning", START_NS, {"what": f"before {told}"}))
            writer.ticks(1)
        return taken

    order: list[str] = []

    def note(step: str, path: Path, _: Any) -> None:
        if step == "fsync":
            known = {int(event["what"].split()[1]) for event in writer.events("warning")}
            order.append("events" if "/events/" in str(path) else "segment")
            assert "/events/" in str(path) or set(writer.stored()[0]) <= {0} | known

    monkeypatch.setattr(EventDrain, "pump", raced)
    with observe(note):
        writer.steps(10)
    assert writer.stored()[0] == [0, 1, 2, 3]
    assert order.count("segment") > 1
    assert order[-2:] == ["events", "segment"], "in one round"


@pytest.mark.parametrize(
    ("lines", "archived", "since"),
    [
        pytest.param([("kis", "FAIL", 100)], 3, 100, id="a link lost its connection and never got it back"),
        pytest.param([("a", "FAIL", 200), ("b", "FAIL", 100), ("a", "FAIL", 200)], 3, 100, id="the earliest of two links"),
        pytest.param([("kis", "FAIL", 100), ("kis", "SUCCESS", None)], 3, None, id="it got it back"),
        pytest.param([("kis", "FAIL", 100), ("", "gap_marker", 100)], 3, None, id="the market closed: its gap is told"),
        pytest.param([("kis", "FAIL", 100), ("", "gap_marker", 50)], 3, 100, id="another gap was told"),
        pytest.param([("kis", "FAIL", 100)], 0, 0, id="it never had one: nothing has been told of this session"),
    ],
)
def test_what_a_link_had_been_losing_when_its_host_died_is_told_by_the_archive_writer(
    writer: Writer, lines: list[tuple[str, str, int | None]], archived: int, since: int | None
) -> None:
    """Times in seconds after the session's start."""
    started_ns, events, session_id = writer.memories[-1].spec().started_ns, Producer(writer.ring("event")), writer.ring().session_id
    writer.ticks(archived)
    late_ns = started_ns + 1_000 * NS
    for link, what, at in lines:
        lost_ns = None if at is None else started_ns + at * NS
        if what == "gap_marker":
            payload = gap_payload(
                start_ns=lost_ns or 0, end_ns=late_ns, scope="scalp", reason="mute", session_id=session_id, provider="kis"
            )
        else:
            payload = {"attempt_no": 1, "result": what, "link": link, "lost_since_ns": lost_ns}
        events.publish(make_event("gap_marker" if what == "gap_marker" else "reconnection_event", late_ns, payload))
    late = rows_of(archived, 1)
    late["ts_ns"] = late_ns
    if archived:  # of the other link
        Producer(writer.ring()).publish(late)
    writer.steps(5)
    for path in writer.config.ring.dir.iterdir():
        path.unlink()
    writer.clock.forward(2_000 * NS)
    writer.start()
    writer.steps(3)
    (gap,) = [gap for gap in writer.events("gap_marker") if gap["ring"] == "tick" and gap["reason"] == "host_death"]
    assert gap["gap_start_ns"] == (late_ns if since is None else started_ns + since * NS)


@pytest.mark.parametrize(("code", "reason"), [(errno.ENOSPC, "disk_full"), (errno.EIO, "disk_error")])
def test_while_the_disk_takes_nothing_the_ring_is_the_buffer(writer: Writer, code: int, reason: str) -> None:
    writer.ticks(4)
    writer.steps()
    with failing("create", "write", code=code):
        for _ in range(12):
            writer.ticks(10)
            writer.steps()
        assert writer.ring().durable("archive") == 4
        assert writer.cell["disk_trouble"] == 1
        taken = writer.archive._drains[0].consumer.cursor
        assert HELD <= taken - 4 <= HELD + BATCH, "bounded memory"
    writer.steps(15)
    assert writer.cell["disk_trouble"] == 0
    seqs, gaps = writer.stored()
    assert gaps == [(taken, 124 - CAPACITY - 1, reason)], "what neither memory nor ring could hold, for the reason that it was so"
    assert seqs == [*range(taken), *range(124 - CAPACITY, 124)]
    writer.ticks(CAPACITY + 5)
    writer.steps(12)
    assert writer.stored()[1][1:] == [(124, 128, "ring_lap")], "long after the trouble a lap is a lap"


def test_a_failing_fsync_costs_nothing(writer: Writer) -> None:
    writer.ticks(4)
    writer.steps()
    with failing("fsync", code=errno.EIO):
        writer.ticks(10)
        writer.steps(3)
        assert writer.ring().durable("archive") == 4
    writer.steps(3)
    assert writer.stored() == (list(range(14)), [])


def test_at_a_stop_everything_is_taken_also_what_memory_had_no_room_for(writer: Writer) -> None:
    with failing("create", "write"):
        writer.ticks(CAPACITY)
        writer.steps(12)
    writer.archive.finish()
    assert writer.stored() == (list(range(CAPACITY)), [])
    assert writer.ring().durable("archive") == CAPACITY
    assert not list(writer.data.rglob("*.open"))


def test_old_sessions_are_drained_one_by_one_and_sealed(writer: Writer) -> None:
    writer.ticks(20)
    writer.start()
    writer.ticks(30)
    writer.start()
    writer.ticks(5)
    writer.steps(12)
    assert [len(writer.stored(memory)[0]) for memory in range(3)] == [20, 30, 5]
    assert len(writer.memories[-1].remove_drained()) == 2
    assert len(list(writer.data.rglob("*.open"))) == 1, "that of the present session"


@pytest.mark.parametrize("sessions", [1, 2, 4])
def test_at_a_stop_every_old_session_is_drained_too(writer: Writer, sessions: int) -> None:
    for _ in range(sessions):
        writer.ticks(20)
        writer.start()
    writer.archive.finish()
    assert [len(writer.stored(memory)[0]) for memory in range(sessions)] == [20] * sessions
    assert len(writer.memories[-1].remove_drained()) == sessions


def test_an_old_session_is_not_given_up_while_memory_is_full(writer: Writer) -> None:
    writer.ticks(CAPACITY)
    writer.start()
    with failing("create", "write"):
        writer.steps(10)
    writer.steps(12)
    assert writer.stored(0) == (list(range(CAPACITY)), [])
    assert len(writer.memories[-1].remove_drained()) == 1


@pytest.mark.parametrize("flushed", [False, True])
def test_one_that_was_killed_is_followed_without_a_gap_or_a_double(writer: Writer, flushed: bool) -> None:
    writer.ticks(10)
    writer.steps()
    writer.ticks(10)
    if flushed:
        writer.steps()
    else:
        writer.archive.step()  # taken, not flushed
    writer.work()
    writer.ticks(10)
    writer.steps(5)
    assert writer.stored() == (list(range(30)), [])
    writer.archive.finish()
    assert writer.stored() == (list(range(30)), [])


def test_gap_lines_that_a_killed_writer_had_not_copied_are_copied_once(writer: Writer) -> None:
    writer.ticks(CAPACITY + 7)
    writer.steps(9)
    (events,) = day_files(writer.data / "system" / "events" / "kis")
    events.write_bytes(b"".join(line + b"\n" for _, line in text_lines(events) if b"gap_marker" not in line))
    for _ in range(2):
        writer.work()
        writer.steps()
        assert writer.sinks_gaps() == [(0, 6, "ring_lap")]


def test_events_of_both_rings_lie_in_one_file_with_their_places(writer: Writer) -> None:
    producers = {name: Producer(writer.ring(name)) for name in ("event", "poll_event")}
    for number in range(6):
        name = ("event", "poll_event")[number % 2]
        producers[name].publish(make_event("lifecycle", START_NS + number, {"what": f"x{number}"}))
        if number == 2:
            writer.steps()
    writer.steps()
    writer.work()
    writer.steps()
    places = [(line["event_ring"], line["event_seq"], line["what"]) for line in writer.events("lifecycle")]
    assert sorted(places) == [
        ("event", 0, "x0"), ("event", 1, "x2"), ("event", 2, "x4"),
        ("poll_event", 0, "x1"), ("poll_event", 1, "x3"), ("poll_event", 2, "x5"),
    ]  # fmt: skip
    assert writer.ring("event").durable("archive") == 3


def test_lapped_events_leave_a_gap_line_of_their_ring(writer: Writer) -> None:
    producer = Producer(writer.ring("event"))
    writer.steps()
    for number in range(40):
        producer.publish(make_event("lifecycle", START_NS + number, {"what": "x"}))
    writer.steps(6)
    (gap,) = [gap for gap in writer.events("gap_marker") if gap["ring"] == "event"]
    assert (gap["first_seq"], gap["last_seq"], gap["lost"], gap["scope"]) == (0, 7, 8, "all")
    assert [line["event_seq"] for line in writer.events("lifecycle")] == list(range(8, 40))


def quarantined(writer: Writer) -> list[dict[str, Any]]:
    return [orjson.loads(line) for path in day_files(writer.data / "quarantine" / "kis") for _, line in text_lines(path)]


def test_messages_that_could_not_be_read_are_durable_too(writer: Writer) -> None:
    producer = Producer(writer.ring("quarantine"))
    producer.publish(message_chunks(b"x" * 10_000, START_NS, "width", whole=True))
    writer.steps(2)
    (line,) = quarantined(writer)
    assert (line["first_seq"], line["last_seq"], line["reason"]) == (0, 2, "width")
    assert writer.ring("quarantine").durable("archive") == 3


def test_after_a_failed_flush_they_are_flushed_without_waiting_for_another(writer: Writer) -> None:
    writer.steps()
    with failing("create", "append_open", "write", "fsync"):
        Producer(writer.ring("quarantine")).publish(message_chunks(b"x", START_NS, "width", whole=True))
        writer.steps(3)
        assert quarantined(writer) == []
    writer.steps(2)
    assert len(quarantined(writer)) == 1
    assert writer.ring("quarantine").durable("archive") == 1


def test_rings_that_went_with_the_host_are_told_once_before_it_is_ready(writer: Writer) -> None:
    writer.ticks(12)
    writer.steps(4)
    first = writer.memories[0]
    session_id = first.current.session_id
    for path in (writer.config.ring.dir).iterdir():
        path.unlink()
    writer.start()
    for _ in range(2):
        writer.steps(2)
        told = {gap["ring"]: gap for gap in writer.events("gap_marker") if gap["session_id"] == session_id}
        assert len(told) == len(writer.sinks_gaps()) == 5
        assert (told["tick"]["first_seq"], told["tick"]["last_seq"], told["tick"]["lost"], told["tick"]["reason"]) == (
            12, None, None, "host_death"
        )  # fmt: skip
        assert told["swing"]["first_seq"] == 0
        writer.work()
    writer.steps()
    assert writer.cell["ready"] == 1
    assert not list(writer.data.rglob("*.open"))


@pytest.mark.parametrize("act", [lambda writer: writer.archive.step(), lambda writer: writer.archive.finish()])
def test_a_start_that_the_disk_refuses_is_tried_again(writer: Writer, act: Callable[[Writer], object]) -> None:
    writer.ticks(3)
    writer.steps()
    writer.work()
    left = 2

    def refuse(*_: Any) -> None:
        nonlocal left
        if left:
            left -= 1
            raise OSError(errno.EIO, "no")

    with observe(refuse):
        for _ in range(4):
            writer.clock.forward(NS)
            act(writer)
    assert writer.cell["ready"] == 1
    assert writer.stored() == ([0, 1, 2], [])
