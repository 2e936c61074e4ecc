"""Upbit messages of our own making, in the venue's four formats, with the rows they must become."""

from __future__ import annotations

import json
import re
from typing import Any

from inputs import row

SYMBOLS = ["KRW-BTC", "KRW-ETH", "BTC-1INCH"]
MS = 1_784_000_000_101
NS = MS * 1_000_000
PAIRS = (
    "type=ty code=cd timestamp=tms trade_date=td trade_time=ttm trade_timestamp=ttms trade_price=tp trade_volume=tv ask_bid=ab "
    "prev_closing_price=pcp sequential_id=sid best_ask_price=bap best_ask_size=bas best_bid_price=bbp best_bid_size=bbs stream_type=st "
    "total_ask_size=tas orderbook_units=obu ask_price=ap bid_price=bp ask_size=as bid_size=bs level=lv acc_trade_volume=atv market_state=ms"
)
SHORT = dict(pair.split("=") for pair in PAIRS.split())


def literal(spelling: str) -> str:
    """Return a number that keeps its spelling when `text` writes it."""
    return f"#{spelling}#"


def trade(code: str = "KRW-BTC", **changed: Any) -> dict[str, Any]:
    message = {
        "type": "trade", "code": code, "timestamp": MS + 50, "trade_date": "2026-07-14", "trade_time": "03:33:20", "trade_timestamp": MS,
        "trade_price": literal("106691000.00000000"), "trade_volume": literal("0.00012345"), "ask_bid": "BID",
        "prev_closing_price": 107005000, "sequential_id": 17840000001010004, "best_ask_price": 106705000, "best_ask_size": 0.00906333,
        "best_bid_price": literal("1.06691E8"), "best_bid_size": literal("7.9276E-4"), "stream_type": "REALTIME",
    }  # fmt: skip
    return {name: value for name, value in (message | changed).items() if value != "absent"}


def trade_row(symbol: str = "KRW-BTC", place: int = 1, **known: Any) -> dict[str, Any]:
    usual: dict[str, Any] = {
        "event_ns": NS, "side": "buy", "quoted": True, "price": 106691000.0, "size": 0.00012345, "ask_price": 106705000.0,
        "ask_size": 0.00906333, "bid_price": 106691000.0, "bid_size": 0.00079276, "venue_seq": 17840000001010004,
    }  # fmt: skip
    return row("trade", symbol, place, **(usual | known))


def book(code: str = "KRW-BTC", levels: int = 2, **changed: Any) -> dict[str, Any]:
    units = [
        {"ask_price": 106705000 + 1000 * level, "bid_price": 106691000 - 1000 * level, "ask_size": 0.5 + level, "bid_size": 0.25 + level}
        for level in range(levels)
    ]
    message = {"type": "orderbook", "code": code, "timestamp": MS, "total_ask_size": 2.5, "orderbook_units": units}
    message |= {"stream_type": "REALTIME", "level": 0}
    return {name: value for name, value in (message | changed).items() if value != "absent"}


def book_row(symbol: str = "KRW-BTC", place: int = 1, **known: Any) -> dict[str, Any]:
    usual: dict[str, Any] = {"event_ns": NS, "ask_price": 106705000.0, "ask_size": 0.5, "bid_price": 106691000.0, "bid_size": 0.25}
    return row("quote", symbol, place, **(usual | known))


def ticker(code: str = "KRW-BTC", **changed: Any) -> dict[str, Any]:
    message = {
        "type": "ticker", "code": code, "opening_price": 1.0, "trade_price": 106691000, "acc_trade_volume": literal("14163.64845603"),
        "trade_timestamp": MS, "timestamp": MS + 77, "market_state": "ACTIVE", "delisting_date": None, "stream_type": "REALTIME",
    }  # fmt: skip
    return {name: value for name, value in (message | changed).items() if value != "absent"}


def ticker_row(symbol: str = "KRW-BTC", place: int = 1, **known: Any) -> dict[str, Any]:
    usual: dict[str, Any] = {"event_ns": NS, "phase": "regular", "price": 106691000.0, "acc_volume": 14163.64845603, "acc_day": 20260714}
    return row("ticker", symbol, place, **(usual | known))


def short(message: Any) -> Any:
    """Return a message with the keys of the SIMPLE formats."""
    if isinstance(message, dict):
        return {SHORT.get(name, name): short(value) for name, value in message.items()}
    return [short(value) for value in message] if isinstance(message, list) else message


