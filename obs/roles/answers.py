"""The answers of the monitor that need more than the last look: slots, gaps, days, symbols, events. Each is a JSON value.

Files are read by one thread of its own: a hung disk holds that thread and no client beyond a while, and a big day does not hold the
event loop. What was read stays (obs.monitor.notices), so that asking again costs what was added.

The database may be away: an answer then says so in `database`, holds what the files tell, and asks again after a few seconds. The
library for it is loaded by the first request that needs it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from obs.clock import MINUTE_NS, NS, Clock
from obs.config import Config, ProviderConfig
from obs.config.process import ProcessSpec
from obs.errors import ConfigError, LoadRetryable
from obs.lifecycle.marks import Mark, marked, path_of
from obs.log import Log
from obs.market import calendar as calendars
from obs.monitor import day as days
from obs.monitor.coverage import mean_of, worst_of
from obs.monitor.day import Span, SymbolRow
from obs.monitor.gaps import Gap, gaps_inside
from obs.monitor.notices import Digests, Notices
from obs.monitor.slots import Names, slots_of, unconfigured
from obs.segment.textlog import is_day

EVENTS: Final = 500  # at most in one answer
DAYS: Final = 60
GAPS: Final = 5000
_FILES_S: Final = 6.0  # the longest wait for files; what was begun goes on
_FILES_WAITING: Final = 32
_DATABASE_S: Final = 8.0
_AGAIN_S: Final = 5.0  # after the database was away
_AT_ONCE: Final = 2  # connections
_MS: Final = 1_000_000
_SYMBOL: Final = re.compile(r"[!-~]{1,20}")
_FIGURES: Final = ("open", "high", "low", "close", "volume", "coverage_ratio")
_COVERAGE: Final = 1 + _FIGURES.index("coverage_ratio")  # its place in a bar, behind the time
T = TypeVar("T")
Query = dict[str, str]


class NotGood(Exception):
    """A request that cannot be answered: the status, and what to do."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


class _Day(NamedTuple):
    """What the files tell of a day."""

    span: Span
    gaps: list[Gap]
    heard: list[str]
    names: dict[str, str]


