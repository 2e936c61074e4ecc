"""Compute the dated sessions of the days around now, from exchange_calendars and the overrides.

`python -m obs.market.compute FILE` renews the file and prints what it covers; it is a process of its own because pandas takes 80 MB,
which a collector should not carry. obs/market/calendar.py reads the file.
"""

from __future__ import annotations

import argparse
import importlib
import warnings
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any, Final

from obs import clock
from obs.market.calendar import OVERRIDES, STANDING, ZONES, Calendar, Session, load, save, standing_session

BEHIND_DAYS: Final = 7  # yesterday's session is asked for after midnight, and at a start after a long weekend
AHEAD_DAYS: Final = 21
RENEW_DAYS: Final = 14  # renewed when fewer days than this lie ahead
EXCHANGES: Final = {"kr_stocks": "XKRX", "us_stocks": "XNYS"}


def compute(first: date, last: date, overrides: Mapping[tuple[str, int], tuple[str, str] | None] = OVERRIDES) -> Calendar:
    """Return the sessions of every market and venue from `first` to `last`, both included. Loads pandas."""
    sessions: dict[tuple[str, str], list[Session]] = {}
    regular = {market: _regular_hours(market, first, last, overrides) for market in EXCHANGES}
    for market, venue in STANDING:
        found = (standing_session(market, venue, day, hours) for day, hours in regular[market].items())
        sessions[market, venue] = [session for session in found if session is not None]
    return Calendar(sessions, _number(first), _number(last))


def renew(path: Path, now_ns: int) -> Calendar:
    """Return the calendar at `path`, computed and stored anew if it does not reach RENEW_DAYS ahead."""
    today = datetime.fromtimestamp(now_ns // clock.NS, UTC).date()
    stored = load(path)
    if stored.first_day <= _number(today - timedelta(days=1)) and stored.last_day >= _number(today + timedelta(days=RENEW_DAYS)):
        return stored
    calendar = compute(today - timedelta(days=BEHIND_DAYS), today + timedelta(days=AHEAD_DAYS))
    save(calendar, path)
    return calendar


def _regular_hours(
    market: str, first: date, last: date, overrides: Mapping[tuple[str, int], tuple[str, str] | None]
) -> dict[date, tuple[time, time]]:
    """Return the regular open and close, local, of each trading day."""
    exchange_calendars: Any = importlib.import_module("exchange_calendars")  # it carries no type information
    zone = ZONES[market]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own deprecations under a newer pandas; the tests judge the result
        # The library wants a session at both ends, and refuses a span without one; a longer one costs nothing.
        calendar: Any = exchange_calendars.get_calendar(
            EXCHANGES[market], start=str(first - timedelta(days=30)), end=str(last + timedelta(days=30))
        )
        schedule = calendar.schedule.loc[str(first) : str(last)]
    hours: dict[date, tuple[time, time]] = {}
    for label, row in schedule.iterrows():
        opened, closed = (row[name].to_pydatetime().astimezone(zone).time() for name in ("open", "close"))
        hours[label.date()] = (opened, closed)
    for (name, number), change in overrides.items():
        day = date(number // 10_000, number // 100 % 100, number % 100)
        if name != market or not first <= day <= last:
            continue
        if change is None:
            hours.pop(day, None)
        else:
            hours[day] = (time.fromisoformat(change[0]), time.fromisoformat(change[1]))
    return dict(sorted(hours.items()))


def _number(day: date) -> int:
    return day.year * 10_000 + day.month * 100 + day.day


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m obs.market.compute", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("file", type=Path, help="for example data/state/calendar.json")
    calendar = renew(parser.parse_args().file, clock.SYSTEM.wall_ns())
    print(f"{calendar.first_day} to {calendar.last_day}: {sum(map(len, calendar.sessions.values()))} sessions")


if __name__ == "__main__":
    main()
