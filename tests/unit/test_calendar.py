"""Dated sessions: hours by venue and date, holidays, exam day, daylight saving, the stored file, the standing hours."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from obs.market import calendar
from obs.market.calendar import Calendar, Session
from obs.market.compute import compute, renew

SEOUL = ZoneInfo("Asia/Seoul")
NEW_YORK = ZoneInfo("America/New_York")


@pytest.fixture(scope="module")
def year() -> Calendar:
    return compute(date(2026, 1, 1), date(2027, 1, 31))


def at(text: str, zone: ZoneInfo = SEOUL) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()) * 10**9


OPEN = [
    # market, venue, local instant, any trading, regular session
    ("kr_stocks", "krx", "2026-01-22T08:29:59", False, False),
    ("kr_stocks", "krx", "2026-01-22T08:30:00", True, False),
    ("kr_stocks", "krx", "2026-01-22T09:00:00", True, True),
    ("kr_stocks", "krx", "2026-01-22T15:29:59", True, True),
    ("kr_stocks", "krx", "2026-01-22T15:30:00", True, False),
    ("kr_stocks", "krx", "2026-01-22T18:00:00", False, False),
    ("kr_stocks", "krx", "2026-09-14T07:00:00", True, False),  # pre-market and after-market begin
    ("kr_stocks", "krx", "2026-09-14T19:59:59", True, False),
    ("kr_stocks", "krx", "2026-09-11T07:00:00", False, False),
    ("kr_stocks", "nxt", "2026-01-22T08:00:00", True, False),
    ("kr_stocks", "nxt", "2026-01-22T15:20:00", True, False),
    ("kr_stocks", "nxt", "2026-01-22T15:19:59", True, True),
    ("kr_stocks", "nxt", "2026-01-22T19:59:59", True, False),
    ("kr_stocks", "nxt", "2026-01-22T20:00:00", False, False),
    ("kr_stocks", "unified", "2026-01-22T08:00:00", True, False),
    ("kr_stocks", "krx", "2026-01-24T10:00:00", False, False),  # Saturday
    ("kr_stocks", "krx", "2026-01-01T10:00:00", False, False),
    ("kr_stocks", "krx", "2026-01-02T09:30:00", True, False),  # first trading day: an hour late
    ("kr_stocks", "krx", "2026-01-02T10:00:00", True, True),
    ("kr_stocks", "krx", "2026-07-17T10:00:00", False, False),  # a holiday that the library does not know
    ("kr_stocks", "krx", "2026-06-03T10:00:00", False, False),
    ("kr_stocks", "krx", "2026-11-19T09:30:00", True, False),  # exam day: an hour late at both ends
    ("kr_stocks", "krx", "2026-11-19T16:29:59", True, True),
    ("kr_stocks", "nxt", "2026-11-19T16:19:59", True, True),
    ("kr_stocks", "nxt", "2026-11-19T16:20:00", True, False),
    ("kr_stocks", "krx", "2026-12-31T10:00:00", False, False),
    ("us_stocks", "us", "2026-03-06T09:30:00", True, True),  # before and after the change of clocks
    ("us_stocks", "us", "2026-03-09T09:30:00", True, True),
    ("us_stocks", "us", "2026-03-09T09:29:59", True, False),
    ("us_stocks", "us", "2026-03-09T03:59:59", False, False),
    ("us_stocks", "us", "2026-11-26T10:00:00", False, False),  # Thanksgiving
    ("us_stocks", "us", "2026-11-27T13:00:00", True, False),  # half day
    ("us_stocks", "us", "2026-11-27T17:00:00", False, False),
    ("us_stocks", "us", "2026-11-25T19:59:59", True, False),
    ("crypto", "kr", "2026-01-01T03:00:00", True, True),
]


@pytest.mark.parametrize(("market", "venue", "instant", "any_trading", "regular"), OPEN)
def test_open_and_closed(year: Calendar, market: str, venue: str, instant: str, any_trading: bool, regular: bool) -> None:
    ts_ns = at(instant, calendar.ZONES[market])
    assert year.covers(market, venue, ts_ns)
    assert year.is_open(market, venue, ts_ns) is any_trading
    assert year.is_open(market, venue, ts_ns, regular=True) is regular


NEXT = [
    ("kr_stocks", "krx", "2026-01-22T10:00:00", "2026-01-23T08:30:00"),
    ("kr_stocks", "krx", "2026-01-22T08:29:59", "2026-01-22T08:30:00"),
    ("kr_stocks", "krx", "2026-01-22T08:30:00", "2026-01-23T08:30:00"),  # strictly after
    ("kr_stocks", "krx", "2026-09-23T21:00:00", "2026-09-28T07:00:00"),  # over the autumn holidays
    ("kr_stocks", "nxt", "2026-07-16T21:00:00", "2026-07-20T08:00:00"),
    ("us_stocks", "us", "2026-11-25T21:00:00", "2026-11-27T04:00:00"),
]


@pytest.mark.parametrize(("market", "venue", "instant", "expected"), NEXT)
def test_next_open(year: Calendar, market: str, venue: str, instant: str, expected: str) -> None:
    zone = calendar.ZONES[market]
    assert year.next_open(market, venue, at(instant, zone)) == at(expected, zone)


SPANS = [
    ("kr_stocks", "2026-09-15T14:00:00", "2026-09-15T14:05:00", ["2026-09-15T14:00:00 2026-09-15T14:05:00"]),
    ("kr_stocks", "2026-09-15T21:00:00", "2026-09-16T09:05:00", ["2026-09-16T07:00:00 2026-09-16T09:05:00"]),
    ("kr_stocks", "2026-09-15T21:00:00", "2026-09-16T07:00:00", []),
    ("kr_stocks", "2026-09-18T20:00:00", "2026-09-20T23:00:00", []),  # a weekend
    ("kr_stocks", "2026-09-18T19:59:00", "2026-09-21T06:50:00", ["2026-09-18T19:59:00 2026-09-18T20:00:00"]),
    (
        "kr_stocks", "2026-09-17T19:00:00", "2026-09-21T08:00:00",
        ["2026-09-17T19:00:00 2026-09-17T20:00:00", "2026-09-18T07:00:00 2026-09-18T20:00:00", "2026-09-21T07:00:00 2026-09-21T08:00:00"],
    ),
    ("crypto", "2026-09-19T03:00:00", "2026-09-19T03:00:01", ["2026-09-19T03:00:00 2026-09-19T03:00:01"]),
    ("kr_stocks", "1970-01-05T10:00:00", "1970-01-05T11:00:00", []),  # a clock that was not set: no hours are known, and none is asked for
    ("kr_stocks", "1970-01-05T10:00:00", "2026-09-15T14:00:00", ["1970-01-05T10:00:00 2026-09-15T14:00:00"]),
]  # fmt: skip


@pytest.mark.parametrize(("market", "start", "end", "expected"), SPANS)
@pytest.mark.parametrize("bare", [False, True])
def test_open_spans(year: Calendar, bare: bool, market: str, start: str, end: str, expected: list[str]) -> None:
    """Also by the standing hours alone, without dates."""
    one = Calendar({}, 0, 0) if bare else year
    told = [tuple(at(text) for text in span.split()) for span in expected]
    assert one.open_spans(market, "kr" if market == "crypto" else "krx", at(start), at(end)) == told


def test_lead_opens_early(year: Calendar) -> None:
    ts_ns = at("2026-09-15T06:50:00")
    assert not year.is_open("kr_stocks", "krx", ts_ns)
    assert year.is_open("kr_stocks", "krx", ts_ns, lead_s=600)
    assert not year.is_open("kr_stocks", "krx", ts_ns - 1, lead_s=600)
    midnight = at("2026-09-14T23:59:59")  # the lead reaches over the date
    assert year.is_open("kr_stocks", "krx", midnight, lead_s=7 * 3600 + 1)


@pytest.mark.parametrize(
    ("market", "instant", "zone", "day"),
    [
        ("kr_stocks", "2026-01-22T23:59:59", SEOUL, 20260122),
        ("us_stocks", "2026-01-23T09:00:00", SEOUL, 20260122),
        ("crypto", "2026-01-23T08:59:59", SEOUL, 20260122),
        ("crypto", "2026-01-23T09:00:00", SEOUL, 20260123),
    ],
)
def test_trading_day_is_the_local_date(year: Calendar, market: str, instant: str, zone: ZoneInfo, day: int) -> None:
    assert year.trading_day(market, "", at(instant, zone)) == day


def test_without_dated_data_the_weekday_hours_stand_in() -> None:
    bare = Calendar({}, 0, 0)
    thursday, holiday, saturday = at("2026-01-22T10:00:00"), at("2026-01-01T10:00:00"), at("2026-01-24T10:00:00")
    assert not bare.covers("kr_stocks", "krx", thursday)
    assert bare.covers("crypto", "kr", thursday)
    assert bare.is_open("kr_stocks", "krx", thursday)
    assert bare.is_open("kr_stocks", "krx", holiday)  # rather a quiet connection than a lost day
    assert not bare.is_open("kr_stocks", "krx", saturday)
    assert bare.next_open("kr_stocks", "krx", saturday) == at("2026-01-26T08:30:00")
    assert bare.next_open("crypto", "kr", saturday) == saturday
    assert bare.session("kr_stocks", "nxt", date(2025, 3, 3)) is None  # the day before it opened


def test_unknown_market_is_an_error() -> None:
    with pytest.raises(ValueError, match="no hours for market='moon'"):
        calendar.standing_session("moon", "dark", date(2026, 1, 1))


def test_stored_and_loaded_is_the_same(year: Calendar, tmp_path: Path) -> None:
    path = tmp_path / "state" / "calendar.json"
    calendar.save(year, path)
    again = calendar.load(path)
    assert again.sessions == year.sessions
    assert (again.first_day, again.last_day) == (20260101, 20270131)
    assert [item.name for item in path.parent.iterdir()] == ["calendar.json"]
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": "another"}', '{"format": "obs calendar 1", "first_day": 1}'])
def test_a_broken_file_falls_back(tmp_path: Path, text: str) -> None:
    path = tmp_path / "calendar.json"
    path.write_text(text)
    assert calendar.load(path).sessions == {}
    assert calendar.load(tmp_path / "none.json").sessions == {}


def test_renewed_only_when_it_runs_out(tmp_path: Path) -> None:
    path = tmp_path / "calendar.json"
    start = at("2026-03-02T12:00:00")
    made = renew(path, start)
    assert made.covers("kr_stocks", "krx", at("2026-03-20T12:00:00"))
    before = path.stat().st_mtime_ns
    renew(path, start + 3 * 86400 * 10**9)
    assert path.stat().st_mtime_ns == before
    later = renew(path, start + 20 * 86400 * 10**9)
    assert later.covers("us_stocks", "us", at("2026-04-05T12:00:00"))
    assert calendar.load(path).last_day == later.last_day > made.last_day


def test_sessions_are_ordered_inside(year: Calendar) -> None:
    for days in year.sessions.values():
        previous = Session(0, 0, 0, 0, 0)
        for session in days:
            assert session.open_ns <= session.regular_open_ns < session.regular_close_ns <= session.close_ns, session
            assert previous.close_ns < session.open_ns
            previous = session
