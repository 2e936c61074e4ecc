"""The data path of a feed: real decoders, real rings, a clock that the test turns."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from feed_rig import KIS_ACK, T0, KisTrades, Rig, counted, upbit_book, upbit_trade

from obs.clock import MINUTE_NS, NS, minute_of
from obs.ledger import broken_identity
from obs.ledger import read as read_intake
from obs.providers.base import MAX_INPUTS_PER_MESSAGE
from obs.record.schema import CHUNK_DATA_BYTES, CHUNK_KEEP_BYTES, IGNORED, KINDS, QUALITIES

MS = 10**6
Make = Callable[..., "Feed"]


class Feed:
    """A rig whose feed lives, and one connection of it."""

    def __init__(self, rig: Rig) -> None:
        self.rig, self.clock = rig, rig.clock
        rig.feed()
        self.recorder = rig.recorder
        self.context = rig.context()
        self.trades = KisTrades()

    def at(self, ns: int) -> None:
        """Let the time after T0 be `ns`; the grid is looked at, as the feed's own timer does."""
        self.clock.forward(T0 + ns - self.clock.wall)
        self.recorder.turn(self.clock.wall)

    def take(self, *payloads: bytes) -> list[Any]:
        return [control for one in payloads for control in self.recorder.message(memoryview(one), self.clock.wall, self.context)]

    def trade(self, symbol: str = "005930", **how: int) -> None:
        self.take(self.trades.trade(symbol, **how))

    def records(self) -> list[tuple[int, str, int, int]]:
        """(ts - T0 in ms, symbol, trades, quotes)"""
        rows = self.rig.rows("tick")
        return [((int(row["ts_ns"]) - T0) // MS, row["symbol"].decode(), int(row["trades"]), int(row["quotes"])) for row in rows]

    def sums(self) -> dict[tuple[int, str], tuple[int, int, int]]:
        """(minute after T0, symbol) -> inputs, trades, quotes"""
        sums, _ = counted(self.rig.events("counts"))
        return {((minute - T0) // MINUTE_NS, symbol): (one.inputs, one.trades, one.quotes) for (minute, symbol), one in sums.items()}


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Rig] = []

    def begin(**how: Any) -> Feed:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(Rig(folder, **how))
        made[-1].clock.wall = T0 + 1
        return Feed(made[-1])

    yield begin
    for rig in made:
        rig.close()


# --- the grid


def test_a_record_for_every_slot_that_was_heard_of_at_every_point(make: Make) -> None:
    feed = make()
    feed.at(100 * MS)
    feed.trade()
    feed.trade()
    feed.at(501 * MS)
    assert feed.records() == [(500, "005930", 2, 0)]
    feed.trade("000660")
    feed.at(1001 * MS)
    assert feed.records()[1:] == [(1000, "005930", 0, 0), (1000, "000660", 1, 0)]
    feed.at(1501 * MS)
    assert feed.records()[3:] == [(1500, "005930", 0, 0), (1500, "000660", 0, 0)]


def test_an_input_on_the_grid_point_belongs_to_it_and_one_behind_it_does_not(make: Make) -> None:
    feed = make()
    for ns in (499 * MS, 500 * MS, 500 * MS + 1):
        feed.clock.forward(T0 + ns - feed.clock.wall)
        feed.trade()
    feed.at(1001 * MS)
    assert feed.records() == [(500, "005930", 2, 0), (1000, "005930", 1, 0)]


def test_a_message_behind_the_point_publishes_what_was_before_it(make: Make) -> None:
    """The timer may come late: the records of the point are still published before that message is decoded."""
    feed = make()
    feed.trade()
    feed.clock.forward(NS)
    feed.trade()
    assert feed.records() == [(500, "005930", 1, 0)]


def test_points_that_passed_unseen_get_no_record(make: Make) -> None:
    feed = make()
    feed.trade()
    feed.at(30 * NS + 1)
    assert feed.records() == [(500, "005930", 1, 0)]
    feed.at(30 * NS + 501 * MS)
    assert feed.records()[1:] == [(30_500, "005930", 0, 0)]


@pytest.mark.parametrize(("level", "step_ms"), [(1, 1000), (2, 2000), (7, 2000)])
def test_the_mitigation_level_of_the_board_widens_the_grid(make: Make, level: int, step_ms: int) -> None:
    feed = make()
    feed.rig.board["level"].write_json({"level": level})
    feed.trade()
    for ms in range(501, 8502, 250):
        feed.at(ms * MS)
    times = [ms for ms, *_ in feed.records()]
    assert times[0] == 500, "the interval that was open is ended as it was begun"
    assert times[1:] == list(range(step_ms, 8501, step_ms))
    levels = feed.rig.rows("tick")["mitigation_level"].tolist()
    assert levels == [0, *[min(level, 2)] * (len(levels) - 1)]


# --- minutes and counts


def test_counts_follow_the_last_record_of_their_minute(make: Make) -> None:
    feed = make()
    feed.at(59_900 * MS)
    feed.trade()
    feed.take(KIS_ACK)
    feed.at(60_000 * MS)
    assert feed.rig.events("counts") == [], "the minute is (M, M + 60 s]: its last point is not over"
    feed.trade("000660")
    feed.at(60_000 * MS + 1)
    assert feed.records() == [(60_000, "005930", 1, 0), (60_000, "000660", 1, 0)]
    told = {event["symbol"]: event for event in feed.rig.events("counts")}
    assert list(told) == ["005930", "000660", None], "of the provider last"
    assert told[None]["tick_seq"] == 2
    assert told[None]["symbols"] == 2
    assert {name: told[None][name] for name in ("messages", "data", "control", "quarantined")} == {
        "messages": 3, "data": 2, "control": 1, "quarantined": 0
    }  # fmt: skip
    assert {event["minute_ns"] for event in told.values()} == {T0}
    assert feed.sums() == {(0, "005930"): (1, 1, 0), (0, "000660"): (1, 1, 0)}


@pytest.mark.parametrize("tape", [False, True])
def test_each_minute_counts_what_its_records_hold(make: Make, tape: bool) -> None:
    feed = make(tape=tape)
    for step in range(400):
        feed.trade(feed.rig.symbols[step % 3])
        if step % 7 == 0:
            feed.at((step + 1) * 500 * MS + 1)
        else:
            feed.clock.forward(499 * MS + step)
    feed.recorder.stop()
    by_minute: dict[tuple[int, str], int] = {}
    for row in feed.rig.rows("tick"):
        key = ((minute_of(int(row["ts_ns"])) - T0) // MINUTE_NS, row["symbol"].decode())
        by_minute[key] = by_minute.get(key, 0) + int(row["trades"])
    assert {key: sums[1] for key, sums in feed.sums().items()} == {key: number for key, number in by_minute.items() if number}
    assert sum(by_minute.values()) == 400
    ns = [event["n"] for event in feed.rig.events("counts") if event["symbol"] is None]
    assert ns == sorted(set(ns))


def test_ignored_inputs_are_counted_by_reason(make: Make) -> None:
    feed = make()
    record = feed.trades.record("005930")
    stranger = feed.trades.record("123456")
    bad = feed.trades.record("000660").replace("^123400^", "^1x3400^")
    feed.take(feed.trades.message(record, stranger, bad), feed.trades.message(record))
    feed.recorder.stop()
    sums, provider = counted(feed.rig.events("counts"))
    assert {symbol: dict(one.ignored) for (_, symbol), one in sums.items()} == {
        "005930": {"duplicate": 1}, "": {"unknown_symbol": 1, "malformed": 1}
    }  # fmt: skip
    assert (provider["messages"], provider["data"], provider["quarantined"]) == (2, 2, 0)
    (chunk,) = feed.rig.rows("quarantine")
    assert chunk["data"].tobytes()[: chunk["data_bytes"]].startswith(b"000660^1x3400^")
    assert not chunk["whole"]


def test_a_snapshot_trade_is_counted_and_not_folded(make: Make) -> None:
    feed = make(venue="upbit")
    feed.take(upbit_trade("KRW-BTC", 1).replace(b"REALTIME", b"SNAPSHOT"), upbit_trade("KRW-BTC", 2), upbit_book("KRW-BTC", 99.0, 101.0))
    feed.at(501 * MS)
    assert feed.records() == [(500, "KRW-BTC", 1, 1)]
    feed.recorder.stop()
    sums, _ = counted(feed.rig.events("counts"))
    assert dict(sums[minute_of(T0 + 1), "KRW-BTC"].ignored) == {"snapshot": 1}


# --- tape


def test_the_tape_holds_every_input_in_its_order(make: Make) -> None:
    feed = make(venue="upbit", tape=True)
    feed.take(upbit_trade("KRW-BTC", 7), upbit_book("KRW-BTC", 99.0, 101.0), upbit_trade("KRW-ETH", 8))
    feed.recorder.process()
    rows = feed.rig.rows("tick")
    assert [(KINDS[row["kind"]], row["symbol"].decode(), int(row["venue_seq"])) for row in rows] == [
        ("trade", "KRW-BTC", 7), ("quote", "KRW-BTC", -1), ("trade", "KRW-ETH", 8)
    ]  # fmt: skip
    assert set(rows["ts_ns"].tolist()) == {feed.clock.wall}
    feed.at(NS)
    assert len(feed.records()) == 3, "no record of an empty interval"


@pytest.mark.parametrize("tape", [False, True])
def test_many_inputs_go_in_several_batches(make: Make, tape: bool) -> None:
    feed = make(tape=tape)
    for _ in range(20):
        feed.take(feed.trades.message(*[feed.trades.record("005930") for _ in range(200)]))
    feed.at(501 * MS)
    assert sum(trades for _, _, trades, _ in feed.records()) == 4000
    assert feed.recorder.staged is False


def test_the_largest_message_fits(make: Make) -> None:
    feed = make()
    for _ in range(4):
        feed.take(feed.trades.message(*[feed.trades.record("005930") for _ in range(MAX_INPUTS_PER_MESSAGE)]))
    feed.at(501 * MS)
    assert feed.records() == [(500, "005930", 4 * MAX_INPUTS_PER_MESSAGE, 0)]


# --- disconnects and gaps


def test_at_a_disconnect_what_is_pending_is_published_once_and_then_nothing(make: Make) -> None:
    feed = make()
    feed.trade()
    feed.trade("000660")
    feed.at(501 * MS)
    feed.clock.forward(100 * MS)
    feed.trade()
    feed.clock.forward(100 * MS)
    lost_at = feed.clock.wall
    feed.recorder.disconnected(np.array([1, 2, 3]), lost_at)
    feed.recorder.open_gap("link", lost_at - 100 * MS)
    assert feed.records()[2:] == [(701, "005930", 1, 0)], "ts = then, and only of slots with something to tell"
    feed.at(5 * NS)
    assert len(feed.records()) == 3, "not while disconnected"
    feed.trade()
    feed.recorder.close_gap("link", feed.clock.wall, "ws_disconnect")
    feed.at(5 * NS + 501 * MS)
    assert feed.records()[3:] == [(5000, "005930", 1, 0)], "received on a grid point: of that point"
    row = feed.rig.rows("tick")[3]
    assert QUALITIES[row["quality"]] == "gap"
    (gap,) = feed.rig.gaps()
    assert (gap["reason"], gap["symbol"]) == ("ws_disconnect", None)
    assert (gap["gap_start_ns"], gap["gap_end_ns"]) == (lost_at - 100 * MS, T0 + 5 * NS)


def test_a_disconnect_of_one_link_leaves_the_slots_of_another_alone(make: Make) -> None:
    feed = make()
    for symbol in feed.rig.symbols:
        feed.trade(symbol)
    feed.clock.forward(100 * MS)
    feed.recorder.disconnected(np.array([2]), feed.clock.wall)
    assert [symbol for _, symbol, *_ in feed.records()] == ["000660"]
    feed.at(501 * MS)
    assert feed.records()[1:] == [(500, "005930", 1, 0), (500, "Q500001", 1, 0)]


def test_a_gap_of_some_symbols_is_told_for_each(make: Make) -> None:
    feed = make()
    feed.recorder.open_gap("link", T0)
    feed.recorder.open_gap("link", T0 + 5)
    feed.recorder.close_gap("link", T0 + NS, "mute", ["005930", "000660"])
    feed.recorder.close_gap("link", T0 + 2 * NS, "mute")
    assert [(gap["symbol"], gap["gap_start_ns"], gap["gap_end_ns"]) for gap in feed.rig.gaps()] == [
        ("005930", T0, T0 + NS), ("000660", T0, T0 + NS)
    ]  # fmt: skip


def test_a_gap_that_is_forgiven_is_not_told(make: Make) -> None:
    feed = make()
    feed.recorder.open_gap("link", T0)
    feed.recorder.forgive("link")
    feed.recorder.close_gap("link", T0 + NS, "mute")
    feed.recorder.stop()
    assert feed.rig.gaps() == []


def test_a_gap_that_ends_before_it_began_has_no_length(make: Make) -> None:
    feed = make()
    feed.recorder.open_gap("link", T0 + 5 * NS)
    feed.recorder.close_gap("link", T0, "ws_disconnect")
    (gap,) = feed.rig.gaps()
    assert (gap["gap_start_ns"], gap["gap_end_ns"], gap["gap_seconds"]) == (T0 + 5 * NS, T0 + 5 * NS, 0)


def test_a_gap_is_as_long_as_it_was_though_the_clock_is_put_back(make: Make) -> None:
    feed = make()
    feed.recorder.open_gap("link", T0)
    feed.clock.mono += 9 * NS
    feed.clock.wall -= 3600 * NS
    feed.recorder.close_gap("link", feed.clock.wall, "ws_disconnect")
    (gap,) = feed.rig.gaps()
    assert (gap["gap_start_ns"], gap["gap_end_ns"], gap["gap_seconds"]) == (T0, T0 + 9 * NS, 9)


def test_what_is_staged_is_counted_before_the_intake_says_how_far_it_goes(make: Make) -> None:
    """Or the restart gap of a feed that dies now would begin behind inputs that nobody counted."""
    feed = make()
    for act in (lambda: feed.recorder.open_gap("link", T0), lambda: feed.recorder.close_gap("link", T0, "mute")):
        feed.clock.forward(MS)
        feed.trade()
        act()
        snapshot = read_intake(feed.rig.board["intake"])
        assert snapshot is not None
        assert int(snapshot.head["last_recv_ns"]) == feed.clock.wall
        assert int(snapshot.head["messages"]) == snapshot.table["inputs"].sum()


# --- the venue's own count


def venue_gaps(feed: Feed) -> list[tuple[str, float, float, Any]]:
    return [(gap["symbol"], gap["acc_volume_before"], gap["acc_volume_after"], gap["inside"]) for gap in feed.rig.gaps("venue_count")]


@pytest.mark.parametrize("tape", [False, True])
def test_a_step_of_the_venues_count_is_a_gap_from_trade_to_trade(make: Make, tape: bool) -> None:
    feed = make(tape=tape)
    feed.trade(size=5)
    before = feed.clock.wall
    feed.clock.forward(20 * MS)
    feed.trade(size=5, skip=7)
    feed.recorder.process()
    assert venue_gaps(feed) == [("005930", 1005.0, 1017.0, None)]
    (gap,) = feed.rig.gaps()
    assert (gap["gap_start_ns"], gap["gap_end_ns"]) == (before, feed.clock.wall)


def test_a_step_inside_an_open_gap_waits_for_it_and_names_it(make: Make) -> None:
    feed = make()
    feed.trade()
    feed.trade("000660")
    feed.clock.forward(NS)
    feed.recorder.open_gap("link", feed.clock.wall)
    feed.clock.forward(3 * NS)
    feed.trade(skip=4)
    feed.recorder.process()
    assert venue_gaps(feed) == [], "the gap that explains it is not over"
    feed.recorder.close_gap("link", feed.clock.wall, "ws_disconnect")
    feed.clock.forward(10 * NS)
    feed.trade("000660", skip=1)
    feed.recorder.process()
    first, later = feed.rig.gaps("venue_count")
    name = f"{feed.rig.session_id}/event/{feed.rig.kinds().index('gap_marker')}"
    assert first["inside"] == name
    assert later["inside"] == name, "its last trade before the step was before that gap"
    feed.clock.forward(NS)
    feed.trade("000660", skip=1)
    feed.recorder.process()
    assert feed.rig.gaps("venue_count")[-1]["inside"] is None


def test_steps_wait_until_the_last_open_gap_is_over(make: Make) -> None:
    feed = make()
    feed.trade()
    feed.recorder.open_gap("one", T0)
    feed.recorder.open_gap("other", T0)
    feed.trade(skip=4)
    feed.recorder.close_gap("one", feed.clock.wall, "ws_disconnect", ["000660"])
    assert venue_gaps(feed) == []
    feed.recorder.close_gap("other", feed.clock.wall, "ws_disconnect", ["005930"])
    assert len(venue_gaps(feed)) == 1


def test_steps_that_wait_are_told_at_a_stop(make: Make) -> None:
    feed = make()
    feed.rig.feed()  # killed: it owes a restart gap, for which steps wait too
    feed.recorder = feed.rig.recorder
    feed.trade()
    feed.trade(skip=3)
    feed.recorder.process()
    assert venue_gaps(feed) == []
    feed.recorder.stop()
    assert len(venue_gaps(feed)) == 1
    assert [gap["reason"] for gap in feed.rig.gaps()] == ["restart", "venue_count"]


def test_a_step_is_told_before_the_commit_that_a_restart_gap_begins_behind(make: Make) -> None:
    feed = make()
    feed.trade()
    feed.recorder.process()
    feed.trade(skip=3)
    seen: list[tuple[int, int]] = []
    commit = feed.recorder.intake.commit

    def note() -> None:
        commit()
        seen.append((len(feed.rig.gaps("venue_count")), int(feed.recorder.intake.table["trades"].sum())))

    feed.recorder.intake.commit = note  # type: ignore[method-assign]
    feed.recorder.process()
    assert seen == [(1, 2)]


# --- clocks


@pytest.mark.parametrize("tape", [False, True])
@pytest.mark.parametrize("back_ns", [1, MS, 999 * MS])
def test_a_small_step_back_is_smoothed(make: Make, tape: bool, back_ns: int) -> None:
    """Also across the end of a minute: nothing falls into the one that was told."""
    feed = make(tape=tape)
    feed.at(59 * NS + 600 * MS)
    feed.trade()
    feed.at(60 * NS + 10 * MS)
    feed.clock.wall -= back_ns
    feed.trade()
    feed.recorder.turn(feed.clock.wall)
    feed.clock.forward(2 * NS)
    feed.recorder.stop()
    assert feed.sums() == {(0, "005930"): (1, 1, 0), (1, "005930"): (1, 1, 0)}
    times = [ms for ms, _, trades, _ in feed.records() if trades]
    assert times == sorted(times)
    assert [minute_of(T0 + ms * MS) for ms in times] == [T0, T0 + MINUTE_NS]
    assert "clock_step" not in [warning["what"] for warning in feed.rig.events("warning")]


@pytest.mark.parametrize("tape", [False, True])
@pytest.mark.parametrize("back_s", [1, 59, 60, 3600])
def test_a_large_step_back_ends_the_interval_and_begins_another_bucket(make: Make, tape: bool, back_s: int) -> None:
    feed = make(tape=tape)
    feed.at(70 * NS)
    feed.trade()
    feed.clock.wall -= back_s * NS + 1
    feed.trade()
    feed.recorder.turn(feed.clock.forward(NS))
    feed.trade()
    feed.recorder.stop()
    (warning,) = feed.rig.events("warning")
    assert warning["what"] == "clock_step"
    records: dict[int, int] = {}
    for row in feed.rig.rows("tick"):
        minute = (minute_of(int(row["ts_ns"])) - T0) // MINUTE_NS
        records[minute] = records.get(minute, 0) + int(row["trades"])
    assert {minute: trades for (minute, _), (_, trades, _) in feed.sums().items()} == records
    assert sum(records.values()) == 3
    assert feed.rig.rows("tick")["seq"].tolist() == list(range(len(feed.rig.rows("tick"))))


@pytest.mark.parametrize("tape", [False, True])
def test_a_step_forward_begins_the_minute_it_leads_to(make: Make, tape: bool) -> None:
    feed = make(tape=tape)
    feed.trade()
    feed.clock.wall += 3600 * NS
    feed.trade()
    feed.recorder.stop()
    assert feed.sums() == {(0, "005930"): (1, 1, 0), (60, "005930"): (1, 1, 0)}


def test_forward_and_back_again_adds_to_the_minute_in_a_bucket_of_its_own(make: Make) -> None:
    feed = make()
    feed.trade()
    feed.at(3600 * NS)
    feed.clock.wall = T0 + 2 * NS
    feed.trade()
    feed.recorder.stop()
    assert feed.sums()[0, "005930"] == (2, 2, 0)
    ns = [event["n"] for event in feed.rig.events("counts") if event["symbol"] == "005930"]
    assert len(set(ns)) == 2


# --- the restart gap


def test_the_restart_gap_comes_right_before_the_first_record(make: Make) -> None:
    feed = make()
    feed.trade()
    feed.at(501 * MS)
    feed.clock.forward(100 * MS)
    feed.trade()
    feed.recorder.process()
    feed.clock.forward(4 * NS)
    feed.rig.feed()
    feed.recorder = feed.rig.recorder
    feed.at(5 * NS)
    assert feed.rig.gaps() == []
    feed.trade()
    told_before: list[int] = []
    publish = feed.recorder.tick.publish

    def noted(rows: np.ndarray) -> int:
        told_before.append(len(feed.rig.gaps("restart")))
        return publish(rows)

    feed.recorder.tick.publish = noted  # type: ignore[method-assign]
    feed.at(6 * NS)
    assert told_before == [1], "told before the record that ends it"
    (gap,) = feed.rig.gaps()
    last, first = feed.rig.rows("tick")["ts_ns"].tolist()
    assert (gap["gap_start_ns"], gap["gap_end_ns"], gap["lost"]) == (last, first, 1)
    feed.at(8 * NS)
    assert len(feed.rig.gaps()) == 1


# --- what cannot be read


def quarantined(feed: Feed) -> list[list[np.void]]:
    rows = list(feed.rig.rows("quarantine"))
    ends = [place + 1 for place, row in enumerate(rows) if row["part"] == row["parts"] - 1]
    return [rows[start:end] for start, end in itertools.pairwise([0, *ends])]


@pytest.mark.parametrize(
    ("size", "parts"),
    [(1, 1), (CHUNK_DATA_BYTES, 1), (CHUNK_DATA_BYTES + 1, 2), (CHUNK_KEEP_BYTES, 17), (CHUNK_KEEP_BYTES + 1, 17), (10 << 20, 17)],
)
def test_a_message_that_cannot_be_read_is_kept_with_length_and_hash(make: Make, size: int, parts: int) -> None:
    feed = make()
    payload = bytes(itertools.islice(itertools.cycle(range(251)), min(size, 100_000))).ljust(size, b"\xff")
    feed.take(payload)
    feed.recorder.process()
    (chunks,) = quarantined(feed)
    assert len(chunks) == parts
    kept = b"".join(chunk["data"].tobytes()[: chunk["data_bytes"]] for chunk in chunks)
    assert kept == payload[:CHUNK_KEEP_BYTES]
    for number, chunk in enumerate(chunks):
        assert (chunk["part"], chunk["parts"], chunk["total_bytes"], chunk["whole"]) == (number, parts, size, 1)
        assert chunk["sha256"].tobytes() == hashlib.sha256(payload).digest()
        assert chunk["recv_ns"] == feed.clock.wall
        assert chunk["reason"]
    feed.recorder.stop()
    _, provider = counted(feed.rig.events("counts"))
    assert (provider["messages"], provider["quarantined"], provider["data"]) == (1, 1, 0)


def test_an_empty_message_is_kept_too(make: Make) -> None:
    feed = make()
    feed.take(b"")
    feed.recorder.process()
    (chunks,) = quarantined(feed)
    assert (len(chunks), int(chunks[0]["total_bytes"]), int(chunks[0]["data_bytes"])) == (1, 0, 0)


def test_broken_framing_counts_as_a_message(make: Make) -> None:
    feed = make()
    feed.trade()
    feed.recorder.broken(b"\x8b\x00", "opcode", 5000, bytes(range(32)))
    (chunks,) = quarantined(feed)
    assert (int(chunks[0]["total_bytes"]), bytes(chunks[0]["reason"])) == (5000, b"opcode")
    feed.recorder.stop()
    _, provider = counted(feed.rig.events("counts"))
    assert (provider["messages"], provider["data"], provider["quarantined"]) == (2, 1, 1)


@pytest.mark.parametrize("place", [0, 1, 4])
def test_a_bad_span_costs_no_neighbour(make: Make, place: int) -> None:
    feed = make()
    records = [feed.trades.record(symbol) for symbol in ("005930", "000660", "Q500001", "005930", "000660")]
    records[place] = records[place].replace("^123400^", "^99x400^")
    feed.take(feed.trades.message(*records))
    feed.at(501 * MS)
    assert sum(trades for _, _, trades, _ in feed.records()) == 4
    (chunks,) = quarantined(feed)
    assert not chunks[0]["whole"]
    assert chunks[0]["data"].tobytes()[: chunks[0]["data_bytes"]] == records[place].encode()


def test_a_message_of_many_bad_spans_is_kept_once(make: Make) -> None:
    """Each span for itself would push everything else out of the quarantine ring."""
    feed = make()
    good = feed.trades.record("005930")
    bad = [feed.trades.record("000660").replace("^123400^", "^99x400^") for _ in range(300)]
    payload = feed.trades.message(good, *bad)
    feed.take(payload)
    feed.at(501 * MS)
    (chunks,) = quarantined(feed)
    assert (int(chunks[0]["total_bytes"]), int(chunks[0]["whole"])) == (len(payload), 0)
    assert feed.records() == [(500, "005930", 1, 0)]
    feed.recorder.stop()
    sums, _ = counted(feed.rig.events("counts"))
    assert sums[minute_of(T0 + 1), ""].ignored == {"malformed": 300}


def test_a_flood_of_what_cannot_be_read_is_published_as_it_comes(make: Make) -> None:
    feed = make()
    for _ in range(40):
        feed.take(b"\xff" * CHUNK_KEEP_BYTES)
    assert feed.rig.rings["quarantine"].published >= 32 * 17, "not held back until memory is full"
    feed.recorder.stop()
    _, provider = counted(feed.rig.events("counts"))
    assert provider["quarantined"] == 40


def test_control_messages_answer_and_count(make: Make) -> None:
    feed = make()
    ping = b'{"header":{"tr_id":"PINGPONG","datetime":"20260714123400"}}'
    ack, pong = feed.take(KIS_ACK, ping)
    assert (ack.kind, ack.symbol, ack.registered) == ("ack", "005930", True)
    assert (pong.kind, pong.reply) == ("ping", ping)
    feed.take(b'{"header":{}}')
    feed.recorder.stop()
    _, provider = counted(feed.rig.events("counts"))
    assert (provider["messages"], provider["control"], provider["quarantined"]) == (3, 2, 1)


def test_the_inputs_of_a_message_are_told_until_the_next(make: Make) -> None:
    feed = make(venue="upbit")
    feed.take(upbit_trade("KRW-ETH", 1))
    assert feed.recorder.latest["row"].tolist() == [2]
    feed.take(upbit_book("KRW-XRP", 1.0, 2.0))
    assert feed.recorder.latest["row"].tolist() == [3]


# --- the order of stores


@pytest.mark.parametrize("tape", [False, True])
def test_the_intake_is_committed_before_its_inputs_are_published(make: Make, tape: bool) -> None:
    """The heart of the accounting: whenever records appear, the intake already knows their inputs as pending."""
    feed = make(tape=tape)
    publish = feed.recorder.tick.publish
    seen = []

    def checked(rows: np.ndarray) -> int:
        snapshot = read_intake(feed.rig.board["intake"])
        assert snapshot is not None
        pending = dict(zip(snapshot.table["symbol"].tolist(), snapshot.table["pending_trades"].tolist(), strict=True))
        held: dict[bytes, int] = {}
        for row in rows:
            held[row["symbol"]] = held.get(row["symbol"], 0) + int(row["trades"])
        assert all(pending[symbol] >= trades for symbol, trades in held.items())
        assert int(snapshot.head["tick_as_of"]) == feed.recorder.tick.published
        seen.append(len(rows))
        return publish(rows)

    feed.recorder.tick.publish = checked  # type: ignore[method-assign]
    for step in range(1, 40):
        feed.trade(feed.rig.symbols[step % 3])
        feed.at(step * 170 * MS)
    feed.recorder.stop()
    assert len(seen) > 5


def test_after_a_stop_everything_is_told_and_nothing_is_owed(make: Make) -> None:
    feed = make()
    feed.trade()
    feed.take(b"?")
    feed.clock.forward(100 * MS)
    feed.recorder.stop()
    assert feed.records() == [(100, "005930", 1, 0)]
    assert len(quarantined(feed)) == 1
    snapshot = read_intake(feed.rig.board["intake"])
    assert snapshot is not None
    assert int(snapshot.head["clean"]) == 1
    assert not snapshot.table["pending_trades"].any()
    assert broken_identity(snapshot) == ""
    assert feed.rig.kinds()[-1] == "counts"


def test_totals_grow_with_what_was_done(make: Make) -> None:
    feed = make()
    feed.trade()
    feed.trade("123456")
    feed.take(b"?")
    feed.at(61 * NS)
    feed.trade()
    feed.recorder.process()
    totals = feed.recorder.totals
    assert feed.recorder.messages == 4
    assert (totals.inputs, totals.ignored, totals.quarantined, totals.records) == (3, 1, 1, 1)


def test_a_volume_that_is_not_known_stays_unknown(make: Make) -> None:
    feed = make(venue="upbit")
    feed.take(upbit_book("KRW-BTC", 99.0, 101.0))
    feed.at(501 * MS)
    (row,) = feed.rig.rows("tick")
    assert math.isnan(row["last_price"])
    assert math.isnan(row["acc_volume"])
    assert row["volume"] == 0.0
    assert IGNORED[0] == ""
