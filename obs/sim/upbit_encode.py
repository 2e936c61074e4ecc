"""Upbit stream messages: trade, orderbook and ticker in DEFAULT and SIMPLE keys, and the list forms of both.

Source: Upbit WebSocket guide v1.6.4 and frames recorded in September 2026. Numbers are spelled as there: a trade carries
`106691000.00000000`, its best quote `106705000`, an order book Java doubles such as `1.16539E8` and `7.9276E-4`.
"""

from __future__ import annotations

import time
from decimal import Decimal
from functools import lru_cache
from typing import Final

from obs.sim.market import BUY, Symbol
from obs.sim.model import tick_of

_E8: Final = 10**8
FORMATS: Final = ("DEFAULT", "SIMPLE", "JSON_LIST", "SIMPLE_LIST")
BOOK_LEVELS: Final = 30

_TRADE: Final = (
    ("type", "ty", '"trade"'), ("code", "cd", '"%s"'), ("timestamp", "tms", "%d"), ("trade_date", "td", '"%s"'),
    ("trade_time", "ttm", '"%s"'), ("trade_timestamp", "ttms", "%d"), ("trade_price", "tp", "%s"), ("trade_volume", "tv", "%s"),
    ("ask_bid", "ab", '"%s"'), ("prev_closing_price", "pcp", "%s"), ("change", "c", '"%s"'), ("change_price", "cp", "%s"),
    ("sequential_id", "sid", "%d"), ("best_ask_price", "bap", "%s"), ("best_ask_size", "bas", "%s"),
    ("best_bid_price", "bbp", "%s"), ("best_bid_size", "bbs", "%s"), ("stream_type", "st", '"%s"'),
)  # fmt: skip
_TICKER: Final = (
    ("type", "ty", '"ticker"'), ("code", "cd", '"%s"'), ("opening_price", "op", "%s"), ("high_price", "hp", "%s"),
    ("low_price", "lp", "%s"), ("trade_price", "tp", "%s"), ("prev_closing_price", "pcp", "%s"), ("acc_trade_price", "atp", "%s"),
    ("change", "c", '"%s"'), ("change_price", "cp", "%s"), ("signed_change_price", "scp", "%s"), ("change_rate", "cr", "%s"),
    ("signed_change_rate", "scr", "%s"), ("ask_bid", "ab", '"%s"'), ("trade_volume", "tv", "%s"),
    ("acc_trade_volume", "atv", "%s"), ("trade_date", "tdt", '"%s"'), ("trade_time", "ttm", '"%s"'),
    ("trade_timestamp", "ttms", "%d"), ("acc_ask_volume", "aav", "%s"), ("acc_bid_volume", "abv", "%s"),
    ("highest_52_week_price", "h52wp", "%s"), ("highest_52_week_date", "h52wdt", '"%s"'), ("lowest_52_week_price", "l52wp", "%s"),
    ("lowest_52_week_date", "l52wdt", '"%s"'), ("market_state", "ms", '"ACTIVE"'), ("is_trading_suspended", "its", "false"),
    ("delisting_date", "dd", "null"), ("market_warning", "mw", '"NONE"'), ("timestamp", "tms", "%d"),
    ("acc_trade_price_24h", "atp24h", "%s"), ("acc_trade_volume_24h", "atv24h", "%s"), ("stream_type", "st", '"%s"'),
)  # fmt: skip
_BOOK: Final = (
    ("type", "ty", '"orderbook"'), ("code", "cd", '"%s"'), ("timestamp", "tms", "%d"), ("total_ask_size", "tas", "%s"),
    ("total_bid_size", "tbs", "%s"), ("orderbook_units", "obu", "[%s]"), ("stream_type", "st", '"%s"'), ("level", "lv", "%s"),
)  # fmt: skip
_UNIT: Final = (("ask_price", "ap", "%s"), ("bid_price", "bp", "%s"), ("ask_size", "as", "%s"), ("bid_size", "bs", "%s"))


def _templates(fields: tuple[tuple[str, str, str], ...]) -> dict[str, str]:
    """Return a %-template by format name."""
    out = {}
    for name, column in (("DEFAULT", 0), ("SIMPLE", 1)):
        body = "{" + ",".join(f'"{field[column]}":{field[2]}' for field in fields) + "}"
        out[name] = body
        out["JSON_LIST" if name == "DEFAULT" else "SIMPLE_LIST"] = f"[{body}]"
    return out


TRADE_TEXT: Final = _templates(_TRADE)
TICKER_TEXT: Final = _templates(_TICKER)
BOOK_TEXT: Final = _templates(_BOOK)
UNIT_TEXT: Final = _templates(_UNIT)


class UtcClock:
    """The time texts of one instant; renews them once a second."""

    def __init__(self) -> None:
        self._second = -1
        self.day = self.hms = self.date = self.time = ""
        self.ms = 0
        self.day_ms = 0

    def set(self, now_ns: int) -> None:
        """Move to `now_ns`, UTC."""
        self.ms = now_ns // 10**6
        second = now_ns // 10**9
        if second == self._second:
            return
        self._second = second
        utc = time.gmtime(second)
        self.day = time.strftime("%Y%m%d", utc)
        self.hms = time.strftime("%H%M%S", utc)
        self.date = time.strftime("%Y-%m-%d", utc)
        self.time = time.strftime("%H:%M:%S", utc)
        self.day_ms = second // 86_400 * 86_400_000


