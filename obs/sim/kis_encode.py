"""KIS data messages: the texts of H0STCNT0, H0STASP0, HDFSCNT0 and HDFSASP0 records from a symbol's state.

Source: KIS Open API field tables as of July 2026, with the widths seen on the wire since 2026-09-14 (47 and 63; settable,
because they drift). Everything is text joined with `^`; times are KST with a resolution of one second.
"""

from __future__ import annotations

import time
from typing import Final

from obs.sim.market import BUY, SELL, Symbol
from obs.sim.model import tick_of

MAX_RECORDS: Final = 9  # records in one domestic message. Source: kis.md 4.4, "up to 9 records (H0STCNT0)"
LEVELS: Final = 10
_KST_S: Final = 9 * 3600
_US_S: Final = -4 * 3600  # New York in summer; the simulated venue knows no winter


class KstClock:
    """The time texts of one instant; renews them once a second."""

    def __init__(self) -> None:
        self._second = -1
        self.day = ""
        self.hms = ""
        self.us_day = ""
        self.us_hms = ""
        self.day_ms = 0

    def set(self, now_ns: int) -> None:
        """Move to `now_ns`, UTC."""
        second = now_ns // 10**9
        if second == self._second:
            return
        self._second = second
        kst = time.gmtime(second + _KST_S)
        self.day = time.strftime("%Y%m%d", kst)
        self.hms = time.strftime("%H%M%S", kst)
        there = time.gmtime(second + _US_S)
        self.us_day = time.strftime("%Y%m%d", there)
        self.us_hms = time.strftime("%H%M%S", there)
        self.day_ms = ((second + _KST_S) // 86_400 * 86_400 - _KST_S) * 1000


def sign_of(change: int, base: int) -> str:
    """Return the sign code against `base`: 1 limit-up, 2 up, 3 flat, 4 limit-down, 5 down."""
    if change == 0:
        return "3"
    at_limit = abs(change) * 100 >= base * 30 - base  # the limit is 30 %, less what the tick grid takes
    if change > 0:
        return "1" if at_limit else "2"
    return "4" if at_limit else "5"


def _versus(change: int) -> str:
    return f"{'2' if change > 0 else '5' if change < 0 else '3'}^{change}"


def trade_record(s: Symbol, t: KstClock, width: int) -> str:
    """Return one domestic trade record of `width` fields (46 known before 2026-09-14, 47 since)."""
    price, acc = s.price, s.acc
    change = price - s.prev_close
    rate = change / s.prev_close * 100 if s.prev_close else 0.0
    sold, bought = s.sell_volume, s.buy_volume
    strength = bought / sold * 100 if sold else 0.0
    side = "1" if s.side == BUY else "5" if s.side == SELL else "3"
    shared = bought / (bought + sold) if bought or sold else 0.0
    versus_day = acc / s.prev_volume * 100
    vwap = s.value / acc if acc else 0.0
    text = (
        f"{s.code}^{t.hms}^{price}^{sign_of(change, s.prev_close)}^{change}^{rate:.2f}^{vwap:.2f}^{s.open}^{s.high}^{s.low}"
        f"^{s.ask}^{s.bid}^{s.size}^{acc}^{s.value}^{s.sells}^{s.buys}^{s.buys - s.sells}^{strength:.2f}^{sold}^{bought}^{side}"
        f"^{shared:.2f}^{versus_day:.2f}^{s.open_hms}^{_versus(price - s.open)}^{s.high_hms}^{_versus(price - s.high)}"
        f"^{s.low_hms}^{_versus(price - s.low)}^{t.day}^20^N^{s.ask_size}^{s.bid_size}^{s.ask_size * 11}^{s.bid_size * 11}"
        f"^{versus_day / 100:.2f}^{s.prev_volume}^{versus_day:.2f}^0^^{s.prev_close}"
    )
    return pad(text, 46, width, "2")


def pad(text: str, have: int, want: int, known: str) -> str:
    """Return a record of `want` fields: the first added one is `known`, the rest 0; or the front of the record."""
    if want > have:
        return text + "^" + known + "^0" * (want - have - 1)
    if want < have:
        return "^".join(text.split("^")[:want])
    return text


def book_record(s: Symbol, t: KstClock, width: int) -> str:
    """Return one domestic book record: ten levels around the best quote, a side of price 0 left out as 0."""
    asks, bids, deep_asks, deep_bids = _ladder(s)
    change = s.prev_close
    total_ask, total_bid = s.ask_size * 11, s.bid_size * 11
    whole, half = divmod(s.bid + s.ask, 2)
    mid = f"{whole}.5" if half else str(whole)
    text = (
        f"{s.code}^{t.hms}^0^{asks}^{bids}^{s.ask_size}^{deep_asks}^{s.bid_size}^{deep_bids}^{total_ask}^{total_bid}^0^0"
        f"^0^0^{s.q % 1000000}^{-change}^5^-100.00^{s.acc}^{s.q % 7 - 3}^{s.q % 5 - 2}^0^0^0^{mid}^0^0"
    )
    return pad(text, 62, width, "2")


def _ladder(s: Symbol) -> tuple[str, str, str, str]:
    """Return price texts of both sides, and the size texts of levels 2 to 10; kept until the best prices change."""
    cached = s.texts.get("ladder")
    if cached is not None and cached[0] == (s.bid, s.ask):
        ready: tuple[str, str, str, str] = cached[1]
        return ready
    tick = tick_of(s, s.bid or s.ask)
    asks = [s.ask + level * tick if s.ask else 0 for level in range(LEVELS)]
    bids = [max(0, s.bid - level * tick) if s.bid else 0 for level in range(LEVELS)]
    deep_asks = [(s.ask_size + 7 * level) if s.ask else 0 for level in range(1, LEVELS)]
    deep_bids = [(s.bid_size + 5 * level) if s.bid else 0 for level in range(1, LEVELS)]
    ready = ("^".join(map(str, asks)), "^".join(map(str, bids)), "^".join(map(str, deep_asks)), "^".join(map(str, deep_bids)))
    s.texts["ladder"] = ((s.bid, s.ask), ready)
    return ready


def _dollars(units: int) -> str:
    return f"{units // 10_000}.{units % 10_000:04d}"


def us_trade_record(s: Symbol, t: KstClock) -> str:
    """Return one overseas trade record, 26 fields, prices with four decimals."""
    change = s.price - s.prev_close
    rate = change / s.prev_close * 100 if s.prev_close else 0.0
    strength = s.buy_volume / s.sell_volume * 100 if s.sell_volume else 0.0
    return (
        f"{s.code}^{s.code[4:]}^4^{t.us_day}^{t.us_day}^{t.us_hms}^{t.day}^{t.hms}^{_dollars(s.open)}^{_dollars(s.high)}"
        f"^{_dollars(s.low)}^{_dollars(s.price)}^{sign_of(change, s.prev_close)}^{_dollars(abs(change))}^{rate:+.2f}"
        f"^{_dollars(s.bid)}^{_dollars(s.ask)}^{s.bid_size}^{s.ask_size}^{s.size}^{s.acc}^{s.value // 10_000}"
        f"^{s.sell_volume}^{s.buy_volume}^{strength:.2f}^2"
    )


def us_book_record(s: Symbol, t: KstClock) -> str:
    """Return one overseas book record: 11 fields, then ten levels of 6."""
    fields = [
        s.code, s.code[4:], "4", t.us_day, t.us_hms, t.day, t.hms, str(s.bid_size * 11), str(s.ask_size * 11), "0", "0",
    ]  # fmt: skip
    for level in range(LEVELS):
        bid = max(0, s.bid - 100 * level) if s.bid else 0
        ask = s.ask + 100 * level if s.ask else 0
        fields += [_dollars(bid), _dollars(ask), str(s.bid_size + level if bid else 0), str(s.ask_size + level if ask else 0), "0", "0"]
    return "^".join(fields)
