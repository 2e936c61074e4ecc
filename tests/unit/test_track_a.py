"""Track A without a venue: which bars are due and which were missed, over stops, steps of the clock and odd days."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from paces import JumpPace

from obs.clock import NS
from obs.config import load
from obs.config.options import ProviderConfig
from obs.log import Log
from obs.market.calendar import Calendar, standing_session
from obs.providers.base import ProviderOptions
from obs.providers.kis import KisProvider
from obs.record.schema import SWING
from obs.ring import Producer, create_ring, fence
from obs.roles.asking import Asking
from obs.roles.holidays import disagreements
from obs.roles.notes import Notes
from obs.roles.polling import Polling
from obs.roles.sweeps import BAR_NS, Sweeps, bars_between
from obs.roles.tokens import Tokens
from obs.roles.universes import Universes, date_of, day_of
from obs.shm import Board

SESSION = "sess_20261120_000000_kis_ab12"
KST = "+09:00"


def ns(text: str, zone: str = KST) -> int:
    return int(datetime.fromisoformat(text + zone).timestamp()) * NS


def section(tmp_path: Path, name: str = "kis", lines: str = "") -> ProviderConfig:
    path = tmp_path / "obs.toml"
    path.write_text(f"[providers.{name}]\n{lines}\n")
    (config,) = load(path, environ={}, cwd=tmp_path).providers
    return config


def dated(*days: tuple[int, str, str]) -> Calendar:
    """A calendar of 2026-11 that has these days alone: (day, regular opening, regular close)."""
    sessions = []
    for day, opened, closed in days:
        hours = (datetime.fromisoformat(f"2026-01-01T{opened}").time(), datetime.fromisoformat(f"2026-01-01T{closed}").time())
        session = standing_session("kr_stocks", "krx", date_of(day), hours)
        assert session is not None
        sessions.append(session)
    return Calendar({("kr_stocks", "krx"): sessions}, 20261101, 20261130)


STANDING = Calendar({}, 0, 0)
FRIDAY = dated((20261120, "09:00", "15:30"))


@pytest.mark.parametrize(
    ("calendar", "after", "until", "count", "first", "last"),
    [
        (FRIDAY, "2026-11-20T00:00", "2026-11-20T23:59", 39, "2026-11-20T09:00", "2026-11-20T15:20"),
        (STANDING, "2026-11-20T00:00", "2026-11-20T23:59", 39, "2026-11-20T09:00", "2026-11-20T15:20"),
        (FRIDAY, "2026-11-20T00:00", "2026-11-20T09:09:59", 0, "", ""),
        (FRIDAY, "2026-11-20T00:00", "2026-11-20T09:10", 1, "2026-11-20T09:00", "2026-11-20T09:00"),
        (FRIDAY, "2026-11-20T09:10", "2026-11-20T09:10", 0, "", ""),
        (FRIDAY, "2026-11-20T09:05", "2026-11-20T09:41", 4, "2026-11-20T09:00", "2026-11-20T09:30"),
        (FRIDAY, "2026-11-20T15:30", "2026-11-20T20:00", 0, "", ""),
        (dated((20261120, "10:00", "16:30")), "2026-11-20T00:00", "2026-11-20T20:00", 39, "2026-11-20T10:00", "2026-11-20T16:20"),
        (dated((20261120, "09:00", "12:25")), "2026-11-20T00:00", "2026-11-20T20:00", 20, "2026-11-20T09:00", "2026-11-20T12:10"),
        (dated((20261119, "09:00", "15:30")), "2026-11-20T00:00", "2026-11-20T23:00", 0, "", ""),  # a holiday
        (STANDING, "2026-11-21T00:00", "2026-11-21T23:00", 0, "", ""),  # a Saturday
        (FRIDAY, "2026-11-20T15:00", "2026-11-21T10:00", 3, "2026-11-20T15:00", "2026-11-20T15:20"),
        (STANDING, "2026-11-16T00:00", "2026-11-20T10:00", 39 + 6, "2026-11-19T09:00", "2026-11-20T09:50"),  # a day back, no further
    ],
)
def test_the_bars_of_a_day(tmp_path: Path, calendar: Calendar, after: str, until: str, count: int, first: str, last: str) -> None:
    bars = bars_between(section(tmp_path), calendar, ns(after), ns(until))
    assert len(bars) == count
    if count:
        assert (bars[0], bars[-1]) == (ns(first), ns(last))
        assert all(bar % BAR_NS == 0 for bar in bars)


@pytest.mark.parametrize(("name", "lines"), [("upbit", ""), ("kis", 'hours = "always"')])
def test_what_never_closes_has_every_bar(tmp_path: Path, name: str, lines: str) -> None:
    config = section(tmp_path, name, lines)
    bars = bars_between(config, FRIDAY, ns("2026-11-21T02:03"), ns("2026-11-21T02:40"))
    assert [(bar - ns("2026-11-21T02:00")) / BAR_NS for bar in bars] == [0, 1, 2, 3]
    assert len(bars_between(config, FRIDAY, 0, ns("2026-11-21T02:00"))) == 2 * 144


@pytest.mark.parametrize(
    ("name", "lines", "at", "day", "needed"),
    [
        ("kis", "", "2026-11-20T08:29:59", 20261120, False), ("kis", "", "2026-11-20T08:30", 20261120, True),
        ("kis", "", "2026-11-20T19:59", 20261120, True), ("kis", "", "2026-11-20T20:00", 20261120, False),
        ("kis", "", "2026-11-21T12:00", 20261121, False), ("kis", 'hours = "always"', "2026-11-21T00:00", 20261121, True),
        ("upbit", "", "2026-11-21T08:59", 20261120, True), ("upbit", "", "2026-11-21T09:00", 20261121, True),
    ],
)  # fmt: skip
def test_when_the_list_of_a_day_is_needed(tmp_path: Path, name: str, lines: str, at: str, day: int, needed: bool) -> None:
    assert day_of(section(tmp_path, name, lines), FRIDAY, ns(at)) == (day, needed)


def test_where_the_venue_disagrees_with_the_calendar() -> None:
    told = {20261118: True, 20261119: False, 20261120: False, 20261121: False, 20261123: True, 20261201: True}
    assert disagreements(told, FRIDAY, "kr_stocks", "krx") == [(20261118, True), (20261120, False), (20261123, True)]
    assert disagreements(told, STANDING, "kr_stocks", "krx") == [], "standing hours are no opinion"


class Floor:
    """Sweeps over a real ring, without a universe: what is due becomes a gap, and nobody is asked."""

    def __init__(self, tmp_path: Path, at: str) -> None:
        self.pace = JumpPace(ns(at))
        self.config = section(tmp_path)
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.board = Board.create(tmp_path / "board", fence)
        self.log = Log("poll", "kis", level="error")
        self.notes = Notes(tmp_path, "kis", self.log)
        provider = KisProvider(ProviderOptions("kis", "kr_stocks", "krx", ("trade",), 41, "http://127.0.0.1:1", "ws://127.0.0.1:1"))
        asking = Asking(provider, Tokens(provider, [], self.board, self.pace, self.log), self.pace, self.log)
        polling = Polling(asking, self.config, lambda: FRIDAY, self.pace, self.emit, self.log)
        universes = Universes(polling, tmp_path)
        self.ring = create_ring(tmp_path / "swing", SWING, 16, SESSION, "swing", 1)
        self.sweeps = Sweeps(polling, universes, Producer(self.ring), self.notes)

    def emit(self, kind: str, payload: dict[str, Any], *, symbol: str = "", start_ns: int = 0, end_ns: int = 0) -> None:
        self.events.append((kind, payload))

    def gaps(self) -> list[tuple[str, str, str]]:
        """(reason, start, end) in KST of every gap so far."""
        found = [payload for kind, payload in self.events if kind == "gap_marker"]
        assert all((gap["scope"], gap["ring"], gap["session_id"], gap["sink"]) == ("swing", "swing", SESSION, None) for gap in found)
        begin = ns("2026-11-20T00:00")
        return [
            (gap["reason"], *(f"{(gap[name] - begin) // (3600 * NS):02}:{(gap[name] - begin) // (60 * NS) % 60:02}" for name in names))
            for gap in found
            for names in [("gap_start_ns", "gap_end_ns")]
        ]  # fmt: skip

    def close(self) -> None:
        self.ring.close()
        self.board.close()
        self.log.close()


@pytest.fixture
def floor(tmp_path: Path) -> Any:
    made: list[Floor] = []

    def make(at: str) -> Floor:
        made.append(Floor(tmp_path, at))
        return made[-1]

    yield make
    for one in made:
        one.close()


def days(floor: Floor, *steps: Callable[[], Any]) -> None:
    """Start, then do each step and look; a step may move the clock."""

    async def main() -> None:
        await floor.notes.load()
        await floor.sweeps._resume()
        for step in steps:
            step()
            await floor.sweeps.look()

    asyncio.run(main())


def test_without_a_list_each_sweep_is_a_gap(floor: Callable[[str], Floor]) -> None:
    one = floor("2026-11-20T09:05:00")
    days(one, lambda: None, *(lambda: one.pace.advance(60),) * 30)
    assert one.gaps() == [("no_universe", "09:00", "09:10"), ("no_universe", "09:10", "09:20"), ("no_universe", "09:20", "09:30")]


def test_what_a_stopped_process_missed_is_one_gap(floor: Callable[[str], Floor]) -> None:
    one = floor("2026-11-20T09:05:00")
    days(one, lambda: one.pace.advance(300), lambda: one.pace.advance(3600 + 400))
    assert one.gaps() == [("no_universe", "09:00", "10:10")]
    missed = one.events[-1][1]
    assert (missed["what"], missed["bars"]) == ("missed", 7)


@pytest.mark.parametrize(
    ("note", "gaps"),
    [
        (None, []),
        ({"bar_ns": "2026-11-20T09:30", "finished": True}, []),
        ({"bar_ns": "2026-11-20T09:30", "finished": False}, [("short_sweep", "09:30", "09:40")]),
        ({"bar_ns": "2026-11-20T09:00", "finished": True}, [("no_universe", "09:10", "09:40")]),
        ({"bar_ns": "2026-11-20T09:00", "finished": False}, [("short_sweep", "09:00", "09:10"), ("no_universe", "09:10", "09:40")]),
        ({"bar_ns": "2026-11-20T12:00", "finished": False}, []),  # told by a clock that was ahead
        ({"bar_ns": "x"}, []), (7, []),
    ],
)  # fmt: skip
def test_a_new_poll_tells_what_the_dead_one_did_not_do(floor: Callable[[str], Floor], note: Any, gaps: list[tuple[str, str, str]]) -> None:
    one = floor("2026-11-20T09:44:00")
    if isinstance(note, dict) and note["bar_ns"] != "x":
        note = note | {"bar_ns": ns(note["bar_ns"])}
    asyncio.run(one.notes.put("sweep", note))
    days(one, lambda: None)
    assert one.gaps() == gaps


def test_a_clock_that_is_set_loses_no_sweep_and_says_so(floor: Callable[[str], Floor]) -> None:
    one = floor("2026-11-20T10:05:00")

    async def main() -> None:
        one.sweeps._offset_ns = one.pace.wall_ns() - one.pace.mono_ns()
        await one.sweeps._resume()
        one.pace.advance(419)
        await one.sweeps.look()
        assert one.events == [], "a list may yet come"
        one.pace.advance(1)  # 10:12
        await one.sweeps.look()
        assert one.gaps() == [("no_universe", "10:00", "10:10")]
        one.events.clear()
        one.pace.step(-3600)  # 09:12
        await one.sweeps.look()
        assert [(kind, payload["what"], payload["seconds"]) for kind, payload in one.events] == [("warning", "clock_stepped", -3600.0)]
        one.events.clear()
        one.pace.advance(600)  # 09:22
        await one.sweeps.look()
        assert one.gaps() == [("no_universe", "09:10", "09:20")], "it waits no hour for the clock to come back"
        one.events.clear()
        one.pace.step(3600)  # 10:22
        await one.sweeps.look()
        assert one.gaps() == [("no_universe", "09:20", "10:20")]
        one.events.clear()
        one.pace.step(0.5)
        one.pace.advance(1)
        await one.sweeps.look()
        assert one.events == [], "a clock that is slewed is not one that was set"

    asyncio.run(main())


def test_notes_outlive_the_process_and_a_hurt_file_is_none(tmp_path: Path) -> None:
    log = Log("poll", "kis", level="error")

    async def main() -> None:
        first = Notes(tmp_path, "kis", log)
        await first.load()
        assert first.get("sweep") is None
        await asyncio.gather(first.put("sweep", {"a": 1}), first.put("holidays_day", 20261120))
        second = Notes(tmp_path, "kis", log)
        await second.load()
        assert (second.get("sweep"), second.get("holidays_day")) == ({"a": 1}, 20261120)
        path = tmp_path / "state" / "kis.poll.json"
        assert path.stat().st_mode & 0o777 == 0o640
        for hurt in ("", "{", "[]", "\0"):
            path.write_text(hurt)
            await second.load()
            assert second.get("sweep") is None

    asyncio.run(main())
    log.close()
