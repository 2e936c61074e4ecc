"""Track A against the simulated venues over HTTP, in compressed time: every bar equals the venue's own, and what fails is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import date, time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from poll_rig import Rig

from obs.clock import NS
from obs.market import universe as u
from obs.market.calendar import Calendar, save, standing_session
from obs.record.schema import BAR_SOURCES
from obs.roles.sweeps import BAR_NS
from obs.sim.universe import Universe

CANDLE, SNAPSHOT = (BAR_SOURCES.index(name) for name in ("candle", "snapshot"))
FRIDAY = "2026-11-20"


def bars(rig: Rig) -> dict[int, np.ndarray]:
    """The swing rows by bar; each symbol once in each."""
    rows = rig.rows()
    found = {int(bar): rows[rows["bar_ns"] == bar] for bar in np.unique(rows["bar_ns"])}
    for bar, part in found.items():
        assert len(np.unique(part["symbol"])) == len(part), f"a symbol stands twice in bar {bar}"
    return found


def check_rows(rows: np.ndarray, bar_ns: int, venue: Universe, least: float) -> None:
    """Every row with a candle is the venue's own bar, and at least the share `least` has one."""
    true = [row for row in rows if row["bar_source"] == CANDLE]
    assert len(true) >= least * len(rows), f"{len(true)} candles of {len(rows)}"
    for row in rows:
        symbol = row["symbol"].decode()
        expected = venue.bar(symbol, bar_ns)
        if row["bar_source"] == SNAPSHOT:
            assert np.isnan(row["high"])
            assert np.isnan(row["low"])
            assert row["close"] > 0
        elif expected is None:
            assert np.isnan(row["close"])
            assert row["volume"] == 0
        else:
            made = [float(row[name]) for name in ("open", "high", "low", "close", "volume")]
            assert made == pytest.approx([expected.open, expected.high, expected.low, expected.close, expected.volume], rel=1e-12), symbol


@pytest.mark.parametrize(("venue", "symbols", "before"), [("kis", 150, "T09:08:00+09:00"), ("upbit", 120, "T00:08:00+00:00")])
def test_each_bar_of_the_universe_is_the_venues_own(rig: Callable[..., Rig], venue: str, symbols: int, before: str) -> None:
    """Two bars of it; test_day.py has a whole day."""
    one = rig(venue, symbols, FRIDAY + before, 90.0)

    async def two_sweeps() -> None:
        await one.until("two sweeps", lambda: len(one.sweeps()) == 2)

    one.run(two_sweeps)
    config = one.config.provider(venue)
    assert config is not None
    listed = u.load(one.data, config.market, 20261120)
    assert listed is not None
    assert len(listed.symbols) > symbols / 3
    assert listed.stale_since is None
    found, true = bars(one), Universe(venue, symbols)
    assert len(found) == 2
    assert np.diff(list(found)).tolist() == [BAR_NS]
    for (bar_ns, rows), sweep in zip(found.items(), one.sweeps(), strict=True):
        assert {symbol.decode() for symbol in rows["symbol"]} == set(listed.symbols)
        check_rows(rows, bar_ns, true, 0.98)
        assert (sweep["bar_ns"], sweep["expected"], sweep["received"], sweep["failed"]) == (bar_ns, len(rows), len(rows), 0)
        assert sweep["quotes_s"] <= 150
        assert sweep["seconds"] <= 450
        assert (rows["bid_price"] <= rows["ask_price"]).sum() + np.isnan(rows["bid_price"]).sum() == len(rows)
        assert (rows["acc_volume"] > 0).mean() > 0.9
    assert one.events("gap_marker") == []
    assert one.events("warning") == []
    wanted = one.board["wanted"].read_json()["symbols"]
    assert 0 < len(wanted) <= 41
    assert set(wanted) <= set(listed.symbols)
    assert one.silent_s < 10, "the heart stood still"


