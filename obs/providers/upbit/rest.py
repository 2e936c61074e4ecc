"""The REST side of Upbit: pairs, tickers, best quotes, 10-minute candles. Calls to make, and answers read.

| call | limiter group | note |
|---|---|---|
| market/all, ticker/all | market, ticker | every pair in one answer, so that a delisted one fails nothing |
| orderbook | orderbook | up to 100 pairs a call; one unknown pair fails the whole call with 404 |
| candles/minutes/10 | candles | one pair a call; a period without trades has no candle |
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlencode

import numpy as np
import orjson

from obs.clock import NS
from obs.errors import ConnectionLost, DecodeError, RateLimited
from obs.providers.base import Call, ProviderOptions, Request, figure
from obs.providers.upbit.markets import MARKETS_PATH, TICKERS_PATH
from obs.record.quotes import BAR_S, Candle, unknown_quotes

# Source: documentation: requests count per IP and group; the names are those of Remaining-Req (observed), market is ours.
MARKET_GROUP: Final = "market"
TICKER_GROUP: Final = "ticker"
BOOK_GROUP: Final = "orderbook"
CANDLE_GROUP: Final = "candles"
GROUPS: Final = (MARKET_GROUP, TICKER_GROUP, BOOK_GROUP, CANDLE_GROUP)

TOO_MANY: Final = 429
BLOCKED: Final = 418  # Source: documentation: for going on after 429; the length of the block is in the body, and grows
TOO_MANY_WAIT_S: Final = 1.0  # Source: documentation: the allowance is counted per second
BLOCKED_WAIT_S: Final = 10.0  # Source: ours, where the body names no length
BLOCKED_MOST_S: Final = 3600.0
NEAR_WAIT_S: Final = 0.25  # Source: ours: nothing is left of this second's allowance, which others of this IP use too

_SECONDS: Final = re.compile(rb"(\d{1,6})")
_LEFT: Final = re.compile(r"sec=(\d{1,6})")
# QUOTE field <- field of a ticker. Source: documentation.
_PRICES: Final = (
    ("price", "trade_price"), ("day_open", "opening_price"), ("day_high", "high_price"), ("day_low", "low_price"),
    ("base_price", "prev_closing_price"),
)  # fmt: skip
_SUMS: Final = (("acc_volume", "acc_trade_volume"), ("acc_value", "acc_trade_price"))


def universe_calls(options: ProviderOptions) -> list[Call]:
    return [_get(options, MARKETS_PATH, MARKET_GROUP), _get(options, TICKERS_PATH, TICKER_GROUP)]


def quote_calls(options: ProviderOptions, symbols: Sequence[str], at_once: int) -> list[Call]:
    """Return one call for all tickers, then calls for the best quotes of up to `at_once` pairs each."""
    calls = [_get(options, TICKERS_PATH, TICKER_GROUP, tuple(symbols))]
    for start in range(0, len(symbols), at_once):
        part = tuple(symbols[start : start + at_once])
        calls.append(_get(options, "/v1/orderbook?" + urlencode({"markets": ",".join(part), "count": 1}), BOOK_GROUP, part))
    return calls


def parse_quotes(body: bytes, symbols: Sequence[str]) -> np.ndarray:
    """Return the QUOTE rows of tickers or of order books; a row that does not read is left out, its neighbours are not."""
    rows = _rows(body, "quotes")
    wanted, quotes, count = set(symbols), unknown_quotes(len(rows)), 0
    for row in rows:
        symbol = row.get("market")
        if not isinstance(symbol, str) or symbol not in wanted:
            continue
        if "orderbook_units" in row:
            _book(quotes[count], row["orderbook_units"])
        else:
            _ticker(quotes[count], row)
        quotes[count]["symbol"] = symbol.encode()
        count += 1
    return quotes[:count]


def _ticker(quote: np.void, row: Mapping[str, Any]) -> None:
    for name, field in _PRICES:
        quote[name] = figure(row.get(field), positive=True)
    for name, field in _SUMS:
        quote[name] = figure(row.get(field))
    traded_ms = figure(row.get("trade_timestamp"), positive=True)
    quote["event_ns"] = int(traded_ms) * 1_000_000 if traded_ms < 1e13 else 0


def _book(quote: np.void, units: Any) -> None:
    """Source: measured: the best level comes first; a side without orders is padded with price 0."""
    best = units[0] if isinstance(units, list) and units and isinstance(units[0], dict) else {}
    quote["bid_price"] = figure(best.get("bid_price"), positive=True)
    quote["ask_price"] = figure(best.get("ask_price"), positive=True)


def candle_call(options: ProviderOptions, symbol: str, bar_ns: int) -> Call:
    """Return the call for the newest candle that begins before the bar's end; `to` is exclusive."""
    until = f"{datetime.fromtimestamp(bar_ns // NS + BAR_S, UTC):%Y-%m-%dT%H:%M:%SZ}"
    return _get(options, "/v1/candles/minutes/10?" + urlencode({"market": symbol, "to": until, "count": 1}), CANDLE_GROUP, (symbol,))


def parse_candle(body: bytes, bar_ns: int) -> Candle | None:
    """Return the bar; None if the newest candle is an older one, or if there is none at all."""
    begin = f"{datetime.fromtimestamp(bar_ns // NS, UTC):%Y-%m-%dT%H:%M:%S}"
    for row in _rows(body, "candles"):
        begins = row.get("candle_date_time_utc")
        if not isinstance(begins, str):
            raise DecodeError("a candle has no time", call="candles")
        if begins != begin:
            continue
        names = ("opening_price", "high_price", "low_price", "trade_price")
        opened, high, low, close = (figure(row.get(name), positive=True) for name in names)
        volume = figure(row.get("candle_acc_trade_volume"))
        if not (low <= min(opened, close) <= max(opened, close) <= high and volume >= 0):  # NaN compares with nothing
            raise DecodeError("a candle lacks a figure", call="candles")
        return Candle(bar_ns, opened, high, low, close, volume)
    return None


def judge(status: int, headers: Mapping[str, str], body: bytes) -> float:
    """See obs.providers.base.Rest. A good answer is a list, an error an object, whatever the status."""
    if status == TOO_MANY:
        raise RateLimited("venue counts too many calls", status=status, wait_s=TOO_MANY_WAIT_S)
    if status == BLOCKED:
        told = _SECONDS.findall(body.replace(b"418", b""))
        wait_s = min(max([float(seconds) for seconds in told], default=BLOCKED_WAIT_S), BLOCKED_MOST_S)
        raise RateLimited("venue blocks this address", status=status, wait_s=max(wait_s, 1.0))
    if status != 200 or body.lstrip()[:1] != b"[":
        reason = "unknown_symbol" if status == 404 and b"Code not found" in body else "api_error"
        raise ConnectionLost("venue refused the call", reason=reason, status=status, length=len(body))
    left = _LEFT.search(headers.get("Remaining-Req") or headers.get("remaining-req") or "")
    return NEAR_WAIT_S if left is not None and int(left[1]) == 0 else 0.0


def _get(options: ProviderOptions, path: str, group: str, symbols: tuple[str, ...] = ()) -> Call:
    return Call(Request("GET", options.rest_url.rstrip("/") + path, (("accept", "application/json"),), b""), group, symbols)


def _rows(body: bytes, call: str) -> list[dict[str, Any]]:
    try:
        rows = orjson.loads(body)
    except orjson.JSONDecodeError:
        rows = None
    if not isinstance(rows, list):
        raise DecodeError("answer is no list", call=call, length=len(body))
    return [row for row in rows if isinstance(row, dict)]
