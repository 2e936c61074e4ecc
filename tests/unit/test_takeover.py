"""A feed killed at every store it makes to shared memory: what it published and what it lost is what it had counted."""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from feed_rig import KIS_ACK, T0, KisTrades, Rig, counted, restart_lost
from hypothesis import given, settings
from hypothesis import strategies as st

from obs.clock import NS, minute_of
from obs.ledger import broken_identity, counts_payloads
from obs.ledger import read as read_intake
from obs.roles.takeover import debt_of

MS = 10**6


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


@contextmanager
def every_store(rig: Rig, at: Callable[[], None]) -> Iterator[None]:
    """Call `at` between the stores of board and rings: there is a fence before and after each that matters."""
    within = False

    def fence() -> None:
        nonlocal within
        if not within:  # `at` itself may read
            within = True
            try:
                at()
            finally:
                within = False

    with pytest.MonkeyPatch.context() as patch:
        for cell in rig.board._cells.values():
            patch.setattr(cell, "_fence", fence)
        patch.setattr("obs.ring.producer.fence", fence)
        yield


def check_identities(rig: Rig) -> None:
    """Whatever instant this is: published + lost = counted, per symbol, and messages have their fates."""
    snapshot = read_intake(rig.board["intake"])
    if snapshot is None:
        return
    assert broken_identity(snapshot) == ""
    debt = debt_of(snapshot, rig.shm, rig.data, rig.clock.wall)
    events = rig.events("counts")
    if debt is not None:
        told = counts_payloads(snapshot, debt.tick_seq, debt.lost_trades, debt.lost_quotes, debt.lost_quarantined)
        events += [payload for _, payload in told]
    sums, provider = counted(events)
    for name in ("trades", "quotes"):
        count: Counter[str] = Counter()
        for (_, symbol), one in sums.items():
            count[symbol] += getattr(one, name)
        published = Counter(dict.fromkeys(count, 0))
        for record in rig.rows("tick"):
            published[record["symbol"].decode()] += int(record[name])
        if debt is not None:
            for row, symbol in enumerate(debt.snapshot.table["symbol"]):
                published[symbol.decode()] += int(getattr(debt, f"lost_{name}")[row])
        # What an earlier feed lost is told in its counts, which name it.
        for event in counted_once(events, debt.snapshot.session_id if debt else "", int(snapshot.head["n"])):
            published[event["symbol"]] += event.get(f"lost_{name}", 0)
        assert +published == +count
    chunks = rig.rows("quarantine")
    whole = int(((chunks["part"] == 0) & (chunks["whole"] == 1)).sum())
    assert provider["quarantined"] == whole + provider["lost_quarantined"]


def counted_once(events: list[dict[str, object]], session_id: str, n: int) -> list[dict[str, object]]:
    """The counts per symbol of buckets before that one, each once, the one that tells of losses before the one that does not."""
    found: dict[object, dict[str, object]] = {}
    for event in events:
        if event["symbol"] is not None and (event["of_session"], event["n"]) != (session_id, n):
            key = (event["of_session"], event["n"], event["symbol"])
            if key not in found or "lost_trades" in event:
                found[key] = event
    return list(found.values())


class Driver:
    """Feeds a recorder with what a venue, a network and a clock may do, by a seed."""

    def __init__(self, rig: Rig, seed: int) -> None:
        self.rig, self.rng, self.trades = rig, random.Random(seed), KisTrades()
        self.context = rig.context()
        self.connected = True

    def step(self) -> None:
        rng, rig, recorder = self.rng, self.rig, self.rig.recorder
        what = rng.choices(
            ["trade", "garbage", "control", "wait", "minute", "process", "drop", "back", "broken"], [30, 4, 2, 14, 2, 8, 3, 2, 2]
        )[0]
        if what == "trade":
            self.message(self.some_trades())
        elif what == "garbage":
            self.message(rng.choice([b"", b"\xff", b"0|H0STCNT0|001|x", b"0|H0XXCNT0|001|" + b"a^" * 3000, b"{not json"]))
        elif what == "control":
            self.message(KIS_ACK)
        elif what == "wait":
            recorder.turn(rig.clock.forward(rng.choice([1, MS, 200 * MS, 499 * MS, 500 * MS, 2 * NS])))
        elif what == "minute":
            recorder.turn(rig.clock.forward(61 * NS))
        elif what == "process":
            recorder.process()
        elif what == "back":
            rig.clock.wall -= rng.choice([MS, 900 * MS, 1500 * MS, 61 * NS]) + rng.randrange(MS)  # no two instants are the same
            recorder.turn(rig.clock.wall)
        elif what == "broken":
            recorder.broken(b"\x8b" * 40, "opcode", 40, bytes(32))
        elif self.connected:
            self.connected = False
            recorder.disconnected(rng.sample(range(1, 4), rng.randint(1, 3)), rig.clock.wall)
            recorder.open_gap(self, rig.clock.wall - rng.randrange(MS))
        else:
            self.connected = True
            recorder.close_gap(self, rig.clock.wall, "ws_disconnect")

    def message(self, payload: bytes) -> None:
        self.rig.clock.forward(self.rng.choice([0, 1, MS]))
        self.rig.recorder.message(payload, self.rig.clock.wall, self.context)

    def some_trades(self) -> bytes:
        rng, records = self.rng, []
        for _ in range(rng.randint(1, 5)):
            record = self.trades.record(rng.choice([*self.rig.symbols, "999999"]), skip=rng.choice([0, 0, 0, 3]))
            fault = rng.random() < 0.1
            records.append(record.replace("^123400^", "^12x400^") if fault else record)
            if rng.random() < 0.1:
                records.append(record)
        return self.trades.message(*records)

    def life(self, steps: int) -> None:
        """Begin a feed and let it live for so long."""
        self.connected = True
        self.rig.feed()
        for _ in range(steps):
            self.step()


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32), st.booleans())
def test_at_every_store_published_and_lost_is_what_was_counted(seed: int, tape: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        rig = Rig(Path(folder), tape=tape)
        driver = Driver(rig, seed)
        with every_store(rig, lambda: check_identities(rig)):
            driver.life(30)
        rig.recorder.stop()
        check_identities(rig)
        assert debt_of(read_intake(rig.board["intake"]), rig.shm, rig.data, rig.clock.wall) is None
        rig.close()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.booleans(), st.lists(st.tuples(st.integers(1, 150), st.booleans()), max_size=6))
