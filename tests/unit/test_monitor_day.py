"""A day as its page shows it, the trend of the looks, and where a path leads."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from obs.clock import MINUTE_NS, NS
from obs.config.options import ProviderConfig
from obs.market.calendar import Calendar
from obs.monitor.coverage import mean_of, worst_of
from obs.monitor.day import Span, SymbolRow, days_with_data, sessions_of, span_of, symbol_coverage, symbols_of, today, totals_of
from obs.monitor.gaps import Gap
from obs.monitor.health import Reason, Verdict
from obs.monitor.host import HostFigures, ProcessFigures
from obs.monitor.past import KEPT
from obs.monitor.trend import Trend
from obs.monitor.view import HostView, ProviderView, RoleView
from obs.roles.serving import NO_DAY, Route, route
from obs.segment.sessions import SessionStart, append_end, append_start

START = 1_795_219_200 * NS
KIS = ProviderConfig("kis", "kis", True, "kr_stocks", "krx", "", "", (), None, (), (), 41, "sample", "calendar")
UPBIT = replace(KIS, name="upbit", market="crypto", venue="kr")
STANDING = Calendar({}, 0, 0)


def gap(start_min: float, end_min: float, symbol: str | None = None, scope: str = "scalp") -> Gap:
    return Gap(START + int(start_min * MINUTE_NS), START + int(end_min * MINUTE_NS), symbol, "mute", "minor", scope, 0)


def utc(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * NS


@pytest.mark.parametrize(
    ("provider", "day", "start", "minutes"),
    [
        (UPBIT, "20260122", "2026-01-22 00:00", 1440),
        (KIS, "20260122", "2026-01-21 23:30", 570),  # 08:30 to 18:00 KST
        (replace(KIS, hours="always"), "20260122", "2026-01-21 15:00", 1440),
        (KIS, "20260124", "2026-01-23 15:00", 1440),  # a Saturday: nothing is traded, and a page of it is whole
        (replace(KIS, market="us_stocks", venue="us"), "20260308", "2026-03-08 05:00", 1380),  # a Sunday of 23 hours
        (replace(KIS, market="us_stocks", venue="us"), "20261101", "2026-11-01 04:00", 1500),
        (replace(KIS, market="", venue=""), "20260122", "2026-01-22 00:00", 1440),  # of another configuration
    ],
)
def test_the_minutes_of_a_day(provider: ProviderConfig, day: str, start: str, minutes: int) -> None:
    assert span_of(provider, day, STANDING) == Span(utc(start), minutes)


def test_today_is_that_of_the_market() -> None:
    assert (today(KIS, utc("2026-01-22 15:00")), today(KIS, utc("2026-01-22 15:00") + 1), today(UPBIT, utc("2026-01-22 15:01"))) == (
        "20260122", "20260123", "20260122",
    )  # fmt: skip


def test_a_minute_that_is_not_there_counts_as_nothing() -> None:
    """The database knows 8 whole minutes; two between them lie in gaps. A sweep that came short is one, and misses nothing live."""
    span = Span(START, 60)
    gaps = [gap(3, 4), gap(6, 7, "A"), gap(20, 30), gap(4.25, 4.75, "B"), gap(2, 3, "X", scope="swing")]
    row = SymbolRow("A", 960, {minute: 1.0 for minute in range(10) if minute not in (3, 6)})
    symbols = {one["symbol"]: one for one in symbols_of([row], ["C"], gaps, span, {"A": "에이"})}
    assert list(symbols) == ["A", "B", "C"]
    assert symbols["A"] == {
        "symbol": "A", "name": "에이", "minutes": 8, "records": 960, "coverage": 0.8, "worst": 0.0, "judged": 10, "gaps": 3,
        "gap_seconds": 720.0, "first_ms": START // 1_000_000, "last_ms": (START + 10 * MINUTE_NS) // 1_000_000,
    }  # fmt: skip
    assert (symbols["B"]["gaps"], symbols["B"]["gap_seconds"], symbols["B"]["records"], symbols["B"]["coverage"]) == (3, 690.0, 0, None)
    assert totals_of(list(symbols.values()), gaps, span) == {"records": 960, "gaps": 5, "gap_seconds": 750.0, "coverage": 0.8}
    away = symbols_of(None, ["A"], gaps, span, {})
    assert {one["symbol"]: one["records"] for one in away} == {"A": None, "B": None}
    assert totals_of(away, gaps, span)["records"] is None
    taped = symbols_of([replace(row, bars=dict.fromkeys(row.bars))], [], [], span, {})
    assert [(one["records"], one["coverage"], one["worst"]) for one in taped] == [(960, None, None)]


def test_a_minute_that_has_a_bar_and_lies_in_a_gap_counts_as_what_no_gap_took() -> None:
    """Records are sampled while the venue is mute, so such a minute has a whole bar and nothing was heard in it."""
    span = Span(START, 60)
    gaps = [gap(2, 3), gap(5.25, 5.75, "A"), gap(5.5, 6), gap(30, 32, "B"), gap(7, 8, "X", scope="swing")]
    rows = [SymbolRow("A", 1200, dict.fromkeys(range(10), 1.0)), SymbolRow("B", 240, {29: 0.5, 33: 0.75})]
    symbols = symbols_of(rows, [], gaps, span, {})
    assert [(one["symbol"], one["coverage"], one["worst"], one["judged"]) for one in symbols] == [
        ("A", 0.825, 0.0, 10), ("B", 0.3125, 0.0, 4),
    ]  # fmt: skip
    assert totals_of(symbols, gaps, span)["coverage"] == round((0.825 * 10 + 0.3125 * 4) / 14, 4)
    for row, shown in zip(rows, symbols, strict=True):  # the page of the symbol says the same
        covered = symbol_coverage(row.symbol, row.bars, gaps, span)
        assert (mean_of(covered), worst_of(covered)) == (shown["coverage"], shown["worst"])


def test_sessions_that_touch_a_day(tmp_path: Path) -> None:
    span = Span(START, 60)
    for number, minute in enumerate((-50, -10, 10, 100)):
        session = f"sess_20261121_00000{number}_kis_0001"
        append_start(tmp_path, SessionStart(session, "kis", START + minute * MINUTE_NS, "host", "boot", "1", "hash", {"tick": 16}))
        if number < 2:
            append_end(tmp_path, "kis", session, START + (minute + 15) * MINUTE_NS, {"tick": 3}, host_death=bool(number))
    found = sessions_of(tmp_path, "kis", span)
    assert [(one["id"][19], one["reason"], one["end_ms"]) for one in found] == [
        ("1", "host_death", (START + 5 * MINUTE_NS) // 1_000_000), ("2", "open", (START + 100 * MINUTE_NS) // 1_000_000),
    ]  # fmt: skip
    (tmp_path / "scalp" / "kis" / "kr_stocks" / "20261120").mkdir(parents=True)
    (tmp_path / "system" / "events" / "kis").mkdir(parents=True)
    (tmp_path / "system" / "events" / "kis" / "20261121.jsonl").touch()
    assert days_with_data(tmp_path, KIS) == ["20261120", "20261121"]


# --- trend


def look(second: int, messages: int, started: int = 1, busy: float = 0.0) -> HostView:
    counters: dict[str, int] = {"started_ns": started, "messages": messages, "inputs": 2 * messages, "records": 0}
    feed = RoleView("feed", "kis", 1, True, True, 0.0, "", 0.0, counters, ProcessFigures())
    provider = ProviderView("kis", "kr_stocks", "krx", "sample", True, True, True, True, 1, roles={"feed": feed})
    return HostView(START + second * NS, [provider], {}, {}, HostFigures(busy, 2.0 * second - busy))


GOOD, RED = Verdict(()), Verdict((Reason("mute", "kis", "text"),))


def test_rates_are_over_ten_seconds_of_one_life_of_a_feed() -> None:
    trend = Trend()
    assert (trend.rates("kis"), trend.cpu_used()) == ({"messages": None, "inputs": None, "records": None}, None)
    for second in range(30):
        trend.add(look(second, second**2, busy=second / 2), GOOD, second * NS)
        if second == 0:
            assert trend.rates("kis")["messages"] is None
    assert trend.rates("kis") == {"messages": (29**2 - 19**2) / 10, "inputs": (29**2 - 19**2) / 5, "records": 0.0}
    assert trend.cpu_used() == 0.25
    assert trend.rates("upbit")["messages"] is None
    trend.add(look(30, 3, started=2), GOOD, 30 * NS)
    assert trend.rates("kis")["messages"] is None, "it has begun anew: a rate over both lives would be nonsense"
    trend.add(look(31, 8, started=2), GOOD, 31 * NS)
    assert trend.rates("kis")["messages"] == 5.0


def test_since_when() -> None:
    trend = Trend()
    found: list[Any] = []
    for second, verdict in enumerate((GOOD, RED, RED, GOOD, RED)):
        trend.add(look(second, 0), verdict, second * NS)
        found.append((trend.since_ms - START // 1_000_000, trend.reason_since_ms("mute", "kis")))
    at = [START // 1_000_000 + 1000 * second for second in range(5)]
    assert found == [(0, None), (1000, at[1]), (1000, at[1]), (3000, None), (4000, at[4])]


def test_the_figures_of_the_last_minutes_are_kept() -> None:
    trend = Trend()
    for second in range(KEPT + 5):
        trend.add(look(second, 3 * second, busy=second / 2), GOOD, second * NS)
    past = trend.past.to_json()
    assert past["ms"] == [START // 1_000_000 + 1000 * second for second in range(5, KEPT + 5)]
    assert past["cpu"] == [0.25] * KEPT
    assert past["providers"] == {"kis": {"messages": [3.0] * KEPT, "records": [0.0] * KEPT}}


# --- paths


@pytest.mark.parametrize(
    ("path", "where"),
    [
        ("/", Route("page", "index.html")), ("/health", Route("health")), ("/metrics", Route("metrics")), ("/login", Route("login")),
        ("/day/20260122", Route("page", "day.html")), ("/day/2026-01-22", Route("redirect", "/day/20260122")),
        ("/day/20261399", NO_DAY), ("/day/2026-02-30", NO_DAY), ("/day/00000101", NO_DAY), ("/logout", Route("logout")),
        ("/day/2026-0122", Route("")), ("/day/../etc", Route("")), ("/symbol/kis/005930", Route("page", "symbol.html")),
        ("/symbol/upbit/KRW-BTC", Route("page", "symbol.html")), ("/symbol/kis", Route("")), ("/symbol/a/b/c", Route("")),
        ("/assets/base.css", Route("asset", "base.css")), ("/assets/lang/ko.json", Route("asset", "lang/ko.json")),
        ("/assets/../index.html", Route("")), ("/assets/.hidden", Route("")), ("/assets/a/../../x", Route("")), ("/assets//x", Route("")),
        ("/assets/", Route("")), ("/assets/a\0b", Route("")), ("/api/status", Route("api", "status")), ("/api/live", Route("api", "live")),
        ("/api/", Route("")), ("/nothing", Route("")), ("", Route("")), ("//evil.example/", Route("")),
    ],
)  # fmt: skip
def test_where_a_path_leads(path: str, where: Route) -> None:
    assert route(path) == where
