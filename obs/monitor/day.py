"""One day of one provider, as its page shows it: what the files tell, joined with what the database tells of each symbol.

The day is the path date of the provider's market, its span that of the hours in which trades may come; the whole local date where it
records always. Files tell of gaps, sessions, marks, and which symbols were heard; the database of minutes and records. Without a
database the page is poorer and says so.

Coverage of a symbol is the mean over its minutes, those that it has and those between them that lie wholly in gaps, which count 0:
a database alone would not know of minutes that are not there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

from obs.clock import MINUTE_NS, NS
from obs.config import ProviderConfig
from obs.market.calendar import ALWAYS, STANDING, ZONES, Calendar
from obs.monitor.gaps import Gap, Heat, heat, seconds
from obs.monitor.notices import Digests, events_folder
from obs.segment.format import Series
from obs.segment.sessions import read_sessions
from obs.segment.textlog import day_files

_MS: Final = 1_000_000
_WHOLE_S: Final = 59.9  # of a minute: nothing can have been recorded in it


@dataclass(frozen=True)
class Span:
    """One day of a market: `start_ns` of its first minute, and how many there are."""

    start_ns: int
    minutes: int

    @property
    def end_ns(self) -> int:
        return self.start_ns + self.minutes * MINUTE_NS


@dataclass(frozen=True)
class SymbolRow:
    """What the database tells of a symbol on one day: `minutes` with a bar, their coverage summed up and the least; both None in tape
    mode."""

    symbol: str
    minutes: int
    records: int
    covered: float | None
    worst: float | None
    first_ns: int
    last_ns: int


def zone_of(market: str) -> ZoneInfo:
    return ZONES.get(market, ZoneInfo("UTC"))


def today(provider: ProviderConfig, now_ns: int) -> str:
    """Return the path date of now."""
    return f"{datetime.fromtimestamp((now_ns - 1) // NS, zone_of(provider.market)):%Y%m%d}"


def span_of(provider: ProviderConfig, day: str, calendar: Calendar) -> Span:
    """Return the minutes of a path date (YYYYMMDD): the market's hours, or all of the local date."""
    on = date(int(day[:4]), int(day[4:6]), int(day[6:]))
    place = (provider.market, provider.venue)
    if provider.hours != "always" and provider.market not in ALWAYS and place in STANDING:
        session = calendar.session(*place, on)
        if session is not None:
            return Span(session.open_ns, -(-(session.close_ns - session.open_ns) // MINUTE_NS))
    zone = zone_of(provider.market)
    start, end = (int(datetime.combine(one, time(), zone).timestamp()) for one in (on, on + timedelta(days=1)))
    return Span(start * NS, (end - start) // 60)


def gaps_of(digests: Digests, provider: str, day: str, span: Span) -> list[Gap]:
    """Return the gaps that touch a day, in the order of their time: a line stands in the file of the day in which its gap ended."""
    after = f"{date(int(day[:4]), int(day[4:6]), int(day[6:])) + timedelta(days=1):%Y%m%d}"
    found = [*digests.of(provider, day).gaps, *digests.of(provider, after).gaps]
    return sorted((gap for gap in found if gap.start_ns < span.end_ns and gap.end_ns >= span.start_ns), key=lambda gap: gap[:2])


def heat_of(gaps: Iterable[Gap], span: Span) -> Heat:
    """Return the map of the live track: a sweep that came short has symbols by the thousand, and a list of its own."""
    return heat((gap for gap in gaps if gap.scope != "swing"), span.start_ns, span.minutes)


def days_with_data(data_dir: Path, provider: ProviderConfig) -> list[str]:
    """Return the path dates of which there is anything, oldest first."""
    found = {path.name for path in Series(data_dir, "scalp", provider.name, provider.market).day_folders()}
    found |= {path.stem for path in day_files(events_folder(data_dir, provider.name))}
    return sorted(found)


def sessions_of(data_dir: Path, provider: str, span: Span) -> list[dict[str, Any]]:
    """Return the sessions that touch a day, and how each ended; the one that lives has no end."""
    found = []
    for info in read_sessions(data_dir, provider):
        end_ns = info.ended_ns or info.next_started_ns
        if info.started_ns < span.end_ns and (not end_ns or end_ns >= span.start_ns):
            how = "host_death" if info.host_death else "ended" if info.ended is not None else "open"
            found.append(
                {"id": info.session_id, "start_ms": info.started_ns // _MS, "end_ms": end_ns // _MS if end_ns else None, "reason": how}
            )
    return found


def symbols_of(
    rows: Sequence[SymbolRow] | None, heard: Iterable[str], gaps: Sequence[Gap], map_: Heat, span: Span, names: dict[str, str]
) -> list[dict[str, Any]]:
    """Return one row for each symbol that the database, the files or a gap knows of. `rows` None: the database was not to be had."""
    by_symbol = {row.symbol: row for row in rows or ()}
    live = [gap for gap in gaps if gap.scope != "swing"]
    everywhere = [gap for gap in live if gap.symbol is None]
    own: dict[str, list[Gap]] = {}
    for gap in live:
        if gap.symbol is not None:
            own.setdefault(gap.symbol, []).append(gap)
    lost = [one[0] for one in map_.all if one[1] >= _WHOLE_S]
    lost_by = {symbol: {cell[1] for cell in map_.cells if cell[0] == at and cell[2] >= _WHOLE_S} for at, symbol in enumerate(map_.symbols)}
    found = []
    for symbol in sorted({*by_symbol, *heard, *own}):
        row = by_symbol.get(symbol)
        mine = [*own.get(symbol, ()), *everywhere]
        one: dict[str, Any] = {
            "symbol": symbol, "name": names.get(symbol, ""), "minutes": None, "records": None, "coverage": None, "worst": None,
            "gaps": len(mine), "gap_seconds": round(seconds(_within(mine, span)), 3), "first_ms": None, "last_ms": None,
        }  # fmt: skip
        if row is not None:
            first, last = ((at - span.start_ns) // MINUTE_NS for at in (row.first_ns, row.last_ns))
            missing = sum(first < minute < last for minute in {*lost, *lost_by.get(symbol, ())})
            one |= {
                "minutes": row.minutes, "records": row.records, "first_ms": row.first_ns // _MS,
                "last_ms": (row.last_ns + MINUTE_NS) // _MS,
            }  # fmt: skip
            if row.covered is not None and row.worst is not None:
                one["coverage"] = round(row.covered / (row.minutes + missing), 4)
                one["worst"] = 0.0 if missing else round(row.worst, 4)
        elif rows is not None:
            one |= {"minutes": 0, "records": 0}
        found.append(one)
    return found


def totals_of(symbols: Sequence[dict[str, Any]], gaps: Sequence[Gap], span: Span) -> dict[str, Any]:
    """Return the sums of a day. gap_seconds: how long anything was missing; coverage: of all minutes of all symbols."""
    live = [gap for gap in gaps if gap.scope != "swing"]
    known = [one for one in symbols if one["coverage"] is not None]
    minutes = sum(one["minutes"] for one in known)
    return {
        "records": sum(one["records"] for one in symbols) if all(one["records"] is not None for one in symbols) and symbols else None,
        "gaps": len(live), "gap_seconds": round(seconds(_within(live, span)), 3),
        "coverage": round(sum(one["coverage"] * one["minutes"] for one in known) / minutes, 4) if minutes else None,
    }  # fmt: skip


def _within(gaps: Iterable[Gap], span: Span) -> Iterable[tuple[int, int]]:
    return ((max(gap.start_ns, span.start_ns), min(gap.end_ns, span.end_ns)) for gap in gaps)