def test_killed_again_and_again_the_whole_ledger_closes(seed: int, tape: bool, deaths: list[tuple[int, bool]]) -> None:
    """Each life ends at the nth store, also in the middle of a takeover; with a new session or with the old one."""
    with tempfile.TemporaryDirectory() as folder:
        rig = Rig(Path(folder), tape=tape)
        driver = Driver(rig, seed)
        for stores, new_session in deaths:
            left = stores

            def die() -> None:
                nonlocal left
                left -= 1
                if left == 0:
                    raise Killed

            with every_store(rig, die), pytest.raises(Killed):
                driver.life(10**6)
            rig.clock.forward(driver.rng.choice([MS, NS, 61 * NS]))
            if new_session:
                rig.begin_session()
        driver.life(20)
        rig.recorder.stop()
        check_ledger(rig)
        rig.close()


def check_ledger(rig: Rig) -> None:
    """P1 from what the rings hold, per minute and symbol, as an auditor must find it."""
    sums, provider = counted(rig.events("counts"))
    records: dict[tuple[int, str], Counter[str]] = {}
    for record in rig.rows("tick"):
        of_minute = records.setdefault((minute_of(int(record["ts_ns"])), record["symbol"].decode()), Counter())
        of_minute["trades"] += int(record["trades"])
        of_minute["quotes"] += int(record["quotes"])
    found = {key: one["trades"] + one["quotes"] + sums[key].lost for key, one in records.items() if +one}
    expected = {key: one.trades + one.quotes for key, one in sums.items() if one.trades + one.quotes > 0}
    only_lost = {key: one.lost for key, one in sums.items() if key not in found and one.lost}
    assert found | only_lost == expected
    assert restart_lost(rig.gaps("restart")) == sum(one.lost for one in sums.values())
    chunks = rig.rows("quarantine")
    assert provider["quarantined"] == int(((chunks["part"] == 0) & (chunks["whole"] == 1)).sum()) + provider["lost_quarantined"]


# --- cases


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.close()


def test_a_first_feed_owes_nothing(rig: Rig) -> None:
    assert rig.feed() is None
    assert rig.kinds() == []


def test_after_a_clean_stop_nothing_is_owed(rig: Rig) -> None:
    rig.feed()
    rig.recorder.message(KisTrades().trade("005930"), rig.clock.wall, rig.context())
    rig.recorder.stop()
    before = int(read_intake(rig.board["intake"]).head["n"])  # type: ignore[union-attr]
    assert rig.feed() is None
    assert rig.gaps() == []
    rig.recorder.stop()
    assert int(read_intake(rig.board["intake"]).head["n"]) > before, "bucket numbers are never used again"  # type: ignore[union-attr]


def test_what_was_folded_and_not_published_is_lost_and_named(rig: Rig) -> None:
    rig.feed()
    trades, context = KisTrades(), rig.context()
    for symbol in ("005930", "005930", "000660"):
        rig.recorder.message(trades.trade(symbol), rig.clock.wall, context)
    rig.recorder.process()
    died_in, last_ns = rig.session_id, rig.clock.wall
    rig.clock.forward(3 * NS)
    debt = rig.feed()
    assert debt is not None
    assert debt.lost_trades.tolist() == [0, 2, 1, 0]
    assert not debt.lost_quotes.any()
    assert rig.gaps() == [], "the gap is told with the first record, not before: only then is its end known"
    rig.recorder.message(trades.trade("005930"), rig.clock.wall, context)
    rig.recorder.turn(rig.clock.forward(NS))
    (gap,) = rig.gaps()
    (record,) = rig.rows("tick")
    assert (gap["reason"], gap["lost"], gap["of_session"], gap["sink"], gap["symbol"]) == ("restart", 3, died_in, None, None)
    assert (gap["gap_start_ns"], gap["gap_end_ns"]) == (last_ns, int(record["ts_ns"]))
    told = {event["symbol"]: event for event in rig.events("counts")}
    assert (told["005930"]["lost_trades"], told["000660"]["lost_trades"], told["005930"]["trades"]) == (2, 1, 2)
    assert {event["of_session"] for event in told.values()} == {died_in}
    assert told[None]["messages"] == 3


