"""The universe of each day: fetched, judged, fixed in its file, and until then the best list that there is.

| when | the list is |
|---|---|
| before half an hour to the regular opening, and on days without a session | the newest of an earlier day; nothing is wrong |
| from then on (a market that never closes, hours = "always": from the day's begin) | the day's own, built at once |
| while it cannot be built | that of the earlier day, fixed for this one as stale; asked for again until it is good |
| and there is none of an earlier day | none: sweeps that are due meanwhile are gaps with the reason no_universe |

A good list replaces a stale one within the day, and an event says when; nothing replaces a good one. A list that is empty, or
much shorter than the one before, is not taken (obs.market.universe.doubt).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Final

import numpy as np

from obs.clock import NS
from obs.config import ProviderConfig
from obs.errors import ConfigError, ObsError
from obs.market import universe as u
from obs.market.calendar import ALWAYS, Calendar
from obs.market.universe import Universe
from obs.providers.base import Auth, Call
from obs.record.instruments import Instrument
from obs.roles.polling import Polling

LEAD_S: Final = 1800  # before the regular opening. Source: KIS sheet: masters are made anew each day, the hour is not documented
GOOD, STALE, NONE = 0, 1, 2  # counter "universe" of poll
_LOOK_S: Final = 1.0
_RETRY_S: Final = (10.0, 30.0, 60.0, 120.0, 300.0)  # after a failure; the last one for ever
_CALL_S: Final = 60.0  # for one call with its repetitions


def date_of(day: int) -> date:
    """Return the date of YYYYMMDD."""
    return date(day // 10_000, day // 100 % 100, day % 100)


def day_of(config: ProviderConfig, calendar: Calendar, now_ns: int) -> tuple[int, bool]:
    """Return the day (YYYYMMDD) that `now_ns` belongs to, and whether its own list is needed by now."""
    day = calendar.trading_day(config.market, config.venue, now_ns)
    if config.market in ALWAYS or config.hours == "always":
        return day, True
    session = calendar.session(config.market, config.venue, date_of(day))
    return day, session is not None and session.regular_open_ns - LEAD_S * NS <= now_ns < session.close_ns


class Universes:
    """Keeps `current`. Safety: one event loop; files are read and written, and lists parsed, by threads."""

    def __init__(self, polling: Polling, data_dir: Path, cell: np.ndarray | None = None) -> None:
        """`cell`: the counters of poll, whose "universe" tells the monitor."""
        self._asking, self._config, self._calendar = polling.asking, polling.config, polling.calendar
        self._pace, self._emit, self._log = polling.pace, polling.emit, polling.log
        self._data_dir, self._cell = data_dir, cell
        self._takers: list[Callable[[Universe], None]] = []
        self._day = 0  # for which the files have been looked at
        self._failed = 0
        self._next_ns = 0
        self._told: tuple[int, str] | None = None
        self.current: Universe | None = None
        self.state = GOOD

    def subscribe(self, take: Callable[[Universe], None]) -> None:
        """Have `take` called with each new list, and with the present one at once."""
        self._takers.append(take)
        if self.current is not None:
            take(self.current)

    async def keep(self) -> None:
        """Look each second whether the list is that of the day; ends by being cancelled."""
        while True:
            await self.look()
            await self._pace.sleep(_LOOK_S)

    async def look(self) -> None:
        """Make `current` the best list for now; build the day's own if it is needed and it is time to ask."""
        day, needed = day_of(self._config, self._calendar(), self._pace.wall_ns())
        if day != self._day:
            self._day, self._failed, self._next_ns = day, 0, 0
            found = await asyncio.to_thread(self._read, day)
            if found is None and self.current is None and not needed:
                found = await asyncio.to_thread(u.newest_before, self._data_dir, self._config.market, day)
            if found is not None:
                self._take(found)
        if not needed or (self.current is not None and (self.current.day, self.current.stale_since) == (day, None)):
            self._state(GOOD)
        elif self._pace.mono_ns() >= self._next_ns:
            await self._build(day)

    async def _build(self, day: int) -> None:
        before = await asyncio.to_thread(u.newest_before, self._data_dir, self._config.market, day)
        try:
            made = u.build(self._config.market, day, self._config.name, await self._fetch(day), self._pace.wall_ns())
            why = u.doubt(made, before)
        except ObsError as error:
            made, why = None, str(error)
        if made is not None and not why:
            await self._fix(made)
            self._emit(
                "lifecycle",
                {"what": "universe", "day": day, "symbols": len(made.instruments), "listed": made.listed, "refused": made.refused},
            )
            self._log.info("universe", day=day, symbols=len(made.instruments), listed=made.listed)
            self._take(made)
            self._state(GOOD)
            return
        wait_s = _RETRY_S[min(self._failed, len(_RETRY_S) - 1)]
        self._failed += 1
        self._next_ns = self._pace.mono_ns() + int(wait_s * NS)
        self._log.error("universe_failed", day=day, text=why, again_s=wait_s)
        if self._told != (day, why):
            self._told = (day, why)
            self._emit("warning", {"what": "universe_failed", "day": day, "why": why[:400], "again_s": wait_s})
        if self.current is not None and self.current.day == day:
            self._state(STALE)
        elif before is not None:
            stale = before.stale_on(day)
            await self._fix(stale)
            self._emit("warning", {"what": "universe_stale", "day": day, "stale_since": stale.stale_since, "symbols": len(stale.symbols)})
            self._take(stale)
            self._state(STALE)
        else:
            self._state(NONE)

    async def _fetch(self, day: int) -> list[Instrument]:
        bodies = []
        for call in self._asking.provider.universe_calls(day):
            bodies.append(await self._asking.ask(_always(call), bytes, self._pace.mono_ns() + int(_CALL_S * NS), signed=False))
        return await asyncio.to_thread(self._asking.provider.parse_universe, bodies)

    async def _fix(self, universe: Universe) -> None:
        """Write the day's file. A disk that refuses it costs the file, not the slots."""
        try:
            await asyncio.to_thread(u.save, universe, self._data_dir)
        except OSError as error:
            self._log.error("universe_not_written", day=universe.day, text=str(error))
            self._emit("warning", {"what": "universe_not_written", "day": universe.day, "why": str(error)[:400]})

    def _read(self, day: int) -> Universe | None:
        """Return the list that is fixed for `day`; a file that does not read is put aside, and the list is built anew."""
        try:
            return u.load(self._data_dir, self._config.market, day)
        except (ConfigError, OSError) as error:
            path = u.path_of(self._data_dir, self._config.market, day)
            self._log.error("universe_unreadable", path=str(path), text=str(error))
            try:
                path.replace(path.with_name(f"{path.name}.damaged.{self._pace.wall_ns()}"))
            except OSError as failed:
                self._log.error("universe_not_moved", path=str(path), text=str(failed))
            return None

    def _take(self, universe: Universe) -> None:
        self.current = universe
        for take in self._takers:
            take(universe)

    def _state(self, state: int) -> None:
        self.state = state
        if self._cell is not None:
            self._cell["universe"] = state


def _always(call: Call) -> Callable[[Auth | None], Call]:
    return lambda auth: call