def test_what_fails_is_told_and_the_next_sweep_is_whole(rig: Callable[..., Rig]) -> None:
    """Each bar meets another bad answer, from before its sweep to `until_s` after its end; the poll lives through all of them."""
    one = rig("kis", 70, f"{FRIDAY}T09:03:00+09:00", 150.0)
    quotes = {"do": "answer", "path": "intstock-multprice"}
    steps: list[tuple[dict[str, Any], int, str]] = [
        (quotes | {"with": "html"}, 200, "none"),
        (quotes | {"with": "truncated"}, 200, "none"),
        ({"do": "expire_token"}, 0, "whole"),
        (quotes | {"with": "error200"}, 200, "none"),
        (quotes | {"with": "zero"}, 200, "none"),
        ({"do": "answer", "with": "empty", "path": "itemchartprice"}, 500, "snapshots"),
        ({"do": "rate_limit"}, 50, "whole"),
        (quotes | {"with": "html"}, 50, "whole"),
    ]

    async def faults() -> None:
        await one.until("the universe", lambda: one.events("lifecycle", "universe"))
        for number, (action, until_s, _) in enumerate(steps, 1):
            now = one.pace.wall_ns()
            lasts_s = (now // BAR_NS * BAR_NS + BAR_NS - now) / NS + until_s
            names = {"answer": "for_s", "rate_limit": "s"}
            await asyncio.to_thread(one.do, action | ({names[action["do"]]: lasts_s} if until_s else {}))
            await one.until(f"sweep {number}", lambda n=number: len(one.sweeps()) >= n)

    one.run(faults)
    found, gaps = one.sweeps(), [gap for gap in one.events("gap_marker") if gap["reason"] != "no_universe"]
    for sweep, (action, _, outcome) in zip(found, steps, strict=True):
        mine = [gap for gap in gaps if gap["gap_start_ns"] == sweep["bar_ns"]]
        case = (action, sweep, mine)
        if outcome == "none":
            assert (sweep["received"], sweep["rows"]) == (0, 0), case
            (gap,) = mine
            assert (gap["reason"], gap["scope"], gap["ring"], gap["lost"]) == ("short_sweep", "swing", "swing", sweep["expected"]), case
            assert gap["gap_end_ns"] - gap["gap_start_ns"] == BAR_NS
            continue
        assert (mine, sweep["received"]) == ([], sweep["expected"]), case
        assert (sweep["candles"] == 0) == (outcome == "snapshots"), case
    assert len(gaps) == 4
    assert found[6]["limited"] > 0
    assert [sweep["reasons"] for sweep in found[4:5]] == [{"no_price": found[4]["expected"]}]
    by_bar, true = bars(one), Universe("kis", 70)
    assert len(by_bar) == 4
    for bar_ns, rows in by_bar.items():
        check_rows(rows, bar_ns, true, 0.0)
    assert int(one.cell["errors"]) == 0


def test_a_stop_in_a_sweep_leaves_each_symbol_once_and_the_next_poll_goes_on(rig: Callable[..., Rig]) -> None:
    one = rig("kis", 400, f"{FRIDAY}T09:09:00+09:00", 60.0)

    async def some_candles() -> None:
        await one.until("some bars", lambda: one.rings["swing"].published > 10)

    async def a_sweep_more() -> None:
        await one.until("the next sweep", lambda: len(one.sweeps()) == 2)

    one.run(some_candles)
    (cut,) = one.sweeps()
    assert 0 < cut["candles"] < cut["received"] == cut["rows"], "it was stopped in the middle"
    one.run(a_sweep_more)
    found, true = bars(one), Universe("kis", 400)
    assert len(found) == 2
    (first, rows), (second, later) = found.items()
    assert (len(rows), second - first) == (len(later), BAR_NS)
    check_rows(rows, first, true, 0.0)
    check_rows(later, second, true, 0.98)
    assert one.events("gap_marker") == []


def test_a_pair_that_vanishes_costs_itself_alone(rig: Callable[..., Rig]) -> None:
    """The venue refuses a whole call about a hundred books for the one that it does not know."""
    one = rig("upbit", 60, f"{FRIDAY}T00:06:00+00:00", 90.0)
    gone: list[str] = []

    async def vanish() -> None:
        await one.until("the universe", lambda: one.events("lifecycle", "universe"))
        listed = u.load(one.data, "crypto", 20261120)
        assert listed is not None
        gone.append(listed.symbols[7])
        await asyncio.to_thread(one.do, {"do": "vanish", "symbol": gone[0]})
        await one.until("a sweep without it", lambda: one.events("gap_marker"))
        count = len(one.sweeps())
        await one.until("its end", lambda: len(one.sweeps()) > count)

    one.run(vanish)
    (gap,) = one.events("gap_marker")
    assert (gap["reason"], gap["symbols"], gap["lost"], gap["reasons"]) == ("short_sweep", gone, 1, {"unknown_symbol": 1})
    rows = bars(one)[gap["gap_start_ns"]]
    assert gone[0].encode() not in rows["symbol"].tolist()
    assert len(rows) == gap["received"] == gap["expected"] - 1
    assert np.isfinite(rows["bid_price"]).all()
    assert one.sweeps()[-1]["quotes_s"] < 30, "nobody waits for it"


def test_the_venues_calendar_is_asked_once_a_day(rig: Callable[..., Rig]) -> None:
    one = rig("kis", 10, f"{FRIDAY}T05:00:00+09:00", 300.0, "--holiday", "20261124")
    hours = (time(9), time(15, 30))
    days = (standing_session("kr_stocks", "krx", date(2026, 11, day), hours) for day in (20, 23, 24, 26, 27))
    known = Calendar({("kr_stocks", "krx"): [day for day in days if day is not None]}, 20261120, 20261127)
    save(known, one.data / "state" / "calendar.json")

    async def asked() -> None:
        await one.until("both days", lambda: len(one.events("warning")) == 2)

    one.run(asked)
    told = [(event["what"], event["day"], event["venue_opens"]) for event in one.events("warning")]
    assert told == [("calendar_disagreement", 20261124, False), ("calendar_disagreement", 20261125, True)]

    async def an_hour() -> None:
        end = one.pace.wall_ns() + 3600 * NS
        await one.until("an hour", lambda: one.pace.wall_ns() > end)

    one.run(an_hour)
    assert len(one.events("warning")) == 2, "and not again by the next poll of the day"


def test_a_list_that_cannot_be_built_is_yesterdays_until_it_can(rig: Callable[..., Rig], tmp_path: Path) -> None:
    one = rig("kis", 60, f"{FRIDAY}T09:05:00+09:00", 120.0)
    before = u.build("kr_stocks", 20261119, "kis", [], 1)
    instruments = tuple(u.Instrument(code, code, 5000.0, 1e9) for code in Universe("kis", 60).listing.codes[:5])
    u.save(u.replace(before, instruments=instruments, listed=5), one.data)
    one.do({"do": "answer", "with": "truncated", "path": ".mst.zip", "for_s": 600})

    async def stale_then_good() -> None:
        await one.until("a sweep of yesterday's list", lambda: len(one.sweeps()) == 1)
        assert int(one.cell["universe"]) == 1
        stale = u.load(one.data, "kr_stocks", 20261120)
        assert stale is not None
        assert (stale.stale_since, stale.symbols) == (20261119, [one.symbol for one in instruments])
        await one.until("the good list", lambda: one.events("lifecycle", "universe"))
        assert int(one.cell["universe"]) == 0
        await one.until("a sweep of the good list", lambda: len(one.sweeps()) >= 3)

    one.run(stale_then_good)
    good = u.load(one.data, "kr_stocks", 20261120)
    assert good is not None
    assert good.stale_since is None
    assert len(good.symbols) > 5
    assert [sweep["stale"] for sweep in one.sweeps()][::2] == [True, False]
    assert one.sweeps()[-1]["expected"] == len(good.symbols)
    assert {event["what"] for event in one.events("warning")} == {"universe_failed", "universe_stale"}


def test_without_any_list_each_sweep_is_a_gap_and_health_knows(rig: Callable[..., Rig]) -> None:
    one = rig("kis", 60, f"{FRIDAY}T09:08:00+09:00", 120.0)
    one.do({"do": "answer", "with": "html", "path": ".mst.zip", "for_s": 400})

    async def none_then_good() -> None:
        await one.until("a gap", lambda: one.events("gap_marker"))
        assert int(one.cell["universe"]) == 2
        assert one.sweeps() == []
        await one.until("a sweep", one.sweeps)
        assert int(one.cell["universe"]) == 0

    one.run(none_then_good)
    reasons = [gap["reason"] for gap in one.events("gap_marker")]
    assert reasons
    assert set(reasons) == {"no_universe"}
    assert one.sweeps()[0]["received"] == one.sweeps()[0]["expected"] > 0
