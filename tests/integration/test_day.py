"""A whole trading day of both venues in compressed time: who is swept, who has the slots, who is in the ledger, and when it ends.

A real poll, over HTTP, against a simulated venue of the same clock. The day has a scenario: groups of symbols trade many times as much
for ten minutes, one of them larger than there are slots, one price jumps and one symbol is halted; the other symbols are unremarkable,
so the right answer is known. The short form is an hour of the morning with a small universe; with OBS_FAULT_LONG=1 it is 09:00-15:30 KST
with 2,500 issues of KIS and 200 markets of Upbit. Both print their figures (-s).
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import pickle
import signal
import statistics
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from paces import RatedPace
from poll_rig import DEADLINE_S, LONG, ROOT, Rig

from obs.clock import NS
from obs.config.process import ProcessSpec, children_lock_path
from obs.log import Log
from obs.market import universe as u
from obs.market.calendar import OVERRIDES, save
from obs.market.compute import compute
from obs.record.schema import BAR_SOURCES
from obs.ring import Ring, copy_rows
from obs.roles.poll import Poll
from obs.roles.selection import Selection
from obs.roles.sweeps import BAR_NS
from obs.select import TriggerOptions, scores
from obs.select.triggers import TRIGGERS
from obs.sim.hours import hours_of
from obs.sim.universe import Universe, scenario_rows
from obs.supervisor.child import module_command

CANDLE = BAR_SOURCES.index("candle")
SURGE, SPIKE = TRIGGERS.index("volume_surge"), TRIGGERS.index("price_spike")
SLOTS = 41
QUOTE_S, CANDLE_S = 150.0, 300.0  # a quarter and half of the period
NO_STRAIN = "[mitigation]\nenabled = false\n"  # nobody archives here, so the oldest record grows old


class Day(NamedTuple):
    """`listed`: symbols of the venue; `start`: where the clock begins; `sweeps`: how many there are; `groups`: when some surge."""

    venue: str
    listed: int
    start: str
    rate: float  # while a sweep may be under way
    lull_rate: float  # and for the rest of each ten minutes
    sweeps: int
    groups: dict[int, int]  # number of the bar -> how many surge in it
    spike: int  # number of the bar
    candles: float  # the least share of rows with a true bar, over all sweeps: a machine that others use may be too slow for some


# A market hour: surges need two sweeps before them, to know what is usual, and the half hour until slots are chosen by triggers.
_HOUR, _WHOLE = {3: 6, 5: 60}, {3: 8, 6: 20, 9: 41, 12: 70, 16: 5, 20: 30, 24: 60, 28: 12}
DAYS = {
    "kis": Day("kis", 4000, "2026-11-20T08:59:00+09:00", 38.0, 450.0, 39, _WHOLE, 32, 0.95)
    if LONG else Day("kis", 300, "2026-11-20T08:59:30+09:00", 120.0, 120.0, 7, _HOUR, 6, 0.95),
    "upbit": Day("upbit", 310, "2026-11-20T00:00:01+00:00", 90.0, 900.0, 39, _WHOLE, 32, 0.95)
    if LONG else Day("upbit", 180, "2026-11-20T00:00:01+00:00", 120.0, 120.0, 7, _HOUR, 6, 0.95),
}  # fmt: skip


class Evaluation(NamedTuple):
    """One evaluation of the selection as the test saw it: columns in the order of `names`."""

    ns: int
    after_sweep: bool
    deciding: bool
    names: list[str]
    score: np.ndarray
    size: np.ndarray
    strength: np.ndarray
    held: frozenset[str]


@pytest.fixture
def evaluations(monkeypatch: pytest.MonkeyPatch) -> list[Evaluation]:
    """Every evaluation of the test's poll, with what it knew of each symbol."""
    seen: list[Evaluation] = []
    evaluate = Selection.evaluate

    def watched(self: Selection, now_ns: int, *, after_sweep: bool = False) -> None:
        evaluate(self, now_ns, after_sweep=after_sweep)
        known = self.watched
        score, strength = scores(known.state, known.mask(self.pins.pinned), now_ns, TriggerOptions())
        wanted = (self._board["wanted"].read_json() or {}).get("why", {})
        seen.append(
            Evaluation(
                now_ns, after_sweep, self.deciding(now_ns), list(known.symbols), score, known.size.copy(), strength, frozenset(wanted)
            )
        )

    monkeypatch.setattr(Selection, "evaluate", watched)
    return seen


