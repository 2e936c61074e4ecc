"""A wall clock that is wrong or steps, and the moments at which a right one changes day, month, or daylight saving.

Two kinds of test (fake_clock.py tells how):
- our clock alone is wrong: supervisor and roles have it, the exchanges, the database and the test have the true one. Order and
  conservation are judged as ever; the clock is right again before the stop, because the checker compares it with the exchange's.
- a special moment comes for everybody: the exchanges have the same clock as we do, the database and the test do not.
Monotonic clocks are true everywhere: nothing may wait longer, or give up earlier, than by them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from checker import Verdict
from evidence import MARKETS, lines_of, segment_lines
from fake_clock import FakeClock
from harness import LONG, PROVIDERS, Demo, World, steady_for, until

Make = Callable[..., Demo]
pytestmark = pytest.mark.timeout(600 if LONG else 300)

VENUES = {"kis": ["--zombie-s", "0"], "upbit": []}
ZONES = {"kis": ZoneInfo("Asia/Seoul"), "kis_us": ZoneInfo("America/New_York"), "upbit": ZoneInfo("UTC")}
US_SYMBOLS = ["AAPL", "MSFT", "NVDA", "AMZN", "TSLA"]
SEGMENT_S = 5  # of the harness
HOUR_S = 3600.0
STEPS_S = (HOUR_S, 0.0, -HOUR_S, 0.0, -2.0, 0.0)  # ahead and back, behind and ahead, and a small correction
TURN_S = 30.0  # within which a step must have been digested
AROUND_S = 20.0 if LONG else 4.0  # of a moment, before and after
BEGUN_S = 600.0  # before the first moment: longer than a start takes, for the clock of a venue is never put back
ROLES = ("feed", "archive", "load", "poll")


@pytest.fixture
def clock(tmp_path: Path) -> Iterator[FakeClock]:
    made = FakeClock(tmp_path)
    yield made
    made.step_to(0.0)


def segments(one: Demo, provider: str) -> Iterator[tuple[Path, list[dict[str, Any]]]]:
    """Yield every segment with its records."""
    for path in sorted((one.data / "scalp" / provider / MARKETS[provider]).glob("*/*.jsonl.zst")):
        problems: list[str] = []
        yield path, [line for line in segment_lines(path, problems) if line.get("event_type") != "gap_marker"]
        assert not problems, problems


def filed_by_rule(one: Demo, provider: str) -> list[str]:
    """Assert that each record lies in the folder of its local day, and each file is named for its first; return the names."""
    names = []
    for path, records in segments(one, provider):
        local = [datetime.fromtimestamp((line["ts_ns"] - 1) // 10**9, UTC).astimezone(ZONES[provider]) for line in records]
        assert {f"{time:%Y%m%d}" for time in local} == {path.parent.name}, path
        words = path.name.removesuffix(".jsonl.zst").split("_")
        name, again = "_".join(words[:3]), "".join(f"_{word}" for word in words[3:])
        assert name == f"{local[0]:%H_%M_%S}", f"{path}: its first record is of {local[0]}"
        names.append(f"{path.parent.name}/{name}{again}")
    days = one.data / "system" / "events" / provider
    for path in days.glob("*.jsonl"):
        for line in lines_of(path, []):
            ts_ns = line["ts_ns"] if "ts_ns" in line else line["gap_end_ns"]
            told = datetime.fromtimestamp((ts_ns - 1) // 10**9, UTC).astimezone(ZONES[provider])
            assert f"{told:%Y%m%d}" == path.name[:8], f"{path}: {line}"
    return names


def confirmed(one: Demo) -> None:
    until("everything is confirmed", lambda: len(one.logged("subscribed")) == len(one.providers), TURN_S)


def nothing_lost(verdict: Verdict) -> None:
    assert not verdict.gaps, verdict.gaps
    assert verdict.sent == verdict.archived + verdict.unread_at_stop
    assert verdict.archived == verdict.database


def test_clock_steps(demo: Make, dsn: str, clock: FakeClock) -> None:
    """Ours is an hour wrong, in both directions, and is put right: nobody is killed, cut or late, nothing is lost or told twice."""
    one = demo(dsn=dsn, venues=VENUES, world=World(environ=clock.environ))
    one.start()
    confirmed(one)
    pids = {(role, provider): one.pid(role, provider) for role in ROLES for provider in PROVIDERS}
    for offset_s in STEPS_S:
        clock.step_to(offset_s)
        one.count("clock step")
        for provider in PROVIDERS:
            one.more(provider, 2 * SEGMENT_S * one.rate / 2 if LONG else 1000, TURN_S)
        one.caught_up(TURN_S)  # a sink that waits for a wall clock is late
    assert {key: one.pid(*key) for key in pids} == pids, "a process was restarted"
    verdicts = one.finish()
    for provider, verdict in verdicts.items():
        nothing_lost(verdict)
        assert [event for event in verdict.events if event["event_type"] == "reconnection_event"] == []
        steps = [event for event in verdict.events if event.get("what") == "clock_step"]
        assert len(steps) == sum(after < before for before, after in zip((0.0, *STEPS_S), STEPS_S, strict=False)), steps
        names = filed_by_rule(one, provider)
        assert len(set(names)) == len(names)


def test_clock_steps_back_while_disconnected(demo: Make, dsn: str, clock: FakeClock) -> None:
    """A loss that is open while the clock is put back by an hour: one gap row, and as long as the loss was."""
    one = demo(dsn=dsn, venues=VENUES, world=World(environ=clock.environ))
    clock.step_to(HOUR_S)
    one.start()
    confirmed(one)
    for provider in PROVIDERS:
        one.more(provider, 500)
        one.venues[provider].do("refuse", s=600.0)
        one.venues[provider].do("drop")
        until(f"{provider} is cut", lambda: one.counter("feed", provider, "reconnects") > 0)  # noqa: B023
    begun = time.monotonic()
    clock.step_to(0.0)
    one.count("clock step")
    steady_for("both are cut", 3.0, lambda: len(one.logged("subscribed")) == len(PROVIDERS))
    lasted_s = time.monotonic() - begun
    for provider in PROVIDERS:
        one.venues[provider].do("calm")
        one.more(provider, 500, 90.0)
    for provider, verdict in one.finish().items():
        gaps = [gap for gap in verdict.gap_lines if gap["reason"] == "ws_disconnect"]
        assert len(gaps) == 1, verdict.gaps
        assert gaps[0]["gap_end_ns"] - gaps[0]["gap_start_ns"] >= lasted_s * 1e9
        assert set(verdict.gaps) <= {"ws_disconnect/None", "venue_count/None"}
        filed_by_rule(one, provider)


def passes(one: Demo, clock: FakeClock, moment: datetime) -> None:
    """Let a moment come and go, with records on both sides of it."""
    assert clock.now_s() < moment.timestamp() - AROUND_S, "it would be put back"
    clock.set(moment.timestamp() - AROUND_S)
    for provider in one.providers:
        one.more(provider, AROUND_S / 2 * one.rate / 2 / len(one.providers), TURN_S)
    one.count("end of a day, or of daylight saving")
    until(f"{moment} has passed", lambda: clock.now_s() > moment.timestamp() + AROUND_S, 60.0)
    for provider in one.providers:
        one.more(provider, 200, TURN_S)


def test_days_and_months_end(demo: Make, dsn: str, clock: FakeClock) -> None:
    """The end of a month in Seoul, then that in UTC, nine hours on: each market has its own day, and its venue's count starts anew."""
    seoul = datetime(2027, 3, 1, tzinfo=ZONES["kis"])
    clock.set(seoul.timestamp() - BEGUN_S)
    one = demo(dsn=dsn, venues=VENUES, world=World(environ=clock.environ, venue_environ=clock.environ))
    one.start()
    passes(one, clock, seoul)
    passes(one, clock, datetime(2027, 3, 1, tzinfo=UTC))
    for provider, verdict in one.finish().items():
        nothing_lost(verdict)
        days = {name.partition("/")[0] for name in filed_by_rule(one, provider)}
        assert days == {"20270228", "20270301"}, days


