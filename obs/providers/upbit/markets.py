"""The pairs of Upbit and what was traded of each in the last 24 hours, from `/v1/market/all` and `/v1/ticker/all`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from obs.errors import DecodeError
from obs.record.instruments import Instrument

MARKETS_PATH: Final = "/v1/market/all?is_details=true"
TICKERS_PATH: Final = "/v1/ticker/all?quote_currencies=KRW"
_QUOTE: Final = "KRW-"  # traded value is compared in KRW


def parse_markets(markets: bytes, tickers: bytes) -> list[Instrument]:
    """Return every KRW pair. Raises DecodeError if one of the answers is no list of objects, or a pair has no usable figures.

    A pair that one of the two answers lacks was listed or delisted a moment ago: it is there, refused.
    """
    named = {_text(row, "market"): row for row in _rows(markets, "market/all")}
    traded = {_text(row, "market"): row for row in _rows(tickers, "ticker/all")}
    nan = float("nan")
    found = []
    for symbol in sorted(code for code in named.keys() | traded.keys() if code.startswith(_QUOTE)):
        row, ticker = named.get(symbol), traded.get(symbol)
        name = _text(row, "korean_name") if row is not None else symbol
        if row is None or ticker is None:
            found.append(Instrument(symbol, name, nan, nan, "listing"))
            continue
        found.append(Instrument(symbol, name, _figure(ticker, "prev_closing_price"), _figure(ticker, "acc_trade_price_24h")))
    return found


def _rows(body: bytes, call: str) -> list[dict[str, Any]]:
    try:
        rows = orjson.loads(body)
    except orjson.JSONDecodeError:
        rows = None
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise DecodeError("answer is no list of objects", call=call, length=len(body))
    return rows


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value:
        raise DecodeError("a pair lacks a text", field=name)
    return value


def _figure(row: Mapping[str, Any], name: str) -> float:
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise DecodeError("a pair lacks a figure", field=name, market=str(row.get("market")))
    return float(value)
