"""Facts of the Upbit quotation API, each with its source.

"documentation": docs.upbit.com, WebSocket guide (updated 2026-09-16) and rate limits (2026-10-07), v1.6.4. "measured": by a third
party against the live service, 2026-09-02 and 2026-09-23, not documented or not as documented.
"""

from __future__ import annotations

from typing import Final

# Source: documentation, WebSocket guide.
WS_PATH: Final = "/websocket/v1"
VENUES: Final = ("kr", "sg", "id", "th")  # each a separate exchange on its own host

# Generic channel -> type of a request and of its messages. Source: documentation.
TYPES: Final = {"trade": "trade", "book": "orderbook", "ticker": "ticker"}
# Levels of an order book, asked for as a suffix of the code. Source: documentation, change of 2025-07-02.
DEPTHS: Final = (1, 5, 15, 30)
# Source: documentation: required; measured: left out means DEFAULT. A request may ask for any, the decoder reads all four.
FORMATS: Final = ("DEFAULT", "SIMPLE", "JSON_LIST", "SIMPLE_LIST")

SNAPSHOT: Final = "SNAPSHOT"
REALTIME: Final = "REALTIME"
ASK: Final = "ASK"  # the taker sold
BID: Final = "BID"  # the taker bought

# DEFAULT key -> SIMPLE key of what is read. Source: documentation, "trade", "orderbook", "ticker";
# best_* since 2024-11-27.
TRADE_KEYS: Final = {
    "code": "cd", "trade_price": "tp", "trade_volume": "tv", "ask_bid": "ab", "trade_timestamp": "ttms", "sequential_id": "sid",
    "best_ask_price": "bap", "best_ask_size": "bas", "best_bid_price": "bbp", "best_bid_size": "bbs", "stream_type": "st",
}  # fmt: skip
BOOK_KEYS: Final = {"code": "cd", "orderbook_units": "obu", "timestamp": "tms", "stream_type": "st"}
UNIT_KEYS: Final = {"ask_price": "ap", "bid_price": "bp", "ask_size": "as", "bid_size": "bs"}
TICKER_KEYS: Final = {
    "code": "cd", "trade_price": "tp", "acc_trade_volume": "atv", "trade_timestamp": "ttms", "timestamp": "tms", "market_state": "ms",
    "stream_type": "st",
}  # fmt: skip

# Limits. Source: documentation, rate limits: 5 connections a second; 5 messages a second and 100 a minute, taken as per IP.
CONNECT_SPACING_S: Final = 0.2
MESSAGES_PER_S: Final = 5.0
MESSAGES_PER_MINUTE: Final = 100.0
# Source: documentation: 10 requests a second per IP and group; ours: fewer, because others behind the address count too.
CALLS_PER_S: Final = 8.0
# Source: ours: measured, all 855 pairs in one orderbook call are answered, but one unknown pair fails the whole call.
QUOTE_SYMBOLS: Final = 100
# Source: ours: the universe rule is in KRW, and that is what the Korean exchange alone trades in.
UNIVERSE_VENUE: Final = "kr"
# Source: measured: an idle connection is cut after 60 s (documentation: 120 s); a ping is answered in about 165 ms.
PING_EVERY_S: Final = 20.0
PONG_TIMEOUT_S: Final = 10.0
# Source: ours: with a pong due each 20 s, 30 s of nothing at all is a dead path.
MUTE_S: Final = 30.0
# Source: measured: a code's SNAPSHOT comes 172-354 ms after the request; a wrong code is ignored without a word.
CONFIRM_S: Final = 5.0
