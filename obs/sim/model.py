"""A seeded market of our own, which ships with the demo: no captured data, but calibrated on figures of captured data.

Arrivals. Each stream is a Hawkes process in steps of 10 ms (each event raises the chance of the next for some 125 ms; 7 in
10 events are children), under one common slow factor (log-normal, 2 s memory), so that bursts come in all streams together.
The tape of 2013-10-07 has a busiest second of 16 times its mean and a busiest 100 ms of 117 times; one measured KIS
connection had several records in 57 % of its messages. Streams differ in weight (log-normal). `rate` is that
of the open; the day is a U that falls to 0.65 of it at noon and comes back at the close, and begins with a rush that doubles
it and fades in 10 s. The day begins with the first subscription and lasts 6.5 h, then it repeats.

Prices. Best bid and ask move on the venue's tick grid; a trade takes one side, with the side of the last one in 7 of 10
cases; every tenth or so moves the quote, mostly the way it traded. Spreads are 1 to 3 ticks. Sizes are log-normal with many
ones (crypto: with many small ones). Days stay within 15 % of the previous close.

Invariant: the trades and quotes of a symbol depend on the seed, its code and the order of its events alone, arrival counts on
the seed and the order of subscription alone; no clock has a part in either (accumulated volume and ids start at the clock).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from typing import Final

import numpy as np

from obs.sim.market import BUY, SELL, STEP_S, Stream, Symbol
from obs.sim.symbols import KRX, US, crypto_pairs

_CHILDREN: Final = 0.7  # branching ratio of the Hawkes process
_DECAY_PER_S: Final = 8.0
_COMMON_SIGMA: Final = 0.4
_COMMON_MEMORY_S: Final = 2.0
_DAY_S: Final = 6.5 * 3600
_RUSH_S: Final = 10.0
_WEIGHT_SIGMA: Final = 0.8
_BLOCK: Final = 512  # events drawn at a time
_DAY_LIMIT: Final = 0.15
_ACC_PER_S: Final = 20_000  # accumulated volume at the start, per second of the venue's day: grows over restarts

# Source: KRX business regulations, tick sizes since 2023-01-25; (price below, tick), in won.
KRX_TICKS: Final = ((2_000, 1), (5_000, 5), (20_000, 10), (50_000, 50), (200_000, 100), (500_000, 500))
KRX_TOP: Final = 1_000
# Source: Upbit notice on KRW tick sizes; (price from, tick), in won. Agrees with tick_size 1000 of KRW-BTC at 103,000,000.
KRW_TICKS: Final = (
    (2_000_000.0, 1_000.0), (1_000_000.0, 500.0), (500_000.0, 100.0), (100_000.0, 50.0), (10_000.0, 10.0), (1_000.0, 1.0),
    (100.0, 0.1), (10.0, 0.01), (1.0, 0.001), (0.1, 0.0001), (0.01, 0.00001), (0.001, 0.000001),
)  # fmt: skip
USDT_TICK: Final = 0.001


def krx_tick(price: int) -> int:
    """Return the tick of a KRX share at `price` won."""
    return next((tick for below, tick in KRX_TICKS if price < below), KRX_TOP)


def crypto_tick(code: str, price: int) -> int:
    """Return the tick of an Upbit pair at `price`, both in 1e-8 of the quote currency."""
    if code.startswith("BTC-"):
        return 1
    if code.startswith("USDT-"):
        return max(1, round(min(USDT_TICK, price / 1e8 / 1000) * 1e8))
    return next((round(tick * 1e8) for start, tick in KRW_TICKS if price >= start * 1e8), 10)


def tick_of(symbol: Symbol, price: int) -> int:
    """Return the tick at `price`, in the units of the symbol's group."""
    if symbol.group.name == "crypto":
        return crypto_tick(symbol.code, price)
    return 100 if symbol.group.name == "us" else krx_tick(price)


