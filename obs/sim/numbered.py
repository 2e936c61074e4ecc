"""The market for tests: every trade is a function of its number k, so a torn, lost or invented record shows itself.

For a symbol with index i = crc32(code) % 100, trade k = 1, 2, 3, …:

    krx, nxt, unified   price 50000 + 100 i + k % 1000 won,           size 1 + k % 7 shares
    us                  price 100 + i + 0.01 (k % 1000) dollars,      size 1 + k % 7 shares
    crypto              price 100000 + 1000 i + 0.1 (k % 1000),       size (1 + k % 7) / 10000

    acc_volume(k) = sum of the sizes of 1..k since the venue's day began, in closed form, so k can be had back from it
    sequential_id = (ms of the UTC day's start) x 10000 + k: above 2^53, unique, and k can be had back from it
    odd k is a buy at the ask, even k a sale at the bid; the other side is one tick away;
    bid size 10 + k % 13, ask size 10 + k % 11 (times 1/10000 for crypto)

Book change q = 1, 2, …: bid = the price formula with q, ask = bid + tick, bid size 1 + q % 89, ask size 1 + q % 97.

The numbers start at the venue's clock (20,000 a second since the venue's day began, `start_k` sets another start), so that
a simulator that is started again on the same day never repeats a number. The rate is exact: the streams take
turns, in runs of 1, 3, 2 and 4 events, so that KIS messages of several records are common.
"""

from __future__ import annotations

import zlib
from itertools import cycle
from typing import Final, NamedTuple

from obs.sim.market import BUY, GROUPS, SELL, STEP_S, Stream, Symbol

CYCLE: Final = 1000  # prices repeat after so many trades
START_PER_S: Final = 20_000
_RUNS: Final = (1, 3, 2, 4)
_DAY_MS: Final = 86_400_000
# group -> (base, step per index, tick, size step), in the units of the group
_SCALE: Final = {
    "krx": (50_000, 100, 1, 1),
    "nxt": (50_000, 100, 1, 1),
    "unified": (50_000, 100, 1, 1),
    "us": (1_000_000, 10_000, 100, 1),
    "crypto": (100_000 * 10**8, 1000 * 10**8, 10**7, 10**4),
}


class NumberedTrade(NamedTuple):
    """One trade in whole currency and whole shares or coins."""

    price: float
    size: float
    acc_volume: float
    side: str
    bid_price: float
    ask_price: float
    bid_size: float
    ask_size: float


def index_of(code: str) -> int:
    """Return i of a symbol."""
    return zlib.crc32(code.encode()) % 100


def price_units(group: str, code: str, k: int) -> int:
    """Return the price of number k in the units of the group."""
    base, per_index, tick, _ = _SCALE[group]
    return base + per_index * index_of(code) + (k % CYCLE) * tick


def acc_steps(k: int) -> int:
    """Return the sum of 1 + j % 7 over j = 1..k: 28 for each whole seven, 2, 5, 9, 14, 20, 27 for 1..6 more."""
    sevens, rest = divmod(k, 7)
    return 28 * sevens + rest + rest * (rest + 1) // 2


def trade(group: str, code: str, k: int) -> NumberedTrade:
    """Return trade k of a symbol; `group`: krx, nxt, unified, us or crypto."""
    _, _, tick, step = _SCALE[group]
    price_unit, size_unit = GROUPS[group].price_unit, GROUPS[group].size_unit
    price = price_units(group, code, k)
    bid, ask = (price - tick, price) if k % 2 else (price, price + tick)
    return NumberedTrade(
        price / price_unit, (1 + k % 7) * step / size_unit, acc_steps(k) * step / size_unit, "buy" if k % 2 else "sell",
        bid / price_unit, ask / price_unit, (10 + k % 13) * step / size_unit, (10 + k % 11) * step / size_unit,
    )  # fmt: skip


def k_of_acc_volume(group: str, acc_volume: float) -> int:
    """Return k of an accumulated volume. Raises ValueError if no k has it."""
    steps = round(acc_volume * GROUPS[group].size_unit / _SCALE[group][3])
    sevens, rest = divmod(steps, 28)
    for more in range(7):
        if acc_steps(more) == rest:
            return 7 * sevens + more
    raise ValueError(f"acc_volume={acc_volume!r} is no sum of numbered sizes")


def sequential_id(day_start_ms: int, k: int) -> int:
    """Return Upbit's sequential_id of trade k; `day_start_ms`: start of the UTC day, epoch ms."""
    return day_start_ms * 10_000 + k


def k_of_sequential_id(number: int) -> int:
    """Return k of a sequential_id: good for k below 10,000 a millisecond of a day."""
    return number - number // 10_000 // _DAY_MS * _DAY_MS * 10_000


class NumberedSource:
    """Streams in turn, exactly `rate` events a second in all."""

    def __init__(self, rate: float, start_k: int | None = None) -> None:
        self._rate = rate
        self._start_k = start_k
        self._streams: list[Stream] = []
        self._runs = cycle(_RUNS)
        self._turn = 0
        self._left = 0  # of the run under way
        self._credit = 0.0

    def begin(self, symbol: Symbol, now_ns: int) -> None:
        day_ns = now_ns - symbol.day_ms * 10**6
        start = day_ns * START_PER_S // 10**9 if self._start_k is None else self._start_k
        symbol.k = symbol.q = start
        self._set(symbol)
        symbol.prev_close = price_units(symbol.group.name, symbol.code, 0)
        symbol.acc = acc_steps(start) * _SCALE[symbol.group.name][3]
        symbol.prev_volume = 10_000_000 * symbol.group.size_unit

    def new_day(self, symbol: Symbol) -> None:
        symbol.k = symbol.q = 0

    def add(self, stream: Stream) -> None:
        self._streams.append(stream)

    def due(self, steps: int, factor: float) -> list[tuple[Stream, int]]:
        if not self._streams:
            return []
        self._credit += self._rate * factor * STEP_S * steps
        count = int(self._credit)
        self._credit -= count
        out = []
        while count:
            if not self._left:
                self._turn += 1
                self._left = next(self._runs)
            run = min(self._left, count)
            out.append((self._streams[self._turn % len(self._streams)], run))
            self._left -= run
            count -= run
        return out

    def trade(self, symbol: Symbol, now_ns: int) -> None:
        symbol.k += 1
        self._set(symbol)

    def _set(self, symbol: Symbol) -> None:
        k = symbol.k
        _, _, tick, step = _SCALE[symbol.group.name]
        base = symbol.texts.get("base")
        if base is None:
            base = symbol.texts["base"] = price_units(symbol.group.name, symbol.code, 0)
        price = base + (k % CYCLE) * tick
        symbol.price = price
        symbol.size = (1 + k % 7) * step
        if k % 2:
            symbol.side, symbol.bid, symbol.ask = BUY, price - tick, price
        else:
            symbol.side, symbol.bid, symbol.ask = SELL, price, price + tick
        symbol.bid_size = (10 + k % 13) * step
        symbol.ask_size = (10 + k % 11) * step
        symbol.venue_seq = sequential_id(symbol.day_ms, k)

    def book(self, symbol: Symbol) -> None:
        symbol.q += 1
        q = symbol.q
        _, _, tick, step = _SCALE[symbol.group.name]
        symbol.bid = price_units(symbol.group.name, symbol.code, q)
        symbol.ask = symbol.bid + tick
        symbol.bid_size = (1 + q % 89) * step
        symbol.ask_size = (1 + q % 97) * step
