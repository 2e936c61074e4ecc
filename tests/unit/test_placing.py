"""Slots that move while a feed runs: who goes where, what the venue is told, and that every count is of the symbol that it names."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from feed_rig import KIS_ACK, T0, VENUES, KisTrades, Rig, counted, upbit_book, upbit_trade
from hypothesis import given, settings
from hypothesis import strategies as st
from test_takeover import Driver, Killed, check_identities, check_ledger, every_store

from obs.clock import MINUTE_NS, NS
from obs.ledger import broken_identity
from obs.ledger import read as read_intake
from obs.log import Log
from obs.market.calendar import Calendar
from obs.providers.base import Context
from obs.record.schema import HAS_QUOTE, INPUT, INPUT_TICKER, QUALITIES
from obs.roles.link import Link, Linking
from obs.roles.placing import MOST_ROWS, Placing, Share, plan, rows_for
from obs.roles.recorder import Recorder, Rings
from obs.roles.subscriptions import Pair, Standing, Subscriptions
from obs.sample import Slots

MS = 10**6
S = 10**9
CONFIRM, RETRY = 5 * S, 60 * S
A, B, C, D = "005930", "000660", "035720", "105560"
TRADE_A, TRADE_B, TRADE_C, TRADE_D = (("trade", symbol) for symbol in (A, B, C, D))


# --- who goes where


@pytest.mark.parametrize(
    ("wanted", "shares", "leaving", "releases", "allocations"),
    [
        ("", [("", 2)], "", "", ""),
        ("ab", [("", 2)], "", "", "0a 0b"),
        ("abc", [("", 2)], "", "", "0a 0b"),  # the first in order
        ("ab", [("ab", 2)], "", "", ""),
        ("ba", [("ab", 2)], "", "", ""),  # the order alone moves nothing
        ("ac", [("ab", 2)], "", "0b", "0c"),
        ("", [("ab", 2)], "", "0a 0b", ""),
        ("abc", [("", 2), ("", 2)], "", "", "0a 1b 0c"),  # to the link with most places free
        ("abcd", [("a", 2), ("b", 3)], "", "", "1c 0d"),
        ("cb", [("b", 1), ("c", 1)], "", "", ""),  # each keeps its link
        ("abcde", [("", 2), ("", 2)], "", "", "0a 1b 0c 1d"),
        ("ab", [("", 2)], "a", "", "0b"),  # who leaves waits until it has left
        ("abc", [("ab", 2)], "c", "", ""),
        ("ab", [("a", 1), ("", 1)], "b", "", ""),
        ("abc", [("abc", 2)], "", "0c", ""),  # a limit was learned: the last in order goes
        ("cab", [("abc", 2)], "", "0b", ""),
        ("abc", [("abc", 2), ("", 1)], "", "0c", ""),  # to the other, when it has left
        ("abc", [("ab", 2), ("", 1)], "", "", "1c"),
        ("ab", [("ab", 0)], "", "0a 0b", ""),
        ("ab", [], "", "", ""),
    ],
)
def test_plan(wanted: str, shares: list[tuple[str, int]], leaving: str, releases: str, allocations: str) -> None:
    moves = plan(list(wanted), [Share(list(holds), room) for holds, room in shares], set(leaving))
    assert [f"{link}{symbol}" for link, symbol in moves.releases] == releases.split()
    assert [f"{link}{symbol}" for link, symbol in moves.allocations] == allocations.split()


@pytest.mark.parametrize(("places", "rows"), [(1, 2), (41, 82), (1000, 2000), (2000, MOST_ROWS), (4000, 4000)])
def test_rows_for(places: int, rows: int) -> None:
    assert rows_for(places) == rows


# --- what the venue is told

Step = Callable[[Subscriptions], object]


def of(*pairs: Pair, confirmed: bool = True) -> Subscriptions:
    made = Subscriptions()
    made.want(pairs)
    for pair in pairs if confirmed else ():
        made.asked([pair], 1)
        made.confirmed(pair)
    return made


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ([], False),  # it was never asked for
        ([lambda some: some.asked([TRADE_A], 1)], True),
        ([lambda some: some.confirmed(TRADE_A)], True),
        ([lambda some: some.asked([TRADE_A], 1), lambda some: some.refused(TRADE_A, "x", True)], False),
        ([*[lambda some: some.asked([TRADE_A], 1)] * 3, lambda some: some.overdue(99 * S, CONFIRM)], True),  # who knows
        ([lambda some: some.confirmed(TRADE_A), lambda some: some.reconnected()], False),
    ],
)
def test_a_venue_is_told_of_what_it_may_send(steps: list[Step], told: bool) -> None:
    some = of(TRADE_A, confirmed=False)
    for step in steps:
        step(some)
    assert some.release(A) == told
    assert not some.pairs
    assert some.held() == told
    assert (some.next_leave(2 * S, CONFIRM, RETRY) == TRADE_A) == told


def test_who_leaves_holds_its_place_until_the_answer() -> None:
    some = of(TRADE_A, TRADE_B)
    some.want([TRADE_C])
    assert some.release(A)
    assert some.next_ask(2 * S, CONFIRM, RETRY, limit=2) is None
    some.told_to_leave(TRADE_A, 2 * S)
    assert some.next_leave(3 * S, CONFIRM, RETRY) is None
    assert not some.confirmed(TRADE_A), "an answer to the registration, on its way before"
    assert not some.left(TRADE_B)
    assert some.left(TRADE_A)
    assert not some.left(TRADE_A), "an answer twice"
    assert some.next_ask(3 * S, CONFIRM, RETRY, limit=2) == TRADE_C


def test_an_unanswered_release_is_told_again_then_rarely() -> None:
    some, now, told = of(TRADE_A), 0, []
    some.release(A)
    while now < 200 * S:
        now += S
        if some.next_leave(now, CONFIRM, RETRY) is not None:
            some.told_to_leave(TRADE_A, now)
            told.append(now // S)
    assert told == [1, 7, 13, 74, 135, 196]


def test_a_symbol_has_left_with_its_last_channel() -> None:
    some = of(TRADE_A, ("book", A))
    assert some.release(A)
    some.left(TRADE_A)
    assert some.leaves(A)
    some.left(("book", A))
    assert not some.leaves(A)


@pytest.mark.parametrize(
    ("limit", "learned", "asked"), [(None, None, True), (3, None, True), (2, None, False), (3, 2, False), (2, 3, False)]
)
def test_no_more_is_asked_for_than_fits(limit: int | None, learned: int | None, asked: bool) -> None:
    some = of(TRADE_A, TRADE_B)
    some.want([TRADE_C])
    some.learned = learned
    assert some.next_ask(2 * S, CONFIRM, RETRY, limit) == (TRADE_C if asked else None)
    some.asked([TRADE_C], 2 * S)
    assert some.next_ask(9 * S, CONFIRM, RETRY, limit) == TRADE_C, "it holds a place, so it may be asked for again"


def test_a_refused_pair_needs_a_place_again() -> None:
    some = of(TRADE_A, TRADE_B)
    some.refused(TRADE_B, "busy", True)
    assert some.next_ask(99 * S, CONFIRM, RETRY, limit=1) is None
    assert some.next_ask(99 * S, CONFIRM, RETRY, limit=2) == TRADE_B
    assert some.next_ask(99 * S, CONFIRM, RETRY, limit=None) == TRADE_B


def test_a_limit_is_learned_raised_and_forgotten() -> None:
    some = of(TRADE_A, TRADE_B)
    some.release(B)
    some.want([TRADE_C, TRADE_D])
    some.asked([TRADE_C, TRADE_D], S)
    some.refused(TRADE_C, "limit", True)
    some.limit(S)
    assert some.learned == 2, "one confirmed, one that has not left; the one that is not answered does not count"
    some.confirmed(TRADE_D)
    assert some.learned == 3
    some.forget_limit(2 * S, RETRY)
    assert some.learned == 3
    some.forget_limit(S + RETRY + 1, RETRY)
    assert some.learned is None
    some.limit(2 * S)
    some.reconnected()
    assert (some.learned, some.held()) == (None, 0)


def request(some: Subscriptions, now: int) -> None:
    """A request that replaces the whole set."""
    some.requests += 1
    some.asked(some.of(Standing.WANTED), now)
    some.left_out(now)


def test_where_requests_replace_a_first_frame_proves_who_has_left() -> None:
    some = Subscriptions()
    some.want([TRADE_A, TRADE_B])
    request(some, S)
    some.confirmed(TRADE_A)
    some.release(A)
    assert some.untold()
    some.confirmed(TRADE_B)
    assert some.proved_gone(TRADE_B) == [], "asked for before"
    some.want([TRADE_C])
    request(some, 2 * S)
    assert not some.untold()
    some.release(B)
    some.want([TRADE_D])
    request(some, 3 * S)
    some.confirmed(TRADE_C)
    assert some.proved_gone(TRADE_C) == [TRADE_A], "the venue may still be at the second request"
    some.confirmed(TRADE_D)
    assert some.proved_gone(TRADE_D) == [TRADE_A, TRADE_B]


def test_where_requests_replace_silence_proves_it_too() -> None:
    some = of(TRADE_A, TRADE_B)
    some.release(A)
    assert some.silent_leavers(99 * S, CONFIRM) == [], "the venue does not know yet"
    request(some, 10 * S)
    some.leaving[TRADE_A].heard_ns = 11 * S
    assert some.silent_leavers(16 * S, CONFIRM) == []
    assert some.silent_leavers(16 * S + 1, CONFIRM) == [TRADE_A]
    some.leaving[TRADE_A].heard_ns = 15 * S + 1
    assert some.silent_leavers(99 * S, CONFIRM) == []
    assert some.untold(), "it goes on: it must be left out once more"


# --- the recorder: rows that change their symbols


class MovingRig(Rig):
    """A rig with as many rows as symbols, and as many spare; nothing is in them at first."""

    def make_recorder(self) -> Recorder:
        slots = Slots([""] * 6, self.market, VENUES[self.venue][1])
        rings = self.rings
        made = Rings(rings["tick"], rings["event"], rings["quarantine"])
        self.recorder = Recorder(self.provider, slots, made, self.board, self.clock, self.venue, self.tape)
        return self.recorder


class Moving:
    """A feed whose rows we move, and one connection of it."""

    def __init__(self, folder: Path, tape: bool = False) -> None:
        self.rig = MovingRig(folder, tape=tape)
        self.rig.clock.wall = T0 + 1
        self.rig.feed()
        self.recorder, self.clock, self.trades = self.rig.recorder, self.rig.clock, KisTrades()
        self.rows: dict[str, int] = {}
        self.context = self.rig.provider.context([])

    def move(self, **rows: int | None) -> None:
        """Assign symbols to rows, a… = 1…; None releases and frees it."""
        for letter, row in rows.items():
            symbol = {"a": A, "b": B, "c": C, "d": D}[letter]
            if row is None:
                self.recorder.release(self.rows[symbol])
                self.recorder.free(self.rows.pop(symbol))
            else:
                self.recorder.assign(row, symbol)
                self.rows[symbol] = row
        self.connect()

    def connect(self) -> None:
        places = {row: symbol for symbol, row in self.rows.items()}
        self.context = self.rig.provider.context([places.get(row, "") for row in range(1, 7)])

    def trade(self, symbol: str, **how: int) -> None:
        self.recorder.message(self.trades.trade(symbol, **how), self.clock.wall, self.context)

    def at(self, ns: int) -> None:
        self.clock.forward(T0 + ns - self.clock.wall)
        self.recorder.turn(self.clock.wall)

    def records(self) -> list[tuple[float, str, int]]:
        return [((int(row["ts_ns"]) - T0) / MS, row["symbol"].decode(), int(row["trades"])) for row in self.rig.rows("tick")]

    def sums(self) -> dict[tuple[int, str], tuple[int, dict[str, int]]]:
        """(minute, symbol) -> folded, ignored"""
        sums, _ = counted(self.rig.events("counts"))
        return {((minute - T0) // MINUTE_NS, symbol): (one.trades, dict(one.ignored)) for (minute, symbol), one in sums.items()}


@pytest.fixture(params=["sample", "tape"])
def moving(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Moving]:
    made = Moving(tmp_path, request.param == "tape")
    yield made
    snapshot = read_intake(made.rig.board["intake"])
    assert snapshot is not None
    assert broken_identity(snapshot) == ""
    made.rig.close()


def test_what_is_pending_is_published_at_a_release_and_the_rest_is_ignored(moving: Moving) -> None:
    moving.move(a=1, b=2)
    moving.clock.forward(100 * MS)
    moving.trade(A)
    moving.trade(B)
    moving.clock.forward(50 * MS)
    moving.recorder.release(1)
    published = [(symbol, trades) for _, symbol, trades in moving.records()]
    assert (A, 1) in published
    moving.trade(A)
    moving.trade(A)
    moving.at(501 * MS)
    moving.recorder.free(1)
    assert [record[1:] for record in moving.records() if record[1] == A] == [(A, 1)]
    moving.at(MINUTE_NS + 1)
    assert moving.sums() == {(0, A): (1, {"unsubscribed": 2}), (0, B): (1, {})}


def test_messages_held_when_a_row_moves_are_of_the_symbol_it_had(moving: Moving) -> None:
    moving.move(a=1)
    moving.trade(A)  # not decoded yet
    moving.move(a=None)
    moving.move(b=1 if moving.recorder.clean(1) else 2)
    moving.trade(B)
    moving.at(MINUTE_NS + 1)
    assert moving.sums() == {(0, A): (1, {}), (0, B): (1, {})}


def test_a_row_that_counted_something_gets_no_other_symbol_before_its_bucket_is_closed(moving: Moving) -> None:
    moving.move(a=1, b=2)
    moving.clock.forward(100 * MS)
    moving.trade(A)
    moving.trade(B)
    moving.move(a=None)
    assert not moving.recorder.clean(1)
    with pytest.raises(AssertionError):
        moving.recorder.assign(1, C)
    before = len(moving.rig.events("counts"))
    moving.recorder.clean_up()
    if not moving.recorder.tape:
        assert not moving.recorder.clean(1), "an interval lies across"
        moving.at(501 * MS)
    assert moving.recorder.clean(1)
    told = moving.rig.events("counts")[before:]
    assert [(event["symbol"], event["trades"]) for event in told[:2]] == [(A, 1), (B, 1)]
    assert all(int(row["trades"]) == 1 for row in moving.rig.rows("tick")[:2]), "counts follow their records"
    moving.move(c=1)
    moving.trade(C)
    moving.trade(B)
    moving.at(MINUTE_NS + 1)
    assert moving.sums() == {(0, A): (1, {}), (0, B): (2, {}), (0, C): (1, {})}
    assert len({event["n"] for event in moving.rig.events("counts") if event["minute_ns"] == T0}) == 2


def test_a_symbol_that_comes_back_in_its_minute_gets_its_row_back(moving: Moving) -> None:
    moving.move(a=1)
    moving.trade(A)
    moving.move(a=None)
    moving.move(a=1)
    moving.trade(A)
    moving.at(MINUTE_NS + 1)
    assert moving.sums() == {(0, A): (2, {})}
    assert len({event["n"] for event in moving.rig.events("counts")}) == 1


def test_completeness_and_guards_begin_anew(moving: Moving) -> None:
    """The volume, the price and the times of the symbol before, or of the same one before it went, prove nothing."""
    moving.move(a=1)
    for _ in range(25):
        moving.trade(A, price=71_500)
    moving.at(MINUTE_NS + 1)
    moving.move(a=None)
    moving.move(b=1)
    moving.trade(B, price=500_000, size=900, skip=10**6)
    moving.at(MINUTE_NS + 501 * MS)
    moving.move(b=None)
    moving.trades.acc[A] += 5000  # what we did not watch
    moving.move(a=2)
    moving.trade(A, price=90_000)
    moving.at(MINUTE_NS + 1001 * MS)
    assert moving.rig.gaps("venue_count") == []
    newest = {row["symbol"].decode(): row for row in moving.rig.rows("tick")}
    assert newest[A]["last_price"] == 90_000
    for row in moving.rig.rows("tick"):
        assert not int(row["flags"]) & 0b1110, "compared with what was before"
        assert QUALITIES[row["quality"]] != "gap"
    moving.trade(A, skip=7)
    moving.at(MINUTE_NS + 1501 * MS)
    (step,) = moving.rig.gaps("venue_count")
    assert (step["symbol"], step["acc_volume_after"] - step["acc_volume_before"]) == (A, 12)


def test_a_step_that_waits_is_told_of_the_symbol_it_was_seen_for(moving: Moving) -> None:
    moving.move(a=1)
    moving.trade(A)
    moving.recorder.open_gap("a link", moving.clock.wall)
    moving.trade(A, skip=3)
    moving.at(MINUTE_NS + 1)
    moving.move(a=None)
    moving.move(b=1)
    moving.recorder.close_gap("a link", moving.clock.wall, "ws_disconnect")
    (step,) = moving.rig.gaps("venue_count")
    assert step["symbol"] == A


def test_a_slot_that_comes_late_in_a_minute_is_not_thinly_covered(tmp_path: Path) -> None:
    moving = Moving(tmp_path)
    moving.move(a=1)
    for half in range(4 * 120 + 1):
        moving.at(half * 500 * MS + 1)
        moving.trade(A)
        if half == 60:
            moving.move(b=2)
        if half > 120 + 80:
            moving.trade(B)  # for the first time, late in the second minute
        if half == 3 * 120 + 60:
            moving.move(b=None, c=3)
    assert moving.rig.events("warning") == [], "not of one that goes, comes, or has not been heard of"
    moving.rig.close()


def test_a_new_row_tells_nothing_of_the_symbol_before() -> None:
    slots = Slots(["", ""], "crypto", "kr")
    inputs = np.zeros(1, INPUT)
    inputs["row"], inputs["price"], inputs["size"], inputs["acc_volume"], inputs["flags"], inputs["phase"] = 1, 10.0, 1.0, 5.0, HAS_QUOTE, 3
    inputs["bid_price"] = inputs["bid_size"] = inputs["ask_price"] = inputs["ask_size"] = inputs["base_price"] = 10.0
    inputs["event_ns"], inputs["venue_seq"], inputs["side"] = 7, 9, 1
    slots.assign(1, b"A")
    slots.fold(inputs)
    slots.release(np.array([1]))
    assert not len(slots.occupied())
    slots.assign(1, b"B")
    inputs["kind"], inputs["venue_seq"], inputs["phase"], inputs["side"], inputs["event_ns"] = INPUT_TICKER, -1, 0, 0, 8
    for name in ("size", "acc_volume", "bid_price", "ask_price", "base_price", "bid_size", "ask_size"):
        inputs[name] = np.nan
    inputs["flags"] = 0
    slots.fold(inputs)
    (record,) = slots.emit(10, 0, np.array([1]))
    assert (record["symbol"], record["trades"], record["quotes"], record["event_ns"]) == (b"B", 0, 1, 8)
    for name in ("bid_price", "ask_price", "bid_size", "ask_size", "acc_volume", "open", "high", "low"):
        assert np.isnan(record[name]), name
    assert (record["volume"], record["venue_seq"], record["phase"], record["side"], record["last_price"]) == (0, -1, 0, 0, 10.0)


# --- the level


@pytest.mark.parametrize(
    ("before", "after", "points"),
    [
        (0, 0, [1000, 1500, 2000, 2500]),
        (0, 1, [1000, 2000, 3000, 4000]),
        (0, 2, [1000, 2000, 4000, 6000]),
        (1, 0, [1000, 1500, 2000, 2500]),
        (2, 0, [1000, 1500, 2000, 2500]),  # not at 2000, where its interval would have ended
        (2, 1, [1000, 2000, 3000, 4000]),
    ],
)
def test_a_new_level_holds_within_a_second(tmp_path: Path, before: int, after: int, points: list[int]) -> None:
    """Told at 700 ms; the records that follow are stamped with it."""
    moving = Moving(tmp_path)
    moving.rig.board["level"].write_json({"level": before})
    moving.move(a=1)
    moving.recorder.obey_level()
    for tick in range(1, 700):
        moving.at(tick * 10 * MS)
        if tick == 70:
            moving.rig.board["level"].write_json({"level": after})
        if tick % 20 == 0:
            moving.recorder.obey_level()
        moving.trade(A)
    rows = [row for row in moving.rig.rows("tick") if int(row["ts_ns"]) > T0 + 700 * MS]
    assert [(int(row["ts_ns"]) - T0) // MS for row in rows[:4]] == points
    assert {int(row["mitigation_level"]) for row in rows[1:]} == {after}
    assert sum(int(row["trades"]) for row in moving.rig.rows("tick")) == int(rows[-1]["ts_ns"] - T0) // (10 * MS)
    moving.rig.close()


def test_a_new_level_stamps_the_tape_from_its_moment_on(tmp_path: Path) -> None:
    moving = Moving(tmp_path, tape=True)
    moving.move(a=1)
    moving.trade(A)  # held
    moving.rig.board["level"].write_json({"level": 1})
    moving.recorder.obey_level()
    moving.trade(A)
    moving.recorder.process()
    assert moving.rig.rows("tick")["mitigation_level"].tolist() == [0, 1]
    moving.rig.close()


# --- a feed that is killed at any store while its rows move


class MovingDriver(Driver):
    """Moves rows between all else that may happen."""

    SYMBOLS = ("005930", "000660", "Q500001", "035720", "105560")

    def life(self, steps: int) -> None:
        self.held: dict[str, int] = {}
        self.leaving: dict[str, int] = {}
        super().life(steps)

    def step(self) -> None:
        if self.rng.random() < 0.25 or not self.held:
            self.move()
        else:
            super().step()

    def move(self) -> None:
        rng, recorder = self.rng, self.rig.recorder
        what = rng.choice(["assign", "assign", "release", "free", "clean_up"])
        if what == "release" and self.held:
            symbol = rng.choice(sorted(self.held))
            self.leaving[symbol] = self.held[symbol]
            recorder.release(self.held.pop(symbol))
        elif what == "free" and self.leaving:
            recorder.free(self.leaving.pop(rng.choice(sorted(self.leaving))))
        elif what == "clean_up":
            recorder.clean_up()
        elif what == "assign" and len(self.held) < 3:
            self.assign(rng.choice(self.SYMBOLS))
        rows = {row: symbol for symbol, row in (*self.held.items(), *self.leaving.items())}
        self.context: Context = self.rig.provider.context([rows.get(row, "") for row in range(1, 7)])

    def assign(self, symbol: str) -> None:
        recorder, names = self.rig.recorder, self.rig.recorder.slots.symbol
        taken = {*self.held.values(), *self.leaving.values()}
        if symbol in self.held or symbol in self.leaving:
            return
        same = [row for row in range(1, 7) if names[row] == symbol.encode()]
        free = same or [row for row in range(1, 7) if row not in taken and recorder.clean(row)]
        if free:
            recorder.assign(free[0], symbol)
            self.held[symbol] = free[0]

    def message(self, payload: bytes) -> None:
        super().message(KIS_ACK if not self.held and not self.leaving else payload)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32), st.booleans())
def test_at_every_store_published_and_lost_is_what_was_counted(seed: int, tape: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        rig = MovingRig(Path(folder), tape=tape)
        driver = MovingDriver(rig, seed)
        with every_store(rig, lambda: check_identities(rig)):
            driver.life(40)
        rig.recorder.stop()
        check_identities(rig)
        rig.close()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.booleans(), st.lists(st.integers(1, 150), max_size=6))
def test_killed_again_and_again_the_whole_ledger_closes(seed: int, tape: bool, deaths: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        rig = MovingRig(Path(folder), tape=tape)
        driver = MovingDriver(rig, seed)
        for stores in deaths:
            left = stores

            def die() -> None:
                nonlocal left
                left -= 1
                if left == 0:
                    raise Killed

            with every_store(rig, die), pytest.raises(Killed):
                driver.life(10**6)
            rig.clock.forward(driver.rng.choice([MS, NS, 61 * NS]))
        driver.life(20)
        rig.recorder.stop()
        check_ledger(rig)
        rig.close()


# --- links and their gaps, without a socket


def linked(rig: Rig, log: Log) -> Linking:
    return Linking(rig.provider, rig.recorder, Calendar, rig.board, rig.clock, log, "always", random.Random(1), rig.recorder.process)


class Links:
    """Links of a feed that are opened and closed by hand."""

    def __init__(self, folder: Path, slots: Sequence[int]) -> None:
        self.rig = MovingRig(folder)
        self.rig.feed()
        self.clock = self.rig.clock
        self.descriptor = os.open(os.devnull, os.O_WRONLY)
        self.log = Log("feed", "kis", descriptor=self.descriptor)
        linking = linked(self.rig, self.log)
        self.links = [Link(linking, None, {}, most) for most in slots]
        self.placing = Placing(self.rig.provider, self.rig.recorder, self.links, self.log)
        self.version = 0

    def want(self, *symbols: str) -> None:
        self.version += 1
        self.placing.want(symbols, self.version)

    def open(self, place: int = 0) -> None:
        """Connect, ask for all, and have it confirmed."""
        link = self.links[place]
        link._context = link._make_context()
        link.subscriptions.reconnected()
        link.on_open()
        self.answer(place)

    def answer(self, place: int = 0) -> None:
        """Let the venue answer all that there is to say."""
        link = self.links[place]
        while (said := link._next_message("key")) is not None:
            sent = str(said.payload)
            symbol = next(one for one in (A, B, C, D) if one in sent)
            code, good = ("OPSP0001", "UNSUBSCRIBE SUCCESS") if '"tr_type":"2"' in sent else ("OPSP0000", "SUBSCRIBE SUCCESS")
            body = f'{{"rt_cd":"0","msg_cd":"{code}","msg1":"{good}"}}'
            answer = f'{{"header":{{"tr_id":"H0STCNT0","tr_key":"{symbol}","encrypt":"N"}},"body":{body}}}'
            link.on_message(answer.encode(), self.clock.wall)
        link._settle()

    def close(self, place: int = 0) -> None:
        self.links[place].on_close("peer_closed", 1006)

    def gaps(self) -> list[tuple[str | None, int, int]]:
        """(symbol, start, end) in seconds"""
        return [(gap["symbol"], (gap["gap_start_ns"] - T0) // S, (gap["gap_end_ns"] - T0) // S) for gap in self.rig.gaps()]

    def at(self, second: int) -> None:
        self.clock.forward(T0 + second * S - self.clock.wall)
        self.rig.recorder.turn(self.clock.wall)


@pytest.fixture
def links(tmp_path: Path) -> Iterator[Callable[..., Links]]:
    made: list[Links] = []

    def begin(*slots: int) -> Links:
        made.append(Links(tmp_path, slots))
        return made[-1]

    yield begin
    for one in made:
        one.log.close()
        os.close(one.descriptor)
        one.rig.close()


def events_of(some: Links) -> list[tuple[str, str]]:
    rows = [event for event in some.rig.rows("event") if event["symbol"]]
    kinds = some.rig.events("slot")
    assert len(rows) == len(kinds)
    return [(event["what"], row["symbol"].decode()) for row, event in zip(rows, kinds, strict=True)]


def test_a_swap_is_told_when_the_venue_has_confirmed_it(links: Callable[..., Links]) -> None:
    some = links(2)
    some.want(A, B)
    some.open()
    assert events_of(some) == [("allocate_confirmed", A), ("allocate_confirmed", B)]
    some.at(3)
    some.want(A, C)
    assert some.links[0].standings() == {A: "confirmed", B: "leaving", C: "wanted"}
    assert len(events_of(some)) == 2
    some.at(5)
    some.answer()
    assert events_of(some)[2:] == [("release_confirmed", B), ("allocate_confirmed", C)]
    assert [event["seconds"] for event in some.rig.events("slot")] == [0.0, 0.0, 2.0, 2.0]
    assert some.links[0].standings() == {A: "confirmed", C: "confirmed"}
    assert some.gaps() == []


def test_who_is_wanted_again_before_it_has_left_waits(links: Callable[..., Links]) -> None:
    some = links(2)
    some.want(A, B)
    some.open()
    some.want(A)
    some.want(A, B)
    assert some.links[0].standings() == {A: "confirmed", B: "leaving"}
    some.answer()
    assert some.links[0].standings() == {A: "confirmed", B: "confirmed"}


def test_rows_are_given_back(links: Callable[..., Links]) -> None:
    """A thousand swaps, some cut short by the end of the connection: three rows are in use, three are free."""
    some, rng = links(2, 1), random.Random(44)
    some.want(A, B, C)
    for place in (0, 1):
        some.open(place)
    for turn in range(1000):
        some.at(turn + 1)
        some.want(*rng.sample([A, B, C, D], 3))
        for place in (0, 1):
            if rng.random() < 0.2:
                some.close(place)
                some.open(place)
            elif rng.random() < 0.7:
                some.answer(place)
    wanted = [A, B, D]
    some.want(*wanted)
    for _ in range(4):
        some.answer(0)
        some.answer(1)
        some.at(1002)
    recorder = some.rig.recorder
    held = {symbol: row for link in some.links for symbol, row in link.rows.items()}
    assert sorted(held) == sorted(wanted)
    assert sorted([*held.values(), *some.placing._free]) == [1, 2, 3, 4, 5, 6]
    assert {recorder.slots.symbol[row].decode() for row in held.values()} == set(wanted)
    assert recorder.watched.sum() == 3
    assert not recorder._left.any()
    assert all(link.subscriptions.held() == len(link.rows) for link in some.links)
    names = [name for name in recorder.slots.symbol.tolist() if name]
    assert len(names) == len(set(names))


def test_an_outage_is_lost_by_those_who_had_their_slots(links: Callable[..., Links]) -> None:
    some = links(3)
    some.want(A, B)
    some.open()
    some.at(10)
    some.links[0]._last_ns = some.clock.wall
    some.close()
    some.at(20)
    some.want(A, C)  # B goes, C comes, in the middle of it
    assert some.gaps() == [(B, 10, 20)]
    some.at(30)
    some.open()
    assert some.gaps()[1:] == [(A, 10, 30), (C, 20, 30)]


def test_a_slot_that_came_while_connected_has_no_gap_before_it(links: Callable[..., Links]) -> None:
    some = links(3)
    some.want(A)
    some.open()
    some.at(10)
    some.want(A, B)
    some.answer()
    some.at(20)
    some.want(B)
    some.answer()
    assert some.gaps() == []
    some.links[0]._last_ns = some.clock.wall
    some.close()
    some.at(30)
    some.open()
    assert some.gaps() == [(None, 20, 30)], "all that is watched"


def test_an_outage_without_moves_is_of_all_or_of_the_links_own(links: Callable[..., Links]) -> None:
    some = links(2, 2)
    some.want(A, B, C)  # A and C on the first
    some.open(0)
    some.open(1)
    some.at(10)
    some.links[0]._last_ns = some.clock.wall
    some.close(0)
    some.at(20)
    some.open(0)
    assert some.gaps() == [(A, 10, 20), (C, 10, 20)]


def test_symbols_that_are_none_are_left_out(links: Callable[..., Links]) -> None:
    some = links(3)
    some.want("no symbol", A, A, B)
    assert some.links[0].standings() == {A: "wanted", B: "wanted"}


def test_a_learned_limit_moves_the_rest_elsewhere(links: Callable[..., Links]) -> None:
    some = links(2, 2)
    some.want(A, B, C)
    some.open(0)
    some.open(1)
    assert [sorted(link.rows) for link in some.links] == [sorted([A, C]), [B]]
    some.links[0].subscriptions.learned, some.links[0].subscriptions.learned_ns = 1, some.clock.mono
    some.placing.arrange()
    assert [link.room for link in some.links] == [1, 2]
    some.answer(0)
    some.answer(1)
    assert [sorted(link.rows) for link in some.links] == [[A], sorted([B, C])]


def test_who_fails_and_comes_later_is_confirmed_by_its_first_frame(tmp_path: Path) -> None:
    """Where nothing is acknowledged, also long after all others: it is no longer told as refused."""
    rig = Rig(tmp_path, "upbit")
    rig.feed()
    descriptor = os.open(os.devnull, os.O_WRONLY)
    log = Log("feed", "upbit", descriptor=descriptor)
    rows = {symbol: row for row, symbol in enumerate(rig.symbols, 1)}
    link = Link(linked(rig, log), None, rows)
    number = 0

    def hear(*symbols: str) -> None:
        nonlocal number
        for symbol in symbols:
            for payload in (upbit_trade(symbol, number := number + 1), upbit_book(symbol, 99.0, 101.0)):
                link.on_message(payload, rig.clock.wall)

    first, second, late = rig.symbols
    link._context = link._make_context()
    link.on_open()
    requests = 0
    for _ in range(40):
        requests += link._next_message("ticket") is not None
        hear(first, second)
        link._settle()
        rig.clock.forward(S // 2)
    assert requests == 3
    assert link.standings() == {first: "confirmed", second: "confirmed", late: "failed"}
    while link._next_message("ticket") is None:
        rig.clock.forward(S // 2)
    link._next_message("ticket")
    hear(late)
    assert link.standings() == dict.fromkeys(rows, "confirmed")
    assert link._next_message("ticket") is None
    assert not link._listening, "a message costs no more than it must"
    log.close()
    os.close(descriptor)
    rig.close()