def fixed(units: int) -> str:
    """Return 1e-8 units with eight decimals: `106691000.00000000`."""
    if units < 0:
        return "-" + fixed(-units)
    return f"{units // _E8}.{units % _E8:08d}"


def short(units: int) -> str:
    """Return 1e-8 units without needless decimals: `106705000`, `0.00906333`."""
    whole, part = divmod(units, _E8)
    return f"{whole}.{part:08d}".rstrip("0") if part else str(whole)


@lru_cache(maxsize=65536)
def java(units: int) -> str:
    """Return 1e-8 units as Java prints a double: `1.16539E8`, `127.0`, `7.9276E-4`, `0.0`."""
    value = Decimal(units).scaleb(-8)
    if units == 0 or Decimal("0.001") <= abs(value) < 10**7:
        text = short(units)
        return text if "." in text else text + ".0"
    sign, digits, exponent = value.normalize().as_tuple()
    assert isinstance(exponent, int)
    mantissa = "".join(map(str, digits))
    return f"{'-' if sign else ''}{mantissa[0]}.{mantissa[1:] or '0'}E{exponent + len(mantissa) - 1}"


def _change(s: Symbol) -> tuple[str, int]:
    change = s.price - s.prev_close
    return ("RISE" if change > 0 else "FALL" if change < 0 else "EVEN"), change


def trade_text(s: Symbol, t: UtcClock, form: str, stream_type: str) -> str:
    """Return a trade message of the symbol's last trade."""
    word, change = _change(s)
    ms = s.trade_ns // 10**6
    if ms // 1000 == t.ms // 1000:
        date, clock = t.date, t.time
    else:
        utc = time.gmtime(ms // 1000)
        date, clock = time.strftime("%Y-%m-%d", utc), time.strftime("%H:%M:%S", utc)
    return TRADE_TEXT[form] % (
        s.code, t.ms, date, clock, ms, fixed(s.price), fixed(s.size), "BID" if s.side == BUY else "ASK",
        fixed(s.prev_close), word, fixed(abs(change)), s.venue_seq, short(s.ask), short(s.ask_size), short(s.bid),
        short(s.bid_size), stream_type,
    )  # fmt: skip


def ticker_text(s: Symbol, t: UtcClock, form: str, stream_type: str) -> str:
    """Return a ticker message: the day so far."""
    word, change = _change(s)
    rate = change / s.prev_close if s.prev_close else 0.0
    ms = s.trade_ns // 10**6
    utc = time.gmtime(ms // 1000)
    turnover = fixed(s.value // _E8)
    return TICKER_TEXT[form] % (
        s.code, fixed(s.open), fixed(s.high), fixed(s.low), fixed(s.price), fixed(s.prev_close), turnover, word,
        fixed(abs(change)), fixed(change), f"{abs(rate):.10f}", f"{rate:.10f}", "BID" if s.side == BUY else "ASK",
        fixed(s.size), fixed(s.acc), time.strftime("%Y%m%d", utc), time.strftime("%H%M%S", utc), ms,
        fixed(s.sell_volume), fixed(s.buy_volume), fixed(s.prev_close * 17 // 10), "2025-10-09", fixed(s.prev_close * 6 // 10),
        "2026-02-06", t.ms, turnover, fixed(s.acc), stream_type,
    )  # fmt: skip


def book_text(s: Symbol, t: UtcClock, form: str, stream_type: str, levels: int, level: int) -> str:
    """Return the whole book, `levels` deep; levels below the best are made anew when a best price moves."""
    keys = "SIMPLE" if form.startswith("SIMPLE") else "DEFAULT"
    best = UNIT_TEXT[keys] % (java(s.ask), java(s.bid), java(s.ask_size), java(s.bid_size))
    return BOOK_TEXT[form] % (
        s.code, t.ms, fixed(s.ask_size * levels), fixed(s.bid_size * levels), best + _deeper(s, keys, levels), stream_type, level,
    )  # fmt: skip


def _deeper(s: Symbol, keys: str, levels: int) -> str:
    cache = s.texts.setdefault("deep", {})
    kept = cache.get((keys, levels))
    if kept is not None and kept[0] == (s.bid, s.ask):
        text: str = kept[1]
        return text
    tick = tick_of(s, s.bid or s.ask)
    out = []
    for depth in range(1, levels):
        ask = s.ask + depth * tick if s.ask else 0
        bid = max(0, s.bid - depth * tick) if s.bid else 0
        sizes = (s.ask_size + depth * 10**5 if ask else 0, s.bid_size + depth * 10**5 if bid else 0)
        out.append("," + UNIT_TEXT[keys] % (java(ask), java(bid), java(sizes[0]), java(sizes[1])))
    text = "".join(out)
    cache[(keys, levels)] = ((s.bid, s.ask), text)
    return text