def text(message: Any, separators: tuple[str, str] = (",", ":")) -> bytes:
    return re.sub(rb'"#([^#"]*)#"', rb"\1", json.dumps(message, separators=separators, ensure_ascii=False).encode())


NAN = float("nan")
_MESSAGES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "trade": (trade(), trade_row()),
    "trade_sell_without_quotes": (
        trade(ask_bid="ASK", best_ask_price="absent", best_ask_size="absent", best_bid_price="absent", best_bid_size=None),
        trade_row(side="sell", quoted=False, ask_price=NAN, ask_size=NAN, bid_price=NAN, bid_size=NAN),
    ),
    "trade_snapshot": (trade("KRW-ETH", stream_type="SNAPSHOT"), trade_row("KRW-ETH", 2, ignore="snapshot")),
    "trade_old_form": (
        trade("BTC-1INCH", stream_type="absent", trade_timestamp="absent", sequential_id="absent", trade_price=literal("5.0E-8")),
        trade_row("BTC-1INCH", 3, event_ns=0, venue_seq=-1, price=5e-8),
    ),
    "trade_zero_side": (trade(best_bid_price=0, best_bid_size=0), trade_row(bid_price=NAN, bid_size=NAN)),
    "trade_far_sequence": (trade(sequential_id=9_223_372_036_854_775_807), trade_row(venue_seq=9_223_372_036_854_775_807)),
    "trade_stranger": (trade("KRW-XRP", stream_type="SNAPSHOT"), trade_row("KRW-XRP", 0, ignore="unknown_symbol")),
    "trade_quoted_numbers": (trade(trade_price="148737000.00000000", sequential_id="17840000001010004"), trade_row(price=148737000.0)),
    "trade_unknown_fields": (trade(new={"type": "trade", "x": [1, {"code": 2}]}), trade_row()),
    "book": (book(), book_row()),
    "book_30_levels": (book(levels=30), book_row()),
    "book_depth_suffix": (book("KRW-BTC.1", levels=1), book_row()),
    "book_depth_suffix_stranger": (book("KRW-XRP.15"), book_row("KRW-XRP", 0, ignore="unknown_symbol")),
    "book_snapshot_is_current": (book(stream_type="SNAPSHOT", level="absent"), book_row()),
    "book_empty": (book(levels=0), book_row(ask_price=NAN, ask_size=NAN, bid_price=NAN, bid_size=NAN)),
    "book_padded": (
        book(orderbook_units=[{"ask_price": 0, "bid_price": 106691000, "ask_size": 0, "bid_size": 0.25}]),
        book_row(ask_price=NAN, ask_size=NAN),
    ),
    "ticker": (ticker(), ticker_row()),
    "ticker_snapshot_is_current": (ticker(stream_type="SNAPSHOT", market_state="PREVIEW"), ticker_row(phase="pre_open")),
    "ticker_short": (ticker(acc_trade_volume="absent", timestamp=None, market_state="x"), ticker_row(phase="", acc_volume=NAN, acc_day=0)),
}
FRAMES: dict[str, tuple[bytes, list[dict[str, Any]]]] = {}
for _name, (_message, _row) in _MESSAGES.items():
    FRAMES[f"synthetic_{_name}_DEFAULT"] = text(_message), [_row]
    FRAMES[f"synthetic_{_name}_SIMPLE"] = text(short(_message)), [_row]
    FRAMES[f"synthetic_{_name}_JSON_LIST"] = text([_message]), [_row]
    FRAMES[f"synthetic_{_name}_SIMPLE_LIST"] = text([short(_message)]), [_row]
FRAMES["synthetic_list_of_three"] = text([trade(), short(book("KRW-ETH")), ticker()]), [trade_row(), book_row("KRW-ETH", 2), ticker_row()]
FRAMES["synthetic_other_key_order"] = text(dict(reversed(trade().items()))), [trade_row()]
FRAMES["synthetic_spaced"] = b" " + text(trade(), (", ", ": ")) + b"\n", [trade_row()]

CONTROL_FRAMES = {
    "synthetic_status": b'{"status":"UP"}',
    "synthetic_error": '{"error":{"message":"형식이 다릅니다","name":"WRONG_FORMAT"}}'.encode(),
    "synthetic_list": b'{"method":"LIST_SUBSCRIPTIONS","result":[{"type":"trade","codes":["KRW-BTC"]}],"ticket":"x"}',
}