def scenario(day: Day, market: Universe, first_bar_ns: int, start_ns: int) -> tuple[list[dict[str, Any]], dict[int, list[str]], str]:
    """Return the script, the symbols that surge in each bar, and the one whose price jumps. No symbol is used twice."""
    listing, wanted = market.listing, market.listing.wanted
    wanted &= listing.price >= (6000 if day.venue == "kis" else 0)  # in the universe, whatever the close of yesterday
    wanted &= listing.value >= 3e9  # many trades a minute: of a few, a sum times ten is not always three times the mean of such sums
    codes = [code for code, good in zip(listing.codes, wanted.tolist(), strict=True) if good]
    order = np.random.default_rng(39).permutation(len(codes)).tolist()
    lines: list[dict[str, Any]] = []
    groups: dict[int, list[str]] = {}
    free = [codes[place] for place in order]

    def play(what: str, symbol: str, bar: float, seconds: float, **how: float) -> None:
        at_s = (first_bar_ns + bar * BAR_NS - start_ns) / NS
        lines.append({"at_s": at_s, "do": what, "symbol": symbol, "for_s": seconds, **how})

    spiked, halted = free.pop(), free.pop()
    play("spike", spiked, day.spike + 0.5, 1200, factor=1.08)  # not while a sweep is under way, which may or may not see it
    play("halt", halted, 2, 1800)
    for bar, count in day.groups.items():
        if count > len(free):
            free = [codes[place] for place in order if codes[place] not in (spiked, halted)]  # those of the morning are usual again
        groups[bar] = [free.pop() for _ in range(min(count, len(free)))]
        for symbol in groups[bar]:
            play("surge", symbol, bar, 600, factor=12.0)
    return lines, groups, spiked


def check_bars(rows: np.ndarray, true: Universe) -> None:
    """Every row with a candle is the venue's own bar."""
    nan = float("nan")
    for row in rows[rows["bar_source"] == CANDLE]:
        bar = true.bar(row["symbol"].decode(), int(row["bar_ns"]))
        expected = (nan, nan, nan, nan, 0.0) if bar is None else bar[1:]
        made = [float(row[name]) for name in ("open", "high", "low", "close", "volume")]
        assert made == pytest.approx(expected, rel=1e-12, nan_ok=True), row["symbol"]


def check_ledger(found: list[Evaluation], ledger: list[dict[str, Any]]) -> int:
    """After each sweep the ledger names all with a score who have no slot, each with its rank among all with a score. Return how many."""
    by_time: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for entry in ledger:
        by_time[entry["ts_ns"]].append(entry)
    told = 0
    for one in found:
        best_first = sorted(
            (place for place, score in enumerate(one.score.tolist()) if score > 0), key=lambda at: (-one.score[at], -one.size[at], at)
        )
        rank = {one.names[place]: number for number, place in enumerate(best_first, 1)}
        entries = by_time.pop(one.ns, [])
        said = {entry["symbol"]: entry["rank"] for entry in entries}
        losers = {symbol: number for symbol, number in rank.items() if symbol not in one.held}
        if one.after_sweep and one.deciding:
            assert said == losers
        else:
            assert said.items() <= losers.items()
        assert len(said) == len(entries), "nobody stands twice"
        for entry in entries:
            assert entry["candidate_score"] == pytest.approx(one.score[one.names.index(entry["symbol"])], abs=1e-6)
            assert (entry["cutoff_rank"], entry["decision_reason"]) == (SLOTS, "slot_full")
        told += len(entries)
    assert not by_time, "entries of no evaluation"
    return told


