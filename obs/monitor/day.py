"""One day of one provider, as its page shows it: what the files tell, joined with what the database tells of each symbol.

The day is the path date of the provider's market, its span that of the hours in which trades may come; the whole local date where it
records always. Files tell of gaps, sessions, marks, and which symbols were heard; the database of minutes and records. Without a
database the page is poorer and says so.

Coverage of a symbol is the mean over its minutes, from the first to the last that it has: of each what its bar says, less what lay in
gaps (obs.monitor.coverage). A database alone would not know of minutes that are not there, or in which the venue was mute.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

from obs.clock import MINUTE_NS, NS
from obs.config import ProviderConfig
from obs.market.calendar import ALWAYS, STANDING, ZONES, Calendar
from obs.monitor.coverage import coverage_of, joined, mean_of, worst_of
from obs.monitor.gaps import Gap, Heat, gaps_inside, heat, seconds
from obs.monitor.notices import Digest, Digests, events_folder
from obs.segment.format import Series
from obs.segment.sessions import read_sessions
from obs.segment.textlog import day_files

_MS: Final = 1_000_000


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
    """What the database tells of a symbol on one day. bars: minute of the day -> its coverage_ratio, None in tape mode; not empty."""

    symbol: str
    records: int
    bars: Mapping[int, float | None]


def zone_of(market: str) -> ZoneInfo:
    return ZONES.get(market, ZoneInfo("UTC"))


def end_of(market: str, day: str) -> int:
    """Return when a path date ends (UTC ns): at midnight of the market."""
    return _midnight_ns(market, _date_of(day) + timedelta(days=1))


def _midnight_ns(market: str, on: date) -> int:
    return int(datetime.combine(on, time(), zone_of(market)).timestamp()) * NS


def _date_of(day: str) -> date:
    return date(int(day[:4]), int(day[4:6]), int(day[6:]))


def today(provider: ProviderConfig, now_ns: int) -> str:
    """Return the path date of now."""
    return f"{datetime.fromtimestamp((now_ns - 1) // NS, zone_of(provider.market)):%Y%m%d}"


def span_of(provider: ProviderConfig, day: str, calendar: Calendar) -> Span:
    """Return the minutes of a path date (YYYYMMDD): the market's hours, or all of the local date."""
    on = _date_of(day)
    place = (provider.market, provider.venue)
    if provider.hours != "always" and provider.market not in ALWAYS and place in STANDING:
        session = calendar.session(*place, on)
        if session is not None:
            return Span(session.open_ns, -(-(session.close_ns - session.open_ns) // MINUTE_NS))
    start_ns, end_ns = _midnight_ns(provider.market, on), _midnight_ns(provider.market, on + timedelta(days=1))
    return Span(start_ns, (end_ns - start_ns) // MINUTE_NS)


def digests_of(digests: Digests, provider: str, day: str) -> tuple[Digest, Digest]:
    """Return the digests in which the gaps of a day stand, that of the day and that of the next file there is, which may be empty.

    A line stands in the file of the day in which its gap ended: what lasted over days in the next file that there is.
    """
    return digests.of(provider, day), digests.of(provider, digests.after(provider, day))


def gaps_of(digests: Digests, provider: str, day: str, span: Span) -> list[Gap]:
    """Return the gaps that touch a day, in the order of their time."""
    found = [gap for digest in digests_of(digests, provider, day) for gap in digest.gaps]
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
        if info.host_death and info.next_started_ns:  # its end line was written by a later one
            end_ns = min(end_ns, info.next_started_ns)
        if info.started_ns < span.end_ns and (not end_ns or end_ns >= span.start_ns):
            how = "host_death" if info.host_death else "ended" if info.ended is not None else "open"
            found.append(
                {"id": info.session_id, "start_ms": info.started_ns // _MS, "end_ms": end_ns // _MS if end_ns else None, "reason": how}
            )
    return found


def symbols_of(
    rows: Sequence[SymbolRow] | None, heard: Iterable[str], gaps: Sequence[Gap], span: Span, names: dict[str, str]
) -> list[dict[str, Any]]:
    """Return one row for each symbol that the database, the files or a gap knows of. `rows` None: the database was not to be had.

    judged: the minutes of which its coverage speaks.
    """
    by_symbol = {row.symbol: row for row in rows or ()}
    live = [gap for gap in gaps if gap.scope != "swing"]
    everywhere = [gap for gap in live if gap.symbol is None]
    away = joined(gap[:2] for gap in everywhere)  # once for all: there may be thousands of each
    own: dict[str, list[Gap]] = {}
    for gap in live:
        if gap.symbol is not None:
            own.setdefault(gap.symbol, []).append(gap)
    found = []
    for symbol in sorted({*by_symbol, *heard, *own}):
        row = by_symbol.get(symbol)
        mine = own.get(symbol, [])
        spans = [*(gap[:2] for gap in mine), *away]
        one: dict[str, Any] = {
            "symbol": symbol, "name": names.get(symbol, ""), "minutes": None, "records": None, "coverage": None, "worst": None,
            "judged": 0, "gaps": len(mine) + len(everywhere), "gap_seconds": round(seconds(_within(spans, span)), 3),
            "first_ms": None, "last_ms": None,
        }  # fmt: skip
        if row is not None:
            covered = coverage_of(row.bars, spans, span.start_ns)
            one |= {
                "minutes": len(row.bars), "records": row.records, "coverage": mean_of(covered), "worst": worst_of(covered),
                "judged": len(covered), "first_ms": (span.start_ns + min(row.bars) * MINUTE_NS) // _MS,
                "last_ms": (span.start_ns + (max(row.bars) + 1) * MINUTE_NS) // _MS,
            }  # fmt: skip
        elif rows is not None:
            one |= {"minutes": 0, "records": 0}
        found.append(one)
    return found


def totals_of(symbols: Sequence[dict[str, Any]], gaps: Sequence[Gap], span: Span) -> dict[str, Any]:
    """Return the sums of a day, as `obs gaps` adds them up.

    gaps: those that no other one holds; gap_seconds: how long anything was missing; coverage: of all minutes of all symbols.
    """
    known = [one for one in symbols if one["coverage"] is not None]
    within = gaps_inside(gaps)
    live = (gap[:2] for at, gap in enumerate(gaps) if gap.scope != "swing" and at not in within)
    minutes = sum(one["judged"] for one in known)
    return {
        "records": sum(one["records"] for one in symbols) if all(one["records"] is not None for one in symbols) and symbols else None,
        "gaps": len(gaps) - len(within), "gap_seconds": round(seconds(_within(live, span)), 3),
        "coverage": round(sum(one["coverage"] * one["judged"] for one in known) / minutes, 4) if minutes else None,
    }  # fmt: skip


def symbol_coverage(symbol: str, bars: Mapping[int, float | None], gaps: Iterable[Gap], span: Span) -> dict[int, float]:
    """Return minute -> coverage of one symbol; what it comes to is what `symbols_of` says of it."""
    concern = (gap[:2] for gap in gaps if gap.scope != "swing" and gap.symbol in (None, symbol))
    return coverage_of(bars, concern, span.start_ns)


def _within(spans: Iterable[tuple[int, int]], span: Span) -> Iterable[tuple[int, int]]:
    return ((max(start, span.start_ns), min(end, span.end_ns)) for start, end in spans)