def test_what_was_published_before_the_death_is_not_lost(rig: Rig) -> None:
    """Killed between the publication of the records and the next commit: the ring tells."""
    rig.feed()
    trades, context = KisTrades(), rig.context()
    rig.recorder.message(trades.trade("005930"), rig.clock.wall, context)
    rig.recorder.process()
    rig.recorder.tick.publish(rig.recorder.slots.emit(T0 + NS, 0, rig.recorder.slots.pending()))
    debt = rig.feed()
    assert debt is not None
    assert debt.restart.lost == 0
    assert debt.tick_seq == 1


def test_a_gap_that_was_open_at_the_death_is_where_the_restart_gap_begins(rig: Rig) -> None:
    rig.feed()
    start = rig.clock.wall - 7 * NS
    rig.recorder.open_gap("link", start)
    rig.clock.forward(NS)
    debt = rig.feed()
    assert debt is not None
    assert debt.restart.start_ns == start


def test_a_gap_owed_twice_keeps_its_start_and_adds_what_was_lost(rig: Rig) -> None:
    trades, context = KisTrades(), rig.context()
    rig.feed()
    rig.recorder.message(trades.trade("005930"), rig.clock.wall, context)
    rig.recorder.process()
    first = rig.clock.wall
    rig.clock.forward(5 * NS)
    rig.feed()
    rig.recorder.message(trades.trade("000660"), rig.clock.wall, context)
    rig.recorder.process()
    rig.clock.forward(5 * NS)
    rig.feed()
    rig.recorder.stop()
    (gap,) = rig.gaps("restart")
    assert (gap["gap_start_ns"], gap["lost"]) == (first, 2)
    check_ledger(rig)


def test_told_and_killed_before_it_is_noted_the_gap_is_told_again_longer(rig: Rig) -> None:
    trades, context = KisTrades(), rig.context()
    rig.feed()
    rig.recorder.message(trades.trade("005930"), rig.clock.wall, context)
    rig.recorder.process()
    rig.feed()
    rig.recorder.message(trades.trade("005930"), rig.clock.wall, context)

    def die_after_the_gap() -> None:
        if rig.gaps("restart"):
            raise Killed

    with every_store(rig, die_after_the_gap), pytest.raises(Killed):
        rig.recorder.turn(rig.clock.forward(NS))
    rig.clock.forward(NS)
    rig.feed()
    rig.recorder.stop()
    one, other = rig.gaps("restart")
    assert one["gap_start_ns"] == other["gap_start_ns"]
    assert one["gap_end_ns"] < other["gap_end_ns"]
    assert (one["lost"], other["lost"]) == (1, 2), "the longest counts, and it counts everything"
    check_ledger(rig)


def test_with_its_ring_gone_all_that_was_pending_counts_as_lost(rig: Rig) -> None:
    rig.feed()
    rig.recorder.message(KisTrades().trade("005930"), rig.clock.wall, rig.context())
    rig.recorder.process()
    rig.rings["tick"].path.unlink()
    debt = debt_of(read_intake(rig.board["intake"]), rig.shm, rig.data, rig.clock.wall)
    assert debt is not None
    assert debt.restart.lost == 1


def test_a_ring_that_is_not_ours_any_more_is_not_read(rig: Rig) -> None:
    rig.feed()
    rig.recorder.message(KisTrades().trade("005930"), rig.clock.wall, rig.context())
    rig.recorder.process()
    rig.rings["tick"].path.write_bytes(b"x" * 10_000)
    debt = debt_of(read_intake(rig.board["intake"]), rig.shm, rig.data, rig.clock.wall)
    assert debt is not None
    assert debt.restart.lost == 1


def test_quarantined_messages_that_no_chunk_tells_of_are_lost(rig: Rig) -> None:
    rig.feed()
    rig.recorder.message(b"garbage", rig.clock.wall, rig.context())
    rig.recorder.open_gap("link", rig.clock.wall)
    with every_store(rig, lambda: None):
        pass
    counts = read_intake(rig.board["intake"])
    assert counts is not None
    debt = debt_of(counts, rig.shm, rig.data, rig.clock.wall)
    assert debt is not None
    assert int(counts.head["quarantined"]) == 1
    assert debt.lost_quarantined + len(rig.rows("quarantine")) == 1