def first_price(symbol: Symbol, seed: int) -> int:
    """Return a price on the tick grid: the listed one, or a seeded one for a code that is not listed."""
    group, code = symbol.group, symbol.code
    listed: float | None
    if group.name == "crypto":
        listed = crypto_pairs().get(code)
    elif group.name == "us":
        listed = US.get(code[4:])  # D + three letters of the exchange + symbol
    else:
        listed = KRX[code][1] if code in KRX else None
    if listed is None:
        draw = random_of(seed, code, 0).random()
        listed = math.exp(math.log(2_000) + draw * math.log(250)) / (100 if group.name == "us" else 1)
    units = round(listed * group.price_unit)
    tick = tick_of(symbol, units)
    return max(tick, units // tick * tick)


def random_of(seed: int, code: str, use: int) -> np.random.Generator:
    """Return a generator of its own for one symbol and use."""
    return np.random.default_rng((seed, zlib.crc32(code.encode()), use))


def day_factor(second: float) -> float:
    """Return the rate at this second of the market's day, as a multiple of that at the open."""
    place = (second % _DAY_S) / _DAY_S
    return 0.65 + 0.35 * (2 * place - 1) ** 2


class _Path:
    """Draws of one symbol's events, in blocks."""

    def __init__(self, symbol: Symbol, seed: int) -> None:
        self._random = random_of(seed, symbol.code + symbol.group.name, 1)
        self._crypto = symbol.group.name == "crypto"
        # A trade is worth some 1,500,000 won at most venues, whatever a coin or a share costs.
        self._typical = max(1.0, 1_500_000 * symbol.group.price_unit / max(1, symbol.price))
        self._unit = symbol.group.size_unit
        self.events: Iterator[tuple[bool, int, float, int, int, int]] = iter(())

    def next(self) -> tuple[bool, int, float, int, int, int]:
        """Return (side stays, size, move, spread in ticks, bid size, ask size)."""
        event = next(self.events, None)
        if event is None:
            self.events = self._block()
            event = next(self.events)
        return event

    def _block(self) -> Iterator[tuple[bool, int, float, int, int, int]]:
        draw = self._random
        stays = draw.random(_BLOCK) < 0.7
        sigma = 1.6 if self._crypto else 1.3
        raw = self._typical * draw.lognormal(-1.2, sigma, _BLOCK) * self._unit
        raw = np.where(draw.random(_BLOCK) < 0.25, raw * 0.02, raw)
        sizes = np.clip(raw, 1, 1e15).astype(np.int64)
        moves = draw.random(_BLOCK)
        spreads = np.minimum(draw.geometric(0.8, _BLOCK), 3)
        depth = np.clip(self._typical * self._unit * draw.lognormal(1.0, 1.0, (2, _BLOCK)), 1, 1e15).astype(np.int64)
        return iter(
            list(zip(stays.tolist(), sizes.tolist(), moves.tolist(), spreads.tolist(), depth[0].tolist(), depth[1].tolist(), strict=True))
        )


class ModelSource:
    """The seeded market. `rate`: inputs/s over all streams at the open, its rush apart."""

    def __init__(self, rate: float, seed: int) -> None:
        self._rate = rate
        self._seed = seed
        self._random = np.random.default_rng((seed, 1))
        self._streams: list[Stream] = []
        self._share = np.zeros(0)
        self._excited = np.zeros(0)
        self._common = 0.0
        self._second = 0.0
        self._paths: dict[Symbol, _Path] = {}

    def begin(self, symbol: Symbol, now_ns: int) -> None:
        price = first_price(symbol, self._seed)
        tick = tick_of(symbol, price)
        symbol.price = symbol.prev_close = price
        symbol.bid, symbol.ask = max(tick, price - tick), price
        symbol.side = BUY
        path = self._paths[symbol] = _Path(symbol, self._seed)
        _, symbol.size, _, _, symbol.bid_size, symbol.ask_size = path.next()
        day_s = max(0, now_ns // 10**9 - symbol.day_ms // 1000)
        per_s = _ACC_PER_S if symbol.group.size_unit == 1 else symbol.group.size_unit // 100
        symbol.acc = day_s * per_s
        symbol.prev_volume = 86_400 * per_s
        symbol.venue_seq = now_ns // 10**6 * 10_000

    def new_day(self, symbol: Symbol) -> None:
        """Nothing: prices go on from where they are."""

    def add(self, stream: Stream) -> None:
        self._streams.append(stream)
        weights = np.array([math.exp(_WEIGHT_SIGMA * random_of(self._seed, s.symbol.code, 2).standard_normal()) for s in self._streams])
        self._share = weights / weights.sum() * self._rate
        self._excited = np.append(self._excited, 0.0)

    def due(self, steps: int, factor: float) -> list[tuple[Stream, int]]:
        out: list[tuple[Stream, int]] = []
        if not self._streams:
            return out
        for _ in range(steps):
            counts = self._step(factor)
            for place in np.flatnonzero(counts).tolist():
                out.append((self._streams[place], int(counts[place])))
        return out

    def _step(self, factor: float) -> np.ndarray:
        """Return the events of one step, by stream."""
        fade = STEP_S / _COMMON_MEMORY_S
        self._common += -fade * self._common + _COMMON_SIGMA * math.sqrt(2 * fade) * self._random.standard_normal()
        common = math.exp(self._common - _COMMON_SIGMA**2 / 2)
        common *= factor * (day_factor(self._second) + math.exp(-self._second / _RUSH_S))
        self._second += STEP_S
        rate = self._share * ((1 - _CHILDREN) * common) + self._excited
        counts = self._random.poisson(rate * STEP_S)
        self._excited *= math.exp(-_DECAY_PER_S * STEP_S)
        # Divided by what the decay sums to in steps, so that an event has _CHILDREN children on average.
        self._excited += counts * (_CHILDREN * -math.expm1(-_DECAY_PER_S * STEP_S) / STEP_S)
        return counts

    def trade(self, symbol: Symbol, now_ns: int) -> None:
        stays, size, move, spread, bid_size, ask_size = self._paths[symbol].next()
        symbol.k += 1
        if not stays:
            symbol.side = -symbol.side
        buy = symbol.side == BUY
        if move < 0.12:
            self._shift(symbol, 1 if buy == (move < 0.09) else -1, spread)
            symbol.bid_size, symbol.ask_size = bid_size, ask_size
        symbol.price = symbol.ask if buy else symbol.bid
        symbol.size = size
        symbol.venue_seq = max(symbol.venue_seq + 1, now_ns // 10**6 * 10_000)

    def book(self, symbol: Symbol) -> None:
        stays, _, move, spread, bid_size, ask_size = self._paths[symbol].next()
        symbol.q += 1
        if move < 0.08:
            self._shift(symbol, 1 if stays == (move < 0.04) else -1, spread)
        symbol.bid_size, symbol.ask_size = bid_size, ask_size

    @staticmethod
    def _shift(symbol: Symbol, way: int, spread: int) -> None:
        """Move the best quote one tick and set its spread, within the day's limits."""
        tick = tick_of(symbol, symbol.bid)
        if abs(symbol.bid + way * tick - symbol.prev_close) > _DAY_LIMIT * symbol.prev_close:
            way = -way
        bid = max(tick, symbol.bid + way * tick)
        bid -= bid % tick_of(symbol, bid)
        symbol.bid = bid
        symbol.ask = bid + spread * tick_of(symbol, bid)
        symbol.side = symbol.side or SELL
