"""The recordings source: the equity tape `tape/us_equity_2013-10-07.csv.gz`, re-encoded as the venue's own events.

Each subscribed symbol carries a copy of one tape symbol, shifted by a random time, so that copies do not move together;
a copy that reaches the end begins again. All clocks run at the speed that gives `rate` inputs/s in the mean, so the tape's own
bursts (its busiest second is 16 times its mean) come through. A trade carries the best quote that stood at its time;
a blank side is left out (0). SPY has no quotes on this tape: its copies have trades alone.

Units: 1e-4 dollar becomes one won on KRX (49.02 dollars -> 490200 won) and on Upbit, where a share is 0.001 coin; the
overseas group takes dollars as they are.
"""

from __future__ import annotations

import gzip
import random
from array import array
from bisect import bisect_right
from pathlib import Path
from typing import Final

import numpy as np

from obs.errors import ConfigError
from obs.sim.market import BOOK, BUY, SELL, STEP_S, Stream, Symbol

TAPE_FILE: Final = "tape/us_equity_2013-10-07.csv.gz"
_MS: Final = 1000.0
_ACC_PER_S: Final = 20_000
_COIN: Final = 10**5  # 1e-8 coins for a share


class TapeSymbol:
    """Rows of one tape symbol: `trades` (n, 6) price, size, bid, ask, bid size, ask size; `quotes` (n, 4) the last four."""

    def __init__(self) -> None:
        self.trade_ms = array("q")
        self.quote_ms = array("q")
        self._trades = array("q")  # flat: half a million tuples would cost 150 MB
        self._quotes = array("q")
        self.best = (0, 0, 0, 0)

    def add_trade(self, ms: int, price: int, size: int) -> None:
        self.trade_ms.append(ms)
        self._trades.extend((price, size, *self.best))

    def add_quote(self, ms: int, bid: int, ask: int, bid_size: int, ask_size: int) -> None:
        """Add a quote; a blank side is 0, and a quote with two of them is left out."""
        if bid or ask:
            self.best = (bid, ask, bid_size if bid else 0, ask_size if ask else 0)
            self.quote_ms.append(ms)
            self._quotes.extend(self.best)

    @property
    def trades(self) -> np.ndarray:
        return np.frombuffer(self._trades, np.int64).reshape(-1, 6)

    @property
    def quotes(self) -> np.ndarray:
        return np.frombuffer(self._quotes, np.int64).reshape(-1, 4)


def _units(text: str) -> int:
    return round(float(text) * 10_000) if text else 0


def load_tape(path: Path) -> list[TapeSymbol]:
    """Return the tape's symbols by name, times in ms from its first event. Raises ConfigError if it cannot be read."""
    symbols: dict[str, TapeSymbol] = {}
    start = 0
    try:
        with gzip.open(path, "rt") as lines:
            next(lines)
            for line in lines:
                ts, name, kind, price1, size1, _, price2, size2, *_ = line.split(",")
                start = start or int(ts)
                symbol = symbols.get(name) or symbols.setdefault(name, TapeSymbol())
                if kind == "T":
                    symbol.add_trade(int(ts) - start, _units(price1), int(size1 or 0))
                else:
                    symbol.add_quote(int(ts) - start, _units(price1), _units(price2), int(size1 or 0), int(size2 or 0))
    except (OSError, ValueError, EOFError, StopIteration) as error:
        raise ConfigError("cannot read the tape", problems=[f"{path}: {error}"]) from error
    traded = [symbols[name] for name in sorted(symbols) if symbols[name].trade_ms]
    if not traded:
        raise ConfigError("cannot read the tape", problems=[f"{path}: holds no trade"])
    return traded


class _Clock:
    """How many events of one stream have happened at a market time."""

    __slots__ = ("done", "kind", "shift", "times")

    def __init__(self, times: array[int], kind: str, shift: float) -> None:
        self.times = times
        self.kind = kind
        self.shift = shift
        self.done = 0

    def total(self, at_ms: float, length_ms: float) -> int:
        if not self.times:
            return 0
        lap, place = divmod(at_ms + self.shift, length_ms)
        return int(lap) * len(self.times) + bisect_right(self.times, place)