def check_slots(found: list[Evaluation], groups: dict[int, list[str]], first_bar_ns: int, steps: list[dict[str, Any]]) -> dict[str, Any]:
    """Who surges has a slot after the first sweep that can see it, as far as there are slots."""
    sweeps = {(one.ns - first_bar_ns) // BAR_NS - 1: one for one in found if one.after_sweep and one.deciding}
    figures: dict[str, Any] = {"surged": 0, "held": 0, "crowded_out": 0, "others": 0}
    for bar, one in sweeps.items():
        fired = {name for name, strength in zip(one.names, one.strength[SURGE].tolist(), strict=True) if strength > 0}
        surging = set(groups.get(bar, ()))
        assert surging <= fired, f"bar {bar}: not seen to surge: {sorted(surging - fired)}"
        begun = set(groups.get(bar + 1, ()))  # a sweep that a busy machine makes late sees the begin of what comes next
        strangers = fired - surging - begun - set(groups.get(bar - 1, ()))
        figures["others"] += len(strangers)  # they may take free slots, never one from a better score
        score = dict(zip(one.names, one.score.tolist(), strict=True))
        left_out = surging - one.held
        figures["surged"] += len(surging)
        figures["held"] += len(surging & one.held)
        figures["crowded_out"] += len(left_out)
        if left_out:
            best = max(score[symbol] for symbol in left_out)
            assert len(one.held) == SLOTS
            assert min(score[symbol] for symbol in one.held) * 1.2 >= best, f"bar {bar}: a better one was left out"
        assert not left_out or len(surging) >= SLOTS, f"bar {bar}: there was room for {sorted(left_out)}"
    assert set(groups) <= set(sweeps)
    assert max(len(one.held) for one in found) == SLOTS

    now: set[str] = set()
    for step in steps:  # each follows from the one before, and never are there more than slots
        if step["what"] in ("bootstrap", "allocate", "swap"):
            assert step["symbol"] not in now
            now = (now - {step.get("out", "")}) | {step["symbol"]}
        elif step["what"] == "release":
            now.remove(step["symbol"])
        assert len(now) <= SLOTS
    assert now == found[-1].held
    figures["swaps"] = sum(step["what"] == "swap" for step in steps)
    return figures


@pytest.mark.slow
@pytest.mark.timeout(1500 if LONG else 240)
@pytest.mark.parametrize("venue", DAYS)
def test_a_day(rig: Callable[..., Rig], tmp_path: Path, evaluations: list[Evaluation], venue: str) -> None:
    day = DAYS[venue]
    true = Universe(venue, day.listed)
    start_ns = int(datetime.fromisoformat(day.start).timestamp()) * NS
    first_bar_ns = (start_ns + (120 * NS if venue == "kis" else 0)) // BAR_NS * BAR_NS
    lines, groups, spiked = scenario(day, true, first_bar_ns, start_ns)
    script = tmp_path / "day.jsonl"
    script.write_text("".join(json.dumps(line) + "\n" for line in lines))
    scenario_rows(true, lines, start_ns)
    one = rig(venue, day.listed, day.start, day.rate, "--script", str(script), section=NO_STRAIN, lull_rate=day.lull_rate)

    async def until_the_evening() -> None:
        await one.until("all sweeps", lambda: len(one.sweeps()) == day.sweeps)
        if LONG and venue == "kis":
            end = one.pace.wall_ns() + 1500 * NS
            await one.until("25 minutes after the close", lambda: one.pace.wall_ns() > end)

    began, before_ns = time.monotonic(), one.pace.wall_ns()
    one.run(until_the_evening)
    host_s, passed_s = time.monotonic() - began, (one.pace.wall_ns() - before_ns) / NS
    config = one.config.provider(venue)
    assert config is not None
    listed = u.load(one.data, config.market, 20261120)
    assert listed is not None
    assert listed.stale_since is None
    sweeps, rows = one.sweeps(), one.rows()
    assert [sweep["bar_ns"] for sweep in sweeps] == [first_bar_ns + number * BAR_NS for number in range(day.sweeps)]
    shares = [float(np.mean(rows["bar_source"][rows["bar_ns"] == sweep["bar_ns"]] == CANDLE)) for sweep in sweeps]
    quotes_s, sweep_s = ([sweep[name] for sweep in sweeps] for name in ("quotes_s", "seconds"))
    print(
        f"\n{venue}: {len(sweeps)} sweeps of {len(listed.symbols)} symbols in {host_s:.0f} s, {passed_s / host_s:.0f} times as fast; "
        f"quotes after {statistics.median(quotes_s):.1f} s, at most {max(quotes_s):.1f} s; all after {statistics.median(sweep_s):.0f} s, "
        f"at most {max(sweep_s):.0f} s; true bars {min(shares):.1%} at least, {statistics.mean(shares):.1%} in the mean; "
        f"refused for their rate {sum(sweep['limited'] for sweep in sweeps)}; {len(rows)} rows; heart silent {one.silent_s:.1f} s"
    )
    for sweep in sweeps:
        mine = rows[rows["bar_ns"] == sweep["bar_ns"]]
        assert {symbol.decode() for symbol in mine["symbol"]} == set(listed.symbols)
        assert sweep["expected"] == sweep["received"] == len(mine) == len(listed.symbols)
    assert max(quotes_s) <= QUOTE_S
    assert max(sweep_s) <= QUOTE_S + CANDLE_S
    assert statistics.mean(shares) >= day.candles, shares
    assert min(shares) >= 0.7, shares
    check_bars(rows, true)
    told = check_ledger(evaluations, one.events("overflow"))
    figures = check_slots(evaluations, groups, first_bar_ns, one.events("slot"))
    assert figures["crowded_out"] > 0
    seen = next(e for e in evaluations if e.after_sweep and e.ns >= first_bar_ns + (day.spike + 1) * BAR_NS)
    assert seen.strength[SPIKE][seen.names.index(spiked)] > 0
    assert spiked in seen.held
    assert one.events("gap_marker") == []
    assert one.events("warning") == []
    assert int(one.cell["errors"]) == 0
    print(f"{figures}; {told} ledger entries of {len(evaluations)} evaluations")


class Other(NamedTuple):
    """A day that is not like the others. `hours`: KST, of calendar and venue, "" = closed; the test looks from `start` to `until`."""

    day: str
    hours: str
    start: str
    until: str
    rate: float
    bars: int  # that are swept in this time; the first one ends next after `start`, by longer than a poll may take to begin


OTHERS = {
    "holiday": Other("2026-12-25", "", "08:50", "15:50", 2400.0, 0),
    "half_day": Other("2026-11-20", "09:00-12:30", "08:52", "13:05", 120.0, 21)
    if LONG else Other("2026-11-20", "09:00-12:30", "11:41", "13:05", 120.0, 5),
    "exam_day": Other("2026-11-19", "10:00-16:30", "08:52", "16:50", 200.0, 39)
    if LONG else Other("2026-11-19", "10:00-16:30", "09:43", "10:44", 200.0, 4),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(600 if LONG else 120)
@pytest.mark.parametrize("name", OTHERS)
def test_a_day_that_is_not_like_the_others(rig: Callable[..., Rig], evaluations: list[Evaluation], name: str) -> None:
    """Nothing happens on a holiday; a half day ends when it ends, a late one begins when it begins, and the slots' hours move with them."""
    day = OTHERS[name]
    words = ["--hours", day.hours] if day.hours else []
    one = rig("kis", 60, f"{day.day}T{day.start}:00+09:00", day.rate, *words, section=NO_STRAIN)
    number = int(day.day.replace("-", ""))
    opened, _, closed = day.hours.partition("-")
    changed = {("kr_stocks", number): (opened, closed)} if name == "half_day" else {}  # KRX has none of its own; the other two are known
    save(compute(date(2026, 11, 16), date(2026, 12, 31), {**OVERRIDES, **changed}), one.data / "state" / "calendar.json")

    def at(text: str) -> int:
        return int(datetime.fromisoformat(f"{day.day}T{text}:00+09:00").timestamp()) * NS

    async def until_the_end() -> None:
        await one.until(day.until, lambda: one.pace.wall_ns() >= at(day.until))

    one.run(until_the_end)
    sweeps, rows = one.sweeps(), one.rows()
    assert one.events("gap_marker") == []
    assert len(sweeps) == day.bars
    decided = [evaluation.ns for evaluation in evaluations if evaluation.deciding]
    if not day.hours:
        assert (len(rows), decided, one.events("overflow")) == (0, [], [])
        return
    first = max(at(opened), at(day.start) // BAR_NS * BAR_NS)
    assert [sweep["bar_ns"] for sweep in sweeps] == [first + bar * BAR_NS for bar in range(day.bars)]
    assert sweeps[-1]["bar_ns"] + BAR_NS == min(at(closed), at(day.until) // BAR_NS * BAR_NS)
    assert all(sweep["expected"] == sweep["received"] > 0 for sweep in sweeps)
    check_bars(rows, Universe("kis", 60, hours=hours_of("kis", day.hours)))
    half_hour = 3 * BAR_NS
    assert decided
    assert at(opened) + half_hour <= min(decided)
    assert max(decided) < at(closed) - half_hour
    print(f"\n{name}: {len(sweeps)} sweeps, {len(decided)} evaluations of {len(evaluations)} by triggers")


def poll_by_its_own_clock(spec: ProcessSpec, start: str, began_ns: int) -> None:
    """What the poll's process does in the test below: work by the venue's clock, which is no faster than the host's, until SIGTERM."""
    pace = RatedPace(start, 1.0, began_ns=began_ns)
    log = Log("poll", spec.owner, level="error")
    code = asyncio.run(Poll(spec, log, pace).run())
    log.close()
    raise SystemExit(code)


def ages(ring: Ring, seconds: float) -> np.ndarray:
    """Return how long after its newest input was received each record of the next `seconds` could be read, ns."""
    seen, found = ring.published, []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        published = ring.published
        if published > seen:
            now_ns = time.time_ns()
            found.append(now_ns - copy_rows(ring, seen, published - seen)["recv_ns"])
            seen = published
        time.sleep(0.0005)
    return np.concatenate(found)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_feed_publishes_as_soon_during_a_sweep_as_without_one(rig: Callable[..., Rig], tmp_path: Path) -> None:
    """Real feed and real poll, uncompressed; spans in which the poll sweeps 2,500 issues alternate with spans in which it is stopped."""
    rounds, span_s = (10, 8.0) if LONG else (5, 3.0)
    sent = tmp_path / "sim.jsonl"
    start = f"2026-11-20T09:09:{20 if LONG else 30}+09:00"
    section = 'mode = "tape"\nhours = "always"\n' + NO_STRAIN
    one = rig("kis", 4000, start, 1.0, "--log", str(sent), section=section)
    one.counters.add("feed")
    began_ns = one.pace.wall_ns()
    children_lock_path(one.data, "kis").parent.mkdir(parents=True, exist_ok=True)
    feed_spec = replace(one.spec, role="feed", parent_pid=os.getpid())
    feed = subprocess.Popen(module_command("obs.supervisor.child"), stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT)
    assert feed.stdin is not None
    feed.stdin.write(pickle.dumps(feed_spec))
    feed.stdin.close()
    poll = multiprocessing.get_context("spawn").Process(target=poll_by_its_own_clock, args=(one.spec, start, one.pace.began_ns))
    poll.start()
    try:
        def until(what: str, condition: Callable[[], Any]) -> None:
            end = time.monotonic() + DEADLINE_S
            while not condition():
                assert time.monotonic() < end, f"not within {DEADLINE_S} s: {what}"
                assert poll.is_alive()
                assert feed.poll() is None
                time.sleep(0.02)

        def standings() -> dict[str, str]:
            return dict((one.board["actual"].read_json() or {}).get("slots", {}))

        until("41 slots are at work", lambda: list(standings().values()).count("confirmed") == SLOTS)
        until("the sweep has begun", lambda: one.pace.wall_ns() // BAR_NS > began_ns // BAR_NS)
        swing = one.rings["swing"]
        with_sweep, without, rows, idle_rows = [], [], 0, 0
        assert poll.pid is not None
        for _ in range(rounds):
            before = swing.published
            with_sweep.append(ages(one.rings["tick"], span_s))
            rows += swing.published - before
            os.kill(poll.pid, signal.SIGSTOP)
            try:
                before = swing.published
                without.append(ages(one.rings["tick"], span_s))
                idle_rows += swing.published - before
            finally:
                os.kill(poll.pid, signal.SIGCONT)
        assert len(standings()) <= SLOTS
    finally:
        poll.terminate()
        feed.terminate()
        poll.join(DEADLINE_S)
        feed.wait(DEADLINE_S)
    assert (poll.exitcode, feed.returncode) == (0, 0)
    assert rows > rounds * span_s * 5, "it was not sweeping"
    assert idle_rows == 0
    replies = [line for line in map(json.loads, sent.read_text().splitlines()) if line.get("do") == "reply"]
    assert not [line for line in replies if line["code"] not in ("OPSP0000", "OPSP0001")], "the venue refused a registration"
    (p50, p99), (plain_p50, plain_p99) = (
        [float(np.percentile(np.concatenate(spans), share)) / 1e6 for share in (50, 99)] for spans in (with_sweep, without)
    )
    print(
        f"\nreceived to published: p50 {p50:.2f} ms, p99 {p99:.2f} ms during a sweep ({rows / rounds / span_s:.0f} bars a second); "
        f"p50 {plain_p50:.2f} ms, p99 {plain_p99:.2f} ms without; {sum(map(len, with_sweep))} and {sum(map(len, without))} records"
    )
    assert p50 < 1.5 * plain_p50 + 2.0
    assert p99 < 3.0 * plain_p99 + 30.0, "a machine that others use is not more exact"
