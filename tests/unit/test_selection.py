"""The selection of one provider over synthetic sweeps: a real board, a real ring of events, a clock that tests turn."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import numpy as np
import pytest
from feed_rig import FakeClock

from obs.clock import MINUTE_NS, NS
from obs.config import load
from obs.log import Log
from obs.market.calendar import Calendar, standing_session
from obs.market.pins import Pins, change_pins, pins_path, read_pins
from obs.market.tracks import in_track_b, track_b
from obs.market.universe import Universe
from obs.providers.base import ProviderOptions
from obs.providers.registry import make_provider
from obs.record.events import event_payload
from obs.record.instruments import Instrument
from obs.record.quotes import unknown_quotes
from obs.record.schema import EVENT, EVENT_KINDS, TICK
from obs.ring import Producer, create_ring, fence
from obs.roles.selection import BARRED_NS, MOST_PINS, REFUSED_NS, TELL_AGAIN_NS, Selection, Tail, keep_selecting
from obs.roles.watched import FORGET_NS
from obs.select.triggers import TRIGGERS
from obs.shm import Board

KST = timedelta(hours=9)
DAY = 20260714  # a Tuesday
SWEEP_S = 600


def kst(text: str, day: int = DAY) -> int:
    """UTC ns of a KST clock time."""
    moment = datetime.strptime(f"{day} {text}", "%Y%m%d %H:%M").replace(tzinfo=UTC) - KST
    return int(moment.timestamp()) * NS


def codes(count: int) -> list[str]:
    return [f"{number:06d}" for number in range(1, count + 1)]


def universe_of(count: int, day: int = DAY, market: str = "kr_stocks") -> Universe:
    """The largest by traded value first, as a universe is."""
    names = codes(count) if market == "kr_stocks" else [f"KRW-C{number:04d}" for number in range(1, count + 1)]
    listed = tuple(Instrument(name, name, 10_000.0, (count - place) * 1e9) for place, name in enumerate(names))
    return Universe(market, day, "test", 0, listed, count, {})


@dataclass
class Market:
    """Accumulating volumes of a universe; every figure is known."""

    count: int
    per_s: float = 10.0

    def __post_init__(self) -> None:
        self.volume = np.full(self.count, 1000.0)
        self.price = np.full(self.count, 10_000.0)

    def quotes(self, names: list[str], seconds: float = SWEEP_S, surge: dict[int, float] | None = None) -> np.ndarray:
        """A sweep `seconds` after the one before; `surge`: row -> how much faster it traded."""
        rate = np.full(self.count, self.per_s)
        for row, factor in (surge or {}).items():
            rate[row] *= factor
        self.volume += rate * seconds
        rows = unknown_quotes(self.count)
        rows["symbol"] = np.array(names, "S20")
        rows["price"] = self.price
        rows["acc_volume"], rows["acc_value"] = self.volume, self.volume * self.price
        rows["day_open"] = rows["day_high"] = rows["day_low"] = 10_000.0
        return rows


class Desk:
    """The shared memory of a poll, and the selections that run in it one after another."""

    def __init__(self, folder: Path, count: int = 100, slots: int = 4, venue: str = "kis", hours: str = "calendar", keys: int = 1) -> None:
        self.data = folder / "data"
        (self.data / "state").mkdir(parents=True)
        names = ", ".join(f'"KIS{place}"' for place in range(keys))
        credentials = f"credentials = [{names}]\n" if venue == "kis" else ""
        toml = folder / "obs.toml"
        toml.write_text(f'data_dir = "data"\n[providers.{venue}]\nslots = {slots}\nhours = "{hours}"\n{credentials}')
        config = load(toml, environ={}, cwd=folder).provider(venue)
        assert config is not None
        self.config = config
        options = ProviderOptions(venue, config.market, config.venue, config.channels, slots, "http://127.0.0.1:1", "ws://127.0.0.1:1")
        self.provider = make_provider(venue, options)
        self.clock = FakeClock(kst("08:00"))
        self.board = Board.create(Board.path(folder, self.data, venue), fence)
        self.ring = create_ring(folder / "ring", EVENT, 1 << 14, "sess_20260714_000000_kis_a1b2", "poll_event", 0)
        self.log = Log("poll", venue)
        self.universe: Universe | None = universe_of(count, DAY, config.market)
        self.market = Market(count)
        self.read = 0
        self.selection: Selection = self.start()

    def start(self) -> Selection:
        """Begin the life of a poll."""
        self.selection = Selection(
            self.provider, self.config, self.board, Producer(self.ring), self.data, self.universe, self.clock, self.log
        )
        return self.selection

    def at(self, text: str, day: int = DAY) -> int:
        return self.clock.forward(kst(text, day) - self.clock.wall)

    def sweep(self, surge: dict[int, float] | None = None, quotes: np.ndarray | None = None) -> None:
        """The next sweep, ten minutes on."""
        started = self.clock.wall
        now = self.clock.forward(SWEEP_S * NS)
        assert self.universe is not None
        if quotes is None:
            quotes = self.market.quotes(self.universe.symbols, surge=surge)
        self.selection.swept(quotes, started, now)

    def minute(self) -> None:
        self.selection.evaluate(self.clock.forward(MINUTE_NS))

    def warm(self, text: str = "09:30") -> None:
        """Sweep from half an hour before `text` on, so that averages stand by then."""
        begin = kst(text) - 2400 * NS
        self.clock.forward(begin - self.clock.wall)
        for _ in range(4):
            self.sweep()
        self.news()

    @property
    def wanted(self) -> dict[str, Any]:
        value: dict[str, Any] = self.board["wanted"].read_json() or {}
        return value

    @property
    def slots(self) -> list[str]:
        return list(self.wanted["symbols"])

    def news(self, kind: str = "") -> list[dict[str, Any]]:
        """The events since the last call."""
        tail, found = Tail(self.ring), []
        tail._next = self.read
        while len(rows := tail.take()):
            found += [
                event_payload(row) | {"symbol": row["symbol"].decode(), "kind": EVENT_KINDS[row["kind"]]} for row in rows
            ]
        self.read = self.ring.published
        return [event for event in found if kind in ("", event["kind"])]

    def feed_says(self, standing: str = "confirmed", **more: Any) -> None:
        slots = dict.fromkeys(self.slots, standing) | more.pop("slots", {})
        self.board["actual"].write_json({"slots": slots, "version": self.wanted["version"], "ns": self.clock.wall} | more)

    def pin(self, *symbols: str, excluded: tuple[str, ...] = ()) -> None:
        change_pins(pins_path(self.data, self.config.name), lambda _: Pins(symbols, excluded))
        self.selection.take_pins(self.selection.read_pins())

    def saved(self) -> None:
        """Wait until the state is on disk."""
        while self.selection.watched.saving is not None:
            self.selection.watched.saving.join(30)
            assert not self.selection.watched.saving.is_alive()
            self.selection.watched.saving = None
            self.selection.watched.save_on()

    def ticks(self, symbol: str, seconds: int, *, trades: int = 0, volume: float = 0.0, price: float = 10_000.0) -> None:
        """Records of one symbol at 2 Hz from now on; the clock moves with them. `trades`, `volume`: of each."""
        for _ in range(seconds * 2):
            now = self.clock.forward(NS // 2)
            row = np.zeros(1, TICK)
            row["ts_ns"], row["symbol"], row["last_price"] = now, symbol.encode(), price
            row["high"] = row["low"] = price if trades else np.nan
            row["volume"], row["trades"] = volume, trades
            self.selection.live(row)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.saved()
    made.ring.close()
    made.board.close()


def told(events: list[dict[str, Any]], *keys: str) -> list[tuple[Any, ...]]:
    return [tuple(event.get(key) for key in keys) for event in events]


# --- bootstrap, hours


def test_before_the_first_sweep_the_largest_have_the_slots(desk: Desk) -> None:
    assert desk.wanted == {}
    desk.selection.evaluate(desk.clock.wall)
    assert desk.slots == codes(4)
    assert (desk.wanted["version"], desk.wanted["day"]) == (1, DAY)
    assert told(desk.news("slot"), "what", "symbol", "rank") == [("bootstrap", symbol, place) for place, symbol in enumerate(codes(4), 1)]
    desk.minute()
    assert desk.wanted["version"] == 1, "nothing has changed, so nothing is said"
    assert desk.news() == []


@pytest.mark.parametrize(("keys", "places"), [(1, 4), (3, 12)])
def test_each_app_key_brings_its_slots(tmp_path: Path, keys: int, places: int) -> None:
    desk = Desk(tmp_path, keys=keys)
    desk.selection.evaluate(desk.clock.wall)
    assert len(desk.slots) == places


@pytest.mark.parametrize(
    ("venue", "regular", "begin", "end"),
    [
        ("krx", None, "09:30", "15:00"), ("nxt", None, "09:30", "15:00"), ("unified", None, "09:30", "15:00"),
        ("krx", ("10:00", "16:30"), "10:30", "16:00"),  # exam day
        ("krx", ("10:00", "15:30"), "10:30", "15:00"),  # first trading day of the year
        ("nxt", ("10:00", "16:30"), "10:30", "16:00"),
        ("krx", ("09:00", "12:30"), "09:30", "12:00"),  # a half day
    ],
)  # fmt: skip
def test_hours_of_track_b(venue: str, regular: tuple[str, str] | None, begin: str, end: str) -> None:
    date = datetime(2026, 7, 14).date()
    hours = regular and tuple(datetime.strptime(text, "%H:%M").time() for text in regular)
    session = standing_session("kr_stocks", venue, date, hours)  # type: ignore[arg-type]
    assert session is not None
    assert track_b(session, venue) == (kst(begin), kst(end))
    calendar = Calendar({("kr_stocks", venue): [session]}, DAY - 1, DAY + 1)
    for at, inside in ((kst(begin) - 1, False), (kst(begin), True), (kst(end) - 1, True), (kst(end), False)):
        assert in_track_b(calendar, "kr_stocks", venue, at) is inside
    assert not in_track_b(calendar, "kr_stocks", venue, kst(begin) + 24 * 3600 * NS), "a day without a session"
    assert in_track_b(calendar, "crypto", "kr", kst("03:00"))


@pytest.mark.parametrize(("hours", "at", "chosen"), [("calendar", "09:10", False), ("calendar", "09:30", True), ("always", "09:10", True)])
def test_triggers_choose_in_the_hours_of_track_b_alone(tmp_path: Path, hours: str, at: str, chosen: bool) -> None:
    desk = Desk(tmp_path, hours=hours)
    desk.selection.evaluate(desk.clock.wall)
    desk.clock.forward(kst(at) - 5 * SWEEP_S * NS - desk.clock.wall)
    for _ in range(4):
        desk.sweep()
    desk.news()
    desk.sweep({50: 10.0})  # ends at `at`
    assert desk.clock.wall == kst(at)
    assert (codes(100)[50] in desk.slots) is chosen
    losers = desk.news("overflow")
    assert losers == [], "a winner is no loser, and out of hours nobody is scored"


def test_after_the_hours_the_holders_stay(desk: Desk) -> None:
    desk.selection.evaluate(desk.clock.wall)
    desk.warm("14:50")
    desk.pin(excluded=("000090",))
    desk.news()
    desk.sweep({50: 10.0})
    assert desk.clock.wall == kst("15:00")
    assert desk.slots == codes(4)
    assert desk.news("overflow") == []


# --- triggers and slots


@pytest.mark.parametrize(("factor", "gets"), [(2.9, False), (3.0, True), (10.0, True)])
def test_a_surge_has_a_slot_within_one_evaluation(desk: Desk, factor: float, gets: bool) -> None:
    desk.selection.evaluate(desk.clock.wall)
    desk.warm()
    version = desk.wanted["version"]
    desk.sweep({50: factor})
    surger = codes(100)[50]
    assert (surger in desk.slots) is gets
    if gets:
        assert desk.wanted["version"] == version + 1
        assert desk.wanted["why"][surger][1:] == ["swap", pytest.approx(10 / 35 * min(factor / 6, 1)), "volume_surge"]
        (event,) = desk.news("slot")
        assert (event["what"], event["symbol"], event["out"], event["rank"]) == ("swap", surger, codes(4)[3], 1)
        assert desk.slots == [*codes(3), surger], "it has the place of the one that it replaced"


def test_more_surges_than_slots_and_all_others_in_the_ledger(desk: Desk) -> None:
    desk.selection.evaluate(desk.clock.wall)
    desk.warm()
    surges = {row: 3.0 + 0.1 * place for place, row in enumerate(range(20, 30))}  # the later, the stronger; 3.0 to 3.9
    desk.sweep(surges)
    best = [codes(100)[row] for row in sorted(surges, key=lambda row: -surges[row])]
    assert sorted(desk.slots) == sorted(best[:4])
    losers = desk.news("overflow")
    assert told(losers, "symbol", "rank", "cutoff_rank", "decision_reason", "mitigation_level") == [
        (symbol, rank, 4, "slot_full", 0) for rank, symbol in enumerate(best, 1) if rank > 4
    ]
    assert [loser["candidate_score"] for loser in losers] == pytest.approx(
        [10 / 35 * surges[row] / 6 for row in sorted(surges, key=lambda row: -surges[row])[4:]], abs=1e-6
    )


@pytest.mark.parametrize(("factor", "gets"), [(4.0, False), (4.79, False), (4.81, True)])
def test_a_challenger_must_be_a_fifth_better(desk: Desk, factor: float, gets: bool) -> None:
    desk.selection.evaluate(desk.clock.wall)
    desk.warm()
    desk.sweep(dict.fromkeys(range(20, 24), 4.0))
    assert sorted(desk.slots) == codes(100)[20:24]
    quotes = desk.market.quotes(codes(100), seconds=200, surge={60: factor})  # the triggers of the holders still hold
    desk.selection.swept(quotes, desk.clock.wall, desk.clock.forward(200 * NS))
    assert (codes(100)[60] in desk.slots) is gets


def test_a_new_holder_is_safe_for_its_minimum_time(desk: Desk) -> None:
    desk.selection.evaluate(desk.clock.wall)
    desk.warm()
    desk.sweep(dict.fromkeys(range(20, 24), 3.0))
    assert sorted(desk.slots) == codes(100)[20:24]
    quotes = desk.market.quotes(codes(100), seconds=60, surge={60: 50.0})
    desk.selection.swept(quotes, desk.clock.wall, desk.clock.forward(60 * NS))  # another sweep, too soon
    assert codes(100)[60] not in desk.slots
    assert told(desk.news("overflow"), "symbol", "rank", "decision_reason")[0] == (codes(100)[60], 1, "slot_full")
    for _ in range(2):
        desk.minute()
    assert codes(100)[60] in desk.slots, "after three minutes the holders may go"


def test_velocity_and_price_of_live_records(desk: Desk) -> None:
    desk.selection.evaluate(desk.clock.wall)
    desk.warm()
    desk.ticks("000002", 60, trades=6, volume=5.0)  # 12 trades a second at the volume of every day
    desk.selection.evaluate(desk.clock.wall)
    (row,) = np.flatnonzero(desk.selection.watched.state.strength[TRIGGERS.index("trade_velocity")])
    assert row == 1
    assert desk.selection.watched.state.strength[1, 1] == pytest.approx(0.6, rel=0.02)
    assert desk.selection.watched.state.strength[0, 1] == 0.0, "10 a second is its average"
    desk.ticks("000003", 60, trades=1, volume=30.0, price=10_600.0)  # 60 a second, 6 % up
    desk.selection.evaluate(desk.clock.wall)
    assert desk.selection.watched.state.strength[0, 2] == pytest.approx(1.0)
    assert desk.selection.watched.state.strength[3, 2] == pytest.approx(1.0)
    fired = desk.clock.wall
    desk.selection.swept(desk.market.quotes(codes(100)), fired, desk.clock.forward(20 * NS))  # with a price that is older than the live one
    assert desk.selection.watched.state.price[2] == 10_600.0
    assert desk.selection.watched.state.fired_ns[3, 2] == fired


def test_a_burst_of_some_seconds_is_no_rate(desk: Desk) -> None:
    desk.selection.evaluate(desk.clock.wall)
    desk.warm()
    desk.ticks("000002", 5, trades=100, volume=500.0)
    desk.selection.evaluate(desk.clock.wall)
    assert not desk.selection.watched.state.strength.any()
    desk.ticks("000002", 55)
    desk.selection.evaluate(desk.clock.wall)
    assert desk.selection.watched.state.strength[:2, 1] == pytest.approx([1.0, 1000 / 60 / 20], rel=0.02)


def test_a_pinned_stranger_costs_nothing_that_is_known(desk: Desk) -> None:
    desk.selection.evaluate(desk.clock.wall)
    desk.warm()
    desk.pin("Q500001")
    desk.sweep({60: 9.0})
    assert {"Q500001", codes(100)[60]} <= set(desk.slots)


def test_a_sweep_does_not_count_again_what_live_records_have_shown(desk: Desk) -> None:
    """Its ten minutes of volume over the one minute since the last live record would be a surge of ten."""
    desk.selection.evaluate(desk.clock.wall)
    desk.warm()
    for _ in range(9):
        desk.ticks("000001", 60, trades=1, volume=5.0)
        desk.selection.evaluate(desk.clock.wall)
    desk.ticks("000001", 60, trades=1, volume=5.0)
    desk.selection.swept(desk.market.quotes(codes(100)), desk.clock.wall, desk.clock.wall)
    assert not desk.selection.watched.state.strength.any()
    # and one that has lost its slot five minutes ago is judged by the rate, not by the sum
    desk.clock.forward(SWEEP_S * NS)
    desk.selection.swept(desk.market.quotes(codes(100)), desk.clock.wall, desk.clock.wall)
    assert not desk.selection.watched.state.strength.any()


@pytest.mark.parametrize("seen", ["live", "by the sweep"])
def test_a_high_of_ten_minutes_ago_is_none_of_the_last_minute(desk: Desk, seen: str) -> None:
    desk.selection.evaluate(desk.clock.wall)
    desk.clock.forward(kst("08:50") - desk.clock.wall)
    rng = np.random.default_rng(1)
    for _ in range(5):  # every symbol moves a little
        desk.market.price = 10_000.0 + rng.uniform(-20.0, 20.0, 100)
        desk.sweep()
    quotes = desk.market.quotes(codes(100))
    quotes["day_high"][1] = 10_100.0
    if seen == "live":
        for _ in range(6):
            desk.ticks("000002", 60, trades=1, volume=5.0, price=float(desk.market.price[1]))
            desk.selection.evaluate(desk.clock.wall)
        desk.clock.forward(4 * MINUTE_NS)  # it has lost its slot
    else:
        desk.clock.forward(SWEEP_S * NS)
    desk.selection.swept(quotes, desk.clock.wall, desk.clock.wall)
    assert bool(desk.selection.watched.state.strength[TRIGGERS.index("volatility_spike"), 1]) is (seen == "by the sweep")


# --- bad input


def test_prices_that_are_missing_or_nought_and_volumes_that_fall(desk: Desk) -> None:
    desk.selection.evaluate(desk.clock.wall)
    desk.warm()
    for value in (np.nan, 0.0, -1.0):
        quotes = desk.market.quotes(codes(100))
        quotes["price"][50], quotes["acc_volume"][51] = value, value
        desk.sweep(quotes=quotes)
    quotes = desk.market.quotes(codes(100))
    quotes["acc_volume"][52] = 5.0
    desk.sweep(quotes=quotes)
    desk.market.volume[53] = 5.0  # for good: it counts anew
    for _ in range(3):
        desk.sweep()
    assert not desk.selection.watched.state.strength.any(), "one sweep more counts the volume of the time since it was last known"
    assert desk.slots == codes(4)
    desk.sweep(dict.fromkeys(range(50, 54), 9.0))
    assert sorted(desk.slots) == codes(100)[50:54]


def test_a_sweep_that_failed_as_a_whole_changes_nothing(desk: Desk) -> None:
    desk.selection.evaluate(desk.clock.wall)
    desk.warm()
    before, state, swept_ns = desk.wanted, desk.selection.watched.state, desk.selection.watched.swept_ns
    desk.sweep(quotes=unknown_quotes(100))
    assert desk.wanted == before
    assert desk.selection.watched.swept_ns == swept_ns
    np.testing.assert_equal(desk.selection.watched.state._asdict(), state._asdict())


def test_a_gap_of_hours_is_no_interval(desk: Desk) -> None:
    desk.selection.evaluate(desk.clock.wall)
    desk.warm()
    desk.clock.forward(FORGET_NS)
    desk.market.price[50] *= 1.2
    desk.sweep()
    assert not desk.selection.watched.state.strength.any()


def test_a_symbol_that_vanishes_at_noon_loses_its_slot_to_the_next_and_nothing_else(desk: Desk) -> None:
    desk.selection.evaluate(desk.clock.wall)
    desk.warm("12:00")
    desk.sweep({50: 9.0})
    assert codes(100)[50] in desk.slots
    quotes = desk.market.quotes(codes(100), surge=dict.fromkeys((60, 61, 62, 63), 9.0))
    quotes[50] = unknown_quotes(1)[0]  # not even its name
    desk.sweep(quotes=quotes)
    assert sorted(desk.slots) == codes(100)[60:64]


def test_a_clock_that_steps_back_an_hour_keeps_triggers_and_holders_as_they_are(desk: Desk) -> None:
    desk.selection.evaluate(desk.clock.wall)
    desk.warm("12:00")
    desk.sweep({50: 9.0})
    assert codes(100)[50] in desk.slots
    desk.clock.wall -= 3600 * NS
    desk.selection.evaluate(desk.clock.wall)
    for _ in range(6):
        desk.minute()
    score = desk.selection.watched.state.fired_ns[0, 50]
    assert desk.clock.wall - 400 * NS < score < desk.clock.wall - 300 * NS, "the trigger has expired, as without the step"
    desk.sweep({60: 9.0})
    assert codes(100)[60] in desk.slots


def test_quotes_of_yesterdays_universe_find_their_symbols(desk: Desk) -> None:
    desk.selection.evaluate(desk.clock.wall)
    desk.warm()
    assert desk.universe is not None
    quotes = desk.market.quotes(codes(100), surge={50: 9.0})
    desk.selection.renew(Universe("kr_stocks", DAY, "test", 1, desk.universe.instruments[1:], 99, {}))
    desk.sweep(quotes=quotes)
    assert codes(100)[50] in desk.slots
    assert codes(100)[0] not in desk.slots, "it has left the universe"


# --- days, restarts


def test_a_new_day_begins_with_the_bootstrap_list(desk: Desk) -> None:
    desk.selection.evaluate(desk.clock.wall)
    desk.warm()
    desk.sweep({50: 9.0})
    assert desk.slots == [*codes(3), codes(100)[50]]
    since = desk.wanted["why"]["000002"][0]
    desk.news()
    desk.universe = universe_of(100, DAY + 1)
    desk.universe = Universe("kr_stocks", DAY + 1, "test", 0, desk.universe.instruments[1:], 100, {})
    desk.selection.renew(desk.universe)
    desk.at("08:00", DAY + 1)
    desk.selection.evaluate(desk.clock.wall)
    assert sorted(desk.slots) == codes(5)[1:]
    assert desk.wanted["day"] == DAY + 1
    assert desk.wanted["why"]["000002"][0] == since, "who stays, stays"
    assert sorted(told(desk.news("slot"), "what", "symbol", "reason")) == [
        ("bootstrap", "000004", None), ("bootstrap", "000005", None), ("release", "000001", "left_universe"),
        ("release", "000051", "new_day"),
    ]  # fmt: skip
    assert not desk.selection.watched.state.seen_ns.any(), "a jump over night is no spike"


def test_a_new_day_with_the_same_slots_is_no_new_version(desk: Desk) -> None:
    desk.selection.evaluate(desk.clock.wall)
    before = desk.wanted
    desk.selection.renew(universe_of(100, DAY + 1))
    desk.at("08:30", DAY + 1)
    desk.minute()
    assert desk.wanted == before | {"day": DAY + 1, "ns": desk.clock.wall}
    assert desk.wanted["version"] == 1


def test_a_market_without_days_keeps_slots_and_averages(tmp_path: Path) -> None:
    desk = Desk(tmp_path, venue="upbit")
    assert desk.universe is not None
    names = desk.universe.symbols
    desk.selection.evaluate(desk.clock.wall)
    for _ in range(4):
        desk.sweep()
    desk.sweep({50: 9.0})
    slots = desk.slots
    assert names[50] in slots
    desk.universe = universe_of(100, DAY + 1, "crypto")
    desk.selection.renew(desk.universe)
    desk.minute()
    assert desk.slots == slots
    desk.market.volume[:] = 0  # the venue counts its day anew
    desk.sweep()
    desk.sweep({51: 9.0})
    assert names[51] in desk.slots
    desk.saved()


@pytest.mark.parametrize("kept", ["state", "board alone", "damaged state"])
def test_a_poll_that_starts_again_goes_on_where_it_was(desk: Desk, kept: str) -> None:
    desk.selection.evaluate(desk.clock.wall)
    desk.warm()
    desk.sweep({50: 9.0})
    desk.pin("000002", excluded=("000030",))
    desk.minute()
    desk.sweep()
    desk.saved()
    before, state = desk.wanted, desk.selection.watched.state
    desk.news()
    path = desk.data / "state" / "kis.select.npy"
    assert path.stat().st_mode & 0o777 == 0o640
    if kept == "board alone":
        path.unlink()
    elif kept == "damaged state":
        path.write_bytes(path.read_bytes()[:5000])
    desk.start()
    desk.minute()
    assert desk.wanted == before, "nobody has lost a slot, and no new version is said"
    events = [event for event in desk.news() if event["kind"] != "overflow"]
    assert told(events, "what") == [("state_unreadable",)] * (kept == "damaged state")
    if kept == "state":
        np.testing.assert_equal(desk.selection.watched.state._asdict(), state._asdict())
        desk.sweep({60: 9.0})
        assert codes(100)[60] in desk.slots, "the averages are those of before"
        assert desk.wanted["version"] == before["version"] + 1


def test_a_start_on_another_day_or_behind_a_list_of_symbols_is_a_bootstrap(desk: Desk) -> None:
    desk.board["wanted"].write_json({"symbols": ["000090"], "ns": 0})
    desk.start()
    desk.minute()
    assert desk.slots == codes(4)
    desk.warm()
    desk.sweep({50: 9.0})
    desk.saved()
    desk.universe = universe_of(100, DAY + 1)
    desk.start()
    assert not desk.selection.watched.state.seen_ns.any(), "averages begin with the day"
    desk.at("08:00", DAY + 1)
    desk.minute()
    assert desk.slots == codes(4)


def test_without_a_universe_the_slots_on_the_board_stay(desk: Desk) -> None:
    desk.selection.evaluate(desk.clock.wall)
    before, desk.universe = desk.wanted, None
    desk.start()
    desk.minute()
    desk.selection.swept(desk.market.quotes(codes(100)), desk.clock.wall, desk.clock.wall)
    assert desk.wanted == before
    desk.selection.renew(universe_of(100))
    desk.minute()
    assert desk.slots == before["symbols"]


# --- operator, venue


def test_pins_hold_and_exclusions_bar(desk: Desk) -> None:
    desk.selection.evaluate(desk.clock.wall)
    desk.news()
    desk.pin("000070", "Q500001", excluded=("000001",))
    desk.selection.evaluate(desk.clock.wall)
    assert sorted(desk.slots) == ["000002", "000003", "000070", "Q500001"], "Q500001 is not even in the universe"
    assert desk.wanted["why"]["000070"][3] == "manual"
    events = told(desk.news("slot"), "what", "symbol", "out", "reason")
    assert events[:3] == [("pin", "000070", None, None), ("pin", "Q500001", None, None), ("exclude", "000001", None, None)]
    assert ("release", "000001", None, "excluded") in events
    desk.warm()
    desk.sweep(dict.fromkeys((0, *range(20, 30)), 9.0))
    assert {"000070", "Q500001"} <= set(desk.slots)
    assert told(desk.news("overflow"), "symbol", "decision_reason")[0] == ("000001", "manual_exclude")
    desk.pin()
    assert [event["what"] for event in desk.news("slot")] == ["unpin", "unpin", "include"]
    desk.selection.evaluate(desk.clock.wall)
    assert "Q500001" not in desk.slots, "unpinned, it is of no universe"
    assert "000001" in desk.slots


def test_a_file_of_pins_that_does_not_read_is_told_once_and_changes_nothing(desk: Desk) -> None:
    desk.pin("000070")
    desk.selection.evaluate(desk.clock.wall)
    desk.news()
    path = pins_path(desk.data, "kis")
    for text in ("{", "[1]", '{"pinned": [1]}', '{"pinned": 7}', "\x00"):
        path.write_text(text)
        for _ in range(2):
            desk.selection.take_pins(desk.selection.read_pins())
    assert {event["what"] for event in desk.news("warning")} == {"pins_unreadable"}
    assert desk.selection.pins == Pins(("000070",))
    path.write_text(json.dumps({"pinned": ["nonsense!", "000071"]}))
    desk.selection.take_pins(desk.selection.read_pins())
    assert desk.selection.pins == Pins(("000071",))
    assert [event["what"] for event in desk.news("warning")] == ["pin nonsense!"]


def test_a_list_of_pins_without_end_is_cut_and_told(desk: Desk) -> None:
    desk.pin("000050", excluded=tuple(f"{number:06d}" for number in range(1000, 9000)))
    desk.selection.evaluate(desk.clock.wall)
    assert len(desk.selection.pins.excluded) == MOST_PINS
    assert "000050" in desk.slots
    assert [event["what"] for event in desk.news("warning")] == ["pins_cut"]


def test_more_pins_than_room_are_told(desk: Desk) -> None:
    desk.pin(*codes(100)[50:56])
    for _ in range(3):
        desk.minute()
    assert sorted(desk.slots) == codes(100)[50:54]
    assert [event["what"] for event in desk.news("warning")] == ["too_many_pins"]


@pytest.mark.parametrize(("said", "places"), [(3, 3), (9, 4), (0, 4), (None, 4), ("x", 4)])
def test_the_feed_says_how_many_the_venue_takes(desk: Desk, said: Any, places: int) -> None:
    desk.selection.evaluate(desk.clock.wall)
    desk.feed_says(capacity=said)
    desk.minute()
    assert desk.slots == codes(places)
    releases = [(event["symbol"], event["reason"]) for event in desk.news("slot") if event["what"] == "release"]
    assert releases == [("000004", "capacity")] * (4 - places)


def test_a_symbol_that_the_venue_refuses_makes_room_and_comes_again_later(desk: Desk) -> None:
    desk.selection.evaluate(desk.clock.wall)
    refused = {"slots": {"000003": "refused"}}
    for _ in range(10):
        desk.feed_says(**refused, version=0)  # of slots before these
        desk.minute()
    assert "000003" in desk.slots
    for _ in range(REFUSED_NS // MINUTE_NS):
        desk.feed_says(**refused)
        desk.minute()
        assert "000003" in desk.slots
    desk.minute()
    assert desk.slots == ["000001", "000002", "000004", "000005"]
    assert told(desk.news("warning"), "what", "symbol") == [("slot_refused", "000003")]
    desk.feed_says()
    desk.pin("000003")
    desk.minute()
    assert "000003" not in desk.slots
    desk.selection.evaluate(desk.clock.forward(BARRED_NS))
    assert "000003" in desk.slots


def test_a_venue_that_refuses_everything_is_not_the_fault_of_the_symbols(desk: Desk) -> None:
    desk.selection.evaluate(desk.clock.wall)
    for _ in range(10):
        desk.feed_says("refused")
        desk.minute()
    assert desk.slots == codes(4)


# --- the ledger


def test_a_loser_is_written_again_when_it_has_changed_and_after_ten_minutes(tmp_path: Path) -> None:
    desk = Desk(tmp_path, slots=1)
    desk.pin("000001")
    desk.selection.evaluate(desk.clock.wall)
    desk.warm()
    desk.pin("000001", excluded=("000007",))
    desk.minute()
    assert told(desk.news("overflow"), "symbol", "decision_reason") == [("000007", "manual_exclude")]
    written = 0
    for _ in range(TELL_AGAIN_NS // MINUTE_NS):
        desk.minute()
        written += len(desk.news("overflow"))
    assert written == 1
    desk.sweep({20: 9.0, 21: 9.0})
    assert [event["symbol"] for event in desk.news("overflow")] == ["000021", "000022", "000007"], "each sweep tells of all"
    desk.minute()
    assert desk.news("overflow") == []
    quotes = desk.market.quotes(codes(100), seconds=60)
    desk.selection.swept(quotes, desk.clock.wall, desk.clock.wall)  # soon, and nobody's place has changed
    assert [event["symbol"] for event in desk.news("overflow")] == ["000021", "000022", "000007"]
    for _ in range(4):
        desk.minute()
    assert told(desk.news("overflow"), "symbol", "rank") == [("000007", 2)], "the others have expired, and its rank with them"
    desk.saved()


def test_nobody_is_lost_over_a_day_of_random_surges_and_no_slot_leaks(tmp_path: Path) -> None:
    desk = Desk(tmp_path, count=300, slots=41, hours="always")
    rng = Random(7)
    desk.selection.evaluate(desk.clock.wall)
    for _ in range(4):
        desk.sweep()
    desk.news()
    held, swaps = set(desk.slots), 0
    for _ in range(60):
        surge = {rng.randrange(300): rng.uniform(3.0, 30.0) for _ in range(120)}
        desk.sweep(surge)
        desk.market.volume[:] = 1000.0 + desk.market.volume % 1000.0  # a venue whose count falls now and then
        events = desk.news()
        slots = desk.slots
        assert len(slots) == len(set(slots)) == 41
        out = {event["out"] for event in events if event.get("what") == "swap"}
        into = {event["symbol"] for event in events if event.get("what") == "swap"}
        assert (held - out) | into == set(slots)
        swaps += len(out)
        held = set(slots)
        score = desk.selection.watched.state.strength.T @ np.array([10.0, 8.0, 6.0, 6.0]) / 35
        fresh = desk.selection.watched.state.fired_ns > desk.clock.wall - 300 * NS
        assert fresh[desk.selection.watched.state.strength > 0].any()
        scored = {codes(300)[row] for row in np.flatnonzero(fresh.any(axis=0) & (score > 0))}
        losers = [event["symbol"] for event in events if event["kind"] == "overflow"]
        assert len(losers) == len(set(losers))
        assert set(losers) == scored - held
        ranks = [event["rank"] for event in events if event["kind"] == "overflow"]
        assert ranks == sorted(ranks)
        assert len(set(ranks)) == len(ranks)
        desk.sweep()  # all volumes known again
        desk.news()
        held = set(desk.slots)
    assert swaps >= 1000
    desk.saved()


def test_2500_symbols_are_scored_in_milliseconds(tmp_path: Path) -> None:
    """The target is 5 ms; the bound here is one that a loaded machine keeps, the median of both is told on a failure."""
    desk = Desk(tmp_path, count=2500, slots=41, hours="always")
    assert desk.universe is not None
    names = desk.universe.symbols
    took, whole = [], []
    score: Callable[[], Any] = lambda: desk.selection.evaluate(desk.clock.wall)  # noqa: E731
    for turn in range(30):
        quotes = desk.market.quotes(names, surge={turn * 7 + place: 9.0 for place in range(60)})
        began = time.process_time_ns()
        desk.selection.swept(quotes, desk.clock.wall, desk.clock.forward(SWEEP_S * NS))
        whole.append(time.process_time_ns() - began)
        began = time.process_time_ns()
        score()
        took.append(time.process_time_ns() - began)
        desk.news()
    desk.saved()
    print(f"evaluation {median(took) / 1e6:.2f} ms, whole sweep with its ledger {median(whole) / 1e6:.2f} ms")
    assert median(took) < 20e6
    assert median(whole) < 60e6


# --- the loop


def test_the_loop_takes_records_pins_and_minutes(desk: Desk, tmp_path: Path) -> None:
    ring = create_ring(tmp_path / "ticks", TICK, 64, "sess_20260714_000000_kis_a1b2", "tick", 0)
    producer = Producer(ring)
    old = np.zeros(3, TICK)
    old["symbol"] = b"000001"
    producer.publish(old)
    tail = Tail(ring)

    class Turning(FakeClock):
        async def sleep(self, seconds: float) -> None:
            self.forward(int(seconds * NS))
            await asyncio.sleep(0)

    pace = Turning(desk.clock.wall)
    desk.clock = pace

    async def run() -> None:
        task = asyncio.create_task(keep_selecting(desk.selection, tail, pace))

        async def until(condition: Callable[[], Any]) -> None:
            end = time.monotonic() + 30
            while not condition():
                assert not task.done(), task.exception()
                assert time.monotonic() < end
                await asyncio.sleep(0.001)

        await until(lambda: desk.wanted)
        assert desk.slots == codes(4)
        row = np.zeros(100, TICK)  # more than the ring holds
        row["symbol"], row["last_price"], row["ts_ns"] = b"000002", 10_000.0, pace.wall_ns()
        producer.publish(row)
        await until(lambda: desk.selection.watched.state.seen_ns[1] > 0)
        assert not desk.selection.watched.state.seen_ns[0], "what was there before is not read"
        change_pins(pins_path(desk.data, "kis"), lambda pins: pins._replace(pinned=("000099",)))
        await until(lambda: "000099" in desk.slots)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())
    ring.close()


def test_two_operators_at_once_both_get_their_pin(tmp_path: Path) -> None:
    path = pins_path(tmp_path, "kis")
    threads = [
        threading.Thread(target=change_pins, args=(path, lambda pins, name=name: pins._replace(pinned=(*pins.pinned, name))))
        for name in codes(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(read_pins(path).pinned) == codes(16)
    assert path.stat().st_mode & 0o777 == 0o640
    assert [item.name for item in path.parent.iterdir()] == [path.name]