class TapeSource:
    """Copies of the tape for as many symbols as asked for."""

    def __init__(self, tape: list[TapeSymbol], rate: float, seed: int) -> None:
        self._tape = tape
        self._rate = rate
        self._random = random.Random(seed)
        self._length_ms = 1.0 + max(max(symbol.trade_ms[-1], symbol.quote_ms[-1] if symbol.quote_ms else 0) for symbol in tape)
        self._at_ms = 0.0
        self._natural = 0.0  # inputs/s at the tape's own speed
        self._rows = {symbol: (symbol.trades, symbol.quotes) for symbol in tape}
        self._copies: dict[Symbol, tuple[TapeSymbol, float]] = {}
        self._clocks: list[tuple[Stream, _Clock]] = []
        self._next: dict[tuple[Symbol, str], int] = {}

    def begin(self, symbol: Symbol, now_ns: int) -> None:
        copy = self._tape[len(self._copies) % len(self._tape)]
        shift = self._random.random() * self._length_ms
        self._copies[symbol] = (copy, shift)
        self._next[symbol, "trade"] = bisect_right(copy.trade_ms, (self._at_ms + shift) % self._length_ms)
        self._next[symbol, "book"] = bisect_right(copy.quote_ms, (self._at_ms + shift) % self._length_ms)
        self._set_trade(symbol, copy, self._next[symbol, "trade"] - 1)
        symbol.prev_close = int(copy.trades[0][0]) * symbol.group.price_unit // self._price_divisor(symbol)
        per_s = _ACC_PER_S if symbol.group.size_unit == 1 else _ACC_PER_S * _COIN
        symbol.acc = max(0, now_ns // 10**9 - symbol.day_ms // 1000) * per_s
        symbol.prev_volume = 86_400 * per_s
        symbol.venue_seq = now_ns // 10**6 * 10_000

    def new_day(self, symbol: Symbol) -> None:
        """Nothing: the tape knows no days."""

    def add(self, stream: Stream) -> None:
        copy, shift = self._copies[stream.symbol]
        times = copy.quote_ms if stream.kind == BOOK else copy.trade_ms
        clock = _Clock(times, stream.kind, shift)
        clock.done = clock.total(self._at_ms, self._length_ms)
        self._clocks.append((stream, clock))
        self._natural += len(times) / (self._length_ms / _MS)

    def due(self, steps: int, factor: float) -> list[tuple[Stream, int]]:
        if not self._natural:
            return []
        self._at_ms += steps * STEP_S * _MS * factor * self._rate / self._natural
        out = []
        for stream, clock in self._clocks:
            total = clock.total(self._at_ms, self._length_ms)
            if total > clock.done:
                out.append((stream, total - clock.done))
                clock.done = total
        return out

    def trade(self, symbol: Symbol, now_ns: int) -> None:
        copy = self._copies[symbol][0]
        place = self._next[symbol, "trade"]
        self._next[symbol, "trade"] = place + 1
        symbol.k += 1
        self._set_trade(symbol, copy, place)
        symbol.venue_seq = max(symbol.venue_seq + 1, now_ns // 10**6 * 10_000)

    def book(self, symbol: Symbol) -> None:
        copy = self._copies[symbol][0]
        place = self._next[symbol, "book"]
        self._next[symbol, "book"] = place + 1
        symbol.q += 1
        quotes = self._rows[copy][1]
        if len(quotes):
            self._set_quote(symbol, *quotes[place % len(quotes)].tolist())

    @staticmethod
    def _price_divisor(symbol: Symbol) -> int:
        return 10_000 if symbol.group.name == "us" else 1

    def _set_trade(self, symbol: Symbol, copy: TapeSymbol, place: int) -> None:
        trades = self._rows[copy][0]
        price, size, bid, ask, bid_size, ask_size = trades[place % len(trades)].tolist()
        symbol.price = price * symbol.group.price_unit // self._price_divisor(symbol)
        symbol.size = size * (1 if symbol.group.size_unit == 1 else _COIN)
        self._set_quote(symbol, bid, ask, bid_size, ask_size)
        if ask and price >= ask:
            symbol.side = BUY
        elif bid and price <= bid:
            symbol.side = SELL
        symbol.side = symbol.side or BUY

    def _set_quote(self, symbol: Symbol, bid: int, ask: int, bid_size: int, ask_size: int) -> None:
        scale = 1 if symbol.group.size_unit == 1 else _COIN
        unit, divisor = symbol.group.price_unit, self._price_divisor(symbol)
        symbol.bid, symbol.ask = bid * unit // divisor, ask * unit // divisor
        symbol.bid_size, symbol.ask_size = bid_size * scale, ask_size * scale