def test_daylight_saving(demo: Make, dsn: str, clock: FakeClock) -> None:
    """New York: the hour that comes twice, both times, and the one that never comes. Files of the second time do not hurt the first's."""
    first = datetime(2026, 11, 1, 5, tzinfo=UTC)  # 01:00 EDT
    second = datetime(2026, 11, 1, 6, tzinfo=UTC)  # 01:00 EST
    spring = datetime(2027, 3, 14, 7, tzinfo=UTC)  # 02:00 EST = 03:00 EDT
    clock.set(first.timestamp() - BEGUN_S)
    us = {"type": "kis", "market": "us_stocks", "venue": "us", "symbols": US_SYMBOLS, "credentials": ["DEMO_KIS"]}
    world = World(environ=clock.environ, venue_environ=clock.environ)
    one = demo(dsn=dsn, venues={"kis_us": ["--zombie-s", "0"]}, world=world, **{"providers.kis_us": us})
    one.start()
    for moment in (first, second, spring):
        passes(one, clock, moment)
    verdict = one.finish()["kis_us"]
    nothing_lost(verdict)
    names = filed_by_rule(one, "kis_us")
    assert any(name.startswith("20261101/00_59_5") for name in names), names
    assert sum(name.startswith("20261101/01_00_0") for name in names) >= 2, names  # 01_00_00 and 01_00_00_2, as a rule
    assert any(name.startswith("20270314/03_00_0") for name in names), names
    assert not any(name.startswith("20270314/02") for name in names), names
