"""Brings the universe files of one market into the database, whenever they were written: the files are what counts.

A day that is there as its file says is left alone, so it may be looked at by every loader of the market and at every start.
"""

from __future__ import annotations

import math
from datetime import date
from pathlib import Path
from typing import Final

from obs.clock import NS
from obs.errors import ConfigError
from obs.log import Log
from obs.market.universe import Universe, load, path_of
from obs.pg.connect import Connection, Dsn, close, connect
from obs.pg.universe import UniverseDay, store_day, stored_days

_LOOK_NS: Final = 5 * NS
_AGAIN_DAYS: Final = 7  # the newest files are read at a start although their days are stored: one may have been built anew


class UniverseLoad:
    """Safety: one thread. `step` raises LoadRetryable: the next one tries again."""

    def __init__(self, dsn: Dsn, data_dir: Path, market: str, log: Log) -> None:
        self._dsn, self._data_dir, self._market, self._log = dsn, data_dir, market, log
        self._folder = path_of(data_dir, market, 0).parent
        self._seen: dict[int, tuple[int, int]] = {}  # day -> (mtime, size) of the file that is stored
        self._looked_ns: int | None = None

    def step(self, mono_ns: int) -> int:
        """Look for files that are new or have changed, from time to time; return how many days were brought in."""
        if self._looked_ns is not None and mono_ns - self._looked_ns < _LOOK_NS:
            return 0
        found = self._files()
        fresh = sorted(day for day, mark in found.items() if self._seen.get(day) != mark)
        stored = 0
        if fresh:
            conn = connect(self._dsn, f"obs load universe {self._market}")
            try:
                stored = self._store(conn, fresh, found)
            finally:
                close(conn)
        self._looked_ns = mono_ns
        return stored

    def _files(self) -> dict[int, tuple[int, int]]:
        found = {}
        for path in self._folder.glob("[0-9]*.json"):
            if path.stem.isdigit():
                try:
                    state = path.stat()
                except FileNotFoundError:
                    continue
                found[int(path.stem)] = (state.st_mtime_ns, state.st_size)
        return found

    def _store(self, conn: Connection, fresh: list[int], found: dict[int, tuple[int, int]]) -> int:
        known = {_number(day): made_ns for day, made_ns in stored_days(conn, self._market).items()}
        count = 0
        for day in fresh:
            if day in self._seen or day not in known or day in fresh[-_AGAIN_DAYS:]:
                count += self._store_day(conn, day, known)
            self._seen[day] = found[day]
        return count

    def _store_day(self, conn: Connection, day: int, known: dict[int, int]) -> int:
        try:
            universe = load(self._data_dir, self._market, day)
        except ConfigError as error:
            self._log.error("universe_not_stored", market=self._market, day=day, text=str(error))
            return 0
        if universe is None or known.get(day) == universe.made_ns:
            return 0
        one = _rows(universe)
        wrong = "not a day" if one is None else store_day(conn, one)
        if wrong:
            self._log.error("universe_not_stored", market=self._market, day=day, text=wrong)
            return 0
        self._log.info("universe_stored", market=self._market, day=day, symbols=len(universe.instruments), stale=universe.stale_since)
        return 1


def _rows(universe: Universe) -> UniverseDay | None:
    day = _date(universe.day)
    if day is None:
        return None
    return UniverseDay(
        universe.market, day, universe.source, universe.made_ns, _date(universe.stale_since or 0),
        [one.symbol for one in universe.instruments], [one.name for one in universe.instruments],
        [_known(one.previous_close) for one in universe.instruments], [_known(one.traded_value) for one in universe.instruments],
    )  # fmt: skip


def _date(number: int) -> date | None:
    """Return YYYYMMDD as a date, None if it is none."""
    try:
        return date(number // 10_000, number // 100 % 100, number % 100)
    except ValueError:
        return None


def _number(day: date) -> int:
    return day.year * 10_000 + day.month * 100 + day.day


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
