"""Track A: the whole universe each ten minutes, first a snapshot of it, then the true ten-minute bars.

A sweep belongs to the bar that has just ended, so that its candles are complete: on an ordinary Korean day the first one runs at 09:10 for
09:00-09:10, the last at 15:30 for 15:20-15:30, 39 in all. Times below count from the end of the bar:

| until | what |
|---|---|
| a quarter of the period (150 s) | quotes of all symbols, failed calls again; then the selection is told (`on_swept`) |
| half a period after that | candles in the order of today's traded value, as many as the rate allows |

Each symbol that was quoted leaves exactly one SWING row per sweep: with its candle where it came, else `bar_source` snapshot with
high and low unknown, open = the price at the sweep before, volume = growth of the accumulated volume since. A bar in which
nothing was traded is a candle with volume 0 and no prices. A symbol that was not quoted leaves no row: the sweep is short, which is a
gap_marker of scope swing, as is a sweep that did not happen or that a dead poll did not finish. Every sweep ends with a lifecycle event.

Nothing here can stop a sweep halfway but the end of the process: what fails is counted, and what a stop finds unpublished
leaves as snapshot.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

import numpy as np

from obs.clock import NS
from obs.config import ProviderConfig
from obs.errors import ObsError
from obs.market.calendar import ALWAYS, Calendar
from obs.market.universe import Universe
from obs.providers.base import Auth, Call
from obs.record.events import gap_payload
from obs.record.quotes import BAR_S, Candle, merge_quotes, unknown_quotes
from obs.record.schema import BAR_SOURCES, MARKETS, SWING, VENUES
from obs.ring import Producer
from obs.roles.asking import DEADLINE, UNKNOWN_SYMBOL
from obs.roles.notes import Notes
from obs.roles.polling import Polling
from obs.roles.universes import Universes, date_of

BAR_NS: Final = BAR_S * NS
QUOTE_S: Final = BAR_S / 4
CANDLE_S: Final = BAR_S / 2
LATEST_S: Final = QUOTE_S - 30  # after the end of the bar; a sweep that could begin only later is missed
_SHARE: Final = 0.95  # of what the rate allows within CANDLE_S: a call may have to be repeated
_WIDTH: Final = 8  # calls under way at once; the limiter spaces their beginnings
_ROUNDS_S: Final = (5.0, 10.0, 20.0, 40.0, 60.0)  # until quote calls that failed are made once more
_LOOK_S: Final = 1.0
_STEP_S: Final = 2.0  # a wall clock that differs from the monotonic one by more, between two looks, was set
_SNAPSHOT, _CANDLE = (BAR_SOURCES.index(name) for name in ("snapshot", "candle"))
_DAYS_BACK: Final = 1  # missed bars are looked for in today and so many days before


def bars_between(config: ProviderConfig, calendar: Calendar, after_ns: int, until_ns: int) -> list[int]:
    """Return the begin of each bar of Track A that ends at `after_ns` < end <= `until_ns`, in order; of today and yesterday alone."""
    if config.market in ALWAYS or config.hours == "always":
        after_ns = max(after_ns, until_ns - 86_400 * NS * (1 + _DAYS_BACK))
        return [end - BAR_NS for end in range((after_ns // BAR_NS + 1) * BAR_NS, until_ns + 1, BAR_NS)]
    today = date_of(calendar.trading_day(config.market, config.venue, until_ns))
    bars = []
    for back in range(_DAYS_BACK, -1, -1):
        session = calendar.session(config.market, config.venue, today - timedelta(days=back))
        if session is not None:
            begins = range(session.regular_open_ns, session.regular_close_ns - BAR_NS + 1, BAR_NS)
            bars += [begin for begin in begins if after_ns < begin + BAR_NS <= until_ns]
    return bars


@dataclass
class _Sweep:
    """One sweep: what was asked, what came. `published`: which rows of the universe have left."""

    bar_ns: int
    universe: Universe
    quotes: np.ndarray
    started_ns: int
    end_mono_ns: int  # when the bar ended, on the monotonic clock
    published: np.ndarray
    place: dict[bytes, int]
    recv_ns: np.ndarray
    rows: int = 0
    candles: int = 0
    empty: int = 0
    told: bool = False  # that it was short
    reasons: dict[str, int] = field(default_factory=dict)


class Sweeps:
    """Runs Track A of one provider. Safety: one event loop; the producer of the ring "swing"."""

    def __init__(
        self, polling: Polling, universes: Universes, swing: Producer, notes: Notes, *, level: Callable[[], int] = lambda: 0,
        on_swept: Callable[[np.ndarray, int, int], None] | None = None,
    ) -> None:  # fmt: skip
        """`on_swept`: called with QUOTE rows in the order of the universe (NaN price where it failed), begin and end (wall ns)."""
        self._asking, self._config, self._calendar = polling.asking, polling.config, polling.calendar
        self._pace, self._emit, self._log = polling.pace, polling.emit, polling.log
        self._universes, self._swing, self._notes, self._level = universes, swing, notes, level
        self.on_swept = on_swept
        self._last_ns = 0  # end of the last bar that was swept, or told as a gap
        self._offset_ns = 0  # wall clock - monotonic clock at the last look
        self._before: tuple[int, dict[str, tuple[float, float]]] = (0, {})  # bar and, by symbol, price and accumulated volume
        self.sweeps = 0

    async def run(self) -> None:
        """Sweep each ten minutes within hours; ends by being cancelled."""
        self._offset_ns = self._pace.wall_ns() - self._pace.mono_ns()
        await self._resume()
        while True:
            await self.look()
            await self._pace.sleep(_LOOK_S)

    async def _resume(self) -> None:
        """Go on after the last sweep of an earlier poll. One that it began and did not finish is a gap: nobody knows how far it came."""
        now = self._pace.wall_ns()
        self._last_ns = now
        known = self._notes.get("sweep")
        try:
            bar_ns, finished = int(known["bar_ns"]), bool(known["finished"])
        except (TypeError, KeyError, ValueError):
            return
        if bar_ns + BAR_NS > now:
            return  # told by a clock that was ahead
        self._last_ns = bar_ns + BAR_NS
        if not finished:
            self._gap("short_sweep", bar_ns, self._last_ns, what="unfinished")
            await self._notes.put("sweep", {"bar_ns": bar_ns, "finished": True})

    async def look(self) -> None:
        """Run the sweep that is due, if one is; tell those that were missed."""
        self._watch_clock()
        now = self._pace.wall_ns()
        due = bars_between(self._config, self._calendar(), self._last_ns, now)
        if not due:
            return
        last, universe = due[-1], self._universes.current
        late = now - (last + BAR_NS) >= LATEST_S * NS
        missed = due if late else due[:-1]
        if missed:
            reason = "no_universe" if universe is None else "short_sweep"
            self._last_ns = missed[-1] + BAR_NS
            self._gap(reason, missed[0], self._last_ns, what="missed", bars=len(missed))
        if late or universe is None:
            return  # a list may yet come in time
        self._last_ns = last + BAR_NS
        await self._notes.put("sweep", {"bar_ns": last, "finished": False})
        try:
            await self._sweep(last, universe)
        finally:  # what it did not reach, it has told
            await self._notes.put("sweep", {"bar_ns": last, "finished": True})

    def _watch_clock(self) -> None:
        """A wall clock that was set moves what is due: forwards, the bars between are missed; backwards, they are swept once more."""
        offset_ns = self._pace.wall_ns() - self._pace.mono_ns()
        stepped_s = (offset_ns - self._offset_ns) / NS
        self._offset_ns = offset_ns
        if abs(stepped_s) <= _STEP_S:
            return
        self._emit("warning", {"what": "clock_stepped", "seconds": round(stepped_s, 3)})
        self._log.warning("clock_stepped", seconds=round(stepped_s, 3))
        self._last_ns = min(self._last_ns, self._pace.wall_ns())

    # --- one sweep

    async def _sweep(self, bar_ns: int, universe: Universe) -> None:
        started = self._pace.wall_ns()
        count = len(universe.instruments)
        quotes = unknown_quotes(count)
        quotes["symbol"] = np.array(universe.symbols, quotes.dtype["symbol"])
        end_mono_ns = self._pace.mono_ns() - (started - bar_ns - BAR_NS)
        one = _Sweep(
            bar_ns, universe, quotes, started, end_mono_ns, np.zeros(count, bool),
            {symbol: at for at, symbol in enumerate(quotes["symbol"].tolist())}, np.zeros(count, np.int64),
        )  # fmt: skip
        calls, limited = self._asking.calls, self._asking.limited
        ended = 0
        try:
            await self._quote(one)
            ended = self._pace.wall_ns()
            self._judge_quotes(one)
            self._tell_selection(one, ended)
            await self._candles(one)
        finally:
            # Also when a stop cancels it: what is known leaves, what is not is a gap.
            self._judge_quotes(one)
            self._publish_rest(one)
            self.sweeps += 1
            received = self._received(one)
            report = {
                "what": "sweep", "bar_ns": bar_ns, "expected": count, "received": received, "failed": count - received, "rows": one.rows,
                "candles": one.candles, "empty": one.empty, "snapshots": one.rows - one.candles,
                "quotes_s": round(((ended or self._pace.wall_ns()) - started) / NS, 3),
                "seconds": round((self._pace.wall_ns() - started) / NS, 3), "calls": self._asking.calls - calls,
                "limited": self._asking.limited - limited, "stale": universe.stale_since is not None, "reasons": one.reasons,
            }  # fmt: skip
            self._emit("lifecycle", report, start_ns=bar_ns, end_ns=bar_ns + BAR_NS)
            self._log.info("sweep", **{name: value for name, value in report.items() if name != "what"})
            known = zip(universe.symbols, quotes["price"].tolist(), quotes["acc_volume"].tolist(), strict=True)
            self._before = (bar_ns, {symbol: (price, acc) for symbol, price, acc in known if price > 0})

    def _received(self, one: _Sweep) -> int:
        return int(np.count_nonzero(one.quotes["price"] > 0))  # NaN is not

    def _judge_quotes(self, one: _Sweep) -> None:
        """Tell once, as a gap, that not every symbol was quoted."""
        failed = [symbol for symbol, price in zip(one.universe.symbols, one.quotes["price"].tolist(), strict=True) if not price > 0]
        if failed and not one.told:
            one.told = True
            if (unpriced := len(failed) - sum(one.reasons.values())) > 0:
                one.reasons["no_price"] = unpriced  # the answer was good, and had none
            counts = {"expected": len(one.quotes), "received": len(one.quotes) - len(failed), "failed": len(failed)}
            self._gap("short_sweep", one.bar_ns, one.bar_ns + BAR_NS, lost=len(failed), **counts, reasons=one.reasons, symbols=failed[:40])

    def _tell_selection(self, one: _Sweep, ended_ns: int) -> None:
        if self.on_swept is None:
            return
        try:
            self.on_swept(one.quotes.copy(), one.started_ns, ended_ns)
        except Exception as error:  # the bars must not depend on who reads the quotes
            self._log.exception("selection_failed", error)
            self._emit("warning", {"what": "selection_failed", "why": repr(error)[:400]})

    async def _quote(self, one: _Sweep) -> None:
        """Fill one.quotes until a quarter of the period is over."""
        deadline_ns = one.end_mono_ns + int(QUOTE_S * NS)
        while not self._asking.is_ready():
            if self._pace.mono_ns() >= deadline_ns:
                one.reasons["no_token"] = len(one.quotes)
                return
            await self._pace.sleep(_LOOK_S)
        provider, auth = self._asking.provider, self._asking.auth()
        failed: list[Call] = []

        async def ask(call: Call) -> None:
            symbols = call.symbols

            def make(signed: Auth | None) -> Call:
                return call if signed == auth else self._same(call, symbols, signed)[0]

            try:
                rows = await self._asking.ask(make, lambda body: provider.parse_quotes(body, symbols), deadline_ns)
            except ObsError as error:
                unknown = error.facts.get("reason") == UNKNOWN_SYMBOL
                if not unknown or len(symbols) == 1:
                    self._count(one, error, len(symbols))
                    if not unknown:
                        failed.append(call)
                    return
                middle = len(symbols) // 2
                for half in (symbols[:middle], symbols[middle:]):
                    for part in self._same(call, half, self._asking.auth()):
                        await ask(part)
                return
            merge_quotes(one.quotes, rows, one.place)
            now = self._pace.wall_ns()
            for symbol in rows["symbol"].tolist():
                one.recv_ns[one.place[symbol]] = now

        calls = provider.quote_calls(one.universe.symbols, auth)
        for wait_s in (*_ROUNDS_S, deadline_ns / NS):
            await _together((ask(call) for call in calls), _WIDTH)
            if not failed or self._pace.mono_ns() + int(wait_s * NS) >= deadline_ns:
                return
            await self._pace.sleep(wait_s)
            calls, one.reasons = failed[:], {}
            failed.clear()

    def _same(self, call: Call, symbols: Iterable[str], auth: Auth | None) -> list[Call]:
        """Return the same kind of call about `symbols`: of a venue that needs several kinds to quote, each has its own group."""
        return [one for one in self._asking.provider.quote_calls(tuple(symbols), auth) if one.group == call.group]

    def _count(self, one: _Sweep, error: ObsError, symbols: int) -> None:
        reason = str(error.facts.get("reason") or error.facts.get("code") or type(error).__name__)
        one.reasons[reason] = one.reasons.get(reason, 0) + symbols
        if reason != DEADLINE:
            self._log.warning("call_failed", symbols=symbols, text=str(error))

    async def _candles(self, one: _Sweep) -> None:
        """Publish rows with true bars, the largest first, for half a period; all others as snapshot."""
        limits = self._asking.provider.rest
        begin_ns = self._pace.mono_ns()
        room = int(limits.calls_per_s[limits.candle_group] * CANDLE_S * _SHARE)
        known = np.flatnonzero(one.quotes["price"] > 0)
        value = np.nan_to_num(one.quotes["acc_value"][known])
        ranked = known[np.lexsort((known, -value))].tolist()  # equal ones in the universe's order
        self._publish(one, ranked[room:], None)
        deadline_ns = begin_ns + int(CANDLE_S * NS)
        provider, bar_ns = self._asking.provider, one.bar_ns

        async def ask(row: int) -> None:
            symbol = one.universe.instruments[row].symbol
            try:
                if self._pace.mono_ns() >= deadline_ns:
                    return
                bar = await self._asking.ask(
                    lambda auth: provider.candle_call(symbol, bar_ns, auth),
                    lambda body: provider.parse_candle(body, bar_ns),
                    deadline_ns,
                    attempts=2,
                )
            except ObsError as error:
                self._count(one, error, 1)
                self._publish(one, [row], None)
                return
            one.candles += 1
            one.empty += bar is None
            nan = float("nan")
            self._publish(one, [row], bar or Candle(bar_ns, nan, nan, nan, nan, 0.0))

        await _together((ask(row) for row in ranked[:room]), _WIDTH)

    def _publish_rest(self, one: _Sweep) -> None:
        """Publish what was quoted and has not left."""
        self._publish(one, np.flatnonzero((one.quotes["price"] > 0) & ~one.published).tolist(), None)

    def _publish(self, one: _Sweep, places: list[int], bar: Candle | None) -> None:
        """Publish one row for each of `places`: with `bar`, which is that of the only place, or as snapshot."""
        if not places:
            return
        quotes = one.quotes[places]
        rows = np.zeros(len(places), SWING)
        now = self._pace.wall_ns()
        rows["ts_ns"], rows["bar_ns"], rows["symbol"] = now, one.bar_ns, quotes["symbol"]
        rows["recv_ns"] = now if bar is not None else one.recv_ns[places]
        rows["market"], rows["venue"] = MARKETS.index(self._config.market), VENUES.index(self._config.venue)
        rows["mitigation_level"] = self._level()
        for name in ("day_open", "day_high", "day_low", "acc_volume", "bid_price", "ask_price"):
            rows[name] = quotes[name]
        if bar is not None:
            rows["bar_source"] = _CANDLE
            rows["open"], rows["high"], rows["low"], rows["close"], rows["volume"] = bar[1:]
        else:
            rows["bar_source"], rows["high"], rows["low"], rows["close"] = _SNAPSHOT, np.nan, np.nan, quotes["price"]
            known = self._before[1] if self._before[0] == one.bar_ns - BAR_NS else {}
            before = np.array([known.get(one.universe.instruments[at].symbol, (np.nan, np.nan)) for at in places])
            grown = quotes["acc_volume"] - before[:, 1]
            rows["open"] = before[:, 0]
            rows["volume"] = np.where(grown >= 0, np.round(grown, 8), np.nan)  # a venue's day may have begun meanwhile
        self._swing.publish(rows)
        one.published[places] = True
        one.rows += len(places)

    def _gap(self, reason: str, start_ns: int, end_ns: int, *, lost: int | None = None, **more: Any) -> None:
        payload = gap_payload(
            start_ns=start_ns, end_ns=end_ns, scope="swing", reason=reason, session_id=self._swing.ring.session_id,
            provider=self._config.name, ring="swing", lost=lost, **more,
        )  # fmt: skip
        self._emit("gap_marker", payload, start_ns=start_ns, end_ns=end_ns)
        self._log.error("swing_gap", reason=reason, start_ns=start_ns, end_ns=end_ns, **more)


async def _together(work: Iterable[Awaitable[None]], width: int) -> None:
    """Do all of `work`, `width` at a time, in its order; a cancelled or failed one ends all."""
    waiting = iter(work)

    async def worker() -> None:
        for one in waiting:
            await one

    workers = [asyncio.ensure_future(worker()) for _ in range(width)]
    try:
        await asyncio.gather(*workers)
    finally:
        for one in workers:
            one.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
