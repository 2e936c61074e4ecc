"""A market of many symbols in which everything is a function of seed, symbol and venue time.

A minute of a symbol has a number of trades, each with a millisecond, a price, a size and a side, all hashed from (seed, symbol, minute);
prices follow a middle that is noise in time (see draws.py), on the venue's tick grid. So REST snapshots, minute candles and WebSocket
trades of a symbol agree, in whatever order they are asked for, and `bar` tells the true 10-minute bar to whoever checks them:

    Universe("kis", 2500, seed=1).bar("005930", bar_ns)        # the same seed as the simulator's: the same market

Without a scenario no symbol of it is remarkable: trades of a minute and sizes vary so little that the volume of ten minutes stays
below three times its mean, and prices move about one percent an hour. A scenario changes symbols from one whole minute to another:

| do | what becomes of the symbol |
|---|---|
| surge | every trade `factor` times as large |
| speed | `factor` times as many trades, each as much smaller (but never less than one unit) |
| spike | prices times `factor`, up to the day's limits of KRX |
| halt | no trades; quotes and figures stand still |
| vanish | no trades, and REST does not know it any more |

Numbers are integers in the units of obs/sim/market.py; traded value is rounded for each trade to `1 / value_unit`, so that sums are
exact. A candle begins with its minute and does not hold the one that it ends with: first <= t < first + length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final, NamedTuple

import numpy as np

from obs.errors import ConfigError
from obs.sim.columns import Day, Minute, State, Trades, by_pair
from obs.sim.draws import hashes, keys_of, noise, uniforms
from obs.sim.hours import MINUTE_MS, Hours, hours_of
from obs.sim.listing import Listing, kis_listing, upbit_listing
from obs.sim.market import BUY, GROUPS, SELL
from obs.sim.model import KRW_TICKS, KRX_TICKS, KRX_TOP, USDT_TICK

BAR_MINUTES: Final = 10
BAR_NS: Final = BAR_MINUTES * 60 * 10**9
SCENARIO: Final = ("surge", "speed", "spike", "halt", "vanish")
_COUNT, _TRADE, _BUSY, _BOOK, _SIZES, _YESTERDAY = range(1, 7)  # uses of the hash
# (period, amplitude) of the middle price; the last is what moves within a 10-minute bar
_WAVES: Final = ((14_400_000, 0.045), (900_000, 0.008), (90_000, 0.0025))
_DAY_LIMIT: Final = 0.30
_TRADES_LEAST, _TRADES_MOST = 1.0, 150.0  # a minute. With fewer, ten minutes would differ from each other by chance alone
_NEVER: Final = 1 << 40  # a minute far away
_BLOCK_PAIRS: Final = 20_000  # (symbol, minute) pairs made at a time


@dataclass(slots=True)
class Effect:
    """One line of a scenario: minutes first <= m < last."""

    do: str
    row: int
    first: int
    last: int
    factor: float


class Bar(NamedTuple):
    """A true 10-minute bar, in whole currency and whole shares or coins."""

    bar_ns: int
    open: float
    high: float
    low: float
    close: float
    volume: float


class Universe:
    """The market. `count`: symbols in all, also those that are not to be watched. Everything below takes rows: places in `listing`."""

    def __init__(self, venue: str, count: int, seed: int = 1, hours: Hours | None = None) -> None:
        self.venue, self.seed = venue, seed
        self.group = GROUPS["crypto" if venue == "upbit" else "krx"]
        self.hours = hours or hours_of(venue)
        self.listing: Listing = upbit_listing(count, seed) if venue == "upbit" else kis_listing(count, seed)
        self.row_of = {code: row for row, code in enumerate(self.listing.codes)}
        self.rows = np.arange(len(self.listing.codes))
        self.effects: list[Effect] = []
        self._keys = keys_of(seed, self.listing.codes)
        self._halted = self.listing.halted
        self._closes: dict[int, np.ndarray] = {}
        self._kind = np.array([{"BTC": 1, "USDT": 2}.get(kind, 0) for kind in self.listing.kinds])
        self._base = self.listing.price * self.group.price_unit
        # A day of KRW-BTC in 1e-8 won would not fit into 64 bits.
        self.value_unit = np.where(self._kind == 0, 10_000, 10**8) if venue == "upbit" else np.ones(len(self.rows), np.int64)
        won = np.where(self._kind == 1, 1e8, np.where(self._kind == 2, 1_400.0, 1.0))  # about
        session_minutes = self.hours.last - self.hours.first
        self._rate = np.clip(0.8 * (self.listing.value * won / 1e9) ** 0.6, _TRADES_LEAST, _TRADES_MOST)
        self._size = self.listing.value / self.listing.price * self.group.size_unit / (self._rate * session_minutes * 0.77)
        self._day: Day | None = None
        self._minutes: dict[int, Minute] = {}
        self._made = -_NEVER  # the last minute that somebody has seen trades of

    # Scenario

    def play(self, do: str, symbol: str, at_ns: int, *, factor: float = 5.0, for_s: float = float("inf")) -> Effect | None:
        """Let a symbol do something from the first whole minute at or after `at_ns` on that nobody has seen yet. None: it is not listed."""
        row = self.row_of.get(symbol)
        if do not in SCENARIO:
            raise ValueError(f"scenario does not know {do!r}")
        if row is None:
            return None
        first = max(-(-at_ns // (MINUTE_MS * 10**6)), self._made + 1)
        effect = Effect(do, row, first, first + min(_NEVER, max(1, int(-(-min(for_s, 1e12) // 60)))), factor)
        self.effects.append(effect)
        return effect

    def calm(self) -> None:
        """End every effect before the next minute that nobody has seen."""
        for effect in self.effects:
            effect.last = max(effect.first, min(effect.last, self._made + 1))

    def scenario(self) -> list[dict[str, object]]:
        """Return what was played, with its true times: from_ns <= t < until_ns."""
        return [
            {
                "do": one.do, "symbol": self.listing.codes[one.row], "factor": one.factor, "from_ns": one.first * MINUTE_MS * 10**6,
                "until_ns": one.last * MINUTE_MS * 10**6,
            }
            for one in self.effects
        ]  # fmt: skip

    def listed(self, rows: np.ndarray, ms: int) -> np.ndarray:
        """Return which of these symbols the venue knows at `ms`."""
        known = np.ones(len(rows), bool)
        minute = ms // MINUTE_MS
        for effect in self.effects:
            if effect.do == "vanish" and effect.first <= minute < effect.last:
                known &= rows != effect.row
        return known

    def _effect(self, do: str, rows: np.ndarray, minutes: np.ndarray) -> np.ndarray:
        """Return the factor of one kind of effect, for each (row, minute)."""
        factors = np.ones(len(rows))
        for effect in self.effects:
            if effect.do == do:
                factors[(rows == effect.row) & (minutes >= effect.first) & (minutes < effect.last)] *= effect.factor
        return factors

    def _stopped(self, rows: np.ndarray, minutes: np.ndarray) -> np.ndarray:
        """Return which (row, minute) have no trades, whatever the hours."""
        stopped: np.ndarray = self._halted[rows]
        for effect in self.effects:
            if effect.do in ("halt", "vanish"):
                stopped = stopped | ((rows == effect.row) & (minutes >= effect.first) & (minutes < effect.last))
        return stopped

    # Prices

    def tick(self, rows: np.ndarray, price: np.ndarray) -> np.ndarray:
        """Return the venue's tick at each price, int64. `price`: floats in units."""
        if self.venue == "kis":
            return _KRX_GRID[np.searchsorted(_KRX_BELOW, price, side="right")]
        kind = self._kind[rows]
        won = _KRW_GRID[np.searchsorted(_KRW_FROM, price, side="right")]
        dollars = np.maximum(1, np.rint(np.minimum(USDT_TICK * 1e8, price / 1000))).astype(np.int64)
        return np.where(kind == 1, 1, np.where(kind == 2, dollars, won))

    def quote(self, rows: np.ndarray, ms: np.ndarray, *, limited: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Return best bid and ask of each (row, time); of a halted symbol, those of the last minute before the halt."""
        ms = self._before_halt(rows, ms)
        keys, middle = self._keys[rows], np.zeros(len(rows))
        for use, (period, amplitude) in enumerate(_WAVES):
            middle += amplitude * noise(keys, ms, period, 100 + use)
        middle = self._base[rows] * np.exp(middle)
        factor = self._effect("spike", rows, ms // MINUTE_MS)
        if (factor != 1.0).any():
            middle = middle * factor
            if limited and self.venue == "kis":
                base = self.previous_close(self.hours.day_of(int(ms[0])))[rows]
                low, high = base * (1 - _DAY_LIMIT), base * (1 + _DAY_LIMIT)
                middle = np.clip(middle, low + self.tick(rows, low), high - self.tick(rows, high))
        tick = self.tick(rows, middle)
        bid = np.maximum(tick, middle.astype(np.int64) // tick * tick)
        return bid, bid + tick

    def _before_halt(self, rows: np.ndarray, ms: np.ndarray) -> np.ndarray:
        ms = np.where(self._halted[rows], 0, ms)
        for effect in self.effects:
            if effect.do in ("halt", "vanish"):
                during = (rows == effect.row) & (ms >= effect.first * MINUTE_MS) & (ms < effect.last * MINUTE_MS)
                if during.any():
                    ms = np.where(during, effect.first * MINUTE_MS - 1, ms)
        return ms

    def depth(self, rows: np.ndarray, ms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return what stands at best bid and ask; changes once a second."""
        draw = hashes(self._keys[rows], ms // 1000, _SIZES)
        mean = self._size[rows] * 8
        low, high = (draw & np.uint64(0xFFFF)) / 65536, (draw >> np.uint64(48)) / 65536
        return np.maximum(1, (mean * (0.2 + low)).astype(np.int64)), np.maximum(1, (mean * (0.2 + high)).astype(np.int64))

    def previous_close(self, day: int) -> np.ndarray:
        """Return the base price of every symbol for a venue's day: the best bid at the last trading day's end."""
        known = self._closes.get(day)
        if known is None:
            before = self.hours.open_before(day)
            end = (self.hours.start_minute(before) + self.hours.last - self.hours.first) * MINUTE_MS - 1
            known = self.quote(self.rows, np.full(len(self.rows), end), limited=False)[0]
            self._closes = {one: closes for one, closes in self._closes.items() if abs(one - day) < 7} | {day: known}
        return known

    def previous_day(self, day: int) -> tuple[np.ndarray, np.ndarray]:
        """Return volume and value of the day before, of every symbol; not the sums of its trades, but like them."""
        luck = 0.8 + 0.4 * uniforms(self._keys, np.full(len(self.rows), day), _YESTERDAY)
        value = self.listing.value * luck * ~self._halted
        volume = value / self.listing.price * self.group.size_unit
        return np.rint(volume).astype(np.int64), np.rint(value * self.value_unit).astype(np.int64)

    # Trades

    def trades(self, rows: np.ndarray, minutes: np.ndarray) -> Trades:
        """Return all trades of these (row, minute) pairs; `rows`, `minutes`: int64 of equal length."""
        keys = self._keys[rows]
        speed = self._effect("speed", rows, minutes)
        shape = 0.65 + 0.35 * (2 * self.hours.place(minutes) - 1) ** 2 if not self.hours.always else 0.77
        busy = 0.8 + 0.4 * uniforms(keys, minutes, _BUSY)
        count = (self._rate[rows] * shape * busy * speed + uniforms(keys, minutes, _COUNT)).astype(np.int64)
        count[self._stopped(rows, minutes) | ~self.hours.trading(minutes)] = 0
        start = np.cumsum(count) - count
        pair = np.repeat(np.arange(len(rows)), count)
        place = np.arange(len(pair)) - start[pair]
        row, minute = rows[pair], minutes[pair]
        draw = hashes(self._keys[row], (minute << 24) + place, _TRADE)
        inside = (draw >> np.uint64(40)) * 2.0**-24
        off = ((place + inside) * MINUTE_MS / count[pair]).astype(np.int64)
        twin = np.flatnonzero((place % 2 == 1) & ((draw & np.uint64(0xFF)) < 100))  # in the millisecond of the one before it
        off[twin] = off[twin - 1]
        ms = minute * MINUTE_MS + np.minimum(off, MINUTE_MS - 1)
        bid, ask = self.quote(row, ms)
        buy = (draw >> np.uint64(8)) & np.uint64(1) == 1
        price = np.where(buy, ask, bid)
        factor = self._effect("surge", rows, minutes) / speed
        size = self._size[row] * factor[pair] * (0.6 + 0.8 * ((draw >> np.uint64(16)) & np.uint64(0xFFFF)) / 65536)
        whole = np.maximum(1, np.rint(size)).astype(np.int64)
        unit = self.group.size_unit
        value = price * whole if unit == 1 else np.rint(price * (whole / (unit * unit)) * self.value_unit[row]).astype(np.int64)
        return Trades(start, count, pair, ms, price, whole, np.where(buy, BUY, SELL), value, bid, ask)

    def books(self, row: int, minute: int) -> np.ndarray:
        """Return the times (epoch ms, in order) at which the book of a symbol changes in a minute, without a trade."""
        one, at = np.array([row]), np.array([minute])
        if not self.hours.trading(at)[0] or self._stopped(one, at)[0]:
            return np.zeros(0, np.int64)
        count = int(1.5 * self._rate[row] * self._effect("speed", one, at)[0]) + 1
        draw = uniforms(np.repeat(self._keys[row], count), (minute << 24) + np.arange(count), _BOOK)
        times: np.ndarray = minute * MINUTE_MS + ((np.arange(count) + draw) * MINUTE_MS / count).astype(np.int64)
        return times

    # The day

    def day_at(self, ms: int) -> Day:
        """Return the venue's day at `ms`, done until the minute of `ms` (not included)."""
        number = self.hours.day_of(ms)
        day = self._day
        if day is None or day.day != number:
            minutes = self.hours.last - self.hours.first if self.hours.is_open(number) else 0
            day = self._day = Day(number, self.hours.start_minute(number), minutes, len(self.rows))
            self._minutes.clear()
        until, step = min(day.minutes, ms // MINUTE_MS - day.first), max(1, _BLOCK_PAIRS // len(self.rows))
        while day.done < until:
            some = min(step, until - day.done)
            blocks = day.first + np.repeat(np.arange(day.done, day.done + some), len(self.rows))
            day.add(self.trades(np.tile(self.rows, some), blocks), some)
            self._made = max(self._made, day.first + day.done - 1)
        return day

    def minute(self, minute: int) -> Minute | None:
        """Return the table of an epoch minute, None if it is not within hours."""
        known = self._minutes.get(minute)
        if known is not None:
            return known
        day = self.day_at(minute * MINUTE_MS)
        if not 0 <= minute - day.first < day.minutes:
            return None
        while len(self._minutes) >= 3:
            del self._minutes[next(iter(self._minutes))]
        made = Minute(minute, day.so_far(minute - day.first), self.trades(self.rows, np.full(len(self.rows), minute)))
        self._made = max(self._made, minute)
        self._minutes[minute] = made
        return made

    def state(self, rows: np.ndarray, ms: int) -> State:
        """Return the day so far of some symbols at `ms`; `price` is 0 before the first trade of the day."""
        table = self.minute(ms // MINUTE_MS)
        if table is None:
            day = self.day_at(ms)
            return day.so_far(max(0, min(day.minutes, ms // MINUTE_MS - day.first))).pick(rows)
        at = table.last(rows, ms)
        inside, here, before = at >= 0, table.after.pick(at) if len(table.order) else table.before.pick(rows), table.before.pick(rows)
        return State(*(np.where(inside, getattr(here, one.name), getattr(before, one.name)) for one in fields(State)))

    def candles(self, row: int, first: int, count: int) -> State:
        """Return the minutes first .. first + count - 1 of one symbol as bars of their own: figures of a minute, not of the day."""
        return by_pair(self.trades(np.full(count, row), np.arange(first, first + count)))

    def candles_until(self, row: int, first: int, count: int, ms: int) -> tuple[State, dict[int, int]]:
        """Return the same of the trades until `ms` (included), and the time of each minute's last one (epoch minute -> epoch ms)."""
        trades = self.trades(np.full(count, row), np.arange(first, first + count))
        seen = int(np.searchsorted(trades.ms, ms, side="right"))
        if seen < len(trades.ms):
            pair = trades.pair[:seen]
            columns = {one.name: getattr(trades, one.name)[:seen] for one in fields(Trades) if one.name not in ("start", "count")}
            amounts = np.bincount(pair, minlength=count)
            trades = Trades(np.cumsum(amounts) - amounts, amounts, **columns)
        some = np.flatnonzero(trades.count)
        last = trades.ms[trades.start[some] + trades.count[some] - 1]
        return by_pair(trades), dict(zip((first + some).tolist(), last.tolist(), strict=True))

    def minutes(self, row: int, number: int, first: int, last: int, ms: int) -> State:
        """Return the minutes first .. last - 1 of the hours of a day as they stand at `ms`, of one symbol: 0 where nothing was traded.

        `value` alone is accumulated over the day. A minute that has not begun holds nothing.
        """
        day, count = self.day_at(ms), last - first
        if day.day != number:
            start = self.hours.start_minute(number)
            whole = by_pair(self.trades(np.full(last, row), np.arange(start, start + last)))
            whole.value = np.cumsum(whole.value)
            return whole.pick(np.arange(first, last))
        now = ms // MINUTE_MS - day.first
        done = max(first, min(last, now, day.done))
        out = State(*(np.zeros(count, np.int64) for _ in fields(State)))
        some = slice(0, done - first)
        for name, column in (("open", day.minute_open), ("high", day.minute_high), ("low", day.minute_low)):
            getattr(out, name)[some] = column[first:done, row]
        for name in ("volume", "trades"):
            ends = day.columns[name][max(0, first - 1) : done, row]
            getattr(out, name)[some] = np.diff(ends, prepend=0)[-(done - first) :] if done > first else 0
        out.price[some] = np.where(out.volume[some] > 0, day.columns["price"][first:done, row], 0)
        out.value[some] = day.columns["value"][first:done, row]
        so_far = int(day.columns["value"][min(now, day.done) - 1, row]) if min(now, day.done) > 0 else 0
        out.value[done - first :] = so_far
        table = self.minute(ms // MINUTE_MS)
        if table is not None and first <= now < last:
            start = int(table.trades.start[row])
            end = int(table.last(np.array([row]), ms)[0]) + 1
            if end > start:
                prices, here = table.trades.price[start:end], now - first
                out.open[here], out.price[here], out.high[here], out.low[here] = prices[0], prices[-1], prices.max(), prices.min()
                out.volume[here], out.trades[here] = table.trades.size[start:end].sum(), end - start
                out.value[here:] = table.after.value[end - 1]
        return out

    def bar(self, symbol: str, bar_ns: int) -> Bar | None:
        """Return the true 10-minute bar of a symbol that begins at `bar_ns`, None if nothing was traded in it."""
        if bar_ns % BAR_NS:
            raise ValueError(f"bar_ns={bar_ns} is no multiple of ten minutes")
        minutes = self.candles(self.row_of[symbol], bar_ns // (MINUTE_MS * 10**6), BAR_MINUTES)
        price_unit, size_unit = self.group.price_unit, self.group.size_unit
        some = minutes.trades > 0
        if not some.any():
            return None
        return Bar(
            bar_ns, int(minutes.open[some][0]) / price_unit, int(minutes.high[some].max()) / price_unit,
            int(minutes.low[some].min()) / price_unit, int(minutes.price[some][-1]) / price_unit, int(minutes.volume.sum()) / size_unit,
        )  # fmt: skip

    def last_trades(self, rows: np.ndarray, ms: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (epoch ms, size, side) of the last trade of the day of each symbol until `ms`; ms 0 where there was none."""
        out = (np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64), np.full(len(rows), BUY))
        table = self.minute(ms // MINUTE_MS)
        at = table.last(rows, ms) if table is not None else np.full(len(rows), -1)
        if table is not None:
            _fill_last(out, np.flatnonzero(at >= 0), table.trades, at[at >= 0])
        earlier = np.flatnonzero(at < 0)
        day = self.day_at(ms)
        done = max(0, min(day.done, ms // MINUTE_MS - day.first))
        if done and len(earlier):
            counts = day.columns["trades"][:done, rows[earlier]]
            earlier, counts = earlier[counts[-1] > 0], counts[:, counts[-1] > 0]
            minutes = day.first + (counts < counts[-1]).sum(axis=0)
            trades = self.trades(rows[earlier], minutes)
            _fill_last(out, earlier, trades, trades.start + trades.count - 1)
        return out


def scenario_rows(universe: Universe, lines: Sequence[dict[str, object]], start_ns: int) -> None:
    """Play script lines as a simulator started at `start_ns` (venue time) plays those of its script file."""
    for line in lines:
        if line.get("do") in SCENARIO:
            facts = {name: float(str(line[name])) for name in ("factor", "for_s") if name in line}
            at_ns = start_ns + int(float(str(line.get("at_s", 0.0))) * 1e9)
            if universe.play(str(line["do"]), str(line["symbol"]), at_ns, **facts) is None:
                raise ConfigError("the script is wrong", problems=[f"symbol = {line['symbol']!r}: is not listed"])


def _fill_last(out: tuple[np.ndarray, ...], into: np.ndarray, trades: Trades, at: np.ndarray) -> None:
    for figure, column in zip(out, (trades.ms, trades.size, trades.side), strict=True):
        figure[into] = column[at]


_KRX_BELOW: Final = np.array([below for below, _ in KRX_TICKS], float)
_KRX_GRID: Final = np.array([tick for _, tick in KRX_TICKS] + [KRX_TOP], np.int64)
_KRW_FROM: Final = np.array([start * 1e8 for start, _ in reversed(KRW_TICKS)])
_KRW_GRID: Final = np.array([10] + [round(tick * 1e8) for _, tick in reversed(KRW_TICKS)], np.int64)