class Answers:
    """Safety: its methods run in one event loop; what begins with an underscore and reads files, in its thread."""

    def __init__(self, spec: ProcessSpec, log: Log, clock: Clock) -> None:
        self._config: Config = spec.config
        self._dsn, self._log, self._clock = spec.dsn, log, clock
        self._root: Path = spec.config.data_dir
        self._thread = ThreadPoolExecutor(1, "files")
        self._waiting = 0
        self._digests, self._names = Digests(self._root), Names(self._root)
        self._database = Database(spec, clock)

    async def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def files(self, work: Callable[[], T]) -> T:
        """Run in the thread. Raises NotGood if that takes too long, or if too many wait already."""
        if self._waiting >= _FILES_WAITING:
            raise NotGood(503, "too many requests wait for the disk: ask again in a few seconds")
        self._waiting += 1
        future = asyncio.get_running_loop().run_in_executor(self._thread, work)
        future.add_done_callback(self._done)
        try:
            return await asyncio.wait_for(asyncio.shield(future), _FILES_S)
        except TimeoutError:
            raise NotGood(503, f"the disk has not answered within {_FILES_S:g} s: see the health reasons") from None
        except OSError as error:
            raise NotGood(503, f"the data directory does not read: {error.strerror or error}") from None

    def _done(self, future: asyncio.Future[Any]) -> None:
        self._waiting -= 1
        if not future.cancelled():
            future.exception()  # who waited has it, or has gone

    # --- requests

    async def slots(self, query: Query) -> dict[str, Any]:
        """Who has a slot, and why."""
        name = query.get("provider")
        return await self.files(lambda: self._slots(name))

    async def gaps(self, query: Query) -> dict[str, Any]:
        """The gap lines of a path date, with whether each lies within another."""
        name, symbol = query.get("provider"), self._symbol(query.get("symbol"))
        return await self.files(lambda: self._gaps(name, symbol, query))

    async def heat(self, query: Query) -> dict[str, Any]:
        """The map of gaps of a day."""
        return await self.files(lambda: self._heat(self._provider(query), query))

    async def day(self, query: Query) -> dict[str, Any]:
        """Everything of a day."""
        provider, date, read = await self.files(lambda: self._read(query))
        rows, why = await self._database.ask(lambda conn: _day_rows(conn, provider.name, read.span))
        return await self.files(lambda: self._day(provider, date, read, rows, why))

    async def symbol(self, query: Query) -> dict[str, Any]:
        """Bars and gaps of one symbol on a day."""
        symbol = self._symbol(query.get("symbol"))
        if symbol is None:
            raise NotGood(400, "symbol = : name one, as records carry it")
        provider, date, read = await self.files(lambda: self._read(query))
        bars, why = await self._database.ask(lambda conn: _bars(conn, provider.name, symbol, read.span))
        if not bars:
            await self.know(provider.name, symbol, date)
        gaps, covered = await self.files(lambda: (self._gaps(provider.name, symbol, query), _covered(symbol, bars or [], read)))
        return {
            "provider": provider.name, "symbol": symbol, "name": read.names.get(symbol, ""), "date": date,
            "timezone": str(days.zone_of(provider.market)), "start_ms": read.span.start_ns // _MS, "minutes": read.span.minutes,
            "bars": bars or [], "coverage": mean_of(covered), "worst": worst_of(covered), "gaps": gaps["gaps"], "database": why,
        }  # fmt: skip

    async def know(self, provider: str, symbol: str, date: str = "") -> None:
        """Raise NotGood if a symbol is none that this data directory knows: a typo must not look like a symbol without records.

        Known are those with a slot or a place in the configuration or the day's universe, those that events of that day or of today
        name, and those with a bar of any day. While the database is away, it may have one.
        """
        if _SYMBOL.fullmatch(symbol):
            if await self.files(lambda: self._is_known(provider, symbol, date)):
                return
            found, _ = await self._database.ask(lambda conn: _queries().has_bars(conn, provider, symbol))
            if found is not False:
                return
        raise NotGood(404, f"{provider} knows no such symbol: write it as records do (005930, KRW-BTC); /api/slots lists those with a slot")

    async def days(self, _: Query) -> dict[str, Any]:
        """The anomaly days, newest first."""
        return await self.files(lambda: {"days": self._days(DAYS)})

    async def events(self, query: Query) -> dict[str, Any]:
        """The newest events of all providers but counts."""
        text = query.get("limit", "100")
        if not text.isdigit() or not 1 <= int(text) <= EVENTS:
            raise NotGood(400, f"limit = {text[:20]}: 1 to {EVENTS}")
        return await self.files(lambda: {"events": Notices(self._root).newest(int(text))})

    # --- what they are made of; all in the thread

    def _providers(self) -> list[ProviderConfig]:
        return [*self._config.planned(), *unconfigured(self._config)]

    def _provider(self, query: Query) -> ProviderConfig:
        known, name = self._providers(), query.get("provider")
        found = next((one for one in known if name in (None, "", one.name)), None)
        if found is None:
            raise NotGood(404, f"no such provider; there are: {', '.join(one.name for one in known) or 'none'}")
        return found

    def _date(self, query: Query, provider: ProviderConfig) -> str:
        text = query.get("date", "").replace("-", "")
        if not text:
            return days.today(provider, self._clock.wall_ns())
        if not is_day(text):
            raise NotGood(400, "date: YYYYMMDD, a day of the market")
        return text

    @staticmethod
    def _symbol(text: str | None) -> str | None:
        if text and not _SYMBOL.fullmatch(text):
            raise NotGood(400, "symbol: 1 to 20 printable ASCII characters")
        return text or None

    def _is_known(self, name: str, symbol: str, date: str) -> bool:
        provider = self._provider({"provider": name})
        slots = slots_of(self._config, provider, self._say, self._names) or {"slots": (), "leaving": ()}
        if symbol in (*provider.symbols, *slots["leaving"], *(row["symbol"] for row in slots["slots"])):
            return True
        asked = date.replace("-", "")
        for one in {days.today(provider, self._clock.wall_ns()), *((asked,) if is_day(asked) else ())}:
            digest = self._digests.of(provider.name, one)
            if symbol in digest.heard or any(gap.symbol == symbol for gap in digest.gaps):
                return True
            if symbol in self._names.of(provider.market, int(one), self._say):
                return True
        return False

    def _slots(self, name: str | None) -> dict[str, Any]:
        chosen = [one for one in self._providers() if name in (None, "", one.name)]
        return {"providers": [found for one in chosen if (found := slots_of(self._config, one, self._say, self._names))]}

    def _say(self, text: str) -> None:
        self._log.warning("slots_not_whole", text=text)

    def _gaps(self, name: str | None, symbol: str | None, query: Query) -> dict[str, Any]:
        chosen = [self._provider(query)] if name else self._providers()
        lines: list[dict[str, Any]] = []
        more = unreadable = 0
        for provider in chosen:
            digest, after = days.digests_of(self._digests, provider.name, self._date(query, provider))
            end_ns = days.end_of(provider.market, self._date(query, provider))
            found = [(gap, digest) for gap in digest.gaps] + [(gap, after) for gap in after.gaps if gap.start_ns < end_ns]
            found = sorted((pair for pair in found if symbol in (None, pair[0].symbol or symbol)), key=lambda pair: pair[0][:2])
            within, cut = gaps_inside([gap for gap, _ in found]), max(0, len(found) - GAPS)
            for one, run in groupby(enumerate(found[cut:], cut), key=lambda item: item[1][1]):
                places, gaps = zip(*((at, gap) for at, (gap, _) in run), strict=True)
                lines += [line | {"within": at in within} for at, line in zip(places, one.lines(gaps), strict=True)]
            more, unreadable = more + cut + digest.more_gaps, unreadable + digest.unreadable
        lines.sort(key=lambda line: str(line.get("gap_start_ts")))
        return {"gaps": lines, "more": more, "unreadable": unreadable}

    def _read(self, query: Query) -> tuple[ProviderConfig, str, _Day]:
        provider = self._provider(query)
        date = self._date(query, provider)
        span = days.span_of(provider, date, calendars.load(self._root / "state" / "calendar.json"))
        gaps = days.gaps_of(self._digests, provider.name, date, span)
        heard = list(self._digests.of(provider.name, date).heard)
        return provider, date, _Day(span, gaps, heard, self._names.of(provider.market, int(date), self._say))

    def _heat(self, provider: ProviderConfig, query: Query) -> dict[str, Any]:
        _, date, read = self._read(query)
        return {
            "provider": provider.name, "date": date, "start_ms": read.span.start_ns // _MS, "minutes": read.span.minutes,
            "timezone": str(days.zone_of(provider.market)), **days.heat_of(read.gaps, read.span).to_json(),
            "sessions": days.sessions_of(self._root, provider.name, read.span),
        }  # fmt: skip

    def _day(self, provider: ProviderConfig, date: str, read: _Day, rows: list[SymbolRow] | None, why: str) -> dict[str, Any]:
        map_ = days.heat_of(read.gaps, read.span)
        symbols = days.symbols_of(rows, read.heard, read.gaps, read.span, read.names)
        known = days.days_with_data(self._root, provider)
        marks = [mark for mark in self._marks(provider.name) if mark["day"] == date]
        zone, sessions = str(days.zone_of(provider.market)), days.sessions_of(self._root, provider.name, read.span)
        place: dict[str, Any] = {"provider": provider.name, "date": date, "timezone": zone}
        return {
            **place, "market": provider.market, "previous": max((one for one in known if one < date), default=None),
            "next": min((one for one in known if one > date), default=None), "anomaly": {**marks[0], "marks": marks} if marks else None,
            "sessions": sessions, "symbols": symbols,
            "heat": {**place, "start_ms": read.span.start_ns // _MS, "minutes": read.span.minutes, **map_.to_json(), "sessions": sessions},
            "totals": days.totals_of(symbols, read.gaps, read.span), "database": why,
        }  # fmt: skip

    def _days(self, limit: int) -> list[dict[str, Any]]:
        found = [mark for path in (self._root / "system" / "days").glob("*.jsonl") for mark in self._marks(path.stem)]
        return sorted(found, key=lambda mark: (mark["day"], mark["ts_ns"]), reverse=True)[:limit]

    def _marks(self, provider: str) -> list[dict[str, Any]]:
        return [_mark(mark) for mark in marked(path_of(self._root, provider)).values()]


def _mark(mark: Mark) -> dict[str, Any]:
    return {
        "provider": mark.provider, "market": mark.market, "day": str(mark.day), "reason": mark.reason, "detail": mark.detail,
        "by": mark.by, "ts_ns": mark.ts_ns,
    }  # fmt: skip


class Database:
    """Asks the database, a connection for each question; says why where that was not possible."""

    def __init__(self, spec: ProcessSpec, clock: Clock) -> None:
        self._given, self._root, self._clock = spec.dsn, spec.config.data_dir, clock
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._away, self._again_ns = "", 0

    async def ask(self, question: Callable[[Any], Awaitable[T]]) -> tuple[T | None, str]:
        """Return the answer, or None and why there is none."""
        if self._away and self._clock.mono_ns() < self._again_ns:
            return None, self._away
        try:
            async with asyncio.timeout(_DATABASE_S), self._places:
                answer = await self._asked(question)
        except TimeoutError:
            self._away = f"the database has not answered within {_DATABASE_S:g} s"
        except LoadRetryable as error:
            self._away = str(error)
        except ConfigError as error:
            self._away = error.message
        else:
            self._away = ""
            return answer, ""
        self._again_ns = self._clock.mono_ns() + int(_AGAIN_S * NS)
        return None, self._away

    async def _asked(self, question: Callable[[Any], Awaitable[T]]) -> T:
        queries = await asyncio.to_thread(_queries)
        conn = await queries.connect_reader(self._given or await asyncio.to_thread(_embedded, self._root))
        try:
            return await question(conn)
        finally:
            await conn.close()


def _queries() -> Any:
    from obs.pg import queries  # 10 MB that a monitor nobody asks does not pay

    return queries


def _embedded(root: Path) -> str:
    from obs.pg.embedded import EmbeddedPostgres

    return EmbeddedPostgres(root / "pg").dsn()


def _moments(span: Span) -> tuple[datetime, datetime]:
    return datetime.fromtimestamp(span.start_ns // NS, UTC), datetime.fromtimestamp(span.end_ns // NS, UTC)


def _ns(moment: datetime) -> int:
    return int(moment.timestamp()) * NS


async def _day_rows(conn: Any, provider: str, span: Span) -> list[SymbolRow]:
    rows = await _queries().get_day_symbols(conn, provider, *_moments(span))
    return [
        SymbolRow(row["symbol"], row["records"], dict(zip(row["minutes"], row["ratios"], strict=True)))
        for row in rows
    ]


async def _bars(conn: Any, provider: str, symbol: str, span: Span) -> list[list[Any]]:
    rows = await _queries().get_1m_bars(conn, provider, symbol, *_moments(span))
    return [[_ns(row["minute"]) // _MS, *map(_number, map(row.get, _FIGURES)), row["records"], row["quality_flag"]] for row in rows]


def _covered(symbol: str, bars: list[list[Any]], read: _Day) -> dict[int, float]:
    """Put the coverage that also knows of gaps into bars; return minute -> coverage, with the minutes that have no bar."""
    minutes = [(bar[0] * _MS - read.span.start_ns) // MINUTE_NS for bar in bars]
    covered = days.symbol_coverage(symbol, {at: bar[_COVERAGE] for at, bar in zip(minutes, bars, strict=True)}, read.gaps, read.span)
    for at, bar in zip(minutes, bars, strict=True):
        if at in covered:
            bar[_COVERAGE] = round(covered[at], 6)
    return covered


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
