"""What the next feed tells of an ordered stop: nothing that was received is lost, yet what the venue sent meanwhile is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from feed_rig import KisTrades, Rig
from test_takeover import check_ledger

from obs.clock import NS
from obs.record.events import new_session_id
from obs.segment.sessions import SessionStart, append_end, append_start

MS = 10**6


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.close()


def test_what_an_ordered_stop_missed_is_a_gap_up_to_the_next_record(rig: Rig) -> None:
    trades, context = KisTrades(), rig.context()
    rig.feed()
    rig.recorder.message(trades.trade("005930"), rig.clock.wall, context)
    rig.recorder.stop()
    stopped, of_session = rig.clock.wall, rig.session_id
    rig.clock.forward(100 * NS)
    rig.begin_session()
    assert rig.feed() is None, "it owes no counts"
    assert rig.gaps() == []
    rig.recorder.message(trades.trade("005930"), rig.clock.wall, context)
    rig.recorder.turn(rig.clock.forward(NS))
    (gap,) = rig.gaps()
    assert (gap["reason"], gap["scope"], gap["symbol"], gap["lost"], gap["of_session"]) == ("restart", "scalp", None, 0, of_session)
    assert (gap["gap_start_ns"], gap["gap_end_ns"]) == (stopped, int(rig.rows("tick")["ts_ns"][-1]))
    rig.recorder.stop()
    assert len(rig.gaps()) == 1
    check_ledger(rig)


def test_a_feed_that_dies_before_it_tells_leaves_that_to_the_next(rig: Rig) -> None:
    rig.feed()
    rig.recorder.stop()
    stopped = rig.clock.wall
    for _ in range(2):
        rig.clock.forward(10 * NS)
        rig.feed()
    rig.recorder.stop()
    (gap,) = rig.gaps()
    assert (gap["gap_start_ns"], gap["gap_end_ns"]) == (stopped, rig.clock.wall)


def test_while_the_venue_was_closed_nothing_was_missed(rig: Rig) -> None:
    rig.feed()
    rig.recorder.stop()
    asked: list[tuple[int, int]] = []

    def closed(start_ns: int, end_ns: int) -> list[tuple[int, int]]:
        asked.append((start_ns, end_ns))
        return []

    rig.open_spans, stopped = closed, rig.clock.wall
    rig.clock.forward(100 * NS)
    rig.feed()
    rig.recorder.stop()
    assert asked == [(stopped, rig.clock.wall)]
    assert rig.gaps() == []


def test_each_part_of_it_within_hours_is_a_gap_and_only_the_last_goes_on(rig: Rig) -> None:
    """Friday before the close to Monday behind the opening; the market closes again before a record comes."""
    rig.feed()
    rig.recorder.stop()
    stopped, of_session = rig.clock.wall, rig.session_id
    now = rig.clock.forward(100 * NS)
    rig.open_spans = lambda *_: [(stopped, stopped + 10 * NS), (stopped + 50 * NS, now)]
    rig.begin_session()
    rig.feed()
    assert [(gap["gap_start_ns"], gap["gap_end_ns"]) for gap in rig.gaps()] == [(stopped, stopped + 10 * NS)]
    closing = rig.clock.forward(7 * NS)
    for _ in range(2):
        rig.recorder.settle_restart(closing)
    first, second = rig.gaps()
    assert (second["gap_start_ns"], second["gap_end_ns"]) == (stopped + 50 * NS, closing)
    assert {(gap["reason"], gap["lost"], gap["of_session"]) for gap in (first, second)} == {("restart", 0, of_session)}
    rig.open_spans = lambda *_: []
    rig.feed()  # killed behind that: what was told is not owed any more
    rig.recorder.stop()
    assert len(rig.gaps()) == 2


@pytest.mark.parametrize("owed", [False, True])
def test_killed_at_night_only_what_was_received_is_lost(rig: Rig, owed: bool) -> None:
    rig.feed()
    if owed:
        rig.recorder.message(KisTrades().trade("005930"), rig.clock.wall, rig.context())
        rig.recorder.process()
    rig.open_spans = lambda *_: []
    rig.clock.forward(NS)
    rig.feed()
    rig.recorder.stop()
    assert [gap["lost"] for gap in rig.gaps()] == ([1] if owed else [])
    check_ledger(rig)


@pytest.mark.parametrize("end", ["clean", "heard", "and one that never began", "host_death", "none", "first"])
def test_after_a_start_of_the_host_the_file_of_the_sessions_tells(rig: Rig, end: str) -> None:
    def session() -> str:
        session_id = new_session_id("kis", rig.clock.wall)
        append_start(rig.data, SessionStart(session_id, "kis", rig.clock.wall, "host", "boot", "1", "hash", {"tick": 16}))
        rig.clock.forward(50 * NS)
        return session_id

    old = session() if end != "first" else ""
    stopped = rig.clock.wall
    if end not in ("first", "none"):
        heard_ns = stopped - 7 * NS if end == "heard" else 0
        append_end(rig.data, "kis", old, stopped, {"tick": 3, "event": 9}, host_death=end == "host_death", heard_ns=heard_ns)
    if end == "and one that never began":
        append_end(rig.data, "kis", session(), rig.clock.wall, {"tick": -1, "event": -1})
    rig.clock.forward(50 * NS)
    rig.begin_session()
    append_start(rig.data, SessionStart(rig.session_id, "kis", rig.clock.wall, "host", "boot2", "1", "hash", {"tick": 16}))
    begun = rig.clock.wall
    rig.clock.forward(3 * NS)
    rig.feed()
    rig.recorder.stop()
    told = [(gap["gap_start_ns"], gap["gap_end_ns"], gap["of_session"]) for gap in rig.gaps()]
    # What ended with its host is told by the archive writer up to the start of the next session.
    start = {"heard": stopped - 7 * NS, "host_death": begun, "none": begun}.get(end, stopped)
    assert told == ([] if end == "first" else [(start, rig.clock.wall, old)])


@pytest.mark.parametrize("known", [True, False])
def test_a_data_directory_that_was_begun_anew_has_missed_nothing(rig: Rig, known: bool) -> None:
    """The board outlives it."""
    rig.feed()
    rig.recorder.stop()
    sessions = [rig.session_id] if known else []
    rig.clock.forward(50 * NS)
    rig.begin_session()
    for session_id in [*sessions, rig.session_id]:
        append_start(rig.data, SessionStart(session_id, "kis", rig.clock.wall, "host", "boot", "1", "hash", {"tick": 16}))
    rig.feed()
    rig.recorder.stop()
    assert len(rig.gaps()) == known


def test_a_clock_that_was_put_back_meanwhile_makes_no_gap_that_ends_before_it_begins(rig: Rig) -> None:
    rig.feed()
    rig.recorder.stop()
    rig.clock.wall -= 3600 * NS
    rig.feed()
    rig.recorder.stop()
    (gap,) = rig.gaps()
    assert gap["gap_start_ns"] <= gap["gap_end_ns"] == rig.clock.wall
