"""Dated sessions: is a market open at an instant, when does it open next, which trading day is it.

A `Session` is one day of one market and venue: from the first to the last moment in which trades may come (`open_ns`,
`close_ns`: pre-market and after-market included) and the regular part inside it. Both ends: open <= t < close.

The sessions of the days around now are computed by obs/market/compute.py, which costs 80 MB and a second for pandas, and
stored as `data/state/calendar.json`; a feed reads that file and pays nothing. Where the stored days do not reach (no file yet,
or one that nobody renewed), the standing hours of every weekday stand in: collecting on a holiday costs nothing, and not
collecting on a trading day costs the day. `covers` tells which of the two spoke, so that health can say "calendar".

Why not exchange_calendars alone: its hours are those of the regular session, NXT is not in it, and it learns of late
holidays and exam days after the fact; OVERRIDES is ahead of it.
"""

from __future__ import annotations

import json
import os
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from obs.clock import NS

FORMAT: Final = "obs calendar 1"
ZONES: Final = {
    "kr_stocks": ZoneInfo("Asia/Seoul"),
    "us_stocks": ZoneInfo("America/New_York"),
    "crypto": ZoneInfo("UTC"),
}
ALWAYS: Final = ("crypto",)  # markets that never close; their day is that of UTC
LOOK_AHEAD_DAYS: Final = 30  # no market stays closed longer than this


@dataclass(frozen=True, slots=True)
class Session:
    """One trading day: `day` YYYYMMDD local, the rest UTC epoch nanoseconds."""

    day: int
    open_ns: int
    regular_open_ns: int
    regular_close_ns: int
    close_ns: int


@dataclass(frozen=True, slots=True)
class Hours:
    """Standing local hours of a market and venue from `since` on: first trade, regular part, last trade."""

    since: date
    open: time
    regular_open: time
    regular_close: time
    close: time


def _hours(since: str, *times: str) -> Hours:
    first, regular_open, regular_close, last = (time.fromisoformat(text) for text in times)
    return Hours(date.fromisoformat(since), first, regular_open, regular_close, last)


# Source: KRX and Nextrade notices as reported by the Korean press (2025-03, 2026-01 to 2026-09): KRX pre-market 07:00-08:00 and
# after-market 16:00-20:00 from 2026-09-14, before that off-hours trading to 18:00; the opening auction collects from 08:30.
# NXT 08:00-20:00 since it opened, its main market ends at 15:20. US extended hours are those of the large venues.
STANDING: Final[Mapping[tuple[str, str], tuple[Hours, ...]]] = {
    ("kr_stocks", "krx"): (
        _hours("2016-08-01", "08:30", "09:00", "15:30", "18:00"),
        _hours("2026-09-14", "07:00", "09:00", "15:30", "20:00"),
    ),
    ("kr_stocks", "nxt"): (_hours("2025-03-04", "08:00", "09:00", "15:20", "20:00"),),
    ("kr_stocks", "unified"): (
        _hours("2016-08-01", "08:30", "09:00", "15:30", "18:00"),
        _hours("2025-03-04", "08:00", "09:00", "15:30", "20:00"),
        _hours("2026-09-14", "07:00", "09:00", "15:30", "20:00"),
    ),
    ("us_stocks", "us"): (_hours("1985-01-01", "04:00", "09:30", "16:00", "20:00"),),
}

# Days on which the regular hours of a market differ from what exchange_calendars 4.13 knows: None = closed, else (open, close).
# Source: 2026-06-03 local elections; 17 July a public holiday again since 2026, with substitute days; 1 May with substitute
# days since 2026; exam days of the Ministry of Education: open and close one hour later.
OVERRIDES: Final[Mapping[tuple[str, int], tuple[str, str] | None]] = {
    ("kr_stocks", 20260603): None,
    ("kr_stocks", 20260717): None,
    ("kr_stocks", 20261119): ("10:00", "16:30"),
    ("kr_stocks", 20270503): None,
    ("kr_stocks", 20270719): None,
}


