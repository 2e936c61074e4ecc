"""The state of a simulated market: symbols, the streams of events that clients subscribe to, and what a source must do.

Numbers are integers in the units of their group, so that sums are exact and every text that leaves is exact too:
`krx`, `nxt`, `unified`: won and shares; `us`: 1e-4 dollar and shares; `crypto`: 1e-8 of quote and of base currency.
A price or size of 0 on one side of the book means that the side is absent, as on both venues.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Protocol

TRADE: Final = "trade"
BOOK: Final = "book"
TICKER: Final = "ticker"

BUY: Final = 1
SELL: Final = -1

STEP_S: Final = 0.01  # market time moves in steps of this; also the pace of the writer


@dataclass(frozen=True, slots=True)
class Group:
    """A kind of market: its units, and how its venue's day is cut. `price_unit` and `size_unit` per whole."""

    name: str
    price_unit: int
    size_unit: int
    day_offset_s: int  # the venue's day starts at UTC midnight minus this


KST_S: Final = 9 * 3600
GROUPS: Final = {
    "krx": Group("krx", 1, 1, KST_S),
    "nxt": Group("nxt", 1, 1, KST_S),
    "unified": Group("unified", 1, 1, KST_S),
    "us": Group("us", 10_000, 1, KST_S),  # the business date that KIS stamps changes with KST in this simulation
    "crypto": Group("crypto", 10**8, 10**8, 0),
}


class Symbol:
    """One instrument of one group. Sources set the last trade and the best quote; `traded` keeps the day's figures."""

    __slots__ = (
        "acc", "ask", "ask_size", "bid", "bid_size", "buy_volume", "buys", "code", "day", "day_ms", "group", "has_trades",
        "high", "high_hms", "k", "low", "low_hms", "name", "open", "open_hms", "prev_close", "prev_volume", "price",
        "q", "sell_volume", "sells", "side", "size", "texts", "trade_ns", "value", "venue_seq",
    )  # fmt: skip

    def __init__(self, group: str, code: str, name: str = "") -> None:
        self.group = GROUPS[group]
        self.code = code
        self.name = name or f"SIM {code}"
        self.k = 0  # trades so far
        self.q = 0  # book changes so far
        self.price = self.size = self.side = 0
        self.bid = self.ask = self.bid_size = self.ask_size = 0
        self.open = self.high = self.low = self.prev_close = 0
        self.acc = self.value = 0
        self.buys = self.sells = self.buy_volume = self.sell_volume = 0
        self.prev_volume = 1
        self.day = ""
        self.day_ms = 0  # epoch ms at which the venue's day began
        self.open_hms = self.high_hms = self.low_hms = "090000"
        self.trade_ns = 0
        self.venue_seq = 0
        self.has_trades = False  # a trade stream of this symbol runs
        self.texts: dict[str, Any] = {}  # an encoder's cached pieces

    def begin_day(self, day: str, hms: str) -> None:
        """Start the venue's day anew: accumulated figures from 0, yesterday's last price is the previous close."""
        if self.day and self.price:
            self.prev_close = self.price
            self.prev_volume = max(1, self.acc)
            self.acc = 0
        self.day = day
        self.open = self.high = self.low = self.price
        self.value = self.acc * self.price
        self.buys = self.sells = self.buy_volume = self.sell_volume = 0
        self.open_hms = self.high_hms = self.low_hms = hms

    def traded(self, now_ns: int, hms: str) -> None:
        """Fold the trade that a source has just set (price, size, side) into the day's figures."""
        price, size = self.price, self.size
        self.trade_ns = now_ns
        self.acc += size
        self.value += price * size
        if self.side == BUY:
            self.buys += 1
            self.buy_volume += size
        elif self.side == SELL:
            self.sells += 1
            self.sell_volume += size
        if price > self.high:
            self.high, self.high_hms = price, hms
        if price < self.low:
            self.low, self.low_hms = price, hms


class Stream:
    """One kind of event of one symbol, as a client subscribes to it; it runs on for ever once somebody has asked for it."""

    __slots__ = ("key", "kind", "subs", "symbol")

    def __init__(self, key: tuple[str, str], kind: str, symbol: Symbol) -> None:
        self.key = key  # the venue's names: (tr_id, tr_key) or (type, code)
        self.kind = kind
        self.symbol = symbol
        self.subs: dict[Any, Any] = {}  # connection -> how it wants the messages (format, levels)


@dataclass(slots=True)
class Message:
    """One payload for the wire, and the log line ends (from `"symbol"` on, without the brace) of the inputs in it."""

    payload: bytes
    count: int
    tails: list[str] = field(default_factory=list)
    symbol: str = ""


class Source(Protocol):
    """What makes a market move. Pure but for its random generator: no clocks, no I/O after the start."""

    def begin(self, symbol: Symbol, now_ns: int) -> None:
        """Set the first state of a symbol whose `day_ms` is set: numbers, price, quote, previous close, accumulated volume."""
        ...

    def new_day(self, symbol: Symbol) -> None:
        """The venue's day has changed; Symbol.begin_day follows."""
        ...

    def add(self, stream: Stream) -> None:
        """From now on this stream has its share of the rate."""
        ...

    def due(self, steps: int, factor: float) -> list[tuple[Stream, int]]:
        """Advance market time by `steps` and return the events that happened, in order; `factor` multiplies the rate."""
        ...

    def trade(self, symbol: Symbol, now_ns: int) -> None:
        """Set k, price, size, side, venue_seq and best quote of the next trade, which happens at `now_ns`."""
        ...

    def book(self, symbol: Symbol) -> None:
        """Set q and the best quote of the next book change."""
        ...