class Calendar:
    """Answers from stored sessions, and from the standing hours outside the days that they cover."""

    def __init__(self, sessions: Mapping[tuple[str, str], Iterable[Session]], first_day: int, last_day: int) -> None:
        """`first_day`, `last_day`: YYYYMMDD; for the days between, a day without a session is a day without trading."""
        self.first_day, self.last_day = first_day, last_day
        self.sessions = {key: tuple(sorted(days, key=lambda session: session.day)) for key, days in sessions.items()}
        self._by_day = {key: {session.day: session for session in days} for key, days in self.sessions.items()}

    def covers(self, market: str, venue: str, ts_ns: int) -> bool:
        """Return whether the answer for this instant comes from dated data, not from standing hours."""
        return market in ALWAYS or self._dated(market, venue, _local_day(market, ts_ns))

    def is_open(self, market: str, venue: str, ts_ns: int, *, lead_s: float = 0, regular: bool = False) -> bool:
        """Return whether trades may come at `ts_ns`, or begin within `lead_s` after it.

        `regular`: judge the regular session alone. A market that is always open is open.
        """
        if market in ALWAYS:
            return True
        day = _date_of(_local_day(market, ts_ns))
        for session in (self.session(market, venue, day), self.session(market, venue, day + timedelta(days=1))):
            if session is None:
                continue
            begin, end = (session.regular_open_ns, session.regular_close_ns) if regular else (session.open_ns, session.close_ns)
            if begin - int(lead_s * NS) <= ts_ns < end:
                return True
        return False

    def next_open(self, market: str, venue: str, ts_ns: int) -> int:
        """Return the next opening after `ts_ns` (UTC ns); `ts_ns` itself for a market that is always open."""
        if market in ALWAYS:
            return ts_ns
        day = _date_of(_local_day(market, ts_ns))
        for ahead in range(LOOK_AHEAD_DAYS):
            session = self.session(market, venue, day + timedelta(days=ahead))
            if session is not None and session.open_ns > ts_ns:
                return session.open_ns
        raise ValueError(f"no opening within {LOOK_AHEAD_DAYS} days: market={market} venue={venue} ts_ns={ts_ns}")

    def open_spans(self, market: str, venue: str, start_ns: int, end_ns: int) -> list[tuple[int, int]]:
        """Return the parts of a span in which trades may come, in order; a span of over LOOK_AHEAD_DAYS is returned as it is."""
        if market in ALWAYS or end_ns - start_ns > LOOK_AHEAD_DAYS * 86_400 * NS:
            return [(start_ns, end_ns)]
        day, last = (_date_of(_local_day(market, ts_ns)) for ts_ns in (start_ns, end_ns))
        found = []
        while day <= last:
            session = self.session(market, venue, day)
            if session is not None and session.open_ns < end_ns and session.close_ns > start_ns:
                found.append((max(start_ns, session.open_ns), min(end_ns, session.close_ns)))
            day += timedelta(days=1)
        return found

    def trading_day(self, market: str, venue: str, ts_ns: int) -> int:
        """Return the YYYYMMDD that a trade at `ts_ns` belongs to: the local date, which no session of ours leaves."""
        del venue  # all venues of a market share its date
        return _local_day(market, ts_ns)

    def session(self, market: str, venue: str, day: date) -> Session | None:
        """Return that day's session, None on a day without trading."""
        number = _number_of(day)
        if self._dated(market, venue, number):
            return self._by_day[market, venue].get(number)
        return standing_session(market, venue, day)

    def _dated(self, market: str, venue: str, day: int) -> bool:
        return (market, venue) in self._by_day and self.first_day <= day <= self.last_day


def standing_session(market: str, venue: str, day: date, regular: tuple[time, time] | None = None) -> Session | None:
    """Return the session that the standing hours give for `day`: None on weekends and before the venue existed.

    `regular`: the market's true regular hours of that day where they differ (a late opening, a half day); then the day is taken
    as a trading day. The last trade moves with the regular close where the venue's after-market has a length, not an hour.
    """
    if market in ALWAYS:
        start = _ns(day, time(), ZONES[market])
        end = _ns(day + timedelta(days=1), time(), ZONES[market])
        return Session(_number_of(day), start, start, end, end)
    table = STANDING.get((market, venue))
    if table is None:
        raise ValueError(f"no hours for market={market!r} venue={venue!r}")
    at = bisect_right([hours.since for hours in table], day) - 1
    if at < 0 or (regular is None and day.weekday() >= 5):
        return None
    hours, zone = table[at], ZONES[market]
    opened, closed = hours.regular_open, hours.regular_close
    last = hours.close
    if regular is not None:
        # NXT follows the opening of KRX and ends its main market ten minutes earlier.
        early = _minutes(table_regular_close(market, day)) - _minutes(closed)
        opened, closed = regular[0], _clock(_minutes(regular[1]) - early)
        if market == "us_stocks":
            last = _clock(min(_minutes(hours.close), _minutes(closed) + 240))  # after-market: four hours, also on half days
    return Session(_number_of(day), _ns(day, hours.open, zone), _ns(day, opened, zone), _ns(day, closed, zone), _ns(day, last, zone))


def table_regular_close(market: str, day: date) -> time:
    """Return the ordinary regular close of the market's first venue on that day."""
    table = next(table for (name, _), table in STANDING.items() if name == market)
    return next(hours for hours in reversed(table) if hours.since <= day).regular_close


def save(calendar: Calendar, path: Path) -> None:
    """Write the sessions to `path` whole or not at all. Not fsynced: what a crash takes is computed again."""
    document = {
        "format": FORMAT,
        "first_day": calendar.first_day,
        "last_day": calendar.last_day,
        "sessions": {"/".join(key): [astuple(session) for session in days] for key, days in calendar.sessions.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(document))
    temporary.chmod(0o640)
    temporary.replace(path)


def load(path: Path) -> Calendar:
    """Return the calendar stored at `path`; one of standing hours alone if there is none or it cannot be read."""
    try:
        document = json.loads(path.read_text())
        if document["format"] != FORMAT:
            return Calendar({}, 0, 0)
        sessions = {
            (market, venue): [Session(*map(int, row)) for row in rows]
            for (market, _, venue), rows in ((key.partition("/"), rows) for key, rows in document["sessions"].items())
        }
        return Calendar(sessions, int(document["first_day"]), int(document["last_day"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Calendar({}, 0, 0)


def _local_day(market: str, ts_ns: int) -> int:
    return _number_of(datetime.fromtimestamp(ts_ns // NS, ZONES[market]).date())


def _number_of(day: date) -> int:
    return day.year * 10_000 + day.month * 100 + day.day


def _date_of(number: int) -> date:
    return date(number // 10_000, number // 100 % 100, number % 100)


def _ns(day: date, at: time, zone: ZoneInfo) -> int:
    return int(datetime.combine(day, at, zone).astimezone(UTC).timestamp()) * NS


def _minutes(at: time) -> int:
    return at.hour * 60 + at.minute


def _clock(minutes: int) -> time:
    return time(minutes // 60, minutes % 60)
